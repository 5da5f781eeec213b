//! `siemferry status`: what it shows before, beside and after a run, for programs and for people.

use std::fs;

use serde_json::{Value, json};
use siemferry::sim::Fault;

use crate::rig::{Home, Sim, eventually};
use crate::told::{home_of, week_of};

fn given(events: usize) -> (Sim, Home) {
    let sim = week_of(events);
    let home = home_of(&sim);
    (sim, home)
}

/// The values as types, so that a member more or less, or another type, is seen.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), shape(value))).collect()
        }
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(text) if chrono::DateTime::parse_from_rfc3339(text).is_ok() => "TIME".into(),
        Value::String(_) => "TEXT".into(),
        Value::Number(number) if number.is_u64() => "N".into(),
        other => other.clone(),
    }
}

fn source(home: &Home) -> Value {
    home.status()["sources"]["acme"].clone()
}

#[test]
fn a_status_has_the_members_that_are_documented() {
    let (sim, home) = given(120);
    home.edit("resweep = [\"24h\"]", "resweep = [\"1m\", \"90s\", \"24h\"]");
    home.delivers_all(&sim);

    let status = home.status();

    let sweep = json!({ "age": "TEXT", "watermark": "TIME" });
    let expected = json!({
        "sources": { "acme": {
            "state": "TEXT", "watermark": "TIME", "lag_seconds": "N",
            "sweeps": [sweep, sweep, sweep],
            "events": "N", "repeats": "N", "late": "N", "last_error": null,
        } },
        "sinks": { "archive": {
            "state": "TEXT", "settled_seq": "N", "pending": "N", "delivered": "N",
            "dead_letters": "N", "suspects": "N", "ambiguous": "N", "last_error": null,
        } },
        "spool": { "bytes": "N", "events": "N" },
    });
    assert_eq!(shape(&status), expected, "{status}");
    let ages: Vec<_> = status["sources"]["acme"]["sweeps"].as_array().unwrap().iter().collect();
    let ages: Vec<_> = ages.iter().map(|sweep| sweep["age"].as_str().unwrap()).collect();
    assert_eq!(ages, ["1m", "90s", "24h"]);
}

#[test]
fn after_a_run_everything_is_accounted_for() {
    let (sim, home) = given(300);
    home.delivers_all(&sim);

    let status = home.status();

    let (source, sink) = (&status["sources"]["acme"], &status["sinks"]["archive"]);
    assert_eq!(source["state"], "ok");
    assert_eq!(source["events"], 300);
    assert_eq!(sink["state"], "ok");
    assert_eq!(sink["settled_seq"], 300);
    assert_eq!(sink["delivered"], 300);
    for nothing in ["pending", "dead_letters", "suspects", "ambiguous"] {
        assert_eq!(sink[nothing], 0, "{nothing}");
    }
    assert_eq!(status["spool"]["events"], 300);
    let watermark = source["watermark"].as_str().unwrap();
    let watermark = chrono::DateTime::parse_from_rfc3339(watermark).unwrap().timestamp();
    // An answer tells its time in whole seconds, and was made a little before it came.
    let behind = sim.api.now().div_euclid(1000) - watermark;
    assert!((0..=2).contains(&behind), "{behind} s");
    // The server's clock stands still; ours has gone on since.
    assert!(source["lag_seconds"].as_i64().unwrap() < 60, "{source}");
}

#[test]
fn a_second_run_counts_what_it_reads_again() {
    let (sim, home) = given(300);
    home.delivers_all(&sim);
    let day = 86_400_000;
    let late = sim.api.now() - day / 2;
    sim.api.add(siemferry::sim::SimEvent::new(late, "login"));
    sim.api.add(siemferry::sim::SimEvent::new(sim.api.now() + 1000, "login"));
    sim.api.advance(2 * day);

    home.delivers_all(&sim);

    let source = source(&home);
    assert_eq!(source["events"], 302);
    assert_eq!(source["late"], 1, "{source}");
    assert!(source["repeats"].as_u64().unwrap() > 0, "{source}");
}

#[test]
fn before_any_run_there_is_nothing_to_show() {
    let (_sim, home) = given(1);

    for arguments in [&["status"][..], &["status", "--json"]] {
        let told = home.told(home.command(arguments));

        told.is(
            1,
            "error: read the store `HOME/state/siemferry.db`: No such file or directory (os error 2)\n\
             hint: start `siemferry run` with this configuration first\n",
        );
        assert_eq!(told.stdout, "");
    }
    assert!(!home.state().exists(), "to look makes nothing");
}

