//! An object of Splunk's HTTP Event Collector: the event, and what Splunk files it under.
//! (docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector)

use std::io::Write as _;

use super::Format;
use super::json::{civil, put_uid};
use crate::event::{Event, Millis};

/// What every object says of where it comes from; left to Splunk where it is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The index; unless set, the token's.
    pub index: Option<String>,
    /// The host; unless set, the address of whoever sends.
    pub host: Option<String>,
    /// The source; unless set, [`SOURCE`].
    pub source: Option<String>,
    /// The source type; unless set, that of the API, such as `keeper:audit`.
    pub sourcetype: Option<String>,
}

/// The source of every event.
pub const SOURCE: &str = "siemferry";

/// Appends the object to `out`; objects follow each other without anything in between.
pub fn encode(event: &Event<'_>, format: Format, labels: &Labels, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"time":"#);
    put_seconds(event.time.filter(|time| civil(*time).is_some()).unwrap_or(event.received), out);
    put_label("host", labels.host.as_deref(), out);
    put_label("source", Some(labels.source.as_deref().unwrap_or(SOURCE)), out);
    if let Some(sourcetype) = &labels.sourcetype {
        put_label("sourcetype", Some(sourcetype), out);
    } else {
        out.extend_from_slice(br#","sourcetype":""#);
        out.extend_from_slice(event.api.as_bytes());
        out.extend_from_slice(br#":audit""#);
    }
    put_label("index", labels.index.as_deref(), out);
    out.extend_from_slice(br#","event":"#);
    format.encode(event, out);
    out.extend_from_slice(br#","fields":{"uid":""#);
    put_uid(event.uid, out);
    out.extend_from_slice(br#""}}"#);
}

/// Seconds since the Unix epoch with three decimals.
fn put_seconds(time: Millis, out: &mut Vec<u8>) {
    let sign = if time < 0 { "-" } else { "" };
    let (seconds, millis) = (time.unsigned_abs() / 1000, time.unsigned_abs() % 1000);
    write!(out, "{sign}{seconds}.{millis:03}").expect("a vector takes all");
}

fn put_label(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
    let Some(value) = value else { return };
    write!(out, r#","{name}":"#).expect("a vector takes all");
    serde_json::to_writer(&mut *out, value).expect("a vector takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Uid;

    fn event(time: Option<Millis>) -> Event<'static> {
        Event {
            seq: 42,
            uid: Uid([0xab; 16]),
            time,
            event_type: Some("login"),
            raw: br#"{"a":1}"#,
            source: "acme",
            api: "keeper",
            received: 1_767_323_046_000,
        }
    }

    fn encoded(event: &Event<'_>, format: Format, labels: &Labels) -> String {
        let mut out = Vec::new();
        encode(event, format, labels, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_object_is_as_the_collector_expects_it() {
        let event = event(Some(1_767_323_045_678));

        assert_eq!(
            encoded(&event, Format::Raw, &Labels::default()),
            r#"{"time":1767323045.678,"source":"siemferry","sourcetype":"keeper:audit","event":{"a":1},"fields":{"uid":"abababababababababababababababab"}}"#
        );
        let labels = Labels {
            index: Some("security".into()),
            host: Some("log\"host".into()),
            source: Some("s".into()),
            sourcetype: Some("t".into()),
        };
        let text = encoded(&event, Format::Json, &labels);
        assert!(text.starts_with(
            r#"{"time":1767323045.678,"host":"log\"host","source":"s","sourcetype":"t","index":"security","event":{"a":1,"siemferry":{"uid":"ab"#
        ));
        let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(whole["event"]["siemferry"]["seq"], 42);
    }

    #[test]
    fn time_is_seconds_with_three_decimals() {
        for (time, expected) in [
            (Some(0), "0.000"),
            (Some(-1), "-0.001"),
            (Some(-1500), "-1.500"),
            (Some(1_767_323_045_007), "1767323045.007"),
            (None, "1767323046.000"),
            (Some(i64::MAX), "1767323046.000"),
        ] {
            let text = encoded(&event(time), Format::Raw, &Labels::default());

            assert!(text.starts_with(&format!(r#"{{"time":{expected},"#)), "{text}");
        }
    }
}
