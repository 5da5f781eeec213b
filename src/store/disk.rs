//! The disk below the store: the room it has, and the ballast that goes when it has none.
//!
//! On a full disk SQLite can neither settle nor give anything back. So a file is kept that takes up
//! room until then: when it goes, what is stored can be settled and pruned, while new pages wait.
//! Holds no SQL, and knows nothing of pages but that they may have to wait.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::debug;

use super::{Error, directory};
use crate::sys;
use crate::units::Bytes;

const BALLAST: &str = "siemferry.ballast";
const PROBE: &str = "siemferry.probe";

/// Enough for some settles, a checkpoint and a prune, however large the log is.
const MOST: u64 = 32 << 20;
/// Less would not let a single settle through.
const LEAST: u64 = 64 << 10;

/// A log that takes up less is not worth giving back.
const LONG_LOG: u64 = 512 << 10;

/// The longest wait between two attempts to take pages again, when the last ones failed.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why new pages have to wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The sinks have not taken what is there.
    #[error("the spool holds `spool.max_bytes` ({0}) or more")]
    Spool(Bytes),
    /// Others may need what is left on the file system, and so may we, to settle.
    #[error("the file system of `{}` has {} MiB free, less than the reserve of {reserve}", dir.display(), free >> 20)]
    Reserve {
        /// The state directory.
        dir: PathBuf,
        /// How many bytes were free when that was noticed.
        free: u64,
        /// How many there should be.
        reserve: Bytes,
    },
    /// Nothing could be written any more.
    #[error("there is no space left on the file system of `{}`", dir.display())]
    Disk {
        /// The state directory.
        dir: PathBuf,
    },
}

impl Shortage {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Spool(_) => "see why the sinks take nothing; polling goes on by itself",
            Self::Reserve { .. } => {
                "free some space, or lower `spool.reserve`; polling goes on by itself"
            }
            Self::Disk { .. } => "free some space; polling goes on by itself",
        }
    }
}

/// The file system of the state directory.
pub(super) struct Disk {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How much is to stay free; none as long as nobody has asked for a ballast.
    reserve: Option<Bytes>,
    /// How large the ballast is; 0 without one.
    ballast: u64,
    shortage: Option<Shortage>,
    /// True from the end of a full disk until a page has found room.
    on_trial: bool,
    /// How often in a row it was full again before a page had found room.
    relapses: u32,
    /// When the next attempt is made to end a full disk, or to make a ballast.
    not_before: Option<Instant>,
}

impl Disk {
    /// Finds what an earlier run has left.
    pub fn new(dir: &Path) -> Self {
        let ballast = std::fs::metadata(dir.join(BALLAST)).map_or(0, |found| found.len());
        Self { dir: dir.to_owned(), state: Mutex::new(State { ballast, ..State::default() }) }
    }

    /// From now on so much is to stay free, and the ballast is made when there is room for it.
    pub fn keep_free(&self, reserve: Bytes) {
        self.lock().reserve = Some(reserve);
    }

    /// Why no page may come in. A shortage that has begun ends only with some room to spare, so
    /// that nothing swings; its text stays the same as long as it lasts.
    pub fn shortage(&self) -> Option<Shortage> {
        let mut state = self.lock();
        let reserve = state.reserve?;
        if reserve.get() > 0 && !matches!(state.shortage, Some(Shortage::Disk { .. })) {
            let free = self.free();
            let spare = if state.shortage.is_some() { reserve.get() / 16 } else { 0 };
            if free >= reserve.get().saturating_add(spare) {
                state.shortage = None;
            } else if state.shortage.is_none() {
                state.shortage = Some(Shortage::Reserve { dir: self.dir.clone(), free, reserve });
            }
        }
        state.shortage.clone()
    }

    /// True while room is to be made rather than used.
    pub fn is_short(&self) -> bool {
        let state = self.lock();
        state.reserve.is_some() && state.shortage.is_some()
    }

    /// True when it is worth giving back what the log of the database takes up.
    pub fn has_long_log(&self) -> bool {
        std::fs::metadata(directory::log(&self.dir)).is_ok_and(|found| found.len() > LONG_LOG)
    }

