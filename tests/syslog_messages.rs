//! Whatever an event holds, a strict receiver gets it as one message and reads from it what was
//! meant.

use chrono::{DateTime, SecondsFormat};
use serde::de::IgnoredAny;
use siemferry::encode::Format;
use siemferry::encode::syslog::{
    Facility, Framing, Header, Layout, Oversize, encode, messages, sound_hostname,
};
use siemferry::sim::Rng;

use crate::strict_syslog::{self, Deframer, Message, OldMessage};

mod hostile;
mod receiver;

use hostile::Hostile;

/// How many events go through each framing.
fn events() -> u64 {
    let wanted = std::env::var("SIEMFERRY_RANDOM_EVENTS").ok();
    wanted.map_or(1_000_000, |events| events.parse().expect("SIEMFERRY_RANDOM_EVENTS is a number"))
}

/// Of the tests that are not about all that can be.
const SOME: u64 = 5_000;

fn layout(framing: Framing) -> Layout {
    Layout {
        format: Format::Json,
        header: Header::Rfc5424,
        facility: Facility::Audit,
        hostname: sound_hostname("sîem ferry"),
        enterprise_number: 32473,
        max_message: 1 << 20,
        oversize: Oversize::DeadLetter,
        framing,
    }
}

fn strict(framing: Framing) -> strict_syslog::Framing {
    match framing {
        Framing::OctetCounted => strict_syslog::Framing::OctetCounted,
        Framing::Newline => strict_syslog::Framing::Newline,
    }
}

/// Sends events in batches, and each batch in pieces of any length, to a strict receiver; `judge` is
/// given each event with the messages that came of it.
fn send(
    seed: u64,
    events: u64,
    layout: impl Fn(&mut Rng) -> Layout,
    mut judge: impl FnMut(&Hostile, &Layout, &[Vec<u8>]),
) {
    let mut rng = Rng::new(seed);
    let framing = layout(&mut rng).framing;
    let mut peer = Deframer::new(strict(framing));
    let mut left = events;
    while left > 0 {
        let (mut batch, mut sent) = (Vec::new(), Vec::new());
        while left > 0 && batch.len() < 50_000 {
            let layout = layout(&mut rng);
            let hostile = Hostile::draw(&mut rng, layout.format);
            let begin = batch.len();
            encode(&hostile.event(), &layout, &mut batch).unwrap();
            let count = messages(&batch[begin..], framing).count();
            sent.push((hostile, layout, count));
            left -= 1;
        }
        let mut received = Vec::new();
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let most = *rng.pick(&[1, 10, 500, 20_000, 20_000]);
            let (piece, later) = rest.split_at((1 + rng.index(most)).min(rest.len()));
            rest = later;
            peer.push(piece);
            while let Some(message) = peer.next() {
                received.push(message.unwrap());
            }
        }
        assert!(peer.is_at_boundary());
        assert!(messages(&batch, framing).eq(received.iter().map(Vec::as_slice)));
        let mut received = &received[..];
        for (hostile, layout, count) in &sent {
            let (its, others) = received.split_at(*count);
            received = others;
            judge(hostile, layout, its);
        }
        assert!(received.is_empty());
    }
}

/// What the format makes of the event.
fn formatted(hostile: &Hostile, format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    format.encode(&hostile.event(), &mut out);
    out
}

/// Panics unless the header says what the event is.
fn check_header(hostile: &Hostile, message: &Message) {
    assert_eq!(message.pri >> 3, 13);
    assert!((2..=6).contains(&(message.pri & 7)));
    let named = |time: i64| {
        let time = DateTime::from_timestamp_millis(time)?;
        Some(time.to_rfc3339_opts(SecondsFormat::Millis, true)).filter(|text| text.len() == 24)
    };
    let time = hostile.time.filter(|time| *time >= -62_135_596_800_000).and_then(named);
    assert_eq!(message.time, time.or_else(|| named(hostile.received)));
    assert_eq!(message.hostname.as_deref(), Some("s__em_ferry"));
    assert_eq!(message.app_name.as_deref(), Some("siemferry"));
    assert_eq!(message.procid, None);
    let event_type = hostile.event_type.as_deref().unwrap_or_default();
    let msgid: String = event_type
        .bytes()
        .map(|byte| if (33..127).contains(&byte) { char::from(byte) } else { '_' })
        .take(32)
        .collect();
    assert_eq!(
        message.msgid.as_deref().unwrap_or("-"),
        if msgid.is_empty() { "-" } else { &msgid }
    );
    assert_eq!(message.data.len(), 1);
    let uid = hostile.uid.to_string();
    assert_eq!(message.parameter("siemferry@32473", "uid"), Some(&*uid));
    assert_eq!(message.parameter("siemferry@32473", "source"), Some(hostile.source));
}

