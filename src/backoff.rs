//! How long to wait before trying again: doubling, jittered, bounded; a server's hint is clamped.

use std::time::Duration;

/// A series of waits. Starts again at the shortest after a success.
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    attempt: u32,
    noise: u64,
}

/// A server that asks for more than this is asked again sooner: a mistaken hint must not stop the
/// feed for a day.
pub const LONGEST_HINT: Duration = Duration::from_secs(15 * 60);

impl Backoff {
    /// Waits from `shortest` up to `longest`; `seed` keeps many from waking at once.
    pub fn new(shortest: Duration, longest: Duration, seed: u64) -> Self {
        Self { shortest, longest, attempt: 0, noise: mixed(seed) | 1 }
    }

    /// Counts a failure and says how long to wait, no less than what the server asked for, within
    /// reason.
    pub fn next(&mut self, hint: Option<Duration>) -> Duration {
        let doubled = self.shortest.saturating_mul(1 << self.attempt.min(20));
        self.attempt = self.attempt.saturating_add(1);
        let jittered = doubled.min(self.longest).mul_f64(self.fraction());
        jittered.max(hint.unwrap_or_default().min(LONGEST_HINT))
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// How many failures there were since the last success.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Between a half and one.
    fn fraction(&mut self) -> f64 {
        // Xorshift: it only has to differ from one process to the next.
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        let sixteen_bits = u16::try_from(self.noise >> 48).expect("48 of 64 bits are gone");
        0.5 + f64::from(sixteen_bits) / f64::from(u16::MAX) / 2.0
    }
}

/// Spreads a seed over all bits, as `SplitMix64` does: seeds that differ little must not wait alike.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest_and_start_again() {
        let mut backoff = Backoff::new(SECOND, SECOND * 60, 7);

        for attempt in 0..100 {
            let whole = SECOND.saturating_mul(1 << attempt.min(10)).min(SECOND * 60);
            let wait = backoff.next(None);
            assert!(whole / 2 <= wait && wait <= whole, "attempt {attempt}: {wait:?}");
        }
        backoff.reset();

        assert!(backoff.next(None) <= SECOND);
        assert_eq!(backoff.attempt(), 1);
    }

    #[test]
    fn a_hint_is_obeyed_within_reason() {
        let mut backoff = Backoff::new(SECOND, SECOND * 60, 7);

        assert_eq!(backoff.next(Some(SECOND * 120)), SECOND * 120);
        assert_eq!(backoff.next(Some(SECOND * 86_400)), LONGEST_HINT);
        assert!(backoff.next(Some(Duration::ZERO)) >= SECOND);
    }
}
