//! Channels, and the batches that wait in them to be acknowledged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;

use super::api::{Refusal, refusal};
use super::{AckMode, Seen, Shared, State};
use crate::plain_http::Answer;

/// The poll in which a batch is acknowledged, counted from 1 and only where it is asked for; by
/// its ack id and by the request that brought it. None: never.
type Polls = dyn Fn(u64, u64) -> Option<u32> + Send + Sync;

/// When batches are acknowledged.
#[derive(Clone)]
pub struct AckPlan(Arc<Polls>);

impl AckPlan {
    /// Each in its poll of this number, counted from 1.
    pub fn after(polls: u32) -> Self {
        Self::by(move |_, _| Some(polls))
    }

    pub fn never() -> Self {
        Self::by(|_, _| None)
    }

    /// The batches with an even ack id two polls later than those with an odd one.
    pub fn out_of_order() -> Self {
        Self::by(|id, _| Some(if id % 2 == 0 { 3 } else { 1 }))
    }

    /// In the first poll those that these requests with events brought, and the others never.
    pub fn only(is_chosen: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        Self::by(move |_, request| is_chosen(request).then_some(1))
    }

    pub fn by(polls: impl Fn(u64, u64) -> Option<u32> + Send + Sync + 'static) -> Self {
        Self(Arc::new(polls))
    }
}

/// How many batches wait to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub now: usize,
    /// The most there ever were at once.
    pub most: usize,
}

/// One channel at one indexer.
#[derive(Default)]
pub struct Channel {
    next: u64,
    pending: BTreeMap<u64, Pending>,
}

struct Pending {
    request: u64,
    polls: u32,
}

impl State {
    pub fn waiting(&self) -> usize {
        self.channels.values().map(|channel| channel.pending.len()).sum()
    }

    /// The ack id of a batch that was just taken. Each channel counts from 0.
    pub fn pend(&mut self, indexer: u32, channel: &str, request: u64) -> u64 {
        let channel = self.channels.entry((indexer, channel.to_owned())).or_default();
        let id = channel.next;
        channel.next += 1;
        channel.pending.insert(id, Pending { request, polls: 0 });
        self.most_waiting = self.most_waiting.max(self.waiting());
        id
    }

    /// Whether the batch is safe. That is told once, and forgotten.
    fn poll(&mut self, key: &(u32, String), id: u64, plan: &AckPlan) -> bool {
        let Some(channel) = self.channels.get_mut(key) else { return false };
        let Some(pending) = channel.pending.get_mut(&id) else { return false };
        pending.polls += 1;
        let (request, polls) = (pending.request, pending.polls);
        if (plan.0)(id, request).is_none_or(|needed| polls < needed) {
            return false;
        }
        channel.pending.remove(&id);
        let brought = self.indexed.iter_mut().filter(|event| event.request == request);
        brought.for_each(|event| event.is_acknowledged = true);
        true
    }
}

#[derive(Deserialize)]
struct Question {
    acks: Vec<u64>,
}

/// `POST /services/collector/ack`, from who has the token.
pub fn answer(shared: &Shared, request: &Seen, indexer: u32) -> Result<Answer, Refusal> {
    // Measured with Splunk 10.4.2: this comes before any look at the channel.
    if shared.options.ack == AckMode::Off {
        return Err(refusal(14));
    }
    let channel = request.channel()?.ok_or(refusal(10))?;
    let key = (indexer, channel);
    let mut state = shared.state.lock().unwrap();
    // Another indexer than the one that knows it cannot tell it from a new one.
    let is_known = state.channels.keys().any(|(_, channel)| *channel == key.1);
    if !is_known {
        return Err(refusal(11));
    }
    let question: Question = serde_json::from_slice(&request.body).map_err(|_| refusal(6))?;
    let plan = state.plan.clone().unwrap_or_else(|| shared.options.plan.clone());
    let mut acks = String::new();
    let mut count = 0;
    for id in question.acks {
        let is_safe = state.poll(&key, id, &plan);
        count += u64::from(is_safe);
        let comma = if acks.is_empty() { "" } else { "," };
        write!(acks, "{comma}\"{id}\":{is_safe}").unwrap();
    }
    drop(state);
    shared.acknowledged.send_modify(|all| *all += count);
    Ok(Answer { status: 200, headers: Vec::new(), body: format!("{{\"acks\":{{{acks}}}}}") })
}
