//! What can go wrong with the store, and what to do about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ffi;

use crate::event::Seq;
use crate::position::Second;
use crate::sys;

const BROKEN_DISK: &str = "see the kernel's log for what is wrong with the disk; what is stored stays, and the next start goes on from there";

/// Why an operation on the store failed. A clone goes to each caller that shared a commit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the store open.
    #[error("lock state directory `{}`: it is in use by {holder}", dir.display())]
    InUse {
        /// The state directory.
        dir: PathBuf,
        /// Who holds it, as far as the lock file tells.
        holder: String,
    },
    /// The file system is on another host, where neither locks nor flushes are to be trusted.
    #[error("use state directory `{}`: it is on a network file system ({kind})", dir.display())]
    Network {
        /// The state directory.
        dir: PathBuf,
        /// Which file system.
        kind: &'static str,
    },
    /// Others could put files into the state directory.
    #[error("use state directory `{}`: other users may write to it", dir.display())]
    Writable {
        /// The state directory.
        dir: PathBuf,
    },
    /// Something else stands where the state directory should be.
    #[error("use state directory `{}`: it is not a directory", dir.display())]
    NotADirectory {
        /// The state directory.
        dir: PathBuf,
    },
    /// A newer siemferry has written the database.
    #[error("open `{}`: its schema is version {found}, this siemferry knows up to {known}", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// The version it has.
        found: i64,
        /// The newest version this binary knows.
        known: i64,
    },
    /// The file is another program's database, or none at all.
    #[error("open `{}`: it is not a siemferry database", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The bundled SQLite has a bug that can cost data.
    #[error("start: SQLite {found} is older than 3.51.3, which may corrupt its log")]
    OldSqlite {
        /// Its version.
        found: String,
    },
    /// SQLite did not take a setting the promise rests on.
    #[error("open the database: `{name}` is {found} instead of {wanted}")]
    Pragma {
        /// Which setting.
        name: &'static str,
        /// What it must be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// A file or directory could not be used.
    #[error("{doing} `{}`: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: Arc<std::io::Error>,
    },
    /// The file system has no room left. Nothing is lost; the operation may be tried again.
    #[error("write to the database: no space left on the file system")]
    Full,
    /// A backfill would read events again of which it is no longer known that they were read.
    #[error("read again from before {}: events of that time are no longer remembered, and would be delivered a second time", crate::position::rfc3339(*until))]
    Forgotten {
        /// From here on all are remembered.
        until: Second,
    },
    /// Another process is writing, and has not finished in time.
    #[error("write to the database: another process holds it")]
    Busy,
    /// There is no such dead letter.
    #[error("find dead letter {id}: there is none of this number")]
    NoLetter {
        /// What was asked for.
        id: i64,
    },
    /// The store has never met a source or sink of this name.
    #[error("find {what} `{name}`: the store does not know it")]
    Unknown {
        /// `source` or `sink`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// The names that it knows.
        known: Vec<String>,
    },
    /// A page of the spool does not decode.
    #[error("read the spool: the page that begins with event {seq} is damaged")]
    Damaged {
        /// Its first event.
        seq: Seq,
    },
    /// A watermark would have fallen, or a bookmark would have skipped events.
    #[error("commit a position: {what} does not follow from what is stored")]
    OutOfOrder {
        /// Which position.
        what: &'static str,
    },
    /// The transaction was undone by an error of another operation in it.
    #[error("write to the database: the transaction was undone")]
    Undone,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Anything else that SQLite reports.
    #[error("use the database: {0}")]
    Sqlite(Arc<rusqlite::Error>),
}

impl Error {
    /// True when the same operation may succeed later, without anything being lost.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full | Self::Busy | Self::Undone => true,
            Self::Io { source, .. } => sys::is_no_room(source.kind()),
            _ => false,
        }
    }

    /// True when neither the configuration nor what stands in the file system is at fault: the same
    /// start may succeed later.
    pub fn may_pass(&self) -> bool {
        use std::io::ErrorKind::{
            IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
        };
        let lasting = [IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem];
        match self {
            Self::Full | Self::Busy | Self::Undone | Self::Sqlite(_) | Self::Pragma { .. } => true,
            Self::Io { source, .. } => !lasting.contains(&source.kind()),
            _ => false,
        }
    }

    /// True when the disk has failed, or the file on it: nothing more must be written, for a flush
    /// that is tried again may report success for what is lost.
    pub(super) fn is_breakdown(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
        let Self::Sqlite(err) = self else { return false };
        matches!(err.sqlite_error_code(), Some(SystemIoFailure | DatabaseCorrupt | NotADatabase))
    }

    /// True when a lack of room may be the reason, though SQLite reports something else.
    pub(super) fn may_be_full(&self) -> bool {
        match self {
            Self::Sqlite(err) => {
                err.sqlite_error().is_some_and(|err| needs_room(*err) && !is_flush(*err))
            }
            // What keeps SQLite from a log of its own is not told.
            Self::Pragma { name, .. } => *name == "journal_mode",
            _ => false,
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::InUse { .. } => "stop the other siemferry, or give this one a `state.dir` of its own".into(),
            Self::Network { .. } => "choose a `state.dir` on a local disk".into(),
            Self::Writable { .. } => "choose a `state.dir` of its own, below a directory that others cannot write to".into(),
            Self::NotADirectory { .. } => "choose another `state.dir`, or move away what stands there".into(),
            Self::Newer { .. } => "install the siemferry that wrote it, or a newer one".into(),
            Self::Foreign { .. } => "choose another `state.dir`, or move the file away".into(),
            Self::Full => "free some space; siemferry goes on by itself".into(),
            Self::Busy => "end the program that has `siemferry.db` open for writing; siemferry goes on by itself".into(),
            Self::NoLetter { .. } => "`siemferry dead-letters list` shows those that there are".into(),
            Self::Unknown { what, known, .. } if known.is_empty() => format!("it knows no {what} yet"),
            Self::Unknown { known, .. } => format!("it knows `{}`", known.join("`, `")),
            Self::Damaged { .. } => "restore the state directory from a backup, or move it away: the API is then read again from `start`".into(),
            Self::Forgotten { until } => format!(
                "begin at {}, or add `--again` to have them delivered again, each with the same `uid`",
                crate::position::rfc3339(until + 1)
            ),
            Self::Io { source, .. } if sys::is_disk_error(source) => BROKEN_DISK.into(),
            Self::Io { source, path, .. } => return io_hint(source.kind(), path),
            Self::Sqlite(_) if self.is_breakdown() => BROKEN_DISK.into(),
            _ => return None,
        };
        Some(hint)
    }

    /// Names the database in an error that SQLite gave while opening it.
    pub(super) fn at(self, path: &Path) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, NotADatabase, ReadOnly};
        let Self::Sqlite(err) = &self else { return self };
        let kind = match err.sqlite_error_code() {
            Some(NotADatabase) => return Self::Foreign { path: path.to_owned() },
            Some(ReadOnly) => std::io::ErrorKind::ReadOnlyFilesystem,
            Some(CannotOpen) => std::io::ErrorKind::PermissionDenied,
            _ => return self,
        };
        let source = Arc::new(kind.into());
        Self::Io { doing: "open database", path: path.to_owned(), source }
    }
}

