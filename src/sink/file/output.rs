//! The open file: what is refused, where it stands, and how a batch gets into it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use crate::event::Millis;
use crate::sink::Batch;
use crate::sys;

/// A file, and how much of it is settled or not ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    device: u64,
    inode: u64,
    /// In bytes.
    pub length: u64,
    /// The last line before `length`; none when the file is empty.
    line: Option<Line>,
}

impl Position {
    /// True when both are in one file.
    pub fn is_in(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    length: u64,
    /// The first 64 bits of its SHA-256.
    hash: u64,
}

/// Why the file cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the operating system failed.
    #[error("{doing} `{}`: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The path names something else than a file.
    #[error("open `{}`: it is {what}, not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Others could replace the file.
    #[error("open `{}`: other users may write to its directory", path.display())]
    OpenDirectory {
        /// The path.
        path: PathBuf,
    },
    /// Two writers would mix their lines.
    #[error("open `{}`: another program, such as a second siemferry, has locked it", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
}

impl Error {
    /// True for what passes by itself, such as a full disk.
    pub fn is_passing(&self) -> bool {
        use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
        let lasting = [NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem];
        matches!(self, Self::Io { source, .. } if !lasting.contains(&source.kind()))
    }

    /// What the operator can do.
    pub fn hint(&self, path: &Path) -> String {
        let dir = directory(path).display();
        match self {
            Self::NotAFile { .. } => {
                "name a regular file in `path`, or one that does not exist yet".into()
            }
            // Closing the directory may be wrong: it may be `/tmp`.
            Self::OpenDirectory { .. } => "choose a directory that only its owner writes to".into(),
            Self::InUse { .. } => "give each siemferry, and each sink, a file of its own".into(),
            Self::Io { .. } => format!("let the user that runs siemferry write to `{dir}`"),
        }
    }
}

/// The file that lines are appended to.
pub struct Output {
    path: PathBuf,
    file: File,
    at: Position,
    /// True when a flush failed: the kernel may have dropped what it had not written.
    unflushed: bool,
    /// When its first line was written, as far as is known; none while it is empty.
    begun: Option<Millis>,
}

impl Output {
    /// Opens the file, making it and its directory if they are new, and stands at its end.
    pub fn open(path: &Path) -> Result<Self, Error> {
        refuse(path)?;
        let dir = directory(path);
        create_directory(dir)?;
        let handle = File::open(dir).map_err(io_error("open directory", dir))?;
        if sys::mode(&handle).map_err(io_error("examine", dir))? & 0o002 != 0 {
            return Err(Error::OpenDirectory { path: path.to_owned() });
        }
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        sys::no_follow(&mut options);
        let file = options.open(path).map_err(io_error("open", path))?;
        if is_new {
            sys::set_mode(&file, 0o640).map_err(io_error("set the mode of", path))?;
        }
        // A power cut must not take the name away, whoever has made the file.
        sys::sync_dir(dir).map_err(io_error("flush directory", dir))?;
        if !sys::lock(&file).map_err(io_error("lock", path))? {
            return Err(Error::InUse { path: path.to_owned() });
        }
        Self::with(path, file)
    }

    /// An open file, at its end.
    pub fn with(path: &Path, file: File) -> Result<Self, Error> {
        let metadata = file.metadata().map_err(io_error("examine", path))?;
        let ((device, inode), length) = (sys::inode(&metadata), metadata.len());
        let at = Position { device, inode, length, line: None };
        let made = metadata.created().or_else(|_| metadata.modified()).ok();
        let made = made.map(|time| DateTime::<Utc>::from(time).timestamp_millis());
        let begun = made.filter(|_| length > 0);
        Ok(Self { path: path.to_owned(), file, at, unflushed: false, begun })
    }

    /// True when this is the file of the bookmark, with what it held then.
    pub fn continues(&self, at: &Position) -> Result<bool, Error> {
        if !at.is_in(&self.at) {
            return Ok(false);
        }
        let held = self.holds(at)?;
        if !held {
            warn!(path = %self.path.display(), "The file was truncated or rewritten; `copytruncate` is not supported.");
        }
        Ok(held)
    }

    /// True when this file holds at its place what the bookmark's file held, be it that file or a
    /// copy of it.
    pub fn takes_up(&self, at: &Position) -> Result<bool, Error> {
        Ok(self.continues(at)? || at.length > 0 && self.holds(at)?)
    }

    fn holds(&self, at: &Position) -> Result<bool, Error> {
        Ok(self.size()? >= at.length && self.last_line(at.length)? == at.line)
    }

    /// This file, when it was moved to a sibling name with part of a batch in it. What a failed
    /// flush may have dropped does not count.
    pub fn left_behind(&self, new: &Self) -> Result<Option<Self>, Error> {
        if self.unflushed { Ok(None) } else { Self::moved(&self.path, &self.at, new) }
    }

    /// Takes all that the file holds as settled or not ours.
    pub fn stand_at_end(&mut self) -> Result<(), Error> {
        self.at.length = self.size()?;
        self.at.line = self.last_line(self.at.length)?;
        Ok(())
    }

    /// Where it stands.
    pub fn position(&self) -> &Position {
        &self.at
    }

    /// When its first line was written, as far as is known; none while it is empty.
    pub fn begun(&self) -> Option<Millis> {
        self.begun
    }

