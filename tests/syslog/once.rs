//! The whole of it: the real binary, from the API to a strict receiver.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use siemferry::sim::SimEvent;

use crate::peer::{api_of, copies, home_for, numbered};
use crate::receiver::{Fault, Framing, How, Kind, Options, Receiver};
use crate::rig::{Home, Sim, eventually, read};

/// A home whose only sink is the receiver; `keys` are lines of its table.
fn given(
    receiver: &Receiver,
    events: impl IntoIterator<Item = SimEvent>,
    keys: &str,
) -> (Sim, Home) {
    given_with(&receiver.address(), events, keys)
}

/// A home whose only sink sends to this address; `keys` are lines of its table.
pub fn given_with(
    address: &str,
    events: impl IntoIterator<Item = SimEvent>,
    keys: &str,
) -> (Sim, Home) {
    let sim = api_of(events, 500);
    let home = home_for(&sim, "");
    let config = read(&home.path("siemferry.toml"));
    let others = config.split_once("[sinks.archive.file]").unwrap().0;
    home.write(
        "siemferry.toml",
        &format!("{others}[sinks.peer.syslog]\naddress = \"{address}\"\n{keys}\n"),
    );
    (sim, home)
}

fn of_kind(kind: Kind) -> Receiver {
    Receiver::start(Options { kind, ..Options::default() })
}

pub fn plain(count: i64) -> impl Iterator<Item = SimEvent> {
    numbered(count, |_| "a day like any other".to_owned())
}

fn sink(home: &Home) -> Value {
    home.status()["sinks"]["peer"].clone()
}

pub fn number(home: &Home, name: &str) -> u64 {
    sink(home)[name].as_u64().unwrap()
}

/// The event's part of a message.
pub fn event(message: Vec<u8>) -> String {
    let message = String::from_utf8(message).unwrap();
    message[message.find('{').unwrap()..].to_owned()
}

/// The events' part of the messages.
pub fn lines(receiver: &Receiver) -> Vec<String> {
    receiver.messages().into_iter().map(event).collect()
}

#[track_caller]
fn has_all(receiver: &Receiver, count: usize) -> BTreeMap<u64, usize> {
    assert_eq!(receiver.violations(), [""; 0]);
    let copies = copies(&lines(receiver));
    assert_eq!(copies.len(), count);
    copies
}

#[track_caller]
pub fn has_each_once(receiver: &Receiver, count: usize) {
    let repeats: Vec<_> =
        has_all(receiver, count).into_iter().filter(|(_, copies)| *copies > 1).collect();
    assert_eq!(repeats, []);
}

#[test]
fn every_event_is_one_message_over_each_transport() {
    // Linux lets everybody have this much, makes the double of it, and counts a datagram of up to 500
    // bytes as 1280: it holds more than 300 that nobody has read.
    let roomy = Some(212_992);
    for (kind, keys, events, receive_buffer) in [
        (Kind::Tcp, "", 600, None),
        (Kind::Tcp, "framing = \"newline\"", 600, None),
        (Kind::Relp, "", 600, None),
        (Kind::UnixDatagram, "", 600, None),
        (Kind::UnixStream, "", 600, None),
        (Kind::Udp, "lossy = true\nbatch = { events = 20 }", 200, roomy),
    ] {
        let framing = if keys.is_empty() { Framing::OctetCounted } else { Framing::Newline };
        let options = Options { kind, framing, receive_buffer, ..Options::default() };
        let receiver = Receiver::start(options);
        let (_sim, home) = given(&receiver, plain(events), keys);

        home.run_once_well();

        let events = usize::try_from(events).unwrap();
        receiver.received(events);
        has_each_once(&receiver, events);
        let told = (number(&home, "delivered"), number(&home, "ambiguous"));
        assert_eq!(told, (events as u64, 0), "{kind:?}");
        let is_stream = matches!(kind, Kind::Tcp | Kind::Relp | Kind::UnixStream);
        if is_stream {
            receiver.ended(1);
            assert_eq!(receiver.ends(), [How::Orderly], "{kind:?}");
        }
    }
}

