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
        let waits = Backoff::new(Duration::from_secs(1), Duration::from_secs(300), seed);
        Self { waits, until: None }
    }

    /// Leaves the reader alone for a while, longer each time; says for how long.
    pub fn lengthen(&mut self) -> Duration {
        let wait = self.waits.next(None);
        self.until = Some(Instant::now() + wait);
        wait
    }

    /// The reader has drained a window; true when that was not to be expected.
    pub fn end(&mut self) -> bool {
        self.waits.reset();
        self.until.take().is_some()
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
