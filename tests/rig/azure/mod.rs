//! A simulated Azure: the tokens of Entra, of a virtual machine and of an Arc server, and the Logs
//! Ingestion API.
//!
//! As strict as the real one: what that refuses is refused here with the same status and code. Where
//! no public source shows what Azure says, a comment says "unproven", and the stricter reading is
//! taken. Of the other modules it needs `plain_http` alone. `tests/proof/sentinel.py` drives it with
//! Microsoft's own clients.
//!
//! ```ignore
//! let azure = Azure::start(Options::default());
//! azure.fault_when(|seen| (seen.is(Kind::Ingest, 1)).then_some(Fault::LoseAnswer));
//! // … deliver to `azure.url()` …
//! azure.wait_for_rows(100).await;
//! assert!(azure.tally().discarded.is_empty());
//! ```

#![allow(dead_code, reason = "not every test needs everything")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::plain_http::{Answer, Gate};

mod assertion;
mod entra;
mod http;
mod identity;
mod ingest;
mod table;

pub use entra::AppState;
pub use http::{Kind, Seen};
#[allow(unused_imports, reason = "for a test with streams of its own")]
pub use table::{Column, KEEPER, Retimed, SIEMFERRY, Stream, Tally};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the simulated tenant is like.
#[derive(Clone)]
pub struct Options {
    pub tenant: String,
    /// The application's id; what it proves itself with is added to the running simulator.
    pub client: String,
    /// Secrets that are good from the beginning.
    pub secrets: Vec<String>,
    /// What tokens are good for.
    pub resource: String,
    pub token_lifetime: Duration,
    /// The immutable id of the data collection rule.
    pub rule: String,
    pub streams: Vec<Stream>,
    /// Whether tables refuse a call that spans more than half an hour.
    pub is_narrow: bool,
    pub has_system_identity: bool,
    /// The client ids of user-assigned identities.
    pub user_identities: Vec<String>,
    /// Where the Arc agent puts its keys; without one there is none.
    pub arc_keys: Option<PathBuf>,
    /// With this the same is served behind TLS too.
    pub tls: Option<ServerConfig>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tenant: "9ed3e1f5-1c9f-4a4e-8f5a-0f0d7a1d2c31".to_owned(),
            client: "5f0c2d8e-7d53-4c0c-9a53-3b7a2f5f6b10".to_owned(),
            secrets: vec!["simulated~secret.value".to_owned()],
            resource: "https://monitor.azure.com".to_owned(),
            token_lifetime: Duration::from_secs(3599),
            rule: "dcr-0123456789abcdef0123456789abcdef".to_owned(),
            streams: vec![KEEPER, SIEMFERRY],
            is_narrow: false,
            has_system_identity: true,
            user_identities: Vec::new(),
            arc_keys: None,
            tls: None,
        }
    }
}

/// What happens to one request.
#[derive(Clone)]
pub enum Fault {
    /// It is answered so, and nothing is stored.
    Status { code: u16, headers: Vec<(String, String)>, body: String },
    /// Everything is done; then the connection ends without an answer.
    LoseAnswer,
    /// The connection ends before the body is read.
    ResetBefore,
    /// The connection ends in the middle of the body.
    ResetWithin,
    /// It is never answered, and nothing is stored.
    Stall,
    /// It waits for [`Azure::release`] before it is looked at.
    Hold,
}

impl Fault {
    /// A status with a body as the ingestion API has it.
    pub fn status(code: u16, kind: &str, message: &str) -> Self {
        let body = Refusal::new(code, kind, message).body();
        Self::Status { code, headers: Vec::new(), body }
    }

    /// A limit, and when to come again: seconds, or a date of HTTP.
    pub fn limited(retry_after: &str) -> Self {
        let body = Refusal::new(429, "TooManyRequests", "The rate limit is exceeded.").body();
        let headers = vec![("retry-after".to_owned(), retry_after.to_owned())];
        Self::Status { code: 429, headers, body }
    }
}

/// One request to the ingestion API, as it was judged.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Of the ingestion requests.
    pub number: u64,
    pub status: u16,
    /// The bytes that came, and how many they were before they were compressed.
    pub sent: usize,
    pub plain: usize,
    /// `x-ms-client-request-id`
    pub request_id: Option<String>,
    pub token: Option<String>,
    /// The rows that it brought; none where it was refused.
    pub rows: usize,
}

/// A row, as it came and as the table holds it.
#[derive(Clone, Debug)]
pub struct Row {
    pub stream: &'static str,
    /// The request that brought it, of the ingestion requests.
    pub request: u64,
    pub raw: String,
    pub value: Value,
}

/// What decides about faults, from a request's head.
type Script = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;

/// A running simulator; it serves as long as the process lives.
#[derive(Clone)]
pub struct Azure {
    shared: Arc<Shared>,
    port: u16,
    tls_port: Option<u16>,
    arc_port: u16,
}

struct Shared {
    options: Options,
    state: Mutex<State>,
    /// Ingestion requests whose head was read.
    arrived: watch::Sender<u64>,
    rows: watch::Sender<u64>,
    gate: Gate,
}