#[test]
fn only_what_was_not_acknowledged_is_sent_again_over_relp() {
    let receiver = of_kind(Kind::Relp);
    receiver.fault_when(|seen| (seen.message == 300).then_some(Fault::LoseAck));
    let (_sim, home) = given(&receiver, plain(1000), "");

    home.run_once_well();

    let copies = has_all(&receiver, 1000);
    let repeats: usize = copies.values().map(|copies| copies - 1).sum();
    assert!((1..=128).contains(&repeats), "{repeats} repeats, at most the window");
    assert_eq!(copies.values().max(), Some(&2));
    assert!(number(&home, "ambiguous") >= 1, "each of them is counted");
}

#[test]
fn a_message_that_is_refused_over_relp_is_one_dead_letter() {
    let receiver = of_kind(Kind::Relp);
    receiver.fault_when(|seen| {
        let is_poison = String::from_utf8_lossy(&seen.content).contains("poison");
        is_poison.then(|| Fault::RefuseMessage(500, "not this one".into()))
    });
    let text = |n| if n == 321 { "poison".to_owned() } else { "well".to_owned() };
    let (_sim, home) = given(&receiver, numbered(500, text), "");

    home.run_once_well();

    has_each_once(&receiver, 499);
    assert_eq!((number(&home, "delivered"), number(&home, "dead_letters")), (499, 1));
    let mut list = home.command(&["dead-letters", "list", "--json"]);
    let list = String::from_utf8(list.output().unwrap().stdout).unwrap();
    assert!(list.contains("500 not this one"), "{list}");
}

#[test]
fn a_receiver_that_finishes_reading_misses_nothing() {
    for kind in [Kind::Tcp, Kind::UnixStream] {
        let receiver = of_kind(kind);
        receiver.fault_when(|seen| (seen.message % 40 == 20).then_some(Fault::FinishReading));
        let (_sim, home) = given(&receiver, plain(400), "batch = { events = 50 }");

        home.run_once_well();

        has_all(&receiver, 400);
        assert!(receiver.connections() > 3, "{kind:?}: {}", receiver.connections());
    }
}

/// How many bytes the connections to this place have under way that its kernel has not confirmed.
/// (proc(5): `/proc/net/tcp`)
fn under_way(place: &str) -> u64 {
    let port: u16 = place.rsplit_once(':').unwrap().1.parse().unwrap();
    let to = format!("0100007F:{port:04X}");
    let table = read(Path::new("/proc/net/tcp"));
    let columns = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let ours = columns.filter(|columns| columns[2] == to);
    ours.map(|columns| u64::from_str_radix(columns[4].split_once(':').unwrap().0, 16).unwrap())
        .sum()
}

#[test]
fn what_a_slow_receiver_has_not_read_is_not_settled_and_not_sent_twice() {
    // A receiver has room for no more than this, and none of our messages is shorter.
    const ROOM: u64 = 16 << 10;
    const SHORTEST: u64 = 400;
    let options = Options { receive_buffer: Some(4096), ..Options::default() };
    let receiver = Receiver::start(options);
    receiver.fault_when(|seen| (seen.message == 0).then_some(Fault::Freeze));
    let events = numbered(3000, |_| "x".repeat(300));
    // One of these has more than the receiver has room for, and our kernel takes more than one: that
    // alone is no proof.
    let (_sim, home) = given(&receiver, events, "batch = { events = 50 }");
    let mut daemon = home.spawn();
    receiver.frozen(1);
    eventually("all is read", || home.status()["sources"]["acme"]["events"] == 3000);
    let (mut seen, mut looks) = (0, 0);
    eventually("nothing more can be written", || {
        let now = under_way(&receiver.place());
        looks = if now == seen { looks + 1 } else { 0 };
        seen = now;
        now > ROOM && looks >= 50
    });
    let read = receiver.history()[0].read as u64;
    let (settled, most) = (number(&home, "settled_seq"), (read + ROOM) / SHORTEST);
    println!("{settled} settled, {read} bytes read, {seen} under way");
    assert!(settled <= most, "{settled} are settled, and there is room for {most}");

    receiver.mend();

    receiver.received(3000);
    eventually("all is settled", || number(&home, "settled_seq") == 3000);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    has_each_once(&receiver, 3000);
    receiver.ended(1);
    assert_eq!(receiver.ends(), [How::Orderly], "at the stop too");
}

