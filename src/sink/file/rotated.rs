//! The names of rotated files, and which files beside the live one have such a name.
//!
//! A name is the live file's with a number and the time of the rotation: names sort in the order of
//! the rotations, whatever the clock does.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, Utc};

use super::output::directory;
use crate::event::Millis;

const TIME: &str = "%Y%m%dT%H%M%SZ";

/// What a rotated file is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// Lines.
    Plain,
    /// Lines that `zstd` reads.
    Zstd,
    /// Lines that `gzip` reads.
    Gzip,
}

impl Form {
    const ALL: [Self; 3] = [Self::Plain, Self::Zstd, Self::Gzip];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }
}

/// What the name of a rotated file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Counts the rotations.
    pub number: u64,
    /// When it was rotated, in whole seconds.
    pub time: Millis,
    /// What it is.
    pub form: Form,
}

impl Name {
    /// A file that is rotated at `time`.
    pub const fn new(number: u64, time: Millis) -> Self {
        Self { number, time: time.div_euclid(1000) * 1000, form: Form::Plain }
    }

    /// The same file in another form.
    pub const fn in_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// What is appended to the live file's name.
    fn ending(self) -> String {
        let time = DateTime::<Utc>::from_timestamp_millis(self.time).unwrap_or_default();
        format!(".{:08}-{}{}", self.number, time.format(TIME), self.form.suffix())
    }

    fn parse(ending: &str) -> Option<Self> {
        let (number, rest) = ending.strip_prefix('.')?.split_once('-')?;
        let (time, suffix) = rest.split_at_checked("19700101T000000Z".len())?;
        let time = NaiveDateTime::parse_from_str(time, TIME).ok()?.and_utc().timestamp_millis();
        let form = Form::ALL.into_iter().find(|form| form.suffix() == suffix)?;
        let name = Self { number: number.parse().ok()?, time, form };
        // Anything else that reads the same is not ours.
        (name.ending() == ending).then_some(name)
    }
}

/// A rotated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// What its name says.
    pub name: Name,
    /// How many bytes it takes.
    pub bytes: u64,
}

/// The files beside the live one that are its rotated ones.
#[derive(Clone, Debug)]
pub struct Siblings {
    /// Where they are.
    pub dir: PathBuf,
    live: OsString,
}

impl Siblings {
    /// Those of the file at `path`.
    pub fn of(path: &Path) -> Self {
        let live = path.file_name().unwrap_or_default().to_owned();
        Self { dir: directory(path).to_owned(), live }
    }

    /// Where the file with this name is.
    pub fn path(&self, name: Name) -> PathBuf {
        self.dir.join(self.file_name(name))
    }

    /// Where it is while it is being made: readers of `<file>*` do not see it.
    pub fn partial(&self, name: Name) -> PathBuf {
        let mut partial = OsString::from(".");
        partial.push(self.file_name(name));
        partial.push(".partial");
        self.dir.join(partial)
    }

    /// The highest number among them; 0 when there are none.
    pub fn highest(&self) -> io::Result<u64> {
        Ok(self.list()?.into_iter().map(|rotated| rotated.name.number).max().unwrap_or(0))
    }

