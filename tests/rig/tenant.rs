//! What happens at a tenant: an hour with everything that is hard to count.

use siemferry::sim::{Api, SimEvent};

use crate::inside::Inside;

pub const SECOND: i64 = 1000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;

/// Where the first window starts.
pub const START: i64 = 1_790_000_000_000;
/// The longest window, and so where the others start.
pub const WINDOW: i64 = 5 * MINUTE;
/// When the daemon is first run: in the middle of a window and of a second.
pub const FIRST_RUN: i64 = START + 12 * MINUTE + 345;
/// How late an event may be; the age of the oldest sweep.
pub const LATEST: i64 = 10 * MINUTE;

/// A source whose windows and sweeps are those above.
pub fn source() -> String {
    let start = rfc3339(START);
    format!(
        "start = \"{start}\"\nmax_window = \"5m\"\npoll_every = \"30s\"\nresweep = [\"1m\", \"10m\"]"
    )
}

/// `copies` equal events, some on every border, late ones, and ones that only their second divides.
pub fn events(copies: usize) -> Vec<SimEvent> {
    let busy = START + 7 * MINUTE + 89 * SECOND + 250;
    let mut events = vec![SimEvent::new(busy, "equal"); copies];
    let borders = [START, START + WINDOW, START + 2 * WINDOW, FIRST_RUN / SECOND * SECOND];
    for border in borders {
        let beside = [-SECOND - 1, -SECOND, -1, 0, 1, SECOND - 1, SECOND, SECOND + 1];
        let times = beside.map(|millis| border + millis).into_iter();
        let asked = times.filter(|time| *time >= START);
        events.extend(asked.flat_map(|time| vec![SimEvent::new(time, "border"); 2]));
    }
    events.extend((0..5).map(|n| SimEvent::new(busy + n * SECOND, "each second")));
    // Further copies of what is known, as late as they may be.
    let more = vec![SimEvent::new(busy, "equal").visible_at(busy + LATEST); 1 + copies % 3];
    events.extend(more);
    for (n, late) in (0..).zip([1, 30 * SECOND, 90 * SECOND, LATEST - 1, LATEST]) {
        for time in [FIRST_RUN - n * 7 * SECOND, FIRST_RUN + 3 * MINUTE + n * SECOND] {
            events.push(SimEvent::new(time, "late").visible_at(time + late));
        }
    }
    events
}

/// The most events that one second holds, with the seconds beside it that are asked for as well.
pub fn densest(events: &[SimEvent]) -> usize {
    let times: Vec<i64> = events.iter().map(|event| event.time).collect();
    let around = |at: i64| {
        let second = at.div_euclid(SECOND) * SECOND;
        let asked = second - SECOND..=second + 2 * SECOND;
        times.iter().filter(|time| asked.contains(time)).count()
    };
    // A second in which nothing happened has busy neighbours too.
    let seconds = times.iter().flat_map(|at| [at - SECOND, *at, at + SECOND, at - 2 * SECOND]);
    seconds.map(around).max().unwrap_or(0)
}

/// Runs a daemon, each time a new one, until nothing can come late any more.
pub async fn live_through(inside: &Inside, api: &Api) {
    for later in [0, 40 * SECOND, 4 * MINUTE, 9 * MINUTE, 30 * MINUTE] {
        api.set_now(FIRST_RUN + later);
        inside.run_well().await;
    }
}

/// An instant as a configuration has it.
pub fn rfc3339(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).unwrap().to_rfc3339()
}