fn io_hint(kind: std::io::ErrorKind, path: &Path) -> Option<String> {
    use std::io::ErrorKind::{
        IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
    };
    let hint = match kind {
        _ if sys::is_no_room(kind) => {
            "free some space on the file system of `state.dir`; siemferry goes on by itself".into()
        }
        PermissionDenied => format!("let the user that runs siemferry own `{}`", path.display()),
        ReadOnlyFilesystem => "choose a `state.dir` on a file system that can be written to".into(),
        NotADirectory => "a file stands above it: choose another `state.dir`".into(),
        IsADirectory => format!("move the directory `{}` away", path.display()),
        NotFound => "create the directory above it, or choose another `state.dir`".into(),
        _ => return None,
    };
    Some(hint)
}

impl From<rusqlite::Error> for Error {
    fn from(err: rusqlite::Error) -> Self {
        // SQLite knows a full disk, but neither a quota nor a full disk below its shared memory.
        // The system's last error of this thread is then the one that it met.
        let system = std::io::Error::last_os_error();
        let no_room = |err: &ffi::Error| needs_room(*err) && sys::is_no_room(system.kind());
        match err.sqlite_error() {
            Some(failure) if failure.code == rusqlite::ErrorCode::DiskFull => Self::Full,
            Some(failure) if no_room(failure) => Self::Full,
            Some(failure) if failure.code == rusqlite::ErrorCode::DatabaseBusy => Self::Busy,
            _ => Self::Sqlite(Arc::new(err)),
        }
    }
}

/// The calls of SQLite that take up room on the disk.
fn needs_room(err: ffi::Error) -> bool {
    const SUCH: [i32; 7] = [
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_TRUNCATE,
        ffi::SQLITE_IOERR_SHMOPEN,
        ffi::SQLITE_IOERR_SHMSIZE,
        ffi::SQLITE_IOERR_SHMMAP,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_DIR_FSYNC,
    ];
    err.code == rusqlite::ErrorCode::CannotOpen || SUCH.contains(&err.extended_code)
}

/// What a failed flush has dropped is known only when it says so itself.
fn is_flush(err: ffi::Error) -> bool {
    [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC].contains(&err.extended_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_io_error_for_want_of_room_is_a_full_disk() {
        use std::io::Write as _;
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_CANTOPEN] {
            let mut full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            full.write_all(b"more").unwrap_err();

            let err = Error::from(failure(code));

            assert!(matches!(err, Error::Full), "{code}: {err:?}");
        }
    }

    #[test]
    fn another_io_error_is_a_breakdown_and_is_told_what_to_do_about() {
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_CORRUPT] {
            std::fs::metadata("no such file").unwrap_err();

            let err = Error::from(failure(code));

            assert!(err.is_breakdown() && !err.is_full() && err.may_pass(), "{code}: {err:?}");
            assert_eq!(err.hint().as_deref(), Some(BROKEN_DISK));
        }
    }

    #[test]
    fn a_failed_flush_is_never_taken_for_a_full_disk_by_guess() {
        std::fs::metadata("no such file").unwrap_err();
        assert!(Error::from(failure(ffi::SQLITE_IOERR_WRITE)).may_be_full());
        assert!(!Error::from(failure(ffi::SQLITE_IOERR_FSYNC)).may_be_full());
        assert!(!Error::from(failure(ffi::SQLITE_IOERR_READ)).may_be_full());
        assert!(!Error::from(failure(ffi::SQLITE_CONSTRAINT)).may_be_full());
    }

    #[test]
    fn a_file_without_room_is_a_full_disk_as_well() {
        for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded] {
            let source = Arc::new(kind.into());
            let err = Error::Io { doing: "open lock file", path: "lock".into(), source };

            assert!(err.is_full());
            let hint =
                "free some space on the file system of `state.dir`; siemferry goes on by itself";
            assert_eq!(err.hint().as_deref(), Some(hint));
        }
    }
}
