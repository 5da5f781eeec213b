//! The webhook sink: what it sends, and what it makes of each answer.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use siemferry::encode::Format;
use siemferry::event::{Event, Uid};
use siemferry::sink::{
    self, Batch, BoxError, Delivery, DeliveryError, Encoded, Receipt, Sink, Upcoming,
};
use uuid::Uuid;

use crate::collector::{Collector, Fault, Options, Shape, hmac_sha256};
use crate::inside::block_on;
use crate::tls::Authority;
use crate::wire::{Wire, answer};

mod alive;
mod strict;

/// A sink of these keys, as its section of the configuration has them.
fn config(keys: &str) -> sink::Config {
    let config: sink::Config = toml::from_str(&format!("[webhook]\n{keys}")).unwrap();
    let problems = config.check();
    assert!(problems.is_empty(), "{problems:?}");
    config
}

fn config_for(collector: &Collector, keys: &str) -> sink::Config {
    config(&format!("url = \"{}\"\n{keys}", collector.url()))
}

/// A sink that has been resumed.
async fn opened(config: &sink::Config) -> Box<dyn Sink> {
    let mut sink = config.build();
    sink.resume(None, &mut Nothing).await.unwrap();
    sink
}

struct Nothing;

#[async_trait]
impl Upcoming for Nothing {
    async fn next(&mut self, _: Format) -> Result<Option<Encoded>, BoxError> {
        Ok(None)
    }
}

/// A batch as the courier makes one: of these records, in the sink's own encoding.
fn batch(sink: &dyn Sink, records: &[&str]) -> Arc<Batch> {
    let mut batch = Batch { id: Uuid::new_v4(), ..Batch::default() };
    for (seq, raw) in (1..).zip(records) {
        let event = Event {
            seq,
            uid: Uid([7; 16]),
            time: Some(1_767_323_045_678),
            event_type: Some("login"),
            raw: raw.as_bytes(),
            source: "acme",
            api: "keeper",
            received: 1_767_323_046_000,
        };
        sink.encode(&event, &mut batch.bytes).unwrap();
        batch.ends.push(batch.bytes.len());
    }
    Arc::new(batch)
}

/// What becomes of one batch of one small event.
fn delivered(config: &sink::Config) -> Result<Receipt, DeliveryError> {
    block_on(async {
        let sink = opened(config).await;
        sink.deliver(&batch(&*sink, &["{}"])).await
    })
}

fn delivered_to(collector: &Collector, keys: &str) -> Result<Receipt, DeliveryError> {
    delivered(&config_for(collector, keys))
}

/// What blocks the sink, and what to do about it.
#[track_caller]
fn blocked<T>(result: Result<T, DeliveryError>) -> (String, String) {
    match result.map(drop) {
        Err(DeliveryError::Blocked { source, hint, .. }) => {
            (source.to_string(), hint.unwrap_or_default())
        }
        other => panic!("{other:?}"),
    }
}

