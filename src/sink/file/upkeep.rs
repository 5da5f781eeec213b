//! The upkeep of rotated files: compresses them in the background and removes the oldest.
//!
//! Touches only files that no committed bookmark names. Whatever fails here stops no delivery, and
//! is tried again; a stop between any two of its steps leaves every line in one file at least, and
//! the next upkeep in no doubt about which.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::task::JoinHandle;
use tracing::{Span, debug, info, warn};

use super::compress;
use super::rotate::{Compress, Config, Keep};
use super::rotated::{Form, Name, Rotated, Siblings};
use crate::event::Millis;
use crate::sys;

/// What failed is tried again no sooner than this.
const RETRY: Duration = Duration::from_secs(60);

/// How often a rotated file may grow too old without another being rotated.
const LOOK: Duration = Duration::from_secs(3600);

/// Looks after the rotated files of one sink.
pub struct Upkeep {
    work: Arc<Work>,
    job: Mutex<Option<JoinHandle<()>>>,
}

/// What the background shares with the sink.
struct Work {
    siblings: Siblings,
    compress: Compress,
    keep: Keep,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Files up to this number are needed no more.
    free: u64,
    /// Up to this number everything is done.
    done: u64,
    is_running: bool,
    is_failing: bool,
    is_ending: bool,
    looked: Option<Instant>,
}

/// Why the upkeep is not done.
#[derive(Debug, thiserror::Error)]
#[error("{doing} `{}`: {source}", path.display())]
struct Error {
    doing: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl Upkeep {
    /// Looks after the rotated files of the file at `path`.
    pub fn new(path: &Path, config: &Config) -> Self {
        let (siblings, state) = (Siblings::of(path), Mutex::default());
        let work = Work { siblings, compress: config.compress, keep: config.keep, state };
        Self { work: Arc::new(work), job: Mutex::default() }
    }

    /// Files up to the number `free` are needed no more: looks after them, if there is something
    /// to do, and returns at once.
    pub fn look_after(&self, free: u64) {
        if !self.work.begins(free) {
            return;
        }
        let (work, span) = (Arc::clone(&self.work), Span::current());
        let job = tokio::task::spawn_blocking(move || span.in_scope(|| work.run()));
        *lock(&self.job) = Some(job);
    }

    /// Waits for what is under way; `in_a_hurry` for the file in hand alone.
    pub async fn close(&self, in_a_hurry: bool) {
        lock(&self.work.state).is_ending = in_a_hurry;
        let job = lock(&self.job).take();
        if let Some(job) = job {
            // What has failed is done at the next start.
            let _ = job.await;
        }
    }
}

impl State {
    fn is_due(&self, keep: &Keep) -> bool {
        let Some(looked) = self.looked else { return true };
        let passed = looked.elapsed();
        if self.is_failing {
            return passed >= RETRY;
        }
        self.free != self.done || keep.age.is_some() && passed >= LOOK
    }
}

impl Work {
    /// True when the caller is to run it.
    fn begins(&self, free: u64) -> bool {
        let mut state = lock(&self.state);
        state.free = free;
        let begins = !state.is_running && state.is_due(&self.keep);
        state.is_running |= begins;
        begins
    }

    fn run(&self) {
        loop {
            let free = lock(&self.state).free;
            let swept = self.sweep(free);
            let mut state = lock(&self.state);
            tell(&mut state, swept);
            state.looked = Some(Instant::now());
            if !state.is_failing {
                state.done = free;
            }
            if state.is_failing || state.is_ending || state.free == free {
                state.is_running = false;
                return;
            }
        }
    }

    /// Does everything that can be done; returns what could not be.
    fn sweep(&self, free: u64) -> Result<(), Error> {
        for partial in self.siblings.partials().map_err(self.failed("read"))? {
            remove(&partial)?;
        }
        let dropped = self.drop_twins(free);
        self.remove_beyond(Keep { bytes: None, ..self.keep }, free)?;
        // Removing makes room, so that a full disk does not stay full.
        let compressed = self.compress_all(free);
        self.remove_beyond(self.keep, free)?;
        dropped.and(compressed)
    }

    /// The rotated files that are needed no more, the oldest first.
    fn list(&self, free: u64) -> Result<Vec<Rotated>, Error> {
        let mut list = self.siblings.list().map_err(self.failed("read"))?;
        list.retain(|rotated| rotated.name.number <= free);
        Ok(list)
    }

    fn compress_all(&self, free: u64) -> Result<(), Error> {
        let mut result = Ok(());
        if self.compress == Compress::None {
            return result;
        }
        for rotated in self.list(free)? {
            if rotated.name.form == Form::Plain && !lock(&self.state).is_ending {
                result = result.and(self.compress(rotated.name));
            }
        }
        result
    }

