//! A simulated Elasticsearch or OpenSearch: the bulk API, and what is needed around it.
//!
//! As strict as the real one: what that refuses is refused here with the same status, type and
//! reason. Only what a test scripts is out of the ordinary. Of the other modules it needs
//! `plain_http` alone, so that a benchmark can include both by their paths.
//! `tests/proof/elastic.py` drives it with the official client.
//!
//! ```ignore
//! let search = Bulk::start(Options::default());
//! search.fault_when(|seen| (seen.number == 1).then(|| Fault::LoseAnswer));
//! // … deliver to `search.url()` …
//! search.wait_for_created(100).await;
//! assert_eq!(search.tries("0130fd6a…").created, 1);
//! ```

#![allow(dead_code, reason = "not every test needs everything")]

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::plain_http::Gate;

mod api;
mod document;
mod http;
mod lines;

pub use http::Seen;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the simulated cluster is like.
#[derive(Clone)]
pub struct Options {
    /// What a request must prove; nothing when none.
    pub access: Option<Access>,
    pub product: Product,
    /// `http.max_content_length`.
    pub max_content_length: usize,
    /// `action.auto_create_index`.
    pub auto_create: bool,
    /// The ingest pipelines there are.
    pub pipelines: Vec<String>,
    /// False where only the ids and their counts matter.
    pub keeps_documents: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access: None,
            product: Product::Elasticsearch,
            max_content_length: 100 << 20,
            auto_create: true,
            pipelines: Vec::new(),
            keeps_documents: true,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Product {
    Elasticsearch,
    OpenSearch,
}

/// The one credential that is known, as `Authorization` has it.
#[derive(Clone)]
pub enum Access {
    /// The encoded form, base64 of id and key.
    ApiKey(String),
    Basic {
        user: String,
        password: String,
    },
    Bearer(String),
}

/// What happens to one request.
#[derive(Clone)]
pub enum Fault {
    /// It is answered so, and nothing is stored.
    Status { code: u16, headers: Vec<(String, String)>, body: String },
    /// Everything is stored; then the connection ends without an answer.
    LoseAnswer,
    /// Everything is stored; then the connection ends in the middle of the answer.
    CutAnswer,
    /// The connection ends before the body is read.
    ResetBeforeBody,
    /// The connection ends in the middle of the body.
    ResetInBody,
    /// It is never answered, and nothing is stored.
    Stall,
    /// It waits for [`Bulk::release`] before it is looked at.
    Hold,
    /// Of the items, counted from 0, those fail for which there is an error.
    Items(Arc<dyn Fn(usize) -> Option<ItemError> + Send + Sync>),
}

impl Fault {
    /// A status with the usual body.
    pub fn status(code: u16, kind: &str, reason: &str) -> Self {
        let body = api::Refusal::new(code, kind, reason).body();
        Self::Status { code, headers: Vec::new(), body }
    }

    /// The same error for all items.
    pub fn all_items(status: u16, kind: &str, reason: &str) -> Self {
        let error = ItemError::new(status, kind, reason);
        Self::Items(Arc::new(move |_| Some(error.clone())))
    }
}

/// Why one item fails.
#[derive(Clone, Debug)]
pub struct ItemError {
    pub status: u16,
    pub kind: String,
    pub reason: String,
    /// Type and reason of `caused_by`.
    pub cause: Option<(String, String)>,
}

impl ItemError {
    pub fn new(status: u16, kind: &str, reason: &str) -> Self {
        Self { status, kind: kind.to_owned(), reason: reason.to_owned(), cause: None }
    }

    pub fn caused_by(mut self, kind: &str, reason: &str) -> Self {
        self.cause = Some((kind.to_owned(), reason.to_owned()));
        self
    }
}

/// How often an `_id` came, over all indices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    pub tried: u32,
    pub created: u32,
}

/// What decides about faults, from a request's head.
type Script = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;

/// A running simulator; it serves as long as the process lives.
#[derive(Clone)]
pub struct Bulk {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    options: Options,
    state: Mutex<State>,
    /// Bulk requests whose head was read.
    arrived: watch::Sender<u64>,
    created: watch::Sender<u64>,
    gate: Gate,
}

#[derive(Default)]
struct State {
    script: Option<Script>,
    seen: Vec<Seen>,
    refused_texts: Vec<String>,
    templates: BTreeMap<String, Value>,
    /// Data streams, and the number of the index that is written to.
    streams: BTreeMap<String, u32>,
    /// Indices, those of data streams too, and how many documents each holds.
    indices: BTreeMap<Arc<str>, u64>,
    ids: HashMap<String, Entry>,
    sequence: u64,
}

#[derive(Default)]
struct Entry {
    tries: Tries,
    /// Where documents of this id are, and what they say.
    stored: Vec<(Arc<str>, Option<Box<str>>)>,
}

impl Bulk {
    pub fn start(options: Options) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            options,
            state: Mutex::default(),
            arrived: watch::Sender::new(0),
            created: watch::Sender::new(0),
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

    /// From now on this decides what happens to each request.
    pub fn fault_when(&self, script: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        self.state().script = Some(Box::new(script));
    }

    /// From now on all is well.
    pub fn mend(&self) {
        let mut state = self.state();
        state.script = None;
        state.refused_texts.clear();
    }

