//! What the whole promises, with the real binary and several sinks at once.

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use siemferry::sim::{Rng, oracle};

use crate::bulk::{self, Bulk};
use crate::collector::{self, Collector};
use crate::kills;
use crate::peer::{
    Judge, Peer, an_hour_passes, api_of, copies, holds_all, holds_each_once, home_for, numbered,
};
use crate::rig::{Home, Running, Sim, eventually, read};

/// More lines of the configuration: this peer as the sink of this name.
fn sink(name: &str, peer: &impl Peer, keys: &str) -> String {
    peer.config(keys).replace("[sinks.peer.", &format!("[sinks.{name}."))
}

/// A home with these sinks and no other.
fn home_with(sim: &Sim, sinks: &str) -> Home {
    let home = home_for(sim, "");
    let config = read(&home.path("siemferry.toml"));
    let others = config.split_once("[sinks.archive.file]").unwrap().0;
    home.write("siemferry.toml", &format!("{others}{sinks}"));
    home
}

fn number(home: &Home, sink: &str, name: &str) -> u64 {
    home.status()["sinks"][sink][name].as_u64().unwrap()
}

fn dead_letters(home: &Home, arguments: &[&str]) -> Output {
    home.command(&[&["dead-letters"], arguments].concat()).output().unwrap()
}

fn letters(home: &Home) -> Vec<Value> {
    let list: Value =
        serde_json::from_slice(&dead_letters(home, &["list", "--json"]).stdout).unwrap();
    list["dead_letters"].as_array().unwrap().clone()
}

#[track_caller]
fn ends_well(daemon: &mut Running) {
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
}

/// How many requests a kill has to itself.
const REQUESTS_A_KILL: usize = 50;

/// How many events a request holds.
const EVENTS_A_REQUEST: usize = 3;

/// Every fifth answer is lost after the server has committed, and the daemon is killed at random;
/// pauses are cut short. Returns how many requests there were.
fn loses_answers_and_is_killed<P: Judge>(peer: &P, sim: &Sim, home: &Home) -> usize {
    let kills = kills::kills();
    let events = kills * REQUESTS_A_KILL * EVENTS_A_REQUEST;
    sim.api.add_all(numbered(i64::try_from(events).unwrap(), |_| "x".into()));
    let mut random = Rng::new(17);
    let goes_on = |daemon: &mut Running, asked: usize, until: &mut dyn FnMut() -> bool| {
        eventually("it goes on", || {
            // Only then it surely knows the signal, which ends the wait before a repeat: as many
            // requests as that may still be those of the daemon that was killed.
            if peer.asked() > asked + 4 {
                daemon.signal("HUP");
            }
            until()
        });
    };
    for _ in 0..kills {
        let asked = peer.asked();
        let more = 1 + random.below(2 * REQUESTS_A_KILL as u64);
        let wanted = asked + usize::try_from(more).unwrap();
        let mut daemon = home.spawn();
        goes_on(&mut daemon, asked, &mut || peer.asked() >= wanted || peer.count() >= events);
        std::thread::park_timeout(Duration::from_micros(random.below(3000)));
        daemon.kill();
        if peer.count() >= events {
            break;
        }
    }
    let asked = peer.asked();
    let mut daemon = home.spawn();
    // Before the last kill all may have been settled.
    goes_on(&mut daemon, asked, &mut || number(home, "peer", "settled_seq") == events as u64);
    ends_well(&mut daemon);
    home.run_once_well();
    peer.asked()
}

#[test]
fn answers_that_are_lost_have_whole_batches_repeated_as_they_were_and_no_more_than_counted() {
    let collector = Collector::start(collector::Options::default());
    let sim = api_of([], 1000);
    let keys = format!("batch = {{ events = {EVENTS_A_REQUEST}, wait = \"0s\" }}");
    let home = home_with(&sim, &collector.config(&keys));
    collector
        .fault_when(|arrival| (arrival.number % 5 == 2).then_some(collector::Fault::LoseAnswer));

    let requests = loses_answers_and_is_killed(&collector, &sim, &home);

    holds_all(&collector, &sim, "lost answers");
    let received = collector.received();
    assert!(received.iter().all(|request| request.status == 200), "each was a whole request");
    let mut batches: BTreeMap<&str, (usize, &[u8])> = BTreeMap::new();
    for request in &received {
        let (times, body) =
            batches.entry(request.arrival.batch()).or_insert((0, request.body.as_slice()));
        assert_eq!(*body, request.body, "the same id is the same bytes");
        *times += 1;
    }
    let of_batches = batches.values().map(|(_, body)| body.split(|byte| *byte == b'\n'));
    let events: usize = of_batches.map(|lines| lines.count() - 1).sum();
    assert_eq!(events, sim.api.truth().len(), "no event is in two batches");
    let repeats: usize = batches.values().map(|(times, _)| times - 1).sum();
    let ambiguous = number(&home, "peer", "ambiguous");
    println!("{requests} requests, {repeats} batches repeated, {ambiguous} ambiguous");
    assert!(repeats * 10 >= requests, "{repeats} of {requests} requests were repeated");
    assert!(repeats as u64 <= ambiguous, "{repeats} repeats, {ambiguous} counted");
    assert!(letters(&home).is_empty());
}

