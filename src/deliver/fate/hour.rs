//! How much of the last hour was refused. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// More suspects than this in an hour speak against the destination.
const MOST: u64 = 100;

/// So does more than one in so many.
const ONE_IN: u64 = 10;

/// What is judged by its share: one of three events proves nothing.
const AT_LEAST: u64 = 100;

/// Counts by the minute.
#[derive(Debug, Default)]
pub struct Hour(VecDeque<Minute>);

#[derive(Debug)]
struct Minute {
    number: u64,
    accepted: u64,
    suspects: u64,
}

impl Hour {
    /// An hour.
    pub const LENGTH: Duration = Duration::from_secs(3600);

    /// So many events were accepted.
    pub fn accepted(&mut self, events: u64, now: Duration) {
        self.minute(now).accepted += events;
    }

    /// One more event is suspected.
    pub fn suspected(&mut self, now: Duration) {
        self.minute(now).suspects += 1;
    }

    /// The suspects, and all events.
    pub fn counts(&mut self, now: Duration) -> (u64, u64) {
        self.minute(now);
        let suspects: u64 = self.0.iter().map(|minute| minute.suspects).sum();
        let accepted: u64 = self.0.iter().map(|minute| minute.accepted).sum();
        (suspects, suspects + accepted)
    }

    /// True when that is too many.
    pub fn is_over(&mut self, now: Duration) -> bool {
        let (suspects, events) = self.counts(now);
        suspects > MOST || suspects * ONE_IN > events.max(AT_LEAST)
    }

    /// The suspects of before do not count any more.
    pub fn forgive(&mut self) {
        self.0.iter_mut().for_each(|minute| minute.suspects = 0);
    }

    fn minute(&mut self, now: Duration) -> &mut Minute {
        let number = now.as_secs() / 60;
        while self.0.front().is_some_and(|minute| minute.number + 60 <= number) {
            self.0.pop_front();
        }
        if self.0.back().is_none_or(|minute| minute.number < number) {
            self.0.push_back(Minute { number, accepted: 0, suspects: 0 });
        }
        self.0.back_mut().expect("there is one now")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn more_than_a_tenth_is_too_many() {
        let mut hour = Hour::default();
        hour.accepted(900, Duration::ZERO);

        (0..100).for_each(|_| hour.suspected(MINUTE));

        assert!(!hour.is_over(MINUTE));
        hour.suspected(MINUTE);
        assert!(hour.is_over(MINUTE));
    }

    #[test]
    fn more_than_a_hundred_are_too_many_among_however_many() {
        let mut hour = Hour::default();
        hour.accepted(1_000_000, Duration::ZERO);

        (0..100).for_each(|_| hour.suspected(MINUTE));

        assert!(!hour.is_over(MINUTE));
        hour.suspected(MINUTE);
        assert!(hour.is_over(MINUTE));
    }

    #[test]
    fn a_few_of_a_few_are_not() {
        let mut hour = Hour::default();

        (0..10).for_each(|_| hour.suspected(MINUTE));

        assert!(!hour.is_over(MINUTE));
        hour.suspected(MINUTE);
        assert!(hour.is_over(MINUTE));
    }

    #[test]
    fn an_hour_later_nothing_of_it_counts() {
        let mut hour = Hour::default();
        (0..50).for_each(|_| hour.suspected(MINUTE));

        assert!(hour.is_over(MINUTE * 60));
        assert_eq!(hour.counts(MINUTE * 61), (0, 0));
    }
}