#[test]
fn what_the_kernel_cannot_prove_is_sent_again_over_tcp() {
    let options = Options { receive_buffer: Some(4096), ..Options::default() };
    let receiver = Receiver::start(options);
    // Far more is on its way than the receiver's kernel has room for.
    receiver.fault_when(|seen| (seen.message == 0).then_some(Fault::Freeze));
    let (_sim, home) = given(&receiver, numbered(2000, |_| "x".repeat(300)), "timeout = \"2s\"");
    let mut daemon = home.spawn();
    receiver.frozen(1);
    receiver.connected(2);
    receiver.mend();

    eventually("all is settled", || number(&home, "settled_seq") == 2000);
    eventually("all is there", || copies(&lines(&receiver)).len() == 2000);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(number(&home, "ambiguous") >= 1);
}

/// Of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = read(Path::new(&format!("/proc/{pid}/status")));
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_outage_is_told_once_takes_no_memory_and_delays_nobody_else() {
    let receiver = of_kind(Kind::Relp);
    receiver.stop_listening();
    let (_sim, home) = given(&receiver, plain(5000), "");
    let config = read(&home.path("siemferry.toml"));
    let file = home.path("other.ndjson");
    let other = format!("{config}\n[sinks.other.file]\npath = \"{}\"\n", file.display());
    home.write("siemferry.toml", &other);
    let mut daemon = home.spawn();

    eventually("the other has all", || read(&file).lines().count() == 5000);
    eventually("it is told", || home.logged("Delivery failed; will retry.") == 1);
    let attempts = || home.logged("Delivery failed again.");
    eventually("it tries again", || attempts() >= 1);
    let before = resident(daemon.id());
    eventually("and again", || attempts() >= 4);
    let after = resident(daemon.id());
    assert!(after < before + 4096, "{before} KiB became {after} KiB");
    assert_eq!(home.status()["sinks"]["peer"]["state"], "retrying");
    receiver.listen_again();
    // Ends the pause before the next attempt.
    daemon.signal("HUP");

    receiver.received(5000);
    eventually("all is settled", || number(&home, "settled_seq") == 5000);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    has_each_once(&receiver, 5000);
    assert_eq!(home.logged("Delivery failed; will retry."), 1);
    assert_eq!(home.logged("Sink works again."), 1);
}

#[test]
fn the_first_address_that_answers_is_used_and_a_rebind_comes_back_to_the_first() {
    let (first, second) = (of_kind(Kind::Tcp), of_kind(Kind::Relp));
    first.stop_listening();
    let sim = api_of(plain(100), 10);
    let home = home_for(&sim, "");
    let config = read(&home.path("siemferry.toml"));
    let others = config.split_once("[sinks.archive.file]").unwrap().0;
    let (one, two) = (first.address(), second.address());
    home.write(
        "siemferry.toml",
        &format!(
            "{others}[sinks.peer.syslog]\naddress = [\"{one}\", \"{two}\"]\nrebind_every = \"1ms\"\n"
        ),
    );
    let mut daemon = home.spawn();
    second.received(100);

    first.listen_again();
    sim.api.add_all(crate::peer::numbered_from(sim.api.now(), 50, |_| "later".into()));
    sim.api.advance(2 * crate::tenant::HOUR);

    first.received(1);
    eventually("all is settled", || number(&home, "settled_seq") == 150);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    let both: Vec<String> = lines(&first).into_iter().chain(lines(&second)).collect();
    let copies = copies(&both);
    assert_eq!(copies.len(), 150);
    assert!(copies.values().all(|copies| *copies == 1), "an orderly end repeats nothing");
    assert!(second.ends().iter().all(|end| *end == How::Orderly), "{:?}", second.ends());
}

