//! `siemferry replay`: what is still kept goes to one sink again, and to no other.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::rig::{Home, Sim, eventually, read};
use crate::told::{Told, home_of, week_of};

const DAY: i64 = 86_400_000;

/// Two sinks that have had a week of events.
fn given() -> (Sim, Home) {
    let sim = week_of(300);
    let home = home_of(&sim);
    let config = std::fs::read_to_string(home.config()).unwrap();
    let other = home.path("other.ndjson");
    let sink = format!("[sinks.other.file]\npath = \"{}\"\n", other.display());
    home.write("siemferry.toml", &(config + &sink));
    home.delivers_all(&sim);
    (sim, home)
}

fn replay(home: &Home, arguments: &[&str]) -> Told {
    home.told(home.command(&[&["replay"], arguments].concat()))
}

fn parsed(path: &Path) -> Vec<Value> {
    read(path).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn time_of(line: &Value) -> i64 {
    let time = line["siemferry"]["time"].as_str().unwrap();
    chrono::DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis()
}

fn at(millis: i64) -> String {
    chrono::DateTime::from_timestamp(millis.div_euclid(1000), 0).unwrap().to_rfc3339()
}

/// A line without its number, which alone differs.
fn unnumbered(line: &Value) -> String {
    let mut line = line.clone();
    line["siemferry"].as_object_mut().unwrap().remove("seq").unwrap();
    line.to_string()
}

fn copies(lines: &[Value]) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for line in lines {
        *found.entry(unnumbered(line)).or_default() += 1;
    }
    found
}

#[test]
fn a_span_is_sent_again_to_that_sink_alone_with_the_same_uids() {
    let (sim, home) = given();
    let before = parsed(&home.file());
    let times: Vec<i64> = before.iter().map(time_of).collect();
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    // On whole seconds, and both ends inside.
    let (from, to) = (least + (most - least) / 4, most - (most - least) / 4);
    let (from, to) = (from / 1000 * 1000, to / 1000 * 1000);
    let inside = |time: i64| from <= time && time < to;
    let wanted = times.iter().filter(|time| inside(**time)).count();
    assert!(wanted > 20 && wanted < before.len() - 20);

    let told = replay(&home, &["--sink", "archive", "--from", &at(from), "--to", &at(to)]);

    assert_eq!((told.code, told.said.as_str()), (Some(0), ""));
    assert!(told.stdout.starts_with(&format!("{wanted} events from ")), "{}", told.stdout);
    assert!(told.stdout.contains("the next `run` delivers them"), "{}", told.stdout);
    home.run_once_well();
    let after = parsed(&home.file());
    assert_eq!(after[..before.len()], before[..]);
    let mut expected = copies(&before);
    for line in before.iter().filter(|line| inside(time_of(line))) {
        *expected.get_mut(&unnumbered(line)).unwrap() += 1;
    }
    assert!(copies(&after) == expected);
    let report =
        siemferry::sim::oracle::compare(&sim.api.truth(), read(&home.path("other.ndjson")).lines());
    assert!(report.is_exact(), "the other sink has nothing twice: {report}");
}

#[test]
fn a_running_daemon_delivers_it_at_once_and_reads_on() {
    let (sim, home) = given();
    let count = home.lines().len();
    let _daemon = home.spawn();
    let asked = sim.api.requests();
    sim.wait_for_requests(asked + 1);

    let told = replay(&home, &["--sink", "archive", "--from", "3650d"]);

    assert_eq!((told.code, told.said.as_str()), (Some(0), ""));
    assert!(told.stdout.contains("the daemon delivers them"), "{}", told.stdout);
    assert!(told.stdout.contains("; kept since "), "{}", told.stdout);
    eventually("all is there again", || home.lines().len() == 2 * count);
    let uids = parsed(&home.file()).into_iter().map(|line| line["siemferry"]["uid"].to_string());
    let mut found: HashMap<String, usize> = HashMap::new();
    uids.for_each(|uid| *found.entry(uid).or_default() += 1);
    assert!(found.len() == count && found.values().all(|times| *times == 2));
    assert_eq!(parsed(&home.path("other.ndjson")).len(), count);
    // What was sent again is no event that is kept: asked again, it is as many.
    let again = replay(&home, &["--sink", "archive", "--from", "3650d"]);
    assert!(again.stdout.starts_with(&format!("{count} events ")), "{}", again.stdout);
    eventually("all is there a third time", || home.lines().len() == 3 * count);
}

#[test]
fn what_the_sink_has_not_had_yet_is_not_sent_twice() {
    let sim = week_of(120);
    let home = home_of(&sim);
    // The file cannot be made: nothing is settled.
    std::fs::create_dir(home.file()).unwrap();
    home.impatient();

    let told = replay(&home, &["--sink", "archive", "--from", "3650d"]);

    let hint = "hint: the spool keeps what is delivered for `spool.keep`, if there is room; `siemferry backfill start --again` reads the API again\n";
    assert!(told.said.ends_with(hint), "{}", told.said);
    assert!(told.said.starts_with("error: send events to sink `archive` again: nothing is found"));
    assert_eq!(told.code, Some(1));
    std::fs::remove_dir(home.file()).unwrap();
    home.delivers_all(&sim);
}

