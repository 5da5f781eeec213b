//! What the engine asks of an API, and what it makes of each answer.

use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use proptest::prelude::*;
use siemferry::position::{PageToken, Window};
use siemferry::sim::{Api, Clock, Fault, Options, SimEvent};
use siemferry::source::preset::Preset;
use siemferry::source::rest::{self, RestSource};
use siemferry::source::{FetchError, Page, Response, Source};
use siemferry::units::Span;

use crate::inside::serve;
use crate::rig::{Home, TOKEN};
use crate::tls;
use crate::wire::{Wire, answer};

/// 2026-01-02T02:00:00Z to 03:00:00Z.
const WINDOW: Window = Window { start: 1_767_319_200, end: 1_767_322_800 };
const PATH: &str = "/api/rest/public/events";
const EMPTY: &str = r#"{"events":[],"continuation_token":null,"has_more":false}"#;

fn config(url: &str) -> rest::Config {
    toml::from_str(&format!("base_url = \"{url}\"\ntoken = \"{TOKEN}\"")).unwrap()
}

fn keeper(config: &rest::Config) -> RestSource {
    RestSource::new(config, Preset::keeper()).unwrap()
}

fn source(url: &str) -> RestSource {
    keeper(&config(url))
}

fn token(text: &str) -> PageToken {
    PageToken(text.to_owned())
}

async fn first(source: &RestSource) -> Result<Response, FetchError> {
    source.fetch(WINDOW, None).await
}

async fn next(source: &RestSource) -> Result<Response, FetchError> {
    source.fetch(WINDOW, Some(&token("t"))).await
}

/// What the engine makes of this answer to a request for a first page.
async fn refusal(answer: Vec<u8>) -> FetchError {
    first(&source(&Wire::answering(answer).url())).await.unwrap_err()
}

/// How long a refusal asks us to wait; panics when it is to be met in another way.
fn wait(err: &FetchError) -> Option<u64> {
    match err {
        FetchError::Retry { after, .. } | FetchError::Throttled { after, .. } => {
            after.map(|after| after.as_secs())
        }
        other => panic!("no retry: {other:?}"),
    }
}

fn hint(err: &FetchError) -> Option<&str> {
    match err {
        FetchError::Blocked { hint, .. } => hint.as_deref(),
        other => panic!("not blocked: {other:?}"),
    }
}

fn split(body: &str) -> Result<Page, FetchError> {
    let body = body.as_bytes().to_vec();
    let response =
        Response { body, memory: None, date: None, elapsed: Duration::ZERO, content_type: None };
    source("http://127.0.0.1:1").split(&response)
}

// The request.

fn header<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let pairs = head.lines().filter_map(|line| line.split_once(": "));
    pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[tokio::test]
async fn a_first_page_is_asked_for_as_the_api_documents_it() {
    let wire = Wire::answering(answer(200, &[], EMPTY));

    first(&source(&wire.url())).await.unwrap();

    let heads = wire.heads();
    let [head] = &heads[..] else { panic!("one request: {heads:?}") };
    let line = format!(
        "GET {PATH}?start_date=2026-01-02T01%3A59%3A59Z&end_date=2026-01-02T03%3A00%3A01Z&limit=1000 HTTP/1.1"
    );
    assert_eq!(head.lines().next(), Some(line.as_str()));
    assert_eq!(header(head, "x-api-token"), [format!("Bearer {TOKEN}")]);
    assert_eq!(header(head, "accept"), ["application/json"]);
    assert_eq!(header(head, "accept-encoding"), ["gzip"]);
    assert_eq!(header(head, "host"), [wire.url().trim_start_matches("http://")]);
    assert_eq!(header(head, "authorization").len() + header(head, "referer").len(), 0);
}

/// The parameters as a server reads them.
fn asked(head: &str) -> Vec<(String, String)> {
    let path = head.split(' ').nth(1).unwrap();
    let url = reqwest::Url::parse(&format!("http://x{path}")).unwrap();
    url.query_pairs().into_owned().collect()
}

