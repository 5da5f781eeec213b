//! `siemferry dead-letters`: kept once, shown whole, sent again once, and thrown away only on demand.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use siemferry::event::{Event, Uid};
use siemferry::sim::{Record, Rng, SimEvent};
use siemferry::store::dead_letters::Refused;
use siemferry::store::{Config, Store};

use crate::inside::block_on;
use crate::rig::{Home, Sim, eventually, read};
use crate::told::{Told, as_somebody, home_of, week_of};

const DAY: i64 = 86_400_000;

/// A record that is no object, and one that is not valid UTF-8.
const BAD: [&[u8]; 2] = [b"[7, \"a\\u001b\"]", b"{\"audit_event\":\"l\xffgin\"}"];

/// An API with good records and those bad ones, all of it read; the bad ones are dead letters.
fn given() -> (Sim, Home) {
    let sim = week_of(120);
    let time = sim.api.now() - DAY / 2;
    sim.api.add_all(BAD.map(|bytes| SimEvent::raw(time, bytes)));
    let home = home_of(&sim);
    home.delivers_all(&sim);
    (sim, home)
}

fn verb(home: &Home, arguments: &[&str]) -> Told {
    home.told(home.command(&[&["dead-letters"], arguments].concat()))
}

fn listed(home: &Home) -> Vec<Value> {
    let told = verb(home, &["list", "--json"]);
    let list: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{told:?}"));
    list["dead_letters"].as_array().unwrap().clone()
}

fn ids(home: &Home) -> Vec<i64> {
    listed(home).iter().map(|letter| letter["id"].as_i64().unwrap()).collect()
}