#[derive(Default)]
struct State {
    script: Option<Script>,
    seen: Vec<Seen>,
    /// How far ahead the simulated clock is.
    ahead: TimeDelta,
    app: entra::App,
    tokens: Vec<Token>,
    /// Keys of the Arc agent that were not used yet.
    arc_keys: Vec<(PathBuf, String)>,
    is_role_missing: bool,
    refused_texts: Vec<String>,
    uploads: Vec<Upload>,
    rows: Vec<Row>,
    tally: Tally,
}

struct Token {
    text: String,
    resource: String,
    until: DateTime<Utc>,
}

/// A request that is refused, as the ingestion API tells it.
struct Refusal {
    status: u16,
    code: String,
    message: String,
    header: Option<(&'static str, String)>,
}

impl Azure {
    pub fn start(options: Options) -> Self {
        let tls = options.tls.clone().map(Arc::new);
        let app = entra::App::new(&options.secrets);
        let shared = Arc::new(Shared {
            options,
            state: Mutex::new(State { app, ..State::default() }),
            arrived: watch::Sender::new(0),
            rows: watch::Sender::new(0),
            gate: Gate::default(),
        });
        let tls_port = tls.map(|tls| listen(&shared, http::Door::Tls(tls)));
        let port = listen(&shared, http::Door::Plain);
        let arc_port = listen(&shared, http::Door::Arc);
        Self { shared, port, tls_port, arc_port }
    }

    /// Where everything is but the Arc agent.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same behind TLS.
    pub fn tls_url(&self) -> String {
        format!("https://localhost:{}", self.tls_port.expect("it was given a certificate"))
    }

    /// Where the Arc agent is.
    pub fn arc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.arc_port)
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
        state.is_role_missing = false;
    }

    /// A call that holds this text is refused as a whole.
    pub fn refuse_text(&self, text: &str) {
        self.state().refused_texts.push(text.to_owned());
    }

    /// Gives the role on the data collection rule, or takes it away.
    pub fn grant(&self, is_granted: bool) {
        self.state().is_role_missing = !is_granted;
    }

    /// Moves the simulated clock.
    pub fn move_clock(&self, by: TimeDelta) {
        self.state().ahead += by;
    }

    /// What time it is here.
    pub fn now(&self) -> DateTime<Utc> {
        self.state().now()
    }

    /// What the application may prove itself with.
    pub fn app<T>(&self, change: impl FnOnce(&mut entra::App) -> T) -> T {
        change(&mut self.state().app)
    }

    /// From now on no token is good that was given out so far.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// Lets go of all requests that are held.
    pub fn release(&self) {
        self.shared.gate.open();
    }

    /// Waits until so many ingestion requests have come in all.
    pub async fn wait_for(&self, requests: u64) {
        reached(&self.shared.arrived, requests).await;
    }

    /// Waits until so many rows were accepted in all.
    pub async fn wait_for_rows(&self, rows: u64) {
        reached(&self.shared.rows, rows).await;
    }

    /// How many ingestion requests there were so far.
    pub fn asked(&self) -> usize {
        self.asked_of(Kind::Ingest)
    }

    /// How many requests of a kind there were so far.
    pub fn asked_of(&self, kind: Kind) -> usize {
        self.state().seen.iter().filter(|seen| seen.kind == kind).count()
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// The ingestion requests that were judged, in that order.
    pub fn uploads(&self) -> Vec<Upload> {
        self.state().uploads.clone()
    }

    /// All rows in the order they were accepted.
    pub fn all_rows(&self) -> Vec<Row> {
        self.state().rows.clone()
    }

    /// What the tables hold.
    pub fn rows(&self) -> Vec<Value> {
        self.state().rows.iter().map(|row| row.value.clone()).collect()
    }

    /// The same as it was sent.
    pub fn raw_rows(&self) -> Vec<String> {
        self.state().rows.iter().map(|row| row.raw.clone()).collect()
    }

    /// What the tables silently changed.
    pub fn tally(&self) -> Tally {
        self.state().tally.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl State {
    fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.ahead
    }

    /// A new token, opaque as those of Entra are meant to be.
    fn token(&mut self, options: &Options) -> String {
        let random = || uuid::Uuid::new_v4().simple();
        let text = format!("simulated.{}{}.{}", random(), random(), random());
        let until = self.now() + options.token_lifetime;
        self.tokens.push(Token { text: text.clone(), resource: options.resource.clone(), until });
        text
    }
}

impl Refusal {
    fn new(status: u16, code: &str, message: &str) -> Self {
        Self { status, code: code.to_owned(), message: message.to_owned(), header: None }
    }

    fn body(&self) -> String {
        json!({ "error": { "code": self.code, "message": self.message } }).to_string()
    }

    fn answer(self) -> Answer {
        let headers = self.header.clone().into_iter().collect();
        with_json(Answer { status: self.status, headers, body: self.body() })
    }
}

fn with_json(mut answer: Answer) -> Answer {
    answer.headers.push(("content-type", "application/json; charset=utf-8".to_owned()));
    answer
}

fn listen(shared: &Arc<Shared>, door: http::Door) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (shared, door) = (Arc::clone(&shared), door.clone());
            std::thread::spawn(move || http::serve(&shared, &door, stream));
        }
    });
    port
}

async fn reached(count: &watch::Sender<u64>, wanted: u64) {
    let mut count = count.subscribe();
    let reached = count.wait_for(|count| *count >= wanted);
    let in_time = tokio::time::timeout(PATIENCE, reached).await;
    in_time.expect("it comes in time").expect("the simulator lives");
}
