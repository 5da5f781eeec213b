//! All weather at the API: bursts, lies, long outages.

use std::time::Duration;

use siemferry::sim::{Clock, Fault, Lie, Options, Rng, SimEvent};
use siemferry::source::preset::Preset;

use crate::inside::{Inside, assert_exact, block_on, for_each, serve};
use crate::rig::{Home, Sim, eventually};
use crate::tenant::{HOUR, MINUTE, SECOND, START, rfc3339};

const DAY: i64 = 24 * HOUR;

fn source(resweep: &str) -> String {
    format!("start = \"{}\"\nresweep = {resweep}", rfc3339(START))
}

/// Events of their own, evenly over a span.
fn evenly(count: i64, from: i64, span: i64) -> impl Iterator<Item = SimEvent> {
    (0..count).map(move |n| {
        let time = from + span * n / count;
        let at = rfc3339(time);
        let text =
            format!(r#"{{"audit_event":"open_record","timestamp":"{at}","record_uid":"{n}"}}"#);
        SimEvent::object(time, text)
    })
}

/// Each request takes half a second of the API's time: no more than 120 a minute.
fn takes_its_time(sim: &Sim) {
    let api = sim.api.clone();
    sim.api.fault_when(move |_| {
        api.advance(500);
        None
    });
}

#[test]
fn a_burst_is_read_whatever_kills_come_and_the_head_is_back_within_seconds() {
    let start = START + 10 * MINUTE;
    let clock = Clock::Manual(start + 5 * MINUTE);
    let sim = Sim::start(Options { clock, shuffle_keys: false, ..Options::default() });
    sim.api.add_all(evenly(50_000, start, 5 * MINUTE));
    takes_its_time(&sim);
    let home = Home::new(&sim.api.url(), &source(r#"["1m", "4m", "15m"]"#), "");
    let mut random = Rng::new(7);

    let mut known = 0;
    while known < 50_000 {
        let asked = sim.api.requests();
        let mut daemon = home.spawn();
        sim.wait_for_requests(asked + 60 + random.below(120));
        daemon.kill();
        let events = home.status()["sources"]["acme"]["events"].as_u64().unwrap();
        assert!(events > known, "no progress beyond {known}");
        known = events;
    }
    let _daemon = home.spawn();

    let lag = || home.status()["sources"]["acme"]["lag_seconds"].as_i64().unwrap();
    let watermark = || home.status()["sources"]["acme"]["watermark"].as_str().unwrap().to_owned();
    let is_back = || {
        let at = chrono::DateTime::parse_from_rfc3339(&watermark()).unwrap().timestamp_millis();
        sim.api.now() - at < 45 * SECOND
    };
    eventually("the head is back", is_back);
    assert!(lag() >= 0);
    eventually("everything is delivered", || home.lines().len() >= 50_000);
    assert_exact("a burst", &home.compare(&sim.api));
}

/// A hundredth of an API's rates, with as many pages.
#[test]
fn the_head_stays_in_front_of_a_source_that_has_no_time_for_its_sweeps() {
    let sim = Sim::start(Options {
        clock: Clock::Manual(START),
        page_cap: 10,
        shuffle_keys: false,
        ..Options::default()
    });
    sim.api.add_all(evenly(12_000, START, 20 * MINUTE));
    takes_its_time(&sim);
    let more = "page_size = 10\npoll_every = \"10s\"\nmax_window = \"1h\"";
    let config = format!("{}\n{more}", source(r#"["1m", "4m", "15m"]"#));
    let home = Home::new(&sim.api.url(), &config, "");
    let daemon = home.spawn();

    sim.wait_for_requests_for(2400, Duration::from_secs(240));

    // The newest second that had been asked for, at each request of the head.
    let mut newest = START / SECOND;
    let mut worst = 0;
    for served in sim.api.log() {
        let (_, end) = served.request.window.unwrap();
        newest = newest.max(end / SECOND - 1);
        let now = START / SECOND + i64::try_from(served.request.number).unwrap() / 2;
        worst = worst.max(now - newest);
    }
    assert!(worst < 60, "the head lagged {worst} s");
    let sweeps = home.status()["sources"]["acme"]["sweeps"].clone();
    let behind = |sweep: usize| {
        let at = sweeps[sweep]["watermark"].as_str().unwrap();
        sim.api.now() - chrono::DateTime::parse_from_rfc3339(at).unwrap().timestamp_millis()
    };
    assert!(behind(1) > 5 * MINUTE, "an old sweep has fallen behind, and says so");
    // Nothing happens any more: they catch up.
    drop(daemon);
    sim.api.advance(DAY);
    home.run_once_well();
    assert_exact("an hour's share", &home.compare(&sim.api));
}

fn lies(seed: u64) -> Vec<Fault> {
    let big = format!("{{\"events\":[{}", "[".repeat(100_000));
    vec![
        Fault::Lie(Lie::NoToken),
        Fault::Lie(Lie::SameToken),
        Fault::Lie(Lie::FirstPage),
        Fault::Lie(Lie::CutShort),
        Fault::Html,
        Fault::Truncated,
        Fault::ShortButConsistent,
        Fault::Garbage,
        Fault::WrongEnvelope,
        Fault::Reset,
        Fault::status(200, ""),
        Fault::status(200, "null"),
        Fault::status(200, r#"{"error":"internal","code":500}"#),
        Fault::status(200, &big),
        Fault::status(204, ""),
        Fault::status(500 + u16::try_from(seed % 5).unwrap(), "oops"),
    ]
}

#[test]
fn whatever_a_third_of_the_answers_lies_nothing_is_lost_or_doubled() {
    for_each(0..3, |seed| {
        block_on(async {
            let clock = Clock::Manual(START + 2 * HOUR);
            let api = serve(Options { clock, seed, ..Options::default() }).await;
            api.add_all(evenly(6000, START, HOUR));
            let more = "poll_every = \"10ms\"\npage_size = 100";
            let config = format!("{}\n{more}", source(r#"["1m", "1h"]"#));
            let inside = Inside::new(&api, Preset::keeper(), &config);
            let (mut random, lies) = (Rng::new(seed), lies(seed));
            api.fault_when(move |_| (random.below(100) < 35).then(|| random.pick(&lies).clone()));

            inside.run_well().await;

            assert_exact(&format!("seed {seed}"), &inside.compare(&api));
        });
    });
}

#[test]
fn an_api_that_only_lies_is_told_of_once_and_moves_nothing() {
    for lie in [Lie::NoToken, Lie::SameToken, Lie::FirstPage] {
        let clock = Clock::Manual(START + 2 * HOUR);
        let sim = Sim::start(Options { clock, ..Options::default() });
        sim.api.add_all(evenly(600, START, HOUR));
        sim.api.fault_when(move |request| {
            (lie == Lie::NoToken || request.has_token).then_some(Fault::Lie(lie))
        });
        let home = Home::new(&sim.api.url(), &source(r#"["1m", "1h"]"#), "");

        let daemon = home.spawn();
        sim.wait_for_requests(6);

        let status = home.status();
        let source = &status["sources"]["acme"];
        assert_eq!(source["state"], "retrying", "{lie:?}: {status}");
        let watermark = source["watermark"].as_str().unwrap();
        assert_eq!(
            chrono::DateTime::parse_from_rfc3339(watermark).unwrap().timestamp_millis(),
            START
        );
        assert!(source["last_error"].as_str().unwrap().contains("breaks the API's contract"));
        assert_eq!(home.logged("\"level\":\"error\""), 1, "{lie:?}");
        drop(daemon);
        sim.api.mend();
        home.run_once_well();
        assert_exact(&format!("{lie:?}"), &home.compare(&sim.api));
    }
}

#[test]
fn an_api_that_cuts_its_answers_in_silence_is_read_second_by_second() {
    block_on(async {
        let clock = Clock::Manual(START + 2 * HOUR);
        let api = serve(Options { clock, ..Options::default() }).await;
        // Denser than a page at times, and twice a page within one second.
        api.add_all(evenly(3000, START, 10 * MINUTE));
        api.fault_when(|_| Some(Fault::Lie(Lie::CutShort)));
        let inside = Inside::new(&api, Preset::keeper(), &source(r#"["1h"]"#));

        inside.run_well().await;

        assert_exact("cut", &inside.compare(&api));
        let dense = evenly(150, START + HOUR + MINUTE, 900);
        api.add_all(dense);
        api.set_now(START + 4 * HOUR);
        let ended = inside.run_for(Duration::from_secs(3)).await;
        assert_ne!(ended, siemferry::daemon::Outcome::Done, "what is cut is not taken for read");
        let seen = inside.status().sources["acme"].last_error.clone().unwrap();
        assert!(seen.contains("cuts its answers"), "{seen}");
        api.mend();
        api.advance(HOUR);
        inside.run_well().await;
        assert_exact("mended", &inside.compare(&api));
    });
}

#[test]
fn a_backlog_is_read_once_after_four_days_without_an_api() {
    let clock = Clock::Manual(START + MINUTE);
    let sim = Sim::start(Options { clock, ..Options::default() });
    sim.api.add_all(evenly(5000, START, 4 * DAY));
    let config = format!("{}\npoll_every = \"50ms\"", source(r#"["1m", "4m", "1h"]"#));
    let home = Home::new(&sim.api.url(), &config, "");
    home.run_once_well();
    sim.api.fault_when(|_| Some(Fault::Reset));
    let daemon = home.spawn();
    sim.wait_for_requests(sim.api.requests() + 3);

    sim.api.set_now(START + 4 * DAY + 2 * HOUR);
    let asked = sim.api.log().len();
    sim.api.mend();

    eventually("the backlog is delivered", || home.lines().len() >= 5000);
    // To the end of what is due, sweeps included.
    drop(daemon);
    home.run_once_well();
    let read: usize = sim.api.log()[asked..].iter().map(|served| served.records).sum();
    assert!(read < 5000 + 500, "{read} records were read for 5,000");
    assert_exact("a backlog", &home.compare(&sim.api));
}

/// Of noise, so that it is as large in every form.
#[test]
fn an_event_of_twenty_mebibytes_arrives_as_it_is_and_its_neighbours_with_it() {
    let mut random = Rng::new(9);
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let noise: String = (0..20 << 20).map(|_| char::from(*random.pick(letters))).collect();
    let clock = Clock::Manual(START + HOUR);
    let sim = Sim::start(Options { clock, shuffle_keys: false, ..Options::default() });
    sim.api.add_all(evenly(10, START, HOUR));
    let value = format!("\"{noise}\"");
    sim.api.add(SimEvent::new(START + MINUTE, "large").with("value", &value));
    let home = Home::new(&sim.api.url(), &source(r#"["1h"]"#), "");

    home.run_once_well();

    assert_exact("a large event", &home.compare(&sim.api));
    assert_eq!(home.lines().len(), 11);
}

/// Too large together for one answer, and of one second: no window can be halved further.
#[test]
fn a_second_that_is_too_large_for_an_answer_is_read_in_smaller_pages() {
    let filler = format!("\"{}\"", "x".repeat(1 << 20));
    let clock = Clock::Manual(START + HOUR);
    let sim = Sim::start(Options { clock, shuffle_keys: false, ..Options::default() });
    sim.api.add_all((0..40).map(|n| {
        SimEvent::new(START + MINUTE, "large").with("n", &n.to_string()).with("value", &filler)
    }));
    let home = Home::new(&sim.api.url(), &source(r#"["1h"]"#), "");

    home.run_once_well();

    assert_exact("a large second", &home.compare(&sim.api));
}

/// Smaller pages may be cut as well, and what fits them exactly is not believed either.
#[test]
fn a_large_second_that_is_cut_in_silence_is_not_taken_for_read() {
    let filler = format!("\"{}\"", "x".repeat(1 << 20));
    block_on(async {
        let clock = Clock::Manual(START + HOUR);
        let options = Options { clock, shuffle_keys: false, page_cap: 1000, ..Options::default() };
        let api = serve(options).await;
        api.add_all((0..40).map(|n| {
            SimEvent::new(START + MINUTE, "large").with("n", &n.to_string()).with("value", &filler)
        }));
        api.fault_when(|_| Some(Fault::Lie(Lie::CutShort)));
        let inside = Inside::new(&api, Preset::keeper(), &source(r#"["1h"]"#));

        let ended = inside.run_for(Duration::from_secs(5)).await;

        assert_ne!(ended, siemferry::daemon::Outcome::Done);
        api.mend();
        inside.run_well().await;
        assert_exact("a large second, mended", &inside.compare(&api));
    });
}

#[test]
fn an_api_that_hung_is_asked_for_whole_pages_again() {
    block_on(async {
        let clock = Clock::Manual(START + HOUR);
        let api = serve(Options { clock, ..Options::default() }).await;
        api.add_all(evenly(300, START, HOUR));
        api.fault_when(|request| (request.number <= 16).then_some(Fault::Stall));
        let config = format!("{}\ntimeout = \"200ms\"", source(r#"["1h"]"#));
        let inside = Inside::new(&api, Preset::keeper(), &config);

        inside.run_well().await;

        assert_exact("a hanging API", &inside.compare(&api));
        let whole = |limit: Option<&str>| limit == Some("1000");
        assert!(api.log().iter().all(|served| whole(served.request.parameter("limit"))));
    });
}
