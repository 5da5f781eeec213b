//! What every sink promises, whatever its kind: the same tests for each, with the real binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use siemferry::sim::Rng;

use crate::azure::Azure;
use crate::bulk::Bulk;
use crate::collector::Collector;
use crate::hec::Hec;
use crate::peer::{
    HecWithAcks, Judge, Lines, Peer, Trouble, an_hour_passes, api_of, copies, holds_all,
    holds_each_once, home_for, numbered, seq,
};
use crate::receiver::peer::{Relp, Tls};
use crate::rig::{Home, Running, Sim, eventually, read};

/// An API, the real binary's directory, and what its only sink delivers to.
struct Given<P> {
    sim: Sim,
    home: Home,
    peer: P,
}

/// `count` events; `keys` are lines of the sink's table.
fn given<P: Peer>(count: i64, keys: &str) -> Given<P> {
    given_texts(count, keys, |_| "a day like any other".into())
}

fn given_texts<P: Peer>(count: i64, keys: &str, text: impl Fn(i64) -> String) -> Given<P> {
    let sim = api_of(numbered(count, text), 100);
    let home = home_for(&sim, "");
    let peer = P::start(&home);
    let config = read(&home.path("siemferry.toml"));
    let others = config.split_once("[sinks.archive.file]").unwrap().0;
    home.write("siemferry.toml", &format!("{others}{}", peer.config(keys)));
    Given { sim, home, peer }
}

impl<P: Peer> Given<P> {
    fn sink(&self) -> Value {
        self.home.status()["sinks"]["peer"].clone()
    }

    fn number(&self, name: &str) -> u64 {
        self.sink()[name].as_u64().unwrap()
    }

    fn count(&self) -> u64 {
        self.sim.api.truth().len() as u64
    }

    /// Waits until everything is settled.
    #[track_caller]
    fn is_settled(&self, what: &str) {
        eventually(what, || {
            self.peer.tick();
            // Before it holds anything there may be no store to ask.
            self.peer.count() as u64 >= self.count() && self.number("settled_seq") == self.count()
        });
    }

    #[track_caller]
    fn is_blocked(&self) {
        eventually("it is blocked", || self.home.logged("Sink is blocked") > 0);
    }

    fn letters(&self) -> Vec<Value> {
        let mut command = self.home.command(&["dead-letters", "list", "--json"]);
        let list: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        list["dead_letters"].as_array().unwrap().clone()
    }
}

#[track_caller]
fn ends_well(daemon: &mut Running) {
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
}

fn all_arrive_in_order<P: Peer>(keys: &str) {
    let given = given::<P>(700, &format!("batch = {{ events = 40 }}\n{keys}"));

    given.home.run_once_well();

    holds_each_once(&given.peer, &given.sim, "all is well");
    let seqs: Vec<u64> = given.peer.lines().iter().map(|line| seq(line)).collect();
    assert_eq!(seqs, (1..=700).collect::<Vec<_>>());
    assert_eq!((given.number("delivered"), given.number("ambiguous")), (700, 0));
}

fn all_arrive_once_with_several_on_their_way<P: Peer>(keys: &str) {
    let given = given::<P>(700, keys);

    given.home.run_once_well();

    holds_each_once(&given.peer, &given.sim, "all is well");
    assert_eq!((given.number("delivered"), given.number("ambiguous")), (700, 0));
}

/// Of what is ambiguous, each whole batch may be there once more.
#[track_caller]
fn is_as_counted<P: Peer>(given: &Given<P>, most_events: u64, what: &str) {
    holds_all(&given.peer, &given.sim, what);
    let copies = copies(&given.peer.lines());
    let repeats: usize = copies.values().map(|copies| copies - 1).sum();
    let counted = given.number("ambiguous") * most_events;
    assert!(repeats as u64 <= counted, "{what}: {repeats} repeats, at most {counted} counted");
    assert!(given.letters().is_empty(), "{what}: {:?}", given.letters());
}

fn trouble_at_every_stage_loses_nothing<P: Peer>(keys: &str) {
    for trouble in P::TROUBLES {
        let what = format!("{trouble:?}");
        let keys = format!("batch = {{ events = 40, wait = \"0s\" }}\n{keys}");
        let given = given::<P>(300, &keys);
        given.peer.trouble(*trouble);
        let mut daemon = given.home.spawn();

        given.is_settled(&what);
        an_hour_passes(&given.sim, 200);
        given.is_settled(&what);

        ends_well(&mut daemon);
        is_as_counted(&given, 40, &what);
        let is_known = matches!(trouble, Trouble::Busy | Trouble::Moved);
        assert!(!is_known || given.number("ambiguous") == 0, "{what}");
        if is_known {
            holds_each_once(&given.peer, &given.sim, &what);
        }
    }
}

