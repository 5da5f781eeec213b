//! A look at the path of a file sink, before anything is opened or made.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use super::output::{Error, directory, io_error, refuse};
use crate::sys;

/// Looks for what would keep the file from being opened; says what opening it will do.
pub fn examine(path: &Path) -> Result<String, Error> {
    refuse(path)?;
    let dir = directory(path);
    if !dir.exists() {
        let above = sys::existing(dir);
        let may_make = if above.is_dir() {
            sys::may_write(above)
        } else {
            Err(ErrorKind::NotADirectory.into())
        };
        may_make.map_err(io_error("create directory", dir))?;
        return Ok(format!("makes `{}` and its directory", path.display()));
    }
    let handle = File::open(dir).map_err(io_error("open directory", dir))?;
    if sys::mode(&handle).map_err(io_error("examine", dir))? & 0o002 != 0 {
        return Err(Error::OpenDirectory { path: path.to_owned() });
    }
    if path.exists() {
        sys::may_write(path).map_err(io_error("open", path))?;
        return Ok(format!("appends to `{}`", path.display()));
    }
    sys::may_write(dir).map_err(io_error("make a file in", dir))?;
    Ok(format!("makes `{}`", path.display()))
}

/// The same, and opens a file that is there, as for appending to it.
pub fn probe(path: &Path) -> Result<String, Error> {
    let found = examine(path)?;
    if path.exists() {
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        sys::no_follow(&mut options).open(path).map_err(io_error("open", path))?;
    }
    Ok(found)
}
