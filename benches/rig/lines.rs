//! Files of lines: the first of them, their size, and whether two have the same.

use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// A file of the first so many lines.
pub fn first_lines(all: &Path, count: u64, dir: &Path) -> PathBuf {
    let path = dir.join("lines");
    if size_of_lines(all, count) == std::fs::metadata(all).expect("it was written").len() {
        std::fs::hard_link(all, &path).expect("the same file system");
        return path;
    }
    let mut reader = BufReader::new(File::open(all).expect("it was written"));
    let mut writer = BufWriter::new(File::create(&path).expect("a new file"));
    for_each_line(&mut reader, count, |line| writer.write_all(line).expect("room on the disk"));
    writer.into_inner().expect("room on the disk");
    path
}

pub fn size_of_lines(path: &Path, count: u64) -> u64 {
    let mut size = 0;
    let mut reader = BufReader::new(File::open(path).expect("it was written"));
    for_each_line(&mut reader, count, |line| size += line.len() as u64);
    size
}

/// The same for the same lines in any order.
pub fn sum_of_lines(path: &Path) -> (u64, u64) {
    let (mut count, mut sum) = (0, 0_u64);
    let Ok(file) = File::open(path) else { return (0, 0) };
    for_each_line(&mut BufReader::new(file), u64::MAX, |line| {
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        (count, sum) = (count + 1, sum.wrapping_add(hasher.finish()));
    });
    (count, sum)
}

fn for_each_line(reader: &mut BufReader<File>, count: u64, mut each: impl FnMut(&[u8])) {
    let mut line = Vec::new();
    for _ in 0..count {
        line.clear();
        if reader.read_until(b'\n', &mut line).expect("a line") == 0 {
            break;
        }
        each(&line);
    }
}