#[test]
fn a_status_beside_the_daemon_holds_it_up_in_nothing() {
    let (sim, home) = given(300);
    let mut daemon = home.spawn();

    eventually("the status tells of every event", || {
        let told = home.told(home.command(&["status", "--json"]));
        let status: Value = serde_json::from_str(&told.stdout).unwrap_or_default();
        status["sinks"]["archive"]["delivered"] == 300
    });

    home.holds_all(&sim);
    assert!(!daemon.has_ended());
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}

#[test]
fn a_blocked_source_is_shown_until_it_works_again() {
    let (sim, home) = given(120);
    sim.api.fault_when(|_| Some(Fault::status(401, "not you")));
    home.impatient();

    let blocked = source(&home);
    sim.api.mend();
    home.delivers_all(&sim);
    let mended = source(&home);

    assert_eq!(blocked["state"], "blocked");
    let error = "GET /api/rest/public/events: 401 Unauthorized: not you";
    assert_eq!(blocked["last_error"], error);
    assert_eq!(blocked["events"], 0);
    // The newest error stays to be read when it is over.
    assert_eq!((&mended["state"], &mended["last_error"]), (&json!("ok"), &json!(error)));
}

#[test]
fn a_retrying_source_is_shown_beside_the_daemon() {
    let (sim, home) = given(120);
    sim.api.fault_when(|_| Some(Fault::status(503, "later")));
    let _daemon = home.spawn();

    eventually("it retries", || home.source_error().is_some());

    let source = source(&home);
    assert_eq!(source["state"], "retrying");
    assert_eq!(source["last_error"], "GET /api/rest/public/events: 503 Service Unavailable: later");
}

#[test]
fn a_blocked_sink_is_shown_with_what_waits() {
    let (sim, home) = given(120);
    fs::create_dir(home.file()).unwrap();
    home.impatient();

    let blocked = home.status()["sinks"]["archive"].clone();
    fs::remove_dir(home.file()).unwrap();
    home.delivers_all(&sim);
    let mended = home.status()["sinks"]["archive"].clone();

    assert_eq!((&blocked["state"], &blocked["pending"]), (&json!("blocked"), &json!(120)));
    let error = blocked["last_error"].as_str().unwrap();
    assert!(error.ends_with("it is a directory, not a regular file"), "{error}");
    assert_eq!((&mended["state"], &mended["pending"]), (&json!("ok"), &json!(0)));
}

#[test]
fn people_are_shown_the_same_as_programs() {
    let (sim, home) = given(120);
    home.delivers_all(&sim);
    let status = home.status();
    let (source, sink) = (&status["sources"]["acme"], &status["sinks"]["archive"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();

    let told = home.told(home.command(&["status"]));

    // How far it is behind goes with the clock.
    let (before, behind) = told.stdout.split_once(" (").unwrap();
    assert_eq!(before, format!("source acme: ok, read up to {}", text(&source["watermark"])));
    let (_, behind) = behind.split_once(" s behind), ").unwrap();
    let expected = format!(
        "120 events, {} repeats, 0 late\n       \
         again after 24h: up to {}\n\
         sink   archive: ok, 120 delivered, 0 pending, 0 suspects, 0 dead letters, 0 ambiguous, settled up to 120\n\
         spool  {} bytes, 120 events\n",
        source["repeats"],
        text(&source["sweeps"][0]["watermark"]),
        status["spool"]["bytes"],
    );
    assert_eq!(behind, expected);
    assert_eq!(sink["settled_seq"], 120);
}

#[test]
fn an_error_steers_no_terminal() {
    let (sim, home) = given(1);
    let message = "{\"message\":\"a\\u001b[31mb\\r\\nsource acme: ok\\u009b\\u202e\"}";
    sim.api.fault_when(move |_| Some(Fault::status(401, message)));
    home.impatient();

    let told = home.told(home.command(&["status"]));

    let error = "       last error: GET /api/rest/public/events: 401 Unauthorized: \
                 a\\u{1b}[31mb\\r\\nsource acme: ok\\u{9b}\\u{202e}\n";
    assert!(told.stdout.contains(error), "{}", told.stdout);
    assert!(told.stdout.starts_with("source acme: blocked, "), "{}", told.stdout);
}
