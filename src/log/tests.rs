use std::sync::{Arc, Mutex};

use tracing::{debug, error, info, info_span, warn};

use super::*;

fn logged(style: Style, level: Level, act: impl FnOnce()) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let write = move |line: &str| sink.lock().unwrap().push(line.to_owned());
    let layer = Lines { style, write }.with_filter(filter(level));
    tracing::subscriber::with_default(Registry::default().with(layer), act);
    lines.lock().unwrap().clone()
}

fn object(act: impl FnOnce()) -> Value {
    let lines = logged(Style::Json, Level::Trace, act);
    let [line] = lines.as_slice() else { panic!("not one line: {lines:?}") };
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    serde_json::from_str(line).unwrap()
}

fn in_pretty(colour: bool, act: impl FnOnce()) -> String {
    let lines = logged(Style::Pretty { colour }, Level::Trace, act);
    let [line] = lines.as_slice() else { panic!("not one line: {lines:?}") };
    line.trim_end_matches('\n')["12:03:04 ".len()..].to_owned()
}

#[test]
fn a_json_line_holds_the_fields_of_the_event_and_its_spans() {
    let line = object(|| {
        let outer = info_span!("poller", source = "acme", attempt = 1);
        let _outer = outer.enter();
        let inner = info_span!("page", window = tracing::field::Empty);
        inner.record("window", "w");
        let _inner = inner.enter();
        info!(attempt = 2, ok = true, ratio = 0.5, "Page committed.");
    });

    let time = line["timestamp"].as_str().unwrap();
    assert_eq!(time.len(), "2026-01-02T03:04:05.678Z".len());
    assert!(DateTime::parse_from_rfc3339(time).is_ok());
    assert_eq!(line["level"], "info");
    assert_eq!(line["message"], "Page committed.");
    assert_eq!(line["source"], "acme");
    assert_eq!(line["window"], "w");
    assert_eq!(line["attempt"], 2, "the event's field wins");
    assert_eq!(line["ok"], true);
    assert_eq!(line["ratio"], 0.5);
    assert_eq!(line.as_object().unwrap().len(), 8);
}

#[test]
fn a_json_line_holds_no_name_twice() {
    let line = object(|| {
        let span = info_span!("s", message = "outer");
        let _span = span.enter();
        info!(level = 7, timestamp = "t", "Said.");
    });

    assert_eq!(line["message"], "Said.");
    assert_eq!(line["level"], "info");
    assert_eq!(line["field.level"], 7);
    assert_eq!(line["field.timestamp"], "t");
    assert_eq!(line["field.message"], "outer");
}

#[test]
fn a_json_line_stays_one_line_and_valid_whatever_it_is_told() {
    let evil = "a\nb\"c\\ \u{1b}[31m \u{0} \u{2028} \u{202e}";

    let line = object(|| info!(evil, nan = f64::NAN, debug = ?evil, "Said."));

    assert_eq!(line["evil"], evil);
    assert_eq!(line["nan"], "NaN");
}

#[test]
fn an_error_is_logged_with_its_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("send batch")]
    struct Outer(#[source] std::fmt::Error);
    let failed: &(dyn std::error::Error + 'static) = &Outer(std::fmt::Error);

    let line = object(|| error!(error = failed, "Delivery failed."));

    let cause = std::fmt::Error.to_string();
    assert_eq!(line["error"], format!("send batch: {cause}"));
}

#[test]
fn a_pretty_line_is_short_and_escaped() {
    let line = in_pretty(false, || {
        let span = info_span!("poller", source = "acme");
        let _span = span.enter();
        info!(name = "a\x1b[2J\u{202e}\nb", events = 3, "Page committed.");
    });

    assert_eq!(line, "INFO  Page committed.  name=a\\u{1b}[2J\\u{202e}\\nb events=3 source=acme");
}

#[test]
fn colour_is_only_for_the_level() {
    let line = in_pretty(true, || warn!("Slow."));

    assert_eq!(line, "\x1b[33mWARN \x1b[0m Slow.");
}

#[test]
fn a_secret_never_reaches_a_line() {
    let token: crate::secret::Config = serde_json::from_str("\"log-canary-1\"").unwrap();
    token.read().unwrap();

    let line = object(|| info!(said = "no log-canary-1 here", "Said log-canary-1."));
    let pretty = in_pretty(false, || info!(said = "log-canary-1", "Said."));

    assert_eq!(line["said"], "no *** here");
    assert_eq!(line["message"], "Said ***.");
    assert_eq!(pretty, "INFO  Said.  said=***");
}

#[test]
fn only_our_own_lines_follow_the_level() {
    let say = || {
        debug!("own");
        info!(target: "hyper", "other");
        warn!(target: "hyper", "other");
        error!(target: "hyper", "other");
    };

    assert_eq!(logged(Style::Json, Level::Debug, say).len(), 3);
    assert_eq!(logged(Style::Json, Level::Info, say).len(), 2);
    assert_eq!(logged(Style::Json, Level::Error, say).len(), 1);
}

#[test]
fn a_line_has_the_fields_of_its_spans_at_every_level() {
    let lines = logged(Style::Json, Level::Error, || {
        let span = info_span!("poller", source = "acme");
        let _span = span.enter();
        error!("Blocked.");
    });

    assert!(lines[0].contains(r#""source":"acme""#), "{lines:?}");
}

#[test]
fn what_steers_a_terminal_is_escaped() {
    assert_eq!(escape("plain é 漢"), "plain é 漢");
    assert_eq!(
        escape("\x07\x7f\u{9b}\u{2029}\u{2066}\u{200f}\r\t"),
        "\\u{7}\\u{7f}\\u{9b}\\u{2029}\\u{2066}\\u{200f}\\r\\t"
    );
}

#[test]
fn a_cause_that_is_told_already_is_not_told_again() {
    let source = Arc::new(std::io::Error::other("no room"));
    let error = crate::store::Error::Io { doing: "open", path: "/a".into(), source };
    let error = anyhow::Error::from(error).context("start");

    assert_eq!(chain(error.as_ref()), "start: open `/a`: no room");
}

#[test]
fn a_json_line_steers_no_terminal() {
    let lines = logged(Style::Json, Level::Trace, || info!(text = "a\u{9b}31m\u{202e}\n", "Said."));

    assert!(lines[0].contains(r#""text":"a\u009b31m\u202e\n""#), "{}", lines[0]);
}