fn a_barred_sink_keeps_everything_and_goes_on_when_mended<P: Peer>() {
    let given = given::<P>(300, "batch = { events = 40 }");
    given.peer.bar();
    let mut daemon = given.home.spawn();
    given.is_blocked();
    eventually("all is read", || given.number("pending") == 300);
    assert!(given.peer.lines().is_empty() && given.letters().is_empty());
    assert_eq!(given.sink()["state"], "blocked");

    given.peer.mend();
    // Ends the pause before the next probe.
    daemon.signal("HUP");

    given.is_settled("it goes on");
    holds_each_once(&given.peer, &given.sim, "mended");
    eventually("it says so", || given.home.logged("Sink works again.") == 1);
    assert_eq!(given.home.logged("Sink is blocked"), 1);
    assert_eq!((given.sink()["state"].as_str(), given.letters().len()), (Some("ok"), 0));
    ends_well(&mut daemon);
}

fn a_barred_sink_keeps_everything_over_restarts<P: Peer>() {
    let given = given::<P>(300, "batch = { events = 40 }");
    given.peer.bar();
    for runs in 1..=3 {
        let mut daemon = given.home.spawn();
        eventually("it is blocked", || given.home.logged("Sink is blocked") == runs);
        if runs % 2 == 1 { daemon.kill() } else { ends_well(&mut daemon) }
    }

    given.peer.mend();
    given.home.run_once_well();

    is_as_counted(&given, 40, "mended");
    assert_eq!(given.number("delivered"), 300);
}

/// Letters of one to four bytes.
fn letters(n: i64) -> String {
    ["a", "é", "€", "🚢", "日本語"][usize::try_from(n % 5).unwrap()]
        .repeat(usize::try_from(n % 97).unwrap())
}

fn no_batch_is_larger_than_allowed<P: Peer>(check: impl Fn(&P)) {
    let given = given_texts::<P>(400, "batch = { bytes = \"2KiB\" }", |n| match n % 50 {
        7 => "🚢".repeat(900),
        _ => letters(n),
    });

    let told = given.home.run_once();
    assert!(told.status.success());

    holds_each_once(&given.peer, &given.sim, "small batches");
    let log = String::from_utf8(told.stderr).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let batches: Vec<(u64, u64)> = lines
        .filter(|line| line["message"] == "Batch delivered.")
        .map(|line| (line["bytes"].as_u64().unwrap(), line["events"].as_u64().unwrap()))
        .collect();
    assert_eq!(batches.iter().map(|(_, events)| events).sum::<u64>(), 400);
    for (bytes, events) in &batches {
        assert!(*bytes <= 2048 || *events == 1, "{events} events in {bytes} bytes");
    }
    assert!(batches.iter().any(|(bytes, _)| *bytes > 2048), "an event too large goes alone");
    assert!(batches.iter().any(|(_, events)| *events > 1), "others go together");
    check(&given.peer);
}

fn no_body_is_larger_than_allowed<P: Judge>() {
    no_batch_is_larger_than_allowed::<P>(|peer| {
        for (bytes, events) in peer.bodies() {
            assert!(bytes <= 2048 || events == 1, "{events} events in {bytes} bytes");
        }
    });
}

fn kills_lose_nothing<P: Peer>() {
    let given = given::<P>(1500, "batch = { events = 10, wait = \"0s\" }");
    let mut random = Rng::new(13);

    for _ in 0..10 {
        let held = given.peer.count();
        let wanted = held + 1 + usize::try_from(random.below(200)).unwrap();
        let mut daemon = given.home.spawn();
        eventually("it goes on", || given.peer.count() >= wanted.min(1500));
        std::thread::park_timeout(Duration::from_micros(random.below(4000)));
        daemon.kill();
    }
    given.home.run_once_well();

    is_as_counted(&given, 10, "after kills");
    // A destination that finds out what it holds may count what it took over.
    assert_eq!(given.number("settled_seq"), 1500);
}

fn it_stops_in_the_middle_of_trouble<P: Peer>(keys: &str) {
    for trouble in P::TROUBLES {
        let what = format!("{trouble:?}");
        let given = given::<P>(300, &format!("batch = {{ events = 40, wait = \"0s\" }}\n{keys}"));
        given.peer.trouble(*trouble);
        let mut daemon = given.home.spawn();
        eventually(&what, || {
            given.peer.tick();
            given.peer.count() > 0 || given.home.logged("Delivery failed") > 0
        });

        ends_well(&mut daemon);

        let unfinished = "Something did not end in time and is abandoned.";
        assert_eq!(given.home.logged(unfinished), 0, "{what}");
        given.peer.mend();
        given.home.run_once_well();
        is_as_counted(&given, 40, &what);
    }
}

fn it_stops_while_it_is_barred<P: Peer>() {
    let given = given::<P>(100, "");
    given.peer.bar();
    let mut daemon = given.home.spawn();
    given.is_blocked();

    ends_well(&mut daemon);

    given.peer.mend();
    given.home.run_once_well();
    holds_each_once(&given.peer, &given.sim, "after the stop");
}