    /// Removes the plain files that stand there compressed as well: the end came between two steps.
    fn drop_twins(&self, free: u64) -> Result<(), Error> {
        let mut result = Ok(());
        for pair in self.list(free)?.windows(2) {
            let [plain, twin] = [pair[0].name, pair[1].name];
            if plain.form == Form::Plain && plain == twin.in_form(Form::Plain) {
                result = result.and(self.drop_twin(plain, twin));
            }
        }
        result
    }

    fn compress(&self, from: Name) -> Result<(), Error> {
        let to = from.in_form(self.compress.form());
        let (plain, partial) = (self.siblings.path(from), self.siblings.partial(to));
        let (target, begun) = (self.siblings.path(to), Instant::now());
        let made = compress::compress(&plain, &partial, to.form)
            .and_then(|bytes| sys::rename_new(&partial, &target).map(|()| bytes));
        let bytes = made.map_err(|source| {
            // What cannot be removed now is removed at the next upkeep.
            let _ = std::fs::remove_file(&partial);
            Error { doing: "compress", path: plain.clone(), source }
        })?;
        self.flush_names()?;
        remove(&plain)?;
        self.flush_names()?;
        debug!(file = %target.display(), bytes, elapsed = ?begun.elapsed(), "Rotated file compressed.");
        Ok(())
    }

    /// What somebody else has put there under the same name decides nothing.
    fn drop_twin(&self, name: Name, twin: Name) -> Result<(), Error> {
        let (plain, compressed) = (self.siblings.path(name), self.siblings.path(twin));
        let holds_the_same = compress::holds_the_same(&plain, &compressed, twin.form);
        if !holds_the_same.map_err(failed("compare", &compressed))? {
            let source = std::io::Error::other("it does not hold what the file beside it holds");
            return Err(Error { doing: "keep", path: compressed, source });
        }
        remove(&plain)?;
        self.flush_names()
    }

    fn remove_beyond(&self, keep: Keep, free: u64) -> Result<(), Error> {
        let list = self.list(free)?;
        let beyond = beyond(&list, &keep, Utc::now().timestamp_millis());
        for rotated in beyond {
            let path = self.siblings.path(rotated.name);
            remove(&path)?;
            info!(file = %path.display(), bytes = rotated.bytes, "Removed an old file, as `keep` says.");
        }
        if beyond.is_empty() { Ok(()) } else { self.flush_names() }
    }

    fn flush_names(&self) -> Result<(), Error> {
        sys::sync_dir(&self.siblings.dir).map_err(self.failed("flush directory"))
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        failed(doing, &self.siblings.dir)
    }
}

/// Those of the files, of which the oldest is the first, that are too many.
fn beyond<'a>(list: &'a [Rotated], keep: &Keep, now: Millis) -> &'a [Rotated] {
    let too_old = keep.age.map(|age| {
        let age = Millis::try_from(age.duration().as_millis()).unwrap_or(Millis::MAX);
        now.saturating_sub(age)
    });
    let (mut count, mut bytes, mut number) = (0_u64, 0_u64, None);
    let stays = |rotated: &&Rotated| {
        // Two forms of one file are one file.
        count += u64::from(number.replace(rotated.name.number) != Some(rotated.name.number));
        bytes = bytes.saturating_add(rotated.bytes);
        keep.count.is_none_or(|most| count <= u64::from(most.get()))
            && keep.bytes.is_none_or(|most| bytes <= most.get())
            && too_old.is_none_or(|too_old| rotated.name.time >= too_old)
    };
    let stay = list.iter().rev().take_while(stays).count();
    &list[..list.len() - stay]
}

