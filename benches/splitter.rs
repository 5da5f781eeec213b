//! How fast bodies are split: `cargo bench --bench splitter`.
//!
//! A page of 1,000 Keeper events of about 400 bytes, on one core. Prints the best of many rounds,
//! which other work on the machine disturbs least.

use std::hint::black_box;
use std::time::{Duration, Instant};

use siemferry::source::identity::Digester;
use siemferry::source::json::{self, Tape};
use siemferry::source::records::{self, Shape, TimeFormat};

const EVENTS: usize = 1000;
const ROUNDS: usize = 300;

fn main() {
    let body = page();
    let shape = shape();
    let envelope = records::split(&body, &shape).expect("the page is sound");
    assert_eq!(envelope.records.len(), EVENTS);
    println!("{EVENTS} events of {} bytes", body.len() / EVENTS);

    let borders = best(|| json::skip_value(&body, 0).expect("the page is sound"));
    let check = best(|| check(&body));
    let full = best(|| records::split(&body, &shape).expect("the page is sound"));
    let digest = digest_time(&body, &envelope, &shape);

    report("borders", borders, body.len());
    report("strict check of the whole", check, body.len());
    report("digest alone", digest, body.len());
    report("split without digest (difference)", full.saturating_sub(digest), body.len());
    report("split", full, body.len());
}

fn check(body: &[u8]) -> usize {
    let mut out = Vec::with_capacity(body.len());
    Tape::default().read(body, 0, &mut out).expect("the page is sound")
}

/// Digests with the tapes at hand, as they are in the midst of a split.
fn digest_time(body: &[u8], envelope: &records::Envelope, shape: &Shape) -> Duration {
    let tapes: Vec<_> = envelope
        .records
        .iter()
        .map(|record| {
            let mut tape = Tape::default();
            let bytes = &envelope.bytes[record.span.clone()];
            tape.read(bytes, 0, &mut Vec::with_capacity(body.len())).expect("the record is good");
            (tape, bytes)
        })
        .collect();
    best(|| {
        let mut digester = Digester::new(&shape.identity);
        let digests = tapes.iter().map(|(tape, bytes)| digester.digest(tape.value(bytes)));
        digests.fold(0, |sum, digest| sum ^ digest.0[0])
    })
}

fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    let round = |_| {
        let start = Instant::now();
        black_box(work());
        start.elapsed()
    };
    (0..ROUNDS).map(round).min().expect("there are rounds")
}

fn report(name: &str, time: Duration, bytes: usize) {
    let bytes = u32::try_from(bytes).expect("the page is small");
    let events = u32::try_from(EVENTS).expect("the page is small");
    let speed = f64::from(bytes) / time.as_secs_f64() / 1e6;
    let each = time.as_secs_f64() / f64::from(events) * 1e6;
    println!("{name:<36} {speed:>7.0} MB/s {each:>7.3} µs an event");
}

fn shape() -> Shape {
    let pointer = |text: &str| text.parse().expect("a pointer");
    Shape {
        records: vec![pointer("/events"), pointer("/audit_events"), pointer("/data")],
        lone_array: true,
        token: pointer("/continuation_token"),
        has_more: Some(pointer("/has_more")),
        event_type: pointer("/audit_event"),
        time: pointer("/timestamp"),
        time_format: TimeFormat::Rfc3339,
        identity: vec![],
    }
}

fn page() -> Vec<u8> {
    let mut dice = Dice(7);
    let events: Vec<_> = (0..EVENTS).map(|number| event(number, &mut dice)).collect();
    let events = events.join(",");
    format!(r#"{{"events":[{events}],"has_more":true,"continuation_token":"opaque"}}"#).into_bytes()
}

fn event(number: usize, dice: &mut Dice) -> String {
    let kinds = ["login", "fast_fill", "record_add", "ext_share_added", "set_two_factor_off"];
    let clients = ["Web App.17.2.2", "Browser Extensions.16.4.7", "SecretsManager/JS.16.6.2"];
    let kind = kinds[dice.below(kinds.len())];
    let client = clients[dice.below(clients.len())];
    let user = "user".repeat(1 + dice.below(4));
    let (record, folder, team) = (dice.uid(), dice.uid(), dice.uid());
    let [a, b, c, d] = [(); 4].map(|()| dice.below(256));
    let [minute, second] = [(); 2].map(|()| dice.below(60));
    let millis = number % 1000;
    format!(
        r#"{{"audit_event":"{kind}","remote_address":"{a}.{b}.{c}.{d}","category":"usage","client_version":"{client}","username":"{user}@company.example.com","enterprise_id":260753,"timestamp":"2025-06-11T12:{minute:02}:{second:02}.{millis:03}Z","record_uid":"{record}","shared_folder_uid":"{folder}","team_uid":"{team}","node":"260{c}","result_code":"success"}}"#
    )
}

/// Numbers that differ from event to event, and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    fn uid(&mut self) -> String {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..22).map(|_| char::from(LETTERS[self.below(64)])).collect()
    }
}
