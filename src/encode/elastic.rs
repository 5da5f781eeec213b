//! Two lines of an Elasticsearch or OpenSearch bulk request: what to do, and the document.
//!
//! The document is the record as received with `@timestamp` and our member `siemferry` appended. A
//! document with one key twice is refused, so of these two the record keeps what it has, and gets
//! what it lacks. The record is never parsed; only one that may have such a key is looked through.

use std::sync::LazyLock;

use chrono::Datelike;
use memchr::memmem::Finder;

use super::Format;
use super::digits::put_number;
use super::json::{Marks, civil, put_member, put_time, put_uid};
use super::members::{members, unescaped};
use crate::event::{Event, Millis};

/// Stands in an index's name for the event's day.
pub const DATE: &str = "{date}";

/// The name of an index per day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daily {
    before: String,
    after: String,
}

impl Daily {
    /// The index whose name holds [`DATE`]; none when it does not.
    pub fn new(pattern: &str) -> Option<Self> {
        let (before, after) = pattern.split_once(DATE)?;
        Some(Self { before: before.to_owned(), after: after.to_owned() })
    }

    /// The index of that day.
    pub fn at(&self, time: Millis) -> String {
        let mut name = Vec::new();
        self.put(time, &mut name);
        String::from_utf8_lossy(&name).into_owned()
    }

    /// The day in UTC, as `YYYY.MM.DD`, between what stands before and behind it.
    fn put(&self, time: Millis, out: &mut Vec<u8>) {
        out.extend_from_slice(self.before.as_bytes());
        let day = civil(time).unwrap_or_default();
        put_number(day.year_ce().1, 4, out);
        out.push(b'.');
        put_number(day.month(), 2, out);
        out.push(b'.');
        put_number(day.day(), 2, out);
        out.extend_from_slice(self.after.as_bytes());
    }
}