#[tokio::test]
async fn a_page_token_comes_back_as_it_was_given() {
    let wire = Wire::answering(answer(200, &[], EMPTY));
    let source = source(&wire.url());
    let nasty = "a+b/c==&limit=1#?%2B%41 \u{fc}\u{1F600}\";'\\\u{0}\n~";

    source.fetch(WINDOW, Some(&token(nasty))).await.unwrap();

    let head = wire.heads().remove(0);
    let names: Vec<String> = asked(&head).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["start_date", "end_date", "limit", "continuation_token"]);
    assert_eq!(asked(&head)[3].1, nasty);
    assert!(head.contains("continuation_token=a%2Bb%2Fc%3D%3D%26limit%3D1%23"), "{head}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_token_of_a_page_is_the_parameter_of_the_next_request(given in "\\PC{1,40}") {
        let wire = Wire::answering(answer(200, &[], EMPTY));
        let body = serde_json::json!({ "events": [], "continuation_token": given });
        let page = split(&body.to_string()).unwrap();

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let source = source(&wire.url());
        runtime.block_on(source.fetch(WINDOW, page.next.as_ref())).unwrap();

        prop_assert_eq!(&asked(&wire.heads()[0])[3].1, &given);
    }
}

#[tokio::test]
async fn a_token_is_bound_to_host_preset_and_page_size_and_holds_no_secret() {
    let one = config("http://127.0.0.1:1");
    let smaller = rest::Config { page_size: NonZeroU32::new(10).unwrap(), ..one.clone() };
    let elsewhere = config("http://127.0.0.1:2");

    let scope = keeper(&one).token_scope();

    assert_eq!(scope, keeper(&one).token_scope());
    assert_ne!(scope, keeper(&smaller).token_scope());
    assert_ne!(scope, keeper(&elsewhere).token_scope());
    assert!(!scope.contains(TOKEN));
}

// Throttling.

#[tokio::test]
async fn a_429_says_how_long_to_wait_in_seconds_or_as_a_date() {
    let date = ("date", "Fri, 20 Nov 2026 10:00:00 GMT");
    for (retry_after, expected) in [
        ("17", Some(17)),
        (" 17 ", Some(17)),
        ("0", Some(0)),
        ("Fri, 20 Nov 2026 10:01:30 GMT", Some(90)),
        ("Fri, 20 Nov 2026 09:00:00 GMT", Some(0)),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("99999999999999999999999", Some(u64::MAX)),
        ("", None),
    ] {
        let err = refusal(answer(429, &[date, ("retry-after", retry_after)], "")).await;

        assert_eq!(wait(&err), expected, "{retry_after:?}");
    }
    assert_eq!(wait(&refusal(answer(429, &[], "slow down")).await), None);
}

