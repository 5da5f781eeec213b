use std::collections::HashMap;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use siemferry::sim::{Fault, Rng, SimEvent};

use super::*;
use crate::inside::assert_exact;
use crate::rig::{TOKEN, eventually};

#[test]
fn what_no_sweep_could_find_arrives_beside_a_running_daemon() {
    let (sim, home) = missed(20, "poll_every = \"1h\"");
    // Idle for an hour: only what is asked of it wakes it.
    let _daemon = home.spawn();
    eventually("it runs", || home.logged("Started.") == 1);

    let told = start(&home, T, T + HOUR, &[]);

    told.is(0, "");
    let span = format!("{}/{}", rfc3339(T), rfc3339(T + HOUR));
    let said = format!("backfill 1 of source `acme`, {span}: the daemon begins at once\n");
    assert_eq!(told.stdout, said);
    eventually("it is done", || is(&home, 0, "done"));
    eventually("all is delivered", || home.lines().len() >= ON_TIME + TOO_LATE);
    assert_exact("a backfill", &home.compare(&sim.api));
    let known = number(&list(&home)[0], "repeats");
    assert!(known >= ON_TIME as u64, "all of the hour was read again: {known}");
    let expected = json!([{
        "id": 1, "source": "acme", "from": rfc3339(T), "to": rfc3339(T + HOUR), "state": "done",
        "position": rfc3339(T + HOUR), "events": TOO_LATE, "repeats": known,
    }]);
    assert_eq!(Value::from(list(&home)), expected);
    let told = ask(&home, &["list"]);
    let row = format!(
        "backfill 1 of source `acme`, {span}: done, 100 % read, 120 new events, {known} known\n"
    );
    assert_eq!(told.stdout, row);
}

#[test]
fn a_single_run_does_what_was_asked_before_it() {
    let (sim, home) = missed(20, "");

    let told = start(&home, T, T + HOUR, &[]);

    assert!(told.stdout.ends_with(": the next `run` does it\n"), "{}", told.stdout);
    assert!(is(&home, 0, "waiting"));
    home.run_once_well();
    assert_exact("a single run", &home.compare(&sim.api));
    assert!(is(&home, 0, "done"));
    let asked = sim.api.requests();
    home.run_once_well();
    assert!(sim.api.requests() < asked + 10, "it is not done a second time");
    assert_exact("another run", &home.compare(&sim.api));
}

#[test]
fn the_time_before_the_start_is_read_by_a_store_that_is_new() {
    let sim = sim(T + 2 * HOUR, 20);
    sim.api.add_all(an_hour());
    let home = home(&sim, T + HOUR / 2, "", "");

    // Nobody has run it yet.
    started(&home, T, T + HOUR / 2);
    home.run_once_well();

    assert_exact("before the start", &home.compare(&sim.api));
    let backfill = &list(&home)[0];
    assert_eq!((backfill["state"].as_str(), number(backfill, "events")), (Some("done"), 300));
}

#[test]
fn what_the_newest_events_are_still_to_come_to_needs_no_backfill() {
    let sim = sim(T + 2 * HOUR, 20);
    sim.api.add_all(an_hour());
    let home = home(&sim, T, "", "");
    started(&home, T, T + HOUR);

    home.run_once_well();

    assert_exact("a first run", &home.compare(&sim.api));
    let backfill = &list(&home)[0];
    assert_eq!((backfill["state"].as_str(), number(backfill, "repeats")), (Some("done"), 0));
}

#[test]
fn one_comes_after_the_other_and_what_both_span_is_not_doubled() {
    let (sim, home) = missed(20, "max_window = \"7m\"");
    started(&home, T, T + 40 * MINUTE - 30 * SECOND);
    started(&home, T + 20 * MINUTE - 30 * SECOND, T + HOUR);
    started(&home, T, T + HOUR);

    home.run_once_well();

    assert_exact("three", &home.compare(&sim.api));
    let events: Vec<u64> = list(&home).iter().map(|one| number(one, "events")).collect();
    assert_eq!(events, [80, 40, 0]);
    assert!((0..3).all(|at| is(&home, at, "done")));
}

#[test]
fn whatever_kills_come_it_goes_on_and_everything_is_there_once() {
    let (sim, home) = missed(5, "poll_every = \"1h\"\nmax_window = \"1h\"");
    started(&home, T, T + HOUR);
    let mut random = Rng::new(17);

    let (mut kills, mut known) = (0, 0);
    while !is(&home, 0, "done") {
        let asked = sim.api.requests();
        // Two at most are the head's, and two are on their way.
        let enough = asked + 8 + random.below(20);
        sim.api.fault_when(move |request| (request.number > enough).then_some(Fault::Hold));
        let mut daemon = home.spawn();
        eventually("it is busy or done", || sim.api.requests() > enough || is(&home, 0, "done"));
        daemon.kill();
        sim.api.mend();
        sim.api.release();
        let backfill = &list(&home)[0];
        let records = number(backfill, "events") + number(backfill, "repeats");
        assert!(records > known, "no progress beyond {known}: {backfill}");
        (kills, known) = (kills + 1, records);
    }
    home.run_once_well();

    println!("{kills} kills: {:?}", list(&home));
    assert!(kills >= 8, "{kills} kills");
    assert!(home.logged("Begins an interrupted window again.") > 0);
    assert_exact("killed", &home.compare(&sim.api));
    assert_eq!(number(&list(&home)[0], "events"), TOO_LATE as u64);
}

