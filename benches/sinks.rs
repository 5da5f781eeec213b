//! How fast each sink is given what the spool holds, everything settled durably.
//!
//! `cargo bench --bench sinks [-- EVENTS [REPEATS]]` fills a spool once, from the simulated API in
//! another process, and then lets the real binary run once for each row, with one new sink that
//! begins with the oldest event kept and a source that has nothing new. The receiver, another process
//! as well, takes each body and does no more with it than to count it: the strict ones of the tests
//! would be what is measured.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

mod rig;
#[path = "rig/spool.rs"]
mod spool;

use rig::{Measured, Other};

/// What the sinks send at once, unless configured.
const WEBHOOK: Answer = Answer::Empty(500);
const ELASTIC: Answer = Answer::Bulk(2000);

/// Every batch is full.
const MULTIPLE: u64 = 2000;

const SPLUNK: &str =
    "splunk]\nurl = \"URL\"\ntoken = { command = [\"/bin/echo\", \"bench\"] }\nack = \"off\"";
const SPLUNK_WITH_ACKS: &str =
    "splunk]\nurl = \"URL\"\ntoken = { command = [\"/bin/echo\", \"bench\"] }\nack = \"on\"";

const SENTINEL: &str = concat!(
    "sentinel]\nendpoint = \"URL\"\nauthority = \"URL\"\nrule = \"dcr-0\"\nstream = \"Custom-Bench\"\n",
    "auth = { client_secret = { tenant = \"t\", client = \"c\", secret = { command = [\"/bin/echo\", \"bench\"] } } }",
);
const SENTINEL_FULL: &str = concat!(
    "sentinel]\nprofile = \"full\"\nendpoint = \"URL\"\nauthority = \"URL\"\nrule = \"dcr-0\"\nstream = \"Custom-Bench\"\n",
    "auth = { client_secret = { tenant = \"t\", client = \"c\", secret = { command = [\"/bin/echo\", \"bench\"] } } }",
);

/// How the receiver answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// There is none: it is a file.
    File,
    /// 200, nothing else; so many events a request.
    Empty(u64),
    /// 200, and a verdict for each of so many events.
    Bulk(u64),
    /// A token at first, then 204, however many events a request.
    Azure,
    /// 200 of a collector, so many events a request.
    Collector(u64),
    /// The same, and each request is acknowledged when that is asked for.
    Acknowledging(u64),
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse().expect("a number");
    match words[..] {
        ["serve", events] => spool::serve(events.parse().expect("a number of events")),
        ["receive", answer] => receive(Answer::named(answer)),
        [] => compare(1_000_000, 3),
        [events] => compare(number(events), 3),
        [events, repeats] => compare(number(events), number(repeats)),
        _ => panic!("usage: cargo bench --bench sinks [-- EVENTS [REPEATS]]"),
    }
}

impl Answer {
    fn named(name: &str) -> Self {
        let number = |text: &str| text.parse().expect("a number of events");
        match name.split_once(' ') {
            Some(("empty", events)) => Self::Empty(number(events)),
            Some(("bulk", events)) => Self::Bulk(number(events)),
            Some(("collector", events)) => Self::Collector(number(events)),
            Some(("acknowledging", events)) => Self::Acknowledging(number(events)),
            _ => Self::Azure,
        }
    }

    fn name(self) -> String {
        match self {
            Self::File => "file".to_owned(),
            Self::Empty(events) => format!("empty {events}"),
            Self::Bulk(events) => format!("bulk {events}"),
            Self::Azure => "azure".to_owned(),
            Self::Collector(events) => format!("collector {events}"),
            Self::Acknowledging(events) => format!("acknowledging {events}"),
        }
    }

    /// How many requests there are for all events, where that is known.
    fn requests(self, events: u64) -> Option<u64> {
        match self {
            Self::Empty(batch)
            | Self::Bulk(batch)
            | Self::Collector(batch)
            | Self::Acknowledging(batch) => Some(events / batch),
            Self::File | Self::Azure => None,
        }
    }

