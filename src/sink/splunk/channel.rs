//! Indexer acknowledgement: a channel, and what was sent on it that is not acknowledged yet.
//! (docs.splunk.com/Documentation/Splunk/latest/Data/AboutHECIDXAck)
//!
//! An acknowledgement is told once and then forgotten, so who asks does so for all who wait, and only
//! one at a time. Holds a number for each batch that is on its way, and nothing of the batch.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::answer::{Acks, Meaning, Told, WITHOUT};
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
    /// It is not, for as long as was waited.
    Late,
    /// The collector no longer knows what was sent on the channel.
    Lost,
    /// The collector acknowledges nothing.
    Without,
}

/// One channel, by whose name the collector keeps acknowledgements apart.
pub struct Channel {
    id: Uuid,
    waits: Mutex<Waits>,
    /// Held by who asks.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waits {
    pending: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    given: Given,
    /// How many posts have no answer yet, and how many will never have one.
    under_way: u64,
    unanswered: u64,
    /// Why nothing on this channel will be acknowledged any more.
    end: Option<Polled>,
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
            // Those left out below it are taken for given: that costs a channel, and no event.
            self.below = self.others.pop_first().map_or(self.below, |first| first + 1);
        }
        true
    }
}

impl Default for Channel {
    fn default() -> Self {
        let (waits, asking) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { id: Uuid::new_v4(), waits, asking }
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

    /// A post on it begins.
    pub fn begins(&self) {
        held(&self.waits).under_way += 1;
    }

    /// A post on it has ended; without an answer, where the collector may have taken it all the same.
    pub fn ends(&self, is_unanswered: bool) {
        let mut waits = held(&self.waits);
        waits.under_way -= 1;
        waits.unanswered += u64::from(is_unanswered);
    }

    /// Waits until this number is acknowledged, asking now and then.
    pub async fn wait<F>(&self, ack: u64, patience: Duration, ask: impl Fn(Vec<u64>) -> F) -> Polled
    where
        F: Future<Output = Result<Answer, DeliveryError>>,
    {
        let (begun, mut pause) = (Instant::now(), Duration::ZERO);
        held(&self.waits).expect(ack);
        loop {
            tokio::time::sleep(pause).await;
            let asking = self.asking.lock().await;
            let is_late = begun.elapsed() >= patience;
            if let Some(polled) = held(&self.waits).fate(ack, is_late) {
                return polled;
            }
            let pending: Vec<u64> = held(&self.waits).pending.iter().copied().collect();
            // Without an answer it is asked again: what was acknowledged meanwhile is forgotten there,
            // and sent again.
            if !pending.is_empty()
                && let Ok(answer) = ask(pending).await
            {
                held(&self.waits).hear(&answer);
            }
            drop(asking);
            if let Some(polled) = held(&self.waits).fate(ack, false) {
                return polled;
            }
            let left = patience.saturating_sub(begun.elapsed());
            pause = (pause * 2).clamp(SOON, SELDOM).min(left);
        }
    }
}

impl Waits {
    fn expect(&mut self, ack: u64) {
        if !self.given.note(ack) {
            self.end = Some(Polled::Lost);
        }
        self.pending.insert(ack);
    }

    /// What has become of a number, once that is known.
    ///
    /// An indexer that starts again gives the numbers from 0 anew, to posts whose answers may be on
    /// their way or lost. So a number that one of these may have is not believed: what was lost with
    /// the indexer would count as acknowledged.
    fn fate(&mut self, ack: u64, is_late: bool) -> Option<Polled> {
        let end = match self.end {
            Some(end) => Some(end),
            None if ack < self.unanswered => Some(Polled::Lost),
            None => is_late.then_some(Polled::Late),
        };
        if end.is_some() {
            self.pending.remove(&ack);
            self.acknowledged.remove(&ack);
            return end;
        }
        let is_sure = ack >= self.unanswered + self.under_way;
        (is_sure && self.acknowledged.remove(&ack)).then_some(Polled::Acknowledged)
    }

    fn hear(&mut self, answer: &Answer) {
        let told = Told::of(answer);
        if told.meaning(answer.status) == Meaning::WantsChannel {
            self.end = Some(Polled::Lost);
        }
        if told.code == Some(WITHOUT) {
            self.end = Some(Polled::Without);
        }
        let acks: Acks = serde_json::from_slice(&answer.body).unwrap_or_default();
        for (ack, _) in acks.acks.iter().filter(|(_, is_kept)| **is_kept) {
            if let Some(ack) = ack.parse().ok().filter(|ack| self.pending.remove(ack)) {
                self.acknowledged.insert(ack);
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

    fn waits_for(ack: u64) -> Waits {
        let mut waits = Waits::default();
        waits.expect(ack);
        waits.acknowledged.insert(ack);
        waits
    }

    #[test]
    fn a_number_that_an_unanswered_post_may_have_is_not_believed() {
        let mut waits = waits_for(0);
        waits.under_way = 1;
        assert_eq!(waits.fate(0, false), None, "it may be that of the post under way");
        waits.under_way = 0;
        assert_eq!(waits.fate(0, false), Some(Polled::Acknowledged));

        let mut waits = waits_for(0);
        waits.unanswered = 1;
        assert_eq!(waits.fate(0, false), Some(Polled::Lost));

        let mut waits = waits_for(3);
        (waits.unanswered, waits.under_way) = (1, 2);
        assert_eq!(waits.fate(3, false), Some(Polled::Acknowledged));
    }

    #[test]
    fn what_the_collector_has_forgotten_is_lost_however_it_was_acknowledged() {
        let mut waits = waits_for(5);
        waits.expect(5);

        assert_eq!(waits.fate(5, false), Some(Polled::Lost));
        assert!(waits.pending.is_empty() && waits.acknowledged.is_empty());
    }
}
