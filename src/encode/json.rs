//! `format = "json"`: the record as received, with one member appended as its last.
//!
//! All of it is taken from the stored page, so that a line can be made again byte for byte. A record
//! that already has a member `siemferry` keeps it: ours is the last.

use std::io::Write as _;

use chrono::{DateTime, SecondsFormat};

use crate::event::{Event, Millis};

/// Appends the encoded event to `out`.
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    let body = event.raw.strip_suffix(b"}").unwrap_or(event.raw);
    out.extend_from_slice(body);
    if body != b"{" {
        out.push(b',');
    }
    let ours = write!(
        out,
        r#""siemferry":{{"uid":"{}","source":"{}","api":"{}","type":"#,
        event.uid, event.source, event.api
    );
    ours.expect("a vector takes all");
    match event.event_type {
        Some(event_type) => {
            serde_json::to_writer(&mut *out, event_type).expect("a vector takes all");
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"time\":");
    put_time(event.time, out);
    out.extend_from_slice(b",\"received\":");
    put_time(Some(event.received), out);
    write!(out, ",\"seq\":{}}}}}", event.seq).expect("a vector takes all");
}

fn put_time(time: Option<Millis>, out: &mut Vec<u8>) {
    match time.and_then(DateTime::from_timestamp_millis) {
        Some(time) => {
            let text = time.to_rfc3339_opts(SecondsFormat::Millis, true);
            write!(out, "\"{text}\"").expect("a vector takes all");
        }
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Uid;

    fn encoded(raw: &str, event_type: Option<&str>, time: Option<Millis>) -> String {
        let event = Event {
            seq: 42,
            uid: Uid([0xab; 16]),
            time,
            event_type,
            raw: raw.as_bytes(),
            source: "acme",
            api: "keeper",
            received: 1_767_323_045_000,
        };
        let mut out = Vec::new();
        encode(&event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_record_keeps_its_bytes_and_gains_one_member() {
        let line = encoded(r#"{"b":1,"a":"x"}"#, Some("login"), Some(1_767_323_045_678));

        assert_eq!(
            line,
            concat!(
                r#"{"b":1,"a":"x","siemferry":{"uid":"abababababababababababababababab","#,
                r#""source":"acme","api":"keeper","type":"login","#,
                r#""time":"2026-01-02T03:04:05.678Z","received":"2026-01-02T03:04:05.000Z","seq":42}}"#
            )
        );
    }

    #[test]
    fn what_the_record_does_not_say_is_null() {
        let line = encoded("{}", None, None);

        assert!(line.starts_with(r#"{"siemferry":{"uid":"#), "{line}");
        assert!(line.contains(r#""type":null,"time":null,"received":"#), "{line}");
    }

    #[test]
    fn a_member_of_our_name_stays_before_ours() {
        let line = encoded(r#"{"siemferry":"theirs"}"#, Some("a\"b\u{7}"), None);

        assert!(line.starts_with(r#"{"siemferry":"theirs","siemferry":{"#), "{line}");
        assert!(line.contains(r#""type":"a\"b\u0007""#), "{line}");
    }
}
