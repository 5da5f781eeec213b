//! Compresses a file piece by piece, and compares what has come of it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read};
use std::path::Path;

use super::rotated::Form;
use crate::sys;

const PIECE: usize = 64 << 10;

/// Compresses the file `from` into the new file `to`, with its mode and time, onto stable storage.
/// Returns how many bytes that takes.
pub fn compress(from: &Path, to: &Path, form: Form) -> io::Result<u64> {
    let source = open(from)?;
    let before = source.metadata()?;
    let target = BufWriter::with_capacity(PIECE, sys::create_private(to)?);
    let mut pieces = BufReader::with_capacity(PIECE, &source);
    let (read, target) = match form {
        Form::Plain => copy(&mut pieces, target, Ok)?,
        Form::Zstd => {
            let mut encoder = zstd::Encoder::new(target, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            encoder.include_checksum(true)?;
            copy(&mut pieces, encoder, zstd::Encoder::finish)?
        }
        Form::Gzip => {
            let encoder = flate2::write::GzEncoder::new(target, flate2::Compression::default());
            copy(&mut pieces, encoder, flate2::write::GzEncoder::finish)?
        }
    };
    // Another writer may still hold it open.
    if source.metadata()?.len() != read {
        return Err(io::Error::other("somebody writes to it"));
    }
    let target = target.into_inner()?;
    sys::set_mode(&target, sys::mode(&source)?)?;
    target.set_modified(before.modified()?)?;
    target.sync_all()?;
    Ok(target.metadata()?.len())
}

fn copy<E: io::Write, T>(
    from: &mut impl Read,
    mut encoder: E,
    finish: impl FnOnce(E) -> io::Result<T>,
) -> io::Result<(u64, T)> {
    let read = io::copy(from, &mut encoder)?;
    Ok((read, finish(encoder)?))
}

/// True when the compressed file holds the plain one, to the last byte.
pub fn holds_the_same(plain: &Path, compressed: &Path, form: Form) -> io::Result<bool> {
    let mut plain = BufReader::with_capacity(PIECE, open(plain)?);
    let compressed = BufReader::with_capacity(PIECE, open(compressed)?);
    let mut compressed: Box<dyn Read> = match form {
        Form::Plain => Box::new(compressed),
        Form::Zstd => Box::new(zstd::Decoder::with_buffer(compressed)?),
        Form::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(compressed)),
    };
    let mut pieces = [vec![0; PIECE], vec![0; PIECE]];
    loop {
        let expected = fill(&mut plain, &mut pieces[0])?;
        // What cannot be read to its end is another's, or not done.
        let Ok(found) = fill(&mut compressed, &mut pieces[1]) else { return Ok(false) };
        if pieces[0][..expected] != pieces[1][..found] {
            return Ok(false);
        }
        if expected == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the piece is full or nothing is left.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled)
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    sys::no_follow(&mut options).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_reads_back_and_is_told_from_anything_else() {
        let home = tempfile::tempdir().unwrap();
        let [plain, other] = ["plain", "other"].map(|name| home.path().join(name));
        let lines = "{\"a\":\"line\"}\n".repeat(20_000);
        for text in ["", "one line\n", &lines] {
            std::fs::write(&plain, text).unwrap();
            std::fs::write(&other, format!("{text}and more\n")).unwrap();
            sys::set_mode(&File::open(&plain).unwrap(), 0o604).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_767_323_045);
            File::options().append(true).open(&plain).unwrap().set_modified(time).unwrap();
            for form in [Form::Zstd, Form::Gzip] {
                let to = home.path().join(format!("{form:?}"));

                let bytes = compress(&plain, &to, form).unwrap();

                let metadata = to.metadata().unwrap();
                assert_eq!((metadata.len(), metadata.modified().unwrap()), (bytes, time));
                assert_eq!(sys::mode(&File::open(&to).unwrap()).unwrap(), 0o604);
                assert!(holds_the_same(&plain, &to, form).unwrap());
                assert!(!holds_the_same(&other, &to, form).unwrap());
                assert!(!holds_the_same(&plain, &plain, form).unwrap_or(false));
                // The same, but for its end.
                let cut = File::options().write(true).open(&to).unwrap();
                cut.set_len(bytes - 1).unwrap();
                assert!(!holds_the_same(&plain, &to, form).unwrap());
                std::fs::remove_file(to).unwrap();
            }
        }
        assert!(std::fs::metadata(&plain).unwrap().len() > 200_000);
    }

    #[test]
    fn no_file_is_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| home.path().join(name));
        std::fs::write(&from, "new").unwrap();
        std::fs::write(&to, "old").unwrap();

        let refused = compress(&from, &to, Form::Zstd).unwrap_err();

        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&to).unwrap(), b"old");
    }
}
