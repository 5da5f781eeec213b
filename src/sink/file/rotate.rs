//! Rotation: when a file is full or old, and how another takes its place.

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use chrono::Utc;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Unexpected, Visitor};
use tracing::{info, warn};

use super::output::{Error, Output};
use super::rotated::{Form, Name, Siblings};
use crate::event::Millis;
use crate::problem::Problem;
use crate::sys;
use crate::units::{Bytes, Span, word};

/// `rotate = { size, every, keep, compress }`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A batch that would make the file larger than this goes into the next one.
    pub size: Option<Bytes>,
    /// The file is done when a multiple of this span has passed since its first line.
    pub every: Option<Span>,
    /// Which rotated files stay.
    pub keep: Keep,
    /// What rotated files become.
    #[serde(deserialize_with = "word")]
    pub compress: Compress,
}

/// `keep`: the oldest rotated files beyond any of these limits are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// At most so many.
    pub count: Option<NonZeroU32>,
    /// None that was rotated longer ago.
    pub age: Option<Span>,
    /// At most so many bytes, all of them together.
    pub bytes: Option<Bytes>,
}

/// `compress`: what rotated files become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    /// They stay as they are.
    #[default]
    None,
    /// Files for `zstd`.
    Zstd,
    /// Files for `gzip`.
    Gzip,
}

impl Compress {
    /// The form that rotated files are given.
    pub const fn form(self) -> Form {
        match self {
            Self::None => Form::Plain,
            Self::Zstd => Form::Zstd,
            Self::Gzip => Form::Gzip,
        }
    }
}

impl Config {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let neither = (self.size.is_none() && self.every.is_none()).then(|| {
            Problem::at("", "names neither `size` nor `every`")
                .hint("say when a file is done, such as `rotate = { size = \"256MiB\" }`")
        });
        let no_bytes = |size: Option<Bytes>, key| {
            let is_zero = size.is_some_and(|size| size.get() == 0);
            is_zero.then(|| Problem::at(key, "must be more than `0B`"))
        };
        let no_time = |span: Option<Span>, key| {
            let is_zero = span.is_some_and(Span::is_zero);
            is_zero.then(|| Problem::at(key, "must be more than `0s`"))
        };
        let problems = [
            neither,
            no_bytes(self.size, "size"),
            no_time(self.every, "every"),
            no_time(self.keep.age, "keep"),
            no_bytes(self.keep.bytes, "keep"),
        ];
        problems.into_iter().flatten().collect()
    }

    /// True when so many more bytes belong into the next file.
    fn is_done(&self, size: u64, more: u64, begun: Option<Millis>, now: Millis) -> bool {
        if size == 0 {
            return false;
        }
        let is_full = self.size.is_some_and(|most| size.saturating_add(more) > most.get());
        let is_old = self.every.zip(begun).is_some_and(|(every, begun)| is_old(every, begun, now));
        is_full || is_old
    }
}

/// True when a multiple of `every`, counted from 1970 in UTC, lies between the two.
fn is_old(every: Span, begun: Millis, now: Millis) -> bool {
    let every = Millis::try_from(every.duration().as_millis()).unwrap_or(Millis::MAX);
    // A clock that was far ahead must not hold up rotation until it is so late again; one that is
    // set back by a little must not rotate twice.
    now.div_euclid(every) > begun.div_euclid(every) || begun.saturating_sub(now) >= every
}

/// What one sink's rotation goes by.
#[derive(Clone, Debug)]
pub struct Rotation {
    config: Config,
    path: PathBuf,
    /// The highest number that a file of ours has had, as far as is known.
    pub last: u64,
    is_failing: bool,
}

impl Rotation {
    /// Goes on behind number `last`, and behind every number that a sibling of `path` has.
    pub fn new(config: &Config, path: &Path, last: u64) -> Result<Self, Error> {
        let siblings = Siblings::of(path);
        let highest = siblings.highest().map_err(|source| {
            let (doing, path) = ("read directory", siblings.dir.clone());
            Error::Io { doing, path, source }
        })?;
        let (config, path) = (config.clone(), path.to_owned());
        Ok(Self { config, path, last: last.max(highest), is_failing: false })
    }

    /// Rotates when the file is done and so many bytes are to be appended. The file must hold
    /// nothing of them yet.
    ///
    /// A file that cannot be renamed grows on. When only the next one cannot be opened, `output`
    /// stays as it is: it is then a file that was moved away.
    pub fn turn(&mut self, output: &mut Output, more: usize) -> Result<(), Error> {
        let (size, now) = (output.size()?, Utc::now().timestamp_millis());
        if !self.config.is_done(size, more as u64, output.begun(), now) {
            return Ok(());
        }
        let Some(to) = self.rename(now) else { return Ok(()) };
        // Until the new name is on stable storage, nothing may be written under the old one.
        output.flush_names()?;
        *output = Output::open(&self.path)?;
        info!(to = %to.display(), bytes = size, "Rotated the file.");
        Ok(())
    }

