//! What differs between operating systems, and only that.
//!
//! Elsewhere than on Unix the questions about owners and modes have harmless answers, and the
//! operating system's own access lists decide.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _};
use std::path::Path;
use std::time::Duration;

pub mod socket;

pub use imp::{
    ARC_AGENT, allocate, create_dir_private, create_private, effective_user, free_bytes, host_name,
    inode, is_disk_error, is_network_fs, may_write, mode, no_follow, no_wait, on_reopen_signal,
    on_stop_signals, open_private, owner, rename_new, set_mode, sync_dir,
};

/// The path, or the nearest one above it that exists.
pub fn existing(path: &Path) -> &Path {
    let named = path.ancestors().filter(|above| !above.as_os_str().is_empty());
    named.into_iter().find(|above| above.exists()).unwrap_or(Path::new("."))
}

/// True when an error says that there is no room: on the file system, in a quota, or for a file
/// that has its largest size.
pub fn is_no_room(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
}

/// Fills a file with zeros from its end up to `length`.
fn fill(mut file: &File, length: u64) -> io::Result<()> {
    let from = file.seek(io::SeekFrom::End(0))?;
    io::copy(&mut io::repeat(0).take(length.saturating_sub(from)), &mut file).map(drop)
}

/// Takes the exclusive lock of an open file; false when another process holds it.
///
/// A process that is just being started holds for a moment what its parent had locked, so the
/// question is asked again before it counts.
pub fn lock(file: &File) -> io::Result<bool> {
    const ATTEMPTS: u32 = 20;
    for _ in 0..ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => std::thread::park_timeout(Duration::from_millis(5)),
            Err(TryLockError::Error(err)) => return Err(err),
        }
    }
    Ok(false)
}

/// Renames where the operating system itself does not look at what has the new name already.
fn rename_unless_taken(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => std::fs::rename(from, to),
    }
}

#[cfg(unix)]
mod imp {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
    use std::path::Path;

    use rustix::fs::{Access, AtFlags, CWD, OFlags};

    /// Where the agent of Azure Arc is, and where it leaves its proofs: each below a directory that
    /// a variable of the environment names, if one does.
    pub const ARC_AGENT: [(Option<&str>, &str); 2] =
        [(None, "/opt/azcmagent/bin/himds"), (None, "/var/opt/azcmagent/tokens")];

    /// The numeric user who owns an open file.
    pub fn owner(file: &File) -> io::Result<u32> {
        Ok(file.metadata()?.uid())
    }

    /// The permission bits of an open file.
    pub fn mode(file: &File) -> io::Result<u32> {
        Ok(file.metadata()?.mode() & 0o7777)
    }

    /// Device and inode number of a file: its identity while it exists.
    pub fn inode(metadata: &Metadata) -> (u64, u64) {
        (metadata.dev(), metadata.ino())
    }

