//! What a sink delivers to, of whatever kind: what it holds, and what can befall it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use siemferry::sim::{Clock, Options, SimEvent, oracle};

use crate::azure::{self, Azure, Kind};
use crate::bulk::{self, Bulk};
use crate::collector::{self, Collector};
use crate::hec::{self, Hec};
use crate::rig::{Home, Sim, read};
use crate::sink_contract::CANARY;
use crate::tenant::{HOUR, MINUTE, START, rfc3339};

/// What befalls every third request, or the file now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// 503.
    Busy,
    /// The connection is reset before the body is read.
    ResetBefore,
    /// The same in the middle of the body.
    ResetWithin,
    /// All is kept, and the connection ends without an answer.
    LoseAnswer,
    /// There is no answer, and nothing is kept.
    Stall,
    /// The file is moved away.
    Moved,
}

/// What one sink, which is called `peer`, delivers to.
pub trait Peer {
    /// What it may have to go through.
    const TROUBLES: &'static [Trouble];
    /// True when it can tell what it was sent before.
    const IS_EXACT: bool;

    fn start(home: &Home) -> Self;

    /// The sink's table; `keys` are more lines of it.
    fn config(&self, keys: &str) -> String;

    /// Every event that it has accepted, as a line; in their order, repeats included.
    fn lines(&self) -> Vec<String>;

    /// How many events it has accepted, where that is quicker.
    fn count(&self) -> usize {
        self.lines().len()
    }

    /// From now on this befalls it.
    fn trouble(&self, trouble: Trouble);

    /// Is called again and again meanwhile.
    fn tick(&self) {}

    /// From now on it lets nobody in.
    fn bar(&self);

    /// From now on all is well.
    fn mend(&self);
}

/// A peer over HTTP.
pub trait Judge: Peer {
    /// What it says to a text that it refuses.
    const REASON: &'static str;

    /// Refuses whatever holds this text.
    fn refuse(&self, text: &str);

    /// What it was sent: each body's length, and how many events were in it.
    fn bodies(&self) -> Vec<(usize, usize)>;

    /// Every request is answered with its own credential, in one way after another.
    fn echo(&self);

    /// A key of the sink's table that has the credential `RIG_SECRET` sent.
    const SECRET: &'static str;

    fn asked(&self) -> usize;
}

/// A file, and what it was before it was moved.
pub struct Lines {
    path: PathBuf,
    moves: AtomicUsize,
    is_moving: AtomicUsize,
}

impl Peer for Lines {
    const TROUBLES: &'static [Trouble] = &[Trouble::Moved];
    const IS_EXACT: bool = true;

    fn start(home: &Home) -> Self {
        let (moves, is_moving) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { path: home.file(), moves, is_moving }
    }

    fn config(&self, keys: &str) -> String {
        format!("[sinks.peer.file]\npath = \"{}\"\n{keys}\n", self.path.display())
    }

    fn lines(&self) -> Vec<String> {
        let moved = (0..self.moves.load(Ordering::SeqCst)).map(|number| self.moved(number));
        let files = moved.chain([self.path.clone()]).map(|path| read(&path));
        files.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    fn trouble(&self, trouble: Trouble) {
        assert_eq!(trouble, Trouble::Moved, "nothing else befalls a file");
        self.is_moving.store(1, Ordering::SeqCst);
    }

    fn tick(&self) {
        let number = self.moves.load(Ordering::SeqCst);
        let is_due = self.is_moving.load(Ordering::SeqCst) > 0 && number < 3;
        if is_due && !read(&self.path).is_empty() {
            fs::rename(&self.path, self.moved(number)).unwrap();
            self.moves.store(number + 1, Ordering::SeqCst);
        }
    }

    fn bar(&self) {
        fs::create_dir(&self.path).unwrap();
    }

    fn mend(&self) {
        self.is_moving.store(0, Ordering::SeqCst);
        if self.path.is_dir() {
            fs::remove_dir(&self.path).unwrap();
        }
    }
}

impl Lines {
    fn moved(&self, number: usize) -> PathBuf {
        self.path.with_extension(format!("ndjson.{number}"))
    }
}

impl Peer for Collector {
    const TROUBLES: &'static [Trouble] = &[
        Trouble::Busy,
        Trouble::ResetBefore,
        Trouble::ResetWithin,
        Trouble::LoseAnswer,
        Trouble::Stall,
    ];
    const IS_EXACT: bool = false;

