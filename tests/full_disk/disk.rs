//! A file system of its own, as small as a test needs it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const MIB: u64 = 1 << 20;

/// A tmpfs that is mounted until it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of so many bytes.
    pub fn mount(dir: PathBuf, bytes: u64) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let options = format!("size={bytes},mode=700,nr_inodes=1000");
        run("mount", &["-t", "tmpfs", "-o", &options, "none"], &dir);
        Self(dir)
    }

    /// Lets it hold so many files, its own directory included.
    pub fn limit_files(&self, most: u32) {
        run("mount", &["-o", &format!("remount,nr_inodes={most}")], &self.0);
    }

    pub fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.0).unwrap();
        found.f_bavail * found.f_frsize
    }

    /// Takes all that is free, to the last block; true when there was something.
    pub fn fill(&self) -> bool {
        self.fill_but(0)
    }

    /// Takes all but so many bytes; true when there was something.
    pub fn fill_but(&self, bytes: u64) -> bool {
        let mut filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        let mut taken = false;
        while self.free() > bytes {
            match filler.write(&[7; 4096]) {
                Ok(written) => taken |= written > 0,
                Err(err) if err.kind() == ErrorKind::StorageFull => break,
                Err(err) => panic!("{err}"),
            }
        }
        taken
    }

    /// Gives back so many bytes of what was taken.
    pub fn give_back(&self, bytes: u64) {
        let filler = File::options().write(true).open(self.filler()).unwrap();
        filler.set_len(filler.metadata().unwrap().len().saturating_sub(bytes)).unwrap();
    }

    /// Gives back what was taken.
    pub fn empty(&self) {
        if let Err(err) = fs::remove_file(self.filler()) {
            assert_eq!(err.kind(), ErrorKind::NotFound);
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A daemon that is killed a moment later still has files open.
        run("umount", &["--lazy"], &self.0);
    }
}

fn run(program: &str, arguments: &[&str], dir: &Path) {
    let status = Command::new(program).args(arguments).arg(dir).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}
