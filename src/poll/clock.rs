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
    anchor: Instant,
    at_anchor: Millis,
}

impl ServerClock {
    /// Begins with our own clock and the skew that the last run measured.
    pub fn new(wall: Millis, skew: Millis) -> Self {
        Self { anchor: Instant::now(), at_anchor: wall + skew }
    }

    /// The server's time now. The wall clock may jump meanwhile; this does not.
    pub fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    /// The server's time at another moment.
    pub fn at(&self, moment: Instant) -> Millis {
        let millis = |span: Duration| Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX);
        match moment.checked_duration_since(self.anchor) {
            Some(since) => self.at_anchor.saturating_add(millis(since)),
            None => self.at_anchor.saturating_sub(millis(self.anchor.duration_since(moment))),
        }
    }

    /// Learns from a response that was received just now; returns the server's time when the
    /// request was sent, or later than which it was not.
    pub fn observe(&mut self, date: Millis, elapsed: Duration) -> Millis {
        self.anchor = Instant::now();
        self.at_anchor = date;
        date.saturating_sub(Millis::try_from(elapsed.as_millis()).unwrap_or(Millis::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_goes_on_from_the_last_answer() {
        let mut clock = ServerClock::new(5_000_000, -1_000);
        assert_eq!(clock.now(), 4_999_000);

        let sent = clock.observe(9_000_000, Duration::from_millis(300));
        tokio::time::advance(Duration::from_secs(7)).await;

        assert_eq!(sent, 8_999_700);
        assert_eq!(clock.now(), 9_007_000);
        assert_eq!(clock.at(Instant::now() - Duration::from_secs(10)), 8_997_000);
    }
}