    fn start(_: &Home) -> Self {
        Collector::start(collector::Options::default())
    }

    fn config(&self, keys: &str) -> String {
        let url = self.url();
        format!("[sinks.peer.webhook]\nurl = \"{url}\"\ncompress = \"none\"\n{keys}\n")
    }

    fn lines(&self) -> Vec<String> {
        self.events()
    }

    fn count(&self) -> usize {
        self.taken()
    }

    fn trouble(&self, trouble: Trouble) {
        use collector::Fault;
        let fault = match trouble {
            Trouble::Busy => Fault::status(503),
            Trouble::ResetBefore => Fault::ResetBefore,
            Trouble::ResetWithin => Fault::ResetWithin,
            Trouble::LoseAnswer => Fault::LoseAnswer,
            Trouble::Stall => Fault::Stall,
            Trouble::Moved => panic!("no file"),
        };
        self.fault_when(move |arrival| (arrival.number % 3 == 0).then(|| fault.clone()));
    }

    fn bar(&self) {
        self.fault_when(|_| Some(collector::Fault::status(401)));
    }

    fn mend(&self) {
        Collector::mend(self);
    }
}

impl Judge for Collector {
    const REASON: &'static str = "content is not welcome here";
    const SECRET: &'static str = "headers = { Authorization = { env = \"RIG_SECRET\" } }";

    fn refuse(&self, text: &str) {
        self.refuse_content(text, 400);
    }

    fn bodies(&self) -> Vec<(usize, usize)> {
        self.accepted().iter().map(|received| (received.body.len(), received.count)).collect()
    }

    fn echo(&self) {
        self.fault_when(|arrival| {
            let given = arrival.header("authorization").unwrap_or_default();
            let status = [500, 400, 401][arrival.number % 3];
            Some(collector::Fault::answer(status, &[("x-echo", given)], given))
        });
    }

    fn asked(&self) -> usize {
        Collector::asked(self)
    }
}

impl Peer for Bulk {
    const TROUBLES: &'static [Trouble] = &[
        Trouble::Busy,
        Trouble::ResetBefore,
        Trouble::ResetWithin,
        Trouble::LoseAnswer,
        Trouble::Stall,
    ];
    const IS_EXACT: bool = true;

    fn start(_: &Home) -> Self {
        Bulk::start(bulk::Options::default())
    }

    fn config(&self, keys: &str) -> String {
        let url = self.url();
        let keys = format!("index = \"keeper\"\ncompress = \"none\"\n{keys}");
        format!("[sinks.peer.elastic]\nurl = \"{url}\"\n{keys}\n")
    }

    /// In the order of their sequence numbers there, and without the member that only they have.
    fn lines(&self) -> Vec<String> {
        const LENGTH: usize = r#","@timestamp":"2026-01-02T03:04:05.678Z""#.len();
        let line = |document: String| {
            let at = document.rfind(r#","@timestamp":""#).unwrap();
            format!("{}{}", &document[..at], &document[at + LENGTH..])
        };
        self.in_order().into_iter().map(line).collect()
    }

    fn count(&self) -> usize {
        self.created()
    }

    fn trouble(&self, trouble: Trouble) {
        use bulk::Fault;
        let fault = match trouble {
            Trouble::Busy => Fault::status(503, "unavailable", "soon"),
            Trouble::ResetBefore => Fault::ResetBeforeBody,
            Trouble::ResetWithin => Fault::ResetInBody,
            Trouble::LoseAnswer => Fault::LoseAnswer,
            Trouble::Stall => Fault::Stall,
            Trouble::Moved => panic!("no file"),
        };
        self.fault_when(move |seen| (seen.number % 3 == 1).then(|| fault.clone()));
    }

    fn bar(&self) {
        self.fault_when(|_| Some(bulk::Fault::status(401, "security_exception", "who are you?")));
    }

    fn mend(&self) {
        Bulk::mend(self);
        self.release();
    }
}

impl Judge for Bulk {
    const REASON: &'static str = "document_parsing_exception";
    const SECRET: &'static str = "auth = { bearer = { env = \"RIG_SECRET\" } }";

