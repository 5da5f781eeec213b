//! A reader whose window cannot be read now: the others go on meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// Since when, and until when, one reader is left alone.
#[derive(Clone, Debug)]
pub struct Hold {
    waits: Backoff,
    until: Option<Instant>,
}

impl Hold {
    /// Of a reader that is ready; `seed` keeps many from waking at once.
    pub fn new(seed: u64) -> Self {
        let waits = Backoff::new(super::SOON, Duration::from_secs(300), seed);
        Self { waits, until: None }
    }

    /// Leaves the reader alone for a while, longer each time; says for how long.
    pub fn lengthen(&mut self) -> Duration {
        let wait = self.waits.next(None);
        self.until = Some(Instant::now() + wait);
        wait
    }

    /// The next wait is as short as the first.
    pub fn shorten(&mut self) {
        self.waits.reset();
    }

    /// The reader has drained a window.
    pub fn end(&mut self) {
        self.waits.reset();
        self.until = None;
    }

    /// True from the first failure until a window is drained.
    pub fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// True when the reader may try.
    pub fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    /// When it may try again, if it has failed.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// How often it has failed in a row.
    pub fn attempt(&self) -> u32 {
        self.waits.attempt()
    }
}
