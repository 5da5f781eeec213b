//! `kill -9` at random instants, while events flow, arrive late, repeat and share seconds.

use std::time::Duration;

use siemferry::sim::{self, Clock, Options, Rng, SimEvent};

use crate::rig::{Home, Sim};

const EVENTS: usize = 20_000;
const DAY: i64 = 86_400_000;
const END: i64 = 1_790_000_000_000;

/// How often the daemon is killed.
pub fn kills() -> usize {
    let wanted = std::env::var("SIEMFERRY_KILLS").ok();
    wanted.map_or(200, |kills| kills.parse().expect("SIEMFERRY_KILLS is a number"))
}

fn home(sim: &Sim) -> Home {
    let start = chrono::DateTime::from_timestamp_millis(END - 7 * DAY).unwrap().to_rfc3339();
    let source = format!(
        "start = \"{start}\"\npoll_every = \"10ms\"\nmax_window = \"12h\"\n\
         resweep = [\"10m\", \"1h\", \"13h\"]"
    );
    Home::new(&sim.api.url(), &source, "batch = { events = 100 }")
}

/// Equal events stand on several pages here, and a resumed pass cannot know how many of them the
/// interrupted one had met: a later sweep must.
#[test]
fn equal_events_of_a_backlog_are_not_taken_for_repeats_after_a_kill() {
    let options = Options {
        clock: Clock::Manual(END + DAY),
        page_cap: 3,
        shuffle_keys: false,
        token_lifetime: None,
        ..Options::default()
    };
    let sim = Sim::start(options);
    for minute in 0..60 {
        let time = END - 7 * DAY + minute * 60_000;
        sim.api.add_all((0..20).map(|_| SimEvent::new(time, "login")));
    }
    let home = home(&sim);
    let mut random = Rng::new(3);

    for _ in 0..20 {
        let asked = sim.api.requests();
        let mut daemon = home.spawn();
        sim.wait_for_requests(asked + 2 + random.below(12));
        daemon.kill();
    }
    home.run_once_well();

    let report = home.compare(&sim.api);
    assert!(report.is_exact(), "{report}\n{:?}", report.lost_examples);
    assert!(home.logged("Goes on with an interrupted window.") > 0);
}

#[test]
fn every_event_is_in_the_file_once_whenever_the_daemon_is_killed() {
    let kills = kills();
    let options = Options {
        clock: Clock::Manual(END - 7 * DAY + 1),
        page_cap: 20,
        token_lifetime: Some(Duration::from_secs(4 * 3600)),
        ..Options::default()
    };
    let sim = Sim::start(options);
    sim.api.add_all(sim::week(11, END, EVENTS));
    // The week passes with the requests, so that events flow until the last kill. The latest of its
    // events appear twelve hours late.
    let (clock, requests_a_kill) = (sim.api.clone(), 24);
    let step = 7 * DAY * 10 / i64::try_from(kills * requests_a_kill).unwrap();
    sim.api.fault_when(move |request| {
        // A second at least, or there would be nothing to ask for; now and then many pages' worth.
        let pages = request.number % 10 == 0;
        if clock.now() < END {
            clock.advance(if pages { step } else { 1100 });
        }
        None
    });
    let home = home(&sim);
    let mut random = Rng::new(5);

    let mut under_way = 0;
    for _ in 0..kills {
        let asked = sim.api.requests();
        let mut daemon = home.spawn();
        sim.wait_for_requests(asked + 1 + random.below(2 * requests_a_kill as u64));
        std::thread::park_timeout(Duration::from_micros(random.below(6000)));
        daemon.kill();
        let written = home.lines().len();
        under_way += usize::from(written > 0 && written < EVENTS);
    }
    sim.api.mend();
    let settled_at = sim.api.world().settled_at(END).unwrap();
    sim.api.set_now(settled_at.max(END) + DAY);
    home.run_once_well();

    let report = home.compare(&sim.api);
    assert!(
        report.is_exact(),
        "{report}\n{:?}\n{:?}",
        report.lost_examples,
        report.doubled_examples
    );
    assert_eq!(report.held, EVENTS);
    let counted = [
        ("adopted lines", home.logged("Adopted lines")),
        ("resumed tokens", home.logged("Goes on with an interrupted window.")),
        ("restarted passes", home.logged("Begins an interrupted window again.")),
        ("torn ends", home.logged("Cut the torn end")),
    ];
    println!("{kills} kills, {under_way} of them under way: {counted:?}; {}", home.status());
    assert!(under_way * 4 >= kills * 3, "{under_way} of {kills} kills hit the flow");
    // A few kills may hit none of the rarer moments.
    assert!(kills < 200 || counted[..3].iter().all(|(_, count)| *count > 0), "{counted:?}");
}