#[test]
fn sweeps_that_read_the_same_time_meanwhile_double_nothing() {
    let sim = sim(T + 10 * MINUTE, 20);
    let pairs = (0..1200).map(|n| {
        let time = T + n / 2 * 6 * SECOND;
        // Of a pair, one comes late at times, and still within reach of the last sweep.
        let late = if n % 2 == 1 { n % 9 * MINUTE } else { 0 };
        SimEvent::new(time, "login").visible_at(time + late)
    });
    sim.api.add_all(pairs);
    let clock = sim.api.clone();
    sim.api.fault_when(move |_| {
        clock.advance(2 * SECOND);
        None
    });
    let home = home(&sim, T, "poll_every = \"10ms\"\nmax_window = \"5m\"", "");
    let mut random = Rng::new(3);
    let now = rfc3339(T + 3 * DAY);
    let up_to_now = ["start", "--source", "acme", "--from", &rfc3339(T), "--to", &now];

    for _ in 0..12 {
        ask(&home, &up_to_now).is(0, "");
        let mut daemon = home.spawn();
        sim.wait_for_requests(sim.api.requests() + 40 + random.below(80));
        daemon.kill();
    }
    sim.api.mend();
    sim.api.set_now(T + 3 * HOUR);
    home.run_once_well();

    assert_exact("beside sweeps", &home.compare(&sim.api));
    assert!((0..12).all(|at| is(&home, at, "done")), "{:?}", list(&home));
}

#[test]
fn what_is_no_longer_remembered_comes_again_with_the_same_uid_and_only_when_that_is_agreed_to() {
    let sim = sim(T + 2 * HOUR, 100);
    sim.api.add_all((0..50).map(|n| SimEvent::new(T + n * MINUTE, "login")));
    let home = home(&sim, T, "", "[seen]\nkeep = \"1d\"");
    for days in [0, 3, 6] {
        sim.api.set_now(T + days * DAY + 2 * HOUR);
        home.run_once_well();
    }
    assert_exact("before", &home.compare(&sim.api));

    // What was never read cannot come twice.
    start(&home, T - 2 * HOUR, T - HOUR, &[]).is(0, "");
    let told = start(&home, T, T + HOUR, &[]);

    assert_eq!(told.code, Some(2));
    let (error, hint) = told.said.trim_end().split_once('\n').unwrap();
    let until = error.strip_prefix("error: ask for a backfill: read again from before ");
    let sentence =
        ": events of that time are no longer remembered, and would be delivered a second time";
    let until =
        until.and_then(|rest| rest.strip_suffix(sentence)).unwrap_or_else(|| panic!("{error}"));
    let later = chrono::DateTime::parse_from_rfc3339(until).unwrap().timestamp() + 1;
    let begin = position::rfc3339(later);
    let remedy = format!(
        "hint: begin at {begin}, or add `--again` to have them delivered again, each with the same `uid`"
    );
    assert_eq!(hint, remedy);
    assert_eq!(list(&home).len(), 1, "nothing was asked for");
    start(&home, later * SECOND, later * SECOND + HOUR, &[]).is(0, "");
    home.run_once_well();
    assert_exact("what is remembered", &home.compare(&sim.api));

    start(&home, T, T + HOUR, &["--again"]).is(0, "");
    home.run_once_well();

    let report = home.compare(&sim.api);
    assert_eq!((report.lost, report.doubled, report.altered), (0, 50, 0), "{report}");
    let mut times: HashMap<String, usize> = HashMap::new();
    for line in home.lines() {
        let line: Value = serde_json::from_str(&line).unwrap();
        *times.entry(line["siemferry"]["uid"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(times.len(), 50);
    assert!(times.values().all(|times| *times == 2));
}

#[test]
fn a_terminal_shows_the_progress_until_it_is_over() {
    let (_sim, home) = missed(20, "poll_every = \"1h\"");
    let _daemon = home.spawn();
    eventually("it runs", || home.logged("Started.") == 1);
    let (from, to) = (rfc3339(T), rfc3339(T + HOUR));
    let command =
        home.command(&["backfill", "start", "--source", "acme", "--from", &from, "--to", &to]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<_> = words.map(|word| format!("'{}'", word.display())).collect();

    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    let output = script.env("RIG_TOKEN", TOKEN).stdin(Stdio::null()).output().unwrap();

    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    let known = number(&list(&home)[0], "repeats");
    for part in [
        "the daemon begins at once",
        "Ctrl-C ends this display, not the backfill.",
        "\r\u{1b}[Kdone: 100 % read",
        &format!("done, {TOO_LATE} new events, {known} known"),
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}
