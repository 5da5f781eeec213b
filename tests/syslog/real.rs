//! The whole of it: the real binary, from the API into a file of rsyslog or syslog-ng.

use std::net::UdpSocket;

use serde_json::Value;
use siemferry::sim::SimEvent;

use super::hostile;
use crate::peer::{api_of, home_for, numbered};
use crate::receivers::{Kind, Receiver};
use crate::rig::{Home, Sim, eventually};

/// An API with these events, and a home with the sinks `archive`, a file, and `peer`; `keys` are lines
/// of the latter's table.
pub fn given(
    receiver: &Receiver,
    events: impl IntoIterator<Item = SimEvent>,
    keys: &str,
) -> (Sim, Home) {
    let sim = api_of(events, 1000);
    let address = receiver.sink_keys();
    let table = format!("\n[sinks.peer.syslog]\nhostname = \"the-host\"\n{address}{keys}\n");
    let home = home_for(&sim, &table);
    (sim, home)
}

/// Every third is as any other; the rest has what is hard to write, to frame or to parse.
pub fn events(count: i64) -> impl Iterator<Item = SimEvent> {
    let text = |n: i64| if n % 3 == 0 { "a day like any other".to_owned() } else { hostile(n / 3) };
    numbered(count, text)
        .map(|event| event.with("odd", r#""\ud800 \u0000 \u001b[m \/ \u2028 \"]""#))
}

pub fn number(home: &Home, name: &str) -> u64 {
    home.status()["sinks"]["peer"][name].as_u64().unwrap()
}

/// The MSG of every event: what the file sink wrote, in the order of the events.
pub fn expected(home: &Home, kind: Kind) -> Vec<String> {
    let lines = home.lines().into_iter();
    lines.map(|line| if kind.is_newline() { on_one_line(&line) } else { line }).collect()
}

/// With escapes in place of whatever may end a line.
fn on_one_line(line: &str) -> String {
    let ends_one = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let escaped = |c: char| if ends_one(c) { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
    line.chars().map(escaped).collect()
}

pub fn received(receiver: &Receiver) -> Vec<String> {
    receiver.lines().into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
}

/// The first that differs, for all of them would be unreadable.
#[track_caller]
pub fn are_equal(found: &[String], expected: &[String], what: &str) {
    let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
    if let Some(at) = differs {
        panic!("{what}: line {at}\n{}\n{}", found[at], expected[at]);
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

/// What the receiver must have read in the header of this event.
fn header(line: &str) -> String {
    let event: Value = serde_json::from_str(&line.replace("\\ud800", "")).unwrap();
    let time = chrono::DateTime::parse_from_rfc3339(event["timestamp"].as_str().unwrap()).unwrap();
    let time = time.to_utc().format("%Y-%m-%dT%H:%M:%S%.3fZ");
    let uid = event["siemferry"]["uid"].as_str().unwrap();
    format!("{time} the-host siemferry - login 165 [siemferry@32473 uid=\"{uid}\" source=\"acme\"]")
}

#[test]
fn each_receiver_has_every_event_once_and_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_udp()) {
        let begun = std::time::Instant::now();
        let mut receiver = Receiver::start(&dir.path().join(format!("{kind:?}")), kind);
        let (sim, home) = given(&receiver, events(10_000), "max_message = \"60KiB\"");

        home.run_once_well();

        let expected = expected(&home, kind);
        assert_eq!(expected.len(), sim.api.truth().len());
        eventually("all has arrived", || receiver.count() >= expected.len());
        eventually("all has arrived", || receiver.headers().len() >= expected.len());
        receiver.terminate();
        are_equal(&received(&receiver), &expected, &format!("{kind:?}"));
        let headers = receiver.headers().into_iter();
        let headers: Vec<_> = headers.map(|header| header.replacen("+00:00", "Z", 1)).collect();
        let wanted: Vec<_> = home.lines().iter().map(|line| header(line)).collect();
        are_equal(&headers, &wanted, &format!("{kind:?}"));
        assert_eq!(number(&home, "ambiguous"), 0, "{kind:?}");
        println!("{kind:?}: {:.1} s", begun.elapsed().as_secs_f32());
    }
}

#[test]
fn what_arrives_over_udp_is_as_it_was_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_udp()) {
        let receiver = Receiver::start(&dir.path().join(format!("{kind:?}")), kind);
        let keys = "max_message = \"60KiB\"\nbatch = { events = 5 }";
        let (_sim, home) = given(&receiver, events(300), keys);

        home.run_once_well();

        // What is behind it in the same socket has been read before it.
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        eventually("the last has arrived", || {
            let last = b"<13>1 - - - - - - the last";
            socket.send_to(last, ("127.0.0.1", receiver.port())).unwrap();
            received(&receiver).contains(&"the last".to_owned())
        });
        let mut expected = expected(&home, kind).into_iter();
        let arrived = received(&receiver);
        let arrived: Vec<_> = arrived.iter().take_while(|line| *line != "the last").collect();
        assert!(arrived.len() >= 30, "{kind:?}: {} of 300", arrived.len());
        for line in arrived {
            assert!(expected.any(|expected| expected == *line), "{kind:?}: {line}");
        }
        assert_eq!(number(&home, "settled_seq"), 300);
    }
}

#[test]
fn rsyslog_reads_the_older_header_and_none() {
    let dir = tempfile::tempdir().unwrap();
    for header in ["rfc3164", "none"] {
        let receiver = Receiver::start(&dir.path().join(header), Kind::RsyslogTcp);
        let keys = format!("max_message = \"60KiB\"\nheader = \"{header}\"");
        let (_sim, home) = given(&receiver, events(100), &keys);
        if header == "none" {
            home.edit("hostname = \"the-host\"\n", "");
        }

        home.run_once_well();

        let expected = expected(&home, Kind::RsyslogTcp);
        eventually("all has arrived", || receiver.headers().len() >= expected.len());
        eventually("all has arrived", || receiver.count() >= expected.len());
        if header == "none" {
            let whole = receiver.messages().into_iter();
            let whole: Vec<_> = whole.map(|line| String::from_utf8(line).unwrap()).collect();
            are_equal(&whole, &expected, header);
        } else {
            // Of that header's text, the space is a part.
            let lines = received(&receiver);
            let lines: Vec<_> = lines.iter().map(|line| line[1..].to_owned()).collect();
            are_equal(&lines, &expected, header);
            for told in receiver.headers() {
                assert!(told.contains(" the-host siemferry - - 165 "), "{told}");
            }
        }
    }
}
