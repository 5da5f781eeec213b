//! A simulated HTTP Event Collector: Splunk's, and the one of LogScale.
//!
//! As strict as the real one: what that refuses is refused here with the same status and code.
//! What no public source shows is marked `unproven`, and read strictly. Only what a test scripts
//! is out of the ordinary. Of the other modules it needs `plain_http` alone.
//!
//! `Measured` stands where the change log of the public project `mockdr` tells what its probes of
//! a Splunk 10.4.2 saw (2.0.3 and later). None of it was measured by ourselves, and no
//! client of somebody else's proves this simulator.
//!
//! ```ignore
//! let hec = Hec::start(Options { ack: AckMode::On, ..Options::default() });
//! hec.fault_when(|seen| seen.is(Kind::Event, 1).then_some(Fault::LoseAnswer));
//! // … deliver to `hec.url()` …
//! hec.wait_for_indexed(100).await;
//! ```

#![allow(dead_code, reason = "not every test needs everything")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::plain_http::Gate;

mod ack;
mod api;
mod http;
mod objects;

pub use ack::{AckPlan, Waiting};
pub use http::{Kind, Seen};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the simulated collector is like.
#[derive(Clone)]
pub struct Options {
    pub flavor: Flavor,
    /// The one token that is known.
    pub token: String,
    /// The indexes that the token may write to; any when empty.
    pub indexes: Vec<String>,
    /// `useACK` of the token. With it a channel is required.
    pub ack: AckMode,
    pub plan: AckPlan,
    /// What a batch is told of which only the first events were taken.
    pub partly: Partly,
    /// What becomes of events that were not acknowledged when the indexer is restarted.
    pub unacknowledged: AtRestart,
    /// Bytes of a body, as sent and decoded. Splunk Enterprise has 800 MB unless told otherwise,
    /// and Splunk Cloud asks for 1 MB.
    pub max_content_length: usize,
    /// What is in front of more than one indexer; nothing when none.
    pub balancer: Option<Balancer>,
    /// Whether the health endpoint asks for the token too.
    pub is_health_guarded: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flavor: Flavor::Splunk,
            token: "5f0c2d8e-7d53-4c0c-9a53-3b7a2f5f6b10".to_owned(),
            indexes: Vec::new(),
            ack: AckMode::Off,
            plan: AckPlan::after(1),
            partly: Partly::WithAckId,
            unacknowledged: AtRestart::Kept,
            max_content_length: 1_000_000,
            balancer: None,
            is_health_guarded: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    Splunk,
    LogScale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    Off,
    On,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partly {
    WithAckId,
    /// Nothing will ever tell of the events before the refused one.
    Without,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtRestart {
    Kept,
    Lost,
}

/// A load balancer that tells its indexers apart by the cookie `SERVERID`. Without the cookie, who
/// comes again on a channel comes to another indexer, where nothing is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancer {
    /// The other indexer takes what comes.
    Takes,
    /// It refuses it with code 28.
    Refuses,
}

/// What happens to one request.
#[derive(Clone)]
pub enum Fault {
    /// It is answered so, and nothing is done.
    Status { code: u16, headers: Vec<(String, String)>, body: String },
    /// The same, as the collector tells it.
    Code { status: u16, code: u16, text: String },
    /// It is accepted, and told with this code that the capacity is nearly used up: 24 for the
    /// queue, 25 for acknowledgements.
    Near(u16),
    /// Everything is done; then the connection ends without an answer.
    LoseAnswer,
    /// The connection ends before the body is read.
    ResetBefore,
    /// The connection ends in the middle of the body.
    ResetWithin,
    /// It is never answered, and nothing is done.
    Stall,
    /// It waits for [`Hec::release`] before it is looked at.
    Hold,
}

impl Fault {
    pub fn code(status: u16, code: u16, text: &str) -> Self {
        Self::Code { status, code, text: text.to_owned() }
    }
}

/// An event, as it is held.
#[derive(Clone, Debug)]
pub struct Indexed {
    /// Epoch seconds, as sent.
    pub time: Option<String>,
    pub host: Option<String>,
    pub source: Option<String>,
    pub sourcetype: Option<String>,
    pub index: Option<String>,
    /// `event`, byte for byte.
    pub event: String,
    pub fields: Option<Value>,
    /// The request that brought it, of those with events.
    pub request: u64,
    /// Whether its sender was told that it is safe.
    pub is_acknowledged: bool,
}

/// One request with events, as it was judged.
#[derive(Clone, Debug)]
pub struct Upload {
    pub number: u64,
    pub status: u16,
    /// None where the answer has none.
    pub code: Option<u16>,
    pub channel: Option<String>,
    pub cookie: Option<String>,
    pub ack_id: Option<u64>,
    /// The bytes that came, and how many they were before they were compressed.
    pub sent: usize,
    pub plain: usize,
    /// The objects in it, and how many of them were taken.
    pub objects: usize,
    pub taken: usize,
}

/// What decides about faults, from a request's head.
type Script = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;

/// A running simulator; it serves as long as the process lives.
#[derive(Clone)]
pub struct Hec {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    options: Options,
    state: Mutex<State>,
    /// Requests with events whose head was read.
    arrived: watch::Sender<u64>,
    /// Events that were ever taken.
    indexed: watch::Sender<u64>,
    /// Batches that were ever acknowledged.
    acknowledged: watch::Sender<u64>,
    gate: Gate,
}

#[derive(Default)]
struct State {
    script: Option<Script>,
    seen: Vec<Seen>,
    refused_texts: Vec<String>,
    is_token_disabled: bool,
    /// 18, 19 or 20 where something is wrong.
    illness: Option<u16>,
    plan: Option<AckPlan>,
    /// By the number of the indexer and the channel's GUID.
    channels: BTreeMap<(u32, String), ack::Channel>,
    most_waiting: usize,
    indexed: Vec<Indexed>,
    uploads: Vec<Upload>,
}

impl Hec {
    pub fn start(options: Options) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            options,
            state: Mutex::default(),
            arrived: watch::Sender::new(0),
            indexed: watch::Sender::new(0),
            acknowledged: watch::Sender::new(0),
            gate: Gate::default(),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || http::serve(&shared, stream));
            }
        });
        Self { shared, port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// From now on this decides what happens to each request.
    pub fn fault_when(&self, script: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        self.state().script = Some(Box::new(script));
    }

    /// From now on all is well; batches are acknowledged as the options have it.
    pub fn mend(&self) {
        let mut state = self.state();
        state.script = None;
        state.refused_texts.clear();
        state.is_token_disabled = false;
        state.illness = None;
        state.plan = None;
    }

    /// Objects that hold this text are no valid data.
    pub fn refuse_text(&self, text: &str) {
        self.state().refused_texts.push(text.to_owned());
    }

    pub fn disable_token(&self) {
        self.state().is_token_disabled = true;
    }

    /// The health endpoint tells this code from now on: 18 (queues), 19 (acks), 20 (both).
    pub fn fall_ill(&self, code: u16) {
        assert!((18..=20).contains(&code), "{code} is no illness");
        self.state().illness = Some(code);
    }

    /// From now on batches are acknowledged so, those that wait already too.
    pub fn plan(&self, plan: AckPlan) {
        self.state().plan = Some(plan);
    }

    /// Forgets all channels, and with them what waits to be acknowledged.
    pub fn restart_indexer(&self) {
        let mut state = self.state();
        state.channels.clear();
        let options = &self.shared.options;
        if options.ack == AckMode::On && options.unacknowledged == AtRestart::Lost {
            state.indexed.retain(|event| event.is_acknowledged);
        }
    }

    /// Lets go of all requests that are held.
    pub fn release(&self) {
        self.shared.gate.open();
    }

    /// Waits until so many requests with events have come in all.
    pub async fn wait_for(&self, requests: u64) {
        reached(&self.shared.arrived, requests).await;
    }

    /// Waits until so many events were taken in all.
    pub async fn wait_for_indexed(&self, events: u64) {
        reached(&self.shared.indexed, events).await;
    }

    /// Waits until so many batches were acknowledged in all.
    pub async fn wait_for_acknowledged(&self, batches: u64) {
        reached(&self.shared.acknowledged, batches).await;
    }

    /// How many requests with events there were so far.
    pub fn asked(&self) -> usize {
        self.asked_of(Kind::Event)
    }

    /// How many requests of this kind there were so far.
    pub fn asked_of(&self, kind: Kind) -> usize {
        self.state().seen.iter().filter(|seen| seen.kind == kind).count()
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// The requests with events so far that were judged.
    pub fn uploads(&self) -> Vec<Upload> {
        self.state().uploads.clone()
    }

    /// All events that are held, in the order in which they were taken.
    pub fn indexed(&self) -> Vec<Indexed> {
        self.state().indexed.clone()
    }

    /// How many events are held.
    pub fn count(&self) -> usize {
        self.state().indexed.len()
    }

    /// How many batches wait to be acknowledged, now and at most.
    pub fn waiting(&self) -> Waiting {
        let state = self.state();
        Waiting { now: state.waiting(), most: state.most_waiting }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

async fn reached(count: &watch::Sender<u64>, wanted: u64) {
    let mut count = count.subscribe();
    let reached = count.wait_for(|count| *count >= wanted);
    let in_time = tokio::time::timeout(PATIENCE, reached).await;
    in_time.expect("it comes in time").expect("the simulator lives");
}
