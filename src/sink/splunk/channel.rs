//! Indexer acknowledgement: a channel, and what was sent on it that is not acknowledged yet.
//! (docs.splunk.com/Documentation/Splunk/latest/Data/AboutHECIDXAck)
//!
//! An acknowledgement is told once and then forgotten, so who asks does so for all who wait, and only
//! one at a time. Holds a number for each batch that is on its way, and nothing of the batch.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::answer::{Acks, Meaning, Told};
use crate::http::Answer;
use crate::sink::DeliveryError;

/// How soon it is asked the first time, and how seldom later.
const SOON: Duration = Duration::from_millis(5);
const SELDOM: Duration = Duration::from_secs(5);

/// What has come of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// It is acknowledged.
    Acknowledged,
    /// It is not, and will not be on this channel.
    Never,
}

/// The channel that is sent on, while there is one.
pub struct Channels {
    current: Mutex<Option<Arc<Channel>>>,
    patience: Duration,
}

impl Channels {
    /// With a channel from the beginning where acknowledgement is demanded.
    pub fn new(is_demanded: bool, patience: Duration) -> Self {
        let current = is_demanded.then(Arc::default);
        Self { current: Mutex::new(current), patience }
    }

    /// The channel to send on.
    pub fn current(&self) -> Option<Arc<Channel>> {
        held(&self.current).clone()
    }

    /// How long an acknowledgement may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Begins another channel, unless somebody has done so since this one was the current.
    pub fn renew(&self, known: Option<&Arc<Channel>>) {
        let mut current = held(&self.current);
        if same(current.as_ref(), known) {
            *current = Some(Arc::default());
        }
    }

    /// Goes on without, for this one acknowledges nothing.
    pub fn leave(&self, known: &Arc<Channel>) {
        let mut current = held(&self.current);
        if same(current.as_ref(), Some(known)) {
            *current = None;
        }
    }
}

fn same(one: Option<&Arc<Channel>>, other: Option<&Arc<Channel>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// One channel, by whose name the collector keeps acknowledgements apart.
pub struct Channel {
    id: Uuid,
    waits: Mutex<Waits>,
    /// Held by who asks.
    asking: tokio::sync::Mutex<()>,
    /// True when the collector no longer knows what was sent on it.
    is_lost: AtomicBool,
    /// True when it says that it acknowledges nothing.
    is_without: AtomicBool,
}

#[derive(Default)]
struct Waits {
    pending: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    given: Given,
}

/// The numbers that were given so far. An indexer that starts again gives them anew from 0: without
/// this, what it has lost could be taken for acknowledged by the number of something later.
#[derive(Default)]
struct Given {
    /// All below this.
    below: u64,
    others: BTreeSet<u64>,
}

impl Given {
    /// More than these are not remembered, should a collector leave out numbers.
    const MOST: usize = 10_000;

    /// Takes note of a number; false when it was given before.
    fn note(&mut self, ack: u64) -> bool {
        if ack < self.below || !self.others.insert(ack) {
            return false;
        }
        while self.others.remove(&self.below) {
            self.below += 1;
        }
        if self.others.len() > Self::MOST {
            self.others.pop_first();
        }
        true
    }
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            id: Uuid::new_v4(),
            waits: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            is_lost: AtomicBool::new(false),
            is_without: AtomicBool::new(false),
        }
    }
}

impl Channel {
    /// Its name.
    pub fn id(&self) -> String {
        self.id.to_string().to_uppercase()
    }

    /// Its name, as a header has it.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.id()).expect("digits and letters")
    }

    /// Whether the collector has said that it acknowledges nothing.
    pub fn is_without(&self) -> bool {
        self.is_without.load(Ordering::Relaxed)
    }

    /// Waits until this number is acknowledged, asking now and then.
    pub async fn wait<F>(&self, ack: u64, patience: Duration, ask: impl Fn(Vec<u64>) -> F) -> Polled
    where
        F: Future<Output = Result<Answer, DeliveryError>>,
    {
        let (begun, mut pause) = (Instant::now(), Duration::ZERO);
        {
            let mut waits = held(&self.waits);
            if !waits.given.note(ack) {
                self.is_lost.store(true, Ordering::Relaxed);
            }
            waits.pending.insert(ack);
        }
        loop {
            tokio::time::sleep(pause).await;
            let asking = self.asking.lock().await;
            if self.is_lost.load(Ordering::Relaxed) {
                held(&self.waits).pending.remove(&ack);
                return Polled::Never;
            }
            if held(&self.waits).acknowledged.remove(&ack) {
                return Polled::Acknowledged;
            }
            if begun.elapsed() >= patience {
                held(&self.waits).pending.remove(&ack);
                return Polled::Never;
            }
            let pending = held(&self.waits).pending.iter().copied().collect();
            // Without an answer it is asked again: what was acknowledged meanwhile is forgotten there,
            // and sent again.
            if let Ok(answer) = ask(pending).await {
                self.note(&answer);
            }
            drop(asking);
            if held(&self.waits).acknowledged.remove(&ack) {
                return Polled::Acknowledged;
            }
            let left = patience.saturating_sub(begun.elapsed());
            pause = (pause * 2).clamp(SOON, SELDOM).min(left);
        }
    }

    fn note(&self, answer: &Answer) {
        let told = Told::of(answer);
        if told.meaning(answer.status) == Meaning::WantsChannel {
            self.is_lost.store(true, Ordering::Relaxed);
        }
        if told.code == Some(14) {
            self.is_without.store(true, Ordering::Relaxed);
            self.is_lost.store(true, Ordering::Relaxed);
        }
        let acks: Acks = serde_json::from_slice(&answer.body).unwrap_or_default();
        let mut waits = held(&self.waits);
        for (ack, _) in acks.acks.iter().filter(|(_, is_kept)| **is_kept) {
            if let Some(ack) = ack.parse().ok().filter(|ack| waits.pending.remove(ack)) {
                waits.acknowledged.insert(ack);
            }
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_given_twice_is_noticed() {
        let mut given = Given::default();

        assert!([0, 1, 3, 2, 5, 9].into_iter().all(|ack| given.note(ack)));

        assert!([0, 2, 3, 5, 9].into_iter().all(|ack| !given.note(ack)));
        assert!(given.note(4) && given.below == 6 && given.others.len() == 1);
    }
}
