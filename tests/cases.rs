//! Every event is delivered once, whatever an API's habits are, and wherever its events lie.

use std::collections::HashSet;
use std::fmt;

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use siemferry::sim::{Api, Clock, Fault, Options, Order, SimEvent};
use siemferry::source::preset::Preset;

use crate::inside::{AT_ONCE, Inside, assert_exact, block_on, for_each, serve};
use crate::rig::eventually;
use crate::tenant::{
    self, FIRST_RUN, HOUR, LATEST, MINUTE, SECOND, START, WINDOW, densest, rfc3339,
};

const DAY: i64 = 24 * HOUR;

/// How an API does things: a bit for each.
#[derive(Clone, Copy)]
struct Habits(usize);

/// How many combinations there are.
const HABITS: usize = 64;

impl Habits {
    fn has(self, habit: usize) -> bool {
        self.0 >> habit & 1 == 1
    }

    /// An API that shows `events` in pages of so many.
    fn options(self, page_cap: usize, events: &[SimEvent]) -> Options {
        // What one second needs, and one more: a window is halved until it can be read.
        let pages = densest(events).div_ceil(page_cap) + 1;
        Options {
            start_inclusive: self.has(0),
            end_inclusive: self.has(1),
            order: if self.has(2) { Order::Newest } else { Order::Oldest },
            shuffle_keys: self.has(3),
            trailing_empty_page: self.has(4),
            token_pages: self.has(5).then(|| u32::try_from(pages).unwrap()),
            token_lifetime: None,
            page_cap,
            clock: Clock::Manual(FIRST_RUN),
            seed: page_cap as u64,
            ..Options::default()
        }
    }
}

impl fmt::Debug for Habits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06b}", self.0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    habits: Habits,
    copies: usize,
    page_cap: usize,
}

/// All combinations of habits, three times; every number of copies and every size of pages.
fn cases() -> impl Iterator<Item = Case> {
    (0..3 * HABITS).map(|number| Case {
        habits: Habits(number % HABITS),
        // Steps that share no factor with the range visit all of it.
        copies: 1 + number * 7 % 50,
        page_cap: 1 + number * 13 % 100,
    })
}

/// Everything that there is to tell about a case, on an API that has its habits.
async fn check(case: Case) {
    let events = tenant::events(case.copies);
    let api = serve(case.habits.options(case.page_cap, &events)).await;
    api.add_all(events);
    let inside = Inside::new(&api, Preset::keeper(), &tenant::source());

    tenant::live_through(&inside, &api).await;

    assert_exact(&format!("{case:?}"), &inside.compare(&api));
    let late = inside.status().sources["acme"].late;
    assert!(late >= 4, "{case:?}: the sweeps have found {late} events");
}

#[test]
fn every_event_is_in_the_file_once_whatever_the_apis_habits_are() {
    let copies: HashSet<usize> = cases().map(|case| case.copies).collect();
    let sizes: HashSet<usize> = cases().map(|case| case.page_cap).collect();
    assert_eq!((copies.len(), sizes.len()), (50, 100));

    for_each(cases(), |case| block_on(check(case)));
}

/// An API with the default habits and a clock that stands at the first run.
async fn standing() -> (Api, Inside) {
    let options = Options { clock: Clock::Manual(FIRST_RUN), page_cap: 10, ..Options::default() };
    let api = serve(options).await;
    let inside = Inside::new(&api, Preset::keeper(), &tenant::source());
    (api, inside)
}

#[tokio::test]
async fn a_tenant_at_which_nothing_happens_makes_no_file_and_no_error() {
    let (api, inside) = standing().await;

    tenant::live_through(&inside, &api).await;

    assert_exact("nothing", &inside.compare(&api));
    assert_eq!(inside.status().sources["acme"].events, 0);
    assert_eq!(inside.status().sources["acme"].last_error, None);
}

#[test]
fn a_single_event_is_delivered_once_wherever_it_lies() {
    let borders = [START, START + 1, START + WINDOW - 1, START + WINDOW, START + WINDOW + 1];
    let now = [FIRST_RUN - 346, FIRST_RUN - 345, FIRST_RUN, FIRST_RUN + 1];
    let times = borders.into_iter().chain(now);

    for_each(times, |time| {
        block_on(async {
            let (api, inside) = standing().await;
            api.add(SimEvent::new(time, "the only one"));

            tenant::live_through(&inside, &api).await;

            let report = inside.compare(&api);
            assert_exact(&format!("{time}"), &report);
            assert_eq!(report.delivered, 1);
        });
    });
}