#[test]
fn answers_that_are_lost_double_nothing_in_elasticsearch() {
    let search = Bulk::start(bulk::Options::default());
    let sim = api_of([], 1000);
    let keys = format!("batch = {{ events = {EVENTS_A_REQUEST}, wait = \"0s\" }}");
    let home = home_with(&sim, &search.config(&keys));
    search.fault_when(|seen| (seen.number % 5 == 2).then_some(bulk::Fault::LoseAnswer));

    let requests = loses_answers_and_is_killed(&search, &sim, &home);

    holds_each_once(&search, &sim, "lost answers");
    let tries = search.all_tries();
    let tried_again = tries.values().filter(|tries| tries.tried > 1).count();
    println!("{requests} requests, {tried_again} events sent again");
    assert!(tried_again * 10 > requests, "answers were lost");
    assert!(tries.values().all(|tries| tries.created == 1));
    assert!(letters(&home).is_empty());
}

/// A file, a webhook and an Elasticsearch.
struct Three {
    sim: Sim,
    home: Home,
    hook: Collector,
    search: Bulk,
}

fn three() -> Three {
    let sim = api_of(numbered(300, |_| "at first".into()), 100);
    let hook = Collector::start(collector::Options::default());
    let search = Bulk::start(bulk::Options::default());
    let keys = "batch = { events = 40, wait = \"0s\" }";
    let rest = sink("hook", &hook, keys) + &sink("search", &search, keys);
    let home = home_for(&sim, &rest);
    Three { sim, home, hook, search }
}

impl Three {
    /// The file has everything, whatever becomes of the others.
    #[track_caller]
    fn the_file_is_on_time(&self, what: &str) {
        let all = self.sim.api.truth().len();
        eventually(what, || self.home.lines().len() >= all);
        assert!(self.home.compare(&self.sim.api).is_exact(), "{what}");
    }

    fn asked(&self) -> (usize, usize) {
        (self.hook.asked(), self.search.asked())
    }
}

#[test]
fn sinks_that_are_down_for_days_delay_nobody_and_lose_nothing() {
    let three = three();
    let Three { sim, home, hook, search } = &three;
    let phases = [
        (collector::Fault::status(503), 401, "security_exception"),
        (collector::Fault::answer(429, &[("retry-after", "600")], ""), 403, "security_exception"),
        (collector::Fault::ResetBefore, 404, "index_not_found_exception"),
        (collector::Fault::status(502), 400, "illegal_argument_exception"),
    ];
    for (fault, status, kind) in phases {
        let what = format!("{fault:?}, {status}");
        hook.fault_when(move |_| Some(fault.clone()));
        search.fault_when(move |_| Some(bulk::Fault::status(status, kind, "as scripted")));
        let mut daemon = home.spawn();
        let before = three.asked();
        eventually(&what, || {
            // Each signal ends the wait before the next probe; before the first of them it may not
            // be known yet.
            let (hooks, searches) = three.asked();
            if hooks > before.0 && searches > before.1 {
                daemon.signal("HUP");
            }
            hooks > before.0 + 6 && searches > before.1 + 6
        });
        an_hour_passes(sim, 100);
        three.the_file_is_on_time(&what);
        eventually("it waits for the others", || {
            let all = sim.api.truth().len() as u64;
            ["hook", "search"].iter().all(|sink| number(home, sink, "pending") == all)
        });
        assert_eq!((hook.count(), search.count()), (0, 0), "{what}");
        ends_well(&mut daemon);
    }

    hook.mend();
    search.mend();
    home.run_once_well();

    holds_each_once(search, sim, "elastic");
    holds_each_once(hook, sim, "webhook");
    three.the_file_is_on_time("at last");
    assert!(letters(home).is_empty(), "{:?}", letters(home));
    let all = sim.api.truth().len() as u64;
    for sink in ["archive", "hook", "search"] {
        assert_eq!(number(home, sink, "delivered"), all, "{sink}");
    }
}

