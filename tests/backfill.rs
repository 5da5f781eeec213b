//! A span that somebody asks to be read again: what no sweep could find arrives, once.

use serde_json::Value;
use siemferry::position;
use siemferry::sim::{Clock, Options, SimEvent};

use crate::rig::{Home, Sim};
use crate::told::Told;

/// What is refused, and what is cancelled.
mod asked;
/// Beside a daemon, before a run, and while it is killed.
mod read;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// When the hour begins in which everything happens: long past, by any machine's clock.
const T: i64 = 1_760_000_000_000;
/// When what is late appears, long after the last sweep.
const LATE: i64 = T + 5 * HOUR;
const ON_TIME: usize = 600;
const TOO_LATE: usize = 120;

fn rfc3339(millis: i64) -> String {
    position::rfc3339(millis / SECOND)
}

/// An hour of pairs of equal events; some get a third equal and a stranger beside them, too late.
fn an_hour() -> Vec<SimEvent> {
    let mut events = Vec::new();
    for n in 0..300 {
        let time = T + n * 12 * SECOND;
        events.extend(vec![SimEvent::new(time, "login"); 2]);
        if n % 5 == 0 {
            events.push(SimEvent::new(time, "login").visible_at(LATE));
            events.push(SimEvent::new(time, "open_record").visible_at(LATE));
        }
    }
    events
}

fn sim(now: i64, page_cap: usize) -> Sim {
    let clock = Clock::Manual(now);
    Sim::start(Options { clock, page_cap, token_lifetime: None, ..Options::default() })
}

fn home(sim: &Sim, start: i64, source: &str, rest: &str) -> Home {
    let start = rfc3339(start);
    let source = format!("start = \"{start}\"\nresweep = [\"1m\", \"10m\"]\n{source}");
    Home::new(&sim.api.url(), &source, rest)
}

/// All of the hour was read before the late ones appeared, and no sweep comes back for them.
fn missed(page_cap: usize, source: &str) -> (Sim, Home) {
    let sim = sim(T + 2 * HOUR, page_cap);
    sim.api.add_all(an_hour());
    let home = home(&sim, T, source, "");
    for later in [2, 6, 7] {
        sim.api.set_now(T + later * HOUR);
        home.run_once_well();
    }
    let report = home.compare(&sim.api);
    assert_eq!((report.delivered, report.lost), (ON_TIME, TOO_LATE), "{report}");
    (sim, home)
}

/// What a command says.
fn ask(home: &Home, arguments: &[&str]) -> Told {
    home.told(home.command(&[&["backfill"], arguments].concat()))
}

/// Asks for the source's `[from, to)`.
fn start(home: &Home, from: i64, to: i64, more: &[&str]) -> Told {
    let (from, to) = (rfc3339(from), rfc3339(to));
    let span = ["start", "--source", "acme", "--from", &from, "--to", &to];
    ask(home, &[&span, more].concat())
}

#[track_caller]
fn started(home: &Home, from: i64, to: i64) {
    let told = start(home, from, to, &[]);
    assert_eq!((told.code, told.said.as_str()), (Some(0), ""));
}

/// All backfills, as `list` has them.
fn list(home: &Home) -> Vec<Value> {
    let told = ask(home, &["list", "--json"]);
    told.is(0, "");
    serde_json::from_str(&told.stdout).unwrap()
}

fn is(home: &Home, at: usize, state: &str) -> bool {
    list(home)[at]["state"] == state
}

fn number(backfill: &Value, member: &str) -> u64 {
    backfill[member].as_u64().unwrap()
}
