//! Streams whose receivers are slow, finish, close, reset and restart, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use siemferry::sim::Rng;

use super::once::{event, given_with, lines, number, plain};
use crate::kills::kills;
use crate::peer::{copies, seq};
use crate::receiver::{Connection, Fault, How, Kind, Options, Receiver};
use crate::tls::Authority;

/// So many receivers share the breaks: behind each, a sender waits a while.
const RECEIVERS: usize = 8;

/// Twice as much as is sent for each break: who finishes reading takes all that is under way.
const OF_EACH: usize = 200;

/// What became of connections, and how often.
type Fates = BTreeMap<&'static str, usize>;

/// Ends connections now and then, a little more often than that: a fault may come too late.
fn befalls(receiver: &Receiver, breaks: usize, seed: u64) {
    let mut random = Rng::new(seed);
    let mut left = breaks + breaks.div_ceil(10);
    receiver.fault_when(move |_| {
        if left == 0 || random.below(12) > 0 {
            return None;
        }
        let fault = match random.below(12) {
            0 => Fault::FinishReading,
            1 | 2 => Fault::Slow(Duration::from_millis(1)),
            3 => Fault::ResetAfterDraining,
            4..=6 => Fault::Reset,
            7..=9 => Fault::Close,
            _ => Fault::Restart(Duration::from_millis(20)),
        };
        left -= usize::from(!matches!(fault, Fault::FinishReading | Fault::Slow(_)));
        Some(fault)
    });
}

/// What has ended a connection at once.
fn broke(connection: &Connection) -> Option<&'static str> {
    match (connection.suffered.last()?, connection.end.as_ref()?) {
        (Fault::Close, How::WasClosed) => Some("closed"),
        (Fault::Reset, How::WasReset) => Some("reset"),
        (Fault::ResetAfterDraining, How::WasReset) => Some("reset when drained"),
        (Fault::Restart(_), How::WasReset) => Some("restarted"),
        _ => None,
    }
}

/// What became of one whose receiver has read all that its sender wrote, to the sender's own end.
fn was_read_to_its_end(connection: &Connection) -> Option<&'static str> {
    let (Some(How::Orderly | How::Abrupt | How::Torn(_)), suffered) =
        (&connection.end, connection.suffered.last())
    else {
        return None;
    };
    Some(match suffered {
        Some(Fault::FinishReading) => "finished",
        Some(Fault::Slow(_)) => "slow to the end",
        _ => "whole",
    })
}

/// Sends events over so many breaks; what is missing then is what a receiver that ended a connection at
/// once had in its kernel or its process, and nothing else.
fn survives(options: Options, keys: &str, breaks: usize, seed: u64) -> (Fates, usize) {
    let events = breaks * OF_EACH;
    let receiver = Receiver::start(Options { receive_buffer: Some(4096), ..options });
    befalls(&receiver, breaks, seed);
    let keys = format!("batch = {{ events = 100 }}\ntimeout = \"5s\"\n{keys}");
    let all = plain(i64::try_from(events).unwrap());
    let (_sim, home) = given_with(&receiver.address(), all, &keys);

    let told = home.command(&["run", "--once", "--patience", "2m"]).output().unwrap();

    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert_eq!(receiver.violations(), [""; 0]);
    assert_eq!(number(&home, "settled_seq"), events as u64);
    let held = copies(&lines(&receiver));
    let missing: BTreeSet<u64> = (1..=events as u64).filter(|n| !held.contains_key(n)).collect();
    let mut explained = BTreeSet::new();
    let mut fates = Fates::new();
    for connection in receiver.history() {
        let fate = broke(&connection).or_else(|| was_read_to_its_end(&connection));
        *fates.entry(fate.unwrap_or("of another end")).or_default() += 1;
        if broke(&connection).is_some() {
            explained.extend(connection.lost.into_iter().map(|message| seq(&event(message))));
        }
    }
    assert!(!fates.contains_key("of another end"), "{fates:?} {:?}", receiver.ends());
    let mut unexplained = missing.difference(&explained);
    if let Some(first) = unexplained.next() {
        let others = unexplained.count();
        panic!("{first} and {others} more were nowhere when their connections ended: {fates:?}");
    }
    (fates, missing.len())
}

fn only_what_no_sender_can_know_is_missing(options: &Options, keys: &str) {
    let (breaks, begun) = (kills(), Instant::now());
    let of_each = breaks.div_ceil(RECEIVERS);
    let all: Vec<_> = thread::scope(|scope| {
        let start = |seed| scope.spawn(move || survives(options.clone(), keys, of_each, seed));
        let running: Vec<_> = (0..RECEIVERS as u64).map(start).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });

    let mut fates = Fates::new();
    for (fate, count) in all.iter().flat_map(|(fates, _)| fates) {
        *fates.entry(fate).or_default() += count;
    }
    let missing: usize = all.iter().map(|(_, missing)| missing).sum();
    let events = RECEIVERS * of_each * OF_EACH;
    let seconds = begun.elapsed().as_secs();
    println!("connections {fates:?}; {missing} of {events} events missing; {seconds} s");
    let made = ["closed", "reset", "reset when drained", "restarted"];
    let made: usize = made.iter().filter_map(|fate| fates.get(fate)).sum();
    assert!(made >= breaks, "{made} breaks of {breaks}");
    assert!(fates.contains_key("finished") || breaks < 100, "and none finished");
}

#[test]
fn over_tcp_only_what_no_sender_can_know_is_missing() {
    only_what_no_sender_can_know_is_missing(&Options::default(), "");
}

#[test]
fn over_tls_only_what_no_sender_can_know_is_missing() {
    let authority = Authority::new();
    let tls = Some(authority.server("127.0.0.1", 2100).config);
    let options = Options { kind: Kind::Tls, tls, ..Options::default() };
    let keys = format!("ca_file = \"{}\"", authority.file().display());

    only_what_no_sender_can_know_is_missing(&options, &keys);
}