#[test]
fn the_source_may_be_named_and_our_own_events_only_by_name() {
    let sim = week_of(60);
    let home = home_of(&sim);
    home.edit("enabled = false", "enabled = true");
    home.run_once_well();
    let count = home.lines().len();
    assert_eq!(count, 62);

    let all = replay(&home, &["--sink", "archive", "--from", "3650d"]);
    let named = replay(&home, &["--sink", "archive", "--from", "3650d", "--source", "acme"]);
    let ours = replay(&home, &["--sink", "archive", "--from", "3650d", "--source", "siemferry"]);
    let none = replay(&home, &["--sink", "archive", "--from", "3650d", "--source", "nobody"]);

    assert!(all.stdout.starts_with("60 events "), "{}", all.stdout);
    assert!(named.stdout.starts_with("60 events "), "{}", named.stdout);
    assert!(ours.stdout.starts_with("2 events "), "{}", ours.stdout);
    assert_eq!(none.code, Some(1));
    home.run_once_well();
    assert_eq!(home.lines().len(), count + 60 + 60 + 2 + 2);
}

#[test]
fn what_cannot_be_asked_for_is_refused_with_what_to_do() {
    let (_sim, home) = given();
    let lines = home.lines();

    replay(&home, &["--sink", "archvie", "--from", "1d"]).is(
        2,
        "error: find sink `archvie`: there is none of this name\nhint: the sinks are `archive`, `other`\n",
    );
    replay(&home, &["--sink", "archive", "--from", "2026-01-02", "--to", "2026-01-02"]).is(
        2,
        "error: send events again: the span from 2026-01-02T00:00:00Z holds nothing\nhint: `--from` must be before `--to`\n",
    );
    let future = at(chrono::Utc::now().timestamp_millis() + 400 * DAY);
    let told = replay(&home, &["--sink", "archive", "--from", &future]);
    assert_eq!(told.code, Some(1), "{told:?}");
    home.edit("[sinks.other.file]", "[sinks.third.file]\npath = \"HOME\"\n[sinks.other.file]");
    replay(&home, &["--sink", "third", "--from", "3650d"]).is(
        1,
        "error: send events again: find sink `third`: the store does not know it\nhint: it knows `archive`, `other`\n",
    );
    assert_eq!(home.lines(), lines);
}

#[test]
fn more_than_the_spool_may_hold_is_refused_whole() {
    let (_sim, home) = given();
    let events = home.status()["spool"]["events"].clone();
    let config = std::fs::read_to_string(home.config()).unwrap();
    home.write("siemferry.toml", &format!("[spool]\nmax_bytes = \"1KiB\"\n{config}"));

    let told = replay(&home, &["--sink", "archive", "--from", "3650d"]);

    assert_eq!(told.code, Some(1));
    assert!(told.said.starts_with("error: send 300 events again: they take "), "{}", told.said);
    assert!(told.said.contains("of `spool.max_bytes` (1KiB)\nhint: name a shorter span"));
    assert_eq!(home.status()["spool"]["events"], events);
}

#[test]
fn without_a_store_there_is_nothing_to_send() {
    let sim = week_of(1);
    let home = home_of(&sim);

    let told = replay(&home, &["--sink", "archive", "--from", "1d"]);

    assert_eq!(told.code, Some(1));
    assert!(told.said.ends_with("hint: start `siemferry run` with this configuration first\n"));
}

#[test]
fn a_replay_that_is_killed_has_added_a_part_and_may_be_asked_again() {
    let sim = week_of(5000);
    let home = home_of(&sim);
    home.delivers_all(&sim);
    let kept = || home.status()["spool"]["events"].as_u64().unwrap();
    let before = kept();
    let mut process =
        home.spawn_as(home.command(&["replay", "--sink", "archive", "--from", "3650d"]));
    eventually("something is added", || kept() > before || process.has_ended());
    process.kill();
    let added = kept() - before;
    assert!(added > 0 && added <= 5000, "{added}");

    home.run_once_well();

    let lines = parsed(&home.file());
    assert_eq!(lines.len() as u64, 5000 + added);
    assert!(copies(&lines).values().all(|times| *times <= 2));
    let again = replay(&home, &["--sink", "archive", "--from", "3650d"]);
    assert!(again.stdout.starts_with("5000 events "), "{again:?}");
    home.run_once_well();
    let lines = parsed(&home.file());
    assert_eq!(lines.len() as u64, 2 * 5000 + added);
    let all = copies(&lines);
    assert!(all.len() == 5000 && all.values().all(|times| (2..=3).contains(times)));
}

#[test]
fn a_daemon_that_reads_and_delivers_is_not_held_up_by_a_replay() {
    let sim = week_of(5000);
    let home = home_of(&sim);
    home.delivers_all(&sim);
    let _daemon = home.spawn();
    let asked = sim.api.requests();
    sim.wait_for_requests(asked + 1);

    let told = replay(&home, &["--sink", "archive", "--from", "3650d"]);
    sim.api.add(siemferry::sim::SimEvent::new(sim.api.now() - 1000, "meanwhile"));
    sim.api.advance(2000);

    assert_eq!(told.code, Some(0), "{told:?}");
    eventually("all is there", || home.lines().len() == 2 * 5000 + 1);
    let status = home.status();
    assert_eq!(status["sinks"]["archive"]["last_error"], Value::Null, "{status}");
    assert_eq!(status["sources"]["acme"]["last_error"], Value::Null, "{status}");
}