fn one_poison_among_five_hundred_is_one_dead_letter<P: Judge>() {
    let keys = "batch = { events = 500 }";
    let text = |n| if n == 321 { "poison".to_owned() } else { letters(n) };
    let given = given_texts::<P>(500, keys, text);
    given.peer.refuse("poison");

    given.home.run_once_well();

    let copies = copies(&given.peer.lines());
    assert_eq!(copies.len(), 499);
    assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
    let letters = given.letters();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert!(letter["reason"].as_str().unwrap().contains(P::REASON), "{letter}");
    assert_eq!((letter["sink"].as_str(), letter["source"].as_str()), (Some("peer"), Some("acme")));
    assert_eq!((given.number("settled_seq"), given.number("delivered")), (500, 499));
}

/// The credential, and what nothing may show of it.
pub const CANARY: &str = "cAnArY-0123456789+xyz";
const FORMS: [&str; 3] = ["cAnArY", "0123456789+", "Y0FuQXJZ"];

fn a_credential_that_is_written_back_is_in_no_artefact<P: Judge>() {
    let given = given::<P>(60, P::SECRET);
    given.peer.echo();
    let run = |arguments: &[&str]| {
        let mut command = given.home.command(arguments);
        let output = command.env("RIG_SECRET", CANARY).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        text(&output.stdout) + &text(&output.stderr)
    };

    let told = [
        run(&["run", "--once", "--patience", "3s"]),
        run(&["status", "--json"]),
        run(&["check", "--online"]),
        run(&["dead-letters", "list"]),
    ];

    assert!(given.peer.asked() > 1, "it was told the credential, and more than once");
    assert!(told[0].contains("***"), "what came back is shown without it: {}", told[0]);
    let files = files(&given.home.path(""));
    assert!(files.iter().any(|file| file.ends_with("siemferry.db")), "{files:?}");
    for text in told.into_iter().chain(files.iter().map(|file| read(file))) {
        assert!(FORMS.iter().all(|form| !text.contains(form)), "{text}");
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The tests of one sink; `alone` has one batch on its way at a time, `hasty` gives up a request.
macro_rules! keeps_the_contract {
    ($name:ident, $peer:ty, alone = $alone:literal, hasty = $hasty:literal, $($more:item)*) => {
        mod $name {
            use super::*;

            #[test]
            fn delivers_all_in_order() {
                all_arrive_in_order::<$peer>($alone);
            }

            #[test]
            fn delivers_all_once_in_small_batches() {
                all_arrive_once_with_several_on_their_way::<$peer>("batch = { events = 7 }");
            }

            #[test]
            fn survives_trouble_at_every_stage() {
                trouble_at_every_stage_loses_nothing::<$peer>($hasty);
            }

            #[test]
            fn blocks_and_loses_nothing_until_it_is_let_in() {
                a_barred_sink_keeps_everything_and_goes_on_when_mended::<$peer>();
            }

            #[test]
            fn blocks_and_loses_nothing_over_restarts() {
                a_barred_sink_keeps_everything_over_restarts::<$peer>();
            }

            #[test]
            fn resumes_after_kills() {
                kills_lose_nothing::<$peer>();
            }

            #[test]
            fn stops_in_the_middle_of_trouble() {
                it_stops_in_the_middle_of_trouble::<$peer>($hasty);
            }

            #[test]
            fn stops_while_it_is_blocked() {
                it_stops_while_it_is_barred::<$peer>();
            }

            $($more)*
        }
    };
}

keeps_the_contract! {
    file, Lines, alone = "", hasty = "",

    #[test]
    fn keeps_to_the_byte_limit() {
        no_batch_is_larger_than_allowed::<Lines>(|_| {});
    }
}

keeps_the_contract! {
    syslog_over_relp, Relp, alone = "", hasty = "timeout = \"1s\"",

    #[test]
    fn keeps_to_the_byte_limit() {
        no_batch_is_larger_than_allowed::<Relp>(|_| {});
    }
}

keeps_the_contract! {
    syslog_over_tls, Tls, alone = "", hasty = "timeout = \"1s\"",

    #[test]
    fn keeps_to_the_byte_limit() {
        no_batch_is_larger_than_allowed::<Tls>(|_| {});
    }
}

/// What only a peer that answers can show.
macro_rules! keeps_the_contract_over_http {
    ($name:ident, $peer:ty) => {
        keeps_the_contract! {
            $name, $peer, alone = "in_flight = 1", hasty = "timeout = \"1s\"",

            #[test]
            fn keeps_to_the_byte_limit() {
                no_body_is_larger_than_allowed::<$peer>();
            }

            #[test]
            fn isolates_one_poison_among_five_hundred() {
                one_poison_among_five_hundred_is_one_dead_letter::<$peer>();
            }

            #[test]
            fn keeps_its_secrets() {
                a_credential_that_is_written_back_is_in_no_artefact::<$peer>();
            }
        }
    };
}

keeps_the_contract_over_http!(webhook, Collector);
keeps_the_contract_over_http!(elastic, Bulk);
keeps_the_contract_over_http!(sentinel, Azure);
keeps_the_contract_over_http!(splunk, Hec);
keeps_the_contract_over_http!(splunk_with_acks, HecWithAcks);
