//! `format = "json"`: the record as received, with one member appended as its last.
//!
//! All of it is taken from the stored page, so that a line can be made again byte for byte. A record
//! that already has a member `siemferry` keeps it: ours is the last.

use std::io::Write as _;

use chrono::{DateTime, Datelike, Timelike, Utc};

use super::digits::put_number;
use crate::event::{Event, Millis, Uid};

/// Appends the encoded event to `out`.
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    let body = event.raw.strip_suffix(b"}").unwrap_or(event.raw);
    out.extend_from_slice(body);
    if body != b"{" {
        out.push(b',');
    }
    put_member(event, Marks::default(), out);
    out.push(b'}');
}

/// What is said of a message that is not what it would be elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// The event was so old when it was read that the destination gives it another time.
    pub backfilled: bool,
    /// Its longest values were cut.
    pub truncated: bool,
}

/// Appends the member that is ours.
pub(super) fn put_member(event: &Event<'_>, marks: Marks, out: &mut Vec<u8>) {
    out.extend_from_slice(br#""siemferry":{"uid":""#);
    put_uid(event.uid, out);
    out.extend_from_slice(br#"","source":""#);
    out.extend_from_slice(event.source.as_bytes());
    out.extend_from_slice(br#"","api":""#);
    out.extend_from_slice(event.api.as_bytes());
    out.extend_from_slice(br#"","type":"#);
    match event.event_type {
        Some(event_type) => {
            serde_json::to_writer(&mut *out, event_type).expect("a vector takes all");
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","time":"#);
    put_time(event.time, out);
    out.extend_from_slice(br#","received":"#);
    put_time(Some(event.received), out);
    write!(out, r#","seq":{}"#, event.seq).expect("a vector takes all");
    marks.put(out);
    out.push(b'}');
}

impl Marks {
    /// True when there is something to say.
    pub(super) fn any(self) -> bool {
        self.backfilled || self.truncated
    }

    /// Appends a member for each that is set, a comma before it.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        for (is_set, member) in [
            (self.backfilled, &b",\"backfilled\":true"[..]),
            (self.truncated, b",\"truncated\":true"),
        ] {
            if is_set {
                out.extend_from_slice(member);
            }
        }
    }
}

/// Formatting by the standard library costs more than all the rest of a line.
pub(super) fn put_uid(uid: Uid, out: &mut Vec<u8>) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    for byte in uid.0 {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// RFC 3339 in UTC with milliseconds; null for none, and beyond the years of four digits.
pub(super) fn put_time(time: Option<Millis>, out: &mut Vec<u8>) {
    let Some(time) = time.and_then(civil) else {
        out.extend_from_slice(b"null");
        return;
    };
    out.push(b'"');
    put_civil(time, out);
    out.push(b'"');
}

/// The same without quotation marks.
pub(super) fn put_civil(time: DateTime<Utc>, out: &mut Vec<u8>) {
    put_number(time.year_ce().1, 4, out);
    let parts = [
        (b'-', time.month(), 2),
        (b'-', time.day(), 2),
        (b'T', time.hour(), 2),
        (b':', time.minute(), 2),
        (b':', time.second(), 2),
        (b'.', time.timestamp_subsec_millis(), 3),
    ];
    for (before, number, width) in parts {
        out.push(before);
        put_number(number, width, out);
    }
    out.push(b'Z');
}

/// The time of the calendar; none beyond the years of four digits.
pub(super) fn civil(time: Millis) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(time).filter(|time| (1..=9999).contains(&time.year()))
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

    proptest::proptest! {
        #[test]
        fn times_look_as_the_standard_has_them(millis in -62_135_596_800_000..253_402_300_800_000_i64) {
            let time = DateTime::from_timestamp_millis(millis).unwrap();
            let standard = time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let mut out = Vec::new();

            put_time(Some(millis), &mut out);

            proptest::prop_assert_eq!(out, format!("\"{standard}\"").into_bytes());
        }
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