    /// Documents that hold this text do not fit the mapping.
    pub fn refuse_text(&self, text: &str) {
        self.state().refused_texts.push(text.to_owned());
    }

    /// As `PUT /_index_template/<name>` does.
    pub fn install(&self, name: &str, template: &Value) {
        api::check_template(template).unwrap_or_else(|refusal| panic!("{}", refusal.body()));
        self.state().templates.insert(name.to_owned(), template.clone());
    }

    /// As `POST /<stream>/_rollover` does: from now on another index is written to.
    pub fn roll_over(&self, stream: &str) {
        *self.state().streams.get_mut(stream).expect("there is such a data stream") += 1;
    }

    /// Lets go of all requests that are held.
    pub fn release(&self) {
        self.shared.gate.open();
    }

    /// Waits until so many bulk requests have come in all.
    pub async fn wait_for(&self, requests: u64) {
        reached(&self.shared.arrived, requests).await;
    }

    /// Waits until so many documents were created in all.
    pub async fn wait_for_created(&self, documents: u64) {
        reached(&self.shared.created, documents).await;
    }

    /// How many bulk requests there were so far.
    pub fn asked(&self) -> usize {
        usize::try_from(*self.shared.arrived.borrow()).unwrap()
    }

    /// How many documents were created so far.
    pub fn created(&self) -> usize {
        usize::try_from(*self.shared.created.borrow()).unwrap()
    }

    /// All documents as they came, in the order of the bulk requests that first told of them.
    pub fn in_order(&self) -> Vec<String> {
        let mut left = self.state().ids.iter().fold(HashMap::new(), |mut left, (id, entry)| {
            let texts = entry.stored.iter().filter_map(|(_, source)| source.as_deref());
            left.insert(id.clone(), texts.map(str::to_owned).collect::<Vec<_>>());
            left
        });
        let mut found = Vec::new();
        for seen in self.bulks() {
            let body = String::from_utf8(seen.body).expect("it is not compressed");
            for action in body.lines().step_by(2) {
                // A body that was never read, or not to its end, holds no action.
                let Ok(action) = serde_json::from_str::<Value>(action) else { continue };
                let id = action["create"]["_id"].as_str().unwrap_or_default();
                found.extend(left.remove(id).unwrap_or_default());
            }
        }
        assert!(left.values().all(Vec::is_empty), "{left:?}");
        found
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// The bulk requests so far.
    pub fn bulks(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(Seen::is_bulk).collect()
    }

    /// How often an `_id` came.
    pub fn tries(&self, id: &str) -> Tries {
        self.state().ids.get(id).map_or_else(Tries::default, |entry| entry.tries)
    }

    /// How often each `_id` came.
    pub fn all_tries(&self) -> BTreeMap<String, Tries> {
        self.state().ids.iter().map(|(id, entry)| (id.clone(), entry.tries)).collect()
    }

    /// The document with this `_id`, byte for byte, and the index it is in.
    pub fn document(&self, id: &str) -> Option<(String, String)> {
        let state = self.state();
        let (index, source) = state.ids.get(id)?.stored.first()?;
        Some((index.to_string(), source.as_deref().unwrap_or_default().to_owned()))
    }

    /// All documents, as they came.
    pub fn documents(&self) -> Vec<String> {
        let state = self.state();
        let stored = state.ids.values().flat_map(|entry| &entry.stored);
        stored.filter_map(|(_, source)| source.as_deref().map(str::to_owned)).collect()
    }

    /// Indices, and how many documents each holds.
    pub fn indices(&self) -> BTreeMap<String, u64> {
        self.state().indices.iter().map(|(name, count)| (name.to_string(), *count)).collect()
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

impl State {
    /// What is stored under this name: the index itself, or the one a data stream writes to.
    fn target(&self, name: &str) -> Option<(Arc<str>, bool)> {
        let stream = self.streams.get(name).map(|number| backing(name, *number));
        if let Some(index) = stream {
            return Some((index, true));
        }
        self.indices.get_key_value(name).map(|(index, _)| (Arc::clone(index), false))
    }

    /// Makes what an operation on an unknown name makes: a data stream if a template says so.
    fn make(&mut self, name: &str) -> (Arc<str>, bool) {
        let is_stream = self.template_of(name).is_some_and(|it| it.get("data_stream").is_some());
        if is_stream {
            self.streams.insert(name.to_owned(), 1);
            return (backing(name, 1), true);
        }
        let index = Arc::from(name);
        self.indices.insert(Arc::clone(&index), 0);
        (index, false)
    }

    /// The template with the highest priority that matches.
    fn template_of(&self, name: &str) -> Option<&Value> {
        let matches = |template: &&Value| {
            let patterns = template["index_patterns"].as_array().into_iter().flatten();
            patterns.filter_map(Value::as_str).any(|pattern| is_match(pattern, name))
        };
        let priority = |template: &&Value| template["priority"].as_u64().unwrap_or(0);
        self.templates.values().filter(matches).max_by_key(priority)
    }
}

fn backing(stream: &str, number: u32) -> Arc<str> {
    Arc::from(format!(".ds-{stream}-2026.11.25-{number:06}"))
}

/// Whether the name has the form of the pattern, in which `*` stands for any text.
fn is_match(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && is_match(after, &rest[at..]))
        }),
    }
}
