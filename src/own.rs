//! Our own events: what a SIEM should hear of the one who feeds it.
//!
//! Each is a flat JSON record like any other, of the source and API `siemferry`; its type is its
//! member `event`. What they quote is rid of secrets and cut to a bounded length. They are made here
//! and kept by the store; nothing that befalls them makes another.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::event::{Millis, Seq, Uid};
use crate::{secret, sys};

/// The longest text that is quoted, in bytes.
const LONGEST_TEXT: usize = 1024;

/// `[own_events]`: what siemferry tells of itself, through every sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it tells anything.
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// One event of our own, before the store has given it a number.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnEvent {
    kind: &'static str,
    time: Millis,
    members: Vec<(&'static str, Value)>,
}

impl OwnEvent {
    /// One that happens now, by this machine's clock.
    fn new(kind: &'static str) -> Self {
        Self { kind, time: Utc::now().timestamp_millis(), members: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// With a text from elsewhere.
    fn quoting(self, name: &'static str, text: &str) -> Self {
        self.with(name, bounded(&secret::redact(text)))
    }

    fn hinting(self, hint: Option<&str>) -> Self {
        match hint {
            Some(hint) => self.quoting("hint", hint),
            None => self,
        }
    }

    /// Its type, such as `sink_blocked`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// When it happened.
    pub fn time(&self) -> Millis {
        self.time
    }

    /// Its identity, as the event with this number of the store with this id.
    pub fn uid(instance: &str, seq: Seq) -> Uid {
        let hash = Sha256::new()
            .chain_update(b"own event\0")
            .chain_update(instance)
            .chain_update(seq.to_le_bytes())
            .finalize();
        let mut uid = [0; 16];
        uid.copy_from_slice(&hash[..16]);
        Uid(uid)
    }

    /// The record, as told by the store with this id.
    pub fn record(&self, instance: &str) -> Vec<u8> {
        let about = [
            ("event", json!(self.kind)),
            ("time", rfc3339(self.time).into()),
            ("host", json!(sys::host_name())),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("instance", json!(instance)),
        ];
        let mut out = Vec::new();
        for (name, value) in about.iter().chain(&self.members) {
            out.push(if out.is_empty() { b'{' } else { b',' });
            out.extend_from_slice(format!("\"{name}\":{value}").as_bytes());
        }
        out.push(b'}');
        out
    }
}

/// How the run before has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastRun {
    /// There was none.
    None,
    /// It stopped in order.
    Orderly,
    /// It was killed, or the machine went down.
    Interrupted,
}

impl LastRun {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Orderly => "orderly",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The daemon has started.
pub fn started(last_run: LastRun) -> OwnEvent {
    OwnEvent::new("started").with("last_run", last_run.name())
}

/// The daemon stops, or a single run has read everything: `reason` is `asked`, `done`, `waiting` or
/// `failed`.
pub fn stopped(reason: &'static str, ran: Duration, error: Option<&str>) -> OwnEvent {
    let event = OwnEvent::new("stopped").with("reason", reason).with("ran_seconds", ran.as_secs());
    match error {
        Some(error) => event.quoting("error", error),
        None => event,
    }
}

/// A source cannot go on until somebody acts.
pub fn source_blocked(source: &str, error: &str, hint: Option<&str>) -> OwnEvent {
    OwnEvent::new("source_blocked").with("source", source).quoting("error", error).hinting(hint)
}

/// It goes on, and was blocked for so long.
pub fn source_unblocked(source: &str, lasted: Duration) -> OwnEvent {
    OwnEvent::new("source_unblocked")
        .with("source", source)
        .with("blocked_seconds", lasted.as_secs())
}

/// A sink cannot go on until somebody acts.
pub fn sink_blocked(sink: &str, error: &str, hint: Option<&str>) -> OwnEvent {
    OwnEvent::new("sink_blocked").with("sink", sink).quoting("error", error).hinting(hint)
}

/// It goes on, and was blocked for so long.
pub fn sink_unblocked(sink: &str, lasted: Duration) -> OwnEvent {
    OwnEvent::new("sink_unblocked").with("sink", sink).with("blocked_seconds", lasted.as_secs())
}

/// Dead letters of which no event has told yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letters<'a> {
    /// How many they are.
    pub count: u64,
    /// The number of the first.
    pub id: i64,
    /// What is wrong with the first.
    pub reason: &'a str,
}

/// A sink refuses events for good.
pub fn dead_letter(sink: &str, letters: Letters<'_>) -> OwnEvent {
    OwnEvent::new("dead_letter").with("sink", sink).of_letters(letters)
}

/// A source has given records that cannot be read.
pub fn bad_record(source: &str, letters: Letters<'_>) -> OwnEvent {
    OwnEvent::new("bad_record").with("source", source).of_letters(letters)
}

impl OwnEvent {
    fn of_letters(self, letters: Letters<'_>) -> Self {
        let Letters { count, id, reason } = letters;
        self.with("count", count).with("dead_letter", id).quoting("reason", reason)
    }
}

/// Nothing new has come from a source for so long, though it can be read.
pub fn source_silent(source: &str, since: Millis, now: Millis) -> OwnEvent {
    OwnEvent::new("source_silent")
        .with("source", source)
        .with("silent_since", rfc3339(since))
        .with("silent_seconds", (now - since).max(0) / 1000)
}

/// Something has come again.
pub fn source_heard(source: &str, since: Millis, now: Millis) -> OwnEvent {
    OwnEvent { kind: "source_heard", ..source_silent(source, since, now) }
}

/// This machine's clock was set.
pub fn machine_clock_jumped(by: Millis) -> OwnEvent {
    OwnEvent::new("clock_jumped").with("clock", "machine").with("seconds", by / 1000)
}

/// The clock of an API's server was set.
pub fn server_clock_jumped(source: &str, by: Millis) -> OwnEvent {
    OwnEvent::new("clock_jumped")
        .with("clock", "server")
        .with("source", source)
        .with("seconds", by / 1000)
}

/// The spool or the disk below it has little room left; `paused` says why polling pauses already.
pub fn spool_filling(waiting: u64, max_bytes: u64, paused: Option<(&str, &str)>) -> OwnEvent {
    let event = OwnEvent::new("spool_filling")
        .with("waiting_bytes", waiting)
        .with("max_bytes", max_bytes)
        .with("polling", if paused.is_some() { "paused" } else { "goes on" });
    match paused {
        Some((error, hint)) => event.quoting("error", error).hinting(Some(hint)),
        None => event,
    }
}

/// There is room again.
pub fn spool_draining(waiting: u64, max_bytes: u64) -> OwnEvent {
    OwnEvent::new("spool_draining").with("waiting_bytes", waiting).with("max_bytes", max_bytes)
}

/// An API does not keep to its contract; the window is asked for again.
pub fn contract_violation(source: &str, window: &str, error: &str) -> OwnEvent {
    of_window("contract_violation", source, window, error)
}

/// A window cannot be read, however small it is made; it is asked for again.
pub fn window_unreadable(source: &str, window: &str, error: &str) -> OwnEvent {
    of_window("window_unreadable", source, window, error)
}

fn of_window(kind: &'static str, source: &str, window: &str, error: &str) -> OwnEvent {
    OwnEvent::new(kind).with("source", source).with("window", window).quoting("error", error)
}

/// What `siemferry send-test` sends.
pub fn test(sink: &str) -> OwnEvent {
    OwnEvent::new("test").with("sink", sink).with("user_id", sys::effective_user())
}

fn rfc3339(millis: Millis) -> String {
    let time = DateTime::from_timestamp_millis(millis).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn bounded(text: &str) -> String {
    if text.len() <= LONGEST_TEXT {
        return text.to_owned();
    }
    let most = LONGEST_TEXT - '…'.len_utf8();
    let ends = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= most);
    format!("{}…", &text[..ends.last().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(event: &OwnEvent) -> Value {
        serde_json::from_slice(&event.record("cafe")).unwrap()
    }

    #[test]
    fn a_record_is_flat_and_tells_who_where_and_when() {
        let event = OwnEvent {
            time: 1_767_323_045_678,
            ..sink_blocked("soc", "401 \"no\"\n", Some("a new token"))
        };

        let host = serde_json::to_string(&sys::host_name()).unwrap();
        let expected = format!(
            concat!(
                r#"{{"event":"sink_blocked","time":"2026-01-02T03:04:05.678Z","host":{},"#,
                r#""version":"{}","instance":"cafe","sink":"soc","error":"401 \"no\"\n","#,
                r#""hint":"a new token"}}"#
            ),
            host,
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(String::from_utf8(event.record("cafe")).unwrap(), expected);
        assert!(!sys::host_name().is_empty());
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let long = "é".repeat(4000);

        let event = told(&sink_blocked("soc", &long, None));

        let error = event["error"].as_str().unwrap();
        assert!(error.len() <= LONGEST_TEXT && error.len() > LONGEST_TEXT - 4);
        assert!(error.ends_with("é…"));
        assert_eq!(event.get("hint"), None);
    }

    #[test]
    fn an_identity_belongs_to_one_event_of_one_store() {
        let uid = OwnEvent::uid("cafe", 7);

        assert_eq!(uid, OwnEvent::uid("cafe", 7));
        assert_ne!(uid, OwnEvent::uid("cafe", 8));
        assert_ne!(uid, OwnEvent::uid("beef", 7));
    }
}