    /// Takes over what the bookmark knows about the same file.
    pub fn remember(&mut self, begun: Option<Millis>) {
        self.begun = self.begun.and(begun).or(self.begun);
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True while the path still names this file.
    pub fn is_still_there(&self) -> bool {
        let now = std::fs::symlink_metadata(&self.path);
        now.is_ok_and(|now| sys::inode(&now) == (self.at.device, self.at.inode))
    }

    /// True when something stands behind our position: a failed attempt, or another writer's lines.
    pub fn is_dirty(&mut self) -> Result<bool, Error> {
        let size = self.size()?;
        if size < self.at.length {
            warn!(path = %self.path.display(), "The file was truncated; `copytruncate` is not supported.");
            self.stand_at_end()?;
        }
        Ok(size > self.at.length)
    }

    /// Another handle, to read from.
    pub fn reader(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Ends the file at `length`; returns how many bytes went.
    pub fn cut(&mut self, length: u64) -> io::Result<u64> {
        let size = self.file.metadata()?.len();
        self.file.set_len(length)?;
        self.file.sync_data()?;
        Ok(size.saturating_sub(length))
    }

    /// Appends the batch's messages from number `done` on, and flushes them to stable storage.
    pub fn append(&mut self, batch: &Batch, done: usize) -> Result<(), Error> {
        let io = |doing| io_error(doing, &self.path);
        if self.unflushed {
            self.write_again().map_err(io("write again to"))?;
        }
        if self.size()? == 0 {
            self.begun = Some(Utc::now().timestamp_millis());
        }
        if self.ends_within_a_line().map_err(io("read"))? {
            (&self.file).write_all(b"\n").map_err(io("append to"))?;
        }
        let from = done.checked_sub(1).map_or(0, |last| batch.ends[last]);
        (&self.file).write_all(&batch.bytes[from..]).map_err(io("append to"))?;
        let flushed = self.file.sync_data().map_err(io("flush"));
        self.unflushed = flushed.is_err();
        flushed?;
        self.at.length = self.size()?;
        self.at.line = match batch.messages().skip(done).last() {
            Some(last) => Some(Line::of(last)),
            None => self.last_line(self.at.length)?,
        };
        Ok(())
    }

    /// Has what an earlier run wrote reach stable storage: it may have been killed before its flush.
    pub fn secure(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes the pages dirty again that a failed flush may have dropped. Readers see no change.
    fn write_again(&self) -> io::Result<()> {
        let mut tail = Vec::new();
        let mut reader = self.reader()?;
        reader.seek(SeekFrom::Start(self.at.length))?;
        reader.read_to_end(&mut tail)?;
        let mut options = OpenOptions::new();
        options.write(true);
        sys::no_follow(&mut options);
        let mut writer = options.open(&self.path)?;
        if sys::inode(&writer.metadata()?) != (self.at.device, self.at.inode) {
            return Err(io::Error::other("it was moved meanwhile"));
        }
        writer.seek(SeekFrom::Start(self.at.length))?;
        writer.write_all(&tail)
    }

    fn ends_within_a_line(&self) -> io::Result<bool> {
        let mut reader = &self.file;
        if reader.seek(SeekFrom::End(0))? == 0 {
            return Ok(false);
        }
        let mut last = [0];
        reader.seek(SeekFrom::End(-1))?;
        reader.read_exact(&mut last)?;
        Ok(last != *b"\n")
    }

    /// Makes what the directory says about it survive a power cut.
    pub fn flush_names(&self) -> Result<(), Error> {
        let dir = directory(&self.path);
        sys::sync_dir(dir).map_err(io_error("flush directory", dir))
    }

    /// How many bytes the file holds, whoever has written them.
    pub fn size(&self) -> Result<u64, Error> {
        Ok(self.file.metadata().map_err(io_error("examine", &self.path))?.len())
    }

    /// The last line before `length`, with its line break.
    fn last_line(&self, length: u64) -> Result<Option<Line>, Error> {
        let line = self.read_last_line(length).map_err(io_error("read", &self.path))?;
        Ok((!line.is_empty()).then(|| Line::of(&line)))
    }

    fn read_last_line(&self, length: u64) -> io::Result<Vec<u8>> {
        const CHUNK: u64 = 64 << 10;
        let mut reader = &self.file;
        let mut line = Vec::new();
        let mut start = length;
        while start > 0 {
            let from = start.saturating_sub(CHUNK);
            let mut chunk = vec![0; usize::try_from(start - from).expect("at most 64 KiB")];
            reader.seek(SeekFrom::Start(from))?;
            reader.read_exact(&mut chunk)?;
            // The line's own break does not begin it.
            let searched = if line.is_empty() { &chunk[..chunk.len() - 1] } else { &chunk[..] };
            let begin = memchr::memrchr(b'\n', searched).map(|at| at + 1);
            chunk.drain(..begin.unwrap_or(0));
            chunk.extend_from_slice(&line);
            line = chunk;
            if begin.is_some() {
                break;
            }
            start = from;
        }
        Ok(line)
    }
}

impl Line {
    fn of(line: &[u8]) -> Self {
        let hash = Sha256::digest(line);
        let short = hash[..8].try_into().expect("SHA-256 has 32 bytes");
        Self { length: line.len() as u64, hash: u64::from_be_bytes(short) }
    }
}

/// Opening a FIFO would wait for its reader, so the kind is asked before.
pub(super) fn refuse(path: &Path) -> Result<(), Error> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(io_error("open", path)(err)),
    };
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a directory",
        () => "a FIFO, socket or device",
    };
    Err(Error::NotAFile { path: path.to_owned(), what })
}

/// Makes the directory and those above it, each on stable storage before the next.
fn create_directory(dir: &Path) -> Result<(), Error> {
    let missing: Vec<&Path> = dir
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    for new in missing.into_iter().rev() {
        match std::fs::create_dir(new) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("create directory", new)(err));
            }
            _ => sys::sync_dir(directory(new)).map_err(io_error("flush directory", new))?,
        }
    }
    Ok(())
}

/// The directory that holds the file.
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { doing, path: path.to_owned(), source }
}