/// Panics unless the text, which came as a line, says what was to be said.
fn check_line(text: &[u8], meant: &[u8]) {
    let text = std::str::from_utf8(text).unwrap();
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!text.contains(breaks), "{text:?}");
    if text.as_bytes() != meant {
        assert_eq!(
            hostile::unescaped(text),
            hostile::unescaped(std::str::from_utf8(meant).unwrap())
        );
    }
}

fn each_event_is_one_message(framing: Framing) {
    let random_format = |rng: &mut Rng| Layout {
        format: if rng.chance(1, 4) { Format::Raw } else { Format::Json },
        ..layout(framing)
    };
    let half = events().div_ceil(2);
    std::thread::scope(|scope| {
        for seed in [1, 2] {
            scope.spawn(move || {
                send(seed, half, random_format, |hostile, layout, received| {
                    let [message] = received else { panic!("{} messages", received.len()) };
                    let message = Message::parse(message).unwrap_or_else(|err| {
                        panic!("{err}: {}", String::from_utf8_lossy(message))
                    });
                    check_header(hostile, &message);
                    let (text, meant) = (message.msg.unwrap(), formatted(hostile, layout.format));
                    match framing {
                        Framing::OctetCounted => assert_eq!(text, meant),
                        Framing::Newline => check_line(&text, &meant),
                    }
                });
            });
        }
    });
}

#[test]
fn a_million_events_with_their_lengths_are_a_million_messages() {
    each_event_is_one_message(Framing::OctetCounted);
}

#[test]
fn a_million_events_as_lines_are_a_million_messages() {
    each_event_is_one_message(Framing::Newline);
}

#[test]
fn the_older_header_and_none_are_read_as_well() {
    for framing in [Framing::OctetCounted, Framing::Newline] {
        for header in [Header::Rfc3164, Header::None] {
            let layout = |_: &mut Rng| Layout { header, ..layout(framing) };
            send(3, SOME, layout, |hostile, layout, received| {
                let [message] = received else { panic!("{} messages", received.len()) };
                let text = if header == Header::None {
                    message.clone()
                } else {
                    let message = OldMessage::parse(message).unwrap();
                    assert_eq!(message.pri >> 3, 13);
                    assert_eq!((&*message.hostname, &*message.tag), ("s__em_ferry", "siemferry"));
                    message.msg
                };
                match framing {
                    Framing::OctetCounted => assert_eq!(text, formatted(hostile, layout.format)),
                    Framing::Newline => check_line(&text, &formatted(hostile, layout.format)),
                }
            });
        }
    }
}

#[test]
fn a_message_that_was_cut_fits_and_says_so() {
    let mut cut = 0;
    for framing in [Framing::OctetCounted, Framing::Newline] {
        let layout = |rng: &mut Rng| Layout {
            format: if rng.chance(1, 2) { Format::Raw } else { Format::Json },
            max_message: 600 + rng.index(200),
            oversize: Oversize::Truncate,
            ..layout(framing)
        };
        send(4, SOME, layout, |hostile, layout, received| {
            let [message] = received else { panic!("{} messages", received.len()) };
            assert!(message.len() <= layout.max_message);
            let message = Message::parse(message).unwrap();
            check_header(hostile, &message);
            let (text, meant) = (message.msg.clone().unwrap(), formatted(hostile, layout.format));
            let is_cut = message.parameter("siemferry@32473", "truncated") == Some("true");
            if layout.format == Format::Raw || hostile.source == "acme" {
                serde_json::from_slice::<IgnoredAny>(&text).unwrap();
            }
            if framing == Framing::Newline {
                check_line(&text, if is_cut { &text } else { &meant });
            } else if !is_cut {
                assert_eq!(text, meant);
            }
            assert_eq!(is_cut, text.ends_with(br#""truncated":true}}"#));
            cut += u64::from(is_cut);
        });
    }
    assert!((50..2 * SOME).contains(&cut), "{cut} were cut");
}

#[test]
fn the_parts_of_a_message_are_all_of_it() {
    let mut parts = 0;
    for framing in [Framing::OctetCounted, Framing::Newline] {
        let layout = |rng: &mut Rng| Layout {
            format: if rng.chance(1, 2) { Format::Raw } else { Format::Json },
            max_message: 300 + rng.index(300),
            oversize: Oversize::Split,
            ..layout(framing)
        };
        send(5, SOME, layout, |hostile, layout, received| {
            let mut text = Vec::new();
            for (index, message) in received.iter().enumerate() {
                assert!(message.len() <= layout.max_message);
                let message = Message::parse(message).unwrap();
                check_header(hostile, &message);
                let part = format!("{}/{}", index + 1, received.len());
                let expected = (received.len() > 1).then_some(&*part);
                assert_eq!(message.parameter("siemferry@32473", "part"), expected);
                text.extend(message.msg.unwrap());
            }
            match framing {
                Framing::OctetCounted => assert_eq!(text, formatted(hostile, layout.format)),
                Framing::Newline => check_line(&text, &formatted(hostile, layout.format)),
            }
            parts += received.len() as u64;
        });
    }
    assert!(parts > 11 * SOME / 5, "{parts} parts");
}
