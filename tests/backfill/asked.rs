use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use siemferry::sim::Fault;

use super::*;
use crate::inside::assert_exact;
use crate::rig::eventually;

/// A home that has run once, with nothing in it.
fn idle() -> (Sim, Home) {
    let sim = sim(T + 2 * HOUR, 20);
    let home = home(&sim, T, "", "");
    home.run_once_well();
    (sim, home)
}

#[test]
fn what_cannot_be_read_is_refused_with_what_to_do_and_changes_nothing() {
    let (_sim, home) = idle();
    let (from, to) = (rfc3339(T), rfc3339(T + HOUR));
    let ask_for = |source: &str, from: &str, to: &str| {
        ask(&home, &["start", "--source", source, "--from", from, "--to", to])
    };

    ask_for("acne", &from, &to).is(
        2,
        "error: find source `acne`: there is none of this name\nhint: the sources are `acme`\n",
    );
    for to in [&from, &rfc3339(T - 1000)] {
        let error = format!("error: ask for a backfill: the span {from}/{to} holds nothing\n");
        let hint = "hint: `--from` must be before `--to`\n";
        ask_for("acme", &from, to).is(2, &format!("{error}{hint}"));
    }
    ask_for("acme", &from, "9999-01-01").is(
        2,
        "error: ask for a backfill: `--to` 9999-01-01T00:00:00Z is in the future\n\
         hint: name a time that is past\n",
    );
    let told = ask(&home, &["start", "--source", "acme", "--from", "0s"]);
    assert_eq!(told.code, Some(2), "{}", told.said);
    assert!(told.said.ends_with(" holds nothing\nhint: `--from` must be before `--to`\n"));
    for malformed in ["yesterday", "2026-13-01", "2026-01-02T03:04:05", "-1d", ""] {
        let from = format!("--from={malformed}");
        let told = ask(&home, &["start", "--source", "acme", &from]);
        assert_eq!(told.code, Some(2), "{malformed}");
        let said = format!(
            "error: invalid value '{malformed}' for '--from <TIME>': expected a duration such as \
             `30d`, or a date such as `2026-01-02`"
        );
        assert!(told.said.starts_with(&said), "{malformed}: {}", told.said);
    }
    for lacking in [&["start", "--from", "1d"][..], &["start", "--source", "acme"]] {
        assert_eq!(ask(&home, lacking).code, Some(2), "{lacking:?}");
    }

    assert_eq!(list(&home).len(), 0);
    assert_eq!(ask(&home, &["list"]).stdout, "no backfills\n");
}

#[test]
fn where_nothing_was_run_there_is_nothing_to_list_or_cancel() {
    let sim = sim(T + 2 * HOUR, 20);
    let home = home(&sim, T, "", "");
    let said = "error: read the store `HOME/state/siemferry.db`: No such file or directory (os error 2)\n\
                hint: start `siemferry run` with this configuration first\n";

    ask(&home, &["list"]).is(1, said);
    ask(&home, &["cancel", "1"]).is(1, said);

    assert!(!home.state().exists());
}

#[test]
fn one_that_is_unknown_or_over_cannot_be_cancelled() {
    let (_sim, home) = idle();
    ask(&home, &["cancel", "1"]).is(
        1,
        "error: cancel backfill 1: there is none of this number\n\
         hint: `siemferry backfill list` shows those that there are\n",
    );
    assert_eq!(ask(&home, &["cancel", "first"]).code, Some(2));
    started(&home, T, T + HOUR);
    home.run_once_well();
    let before = list(&home);

    ask(&home, &["cancel", "1"]).is(1, "error: cancel backfill 1: it is done already\n");

    assert_eq!(list(&home), before);
}

#[test]
fn one_that_waits_is_cancelled_and_never_read() {
    let (sim, home) = missed(20, "");
    started(&home, T, T + HOUR);

    let told = ask(&home, &["cancel", "1"]);

    told.is(0, "");
    assert_eq!(told.stdout, "backfill 1 is cancelled; what it has read stays\n");
    ask(&home, &["cancel", "1"]).is(1, "error: cancel backfill 1: it is cancelled already\n");
    home.run_once_well();
    let report = home.compare(&sim.api);
    assert_eq!((report.delivered, report.lost), (ON_TIME, TOO_LATE), "{report}");
    let told = ask(&home, &["list"]);
    let end = ": cancelled, 0 % read, 0 new events, 0 known\n";
    assert!(told.stdout.ends_with(end), "{}", told.stdout);
}

/// Which request of a backfill is held.
const HELD: u64 = 6;