const RECORDS: [&str; 2] = [r#"{"user":"a"}"#, r#"{"user":"é\n"}"#];

const MEMBER: &str = concat!(
    r#","siemferry":{"uid":"07070707070707070707070707070707","source":"acme","api":"keeper","#,
    r#""type":"login","time":"2026-01-02T03:04:05.678Z","received":"2026-01-02T03:04:06.000Z","seq":"#
);

/// The body of a batch of [`RECORDS`], after what was agreed was checked.
fn body_of(shape: Shape, keys: &str, records: &[&str]) -> String {
    let collector = Collector::start(Options { shape, ..Options::default() });
    block_on(async {
        let sink = opened(&config_for(&collector, keys)).await;
        sink.deliver(&batch(&*sink, records)).await.unwrap();
    });
    let accepted = collector.accepted();
    assert_eq!((accepted.len(), accepted[0].count), (1, records.len()));
    String::from_utf8(accepted[0].body.clone()).unwrap()
}

#[test]
fn each_body_is_what_it_is_called() {
    let lines = body_of(Shape::Ndjson, "format = \"raw\"", &RECORDS);
    assert_eq!(lines, "{\"user\":\"a\"}\n{\"user\":\"é\\n\"}\n");
    let array = body_of(Shape::Array, "body = \"array\"\nformat = \"raw\"", &RECORDS);
    assert_eq!(array, r#"[{"user":"a"},{"user":"é\n"}]"#);
    let single = body_of(Shape::Single, "body = \"single\"\nformat = \"raw\"", &RECORDS[1..]);
    assert_eq!(single, r#"{"user":"é\n"}"#);
}

#[test]
fn each_body_holds_our_member_unless_the_record_alone_is_asked_for() {
    let (first, second) = (r#"{"user":"a""#, r#"{"user":"é\n""#);
    let (first, second) = (format!("{first}{MEMBER}1}}}}"), format!("{second}{MEMBER}2}}}}"));

    assert_eq!(body_of(Shape::Ndjson, "", &RECORDS), format!("{first}\n{second}\n"));
    let array = body_of(Shape::Array, "body = \"array\"", &RECORDS);
    assert_eq!(array, format!("[{first},{second}]"));
    assert_eq!(body_of(Shape::Single, "body = \"single\"", &RECORDS[..1]), first);
}

#[test]
fn each_compression_is_understood_and_makes_less_of_a_large_body() {
    let record = format!("{{\"text\":\"{}\"}}", "é".repeat(100_000));
    for compress in ["none", "gzip", "zstd"] {
        let collector = Collector::start(Options::default());
        let keys = format!("compress = \"{compress}\"\nformat = \"raw\"");
        block_on(async {
            let sink = opened(&config_for(&collector, &keys)).await;
            sink.deliver(&batch(&*sink, &[&record, "{}"])).await.unwrap();
        });

        let accepted = collector.accepted().remove(0);
        assert_eq!(accepted.events(), [record.as_str(), "{}"], "{compress}");
        let coding = accepted.arrival.header("content-encoding");
        assert_eq!(coding, (compress != "none").then_some(compress));
        let is_less = accepted.length < accepted.body.len() / 10;
        assert_eq!(is_less, compress != "none", "{compress}: {} bytes", accepted.length);
    }
}

#[test]
fn a_batch_never_has_more_bytes_than_the_sink_may_send() {
    let limits = |keys: &str| {
        let Delivery { batch, in_flight, is_exact, .. } =
            config(&format!("url = 'https://h.example.com'\n{keys}")).delivery();
        assert!(!is_exact);
        (batch.events.get(), batch.bytes.get(), batch.wait.duration().as_secs(), in_flight)
    };

    assert_eq!(limits(""), (500, 900 << 10, 1, 4));
    assert_eq!(limits("batch = { events = 9 }\nin_flight = 64"), (9, 900 << 10, 1, 64));
    assert_eq!(limits("body = 'array'"), (500, (900 << 10) - 1, 1, 4));
    assert_eq!(limits("body = 'single'"), (1, 900 << 10, 1, 4));
}

fn key(byte: u8) -> (Vec<u8>, String) {
    let bytes = vec![byte; 32];
    let text = format!("whsec_{}", STANDARD.encode(&bytes));
    (bytes, text)
}

#[test]
fn every_key_signs_and_a_repeat_is_the_same_but_for_its_time() {
    let [(old, old_text), (new, new_text)] = [key(1), key(2)];
    let keys = vec![old.clone(), new.clone()];
    let collector = Collector::start(Options { keys, ..Options::default() });
    let keys = format!("signature = {{ keys = [\"{old_text}\", \"{new_text}\"] }}");
    collector.fault_when(|arrival| (arrival.number == 0).then_some(Fault::LoseAnswer));

    block_on(async {
        let sink = opened(&config_for(&collector, &keys)).await;
        let batch = batch(&*sink, &RECORDS);
        let lost = sink.deliver(&batch).await.unwrap_err();
        assert!(matches!(lost, DeliveryError::Retry { is_ambiguous: true, .. }), "{lost:?}");
        sink.deliver(&batch).await.unwrap();
    });

    let [first, second] = collector.accepted().try_into().unwrap();
    assert_eq!(first.body, second.body);
    assert_eq!(first.arrival.batch(), second.arrival.batch());
    assert!(Uuid::parse_str(first.arrival.batch()).is_ok());
    for received in [first, second] {
        let header = |name| received.arrival.header(name).unwrap();
        let signed = [header("webhook-id"), header("webhook-timestamp"), ""].join(".");
        let signed = [signed.as_bytes(), &received.body].concat();
        let [old, new] =
            [&old, &new].map(|key| format!("v1,{}", STANDARD.encode(hmac_sha256(key, &signed))));
        assert_eq!(header("webhook-signature"), format!("{old} {new}"));
    }
}

#[test]
fn headers_are_sent_whether_they_are_text_or_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = private(dir.path(), "token", "Bearer header-canary\n");
    let header = Some(("authorization", "Bearer header-canary"));
    let collector = Collector::start(Options { header, ..Options::default() });
    let headers = format!("headers = {{ Authorization = {{ file = {file:?} }}, X-Team = 'soc' }}");

    delivered_to(&collector, &headers).unwrap();

    assert_eq!(collector.accepted()[0].arrival.header("x-team"), Some("soc"));
    assert_eq!(collector.accepted()[0].arrival.header("idempotency-key").unwrap().len(), 36);
}

/// A file that nobody else can read.
fn private(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn a_missing_secret_blocks_and_one_that_was_put_there_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token").display().to_string();
    let collector = Collector::start(Options {
        header: Some(("authorization", "Bearer later")),
        ..Options::default()
    });
    let keys = format!("headers = {{ Authorization = {{ file = {path:?} }} }}");
    let config = config_for(&collector, &keys);

    block_on(async {
        let mut sink = config.build();
        let (text, hint) = blocked(sink.resume(None, &mut Nothing).await);
        assert!(text.starts_with(&format!("read secret file `{path}`: No such file")), "{text}");
        assert!(hint.starts_with("put the secret alone into"), "{hint}");
        private(dir.path(), "token", "Bearer wrong");
        sink.resume(None, &mut Nothing).await.unwrap();
        let batch = batch(&*sink, &["{}"]);
        let (text, _) = blocked(sink.deliver(&batch).await);
        assert_eq!(text, format!("POST {}: 401 Unauthorized: who are you?", origin(&collector)));
        private(dir.path(), "token", "Bearer later");
        sink.deliver(&batch).await.unwrap();
    });
}

fn origin(collector: &Collector) -> String {
    collector.url().trim_end_matches("/in").to_owned()
}

#[test]
fn what_is_no_key_blocks_and_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = private(dir.path(), "key", "not-a-key-canary");
    let collector = Collector::start(Options::default());
    let keys = format!("signature = {{ keys = [\"{}\", {{ file = {path:?} }}] }}", key(3).1);
    let config = config_for(&collector, &keys);

    let (text, hint) = blocked(block_on(config.build().resume(None, &mut Nothing)));

    assert_eq!(text, "read `signature.keys`, number 2: the key does not begin with `whsec_`");
    assert!(hint.contains("openssl rand -base64 32"), "{hint}");
    assert_eq!(blocked(config.examine()).0, text);
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named() {
    let authority = Authority::new();
    let tls = Some(authority.server("localhost", 2100).config);
    let collector = Collector::start(Options { tls, ..Options::default() });

    let (text, hint) = blocked(delivered_to(&collector, ""));
    assert!(text.starts_with("connect to `localhost`: "), "{text}");
    assert!(hint.contains("`ca_file`"), "{hint}");
    delivered_to(&collector, &format!("ca_file = {:?}", authority.file())).unwrap();

    assert_eq!(collector.accepted().len(), 1);
}

#[test]
fn a_client_certificate_is_shown_to_a_server_that_asks_for_one() {
    let authority = Authority::new();
    let tls = Some(authority.server_for_clients("localhost").config);
    let collector = Collector::start(Options { tls, ..Options::default() });
    let ca_file = format!("ca_file = {:?}", authority.file());
    let with = |path: &Path| format!("{ca_file}\nclient_certificate = {path:?}");

    delivered_to(&collector, &with(&authority.client("siemferry"))).unwrap();
    let stranger = Authority::new();
    let unknown = delivered_to(&collector, &with(&stranger.client("siemferry")));
    let without = delivered_to(&collector, &ca_file);

    assert_eq!(collector.accepted().len(), 1);
    for refused in [unknown, without] {
        let (text, hint) = blocked(refused);
        assert!(text.starts_with("connect to `localhost`: received fatal alert: "), "{text}");
        assert!(hint.contains("`client_certificate`"), "{hint}");
    }
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_named() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let shown = authority.client("siemferry");
    let told = |path: &Path| {
        let keys = format!("url = 'https://h.example.com'\nclient_certificate = {path:?}");
        let (text, hint) = blocked(config(&keys).examine());
        let name = format!("read the client certificate from `{}`: ", path.display());
        (text.strip_prefix(&name).expect(&text).to_owned(), hint)
    };
    let is_pem =
        "`client_certificate` must hold PEM: the certificate, its chain and its key, not encrypted";

    let none = private(dir.path(), "none.pem", "no certificate");
    assert_eq!(told(none.as_ref()).1, is_pem);
    let (certificate, other) = (fs::read_to_string(&shown).unwrap(), authority.client("other"));
    let certificate = certificate.split("-----BEGIN PRIVATE").next().unwrap();
    let alone = private(dir.path(), "alone.pem", certificate);
    assert_eq!(told(alone.as_ref()).1, is_pem);
    let other = fs::read_to_string(other).unwrap();
    let key = &other[other.find("-----BEGIN PRIVATE").unwrap()..];
    let mixed = private(dir.path(), "mixed.pem", &[certificate, key].concat());
    assert_eq!(told(mixed.as_ref()).1, is_pem);
    assert_eq!(told(&dir.path().join("absent.pem")).0, "No such file or directory (os error 2)");
    fs::set_permissions(&shown, Permissions::from_mode(0o644)).unwrap();
    let (text, hint) = told(&shown);
    assert_eq!(text, "readable by others (mode 0644)");
    assert_eq!(hint, "it holds a key: have nobody else read it, with `chmod 600`");
}

#[test]
fn a_redirect_is_not_followed_and_its_place_is_told() {
    let (collector, other) =
        (Collector::start(Options::default()), Collector::start(Options::default()));
    let place = format!("{}?key=secret", other.url());
    collector.fault_when(move |_| Some(Fault::answer(307, &[("location", &place)], "")));

    let (text, hint) = blocked(delivered_to(&collector, ""));

    assert!(text.contains("307 Temporary Redirect"), "{text}");
    assert!(hint.ends_with(&format!("it names `{}`", other.url())), "{hint}");
    assert_eq!(other.arrivals().len(), 0);
}

#[test]
fn only_what_may_have_been_received_is_unknown() {
    let unknown = |fault: Fault, keys: &str| {
        let collector = Collector::start(Options::default());
        collector.fault_when(move |_| Some(fault.clone()));
        match delivered_to(&collector, keys) {
            Err(DeliveryError::Retry { is_ambiguous, .. }) => is_ambiguous,
            other => panic!("{other:?}"),
        }
    };
    assert!(unknown(Fault::LoseAnswer, ""));
    assert!(unknown(Fault::ResetBefore, ""));
    assert!(unknown(Fault::ResetWithin, ""));
    assert!(unknown(Fault::Stall, "timeout = '2s'"));
    assert!(unknown(Fault::status(500), ""));
    assert!(!unknown(Fault::status(503), ""));

    // Nobody listens there any more.
    let gone = config_for(&Collector::start(Options::default()), "");
    let Err(DeliveryError::Retry { is_ambiguous, source, .. }) = delivered(&gone) else {
        panic!("not a retry")
    };
    assert!(!is_ambiguous && source.to_string().contains("onnection refused"), "{source}");
    let nowhere = config("url = 'https://nowhere.invalid/in'");
    let Err(DeliveryError::Retry { is_ambiguous: false, source, .. }) = delivered(&nowhere) else {
        panic!("not a retry")
    };
    assert!(source.to_string().starts_with("look up `nowhere.invalid`: "), "{source}");
}

#[test]
fn what_the_receiver_asks_us_to_wait_is_told() {
    let collector = Collector::start(Options::default());
    collector.fault_when(|_| Some(Fault::answer(429, &[("retry-after", "17")], "slow down")));

    let Err(DeliveryError::Retry { after, is_ambiguous, source }) = delivered_to(&collector, "")
    else {
        panic!("not a retry")
    };

    assert_eq!((after, is_ambiguous), (Some(Duration::from_secs(17)), false));
    let text = format!("POST {}: 429 Too Many Requests: slow down", origin(&collector));
    assert_eq!(source.to_string(), text);
}

#[test]
fn what_is_too_large_and_what_is_not_welcome_are_refused() {
    let collector = Collector::start(Options { most_bytes: Some(400), ..Options::default() });
    let refused = |records: &[&str]| {
        let config = config_for(&collector, "");
        block_on(async {
            let sink = opened(&config).await;
            match sink.deliver(&batch(&*sink, records)).await {
                Err(DeliveryError::Refused { is_size, .. }) => Some(is_size),
                Ok(_) => None,
                other => panic!("{other:?}"),
            }
        })
    };
    collector.refuse_content("poison", 400);

    assert_eq!(refused(&["{}"]), None);
    assert_eq!(refused(&["{}", "{}", "{}"]), Some(true));
    assert_eq!(refused(&["{\"a\":\"poison\"}"]), Some(false));
}

#[test]
fn only_the_statuses_that_were_named_accept() {
    let collector = Collector::start(Options::default());
    let status = |status, keys: &str| {
        collector.fault_when(move |_| Some(Fault::status(status)));
        delivered_to(&collector, keys)
    };

    for any in [200, 201, 202, 204, 299] {
        status(any, "").unwrap();
    }
    let named = "accept = [202, 409]";
    status(202, named).unwrap();
    status(409, named).unwrap();
    let (text, hint) = blocked(status(200, named));
    assert!(text.ends_with(": 200 OK"), "{text}");
    assert!(hint.starts_with("`accept` does not name this status"), "{hint}");
    assert!(matches!(status(409, ""), Err(DeliveryError::Retry { is_ambiguous: false, .. })));
}

#[test]
fn an_answer_counts_by_its_status_whatever_becomes_of_its_body() {
    let torn = b"HTTP/1.1 202 As Prepared\r\ncontent-length: 1000\r\n\r\ntorn".to_vec();
    let odd = answer(202, &[("content-encoding", "odd")], "odd");
    let long = answer(202, &[], "x".repeat(1 << 20));
    for prepared in [torn, odd, long] {
        let wire = Wire::answering(prepared);
        let config = config(&format!("url = \"{}\"", wire.url()));

        delivered(&config).unwrap();
    }
}

#[test]
fn a_probe_sends_no_event_and_tells_what_answers() {
    let header = Some(("authorization", "Bearer probe-canary"));
    let collector = Collector::start(Options { header, ..Options::default() });
    let probe = |headers: &str| {
        let config = config_for(&collector, headers);
        block_on(async { config.build().probe().await })
    };

    let told = probe("headers.Authorization = 'Bearer probe-canary'").unwrap();
    assert_eq!(
        told,
        format!(
            "{} answers, 405 Method Not Allowed to a request without events; \
             `siemferry send-test` shows whether it takes events",
            origin(&collector)
        )
    );
    let (text, hint) = blocked(probe(""));
    assert!(text.starts_with(&format!("HEAD {}: 401", origin(&collector))), "{text}");
    assert!(hint.contains("`headers`"), "{hint}");
    assert!(collector.arrivals().iter().all(|arrival| arrival.method == "HEAD"));
}

#[test]
fn what_is_not_at_hand_is_told_and_not_looked_for() {
    let config = config(
        "url = 'https://h.example.com/in'\n\
         headers = { X-Token = { credential = 'a' }, X-Team = 'soc' }\n\
         signature = { keys = [{ credential = 'b' }] }",
    );

    assert_eq!(
        config.examine().unwrap(),
        "posts to https://h.example.com; not checked, for only the unit has it: \
         `headers.X-Token`, `signature.keys`"
    );
}
