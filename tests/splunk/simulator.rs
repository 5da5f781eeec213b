//! What the simulated collector takes, refuses and acknowledges.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::hec::{
    AckMode, AckPlan, AtRestart, Balancer, Fault, Flavor, Hec, Kind, Options, Partly,
};

const EVENTS: &str = "/services/collector/event";
const CHANNEL: &str = "0aeeac95-ac74-4aa9-b30d-6c4c0ac581ba";
const OTHER: &str = "1aeeac95-ac74-4aa9-b30d-6c4c0ac581ba";

/// The answer on a connection of its own: status, head and body; zero when there is none.
fn ask(hec: &Hec, method: &str, target: &str, headers: &str, body: &[u8]) -> (u16, String, String) {
    let url = hec.url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let length = body.len();
    // Dropped early by a fault, the connection may refuse the rest.
    let _ = write!(
        stream,
        "{method} {target} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {length}\r\n\r\n"
    );
    let _ = stream.write_all(body);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    (status, head.to_owned(), body.to_owned())
}

fn token(hec: &Hec) -> String {
    format!("authorization: Splunk {}\r\n", hec.options().token)
}

/// Posts with the token and these headers too; the answer's status and body.
fn post(hec: &Hec, headers: &str, body: &str) -> (u16, Value) {
    let headers = token(hec) + headers;
    let (status, _, body) = ask(hec, "POST", EVENTS, &headers, body.as_bytes());
    (status, serde_json::from_str(&body).unwrap_or_default())
}

fn on(channel: &str) -> String {
    format!("x-splunk-request-channel: {channel}\r\n")
}

/// What a poll of these ids says.
fn poll(hec: &Hec, headers: &str, ids: &[u64]) -> (u16, Value) {
    let target = format!("/services/collector/ack?channel={CHANNEL}");
    let body = json!({ "acks": ids }).to_string();
    let (status, _, body) = ask(hec, "POST", &target, &(token(hec) + headers), body.as_bytes());
    (status, serde_json::from_str(&body).unwrap())
}

fn with_acks(plan: AckPlan) -> Hec {
    Hec::start(Options { ack: AckMode::On, plan, ..Options::default() })
}

fn texts(hec: &Hec) -> Vec<String> {
    hec.indexed().into_iter().map(|event| event.event).collect()
}

#[test]
fn a_token_is_missing_misused_unknown_or_disabled() {
    let hec = Hec::start(Options::default());
    let code = |target: &str, headers: &str| {
        let (status, _, body) = ask(&hec, "POST", target, headers, b"{\"event\":1}");
        let body: Value = serde_json::from_str(&body).unwrap();
        (status, body["code"].as_u64().unwrap())
    };

    assert_eq!(code(EVENTS, ""), (401, 2));
    assert_eq!(code(EVENTS, "authorization: Bearer x\r\n"), (401, 3));
    assert_eq!(code(EVENTS, "authorization: Splunk x\r\n"), (403, 4));
    let query = format!("{EVENTS}?token={}", hec.options().token);
    assert_eq!(code(&query, ""), (400, 16));
    assert_eq!(code("/services/collector/raw", &token(&hec)), (404, 404));
    hec.disable_token();
    assert_eq!(code(EVENTS, &token(&hec)), (403, 1));
    hec.mend();
    assert_eq!(code(EVENTS, &token(&hec)), (200, 0));
    assert_eq!(hec.count(), 1);
}

