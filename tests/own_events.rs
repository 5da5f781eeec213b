//! Our own events: each change of state arrives in every sink, once, and nothing about them does.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use siemferry::event::{Event, Uid};
use siemferry::sim::{Fault, Lie, SimEvent};
use siemferry::store::dead_letters::Refused;
use siemferry::store::{Config, Store, wall_clock};

use crate::inside::block_on;
use crate::rig::{Home, Sim, eventually, read};
use crate::told::{home_of, week_of};

const DAY: i64 = 86_400_000;

/// A home that tells of itself, and has all of a week to read.
fn given() -> (Sim, Home) {
    let sim = week_of(120);
    let home = home_of(&sim);
    home.edit("enabled = false", "enabled = true");
    (sim, home)
}

/// Our own events in a file, in their order.
fn told_in(path: &Path) -> Vec<Value> {
    let text = read(path);
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["siemferry"]["api"] == "siemferry").collect()
}

fn told(home: &Home) -> Vec<Value> {
    told_in(&home.file())
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

fn of_kind(home: &Home, kind: &str) -> Vec<Value> {
    told(home).into_iter().filter(|event| event["event"] == kind).collect()
}

/// Waits for the first event of a type; returns its own members without those that all have.
fn heard(home: &Home, kind: &str) -> Value {
    eventually(kind, || !of_kind(home, kind).is_empty());
    let mut event = of_kind(home, kind).remove(0);
    let members = event.as_object_mut().unwrap();
    for common in ["event", "time", "host", "version", "instance", "siemferry"] {
        assert!(members.remove(common).is_some(), "{common}");
    }
    event
}

/// Runs once, and expects no other of our events than that it did.
#[track_caller]
fn runs_once(home: &Home) {
    let before = told(home).len();
    home.run_once_well();
    assert_eq!(kinds(&told(home)[before..]), ["started", "stopped"]);
}

#[test]
fn a_single_run_tells_of_its_start_and_its_end_before_it_ends() {
    let (sim, home) = given();

    home.run_once_well();

    let events = told(&home);
    assert_eq!(kinds(&events), ["started", "stopped"]);
    assert_eq!(events[0]["last_run"], "none");
    assert_eq!(events[1]["reason"], "done");
    assert!(events[1]["ran_seconds"].is_u64());
    home.holds_all(&sim);
    // Nor does one of them wait.
    assert_eq!(home.status()["sinks"]["archive"]["pending"], 0);
    runs_once(&home);
    assert_eq!(told(&home)[2]["last_run"], "orderly");
}

#[test]
fn they_are_events_like_any_other_with_an_identity_of_their_own() {
    let (_sim, home) = given();

    runs_once(&home);
    runs_once(&home);

    let host = Command::new("uname").arg("-n").output().unwrap().stdout;
    let host = String::from_utf8(host).unwrap();
    let (mut uids, mut instances) = (HashSet::new(), HashSet::new());
    for event in told(&home) {
        let ours = &event["siemferry"];
        assert_eq!((&ours["source"], &ours["api"]), (&json!("siemferry"), &json!("siemferry")));
        assert_eq!((&ours["type"], &ours["time"]), (&event["event"], &event["time"]));
        assert_eq!(event["host"], host.trim_end());
        assert_eq!(event["version"], env!("CARGO_PKG_VERSION"));
        let time = event["time"].as_str().unwrap();
        let time = chrono::DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis();
        assert!((wall_clock() - time).abs() < DAY, "by this machine's clock");
        assert!(uids.insert(ours["uid"].as_str().unwrap().to_owned()), "{event}");
        instances.insert(event["instance"].as_str().unwrap().to_owned());
    }
    assert_eq!((uids.len(), instances.len()), (4, 1));
    // The source is none that is read.
    let status = home.status();
    assert_eq!(status["sources"].as_object().unwrap().len(), 1, "{status}");
    assert_eq!(status["sources"]["acme"]["events"], 120);
}

#[test]
fn they_can_be_switched_off() {
    let (sim, home) = given();
    home.edit("enabled = true", "enabled = false");
    sim.api.add(SimEvent::raw(sim.api.now() - DAY / 2, *b"[7]"));

    home.run_once_well();

    assert_eq!(told(&home), [json!(null); 0]);
    // What happened meanwhile is not told later.
    home.edit("enabled = false", "enabled = true");
    runs_once(&home);
}

#[test]
fn a_start_after_a_kill_says_so() {
    let (_sim, home) = given();
    let mut daemon = home.spawn();
    heard(&home, "started");

    daemon.kill();
    home.run_once_well();
    home.run_once_well();

    let runs = told(&home).into_iter().filter(|event| event["event"] == "started");
    let last_runs: Vec<_> = runs.map(|event| event["last_run"].clone()).collect();
    assert_eq!(last_runs, ["none", "interrupted", "orderly"]);
}

#[test]
fn a_daemon_that_is_stopped_tells_so_before_it_ends() {
    let (sim, home) = given();
    let mut daemon = home.spawn();
    eventually("all is read", || home.compare(&sim.api).is_exact());

    daemon.signal("TERM");
    assert!(daemon.wait().success());

    assert_eq!(kinds(&told(&home)), ["started", "stopped"]);
    assert_eq!(heard(&home, "stopped")["reason"], "asked");
}

#[test]
fn a_source_that_is_blocked_and_mended_is_told_of_twice() {
    let (sim, home) = given();
    sim.api.fault_when(|_| Some(Fault::status(401, "who are you?")));
    let mut daemon = home.spawn();

    let blocked = heard(&home, "source_blocked");

    assert_eq!(blocked["source"], "acme");
    assert!(blocked["error"].as_str().unwrap().contains("401"), "{blocked}");
    assert!(!blocked["hint"].as_str().unwrap().is_empty());
    sim.api.mend();
    // The next probe comes after half a minute.
    let unblocked = heard(&home, "source_unblocked");
    assert_eq!(unblocked["source"], "acme");
    assert!(unblocked["blocked_seconds"].is_u64());
    eventually("all is read", || home.compare(&sim.api).is_exact());
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    assert_eq!(
        kinds(&told(&home)),
        ["started", "source_blocked", "source_unblocked", "stopped"],
        "and of nothing else"
    );
}

#[test]
fn an_answer_that_breaks_the_contract_is_told_once() {
    let (sim, home) = given();
    sim.api.fault_when(|_| Some(Fault::Lie(Lie::NoToken)));
    let _daemon = home.spawn();

    let violation = heard(&home, "contract_violation");

    assert_eq!(violation["source"], "acme");
    assert!(violation["window"].as_str().unwrap().contains('/'), "{violation}");
    assert!(violation["error"].as_str().unwrap().contains("contract"), "{violation}");
    let asked = sim.api.requests();
    sim.wait_for_requests(asked + 2);
    sim.api.mend();
    eventually("all is read", || home.compare(&sim.api).is_exact());
    assert_eq!(of_kind(&home, "contract_violation").len(), 1);
}

#[test]
fn records_that_cannot_be_read_are_told_of_with_their_number() {
    let (sim, home) = given();
    let time = sim.api.now() - DAY / 2;
    sim.api.add_all((0..30).map(|n| SimEvent::raw(time, format!("[{n}]").as_bytes())));

    home.run_once_well();

    let events = of_kind(&home, "bad_record");
    let count: u64 = events.iter().map(|event| event["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 30, "none is forgotten");
    assert!(events.len() <= 2, "the first at once, the others together: {events:?}");
    let first = heard(&home, "bad_record");
    assert_eq!((&first["source"], &first["reason"]), (&json!("acme"), &json!("not an object")));
    let list = home.told(home.command(&["dead-letters", "list", "--json"])).stdout;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(first["dead_letter"], list["dead_letters"][0]["id"]);
    runs_once(&home);
}

fn event<'a>(source: &'a str, api: &'a str) -> Event<'a> {
    let (uid, raw) = (Uid([1; 16]), &b"{}"[..]);
    Event { seq: 1, uid, time: None, event_type: None, raw, source, api, received: 7 }
}

#[test]
fn dead_letters_are_counted_until_they_are_told_and_those_of_our_own_events_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dir: dir.path().join("state") };
    block_on(async {
        let open = || {
            let store = Store::open(&config).unwrap();
            store.announce_when(true);
            store
        };
        let store = open();
        let sink = store.register_sink("soc", false).await.unwrap().id;
        let bury = async |store: &Store, event, reason: &str| {
            store.bury(Refused::new(sink, &event, reason, 2)).await.unwrap()
        };
        bury(&store, event("siemferry", "siemferry"), "ours").await;

        let first = bury(&store, event("acme", "keeper"), "too red").await;
        let second = bury(&store, event("acme", "keeper"), "too blue").await;
        bury(&store, event("acme", "keeper"), "too green").await;
        store.close();
        drop(store);
        let store = open();
        store.announce_letters(wall_clock(), false).await;
        store.announce_letters(wall_clock() + 61_000, false).await;
        store.announce_letters(wall_clock() + 200_000, false).await;

        let mut found = Vec::new();
        let mut seq = 0;
        while let Some(page) = store.page_after(seq).await.unwrap() {
            let event: Value = serde_json::from_slice(page.first_after(seq).unwrap().raw).unwrap();
            found.push((event["count"].clone(), event["dead_letter"].clone()));
            assert_eq!((&event["event"], &event["sink"]), (&json!("dead_letter"), &json!("soc")));
            seq = page.last_seq();
        }
        assert_eq!(found, [(json!(1), json!(first)), (json!(2), json!(second))]);
    });
}

#[test]
fn a_source_that_falls_silent_is_told_of_once_and_so_is_its_next_event() {
    let (sim, home) = given();
    home.edit("resweep = [\"24h\"]", "resweep = [\"24h\"]\nsilence_after = \"90m\"");
    runs_once(&home);
    sim.api.advance(DAY);

    home.run_once_well();
    runs_once(&home);

    let silent = heard(&home, "source_silent");
    assert_eq!(silent["source"], "acme");
    assert!(silent["silent_seconds"].as_u64().unwrap() >= 86_000, "{silent}");
    sim.api.add(SimEvent::new(sim.api.now() - 1000, "login"));
    sim.api.advance(2000);
    home.run_once_well();
    runs_once(&home);
    let heard = heard(&home, "source_heard");
    assert_eq!(
        (&heard["source"], &heard["silent_since"]),
        (&json!("acme"), &silent["silent_since"])
    );
    assert_eq!(of_kind(&home, "source_silent").len(), 1);
    assert_eq!(of_kind(&home, "source_heard").len(), 1);
}

#[test]
fn silence_is_not_told_when_nobody_wants_to_know() {
    let (sim, home) = given();
    home.edit("resweep = [\"24h\"]", "resweep = [\"24h\"]\nsilence_after = \"0s\"");
    runs_once(&home);

    sim.api.advance(400 * DAY);

    runs_once(&home);
}

#[test]
fn a_server_that_sets_its_clock_is_told_of() {
    let (sim, home) = given();
    let _daemon = home.spawn();
    eventually("all is read", || home.compare(&sim.api).is_exact());

    sim.api.advance(3_600_000);

    let jumped = heard(&home, "clock_jumped");
    assert_eq!((&jumped["clock"], &jumped["source"]), (&json!("server"), &json!("acme")));
    let seconds = jumped["seconds"].as_i64().unwrap();
    assert!((3_500..=3_601).contains(&seconds), "{seconds}");
}

#[test]
fn a_machine_whose_clock_is_set_is_told_of() {
    let (sim, home) = given();
    home.write("clock", "+0\n");
    // Told by a file, which the command itself cannot; and no process between us and the daemon.
    let asked =
        Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let library = String::from_utf8(asked.unwrap().stdout).unwrap();
    let mut command = home.command(&["run"]);
    command.env("LD_PRELOAD", library.trim()).env("FAKETIME_TIMESTAMP_FILE", home.path("clock"));
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
    let _daemon = home.spawn_as(command);
    eventually("all is read", || home.compare(&sim.api).is_exact());

    home.write("clock", "-7200\n");

    let jumped = heard(&home, "clock_jumped");
    assert_eq!((&jumped["clock"], jumped.get("source")), (&json!("machine"), None));
    let seconds = jumped["seconds"].as_i64().unwrap();
    assert!((-7_260..=-7_140).contains(&seconds), "{seconds}");
}

#[test]
fn a_spool_that_fills_is_told_of_and_so_is_its_draining() {
    let (sim, home) = given();
    // Nothing can be appended to a directory.
    let stuck = home.path("stuck.ndjson");
    std::fs::create_dir(&stuck).unwrap();
    let config = std::fs::read_to_string(home.config()).unwrap();
    let sink = format!("[sinks.stuck.file]\npath = \"{}\"\n", stuck.display());
    home.write("siemferry.toml", &format!("[spool]\nmax_bytes = \"4KiB\"\n{config}{sink}"));
    let daemon = home.spawn();

    let filling = heard(&home, "spool_filling");

    assert_eq!(filling["max_bytes"], 4096);
    let full = || of_kind(&home, "spool_filling").into_iter().find(|e| e["polling"] == "paused");
    eventually("polling pauses", || full().is_some());
    assert!(full().unwrap()["error"].as_str().unwrap().contains("spool.max_bytes"));
    std::fs::remove_dir(&stuck).unwrap();
    // Whoever asks for that has mended something.
    daemon.signal("HUP");
    let draining = heard(&home, "spool_draining");
    assert!(draining["waiting_bytes"].as_u64().unwrap() < 2048, "{draining}");
    eventually("all is read", || home.compare(&sim.api).is_exact());
    assert!(of_kind(&home, "spool_filling").len() <= 2 * of_kind(&home, "spool_draining").len());
    // And the other sink has what it missed.
    eventually("both have the same", || !told_in(&stuck).is_empty());
    assert_eq!(told_in(&stuck)[0]["event"], "started");
}

#[test]
fn a_route_holds_them_back_only_by_name() {
    let (sim, home) = given();
    home.edit(
        "[sinks.archive.file]",
        "[sinks.archive.file]\nroute = { sources = [], include = [] }",
    );
    home.run_once_well();
    assert_eq!(kinds(&told(&home)), ["started", "stopped"]);
    assert_eq!(home.lines().len(), 2, "and nothing of the source");

    home.edit("include = []", "include = [], exclude = [\"start*\"]");
    home.run_once_well();

    assert_eq!(kinds(&told(&home)), ["started", "stopped", "stopped"]);
    drop(sim);
}

#[test]
fn a_sink_that_is_blocked_and_mended_is_told_of_through_the_others() {
    let (sim, home) = given();
    // Nothing can be appended to a directory.
    let stuck = home.path("stuck.ndjson");
    std::fs::create_dir(&stuck).unwrap();
    let config = std::fs::read_to_string(home.config()).unwrap();
    let sink = format!("[sinks.stuck.file]\npath = \"{}\"\n", stuck.display());
    home.write("siemferry.toml", &(config + &sink));
    let mut daemon = home.spawn();

    let blocked = heard(&home, "sink_blocked");

    assert_eq!(blocked["sink"], "stuck");
    assert!(blocked["error"].as_str().unwrap().contains("directory"), "{blocked}");
    std::fs::remove_dir(&stuck).unwrap();
    daemon.signal("HUP");
    let unblocked = heard(&home, "sink_unblocked");
    assert_eq!(unblocked["sink"], "stuck");
    assert!(unblocked["blocked_seconds"].is_u64());
    eventually("all is read", || home.compare(&sim.api).is_exact());
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    let expected = ["started", "sink_blocked", "sink_unblocked", "stopped"];
    assert_eq!(kinds(&told(&home)), expected);
    assert_eq!(kinds(&told_in(&stuck)), expected, "and it has all of it itself");
}

#[test]
fn kills_lose_and_double_none_of_them() {
    let (sim, home) = given();
    let mut random = siemferry::sim::Rng::new(5);
    for _ in 0..15 {
        let asked = sim.api.requests();
        let mut daemon = home.spawn();
        sim.wait_for_requests(asked + 1 + random.below(8));
        daemon.kill();
    }

    home.run_once_well();

    let events = told(&home);
    let uids: HashSet<_> =
        events.iter().map(|event| event["siemferry"]["uid"].to_string()).collect();
    assert_eq!(uids.len(), events.len());
    // Each was begun before it asked for anything, and none but the last has ended.
    assert_eq!(of_kind(&home, "started").len(), 16);
    assert_eq!(of_kind(&home, "stopped").len(), 1);
    home.holds_all(&sim);
}