    /// Keeps the room that the ballast has given for what is stored already.
    ///
    /// # Errors
    /// [`Error::Full`] as long as a full disk lasts.
    pub fn admit_page(&self) -> Result<(), Error> {
        let state = self.lock();
        let is_full = matches!(state.shortage, Some(Shortage::Disk { .. }));
        if is_full && state.reserve.is_some() { Err(Error::Full) } else { Ok(()) }
    }

    /// A page has found room.
    pub fn page_stored(&self) {
        let mut state = self.lock();
        (state.on_trial, state.relapses) = (false, 0);
    }

    /// True while nobody knows yet whether a full disk is over.
    pub fn is_on_trial(&self) -> bool {
        self.lock().on_trial
    }

    /// Gives up the ballast, for something could not be written. True when there was one.
    pub fn ran_full(&self) -> bool {
        let mut state = self.lock();
        state.not_before = None;
        if state.on_trial {
            let wait = Duration::from_secs(1 << state.relapses.min(6)).min(LONGEST_WAIT);
            state.not_before = Some(Instant::now() + wait);
            state.relapses += 1;
            state.on_trial = false;
        }
        state.shortage = Some(Shortage::Disk { dir: self.dir.clone() });
        let bytes = std::mem::take(&mut state.ballast);
        if bytes > 0 {
            self.drop_ballast();
            debug!(bytes, "The disk is full; the ballast goes.");
        }
        bytes > 0
    }

    /// Says whether an error of SQLite comes from a lack of room.
    pub fn judge(&self, err: Error) -> Error {
        if err.may_be_full() && self.has_no_room() { Error::Full } else { err }
    }

    /// True when [`Disk::tend`] has something to do.
    pub fn is_to_be_tended(&self) -> bool {
        let state = self.lock();
        let is_due = state.not_before.is_none_or(|at| at <= Instant::now());
        is_due
            && match &state.shortage {
                Some(Shortage::Disk { .. }) => state.reserve.is_some(),
                Some(_) => false,
                None => self.better_ballast(&state).is_some(),
            }
    }

    /// Makes the ballast when there is room for it, and for as much again. A full disk is over when
    /// that works: free space alone does not tell, for there may be a quota. Before `is_settled`,
    /// that is while something stored still waits for a sink, there must be room for all of it.
    pub fn tend(&self, is_settled: bool) {
        let mut state = self.lock();
        let Some(size) = self.better_ballast(&state) else { return };
        let is_full = matches!(state.shortage, Some(Shortage::Disk { .. }));
        if is_full && !is_settled && size < MOST {
            return;
        }
        let as_it_is = state.ballast > 0 || (is_full && !is_settled);
        let smallest = if as_it_is { size } else { LEAST };
        let sizes = std::iter::successors(Some(size), |size| Some(size / 2));
        let made = sizes
            .take_while(|size| *size >= smallest)
            .find(|size| self.make_ballast(state.ballast, *size).is_ok());
        let Some(bytes) = made else {
            debug!(bytes = size, "There is no room for a ballast.");
            let wait = if is_full { Duration::from_secs(1) } else { LONGEST_WAIT };
            state.not_before = Some(Instant::now() + wait);
            return;
        };
        debug!(bytes, "There is a ballast.");
        state.ballast = bytes;
        if is_full {
            (state.shortage, state.on_trial) = (None, true);
        }
    }

    /// The size of a ballast that is worth making: one where there is none, or one of full size.
    fn better_ballast(&self, state: &State) -> Option<u64> {
        let reserve = state.reserve?.get();
        if state.ballast >= MOST {
            return None;
        }
        let room = self.free().saturating_add(state.ballast).saturating_sub(reserve);
        let size = (room / 2).min(MOST) / LEAST * LEAST;
        (if state.ballast == 0 { size >= LEAST } else { size == MOST }).then_some(size)
    }