#[test]
fn objects_are_held_as_they_came() {
    let hec = Hec::start(Options::default());
    let body = concat!(
        r#"{"time":1700000000.123,"host":"h","source":"s","sourcetype":"t","index":"i","#,
        r#""event":{"b": 1,"a":2},"fields":{"uid":"x"}}{"event":"two"}"#,
        "\r\n {\"event\":3}\n"
    );

    assert_eq!(post(&hec, "", body), (200, json!({ "text": "Success", "code": 0 })));

    assert_eq!(texts(&hec), [r#"{"b": 1,"a":2}"#, "\"two\"", "3"]);
    let first = hec.indexed().remove(0);
    assert_eq!(first.time.as_deref(), Some("1700000000.123"));
    assert_eq!((first.host.as_deref(), first.index.as_deref()), (Some("h"), Some("i")));
    assert_eq!(first.fields, Some(json!({ "uid": "x" })));
    let upload = hec.uploads().remove(0);
    assert_eq!((upload.objects, upload.taken, upload.plain), (3, 3, body.len()));
}

#[test]
fn what_is_before_a_bad_object_is_taken_and_nothing_behind_it() {
    let hec = Hec::start(Options { indexes: vec!["main".into()], ..Options::default() });
    hec.refuse_text("poison");
    let cases = [
        (r#"{"event":"poison"}"#, 6, 1),
        (r#"{"event":"a" "#, 6, 1),
        (r#"[{"event":"a"}]"#, 6, 1),
        (r#"{"evnt":"a"}"#, 12, 1),
        (r#"{"event":""}"#, 13, 1),
        (r#"{"event":"a","fields":{"a":{}}}"#, 15, 1),
        (r#"{"event":"a","fields":"a"}"#, 15, 1),
        (r#"{"event":"a","time":"now"}"#, 15, 1),
        (r#"{"event":"a","time":1.7e9}"#, 15, 1),
        (r#"{"event":"a","index":"other"}"#, 7, 2),
    ];
    for (count, (bad, code, number)) in cases.into_iter().enumerate() {
        let body = format!(r#"{{"event":"good"}}{bad}{{"event":"behind"}}"#);
        let (status, answer) = post(&hec, "", &body);
        assert_eq!(status, 400, "{bad}");
        assert_eq!(answer["code"], code, "{bad}");
        assert_eq!(answer["invalid-event-number"], number, "{bad}");
        assert_eq!(texts(&hec), vec!["\"good\""; count + 1], "{bad}");
    }
    assert_eq!(post(&hec, "", "").1["code"], 5);
}

#[test]
fn a_body_is_too_large_before_or_after_it_is_decoded() {
    let hec = Hec::start(Options { max_content_length: 100, ..Options::default() });
    let body = format!(r#"{{"event":"{}"}}"#, "a".repeat(200));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() < 100);

    let (status, head, _) = ask(&hec, "POST", EVENTS, &token(&hec), body.as_bytes());
    assert!(status == 413 && head.contains("text/html"), "{head}");
    let headers = token(&hec) + "content-encoding: gzip\r\n";
    assert_eq!(ask(&hec, "POST", EVENTS, &headers, &packed).0, 413);
    assert_eq!(hec.count(), 0);
}

#[test]
fn with_acks_a_channel_is_asked_for_and_true_is_told_once() {
    let hec = with_acks(AckPlan::after(2));
    assert_eq!(post(&hec, "", r#"{"event":1}"#).1["code"], 10);
    assert_eq!(post(&hec, &on("mine"), r#"{"event":1}"#).1["code"], 11);
    assert_eq!(poll(&hec, "", &[0]).1["code"], 11, "nothing came on it yet");
    for id in 0..2 {
        assert_eq!(post(&hec, &on(CHANNEL), r#"{"event":1}"#).1["ackId"], id);
    }
    assert_eq!(post(&hec, &on(OTHER), r#"{"event":1}"#).1["ackId"], 0);
    assert_eq!((hec.waiting().now, hec.waiting().most), (3, 3));

    assert_eq!(poll(&hec, "", &[0, 7]).1, json!({ "acks": { "0": false, "7": false } }));
    assert_eq!(poll(&hec, "", &[0, 1]).1, json!({ "acks": { "0": true, "1": false } }));
    assert_eq!(poll(&hec, "", &[0, 1]).1, json!({ "acks": { "0": false, "1": true } }));
    assert_eq!((hec.waiting().now, hec.waiting().most), (1, 3));
    let safe: Vec<bool> = hec.indexed().iter().map(|event| event.is_acknowledged).collect();
    assert_eq!(safe, [true, true, false]);
    assert_eq!(hec.asked_of(Kind::Ack), 4);
}

#[test]
fn acks_come_out_of_order_or_for_some_or_never() {
    let hec = with_acks(AckPlan::out_of_order());
    (0..2).for_each(|_| drop(post(&hec, &on(CHANNEL), r#"{"event":1}"#)));
    assert_eq!(poll(&hec, "", &[0, 1]).1["acks"], json!({ "0": false, "1": true }));
    hec.plan(AckPlan::never());
    (0..9).for_each(|_| assert_eq!(poll(&hec, "", &[0]).1["acks"], json!({ "0": false })));
    hec.plan(AckPlan::only(|request| request == 1));
    assert_eq!(poll(&hec, "", &[0]).1["acks"], json!({ "0": true }));
}

#[test]
fn without_acks_a_poll_is_refused_before_its_channel_is_looked_at() {
    let hec = Hec::start(Options::default());
    assert_eq!(poll(&hec, "", &[0]), (400, json!({ "text": "ACK is disabled", "code": 14 })));
}

#[test]
fn a_restarted_indexer_loses_what_it_did_not_acknowledge() {
    for (unacknowledged, left) in [(AtRestart::Kept, 2), (AtRestart::Lost, 1)] {
        let options = Options { ack: AckMode::On, unacknowledged, ..Options::default() };
        let hec = Hec::start(options);
        post(&hec, &on(CHANNEL), r#"{"event":"safe"}"#);
        poll(&hec, "", &[0]);
        post(&hec, &on(CHANNEL), r#"{"event":"unsafe"}"#);

        hec.restart_indexer();

        assert_eq!(hec.count(), left);
        assert_eq!(hec.waiting().now, 0);
        assert_eq!(poll(&hec, "", &[1]).1["code"], 11);
    }
}

#[test]
fn a_part_that_was_taken_has_an_ack_id_or_none() {
    for (partly, id) in [(Partly::WithAckId, json!(0)), (Partly::Without, Value::Null)] {
        let hec = Hec::start(Options { ack: AckMode::On, partly, ..Options::default() });
        let (_, answer) = post(&hec, &on(CHANNEL), r#"{"event":1}{"event":""}"#);
        assert_eq!((&answer["code"], &answer["ackId"]), (&json!(13), &id));
        assert_eq!(hec.count(), 1);
    }
}

#[test]
fn without_its_cookie_a_channel_comes_to_another_indexer() {
    for balancer in [Balancer::Takes, Balancer::Refuses] {
        let balancer = Some(balancer);
        let hec = Hec::start(Options { ack: AckMode::On, balancer, ..Options::default() });
        let headers = token(&hec) + &on(CHANNEL);
        let (_, head, _) = ask(&hec, "POST", EVENTS, &headers, br#"{"event":1}"#);
        assert!(head.contains("set-cookie: SERVERID=1; path=/"), "{head}");

        assert_eq!(poll(&hec, "", &[0]).1["acks"], json!({ "0": false }));
        assert_eq!(poll(&hec, "cookie: SERVERID=1\r\n", &[0]).1["acks"], json!({ "0": true }));
        let code = if balancer == Some(Balancer::Takes) { 0 } else { 28 };
        assert_eq!(post(&hec, &on(CHANNEL), r#"{"event":1}"#).1["code"], code);
    }
}

#[test]
fn health_tells_of_acks_only_when_asked() {
    let hec = Hec::start(Options::default());
    let health = |query: &str| {
        let target = format!("/services/collector/health{query}");
        let (status, _, body) = ask(&hec, "GET", &target, "", b"");
        (status, serde_json::from_str::<Value>(&body).unwrap()["code"].as_u64().unwrap())
    };
    assert_eq!(health("?ack=true"), (200, 17));
    hec.fall_ill(19);
    assert_eq!((health(""), health("?ack=true")), ((200, 17), (503, 19)));
    hec.fall_ill(20);
    assert_eq!((health(""), health("?ack=true")), ((503, 18), (503, 20)));
}

#[test]
fn a_script_decides_what_is_done_and_what_is_told() {
    let hec = with_acks(AckPlan::after(1));
    hec.fault_when(|seen| match seen.number {
        1 => Some(Fault::Near(24)),
        2 => Some(Fault::code(503, 9, "Server is busy")),
        3 => Some(Fault::LoseAnswer),
        4 => Some(Fault::ResetBefore),
        5 => Some(Fault::ResetWithin),
        _ => None,
    });
    let answers = [(); 6].map(|()| post(&hec, &on(CHANNEL), r#"{"event":1}"#));
    let told =
        answers.map(|(status, body)| (status, body["code"].as_u64(), body["ackId"].as_u64()));
    let nothing = (0, None, None);
    let busy = (503, Some(9), None);
    let last = (200, Some(0), Some(2));
    assert_eq!(told, [(200, Some(24), Some(0)), busy, nothing, nothing, nothing, last]);
    assert_eq!(hec.count(), 3);
}

#[test]
fn logscale_takes_a_bearer_and_all_or_nothing() {
    let hec = Hec::start(Options { flavor: Flavor::LogScale, ..Options::default() });
    let bearer = format!("authorization: Bearer {}\r\n", hec.options().token);
    let post =
        |target, headers: &str, body: &str| ask(&hec, "POST", target, headers, body.as_bytes()).0;

    assert_eq!(post("/api/v1/ingest/hec", &token(&hec), r#"{"event":1}"#), 401);
    assert_eq!(post("/api/v1/ingest/hec", &bearer, r#"{"event":1}"#), 200);
    assert_eq!(post(EVENTS, &bearer, r#"{"event":1}"#), 200);
    assert_eq!(post(EVENTS, &bearer, r#"{"event":1}{"event":""}"#), 400);
    assert_eq!(post("/services/collector/ack", &bearer, r#"{"acks":[0]}"#), 404);
    assert_eq!(hec.count(), 2);
}
