//! Receivers that are killed, restarted, frozen and disconnected while events flow.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use siemferry::sim::Rng;

use super::real::{are_equal, expected, given, number, received};
use crate::kills::kills;
use crate::peer::{an_hour_passes, seq};
use crate::receivers::{Kind, Receiver};
use crate::rig::{Running, eventually};

const EVENTS: usize = 20_000;

const BATCH: usize = 50;

/// A batch without an answer is sent again at once, or behind the one that was next to it.
const NEAR: usize = 3 * BATCH;

/// Waits for that; a pause before a repeat is cut short.
fn goes_on(daemon: &Running, receiver: &Receiver, what: &str, mut until: impl FnMut() -> bool) {
    let (mut held, mut since) = (receiver.count(), Instant::now());
    eventually(what, || {
        let count = receiver.count();
        if count != held {
            (held, since) = (count, Instant::now());
        } else if since.elapsed() > Duration::from_millis(150) {
            daemon.signal("HUP");
            since = Instant::now();
        }
        until()
    });
}

/// What befalls the receiver, with its number.
fn trouble(receiver: &mut Receiver, number: usize, loses_patience: impl FnOnce(&Receiver)) {
    match number % 4 {
        0 => {
            receiver.kill();
            receiver.start_again();
        }
        1 => {
            receiver.terminate();
            receiver.start_again();
        }
        2 => receiver.disconnect(),
        _ => {
            receiver.freeze();
            if number % 20 == 3 {
                loses_patience(receiver);
            }
            if number % 20 == 3 || number % 8 == 3 {
                // Else it would answer a client that is gone.
                receiver.disconnect();
            }
            receiver.thaw();
        }
    }
}

#[test]
fn over_relp_nothing_is_lost_and_only_what_had_no_answer_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let kind = Kind::RsyslogRelp;
    let mut receiver = Receiver::start(&dir.path().join("r"), kind).behind_a_proxy();
    let keys = format!("timeout = \"1s\"\nbatch = {{ events = {BATCH}, wait = \"0s\" }}");
    let (sim, home) = given(&receiver, [], &keys);
    let kills = kills();
    let of_each = EVENTS / kills;
    let mut random = Rng::new(23);
    let mut daemon = home.spawn();
    // Before that it may not know the signal that cuts a pause short.
    an_hour_passes(&sim, 1);
    eventually("events flow", || receiver.count() > 0);

    for round in 0..kills {
        let held = receiver.count();
        an_hour_passes(&sim, i64::try_from(of_each).unwrap());
        let wanted = held + usize::try_from(random.below(of_each as u64)).unwrap();
        goes_on(&daemon, &receiver, "events flow", || receiver.count() >= wanted);
        trouble(&mut receiver, round, |receiver| {
            let before = home.logged("within 1 s");
            an_hour_passes(&sim, 10);
            let is_over = || home.logged("within 1 s") > before;
            goes_on(&daemon, receiver, "it loses its patience", is_over);
        });
    }
    let all = sim.api.truth().len();
    goes_on(&daemon, &receiver, "all is settled", || number(&home, "settled_seq") == all as u64);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    receiver.terminate();

    let (lines, expected) = (received(&receiver), expected(&home, kind));
    let (repeats, acknowledged) = (repeats(&lines), acknowledged(&receiver));
    let ambiguous = number(&home, "ambiguous");
    println!(
        "{kills} troubles, {} messages, {acknowledged} acknowledged, {repeats} repeats, {ambiguous} in doubt",
        lines.len()
    );
    assert_eq!(expected.len(), all);
    // Behind a break, the smaller of two batches may be sent before the other.
    are_equal(&each_once(&lines), &expected, "all that happened");
    assert!(repeats <= lines.len() - acknowledged, "what is acknowledged is not sent again");
    assert!(repeats as u64 <= ambiguous, "each that may be repeated is counted");
    assert!(kills < 100 || repeats > 0, "no trouble came in the middle");
}

/// How many messages the client was told of that they have arrived.
fn acknowledged(receiver: &Receiver) -> usize {
    let finder = memchr::memmem::Finder::new(b" rsp 6 200 OK\n");
    receiver.answers().iter().map(|answers| finder.find_iter(answers).count()).sum()
}

/// In the order of their events.
fn each_once(lines: &[String]) -> Vec<String> {
    let by_number: BTreeMap<u64, &String> = lines.iter().map(|line| (seq(line), line)).collect();
    let distinct: HashSet<&String> = lines.iter().collect();
    assert_eq!(by_number.len(), distinct.len(), "a repeat has the same bytes");
    by_number.into_values().cloned().collect()
}

/// How many lines are repeats; each comes soon.
fn repeats(lines: &[String]) -> usize {
    let mut last = HashMap::new();
    let mut repeats = 0;
    for (at, line) in lines.iter().enumerate() {
        if let Some(before) = last.insert(line, at) {
            assert!(at - before <= NEAR, "{before} {at} {line}");
            repeats += 1;
        }
    }
    repeats
}

#[test]
fn a_receiver_that_is_restarted_between_batches_misses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [Kind::RsyslogTcp, Kind::RsyslogGtls, Kind::SyslogNgNewline, Kind::SyslogNgTls] {
        let mut receiver = Receiver::start(&dir.path().join(format!("{kind:?}")), kind);
        let (sim, home) = given(&receiver, [], "batch = { events = 20, wait = \"0s\" }");
        let mut daemon = home.spawn();

        for round in 1..=10 {
            an_hour_passes(&sim, 50);
            eventually("all has arrived", || receiver.count() >= round * 50);
            // What its kernel has taken it has read by now.
            eventually("all is settled", || number(&home, "settled_seq") == round as u64 * 50);
            receiver.terminate();
            receiver.start_again();
        }

        daemon.signal("TERM");
        assert_eq!(daemon.wait().code(), Some(0));
        are_equal(&received(&receiver), &expected(&home, kind), &format!("{kind:?}"));
        assert_eq!(number(&home, "ambiguous"), 0, "{kind:?}");
    }
}