    fn refuse(&self, text: &str) {
        self.refuse_text(text);
    }

    fn bodies(&self) -> Vec<(usize, usize)> {
        let bodies = self.bulks().into_iter().map(|seen| seen.body);
        let count = |body: &[u8]| memchr::memchr_iter(b'\n', body).count() / 2;
        bodies.map(|body| (body.len(), count(&body))).collect()
    }

    fn echo(&self) {
        self.fault_when(|seen| {
            let given = seen.header("authorization").unwrap_or_default();
            let body = serde_json::json!({ "error": { "type": given, "reason": given } });
            let headers = vec![("x-echo".to_owned(), given.to_owned())];
            let code = [401, 500, 400][usize::try_from(seen.number % 3).unwrap()];
            Some(bulk::Fault::Status { code, headers, body: body.to_string() })
        });
    }

    fn asked(&self) -> usize {
        Bulk::asked(self)
    }
}

impl Peer for Azure {
    const TROUBLES: &'static [Trouble] = &[
        Trouble::Busy,
        Trouble::ResetBefore,
        Trouble::ResetWithin,
        Trouble::LoseAnswer,
        Trouble::Stall,
    ];
    const IS_EXACT: bool = false;

    fn start(_: &Home) -> Self {
        Azure::start(azure::Options::default())
    }

    fn config(&self, keys: &str) -> String {
        let options = azure::Options::default();
        let azure::Options { tenant, client, secrets, rule, .. } = &options;
        let auth = |secret: &str| {
            format!(
                "auth = {{ client_secret = {{ tenant = \"{tenant}\", client = \"{client}\", secret = {secret} }} }}"
            )
        };
        let auth = match keys.strip_prefix("SECRET = ") {
            Some(secret) => auth(secret),
            None => {
                auth(&format!("{{ command = [\"/bin/echo\", \"{}\"] }}", secrets[0])) + "\n" + keys
            }
        };
        let url = self.url();
        format!(
            "[sinks.peer.sentinel]\nendpoint = \"{url}\"\nauthority = \"{url}\"\nrule = \"{rule}\"\n\
             stream = \"{}\"\ncompress = \"none\"\n{auth}\n",
            azure::KEEPER.name
        )
    }

    /// As other sinks have them: the record, with our member as its last.
    fn lines(&self) -> Vec<String> {
        self.raw_rows().iter().map(|row| line_of_row(row)).collect()
    }

    fn count(&self) -> usize {
        self.uploads().iter().map(|upload| upload.rows).sum()
    }

    fn trouble(&self, trouble: Trouble) {
        use azure::Fault;
        let fault = match trouble {
            Trouble::Busy => Fault::status(503, "ServiceUnavailable", "soon"),
            Trouble::ResetBefore => Fault::ResetBefore,
            Trouble::ResetWithin => Fault::ResetWithin,
            Trouble::LoseAnswer => Fault::LoseAnswer,
            Trouble::Stall => Fault::Stall,
            Trouble::Moved => panic!("no file"),
        };
        self.fault_when(move |seen| {
            (seen.kind == Kind::Ingest && seen.number % 3 == 1).then(|| fault.clone())
        });
    }

    fn bar(&self) {
        self.fault_when(|_| Some(azure::Fault::status(401, "InvalidToken", "who are you?")));
    }

    fn mend(&self) {
        Azure::mend(self);
        self.release();
    }
}

/// As a form has it.
fn url_encoded(text: &str) -> String {
    let mut url = reqwest::Url::parse("form:").unwrap();
    url.query_pairs_mut().append_pair("", text);
    url.query().unwrap().trim_start_matches('=').to_owned()
}

