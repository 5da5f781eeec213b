//! Where lines of ours may stand besides the live file: it may have been moved, more than once.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::output::{Error, Output, Position, directory};
use crate::sys;

impl Output {
    /// The file that a bookmark names, when it no longer stands at the path: found by its inode
    /// among its siblings.
    pub fn moved(path: &Path, at: &Position, current: &Self) -> Result<Option<Self>, Error> {
        if at.is_in(current.position()) {
            return Ok(None);
        }
        for sibling in files_beside(path) {
            let Some(found) = open_existing(&sibling)? else { continue };
            if at.is_in(found.position()) && found.continues(at)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The siblings whose name begins with that of the live file and which hold records, without
    /// these two; only such that were written `since`, the oldest first.
    pub fn others(
        path: &Path,
        since: Option<SystemTime>,
        without: [Option<&Self>; 2],
    ) -> Result<Vec<Self>, Error> {
        let Some(live) = path.file_name() else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for sibling in files_beside(path) {
            let name = sibling.file_name().unwrap_or_default().as_encoded_bytes();
            let written = sibling.metadata().and_then(|file| file.modified()).ok();
            if !name.starts_with(live.as_encoded_bytes()) || written < since {
                continue;
            }
            let Some(file) = open_existing(&sibling)? else { continue };
            let is_known =
                without.into_iter().flatten().any(|one| one.position().is_in(file.position()));
            if !is_known && file.holds_records() {
                found.push((written, file));
            }
        }
        found.sort_by_key(|(written, _)| *written);
        Ok(found.into_iter().map(|(_, file)| file).collect())
    }

    /// When it was written last; none when the file system does not say.
    pub fn written(&self) -> Option<SystemTime> {
        self.reader().and_then(|file| file.metadata()?.modified()).ok()
    }

    /// False for a compressed file, whose lines may be of any length.
    fn holds_records(&self) -> bool {
        let first = self.reader().and_then(|file| {
            let mut reader = BufReader::with_capacity(16, file);
            Ok(reader.fill_buf()?.first().copied())
        });
        matches!(first, Ok(Some(b'{')))
    }
}

fn files_beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = directory(path).read_dir().into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
}

/// None when it may not be opened.
fn open_existing(path: &Path) -> Result<Option<Output>, Error> {
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    sys::no_follow(&mut options);
    match options.open(path) {
        Ok(file) => Output::with(path, file).map(Some),
        Err(_) => Ok(None),
    }
}
