//! How fast events are sent to a collector that says that it is near its capacity.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The first pause, and the longest: less than the grace of a stop.
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(8);

/// Pauses before each batch, longer while the need lasts.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Duration>);

impl Pace {
    /// Waits as long as there is need to.
    pub async fn wait(&self) {
        let pause = *self.pause();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    /// The collector has room.
    pub fn is_well(&self) {
        let mut pause = self.pause();
        *pause = if *pause > SHORTEST { *pause / 2 } else { Duration::ZERO };
    }

    /// It has hardly room for more.
    pub fn is_in_need(&self) {
        let mut pause = self.pause();
        *pause = (*pause * 2).clamp(SHORTEST, LONGEST);
    }

    fn pause(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_there_is_need_and_go_when_there_is_none() {
        let pace = Pace::default();
        let pauses: Vec<_> = (0..6)
            .map(|_| {
                pace.is_in_need();
                pace.pause().as_millis()
            })
            .collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 8000]);

        (0..5).for_each(|_| pace.is_well());

        assert!(pace.pause().is_zero());
    }
}