#[test]
fn a_daemon_stops_one_in_the_middle_of_a_window_and_begins_the_next() {
    let (sim, home) = missed(5, "poll_every = \"1h\"");
    let clock = Clock::Manual(T + 7 * HOUR);
    let other = Sim::start(Options { token: "another".into(), clock, ..Options::default() });
    let config = std::fs::read_to_string(home.config()).unwrap();
    let one_more = format!(
        "[sources.other.keeper]\nbase_url = \"{}\"\ntoken = {{ command = [\"echo\", \"another\"] }}\n\
         poll_every = \"1h\"\nstart = \"{}\"\n",
        other.api.url(),
        rfc3339(T),
    );
    home.write("siemferry.toml", &format!("{config}{one_more}"));
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    // Whether the head asks as well depends on how much of a second has passed since the last run.
    sim.api.fault_when(move |request| {
        let is_of_the_backfill = request.window.is_some_and(|(from, _)| from < T + 2 * HOUR);
        let number = u64::from(is_of_the_backfill) + counted.load(Ordering::SeqCst);
        counted.store(number, Ordering::SeqCst);
        (is_of_the_backfill && number == HELD).then_some(Fault::Hold)
    });
    let _daemon = home.spawn();
    eventually("it has started", || other.api.requests() > 0);
    started(&home, T, T + HOUR);
    eventually("one is held", || asked.load(Ordering::SeqCst) == HELD);
    eventually("what came before is stored", || number(&list(&home)[0], "repeats") > 0);

    ask(&home, &["cancel", "1"]).is(0, "");
    // The other source begins with this one when it is noticed, and so was the word before it.
    let (from, to) = (rfc3339(T), rfc3339(T + HOUR));
    ask(&home, &["start", "--source", "other", "--from", &from, "--to", &to]).is(0, "");
    eventually("it is noticed", || home.logged("Backfill begins.") == 2);
    sim.api.release();

    eventually("it stops", || home.logged("Backfill cancelled.") == 1);
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked <= HELD + 1, "nothing more is asked for than was on its way: {asked}");
    let cancelled = &list(&home)[0];
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(cancelled["position"], rfc3339(T), "not all of its first window was read");
    let lines = home.lines().len();
    assert!(home.compare(&sim.api).altered == 0 && lines >= ON_TIME);
    // What the cancelled one has read is known to the next.
    started(&home, T, T + HOUR);
    eventually("the next is done", || is(&home, 2, "done"));
    eventually("all is delivered", || home.lines().len() >= ON_TIME + TOO_LATE);
    assert_exact("a cancelled one and the next", &home.compare(&sim.api));
    assert_eq!(list(&home)[0], *cancelled);
}

#[test]
fn one_that_waits_begins_when_the_one_before_it_is_cancelled() {
    let (sim, home) = missed(5, "poll_every = \"1h\"");
    let held = sim.api.requests() + 6;
    sim.api.fault_when(move |request| (request.number == held).then_some(Fault::Hold));
    started(&home, T, T + HOUR);
    started(&home, T, T + HOUR);
    let _daemon = home.spawn();
    sim.wait_for_requests(held);
    assert!(is(&home, 1, "waiting"));

    ask(&home, &["cancel", "1"]).is(0, "");
    sim.api.release();

    eventually("the second is done", || is(&home, 1, "done"));
    assert!(is(&home, 0, "cancelled"));
    eventually("all is delivered", || home.lines().len() >= ON_TIME + TOO_LATE);
    assert_exact("the second", &home.compare(&sim.api));
}

#[test]
fn one_that_is_cancelled_before_its_last_page_comes_is_not_called_done() {
    let (sim, home) = missed(1000, "poll_every = \"1h\"");
    sim.api.fault_when(|request| {
        let is_old = request.window.is_some_and(|(from, _)| from < T + HOUR);
        is_old.then_some(Fault::Hold)
    });
    started(&home, T, T + HOUR);
    let _daemon = home.spawn();
    let is_held = || sim.api.log().last().is_some_and(|served| served.status.is_none());
    eventually("its only page is on the way", || home.logged("Backfill begins.") == 1 && is_held());

    ask(&home, &["cancel", "1"]).is(0, "");
    sim.api.release();

    eventually("it is over", || home.logged("Backfill cancelled.") == 1);
    assert_eq!(home.logged("Backfill done."), 0);
    eventually("what came stays", || home.lines().len() >= ON_TIME + TOO_LATE);
    assert_exact("one page", &home.compare(&sim.api));
    let backfill = &list(&home)[0];
    assert_eq!(backfill["state"], "cancelled");
    assert_eq!(number(backfill, "events"), TOO_LATE as u64, "what it has brought is counted");
}

#[test]
fn one_of_a_source_that_was_removed_is_listed_and_can_be_cancelled() {
    let (_sim, home) = idle();
    started(&home, T, T + HOUR);
    home.edit("[sources.acme.keeper]", "[sources.other.keeper]");
    home.run_once_well();

    let waiting = &list(&home)[0];
    assert_eq!(
        (waiting["source"].as_str(), waiting["state"].as_str()),
        (Some("acme"), Some("waiting"))
    );
    ask(&home, &["cancel", "1"]).is(0, "");

    assert!(is(&home, 0, "cancelled"));
    start(&home, T, T + HOUR, &[]).is(
        2,
        "error: find source `acme`: there is none of this name\nhint: the sources are `other`\n",
    );
}
