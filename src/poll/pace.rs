//! How fast an API may be asked, as far as its refusals tell.
//!
//! An API that limits requests for a minute would else be asked as fast as it answers, and then not
//! at all for the rest of that minute: too long for the newest events.

use std::time::Duration;

use tokio::time::Instant;

/// A refusal slows down to this at least.
const FIRST_STEP: Duration = Duration::from_millis(100);

/// No refusal slows down further than this: no API that can be used is slower.
const SLOWEST: Duration = Duration::from_secs(4);

/// Faster than this is as fast as it goes.
const FASTEST: Duration = Duration::from_millis(5);

/// The least time between two requests.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    every: Duration,
    last: Option<Instant>,
    /// Since when no request was refused for their number, and how many there were.
    since: Instant,
    requests: u32,
}

impl Pace {
    /// Asks as fast as answers come.
    pub fn new() -> Self {
        Self { every: Duration::ZERO, last: None, since: Instant::now(), requests: 0 }
    }

    /// When the next request may be made.
    pub fn next(&self) -> Instant {
        self.last.map_or_else(Instant::now, |last| last + self.every)
    }

    /// Notes that a request is made.
    pub fn asked(&mut self) {
        self.last = Some(Instant::now());
        self.requests += 1;
    }

    /// An answer came: a little faster again.
    pub fn went_well(&mut self) {
        self.every = self.every.mul_f64(0.99);
        if self.every < FASTEST {
            self.every = Duration::ZERO;
        }
    }

    /// True while it goes slower than it might.
    pub fn is_slow(&self) -> bool {
        !self.every.is_zero()
    }

    /// The API asks to be left alone for `wait`: so many requests in that time were too many.
    pub fn refused(&mut self, wait: Duration) {
        let whole = self.since.elapsed() + wait;
        let even = whole / self.requests.max(1);
        self.every = even.max(self.every.mul_f64(1.5)).clamp(FIRST_STEP, SLOWEST);
        self.since = Instant::now() + wait;
        self.requests = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_are_spread_over_the_minute_that_they_are_limited_for() {
        let mut pace = Pace::new();
        for _ in 0..120 {
            assert!(pace.next() <= Instant::now(), "nothing slows it down");
            pace.asked();
            pace.went_well();
        }
        tokio::time::advance(Duration::from_secs(2)).await;

        pace.refused(Duration::from_secs(58));
        pace.asked();

        assert_eq!(pace.next() - Instant::now(), Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn it_slows_down_within_bounds_and_recovers() {
        let mut pace = Pace::new();
        for _ in 0..100 {
            pace.refused(Duration::from_secs(600));
        }
        pace.asked();
        assert_eq!(pace.next() - Instant::now(), SLOWEST);

        for _ in 0..1000 {
            pace.went_well();
        }

        assert!(pace.next() <= Instant::now());
    }
}