    /// All of them, the oldest first. Only regular files count.
    pub fn list(&self) -> io::Result<Vec<Rotated>> {
        let mut found = Vec::new();
        for entry in self.dir.read_dir()? {
            let entry = entry?;
            let Some(name) = self.parse(&entry.file_name()) else { continue };
            // It may have been removed meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                found.push(Rotated { name, bytes: metadata.len() });
            }
        }
        found.sort_by_key(|rotated| rotated.name);
        Ok(found)
    }

    /// Those that were being made when it ended.
    pub fn partials(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in self.dir.read_dir()? {
            let entry = entry?;
            let name = entry.file_name();
            let whole = name.as_encoded_bytes().strip_prefix(b".");
            let whole = whole.and_then(|name| name.strip_suffix(b".partial"));
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && whole.is_some_and(|name| self.parse_bytes(name).is_some()) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    fn file_name(&self, name: Name) -> OsString {
        let mut file = self.live.clone();
        file.push(name.ending());
        file
    }

    fn parse(&self, name: &OsStr) -> Option<Name> {
        self.parse_bytes(name.as_encoded_bytes())
    }

    fn parse_bytes(&self, name: &[u8]) -> Option<Name> {
        let ending = name.strip_prefix(self.live.as_encoded_bytes())?;
        Name::parse(std::str::from_utf8(ending).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: Millis = 1_767_323_045_000;

    fn siblings() -> Siblings {
        Siblings::of(Path::new("/var/log/events.ndjson"))
    }

    #[test]
    fn a_name_begins_with_the_live_files_and_says_number_and_time() {
        let name = Name::new(7, TIME + 678);

        let path = siblings().path(name);
        assert_eq!(path, Path::new("/var/log/events.ndjson.00000007-20260102T030405Z"));
        let path = siblings().path(name.in_form(Form::Zstd));
        assert_eq!(path, Path::new("/var/log/events.ndjson.00000007-20260102T030405Z.zst"));
        let path = siblings().partial(name.in_form(Form::Gzip));
        assert_eq!(path, Path::new("/var/log/.events.ndjson.00000007-20260102T030405Z.gz.partial"));
    }

    #[test]
    fn a_strangers_name_is_not_taken_for_one_of_ours() {
        let ours = "events.ndjson.00000007-20260102T030405Z";
        assert_eq!(siblings().parse(OsStr::new(ours)), Some(Name::new(7, TIME)));
        let theirs = [
            "events.ndjson",
            "events.ndjson.1",
            "events.ndjson-20260102",
            "other.00000007-20260102T030405Z",
            "events.ndjson.7-20260102T030405Z",
            "events.ndjson.00000007-20260102T030405",
            "events.ndjson.00000007-20260102T030405Z.bz2",
            "events.ndjson.00000007-20260102T030405Z.zst.old",
            "events.ndjson.+0000007-20260102T030405Z",
            "events.ndjson.000000007-20260102T030405Z",
            "events.ndjson.00000007-20261302T030405Z",
            "events.ndjson.00000007-2026010éT03040Z",
            "events.ndjson.00000007",
            ".events.ndjson.00000007-20260102T030405Z",
        ];
        for name in theirs {
            assert_eq!(siblings().parse(OsStr::new(name)), None, "{name}");
        }
    }

    #[test]
    fn only_regular_files_with_a_name_of_ours_are_listed_in_their_order() {
        let home = tempfile::tempdir().unwrap();
        let siblings = Siblings::of(&home.path().join("a"));
        let names = [Name::new(2, 0), Name::new(10, 0).in_form(Form::Gzip), Name::new(3, TIME)];
        for name in names {
            std::fs::write(siblings.path(name), "x").unwrap();
        }
        std::fs::write(siblings.partial(names[1]), "x").unwrap();
        std::fs::write(home.path().join(".a.partial"), "x").unwrap();
        std::fs::create_dir(siblings.path(Name::new(11, 0))).unwrap();

        let listed: Vec<_> = siblings.list().unwrap().into_iter().map(|file| file.name).collect();

        assert_eq!(listed, [names[0], names[2], names[1]]);
        assert_eq!(siblings.highest().unwrap(), 10);
        assert_eq!(siblings.partials().unwrap(), [siblings.partial(names[1])]);
    }

    proptest! {
        #[test]
        fn a_name_reads_back_and_sorts_by_its_number(
            numbers in proptest::array::uniform2(1..100_000_000u64),
            times in proptest::array::uniform2(0..253_402_300_800_000i64),
            form in proptest::sample::select(&Form::ALL[..]),
        ) {
            let [one, two] = [0, 1].map(|n| Name::new(numbers[n], times[n]).in_form(form));
            let [first, second] = [one, two].map(|name| siblings().file_name(name));

            prop_assert_eq!(siblings().parse(&first), Some(one));
            if numbers[0] != numbers[1] {
                prop_assert_eq!(first.cmp(&second), numbers[0].cmp(&numbers[1]));
            }
        }
    }
}