/// The record that a row of the Keeper solution was made of.
fn line_of_row(row: &str) -> String {
    let at = row.rfind(r#""siemferry":{"uid":"#).unwrap_or_else(|| panic!("{row}"));
    let ours = &row[at..row.len() - 2];
    let mut columns: serde_json::Map<String, Value> = serde_json::from_str(row).unwrap();
    let Some(Value::Object(mut record)) = columns.remove("data") else { panic!("{row}") };
    record.remove("siemferry");
    columns.remove("TimeGenerated");
    record.extend(columns.into_iter().filter(|(_, value)| !value.is_null()));
    let record = Value::Object(record).to_string();
    format!("{},{ours}}}", record.strip_suffix('}').unwrap())
}

impl Judge for Azure {
    const REASON: &'static str = "InvalidPayload";
    const SECRET: &'static str = "SECRET = { env = \"RIG_SECRET\" }";

    fn refuse(&self, text: &str) {
        self.refuse_text(text);
    }

    fn bodies(&self) -> Vec<(usize, usize)> {
        self.uploads().iter().map(|upload| (upload.plain, upload.rows)).collect()
    }

    /// The credential goes to who gives tokens, as a form.
    fn echo(&self) {
        let form: String = url_encoded(CANARY);
        let text = format!("client_secret={form} and {CANARY}");
        self.fault_when(move |seen| {
            let body = serde_json::json!({ "error": "x", "error_description": text });
            let code = [401, 500, 400][usize::try_from(seen.number % 3).unwrap()];
            let headers = vec![("x-echo".to_owned(), CANARY.to_owned())];
            Some(azure::Fault::Status { code, headers, body: body.to_string() })
        });
    }

    fn asked(&self) -> usize {
        self.asked_of(Kind::Token)
    }
}

/// A collector whose token has indexer acknowledgement.
pub struct HecWithAcks(Hec);

fn hec_config(hec: &Hec, ack: &str, keys: &str) -> String {
    let token = if keys.starts_with("token = ") {
        String::new()
    } else {
        format!("token = {{ command = [\"/bin/echo\", \"{}\"] }}\n", hec.options().token)
    };
    let url = hec.url();
    format!(
        "[sinks.peer.splunk]\nurl = \"{url}\"\ncompress = \"none\"\nack = \"{ack}\"\n{token}{keys}\n"
    )
}

impl Peer for Hec {
    const TROUBLES: &'static [Trouble] = &[
        Trouble::Busy,
        Trouble::ResetBefore,
        Trouble::ResetWithin,
        Trouble::LoseAnswer,
        Trouble::Stall,
    ];
    const IS_EXACT: bool = false;

    fn start(_: &Home) -> Self {
        Hec::start(hec::Options::default())
    }

    fn config(&self, keys: &str) -> String {
        hec_config(self, "off", keys)
    }

    fn lines(&self) -> Vec<String> {
        self.indexed().into_iter().map(|event| event.event).collect()
    }

    fn count(&self) -> usize {
        Hec::count(self)
    }

    /// Only what brings events: a poll whose answer is lost is made good for after minutes.
    fn trouble(&self, trouble: Trouble) {
        use hec::Fault;
        let fault = match trouble {
            Trouble::Busy => Fault::code(503, 9, "Server is busy"),
            Trouble::ResetBefore => Fault::ResetBefore,
            Trouble::ResetWithin => Fault::ResetWithin,
            Trouble::LoseAnswer => Fault::LoseAnswer,
            Trouble::Stall => Fault::Stall,
            Trouble::Moved => panic!("no file"),
        };
        self.fault_when(move |seen| {
            (seen.kind == hec::Kind::Event && seen.number % 3 == 1).then(|| fault.clone())
        });
    }

    fn bar(&self) {
        self.fault_when(|_| Some(hec::Fault::code(403, 4, "Invalid token")));
    }

    fn mend(&self) {
        Hec::mend(self);
        self.release();
    }
}

impl Judge for Hec {
    const REASON: &'static str = "Invalid data format";
    const SECRET: &'static str = "token = { env = \"RIG_SECRET\" }";

    fn refuse(&self, text: &str) {
        self.refuse_text(text);
    }

    fn bodies(&self) -> Vec<(usize, usize)> {
        self.uploads().iter().map(|upload| (upload.plain, upload.objects)).collect()
    }

    fn echo(&self) {
        self.fault_when(|seen| {
            let given = seen.header("authorization").unwrap_or_default();
            let (status, code) =
                [(401, 3), (500, 8), (400, 6)][usize::try_from(seen.number % 3).unwrap()];
            let body = serde_json::json!({ "text": given, "code": code }).to_string();
            let headers = vec![("x-echo".to_owned(), given.to_owned())];
            Some(hec::Fault::Status { code: status, headers, body })
        });
    }

