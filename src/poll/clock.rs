//! The server's clock, as far as it is known: measured on each response, carried on by a clock that
//! never jumps.
//!
//! Every estimate errs to the past, by the time an answer took and the fraction that a `Date` cuts
//! off. So a watermark never passes what the server could have shown.

use std::time::Duration;

use tokio::time::Instant;

use crate::event::Millis;

/// An estimate of the server's time.
#[derive(Clone, Copy, Debug)]
pub struct ServerClock {
    wall: fn() -> Millis,
    skew: Millis,
    /// When an answer told the time, and which.
    told: Option<(Instant, Millis)>,
}

impl ServerClock {
    /// Begins with our own clock and the skew that the last run measured.
    pub fn new(wall: fn() -> Millis, skew: Millis) -> Self {
        Self { wall, skew, told: None }
    }

    /// The server's time now. Once an answer has told it, the wall clock may jump.
    pub fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    /// The server's time at another moment.
    pub fn at(&self, moment: Instant) -> Millis {
        let millis = |span: Duration| Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX);
        let (anchor, at_anchor) =
            self.told.unwrap_or_else(|| (Instant::now(), (self.wall)().saturating_add(self.skew)));
        match moment.checked_duration_since(anchor) {
            Some(since) => at_anchor.saturating_add(millis(since)),
            None => at_anchor.saturating_sub(millis(anchor.duration_since(moment))),
        }
    }

    /// How far the server's clock is ahead of ours; what was known before, until an answer tells.
    pub fn skew(&self, wall: Millis) -> Millis {
        self.told.map_or(self.skew, |_| self.now() - wall)
    }

    /// Learns from a response that was received just now; returns the server's time when the
    /// request was sent, or later than which it was not.
    pub fn observe(&mut self, date: Millis, elapsed: Duration) -> Millis {
        self.told = Some((Instant::now(), date));
        date.saturating_sub(Millis::try_from(elapsed.as_millis()).unwrap_or(Millis::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_goes_on_from_the_last_answer() {
        let mut clock = ServerClock::new(|| 5_000_000, -1_000);
        assert_eq!(clock.now(), 4_999_000);
        assert_eq!(clock.skew(7_000_000), -1_000, "nothing was measured yet");

        let sent = clock.observe(9_000_000, Duration::from_millis(300));
        tokio::time::advance(Duration::from_secs(7)).await;

        assert_eq!(sent, 8_999_700);
        assert_eq!(clock.now(), 9_007_000);
        assert_eq!(clock.at(Instant::now() - Duration::from_secs(10)), 8_997_000);
    }
}