fn tell(state: &mut State, swept: Result<(), Error>) {
    match swept {
        Err(err) if !state.is_failing => {
            warn!(error = %err, "Rotated files cannot be looked after; will retry.");
            state.is_failing = true;
        }
        Ok(()) if state.is_failing => {
            info!("Rotated files are looked after again.");
            state.is_failing = false;
        }
        _ => {}
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", path)(err)),
        _ => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error { doing, path: path.to_owned(), source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::units::{Bytes, Span as Length};

    const DAY: Millis = 86_400_000;

    /// Files of these sizes, rotated a day apart, the last just now.
    fn files(sizes: &[u64]) -> Vec<Rotated> {
        let file = |(index, bytes): (usize, &u64)| {
            let number = index as u64 + 1;
            Rotated {
                name: Name::new(number, DAY * Millis::try_from(number).unwrap()),
                bytes: *bytes,
            }
        };
        sizes.iter().enumerate().map(file).collect()
    }

    fn removed(sizes: &[u64], keep: &Keep) -> Vec<u64> {
        let now = DAY * Millis::try_from(sizes.len()).unwrap();
        beyond(&files(sizes), keep, now).iter().map(|file| file.name.number).collect()
    }

    #[test]
    fn the_oldest_files_beyond_count_age_or_bytes_go() {
        let all = Keep::default();
        let count = |count| Keep { count: NonZeroU32::new(count), ..all };
        let age = |days| Keep { age: Some(Length::days(days)), ..all };
        let bytes = |bytes| Keep { bytes: Some(Bytes::new(bytes)), ..all };
        let none: [u64; 0] = [];

        assert_eq!(removed(&[5; 4], &all), none);
        assert_eq!(removed(&[5; 4], &count(3)), [1]);
        assert_eq!(removed(&[5; 4], &count(4)), none);
        assert_eq!(removed(&[5; 4], &age(1)), [1, 2], "a day old is not older than a day");
        assert_eq!(removed(&[5; 4], &bytes(10)), [1, 2]);
        assert_eq!(removed(&[1, 5, 9, 1], &bytes(10)), [1, 2], "no gap is left in the middle");
        assert_eq!(removed(&[5, 5, 50], &bytes(10)), [1, 2, 3]);
        assert_eq!(removed(&[5; 4], &Keep { age: age(2).age, ..count(1) }), [1, 2, 3]);
        assert_eq!(removed(&[], &count(1)), none);
    }

    #[test]
    fn a_file_that_a_bookmark_may_name_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let live = home.path().join("a");
        let siblings = Siblings::of(&live);
        for number in 1..=4 {
            std::fs::write(siblings.path(Name::new(number, 0)), "line\n").unwrap();
        }
        let keep = Keep { count: NonZeroU32::new(1), ..Keep::default() };
        let config = Config { compress: Compress::Gzip, keep, ..Config::default() };
        let upkeep = Upkeep::new(&live, &config);

        upkeep.work.sweep(2).unwrap();

        let left: Vec<_> = siblings.list().unwrap().into_iter().map(|file| file.name).collect();
        let compressed = Name::new(2, 0).in_form(Form::Gzip);
        assert_eq!(left, [compressed, Name::new(3, 0), Name::new(4, 0)]);
    }

    #[test]
    fn a_failure_is_told_once_and_what_can_be_done_is_done() {
        let home = tempfile::tempdir().unwrap();
        let live = home.path().join("a");
        let siblings = Siblings::of(&live);
        let [one, two] = [1, 2].map(|number| Name::new(number, 0));
        for name in [one, two] {
            std::fs::write(siblings.path(name), "line\n").unwrap();
        }
        // Nothing can be made under this name.
        std::fs::create_dir(siblings.partial(one.in_form(Form::Zstd))).unwrap();
        let config = Config { compress: Compress::Zstd, ..Config::default() };
        let upkeep = Upkeep::new(&live, &config);

        assert!(upkeep.work.begins(2), "it has not looked yet");
        upkeep.work.run();

        assert!(lock(&upkeep.work.state).is_failing);
        assert!(!upkeep.work.begins(3), "not so soon again");
        assert!(siblings.path(one).exists());
        assert!(siblings.path(two.in_form(Form::Zstd)).exists());
        lock(&upkeep.work.state).looked = Instant::now().checked_sub(RETRY);
        std::fs::remove_dir(siblings.partial(one.in_form(Form::Zstd))).unwrap();
        assert!(upkeep.work.begins(3));
        upkeep.work.run();
        assert!(siblings.path(one.in_form(Form::Zstd)).exists());
        assert!(!upkeep.work.begins(3), "there is nothing to do");
        assert!(upkeep.work.begins(4));
    }

    proptest! {
        #[test]
        fn what_stays_is_within_every_limit_and_as_much_as_can_be(
            sizes in proptest::collection::vec(0..50u64, 0..20),
            count in 0..20u32,
            days in 1..20u64,
            bytes in 1..500u64,
        ) {
            let keep = Keep {
                count: NonZeroU32::new(count),
                age: Some(Length::days(days)),
                bytes: Some(Bytes::new(bytes)),
            };
            let gone = removed(&sizes, &keep).len();
            let (stay, newest) = (sizes.len() - gone, &sizes[gone..]);
            prop_assert!(count == 0 || stay <= count as usize);
            prop_assert!(stay as u64 <= days + 1);
            prop_assert!(newest.iter().sum::<u64>() <= bytes);
            if gone > 0 {
                let more = (stay + 1, sizes[gone - 1] + newest.iter().sum::<u64>());
                prop_assert!(
                    count > 0 && more.0 > count as usize || more.0 as u64 > days + 1 || more.1 > bytes
                );
            }
        }
    }
}
