//! How a source or a sink is doing: told once per change, with a growing wait between attempts.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// The state that `status` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It works.
    Ok,
    /// A source that waits for room in the spool, or on the disk.
    Paused,
    /// The last attempt failed; the next comes by itself.
    Retrying,
    /// It cannot go on until somebody acts; it tries now and then.
    Blocked,
}

impl State {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Paused => "paused",
            Self::Retrying => "retrying",
            Self::Blocked => "blocked",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The state of one source or sink, and what it has gone through since it last worked.
#[derive(Debug)]
pub struct Health {
    state: State,
    error: Option<String>,
    since: Instant,
    /// False while `status` does not show it yet, for the store could not take it.
    is_told: bool,
    /// The waits between attempts that fail by themselves.
    pub retries: Backoff,
    /// The waits between attempts while it is blocked.
    pub probes: Backoff,
}

impl Health {
    /// Of something that is believed to work; `seed` keeps many from waking at once.
    pub fn new(shortest_wait: Duration, longest_wait: Duration, seed: u64) -> Self {
        Self {
            state: State::Ok,
            error: None,
            since: Instant::now(),
            is_told: false,
            retries: Backoff::new(shortest_wait, longest_wait, seed),
            probes: Backoff::new(Duration::from_secs(30), Duration::from_secs(600), seed),
        }
    }

    /// How it is doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes a new state; true when that, or its error, is news.
    pub fn turn_to(&mut self, state: State, error: Option<&str>) -> bool {
        if self.state == state && (error.is_none() || error == self.error.as_deref()) {
            return false;
        }
        if self.state != state {
            self.since = Instant::now();
        }
        self.state = state;
        self.error = error.map(str::to_owned);
        self.is_told = false;
        true
    }

    /// True when `status` shows something else.
    pub fn is_untold(&self) -> bool {
        !self.is_told
    }

    /// What `status` is to show: the state, and its error.
    pub fn tell(&mut self) -> (&'static str, Option<String>) {
        self.is_told = true;
        (self.state.name(), self.error.clone())
    }

    /// The store could not take it: it is to be told again.
    pub fn untell(&mut self) {
        self.is_told = false;
    }

    /// Forgets the failures; says what it has recovered from, and how long that lasted.
    pub fn works(&mut self) -> Option<(State, Duration)> {
        self.retries.reset();
        self.probes.reset();
        let (was, lasted) = (self.state, self.since.elapsed());
        self.turn_to(State::Ok, None).then_some((was, lasted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_news_once_and_so_is_each_error() {
        let mut health = Health::new(Duration::from_secs(1), Duration::from_secs(60), 3);

        assert!(!health.turn_to(State::Ok, None));
        assert!(health.turn_to(State::Retrying, Some("reset")));
        assert!(!health.turn_to(State::Retrying, Some("reset")));
        assert!(health.turn_to(State::Retrying, Some("refused")));
        assert_eq!(health.works().map(|(was, _)| was), Some(State::Retrying));
        assert!(health.works().is_none());
    }
}