    fn rename(&mut self, now: Millis) -> Option<PathBuf> {
        match self.try_rename(now) {
            Ok(to) => {
                self.is_failing = false;
                Some(to)
            }
            // Somebody else has moved it in this moment; the next delivery notices.
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => {
                if !self.is_failing {
                    let path = self.path.display();
                    warn!(%path, error = %err, "Cannot rotate the file; it grows until that works.");
                }
                self.is_failing = true;
                None
            }
        }
    }

    fn try_rename(&mut self, now: Millis) -> io::Result<PathBuf> {
        let siblings = Siblings::of(&self.path);
        let number = self.last.max(siblings.highest()?) + 1;
        let to = siblings.path(Name::new(number, now));
        sys::rename_new(&self.path, &to)?;
        self.last = number;
        Ok(to)
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyKeep)
    }
}

/// Reads a number, a span, a size, or a table of them.
struct AnyKeep;

impl<'de> Visitor<'de> for AnyKeep {
    type Value = Keep;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a number of files such as `30`, an age such as `30d`, a size such as `10GiB`, \
             or a table of `count`, `age` and `bytes`",
        )
    }

    fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<Keep, E> {
        let number = u32::try_from(count).ok().and_then(NonZeroU32::new);
        let count = number.ok_or_else(|| E::invalid_value(Unexpected::Signed(count), &self))?;
        Ok(Keep { count: Some(count), ..Keep::default() })
    }

    fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<Keep, E> {
        self.visit_i64(i64::try_from(count).unwrap_or(i64::MAX))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Keep, E> {
        let (age, bytes) = (text.parse().ok(), text.parse().ok());
        if age.is_none() && bytes.is_none() {
            return Err(E::invalid_value(Unexpected::Str(text), &self));
        }
        Ok(Keep { age, bytes, count: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Keep, A::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Table {
            count: Option<NonZeroU32>,
            age: Option<Span>,
            bytes: Option<Bytes>,
        }
        let Table { count, age, bytes } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Keep { count, age, bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Millis = 86_400_000;

    fn by_size(size: u64) -> Config {
        Config { size: Some(Bytes::new(size)), ..Config::default() }
    }

    fn daily() -> Config {
        Config { every: Some(Span::days(1)), ..Config::default() }
    }

    #[test]
    fn a_file_is_done_when_the_next_batch_would_be_too_much_for_it() {
        let is_done = |size, more| by_size(100).is_done(size, more, None, 0);

        assert!(!is_done(60, 40));
        assert!(is_done(60, 41) && is_done(100, 1) && is_done(u64::MAX, u64::MAX));
        assert!(!is_done(0, 1000), "an empty file holds what no file can hold");
    }

    #[test]
    fn a_file_is_done_when_its_day_is_over() {
        let is_done = |begun, now| daily().is_done(1, 1, Some(begun), now);

        assert!(!is_done(DAY, 2 * DAY - 1));
        assert!(is_done(2 * DAY - 1, 2 * DAY), "the day counts, not how long the file has stood");
        assert!(!daily().is_done(0, 1, Some(0), 9 * DAY), "an empty file is never rotated");
        assert!(!daily().is_done(1, 1, None, 9 * DAY));
    }

    #[test]
    fn a_clock_that_is_set_back_rotates_no_file_twice_and_none_too_late() {
        let is_done = |begun, now| daily().is_done(1, 1, Some(begun), now);

        assert!(!is_done(2 * DAY, 2 * DAY - 1000));
        assert!(is_done(365 * DAY, 0), "it was begun under a clock that was a year ahead");
    }

    #[test]
    fn keep_is_a_count_an_age_a_size_or_all_of_them() {
        let read = |text: &str| toml::from_str::<Config>(&format!("keep = {text}")).unwrap().keep;
        let (count, age) = (NonZeroU32::new(30), Some(Span::days(7)));
        let bytes = Some(Bytes::gibibytes(10));

        assert_eq!(read("30"), Keep { count, ..Keep::default() });
        assert_eq!(read("'7d'"), Keep { age, ..Keep::default() });
        assert_eq!(read("'10GiB'"), Keep { bytes, ..Keep::default() });
        assert_eq!(read("{ count = 30, bytes = '10GiB' }"), Keep { count, age: None, bytes });
        assert_eq!(read("{ count = 30, age = '7d', bytes = '10GiB' }"), Keep { count, age, bytes });
        assert_eq!(read("{}"), Keep::default());
    }

    proptest! {
        #[test]
        fn a_file_that_is_done_stays_done(
            begun in 0..DAY * 400,
            now in 0..DAY * 400,
            later in 0..DAY * 400,
            size in 1..300u64,
            more in 0..300u64,
        ) {
            prop_assume!(now >= begun);
            let config = Config { every: Some(Span::days(1)), ..by_size(200) };
            if config.is_done(size, more, Some(begun), now) {
                prop_assert!(config.is_done(size + 1, more, Some(begun), now));
                prop_assert!(config.is_done(size, more, Some(begun), now + later));
            }
            prop_assert!(config.is_done(size, 0, Some(begun), begun + DAY));
        }
    }
}