    /// The answer to events.
    fn bytes(self) -> Vec<u8> {
        let body = match self {
            Self::Azure => return b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            Self::File | Self::Empty(_) => String::new(),
            Self::Collector(_) => r#"{"text":"Success","code":0}"#.to_owned(),
            // Each has another number.
            Self::Acknowledging(_) => return Vec::new(),
            Self::Bulk(events) => {
                let events = usize::try_from(events).expect("it fits");
                let created = vec![r#"{"create":{"status":201}}"#; events];
                format!(r#"{{"errors":false,"items":[{}]}}"#, created.join(","))
            }
        };
        ok(&body)
    }
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Takes requests until its standard input ends, and then tells how many they were and how long.
fn receive(answer: Answer) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("http://{}", listener.local_addr().expect("it is bound"));
    let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let counted = Arc::clone(&counts);
    let answer: Arc<[u8]> = answer.bytes().into();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (answer, counts) = (Arc::clone(&answer), Arc::clone(&counts));
            let connection = connection.expect("a connection");
            std::thread::spawn(move || answer_all(&connection, &answer, &counts));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new()).expect("a pipe");
    let (requests, bytes) = &*counted;
    println!("{} {}", requests.load(Ordering::SeqCst), bytes.load(Ordering::SeqCst));
}

fn answer_all(connection: &TcpStream, answer: &[u8], (requests, bytes): &(AtomicU64, AtomicU64)) {
    let mut reader = BufReader::with_capacity(256 << 10, connection);
    let mut line = String::new();
    loop {
        let (mut length, mut is_token, mut is_ack) = (0, false, false);
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            is_token |= line.contains("/oauth2/v2.0/token ");
            is_ack |= line.contains("/services/collector/ack?");
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().expect("a number of bytes");
                }
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        if is_ack {
            let mut asked = String::new();
            (&mut reader).take(length).read_to_string(&mut asked).expect("a body");
            let list = asked.trim_start_matches("{\"acks\":[").trim_end_matches("]}");
            let acks: Vec<_> = list.split(',').map(|ack| format!("\"{ack}\":true")).collect();
            let told = ok(&format!("{{\"acks\":{{{}}}}}", acks.join(",")));
            (&*connection).write_all(&told).expect("the sink waits for acknowledgements");
            continue;
        }
        let drained = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink());
        assert_eq!(drained.expect("a body"), length, "the body is whole");
        if is_token {
            let token =
                ok(r#"{"token_type":"Bearer","expires_in":3599,"access_token":"of-the-bench"}"#);
            (&*connection).write_all(&token).expect("the sink waits for a token");
            continue;
        }
        let number = requests.fetch_add(1, Ordering::SeqCst);
        bytes.fetch_add(length, Ordering::SeqCst);
        if answer.is_empty() {
            let told = ok(&format!(r#"{{"text":"Success","code":0,"ackId":{number}}}"#));
            (&*connection).write_all(&told).expect("the sink waits for an answer");
            continue;
        }
        (&*connection).write_all(answer).expect("the sink waits for an answer");
    }
}

fn compare(events: u64, repeats: u64) {
    assert!(events.is_multiple_of(MULTIPLE), "a multiple of {MULTIPLE}: every batch is full");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let api = Other::start(&["serve", &events.to_string()]);
    spool::fill(dir.path(), &api.told, events);
    api.end();
    let api = Other::start(&["serve", "0"]);
    spool::header();
    let mut sinks = 0;
    for (label, sink, answer) in [
        ("file", "file]\npath = \"DIR/NAME.ndjson\"", Answer::File),
        ("webhook, NDJSON", "webhook]\nurl = \"URL/in\"\ncompress = \"none\"", WEBHOOK),
        ("webhook, NDJSON, gzip", "webhook]\nurl = \"URL/in\"\ncompress = \"gzip\"", WEBHOOK),
        ("webhook, NDJSON, zstd", "webhook]\nurl = \"URL/in\"\ncompress = \"zstd\"", WEBHOOK),
        ("elastic", "elastic]\nurl = \"URL\"\nindex = \"bench\"\ncompress = \"none\"", ELASTIC),
        ("splunk, gzip", SPLUNK, Answer::Collector(1000)),
        ("splunk, gzip, acks", SPLUNK_WITH_ACKS, Answer::Acknowledging(1000)),
        ("sentinel, keeper-solution", SENTINEL, Answer::Azure),
        ("sentinel, full", SENTINEL_FULL, Answer::Azure),
        (
            "elastic, gzip",
            "elastic]\nurl = \"URL\"\nindex = \"bench\"\ncompress = \"gzip\"",
            ELASTIC,
        ),
    ] {
        let mut sent = 0;
        let runs = (0..repeats).map(|_| {
            sinks += 1;
            let run = Run { home: dir.path(), api: &api.told, events, name: format!("s{sinks}") };
            let (measured, bytes) =
                if answer == Answer::File { run.file(sink) } else { run.http(sink, answer) };
            sent = bytes;
            measured
        });
        let runs: Vec<Measured> = runs.collect();
        spool::row(label, events, &runs, sent);
    }
    api.end();
}

/// One run with one sink, which the store does not know yet.
struct Run<'a> {
    home: &'a Path,
    api: &'a str,
    events: u64,
    name: String,
}

impl Run<'_> {
    fn once(&self, sink: &str, url: &str) -> Measured {
        let sink = sink.replace("DIR", &self.home.display().to_string());
        let sink = sink.replace("NAME", &self.name).replace("URL", url);
        spool::once(self.home, self.api, &self.name, &sink)
    }

    fn file(&self, sink: &str) -> (Measured, u64) {
        let measured = self.once(sink, "");
        let path = self.home.join(format!("{}.ndjson", self.name));
        let lines = std::fs::read(&path).expect("it was written");
        assert_eq!(memchr::memchr_iter(b'\n', &lines).count() as u64, self.events);
        std::fs::remove_file(path).expect("it is ours");
        (measured, lines.len() as u64)
    }

    fn http(&self, sink: &str, answer: Answer) -> (Measured, u64) {
        let receiver = Other::start(&["receive", &answer.name()]);
        let measured = self.once(sink, &receiver.told);
        let told = receiver.end();
        let (requests, bytes) = told.split_once(' ').expect("two numbers");
        let requests: u64 = requests.parse().expect("a number");
        let expected = answer.requests(self.events).unwrap_or(requests);
        assert_eq!(requests, expected, "every batch came, and once");
        (measured, bytes.parse().expect("a number of bytes"))
    }
}