    /// The numeric user this process acts as.
    pub fn effective_user() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// What this machine calls itself.
    pub fn host_name() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// Calls `asked` at each SIGINT and SIGTERM, in a thread of its own.
    pub fn on_stop_signals(asked: impl FnMut() + Send + 'static) -> io::Result<()> {
        use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
        // A file that may not grow is a full disk, not a reason to die.
        signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default())?;
        on_signals(&[SIGINT, SIGTERM], asked)
    }

    /// Calls `asked` at each SIGHUP, in a thread of its own.
    pub fn on_reopen_signal(asked: impl FnMut() + Send + 'static) -> io::Result<()> {
        on_signals(&[signal_hook::consts::SIGHUP], asked)
    }

    fn on_signals(
        signals: &[std::ffi::c_int],
        mut asked: impl FnMut() + Send + 'static,
    ) -> io::Result<()> {
        let mut signals = signal_hook::iterator::Signals::new(signals)?;
        let listen = move || signals.forever().for_each(|_| asked());
        std::thread::Builder::new().name("signals".into()).spawn(listen)?;
        Ok(())
    }

    /// How many bytes anybody may still write to the file system that holds `path`.
    pub fn free_bytes(path: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(path)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// True when an error says that the device below a file has failed.
    pub fn is_disk_error(err: &io::Error) -> bool {
        err.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
    }

    /// Makes a file at least `length` bytes long, and all of them its own on the disk.
    #[cfg(target_os = "linux")]
    pub fn allocate(file: &File, length: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::{Errno, retry_on_intr};
        match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, length)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => super::fill(file, length),
            allocated => Ok(allocated?),
        }
    }

    /// Makes a file at least `length` bytes long, and all of them its own on the disk.
    #[cfg(not(target_os = "linux"))]
    pub fn allocate(file: &File, length: u64) -> io::Result<()> {
        super::fill(file, length)
    }

    /// Opens a file for reading and writing; a missing one is created for its owner alone.
    pub fn open_private(path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    /// Creates a file for its owner alone, to be written; fails when something has the name already.
    pub fn create_private(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    /// Fails when this process may not read and write a file, or read a directory and make files
    /// in it. Touches nothing.
    pub fn may_write(path: &Path) -> io::Result<()> {
        let mut wanted = Access::READ_OK | Access::WRITE_OK;
        wanted.set(Access::EXEC_OK, path.is_dir());
        Ok(rustix::fs::accessat(CWD, path, wanted, AtFlags::EACCESS)?)
    }

    /// Creates a directory, and its missing parents, for its owner alone; one that exists stays as
    /// it is.
    pub fn create_dir_private(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// Sets the permission bits of an open file or directory.
    pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(mode))
    }

    /// Renames a file; fails when something has the new name already.
    #[cfg(target_os = "linux")]
    pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system knows how.
            Err(Errno::INVAL | Errno::NOSYS) => super::rename_unless_taken(from, to),
            renamed => Ok(renamed?),
        }
    }

    /// Renames a file; fails when something has the new name already.
    #[cfg(not(target_os = "linux"))]
    pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
        super::rename_unless_taken(from, to)
    }

    /// Makes the names in a directory survive a power cut.
    pub fn sync_dir(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Has an open fail when the last part of the path is a symbolic link. Replaces [`no_wait`].
    pub fn no_follow(options: &mut OpenOptions) -> &mut OpenOptions {
        with(options, OFlags::NOFOLLOW)
    }

    /// Has the open of a pipe not wait for its other end. Replaces [`no_follow`].
    pub fn no_wait(options: &mut OpenOptions) -> &mut OpenOptions {
        with(options, OFlags::NONBLOCK)
    }

    fn with(options: &mut OpenOptions, flags: OFlags) -> &mut OpenOptions {
        let flags = flags.bits().try_into().expect("an open flag fits the C type");
        options.custom_flags(flags)
    }

    /// The kind of network file system that holds `path`, which must exist; none for a local one.
    #[cfg(target_os = "linux")]
    pub fn is_network_fs(path: &Path) -> io::Result<Option<&'static str>> {
        // The magic is 32 bits on every file system; the field's type differs by architecture.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let magic = rustix::fs::statfs(path)?.f_type as u32;
        if magic != super::magic::FUSE {
            return Ok(super::magic::network_name(magic));
        }
        let device = std::fs::metadata(path)?.dev();
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        Ok(super::magic::network_fuse(&mounts, device))
    }

    /// The kind of network file system that holds `path`; not known here.
    #[cfg(not(target_os = "linux"))]
    pub fn is_network_fs(path: &Path) -> io::Result<Option<&'static str>> {
        std::fs::metadata(path).map(|_| None)
    }
}

#[cfg(not(unix))]
mod imp {
    use std::fs::{File, Metadata, OpenOptions};
    use std::io;
    use std::path::Path;

    /// Where the agent of Azure Arc is, and where it leaves its proofs: each below a directory that
    /// a variable of the environment names, if one does.
    pub const ARC_AGENT: [(Option<&str>, &str); 2] = [
        (Some("ProgramFiles"), r"AzureConnectedMachineAgent\himds.exe"),
        (Some("ProgramData"), r"AzureConnectedMachineAgent\Tokens"),
    ];