fn database(home: &Home) -> Connection {
    let conn = Connection::open(home.path("state/siemferry.db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    conn
}

/// Makes it the letter of a record that an older version could not read.
fn rewrite(home: &Home, id: i64, event: &str) {
    let update = "UPDATE dead_letters SET event = ?2 WHERE id = ?1";
    assert_eq!(database(home).execute(update, params![id, event.as_bytes()]).unwrap(), 1);
}

/// How often each uid is in the file.
fn uids(path: &Path) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for line in read(path).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        *found.entry(line["siemferry"]["uid"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    found
}

#[test]
fn a_record_that_cannot_be_read_is_one_dead_letter_however_often_it_is_read() {
    let (sim, home) = given();
    let first = listed(&home);
    let said = "Records cannot be read; they are kept as dead letters.";
    // The sweep of a day's age reads it again.
    sim.api.advance(2 * DAY);

    let again = home.told(home.command(&["run", "--once"]));

    assert!(!again.log.contains(said), "{}", again.log);
    assert_eq!(listed(&home), first);
    home.holds_all(&sim);
    assert!(home.status()["sources"]["acme"]["repeats"].as_u64().unwrap() >= 2);
    let expected = [("not an object", BAD[0].len()), ("not valid UTF-8", BAD[1].len())];
    assert_eq!(first.len(), expected.len(), "{first:?}");
    for (reason, bytes) in expected {
        let letter = first.iter().find(|letter| letter["bytes"] == bytes).unwrap();
        let at = letter["at"].as_str().unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(at).is_ok(), "{at}");
        let (id, at) = (&letter["id"], &letter["at"]);
        let whole = json!({
            "id": id, "at": at, "source": "acme", "sink": null, "reason": reason, "bytes": bytes,
            "attempts": 0,
        });
        assert_eq!(letter, &whole);
    }
}

/// The dead letters of those bad records, by their place in [`BAD`].
fn bad_ids(home: &Home) -> [i64; 2] {
    BAD.map(|bytes| {
        let letters = listed(home);
        let letter = letters.iter().find(|letter| letter["bytes"] == bytes.len()).unwrap();
        letter["id"].as_i64().unwrap()
    })
}

#[test]
fn a_record_that_cannot_be_read_is_told_once() {
    let sim = week_of(10);
    let home = home_of(&sim);
    sim.api.add_all(BAD.map(|bytes| SimEvent::raw(sim.api.now() - DAY / 2, bytes)));

    let log = home.told(home.command(&["run", "--once"])).log;

    let said = log.lines().filter(|line| line.contains("Records cannot be read"));
    let said: Vec<Value> = said.map(|line| serde_json::from_str(line).unwrap()).collect();
    let [line] = &said[..] else { panic!("{log}") };
    assert_eq!((&line["level"], &line["records"]), (&json!("error"), &json!(2)));
    assert_eq!(
        (&line["source"], line["hint"].as_str()),
        (&json!("acme"), Some("`siemferry dead-letters list` shows them"))
    );
}

#[test]
fn people_are_shown_a_table() {
    let (_sim, home) = given();
    let letters = listed(&home);

    let told = verb(&home, &["list"]);

    assert_eq!((told.code, told.said.as_str()), (Some(0), ""));
    let mut lines = told.stdout.lines();
    let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["ID", "AT", "SOURCE", "SINK", "BYTES", "ATTEMPTS", "REASON"]);
    for (line, letter) in lines.by_ref().zip(&letters) {
        let words: Vec<_> = line.split_whitespace().collect();
        let (at, reason) = (letter["at"].as_str().unwrap(), letter["reason"].as_str().unwrap());
        let (id, bytes) = (letter["id"].to_string(), letter["bytes"].to_string());
        assert_eq!(words[..6], [&id, at, "acme", "-", &bytes, "0"]);
        assert_eq!(words[6..].join(" "), reason);
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn only_those_of_a_source_or_sink_are_listed_and_a_name_that_is_not_known_is_told() {
    let (_sim, home) = given();

    let count = |arguments: &[&str]| {
        let told = verb(&home, &[&["list"], arguments].concat());
        assert_eq!(told.code, Some(0), "{told:?}");
        told.stdout.lines().filter(|line| line.contains(" acme ")).count()
    };

    assert_eq!((count(&["--source", "acme"]), count(&["--sink", "archive"])), (2, 0));
    assert_eq!(verb(&home, &["list", "--sink", "archive"]).stdout, "no dead letters\n");
    verb(&home, &["list", "--sink", "nobody"])
        .is(1, "error: find sink `nobody`: the store does not know it\nhint: it knows `archive`\n");
    verb(&home, &["discard", "--all", "--source", "nobody"])
        .is(1, "error: find source `nobody`: the store does not know it\nhint: it knows `acme`\n");
    let both = verb(&home, &["list", "--sink", "archive", "--source", "acme"]);
    assert_eq!(both.code, Some(2), "{both:?}");
}

#[test]
fn one_is_shown_whole_and_steers_no_terminal() {
    let (_sim, home) = given();
    let bad = bad_ids(&home);
    let [array, text] = bad.map(|id| id.to_string());
    let event = |id: &str| {
        let told = verb(&home, &["show", id]);
        assert!(told.stdout.contains("\nsource    acme\nsink      -\n"), "{}", told.stdout);
        told.stdout.lines().last().unwrap().to_owned()
    };

    let whole = verb(&home, &["show", &text]);
    let raw = home.command(&["dead-letters", "show", "--raw", &text]).output().unwrap();

    let letters = listed(&home);
    let at = letters.iter().find(|letter| letter["id"] == bad[1]).unwrap();
    let expected = format!(
        "id        {text}\nat        {}\nsource    acme\nsink      -\nreason    not valid UTF-8\n\
         attempts  0\nbytes     {}\nevent     {{\"audit_event\":\"l\\xffgin\"}}\n",
        at["at"].as_str().unwrap(),
        BAD[1].len(),
    );
    assert_eq!(whole.stdout, expected);
    assert_eq!(raw.stdout, BAD[1], "byte for byte");
    assert_eq!(event(&array), "event     [7, \"a\\u001b\"]");
    rewrite(&home, bad[0], "\u{1b}[31m\r\nid  9\u{202e}");
    assert_eq!(event(&array), "event     \\u{1b}[31m\\r\\nid  9\\u{202e}");
}

#[test]
fn only_those_named_are_thrown_away_and_none_when_one_is_not_there() {
    let (_sim, home) = given();
    let [array, text] = bad_ids(&home);
    let (one, other) = (array.to_string(), text.to_string());

    verb(&home, &["discard", &one, "4711"]).is(
        1,
        "error: find dead letter 4711: there is none of this number\n\
         hint: `siemferry dead-letters list` shows those that there are\n",
    );
    assert_eq!(ids(&home).len(), 2, "neither is gone");
    let gone = verb(&home, &["discard", &one]);

    let said = format!(
        "discarded dead letter {one} of source `acme` ({} bytes): not an object\n",
        BAD[0].len()
    );
    assert_eq!((gone.code, gone.stdout), (Some(0), said));
    assert_eq!(ids(&home), [text]);
    for arguments in [&["show", &one][..], &["retry", &one], &["discard", &one]] {
        let told = verb(&home, arguments);
        assert_eq!(told.code, Some(1));
        assert!(told.said.contains(&format!("find dead letter {one}: there is none")), "{told:?}");
    }
    let all = verb(&home, &["discard", "--all"]);
    assert!(all.stdout.starts_with(&format!("discarded dead letter {other} of")), "{all:?}");
    assert_eq!(verb(&home, &["discard", "--all"]).stdout, "no dead letters\n");
    for wrong in [&["discard"][..], &["retry"], &["discard", &one, "--all"]] {
        assert_eq!(verb(&home, wrong).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn what_was_thrown_away_does_not_come_back_when_it_is_read_again() {
    let (sim, home) = given();
    verb(&home, &["discard", "--all"]);
    sim.api.advance(2 * DAY);

    home.delivers_all(&sim);

    assert_eq!(ids(&home), [0; 0]);
}

#[test]
fn what_is_still_bad_stays_and_is_counted() {
    let (sim, home) = given();
    let [array, text] = bad_ids(&home);

    let first = verb(&home, &["retry", &array.to_string()]);
    let all = verb(&home, &["retry", "--all"]);

    let said = |id: i64, bytes: usize, reason: &str, attempt: u32| {
        format!(
            "dead letter {id} of source `acme` ({bytes} bytes): still bad: {reason} (attempt {attempt})\n"
        )
    };
    let hint = "hint: a later version may read what this one cannot; `siemferry dead-letters show ID` shows one, `discard ID` throws it away\n";
    first.is(1, &format!("error: try dead letters again: 1 of 1 stay dead letters\n{hint}"));
    assert_eq!(first.stdout, said(array, BAD[0].len(), "not an object", 1));
    all.is(1, &format!("error: try dead letters again: 2 of 2 stay dead letters\n{hint}"));
    assert!(all.stdout.contains(&said(array, BAD[0].len(), "not an object", 2)), "{all:?}");
    assert!(all.stdout.contains(&said(text, BAD[1].len(), "not valid UTF-8", 1)), "{all:?}");
    let attempts = |letter: &Value| (letter["id"].as_i64().unwrap(), letter["attempts"].clone());
    let mut counted: Vec<_> = listed(&home).iter().map(attempts).collect();
    counted.sort_by_key(|(id, _)| *id);
    let mut expected = vec![(array, json!(2)), (text, json!(1))];
    expected.sort_by_key(|(id, _)| *id);
    assert_eq!(counted, expected);
    home.delivers_all(&sim);
}

/// An event as the API has it, and its text.
fn good(sim: &Sim, n: usize) -> (SimEvent, String) {
    let time = sim.api.now() - DAY / 2;
    let event = SimEvent::new(time, "login").with("n", &n.to_string());
    let Record::Object(text) = &event.record else { panic!("an object") };
    (event.clone(), text.to_string())
}

#[test]
fn a_record_that_can_be_read_now_is_an_event_once_also_when_it_is_read_again() {
    let (sim, home) = given();
    let [id, _] = bad_ids(&home);
    let (event, text) = good(&sim, 1);
    rewrite(&home, id, &format!("  {text} "));
    let events = home.status()["sources"]["acme"]["events"].as_u64().unwrap();

    let told = verb(&home, &["retry", &id.to_string()]);

    let bytes = text.len() + 3;
    let said = format!(
        "dead letter {id} of source `acme` ({bytes} bytes): can be read now; it is event 121, for every sink\n"
    );
    assert_eq!((told.code, told.stdout), (Some(0), said));
    assert_eq!(ids(&home).len(), 1);
    assert_eq!(home.status()["sources"]["acme"]["events"], events + 1);
    assert_eq!(home.status()["sinks"]["archive"]["pending"], 1);
    // From now on the API shows it as well, to the sweep of a day's age.
    sim.api.add(event);
    home.delivers_all(&sim);
    let line = home.lines().into_iter().find(|line| line.contains("\"n\":1,")).unwrap();
    assert!(line.starts_with(text.strip_suffix('}').unwrap()), "{line}");
    sim.api.advance(2 * DAY);
    home.delivers_all(&sim);
    assert_eq!(home.lines().iter().filter(|other| **other == line).count(), 1);
}

#[test]
fn a_record_that_was_read_meanwhile_is_not_sent_a_second_time() {
    let (sim, home) = given();
    let [id, _] = bad_ids(&home);
    let (event, text) = good(&sim, 1);
    sim.api.add(event);
    sim.api.advance(2 * DAY);
    home.delivers_all(&sim);
    rewrite(&home, id, &text);

    let told = verb(&home, &["retry", &id.to_string()]);

    assert_eq!(told.code, Some(0));
    assert!(
        told.stdout.ends_with(": has been read meanwhile; nothing is to be sent\n"),
        "{told:?}"
    );
    assert_eq!(ids(&home).len(), 1);
    home.delivers_all(&sim);
}

/// Equal records are as many events, however their letters are tried again.
#[test]
fn equal_letters_become_as_many_events_in_whatever_order() {
    for chosen in [&[0, 1, 2][..], &[2, 1, 0], &[1, 0, 2], &[2, 0, 1]] {
        let sim = week_of(120);
        let home = home_of(&sim);
        let time = sim.api.now() - DAY / 2;
        sim.api.add_all(vec![SimEvent::raw(time, *b"[7]"); 3]);
        home.delivers_all(&sim);
        let letters = ids(&home);
        assert_eq!(letters.len(), 3);
        let (event, text) = good(&sim, 1);
        for id in &letters {
            rewrite(&home, *id, &text);
        }

        for place in chosen {
            let told = verb(&home, &["retry", &letters[*place].to_string()]);
            assert!(told.stdout.contains("can be read now"), "{chosen:?}: {told:?}");
        }

        sim.api.add_all(vec![event; 3]);
        home.delivers_all(&sim);
        sim.api.advance(2 * DAY);
        home.delivers_all(&sim);
        assert!(uids(&home.file()).values().all(|count| *count == 1));
    }
}

#[test]
fn a_daemon_delivers_what_is_tried_again_beside_it() {
    let (sim, home) = given();
    let [id, _] = bad_ids(&home);
    let (event, text) = good(&sim, 1);
    let mut daemon = home.spawn();
    eventually("it runs", || home.logged("Started.") == 1);
    rewrite(&home, id, &text);
    sim.api.add(event);

    let told = verb(&home, &["retry", &id.to_string()]);

    assert_eq!(told.code, Some(0), "{told:?}");
    eventually("it arrives", || home.lines().len() == 121);
    home.holds_all(&sim);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}

const SINKS: [&str; 2] = ["archive", "other"];

/// Two file sinks that hold everything, and so many dead letters of the second.
fn two_sinks(letters: u8) -> (Sim, Home) {
    let sim = week_of(120);
    let home = home_of(&sim);
    let other =
        format!("[sinks.other.file]\npath = \"{}\"\n[sinks.archive", other(&home).display());
    home.edit("[sinks.archive", &other);
    home.delivers_all(&sim);
    block_on(async {
        let store = Store::open(&Config { dir: home.state() }).unwrap();
        let sink = store.register_sink("other", false).await.unwrap().id;
        for n in 1..=letters {
            let raw = format!("{{\"n\":{n}}}");
            let refused = Refused::new(sink, &buried(n, raw.as_bytes()), "too \u{1b}long", 2);
            store.bury(refused).await.unwrap();
        }
        store.close();
    });
    (sim, home)
}

fn buried(n: u8, raw: &[u8]) -> Event<'_> {
    Event {
        seq: 7,
        uid: Uid([n; 16]),
        time: Some(1_766_000_000_000),
        event_type: Some("buried"),
        raw,
        source: "acme",
        api: "keeper",
        received: 1_766_000_001_000,
    }
}

fn other(home: &Home) -> PathBuf {
    home.path("other.ndjson")
}

/// Every event is in both files once; of the letters, those up to `letters` in the second alone.
#[track_caller]
fn holds_letters(home: &Home, letters: u8) {
    let (archive, other) = (uids(&home.file()), uids(&other(home)));
    let ours = |n: u8| Uid([n; 16]).to_string();
    for (what, found) in [("archive", &archive), ("other", &other)] {
        let doubled: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
        assert!(doubled.is_empty(), "{what}: {doubled:?}");
    }
    assert_eq!(archive.len(), 120);
    assert_eq!(other.len(), 120 + usize::from(letters));
    assert!((1..=letters).all(|n| other.contains_key(&ours(n)) && !archive.contains_key(&ours(n))));
}

#[test]
fn a_sinks_letter_is_shown_with_what_is_known_of_its_event() {
    let (_sim, home) = two_sinks(1);

    let told = verb(&home, &["show", "1"]);
    let list = verb(&home, &["list", "--sink", "other"]);

    let (before, behind) = told.stdout.split_once("\nat        ").unwrap();
    let (_, behind) = behind.split_once('\n').unwrap();
    let expected = "source    acme\nsink      other\nreason    too \\u{1b}long\nattempts  2\n\
                    seq       7\nuid       01010101010101010101010101010101\napi       keeper\n\
                    type      buried\ntime      2025-12-17T19:33:20.000Z\n\
                    received  2025-12-17T19:33:21.000Z\nbytes     7\nevent     {\"n\":1}\n";
    assert_eq!((before, behind), ("id        1", expected));
    assert!(
        list.stdout.contains(" other ") && list.stdout.ends_with("too \\u{1b}long\n"),
        "{list:?}"
    );
    assert_eq!(home.status()["sinks"]["other"]["dead_letters"], 1);
}

#[test]
fn a_sinks_letter_arrives_there_once_and_nowhere_else() {
    let (_sim, home) = two_sinks(3);
    let mut daemon = home.spawn();
    eventually("it runs", || home.logged("Started.") == 1);

    let told = verb(&home, &["retry", "2", "1", "2"]);

    assert_eq!(told.code, Some(0), "{told:?}");
    let said = "dead letter 1 of sink `other` (7 bytes): waits for its sink again, as event 121\n\
                dead letter 2 of sink `other` (7 bytes): waits for its sink again, as event 122\n";
    assert_eq!(told.stdout, said);
    eventually("they arrive", || uids(&other(&home)).len() == 122);
    holds_letters(&home, 2);
    let all = |name: &str, settled: u64, delivered: u64| {
        let sink = &home.status()["sinks"][name];
        (&sink["settled_seq"], &sink["delivered"], &sink["pending"])
            == (&json!(settled), &json!(delivered), &json!(0))
    };
    eventually("all is settled", || all("archive", 122, 120) && all("other", 122, 122));
    let line = read(&other(&home)).lines().nth(120).unwrap().to_owned();
    let expected = r#"{"n":1,"siemferry":{"uid":"01010101010101010101010101010101","source":"acme","api":"keeper","type":"buried","time":"2025-12-17T19:33:20.000Z","received":"2025-12-17T19:33:21.000Z","seq":121}}"#;
    assert_eq!(line, expected);
    assert_eq!(home.status()["sinks"]["other"]["dead_letters"], 1);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}

#[test]
fn what_waits_for_one_sink_is_pending_for_that_sink_alone() {
    let (_sim, home) = two_sinks(2);

    verb(&home, &["retry", "--all", "--sink", "other"]);

    let pending = SINKS.map(|name| home.status()["sinks"][name]["pending"].clone());
    assert_eq!(pending, [json!(0), json!(2)]);
    home.run_once_well();
    holds_letters(&home, 2);
    let pending = SINKS.map(|name| home.status()["sinks"][name]["pending"].clone());
    assert_eq!(pending, [json!(0), json!(0)]);
}

#[test]
fn letters_that_are_sent_again_arrive_once_whenever_the_daemon_is_killed() {
    const LETTERS: u8 = 60;
    let (sim, home) = two_sinks(LETTERS);
    home.edit("[sinks.other.file]", "[sinks.other.file]\nbatch = { events = 2 }");
    let mut random = Rng::new(11);
    let mut sent = 0;

    while sent < LETTERS {
        let mut daemon = home.spawn();
        let until = LETTERS.min(sent + 5);
        let chosen: Vec<String> = (sent + 1..=until).map(|id| id.to_string()).collect();
        let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
        let told = verb(&home, &[&["retry"], &chosen[..]].concat());
        assert_eq!(told.code, Some(0), "{told:?}");
        sent = until;
        // Once it has noticed at all, an instant decides how far it comes.
        let before = uids_so_far(&other(&home));
        if random.below(3) > 0 {
            eventually("it goes on", || uids_so_far(&other(&home)) > before);
        }
        daemon.kill();
    }
    home.run_once_well();

    holds_letters(&home, LETTERS);
    home.holds_all(&sim);
    let delivered = SINKS.map(|name| home.status()["sinks"][name]["delivered"].clone());
    assert_eq!(delivered, [json!(120), json!(120 + u64::from(LETTERS))]);
}

/// How many whole lines there are.
fn uids_so_far(path: &Path) -> usize {
    read(path).matches('\n').count()
}

#[test]
fn a_letter_of_a_sink_that_is_not_configured_stays() {
    let (_sim, home) = two_sinks(1);
    home.edit("[sinks.other.file]", "[sinks.third.file]");

    let told = verb(&home, &["retry", "1"]);

    assert_eq!(told.code, Some(1));
    let said =
        "dead letter 1 of sink `other` (7 bytes): stays: the configuration has no such sink\n";
    assert_eq!(told.stdout, said);
    assert_eq!(ids(&home), [1]);
    home.edit("[sinks.third.file]", "[sinks.other.file]");
    assert_eq!(verb(&home, &["retry", "1"]).code, Some(0));
    home.run_once_well();
    holds_letters(&home, 1);
}

#[test]
fn without_a_store_there_is_nothing_to_show_and_none_is_made() {
    let sim = week_of(1);
    let home = home_of(&sim);

    for arguments in [&["list"][..], &["show", "1"], &["retry", "--all"], &["discard", "1"]] {
        verb(&home, arguments).is(
            1,
            "error: read the store `HOME/state/siemferry.db`: No such file or directory (os error 2)\n\
             hint: start `siemferry run` with this configuration first\n",
        );
    }
    assert!(!home.state().exists());
}

/// Root has made files beside the database while nobody else had it open.
#[test]
fn root_what_root_does_leaves_the_store_to_the_daemons_user() {
    let (sim, home) = given();
    fs::set_permissions(home.path(""), Permissions::from_mode(0o755)).unwrap();
    for entry in home.state().read_dir().unwrap() {
        chown(entry.unwrap().path(), Some(65534), Some(65534)).unwrap();
    }
    chown(home.state(), Some(65534), Some(65534)).unwrap();
    chown(home.file(), Some(65534), Some(65534)).unwrap();

    for arguments in [&["retry", "--all"][..], &["list"], &["show", "1"], &["discard", "1"]] {
        let told = verb(&home, arguments);
        assert!(!told.stdout.is_empty(), "{told:?}");
    }

    sim.api.add(SimEvent::new(sim.api.now() - DAY / 2, "login"));
    sim.api.advance(2 * DAY);
    let told = home.told(as_somebody(&home.command(&["run", "--once"])));
    assert_eq!(told.code, Some(0), "{told:?}");
    home.holds_all(&sim);
    let somebody = home.told(as_somebody(&home.command(&["dead-letters", "discard", "--all"])));
    assert_eq!(somebody.code, Some(0), "{somebody:?}");
    assert_eq!(ids(&home), [0; 0]);
}

#[test]
fn a_daemon_outlasts_another_process_that_holds_the_database() {
    let (sim, home) = given();
    let mut daemon = home.spawn();
    eventually("it runs", || home.logged("Started.") == 1);
    let theirs = database(&home);
    theirs.execute_batch("BEGIN IMMEDIATE").unwrap();
    sim.api.add(SimEvent::new(sim.api.now() + 1000, "login"));
    sim.api.advance(5000);

    eventually("it says so", || home.logged("another process holds it") > 0);

    theirs.execute_batch("COMMIT").unwrap();
    eventually("it goes on", || home.lines().len() == 121);
    home.holds_all(&sim);
    assert!(!daemon.has_ended());
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}

fn accepted(home: &Home) -> Option<u64> {
    block_on(async {
        let store = Store::open(&Config { dir: home.state() }).unwrap();
        let until = store.accepted_until("archive").await.unwrap();
        store.close();
        until
    })
}

#[test]
fn a_sink_may_be_told_that_what_it_refuses_is_bad() {
    let (_sim, home) = given();
    assert_eq!(accepted(&home), None);

    let told = verb(&home, &["accept", "--sink", "archive"]);

    let said = "what sink `archive` refuses of the events up to 120 becomes dead letters, from the next `run` on; it is not blocked now, but ok\n";
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), said));
    assert_eq!(accepted(&home), Some(120));
}

#[test]
fn what_was_accepted_is_over_when_it_is_settled() {
    let (_sim, home) = given();
    verb(&home, &["accept", "--sink", "archive"]).is(0, "");
    let end = |sink: &'static str, settled| {
        block_on(async {
            let store = Store::open(&Config { dir: home.state() }).unwrap();
            store.end_accept(sink, settled, 1).await.unwrap();
            store.close();
        });
    };

    end("archive", 119);
    end("other", 200);
    assert_eq!(accepted(&home), Some(120), "not before");

    end("archive", 120);
    assert_eq!(accepted(&home), None);
}

#[test]
fn a_running_daemon_is_told_at_once_that_refusals_are_accepted() {
    let (sim, home) = given();
    let _daemon = home.spawn();
    let asked = sim.api.requests();
    eventually("it runs", || sim.api.requests() > asked);

    let told = verb(&home, &["accept", "--sink", "archive"]);

    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains(", from now on"), "{}", told.stdout);
}

#[test]
fn only_a_configured_sink_can_be_told_so() {
    let (_sim, home) = given();

    verb(&home, &["accept", "--sink", "acme"]).is(
        2,
        "error: find sink `acme`: there is none of this name\nhint: the sinks are `archive`\n",
    );
    let told = verb(&home, &["accept"]);
    assert_eq!(told.code, Some(2));
    fs::remove_file(home.path("state/siemferry.db")).unwrap();
    let told = verb(&home, &["accept", "--sink", "archive"]);
    assert_eq!(told.code, Some(1));
    assert!(told.said.contains("hint: start `siemferry run`"), "{}", told.said);
}