    fn asked(&self) -> usize {
        Hec::asked(self)
    }
}

impl Peer for HecWithAcks {
    const TROUBLES: &'static [Trouble] = Hec::TROUBLES;
    const IS_EXACT: bool = Hec::IS_EXACT;

    fn start(_: &Home) -> Self {
        Self(Hec::start(hec::Options { ack: hec::AckMode::On, ..hec::Options::default() }))
    }

    fn config(&self, keys: &str) -> String {
        hec_config(&self.0, "auto", keys)
    }

    fn lines(&self) -> Vec<String> {
        self.0.lines()
    }

    fn count(&self) -> usize {
        self.0.count()
    }

    fn trouble(&self, trouble: Trouble) {
        self.0.trouble(trouble);
    }

    fn bar(&self) {
        self.0.bar();
    }

    fn mend(&self) {
        Peer::mend(&self.0);
    }
}

impl Judge for HecWithAcks {
    const REASON: &'static str = Hec::REASON;
    const SECRET: &'static str = Hec::SECRET;

    fn refuse(&self, text: &str) {
        self.0.refuse(text);
    }

    fn bodies(&self) -> Vec<(usize, usize)> {
        self.0.bodies()
    }

    fn echo(&self) {
        self.0.echo();
    }

    fn asked(&self) -> usize {
        self.0.asked()
    }
}

/// Numbered events of an hour, each with this text.
pub fn numbered(count: i64, text: impl Fn(i64) -> String) -> impl Iterator<Item = SimEvent> {
    numbered_from(START, count, text)
}

/// The same for the hour that begins then.
pub fn numbered_from(
    begin: i64,
    count: i64,
    text: impl Fn(i64) -> String,
) -> impl Iterator<Item = SimEvent> {
    (0..count).map(move |n| {
        let event = SimEvent::new(begin + MINUTE + n * (HOUR - 2 * MINUTE) / count, "login");
        let text = serde_json::to_string(&text(n)).unwrap();
        event.with("n", &n.to_string()).with("text", &text)
    })
}

/// An API with these events, none of them late; its clock stands an hour behind the last.
pub fn api_of(events: impl IntoIterator<Item = SimEvent>, page_cap: usize) -> Sim {
    let clock = Clock::Manual(START + 2 * HOUR);
    let options = Options { clock, page_cap, token_lifetime: None, ..Options::default() };
    let sim = Sim::start(options);
    sim.api.add_all(events);
    sim
}

/// A home that reads all of that, and has no sink but a file.
pub fn home_for(sim: &Sim, more: &str) -> Home {
    let start = rfc3339(START);
    let source = format!(
        "start = \"{start}\"\npoll_every = \"50ms\"\nmax_window = \"10m\"\nresweep = [\"1h\"]"
    );
    Home::new(&sim.api.url(), &source, more)
}

/// The number that siemferry has given the event of a line.
pub fn seq(line: &str) -> u64 {
    let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    line["siemferry"]["seq"].as_u64().unwrap()
}

/// An hour full of events passes, and another behind it.
pub fn an_hour_passes(sim: &Sim, count: i64) {
    // Nothing shows before its time.
    sim.api.add_all(numbered_from(sim.api.now(), count, |_| "later".into()));
    sim.api.advance(2 * HOUR);
}

/// How often each event is there.
pub fn copies(lines: &[String]) -> BTreeMap<u64, usize> {
    let mut copies = BTreeMap::new();
    for line in lines {
        *copies.entry(seq(line)).or_default() += 1;
    }
    copies
}

/// Every event of the API is there, as it was; and once where the peer can tell.
#[track_caller]
pub fn holds_all<P: Peer>(peer: &P, sim: &Sim, what: &str) {
    let report = oracle::compare(&sim.api.truth(), peer.lines());
    assert!(report.held > 0 && report.is_complete(), "{what}: {report}\n{report:?}");
    assert!(!P::IS_EXACT || report.is_exact(), "{what}: {report}\n{report:?}");
}

/// The same, each of them once.
#[track_caller]
pub fn holds_each_once(peer: &impl Peer, sim: &Sim, what: &str) {
    let report = oracle::compare(&sim.api.truth(), peer.lines());
    assert!(report.held > 0 && report.is_exact(), "{what}: {report}\n{report:?}");
}