#[tokio::test]
async fn a_403_is_throttling_when_its_body_says_so_and_for_as_long() {
    for (body, expected) in [
        (r#"{"error":"throttled","message":"Please try again in 1 minute"}"#, Some(60)),
        (r#"{"error":"Throttled","message":"wait 30 seconds"}"#, Some(30)),
        (r#"[{"error":"throttled","message":"Try again in 2 minutes."}]"#, Some(120)),
        (r#"[{"result_code":"throttled","retry_after":45}]"#, Some(45)),
        (r#"{"result_code":"throttled","retry_after":9}"#, Some(9)),
        (r#"{"result_code":"throttled","retry_after":"9"}"#, Some(9)),
        (r#"{"result_code":"throttled","retry_after":null,"message":"10 sec"}"#, Some(10)),
        (r#"{"result_code":"throttled","retry_after":-9}"#, None),
        (r#"{"error":"throttled","message":"later"}"#, None),
        ("You are being THROTTLED.", None),
    ] {
        let err = refusal(answer(403, &[], body)).await;

        assert_eq!(wait(&err), expected, "{body}");
    }
}

#[tokio::test]
async fn of_two_waits_the_longer_is_kept() {
    let body = r#"{"error":"throttled","retry_after":20}"#;
    for (header, expected) in [("5", 20), ("50", 50)] {
        let err = refusal(answer(403, &[("retry-after", header)], body)).await;

        assert_eq!(wait(&err), Some(expected));
    }
}

// Refusals.

#[tokio::test]
async fn a_refusal_that_no_waiting_mends_blocks_and_says_what_to_do() {
    for (status, expected) in [
        (401, Some("make a new API token")),
        (403, Some("SIEM role")),
        (404, Some("check `region` or `base_url`")),
        (405, None),
        (418, None),
        (451, None),
    ] {
        let err = refusal(answer(status, &[], r#"{"message":"no"}"#)).await;

        let given = hint(&err);
        assert_eq!(given.is_some(), expected.is_some(), "{status}: {given:?}");
        assert!(given.unwrap_or_default().contains(expected.unwrap_or_default()), "{given:?}");
        let text = err.to_string();
        assert!(text.starts_with(&format!("GET {PATH}: {status}")), "{text}");
        assert!(text.ends_with(": no"), "{text}");
    }
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again() {
    for status in [408, 425, 500, 501, 502, 503, 504, 520, 599] {
        let err = refusal(answer(status, &[("retry-after", "3")], "<html>oops")).await;

        assert_eq!(wait(&err), Some(3), "{status}");
        assert!(err.to_string().ends_with(": an HTML page"), "{err}");
    }
}

#[tokio::test]
async fn a_refused_page_token_begins_the_window_again() {
    for status in [400, 404, 410, 422] {
        let wire = Wire::answering(answer(status, &[], r#"{"message":"token has expired"}"#));

        let err = next(&source(&wire.url())).await.unwrap_err();

        assert!(matches!(err, FetchError::PageExpired { .. }), "{status}: {err:?}");
        assert_eq!(wire.heads().len(), 1);
    }
}

#[tokio::test]
async fn a_window_that_is_refused_without_a_token_is_too_much() {
    for (status, requests) in [(400, 2), (413, 1), (414, 1), (422, 1)] {
        let wire = Wire::answering(answer(status, &[], "the span is too long"));

        let err = first(&source(&wire.url())).await.unwrap_err();

        assert!(matches!(err, FetchError::TooMuch { .. }), "{status}: {err:?}");
        assert_eq!(wire.heads().len(), requests, "a 400 may be about the limit");
    }
}

#[tokio::test]
async fn a_refused_secret_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("the-first-token");
    let wire = Wire::answering_each(|_, head| match header(head, "x-api-token")[..] {
        ["Bearer the-second-token"] => answer(200, &[], EMPTY),
        _ => answer(401, &[], ""),
    });
    let command = format!("token = {{ command = [\"cat\", {:?}] }}", path.display());
    let text = format!("base_url = \"{}\"\n{command}", wire.url());
    let source = keeper(&toml::from_str(&text).unwrap());
    assert!(first(&source).await.is_err());

    write("the-second-token");
    let answered = first(&source).await;

    assert!(answered.is_ok(), "{answered:?}");
}

#[tokio::test]
async fn a_secret_that_a_server_says_back_is_not_repeated() {
    let api = serve(Options::default()).await;
    for code in [400, 401, 403, 429, 500] {
        api.fault_when(move |_| Some(Fault::EchoToken { code }));

        let err = first(&source(&api.url())).await.unwrap_err();

        let told = format!("{err} {err:?}");
        assert!(!told.contains(TOKEN) && told.contains("***"), "{told}");
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere = Wire::answering(answer(200, &[], EMPTY));
    for status in [300, 301, 302, 303, 305, 307, 308] {
        for to in [elsewhere.url(), format!("//127.0.0.1:{}/", elsewhere.port())] {
            let err = refusal(answer(status, &[("location", &to)], "")).await;

            assert!(hint(&err).unwrap().contains("redirects are not followed"), "{err}");
        }
    }
    assert_eq!(elsewhere.heads(), [""; 0]);
}

// The page size.

/// Everything that is logged on this thread as long as `work` goes on.
async fn logged(work: impl Future<Output = ()>) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .with_max_level(tracing::Level::WARN)
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    work.await;
    drop(guard);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_page_size_that_is_refused_is_left_out_from_then_on_and_said_once() {
    let api = serve(Options { limit_max: Some(100), ..Options::default() }).await;
    let source = source(&api.url());
    let scope = source.token_scope();

    let said = logged(async {
        for _ in 0..3 {
            first(&source).await.unwrap();
        }
    })
    .await;

    let log = api.log();
    let asked: Vec<_> = log
        .iter()
        .map(|served| (served.status.unwrap(), served.request.parameter("limit").is_some()))
        .collect();
    assert_eq!(asked, [(400, true), (200, false), (200, false), (200, false)]);
    assert_eq!(said.matches("The API refuses the page size; it is left out.").count(), 1, "{said}");
    assert_ne!(source.token_scope(), scope, "tokens are bound to the page size");
}

#[tokio::test]
async fn a_page_size_is_not_given_up_for_a_refusal_that_goes_on_without_it() {
    let wire = Wire::answering_each(|number, _| match number {
        0 | 1 => answer(400, &[], "the span is too long"),
        _ => answer(200, &[], EMPTY),
    });
    let source = source(&wire.url());
    assert!(first(&source).await.is_err());

    first(&source).await.unwrap();

    let limits: Vec<bool> = wire.heads().iter().map(|head| head.contains("limit=1000")).collect();
    assert_eq!(limits, [true, false, true]);
}

// Bodies.

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_compressed_page_is_read() {
    let body = gzip(br#"{"events":[{"audit_event":"login"}]}"#);
    let wire = Wire::answering(answer(200, &[("content-encoding", "gzip")], body));
    let source = source(&wire.url());

    let page = source.split(&first(&source).await.unwrap()).unwrap();

    assert_eq!(page.records.len(), 1);
}

/// The most memory this process has ever held, in bytes.
fn most_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[tokio::test]
async fn a_body_that_unpacks_to_two_gibibytes_is_refused_in_little_memory() {
    // A block that stands for itself, again and again; nobody comes to the checksum.
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![b' '; 16 << 20]).unwrap();
    encoder.flush().unwrap();
    let mut bomb = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    bomb.extend(encoder.get_ref().repeat(128));
    assert!(bomb.len() < 4 << 20);
    let wire = Wire::answering(answer(200, &[("content-encoding", "gzip")], bomb));
    let before = most_memory();

    let err = first(&source(&wire.url())).await.unwrap_err();

    assert!(matches!(err, FetchError::TooMuch { .. }), "{err:?}");
    assert!(err.to_string().ends_with("it is larger than 33554432 bytes"), "{err}");
    if let Some((before, after)) = before.zip(most_memory()) {
        assert!(after - before < 1 << 30, "it grew by {} MiB", (after - before) >> 20);
    }
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_limit_and_no_byte_larger() {
    let mut body = EMPTY.as_bytes().to_vec();
    body.resize(32 << 20, b' ');
    let most = Wire::answering(answer(200, &[], &body));
    assert_eq!(first(&source(&most.url())).await.unwrap().body.len(), 32 << 20);
    body.push(b' ');

    let promised = refusal(answer(200, &[], &body)).await;
    let unannounced = refusal(
        [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".as_slice(), body.as_slice()].concat(),
    )
    .await;

    for err in [promised, unannounced] {
        assert!(matches!(err, FetchError::TooMuch { .. }), "{err:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_packed_in_a_way_not_asked_for_is_refused() {
    for encoding in ["br", "deflate", "zstd", "gzip, br", "x-unknown"] {
        let err = refusal(answer(200, &[("content-encoding", encoding)], "\u{1}\u{2}")).await;

        assert_eq!(wait(&err), None);
        let text = err.to_string();
        assert!(
            text.ends_with(&format!("content encoding {encoding} was not asked for")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_no_gzip_though_it_says_so_is_asked_for_again() {
    let whole = gzip(EMPTY.as_bytes());
    for body in [b"not gzip".to_vec(), whole[..whole.len() - 9].to_vec()] {
        let err = refusal(answer(200, &[("content-encoding", "gzip")], body)).await;

        assert_eq!(wait(&err), None, "{err}");
    }
}

// Time-outs and broken connections.

async fn busy() -> Api {
    let now = WINDOW.end * 1000 + 500;
    let api = serve(Options { clock: Clock::Manual(now), ..Options::default() }).await;
    api.add_all((0..40).map(|n| SimEvent::new(WINDOW.start * 1000 + n, "there")));
    api
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_makes_a_smaller_window_of_a_first_page() {
    let api = busy().await;
    api.fault_when(|_| Some(Fault::Stall));
    let source = keeper(&rest::Config { timeout: Span::milliseconds(50), ..config(&api.url()) });

    let first = first(&source).await.unwrap_err();
    let later = next(&source).await.unwrap_err();

    assert!(matches!(first, FetchError::TooMuch { .. }), "{first:?}");
    assert!(matches!(later, FetchError::Retry { after: None, .. }), "{later:?}");
    assert!(later.to_string().starts_with("wait for `127.0.0.1`: no whole answer"), "{later}");
}

#[tokio::test]
async fn a_broken_connection_is_tried_again() {
    let api = busy().await;
    let source = source(&api.url());
    for fault in [Fault::Reset, Fault::Truncated] {
        api.fault_when(move |_| Some(fault.clone()));

        let err = first(&source).await.unwrap_err();

        assert_eq!(wait(&err), None, "{err}");
        assert!(err.to_string().contains("`127.0.0.1`: "), "{err}");
    }
    api.mend();
    assert!(first(&source).await.is_ok());
}

#[tokio::test]
async fn a_connection_that_is_not_made_in_time_says_nothing_of_the_window() {
    // Whoever connects waits for a handshake.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let source = keeper(&rest::Config { timeout: Span::seconds(2), ..config(&url) });

    let err = first(&source).await.unwrap_err();

    assert_eq!(wait(&err), None, "{err}");
    let text = err.to_string();
    assert!(text.starts_with("connect to `127.0.0.1`: no connection within "), "{text}");
    assert!(text.ends_with(" s (check the firewall, or name a `proxy`)"), "{text}");
}

#[tokio::test]
async fn nobody_at_the_other_end_is_a_reason_to_wait() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    let err = first(&source(&format!("http://{closed}"))).await.unwrap_err();

    assert_eq!(wait(&err), None);
    assert!(err.to_string().contains("check the firewall"), "{err}");
}

#[tokio::test]
async fn what_is_not_http_is_tried_again() {
    for bytes in ["", "\r\n\r\n", "SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 200\r\n", "{}"] {
        assert_eq!(wait(&refusal(bytes.into()).await), None, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_good_status_with_a_body_that_is_no_page_breaks_the_contract() {
    let api = busy().await;
    let source = source(&api.url());
    for (fault, expected) in [
        (Fault::Html, "it begins with `<`, as HTML does (sent as `text/html`)"),
        (Fault::ShortButConsistent, "the body is not sound JSON: cut short"),
        (Fault::Garbage, "the body is neither a JSON object nor a JSON array"),
        (Fault::WrongEnvelope, "the body has no array of records; its keys: `status`, `result`"),
    ] {
        api.fault_when(move |_| Some(fault.clone()));

        let err = source.split(&first(&source).await.unwrap()).unwrap_err();

        assert!(matches!(err, FetchError::Violation { .. }), "{err:?}");
        assert!(err.to_string().contains(expected), "{err}");
    }
}

// Envelopes.

#[test]
fn a_flag_and_a_token_say_together_whether_there_is_a_next_page() {
    let next = |members: &str| split(&format!(r#"{{"events":[]{members}}}"#)).map(|page| page.next);
    for (members, expected) in [
        (r#","has_more":true,"continuation_token":"t""#, Some("t")),
        (r#","has_more":false,"continuation_token":"t""#, None),
        (r#","has_more":false,"continuation_token":null"#, None),
        (r#","has_more":false"#, None),
        (r#","has_more":null,"continuation_token":"t""#, Some("t")),
        (r#","continuation_token":"t""#, Some("t")),
        (r#","continuation_token":17"#, Some("17")),
        (r#","continuation_token":"""#, None),
        (r#","continuation_token":null"#, None),
        ("", None),
    ] {
        assert_eq!(next(members).unwrap(), expected.map(token), "{members}");
    }
    for members in [
        r#","has_more":true"#,
        r#","has_more":true,"continuation_token":null"#,
        r#","has_more":true,"continuation_token":"""#,
        r#","has_more":"yes","continuation_token":"t""#,
        r#","has_more":true,"continuation_token":{}"#,
    ] {
        let err = next(members).unwrap_err();

        assert!(matches!(err, FetchError::Violation { .. }), "{members}: {err:?}");
    }
}

#[test]
fn records_are_found_under_every_name_that_they_may_have() {
    let bodies = ["events", "audit_events", "data", "results", "items", "whatever"]
        .map(|name| format!(r#"{{"page":1,"{name}":[{{"audit_event":"login"}}],"errors":[]}}"#));
    let bare = r#"[{"audit_event":"login"}]"#.to_owned();

    for body in bodies.into_iter().chain([bare]) {
        let page = split(&body).unwrap();

        let [record] = &page.records[..] else { panic!("{body}: {page:?}") };
        assert_eq!(record.event_type.as_deref(), Some("login"), "{body}");
        assert_eq!(page.next, None);
    }
}

// Proxies.

#[tokio::test]
async fn a_proxy_is_used_when_it_is_configured() {
    let proxy = Wire::answering(answer(200, &[], EMPTY));
    let config = rest::Config { proxy: Some(proxy.url()), ..config("http://127.0.0.1:9") };

    first(&keeper(&config)).await.unwrap();

    assert!(proxy.heads()[0].starts_with(&format!("GET http://127.0.0.1:9{PATH}?")));
}

#[tokio::test]
async fn a_proxy_sees_nothing_of_what_is_behind_tls() {
    let proxy = Wire::answering(answer(502, &[], ""));
    let config = rest::Config { proxy: Some(proxy.url()), ..config("https://api.example") };

    let err = first(&keeper(&config)).await.unwrap_err();

    assert_eq!(wait(&err), None);
    let head = &proxy.heads()[0];
    assert!(head.starts_with("CONNECT api.example:443 HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains(TOKEN) && !head.contains("x-api-token"), "{head}");
}

#[test]
fn proxies_of_the_environment_are_not_used() {
    let proxy = Wire::answering(answer(502, &[], ""));
    let api = Wire::answering(answer(200, &[], EMPTY));
    let home = Home::new(&api.url(), "start = \"1h\"", "");
    let mut command = home.command(&["run", "--once", "--patience", "20s"]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    {
        command.env(name, proxy.url());
    }

    let output = command.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!api.heads().is_empty());
    assert_eq!(proxy.heads(), [""; 0]);
}

// TLS.

async fn over_tls(server: tls::Server, ca_file: Option<&Path>) -> (Wire, Result<(), FetchError>) {
    let wire = Wire::over_tls(answer(200, &[], EMPTY), server.config);
    let url = format!("https://localhost:{}", wire.port());
    let ca_file = ca_file.map(Path::to_path_buf);
    let result = first(&keeper(&rest::Config { ca_file, ..config(&url) })).await;
    (wire, result.map(drop))
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    let ca = tls::Authority::new();

    let (wire, result) = over_tls(ca.server("localhost", 2100), Some(&ca.file())).await;

    assert!(result.is_ok(), "{result:?}");
    assert_eq!(wire.heads().len(), 1);
}

#[tokio::test]
async fn a_server_that_cannot_prove_who_it_is_is_sent_nothing() {
    let (ca, other) = (tls::Authority::new(), tls::Authority::new());
    let named = Some(ca.file());
    for (what, server, ca_file, reason) in [
        ("unknown", ca.server("localhost", 2100), None, "UnknownIssuer"),
        ("of another authority", other.server("localhost", 2100), named.clone(), "BadSignature"),
        (
            "of another host",
            ca.server("elsewhere.example", 2100),
            named.clone(),
            "not valid for name",
        ),
        ("expired", ca.server("localhost", 2020), named, "expired"),
    ] {
        let (wire, result) = over_tls(server, ca_file.as_deref()).await;

        let err = result.unwrap_err();
        assert_eq!(wait(&err), None, "{what}: {err}");
        let text = err.to_string();
        assert!(text.starts_with("connect to `localhost`: "), "{what}: {text}");
        assert!(text.contains("certificate") && text.contains(reason), "{what}: {text}");
        assert!(text.contains("name a private CA in `ca_file`"), "{what}: {text}");
        assert_eq!(wire.heads(), [""; 0], "{what}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_sent_nothing() {
    let api = busy().await;
    let url = api.url().replace("http://", "https://");

    let err = first(&source(&url)).await.unwrap_err();

    assert_eq!(wait(&err), None, "{err}");
    assert_eq!(api.requests(), 0);
}