    /// Takes twice as much before it keeps its part, so that the other half is left for certain.
    fn make_ballast(&self, old: u64, size: u64) -> io::Result<()> {
        let file = sys::open_private(&self.dir.join(BALLAST))?;
        let made = sys::allocate(&file, 2 * size)
            .and_then(|()| file.set_len(size))
            .and_then(|()| file.sync_all())
            .and_then(|()| sys::sync_dir(&self.dir));
        if made.is_err() {
            if old == 0 {
                self.drop_ballast();
            } else {
                file.set_len(old)?;
            }
        }
        made
    }

    fn drop_ballast(&self) {
        // Whatever keeps it from going, the next write finds out whether there is room.
        let _ = std::fs::remove_file(self.dir.join(BALLAST));
        let _ = directory::sync(&self.dir);
    }

    /// An unknown figure must not stop the feed.
    fn free(&self) -> u64 {
        sys::free_bytes(&self.dir).unwrap_or(u64::MAX)
    }

    fn has_no_room(&self) -> bool {
        let path = self.dir.join(PROBE);
        let probe = || {
            let file = sys::open_private(&path)?;
            sys::allocate(&file, LEAST)?;
            file.sync_all()
        };
        let probed: io::Result<()> = probe();
        let _ = std::fs::remove_file(&path);
        probed.is_err_and(|err| sys::is_no_room(err.kind()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(reserve: Bytes) -> (tempfile::TempDir, Disk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path());
        disk.keep_free(reserve);
        (dir, disk)
    }

    #[test]
    fn the_ballast_goes_when_the_disk_is_full_and_comes_back_with_the_room() {
        let (dir, disk) = guarded(Bytes::new(0));
        disk.tend(false);
        let ballast = dir.path().join(BALLAST);
        assert_eq!(ballast.metadata().unwrap().len(), MOST);
        assert!(!disk.is_to_be_tended());
        disk.admit_page().unwrap();

        assert!(disk.ran_full());

        assert!(!ballast.exists());
        assert!(matches!(disk.shortage(), Some(Shortage::Disk { .. })));
        assert!(matches!(disk.admit_page(), Err(Error::Full)), "it is not for new pages");
        assert!(!disk.ran_full(), "it can go only once");
        assert!(disk.is_to_be_tended());
        disk.tend(false);
        assert_eq!(ballast.metadata().unwrap().len(), MOST);
        assert_eq!(disk.shortage(), None);
        disk.admit_page().unwrap();
        assert!(disk.is_on_trial());
        disk.page_stored();
        assert!(!disk.is_on_trial());
    }

    #[test]
    fn a_disk_that_is_full_again_at_once_is_not_tried_at_once() {
        let (_dir, disk) = guarded(Bytes::new(0));
        disk.ran_full();
        disk.tend(true);

        disk.ran_full();

        assert!(!disk.is_to_be_tended());
        assert!(disk.shortage().is_some());
    }

    #[test]
    fn the_ballast_of_an_earlier_run_is_known() {
        let (dir, disk) = guarded(Bytes::new(0));
        disk.tend(true);

        let later = Disk::new(dir.path());

        assert!(later.ran_full());
        assert!(!dir.path().join(BALLAST).exists());
    }

    #[test]
    fn less_than_the_reserve_is_told_in_the_same_words_as_long_as_it_lasts() {
        let (dir, disk) = guarded(Bytes::mebibytes(1 << 40));

        let told = disk.shortage().unwrap();

        std::fs::write(dir.path().join("more"), vec![1; 2 << 20]).unwrap();
        assert_eq!(disk.shortage().as_ref(), Some(&told));
        let text = told.to_string();
        let begin = format!("the file system of `{}` has ", dir.path().display());
        assert!(text.starts_with(&begin), "{text}");
        assert!(text.ends_with(" MiB free, less than the reserve of 1048576TiB"), "{text}");
        disk.tend(true);
        assert!(!dir.path().join(BALLAST).exists(), "there is no room for it");
    }

    #[test]
    fn nobody_waits_for_a_disk_that_nobody_guards() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path());

        disk.ran_full();

        assert_eq!(disk.shortage(), None);
        disk.admit_page().unwrap();
        disk.tend(true);
        assert!(!dir.path().join(BALLAST).exists());
    }
}