    /// The numeric user who owns an open file: always ours.
    pub fn owner(_: &File) -> io::Result<u32> {
        Ok(0)
    }

    /// The permission bits of an open file: always private.
    pub fn mode(_: &File) -> io::Result<u32> {
        Ok(0o600)
    }

    /// Device and inode number of a file: not known here.
    pub fn inode(_: &Metadata) -> (u64, u64) {
        (0, 0)
    }

    /// The numeric user this process acts as: not known here.
    pub fn effective_user() -> u32 {
        0
    }

    /// What this machine calls itself: not known here.
    pub fn host_name() -> String {
        "unknown".into()
    }

    /// Does nothing here: the process ends as the operating system ends it, which is safe.
    pub fn on_stop_signals(_: impl FnMut() + Send + 'static) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing here: there is no such signal.
    pub fn on_reopen_signal(_: impl FnMut() + Send + 'static) -> io::Result<()> {
        Ok(())
    }

    /// Creates a file to be written; fails when something has the name already.
    pub fn create_private(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    /// Renames a file; fails when something has the new name already.
    pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
        super::rename_unless_taken(from, to)
    }

    /// True when an error says that the device below a file has failed: not known here.
    pub fn is_disk_error(_: &io::Error) -> bool {
        false
    }

    /// How much room there is: not known here.
    pub fn free_bytes(_: &Path) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes a file at least `length` bytes long, and all of them its own on the disk.
    pub fn allocate(file: &File, length: u64) -> io::Result<()> {
        super::fill(file, length)
    }

    /// Opens a file for reading and writing, creating it where it is missing.
    pub fn open_private(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
    }

    /// Fails when the file is marked as one that is only read.
    pub fn may_write(path: &Path) -> io::Result<()> {
        let read_only = std::fs::metadata(path)?.permissions().readonly();
        if read_only { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    /// Creates a directory and its missing parents.
    pub fn create_dir_private(path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    /// Does nothing here.
    pub fn set_mode(_: &File, _: u32) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing here.
    pub fn sync_dir(_: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing here.
    pub fn no_follow(options: &mut OpenOptions) -> &mut OpenOptions {
        options
    }

    /// Does nothing here.
    pub fn no_wait(options: &mut OpenOptions) -> &mut OpenOptions {
        options
    }

    /// The kind of network file system: not known here.
    pub fn is_network_fs(_: &Path) -> io::Result<Option<&'static str>> {
        Ok(None)
    }
}

#[cfg(any(target_os = "linux", test))]
mod magic {
    /// The magic of every file system in user space.
    pub const FUSE: u32 = 0x6573_5546;

    /// The network file system with this magic; none for a local one.
    pub const fn network_name(magic: u32) -> Option<&'static str> {
        Some(match magic {
            0x6969 => "nfs",
            0x517B => "smb",
            0xFF53_4D42 => "cifs",
            0xFE53_4D42 => "smb2",
            0x0102_1997 => "9p",
            0x5346_414F => "afs",
            0x00C3_6400 => "ceph",
            0x564C => "ncp",
            0x0BD0_0BD0 => "lustre",
            0x7375_7245 => "coda",
            _ => return None,
        })
    }

    /// The network file system in user space that is mounted as `device`, by the text of
    /// `mountinfo`.
    pub fn network_fuse(mountinfo: &str, device: (u32, u32)) -> Option<&'static str> {
        let device = format!("{}:{}", device.0, device.1);
        let of_device = |line: &&str| line.split(' ').nth(2).is_some_and(|number| number == device);
        let line = mountinfo.lines().find(of_device)?;
        let kind = line.split_once(" - ")?.1.split(' ').next()?;
        ["fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone"]
            .into_iter()
            .find(|known| *known == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::magic::{network_fuse, network_name};
    #[cfg(unix)]
    use super::*;

    #[test]
    fn a_network_file_system_is_known_by_its_magic() {
        assert_eq!(network_name(0x6969), Some("nfs"));
        assert_eq!(network_name(0xFF53_4D42), Some("cifs"));
        assert_eq!(network_name(0xEF53), None, "ext4");
        assert_eq!(network_name(0x0102_1994), None, "tmpfs");
    }

    #[test]
    fn of_the_file_systems_in_user_space_only_the_remote_ones_count() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      90 22 0:51 / /mnt/a rw,nosuid shared:2 master:1 - fuse.sshfs me@there:/ rw\n\
                      91 22 0:52 / /mnt/b rw - fuse.bindfs /srv rw\n";

        assert_eq!(network_fuse(mounts, (0, 51)), Some("fuse.sshfs"));
        assert_eq!(network_fuse(mounts, (0, 52)), None);
        assert_eq!(network_fuse(mounts, (0, 5)), None);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_created_private_is_the_owners_alone() {
        let home = tempfile::tempdir().unwrap();
        let (dir, path) = (home.path().join("a/b"), home.path().join("a/b/file"));

        create_dir_private(&dir).unwrap();
        let file = open_private(&path).unwrap();

        assert_eq!(mode(&file).unwrap(), 0o600);
        assert_eq!(mode(&File::open(&dir).unwrap()).unwrap(), 0o700);
        assert_eq!(owner(&file).unwrap(), effective_user());
        let again = open_private(&path).unwrap();
        assert_eq!(inode(&file.metadata().unwrap()), inode(&again.metadata().unwrap()));
        set_mode(&file, 0o640).unwrap();
        assert_eq!(mode(&file).unwrap(), 0o640);
        sync_dir(&dir).unwrap();
    }

    #[test]
    fn a_rename_takes_no_name_that_something_has() {
        let home = tempfile::tempdir().unwrap();
        let [from, free, taken] = ["from", "free", "taken"].map(|name| home.path().join(name));
        std::fs::write(&from, "new").unwrap();
        std::fs::write(&taken, "old").unwrap();

        for rename in [rename_new, rename_unless_taken] {
            let refused = rename(&from, &taken).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(&taken).unwrap(), b"old");
            rename(&from, &free).unwrap();
            rename(&free, &from).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_allocated_takes_room_on_the_disk() {
        use std::os::unix::fs::MetadataExt as _;
        let home = tempfile::tempdir().unwrap();
        let make = |name: &str| open_private(&home.path().join(name)).unwrap();

        for (name, work) in [("a", allocate as fn(&File, u64) -> _), ("b", fill)] {
            let file = make(name);
            work(&file, 100_000).unwrap();
            work(&file, 300_000).unwrap();
            let found = file.metadata().unwrap();
            assert_eq!(found.len(), 300_000, "{name}");
            assert!(found.blocks() * 512 >= 300_000, "{name}: {} blocks", found.blocks());
        }
        assert!(free_bytes(home.path()).unwrap() > 0);
        assert!(free_bytes(&home.path().join("missing")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed_when_asked() {
        let home = tempfile::tempdir().unwrap();
        let link = home.path().join("link");
        std::fs::write(home.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink(home.path().join("file"), &link).unwrap();

        let mut options = std::fs::OpenOptions::new();
        options.read(true);
        assert!(options.open(&link).is_ok());
        assert!(no_follow(&mut options).open(&link).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn the_nearest_that_exists_is_found_and_has_room() {
        let home = tempfile::tempdir().unwrap();

        let found = existing(&home.path().join("a/b")).to_owned();

        assert_eq!(found, home.path());
        assert_eq!(existing(Path::new("no such name/a")), Path::new("."));
        may_write(&found).unwrap();
        assert!(may_write(&home.path().join("a")).is_err());
        assert!(free_bytes(&found).unwrap() > 0);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_system_of_a_directory_is_examined() {
        let home = tempfile::tempdir().unwrap();

        assert!(is_network_fs(home.path()).is_ok());
        assert!(is_network_fs(&home.path().join("missing")).is_err());
    }
}