/// Appends both lines to `out`. Where the request itself names the index, `daily` is none.
pub fn encode(event: &Event<'_>, format: Format, daily: Option<&Daily>, out: &mut Vec<u8>) {
    // A time beyond the years of four digits is none to the destination.
    let time = event.time.filter(|time| civil(*time).is_some()).unwrap_or(event.received);
    out.extend_from_slice(br#"{"create":{"_id":""#);
    put_uid(event.uid, out);
    if let Some(daily) = daily {
        out.extend_from_slice(br#"","_index":""#);
        daily.put(time, out);
    }
    out.extend_from_slice(b"\"}}\n");
    let body = event.raw.strip_suffix(b"}").unwrap_or(event.raw);
    out.extend_from_slice(body);
    let taken = Taken::by(event.raw);
    let mut comma: &[u8] = if body == b"{" { b"" } else { b"," };
    if !taken.timestamp {
        out.extend_from_slice(comma);
        out.extend_from_slice(br#""@timestamp":"#);
        put_time(Some(time), out);
        comma = b",";
    }
    if format == Format::Json && !taken.member {
        out.extend_from_slice(comma);
        put_member(event, Marks::default(), out);
    }
    out.extend_from_slice(b"}\n");
}

/// Which of our keys a record has itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    timestamp: bool,
    member: bool,
}

impl Taken {
    fn by(raw: &[u8]) -> Self {
        // Any letter of a key may be written as such an escape.
        static SIGNS: LazyLock<[Finder<'static>; 3]> =
            LazyLock::new(|| [&b"\"@timestamp\""[..], b"\"siemferry\"", b"\\u"].map(Finder::new));
        let may_be = SIGNS.iter().any(|sign| sign.find(raw).is_some());
        if may_be { Self::by_all_keys(raw) } else { Self::default() }
    }

    fn by_all_keys(raw: &[u8]) -> Self {
        let mut taken = Self::default();
        for (key, _) in members(raw) {
            match &*unescaped(key) {
                b"@timestamp" => taken.timestamp = true,
                b"siemferry" => taken.member = true,
                _ => {}
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::event::Uid;

    const OURS: &str = concat!(
        r#""siemferry":{"uid":"abababababababababababababababab","source":"acme","api":"keeper","#,
        r#""type":"login","time":"2026-01-02T23:59:59.678Z","#,
        r#""received":"2026-01-03T00:00:05.000Z","seq":42}"#
    );
    const STAMP: &str = r#""@timestamp":"2026-01-02T23:59:59.678Z""#;
    const ACTION: &str = "{\"create\":{\"_id\":\"abababababababababababababababab\"}}\n";

    fn event(raw: &str) -> Event<'_> {
        Event {
            seq: 42,
            uid: Uid([0xab; 16]),
            time: Some(1_767_398_399_678),
            event_type: Some("login"),
            raw: raw.as_bytes(),
            source: "acme",
            api: "keeper",
            received: 1_767_398_405_000,
        }
    }

    fn encoded(event: &Event<'_>, format: Format, daily: Option<&Daily>) -> String {
        let mut out = Vec::new();
        encode(event, format, daily, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn document(raw: &str) -> String {
        let lines = encoded(&event(raw), Format::Json, None);
        lines.strip_prefix(ACTION).unwrap().to_owned()
    }

    #[test]
    fn an_event_is_an_action_and_a_document() {
        assert_eq!(
            document(r#"{"b":1,"a":"x"}"#),
            format!("{{\"b\":1,\"a\":\"x\",{STAMP},{OURS}}}\n")
        );
        assert_eq!(document("{}"), format!("{{{STAMP},{OURS}}}\n"));
        assert_eq!(
            encoded(&event(r#"{"a":1}"#), Format::Raw, None),
            format!("{ACTION}{{\"a\":1,{STAMP}}}\n")
        );
    }

    #[test]
    fn an_index_per_day_is_that_of_the_event() {
        let daily = Daily::new("keeper-{date}-a").unwrap();
        let index = |event: &Event<'_>| {
            let lines = encoded(event, Format::Raw, Some(&daily));
            let action: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
            action["create"]["_index"].as_str().unwrap().to_owned()
        };
        let event = event("{}");

        assert_eq!(index(&event), "keeper-2026.01.02-a");
        assert_eq!(index(&Event { time: None, ..event }), "keeper-2026.01.03-a");
        assert_eq!(index(&Event { time: Some(i64::MAX), ..event }), "keeper-2026.01.03-a");
        assert_eq!(daily.at(0), "keeper-1970.01.01-a");
        assert_eq!(Daily::new("keeper"), None);
    }

    #[test]
    fn an_event_without_a_time_has_that_of_its_receipt() {
        for time in [None, Some(i64::MIN), Some(253_402_300_800_000)] {
            let lines = encoded(&Event { time, ..event("{}") }, Format::Raw, None);

            assert_eq!(lines, format!("{ACTION}{{\"@timestamp\":\"2026-01-03T00:00:05.000Z\"}}\n"));
        }
    }

    #[test]
    fn a_key_that_the_record_has_is_not_doubled() {
        for (raw, expected) in [
            (r#"{"@timestamp":"x"}"#, format!("{{\"@timestamp\":\"x\",{OURS}}}\n")),
            (r#"{"siemferry":[]}"#, format!("{{\"siemferry\":[],{STAMP}}}\n")),
            (r#"{"siemferry":1,"@timestamp":2}"#, "{\"siemferry\":1,\"@timestamp\":2}\n".into()),
            (
                r#"{"a":{"siemferry":1},"siemf\u0065rry":1}"#,
                format!("{{\"a\":{{\"siemferry\":1}},\"siemf\\u0065rry\":1,{STAMP}}}\n"),
            ),
        ] {
            assert_eq!(document(raw), expected);
        }
    }

    #[test]
    fn a_key_that_is_elsewhere_takes_nothing_away() {
        for raw in [
            r#"{"a":"@timestamp","b":"siemferry"}"#,
            r#"{"a":{"@timestamp":1},"b":[{"siemferry":1},"siemferry"]}"#,
            r#"{"a\"":"\"siemferry\":","\\":"x"}"#,
            r#"{"\ud800":"@timestamp","@timestamp2":1,"siemferry ":2}"#,
        ] {
            let body = raw.strip_suffix('}').unwrap();
            assert_eq!(document(raw), format!("{body},{STAMP},{OURS}}}\n"));
        }
    }

    /// A key, some of whose letters are escapes.
    fn key() -> impl Strategy<Value = (String, u16)> {
        let word = prop_oneof!["@timestamp", "siemferry", "[a-c\"\\\\\u{e9}]{0,3}", "@time"];
        (word, any::<u16>())
    }

    fn quoted(key: &str, escapes: u16) -> String {
        let mut text = String::from("\"");
        for (at, c) in key.chars().enumerate() {
            if escapes >> (at % 16) & 1 == 1 && escapes & 3 == 3 || "\"\\".contains(c) {
                write!(text, "\\u{:04x}", u32::from(c)).unwrap();
            } else {
                text.push(c);
            }
        }
        text + "\""
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\\u{e9}\n{}\\[\\],:]{0,6}".prop_map(Value::from),
            Just(Value::from("siemferry")),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("@timestamp|siemferry|[a-c]", inner, 0..3)
                    .prop_map(|map| Value::Object(Map::from_iter(map))),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_document_is_the_record_and_what_it_lacks(
            members in prop::collection::btree_map(key(), value(), 0..6)
        ) {
            let mut record = Map::new();
            let mut texts = Vec::new();
            for ((key, escapes), value) in members {
                if record.insert(key.clone(), value.clone()).is_none() {
                    texts.push(format!("{}:{value}", quoted(&key, escapes)));
                } else {
                    // The same key with other escapes: only the first of them counts here.
                    let first = texts.iter().find_map(|text| {
                        let whole: Map<String, Value> = serde_json::from_str(&format!("{{{text}}}")).unwrap();
                        whole.get(&key).cloned()
                    });
                    record.insert(key, first.unwrap());
                }
            }
            let raw = format!("{{{}}}", texts.join(","));

            let document = document(&raw);

            let body = raw.strip_suffix('}').unwrap();
            prop_assert!(document.starts_with(body));
            let parsed: Map<String, Value> = serde_json::from_str(&document).unwrap();
            let mut expected = record;
            let stamp = json!("2026-01-02T23:59:59.678Z");
            expected.entry("@timestamp").or_insert(stamp);
            let ours: Map<String, Value> = serde_json::from_str(&format!("{{{OURS}}}")).unwrap();
            expected.entry("siemferry").or_insert_with(|| ours["siemferry"].clone());
            prop_assert_eq!(&parsed, &expected);
            // No key of the document itself stands twice.
            prop_assert_eq!(super::members(document.trim_end().as_bytes()).count(), expected.len());
        }
    }
}