fn a_poison_is_a_dead_letter_until_it_is_mended<P: Judge>() {
    let text = |n| if n == 123 { "poison" } else { "harmless" }.to_owned();
    let sim = api_of(numbered(500, text), 100);
    let home = home_for(&sim, "");
    let peer = P::start(&home);
    let config = read(&home.path("siemferry.toml"));
    home.write("siemferry.toml", &(config + &peer.config("batch = { events = 200 }")));
    peer.refuse("poison");
    let mut daemon = home.spawn();
    eventually("it is a dead letter", || peer.count() >= 499 && letters(&home).len() == 1);
    eventually("all is settled", || number(&home, "peer", "pending") == 0);

    let found = letters(&home);
    assert!(found[0]["reason"].as_str().unwrap().contains(P::REASON), "{found:?}");
    assert_eq!(copies(&peer.lines()).len(), 499);
    assert!(copies(&peer.lines()).values().all(|copies| *copies == 1));
    peer.mend();
    let retried = dead_letters(&home, &["retry", "--all"]);

    assert!(retried.status.success(), "{}", String::from_utf8_lossy(&retried.stderr));
    eventually("it is delivered", || peer.count() >= 500);
    ends_well(&mut daemon);
    home.run_once_well();
    holds_each_once(&peer, &sim, "mended");
    assert!(home.compare(&sim.api).is_exact(), "the file has it once");
    assert!(letters(&home).is_empty());
}

#[test]
fn a_poison_in_the_stream_reaches_a_mended_webhook_once() {
    a_poison_is_a_dead_letter_until_it_is_mended::<Collector>();
}

#[test]
fn a_poison_in_the_stream_reaches_a_mended_elasticsearch_once() {
    a_poison_is_a_dead_letter_until_it_is_mended::<Bulk>();
}

/// Our own events of this type among these lines.
fn told(lines: &[String], kind: &str) -> Vec<Value> {
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = lines.filter(|line| line["siemferry"]["api"] == "siemferry");
    ours.filter(|line| line["event"] == kind).collect()
}

#[test]
fn that_a_sink_is_blocked_reaches_the_healthy_ones_once() {
    let Three { sim, home, hook, search } = three();
    let config = read(&home.path("siemferry.toml"));
    let config = config.replace("[own_events]\nenabled = false", "[own_events]\nenabled = true");
    fs::write(home.path("siemferry.toml"), config).unwrap();
    search.bar();
    let mut daemon = home.spawn();

    eventually("the file has it", || !told(&home.lines(), "sink_blocked").is_empty());
    eventually("the webhook has it", || !told(&hook.lines(), "sink_blocked").is_empty());

    assert_eq!(search.count(), 0);
    search.mend();
    daemon.signal("HUP");
    for kind in ["sink_blocked", "sink_unblocked"] {
        let held = || [home.lines(), hook.lines(), search.lines()];
        eventually(kind, || held().iter().all(|lines| !told(lines, kind).is_empty()));
    }
    ends_well(&mut daemon);
    home.run_once_well();
    for lines in [home.lines(), hook.lines(), search.lines()] {
        for kind in ["sink_blocked", "sink_unblocked"] {
            let told = told(&lines, kind);
            let [event] = &told[..] else { panic!("{kind}: {told:?}") };
            assert_eq!(event["sink"], "search");
        }
        // The judge leaves our own events out.
        let report = oracle::compare(&sim.api.truth(), lines);
        assert!(report.is_exact(), "{report}");
    }
}

fn what_is_refused_becomes_dead_letters_once_that_is_accepted<P: Judge>() {
    let text = |n| if n % 3 == 1 { "unwelcome" } else { "welcome" }.to_owned();
    let sim = api_of(numbered(300, text), 100);
    let home = home_for(&sim, "");
    let peer = P::start(&home);
    let config = read(&home.path("siemferry.toml"));
    home.write("siemferry.toml", &(config + &peer.config("batch = { events = 100 }")));
    peer.refuse("unwelcome");
    let mut daemon = home.spawn();
    eventually("it is blocked", || home.logged("Sink is blocked") > 0);
    eventually("all is read", || home.lines().len() == 300);
    let before = letters(&home).len();
    assert!(before < 100, "{before} are dead letters");

    let accepted = dead_letters(&home, &["accept", "--sink", "peer"]);

    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    eventually("it goes on", || number(&home, "peer", "settled_seq") == 300);
    ends_well(&mut daemon);
    let (found, copies) = (letters(&home), copies(&peer.lines()));
    assert_eq!((found.len(), copies.len()), (100, 200));
    assert!(found.iter().all(|letter| letter["reason"].as_str().unwrap().contains(P::REASON)));
    assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
    assert!(!peer.lines().iter().any(|line| line.contains("unwelcome")));
    assert!(home.compare(&sim.api).is_exact(), "the file takes all of it");
    // Once it takes them, all of them arrive.
    peer.mend();
    assert!(dead_letters(&home, &["retry", "--all"]).status.success());
    home.run_once_well();
    holds_each_once(&peer, &sim, "mended");
    assert!(letters(&home).is_empty());
}

#[test]
fn a_webhook_that_refuses_one_kind_goes_on_when_that_is_accepted() {
    what_is_refused_becomes_dead_letters_once_that_is_accepted::<Collector>();
}

#[test]
fn an_elasticsearch_that_refuses_one_kind_goes_on_when_that_is_accepted() {
    what_is_refused_becomes_dead_letters_once_that_is_accepted::<Bulk>();
}
