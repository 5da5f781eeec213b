//! Reads a secret from a file that only the right users can read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::Error;
use crate::sys;

/// No secret is longer.
pub const MAX_BYTES: u64 = 64 * 1024;

/// Reads all of a text, after a look at what was opened and who else can read it.
pub fn read(path: &Path) -> Result<String, Error> {
    let not_text = |_| Error::NotASecret { path: path.to_owned(), why: "it is not UTF-8" };
    String::from_utf8(read_bytes(path)?).map_err(not_text)
}

/// Reads all of a file, after the same look.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let not_a_secret = |why| Error::NotASecret { path: path.to_owned(), why };
    // Links are followed, as Kubernetes mounts secrets by links; the opened file is what is judged.
    let file = open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(not_a_secret("it is not a regular file"));
    }
    let mode = sys::mode(&file).map_err(failed)?;
    if is_exposed(mode, sys::owner(&file).map_err(failed)?, sys::effective_user()) {
        return Err(Error::Exposed { path: path.to_owned(), mode });
    }
    let mut value = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut value).map_err(failed)?;
    if value.len() as u64 > MAX_BYTES {
        return Err(not_a_secret("it is longer than 64 KiB"));
    }
    Ok(value)
}

/// Reads all of a text whose owner and mode are the platform's business.
pub fn read_platform(path: &Path, most: u64) -> io::Result<String> {
    let refused = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(refused("it is not a regular file".to_owned()));
    }
    let mut value = Vec::new();
    file.take(most + 1).read_to_end(&mut value)?;
    if value.len() as u64 > most {
        return Err(refused(format!("it is longer than {most} bytes")));
    }
    String::from_utf8(value).map_err(|_| refused("it is not UTF-8".to_owned()))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    // Opening a pipe that nobody writes to would wait for ever.
    sys::no_wait(options.read(true)).open(path)
}

/// Whether others than the user and the group meant to read the file can.
///
/// A file that belongs to somebody else, such as `root:siemferry` with mode 0640, can reach the
/// daemon's user only by its group.
pub const fn is_exposed(mode: u32, owner: u32, user: u32) -> bool {
    mode & 0o007 != 0 || (owner == user && mode & 0o070 != 0)
}
