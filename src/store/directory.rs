//! The state directory: private, local, locked, and on stable storage before anything rests on it.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use crate::sys;

const DATABASE: &str = "siemferry.db";
const LOCK: &str = "siemferry.lock";

pub(super) fn database(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

/// What SQLite writes to before it writes to the database.
pub(super) fn log(dir: &Path) -> PathBuf {
    database(dir).with_extension("db-wal")
}

/// Makes the directory if it is new, refuses one that cannot be trusted, and locks it.
pub(super) fn prepare(dir: &Path) -> Result<File, Error> {
    create(dir)?;
    refuse_network(dir)?;
    make_private(dir)?;
    lock(dir)
}

/// Looks for what [`prepare`] would refuse; makes nothing and takes no lock. Returns the numeric
/// user who owns the directory, if there is one.
pub(super) fn examine(dir: &Path) -> Result<Option<u32>, Error> {
    if !dir.exists() {
        let above = sys::existing(dir);
        if !above.is_dir() {
            return Err(io("create state directory", dir)(ErrorKind::NotADirectory.into()));
        }
        refuse_network(above)?;
        sys::may_write(above).map_err(io("create state directory", dir))?;
        return Ok(None);
    }
    if !dir.is_dir() {
        return Err(Error::NotADirectory { dir: dir.to_owned() });
    }
    refuse_network(dir)?;
    let handle = File::open(dir).map_err(io("open state directory", dir))?;
    let mode = sys::mode(&handle).map_err(io("examine", dir))?;
    if mode & 0o002 != 0 {
        return Err(Error::Writable { dir: dir.to_owned() });
    }
    sys::may_write(dir).map_err(io("write to state directory", dir))?;
    for (doing, path) in [("open lock file", dir.join(LOCK)), ("open database", database(dir))] {
        match File::options().read(true).write(true).open(&path) {
            Err(err) if err.kind() != ErrorKind::NotFound => return Err(io(doing, &path)(err)),
            _ => {}
        }
    }
    sys::owner(&handle).map(Some).map_err(io("examine", dir))
}

/// The process that uses the directory, if one does.
pub(super) fn holder(dir: &Path) -> Option<String> {
    let mut file = File::open(dir.join(LOCK)).ok()?;
    // Who gets the lock here gives it back at once, and one that starts meanwhile asks again.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(holder_by(&mut file)),
        _ => None,
    }
}

/// Makes the database file, readable by its owner alone; SQLite gives its log the same mode.
pub(super) fn create_database(path: &Path) -> Result<(), Error> {
    let file = sys::open_private(path).map_err(io("open database", path))?;
    file.sync_all().map_err(io("flush", path))
}

pub(super) fn sync(dir: &Path) -> Result<(), Error> {
    sys::sync_dir(dir).map_err(io("flush", dir))
}

fn refuse_network(dir: &Path) -> Result<(), Error> {
    match sys::is_network_fs(dir).map_err(io("examine", dir))? {
        Some(kind) => Err(Error::Network { dir: dir.to_owned(), kind }),
        None => Ok(()),
    }
}

fn create(dir: &Path) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        return Err(Error::NotADirectory { dir: dir.to_owned() });
    }
    let missing: Vec<&Path> = dir
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    for new in missing.into_iter().rev() {
        sys::create_dir_private(new).map_err(io("create state directory", new))?;
        let parent = new.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// A directory that is ours alone is closed to others; one that holds other things is left as it
/// is, for closing `/var/lib` by a slip of the configuration would do more harm.
fn make_private(dir: &Path) -> Result<(), Error> {
    let handle = File::open(dir).map_err(io("open state directory", dir))?;
    let mode = sys::mode(&handle).map_err(io("examine", dir))?;
    if mode & 0o002 != 0 {
        return Err(Error::Writable { dir: dir.to_owned() });
    }
    let ours =
        database(dir).exists() || std::fs::read_dir(dir).map_err(io("list", dir))?.next().is_none();
    let owner = sys::owner(&handle).map_err(io("examine", dir))?;
    if mode & 0o077 != 0 && ours && owner == sys::effective_user() {
        sys::set_mode(&handle, 0o700).map_err(io("close to other users", dir))?;
    }
    Ok(())
}

/// The lock of a directory that was used before; none when somebody holds it.
pub(super) fn lock_known(dir: &Path) -> Option<File> {
    let file = File::options().read(true).write(true).open(dir.join(LOCK)).ok()?;
    sys::lock(&file).ok()?.then_some(file)
}

pub(super) fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK);
    let mut file = sys::open_private(&path).map_err(io("open lock file", &path))?;
    if !sys::lock(&file).map_err(io("lock", &path))? {
        return Err(Error::InUse { dir: dir.to_owned(), holder: holder_by(&mut file) });
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    match written {
        Err(err) if !sys::is_no_room(err.kind()) => Err(io("write lock file", &path)(err)),
        // Nor does it matter on a full disk.
        _ => Ok(file),
    }
}

/// Who has locked the file, as far as it tells.
fn holder_by(file: &mut File) -> String {
    let mut text = String::new();
    // The text only helps the reader; that it is locked stands all the same.
    let _ = file.read_to_string(&mut text);
    let pid = text.trim();
    let known = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    if known { format!("process {pid}") } else { "another process".into() }
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { doing, path: path.to_owned(), source: Arc::new(source) }
}