/// So long as a receiver that is gone was waited for before this was known at once, nothing was sent.
#[test]
fn a_reset_is_noticed_at_once_and_not_when_the_patience_ends() {
    let receiver = of_kind(Kind::Tcp);
    receiver.fault_when(|seen| (seen.message % 400 == 200).then_some(Fault::Reset));
    let (_sim, home) = given(&receiver, numbered(3000, |_| "x".repeat(300)), "timeout = \"10m\"");

    let told = home.command(&["run", "--once", "--patience", "1m"]).output().unwrap();

    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert_eq!(number(&home, "settled_seq"), 3000);
}

#[test]
fn what_a_local_receiver_has_not_read_when_it_ends_is_sent_again() {
    const ENDS: usize = 8;
    for (kind, fault) in [
        (Kind::UnixStream, Fault::Reset),
        (Kind::UnixStream, Fault::Close),
        (Kind::UnixDatagram, Fault::Restart(Duration::from_millis(20))),
    ] {
        let receiver = of_kind(kind);
        let of_this = fault.clone();
        let mut ends = 0;
        if kind == Kind::UnixStream {
            // Reads little at a time, so that it has read little that it does not take.
            receiver.fault_when_connected(|_| Some(Fault::Slow(Duration::ZERO)));
        }
        receiver.fault_when(move |seen| {
            let is_due = seen.message % 100 == 40 && ends < ENDS;
            ends += usize::from(is_due);
            is_due.then(|| of_this.clone())
        });
        let (_sim, home) = given(&receiver, plain(600), "batch = { events = 60 }");

        home.run_once_well();

        assert_eq!(number(&home, "settled_seq"), 600, "{kind:?} {fault:?}");
        assert_eq!(receiver.violations(), [""; 0]);
        // The message that it had read when it ended, and did not take.
        let missing = 600 - copies(&lines(&receiver)).len();
        assert!(missing <= ENDS, "{kind:?} {fault:?}: {missing}");
    }
}

#[test]
fn a_receiver_that_accepts_and_closes_at_once_takes_nothing() {
    for fault in [Fault::Close, Fault::Reset] {
        let receiver = of_kind(Kind::Tcp);
        receiver.fault_when_connected(move |_| Some(fault.clone()));
        let (_sim, home) = given(&receiver, plain(300), "");

        let once = home.command(&["run", "--once", "--patience", "4s"]).output().unwrap();

        assert_eq!(once.status.code(), Some(1));
        assert_eq!((number(&home, "settled_seq"), receiver.count()), (0, 0));
        assert!(receiver.connections() > 1, "it is tried again");
        receiver.mend();
        home.run_once_well();
        has_all(&receiver, 300);
    }
}

#[test]
fn an_event_in_several_messages_counts_when_all_are_acknowledged() {
    let parts = |fault: Option<Fault>| {
        let receiver = of_kind(Kind::Relp);
        receiver.fault_when(move |seen| fault.clone().filter(|_| seen.message == 61));
        let keys = "max_message = \"1KiB\"\noversize = \"split\"";
        let (_sim, home) = given(&receiver, numbered(50, |_| "x".repeat(3000)), keys);
        home.run_once_well();
        assert_eq!(receiver.violations(), [""; 0]);
        let messages = receiver.messages();
        let count = messages.len();
        let distinct: std::collections::BTreeSet<_> = messages.into_iter().collect();
        (distinct.len(), count, number(&home, "ambiguous"))
    };

    let (all, sent, ambiguous) = parts(None);
    assert!(all >= 200 && sent == all && ambiguous == 0, "{all} {sent} {ambiguous}");

    for fault in [Fault::LoseAck, Fault::ServerClose] {
        let (distinct, sent, ambiguous) = parts(Some(fault));
        assert_eq!(distinct, all);
        assert!(sent == all || ambiguous >= 1, "{sent} of {all}, {ambiguous}");
    }
}