#[tokio::test]
async fn what_happened_before_the_start_is_left_to_those_who_ask_for_it() {
    let (api, inside) = standing().await;
    api.add_all([START - 2 * SECOND, START - HOUR].map(|time| SimEvent::new(time, "before")));
    api.add(SimEvent::new(START, "first"));

    tenant::live_through(&inside, &api).await;

    let report = inside.compare(&api);
    assert_eq!((report.lost, report.delivered), (2, 1), "{report:?}");
}

#[tokio::test]
async fn further_copies_that_come_late_are_all_delivered() {
    let (api, inside) = standing().await;
    let time = START + MINUTE;
    for (wave, copies) in (0..).zip([3, 4, 1, 12]) {
        let seen = time + wave * 3 * MINUTE;
        api.add_all(vec![SimEvent::new(time, "equal").visible_at(seen); copies]);
    }

    for minutes in 1..30 {
        api.set_now(time + minutes * MINUTE);
        inside.run_well().await;
    }

    let report = inside.compare(&api);
    assert_exact("copies in four waves", &report);
    assert_eq!(report.delivered, 20);
}

#[tokio::test]
async fn copies_on_several_pages_of_a_backlog_survive_a_stop_between_them() {
    let (api, inside) = standing().await;
    api.add_all(vec![SimEvent::new(START + MINUTE, "equal"); 25]);
    // So long ago that the sweeps move along with the head.
    api.advance(HOUR);

    api.fault_when(|request| (request.number == 2).then_some(Fault::Hold));
    inside.run_until(&api, 2).await;
    api.mend();
    let told = inside.status().sources["acme"].events;
    inside.run_well().await;
    api.advance(HOUR);
    inside.run_well().await;

    assert_eq!(told, 10, "it was stopped between two pages");
    assert_exact("a stop between two pages", &inside.compare(&api));
}

/// As served whatever the dialect, with no time of its own.
fn timeless(time: i64, name: &str) -> SimEvent {
    SimEvent::raw(time, format!(r#"{{"audit_event":"{name}"}}"#).into_bytes())
}

#[tokio::test]
async fn records_without_a_time_are_delivered_once() {
    let (api, inside) = standing().await;
    for minute in 0..20 {
        let time = START + minute * MINUTE;
        api.add_all(vec![timeless(time, &format!("m{minute}")); 3]);
        let unreadable = format!(r#"{{"audit_event":"u{minute}","timestamp":"soon"}}"#);
        api.add(SimEvent::raw(time, unreadable.into_bytes()));
    }

    tenant::live_through(&inside, &api).await;

    let report = inside.compare(&api);
    assert_exact("timeless", &report);
    assert_eq!(report.delivered, 80);
}

#[tokio::test]
async fn records_that_tell_a_time_outside_of_the_window_are_delivered_once() {
    let (api, inside) = standing().await;
    let told = [START - 400 * DAY, START - MINUTE, START + 11 * MINUTE, START + 400 * DAY, -1];
    for (number, told) in told.into_iter().enumerate() {
        let record = format!(r#"{{"audit_event":"{number}","timestamp":"{}"}}"#, rfc3339(told));
        for window in 0..3 {
            let time = START + window * WINDOW + 10;
            let record = record.replace("audit_event", &format!("audit_event_{window}"));
            api.add_all(vec![SimEvent::object(time, record); 2]);
        }
    }

    tenant::live_through(&inside, &api).await;

    let report = inside.compare(&api);
    assert_exact("told elsewhere", &report);
    assert_eq!(report.delivered, 30);
}

/// The daemon does not run for a while that is longer than events are remembered.
async fn away_for_days(events: Vec<SimEvent>) {
    let api = serve(Options { clock: Clock::Manual(FIRST_RUN), ..Options::default() }).await;
    let source = tenant::source().replace("max_window = \"5m\"", "max_window = \"1d\"");
    let inside = Inside::new(&api, Preset::keeper(), &source);
    api.add_all(events);
    inside.run_well().await;

    api.advance(8 * DAY);
    inside.run_well().await;
    api.advance(HOUR);
    inside.run_well().await;

    assert_exact("after eight days", &inside.compare(&api));
}

#[tokio::test]
async fn events_of_the_last_minutes_are_known_after_days_without_a_daemon() {
    let since = (0..12).map(|minute| SimEvent::new(START + minute * MINUTE, "known"));
    let meanwhile = (0..8).map(|day| SimEvent::new(FIRST_RUN + day * DAY + HOUR, "new"));

    away_for_days(since.chain(meanwhile).collect()).await;
}

#[tokio::test]
async fn records_without_a_time_are_known_after_days_without_a_daemon() {
    let since = (0..12).map(|minute| timeless(START + minute * MINUTE, &format!("m{minute}")));

    away_for_days(since.collect()).await;
}

#[test]
fn a_server_whose_clock_is_an_hour_off_is_read_to_its_own_present() {
    for_each([-HOUR, HOUR].into_iter(), |off| {
        block_on(async {
            let api = serve(Options { page_cap: 10, ..Options::default() }).await;
            api.advance(off);
            let now = api.now();
            let since = (0..30).map(|n| SimEvent::new(now - n * 40 * SECOND, "there"));
            api.add_all(since);
            api.add(SimEvent::new(now - 2 * MINUTE, "late").visible_at(now + 5 * MINUTE));
            let source = tenant::source().replace(&rfc3339(START), &rfc3339(now - HOUR));
            let inside = Inside::new(&api, Preset::keeper(), &source);

            for later in [0, MINUTE, 6 * MINUTE, 30 * MINUTE] {
                api.set_now(now + later);
                inside.run_well().await;
            }

            let report = inside.compare(&api);
            assert_exact(&format!("{off} ms ahead"), &report);
            assert_eq!(report.delivered, 31);
        });
    });
}

#[tokio::test]
async fn a_server_whose_clock_jumps_forward_loses_nothing() {
    let (api, inside) = standing().await;
    api.add_all(tenant::events(5));
    inside.run_well().await;

    for jump in [1, MINUTE + 1, HOUR, 3 * HOUR] {
        api.advance(jump);
        let now = api.now();
        api.add_all([-SECOND, -1, 0].map(|millis| SimEvent::new(now + millis, "at the jump")));
        inside.run_well().await;
    }
    api.advance(HOUR);
    inside.run_well().await;

    assert_exact("jumps", &inside.compare(&api));
}

#[test]
fn a_server_that_tells_no_time_is_read_by_our_own_clock() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (api, inside) = runtime.block_on(async {
        let api = serve(Options { sends_date: false, ..Options::default() }).await;
        let source = "start = \"10m\"\npoll_every = \"10ms\"\nmax_window = \"5m\"\nresweep = []";
        let inside = Inside::new(&api, Preset::keeper(), source);
        (api, inside)
    });
    let now = api.now();
    let times = (0..50).map(|n| now - n * 11 * SECOND).chain([now + 700, now + 1400]);
    api.add_all(times.map(|time| SimEvent::new(time, "by our clock")));

    let mut report = inside.compare(&api);
    eventually("the last second is over", || {
        runtime.block_on(inside.run_well());
        report = inside.compare(&api);
        report.delivered >= 52
    });

    assert_exact("no date", &report);
}

/// Anything that may happen to a daemon in half an hour.
#[derive(Clone, Debug)]
struct Chance {
    happenings: Vec<Happening>,
    habits: usize,
    page_cap: usize,
    max_window: i64,
    /// How far the clock goes before each run, and after how many requests that is cut off.
    runs: Vec<(i64, Option<u64>)>,
}

#[derive(Clone, Debug)]
struct Happening {
    second: i64,
    millis: i64,
    kind: u8,
    copies: usize,
    late: i64,
}

/// How long anything happens.
const SPAN: i64 = 15 * MINUTE;

fn happening() -> impl Strategy<Value = Happening> {
    let millis = prop_oneof![Just(0), Just(1), Just(500), Just(999)];
    let late = prop_oneof![4 => Just(0), 1 => 1..=LATEST, 1 => Just(LATEST)];
    // Few seconds and kinds, so that many are equal.
    let second = prop_oneof![0..SPAN / SECOND, (0..15i64).prop_map(|minute| minute * 60)];
    (second, millis, 0..3u8, 1..6usize, late).prop_map(|(second, millis, kind, copies, late)| {
        Happening { second, millis, kind, copies, late }
    })
}

fn chance() -> impl Strategy<Value = Chance> {
    let happenings = proptest::collection::vec(happening(), 0..40);
    // Expiring tokens make for long waits: one in four.
    let habits = prop_oneof![3 => 0..HABITS / 2, 1 => HABITS / 2..HABITS];
    let cut_off = proptest::option::of(1..30u64);
    let runs = proptest::collection::vec((1..400 * SECOND, cut_off), 0..5);
    let page_cap = prop_oneof![1..8usize, 1..100usize];
    (happenings, habits, page_cap, 20..900i64, runs).prop_map(
        |(happenings, habits, page_cap, max_window, runs)| Chance {
            happenings,
            habits,
            page_cap,
            max_window,
            runs,
        },
    )
}

impl Chance {
    fn events(&self) -> Vec<SimEvent> {
        let events = self.happenings.iter().flat_map(|happening| {
            let Happening { second, millis, kind, copies, late } = happening;
            let time = START + second * SECOND + millis;
            let event = SimEvent::new(time, &format!("kind {kind}")).visible_at(time + late);
            vec![event; *copies]
        });
        events.collect()
    }

    async fn live_through(&self) -> (Api, Inside) {
        let events = self.events();
        let options = Habits(self.habits).options(self.page_cap, &events);
        let api = serve(Options { clock: Clock::Manual(START), ..options }).await;
        api.add_all(events);
        let window = format!("max_window = \"{}s\"", self.max_window);
        let source = tenant::source().replace("max_window = \"5m\"", &window);
        let inside = Inside::new(&api, Preset::keeper(), &source);
        for (advance, cut_off) in &self.runs {
            api.advance(*advance);
            match cut_off {
                Some(requests) => inside.run_until(&api, api.requests() + requests).await,
                None => inside.run_well().await,
            }
        }
        api.set_now(api.now().max(START + SPAN));
        // The first learns how far the clock has jumped; then every sweep is due.
        for _ in 0..2 {
            api.advance(LATEST + LATEST / 2);
            inside.run_well().await;
        }
        (api, inside)
    }
}

#[test]
fn every_event_is_in_the_file_once_whatever_happens() {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let all = if asked { Runs::default().cases } else { 48 };
    let side_by_side = AT_ONCE.min(all as usize);
    let share = all.div_ceil(u32::try_from(side_by_side).unwrap());

    for_each(0..side_by_side, |_| {
        let runs = Runs { cases: share, failure_persistence: None, ..Runs::default() };
        let ran = TestRunner::new(runs).run(&chance(), |chance| {
            let report = block_on(async {
                let (api, inside) = chance.live_through().await;
                inside.compare(&api)
            });
            prop_assert!(report.is_exact(), "{:?}", report);
            Ok(())
        });
        ran.unwrap_or_else(|failure| panic!("{failure}"));
    });
}

#[tokio::test]
async fn a_single_run_ends_although_the_clock_goes_on() {
    let (api, inside) = standing().await;
    api.add_all(tenant::events(3));
    inside.run_well().await;
    let clock = api.clone();
    // Every answer takes longer than it takes until the next is due.
    api.fault_when(move |_| {
        clock.advance(10 * MINUTE);
        None
    });
    let asked = api.requests();

    inside.run_well().await;

    assert!(api.requests() - asked < 50, "{} requests", api.requests() - asked);
}

#[tokio::test]
async fn a_server_that_told_a_time_to_come_is_not_taken_for_a_quiet_one() {
    let (api, inside) = standing().await;
    api.advance(2 * DAY);
    inside.run_well().await;
    inside.run_well().await;
    api.set_now(api.now() - 2 * DAY);

    let ended = inside.run().await;

    let told = format!("{ended:?}");
    assert!(told.contains("which the server's clock has not come to"), "{told}");
    assert_eq!(inside.status().sources["acme"].state, "retrying");
}
