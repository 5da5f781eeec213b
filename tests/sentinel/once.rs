//! The whole of it: the real binary, from the API into the stream.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use siemferry::event::{Event, Uid};
use siemferry::sim::{Rng, SimEvent};
use siemferry::sink::{self, Batch};
use std::io::Write as _;

use crate::azure::{Azure, Fault, KEEPER, Kind, Options, SIEMFERRY};
use crate::peer::{Peer, api_of, home_for, numbered, numbered_from};
use crate::rig::{Home, Sim, eventually, read};
use crate::tenant::{HOUR, START};

/// A home whose only sink is the simulator; `keys` are lines of its table, or replace the profile.
fn given(azure: &Azure, events: impl IntoIterator<Item = SimEvent>, keys: &str) -> (Sim, Home) {
    let sim = api_of(events, 100);
    let home = home_for(&sim, "");
    let config = read(&home.path("siemferry.toml"));
    let others = config.split_once("[sinks.archive.file]").unwrap().0.to_owned();
    let mut table = azure.config(keys);
    if keys.contains("full") {
        table = table.replace(KEEPER.name, SIEMFERRY.name);
    }
    home.write("siemferry.toml", &(others + &table));
    (sim, home)
}

fn sink(home: &Home) -> Value {
    home.status()["sinks"]["peer"].clone()
}

/// Lines of the log that tell a person something is wrong with the sink.
fn troubles(home: &Home) -> Vec<String> {
    let lines = read(&home.log());
    let is_trouble = |line: &&str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let level = line["level"].as_str().unwrap_or_default().to_lowercase();
        let is_of_age = line["message"].as_str().unwrap().contains("two days old");
        (level == "warn" || level == "error") && line["sink"] == "peer" && !is_of_age
    };
    lines.lines().filter(is_trouble).map(str::to_owned).collect()
}

fn plain(count: i64) -> impl Iterator<Item = SimEvent> {
    numbered(count, |_| "a day like any other".to_owned())
}

/// How often each event of the source is in the table, by its number.
fn copies(azure: &Azure) -> std::collections::BTreeMap<u64, usize> {
    let mut copies = std::collections::BTreeMap::new();
    for row in azure.rows() {
        if row["data"]["siemferry"]["api"] == "keeper" {
            *copies.entry(row["data"]["siemferry"]["seq"].as_u64().unwrap()).or_default() += 1;
        }
    }
    copies
}

#[test]
fn a_large_event_arrives_cut_and_marked_and_its_neighbours_whole() {
    for (keys, column) in [("", "data"), ("profile = \"full\"", "Raw")] {
        let azure = Azure::start(Options::default());
        let long = "\u{e9}\u{4e2d}".repeat(250_000);
        let text = |n: i64| if n == 7 { long.clone() } else { format!("text {n} \u{1f511}") };
        let (_sim, home) = given(&azure, numbered(20, text), keys);

        home.run_once_well();

        let rows = azure.rows();
        let own = |row: &&Value| row[column]["n"].is_i64();
        let rows: Vec<&Value> = rows.iter().filter(own).collect();
        assert_eq!(rows.len(), 20, "{column}");
        for row in rows {
            let (record, n) = (&row[column], row[column]["n"].as_i64().unwrap());
            let arrived = record["text"].as_str().unwrap();
            if n == 7 {
                assert!(long.starts_with(arrived) && arrived.len() > 60_000, "{}", arrived.len());
                assert_eq!(record["siemferry"]["truncated"], true);
            } else {
                assert_eq!(arrived, text(n));
                assert_eq!(record["siemferry"]["truncated"], Value::Null);
            }
        }
        let tally = format!("{:?}", azure.tally());
        let clean = format!("{:?}", Azure::start(Options::default()).tally());
        let untimed = |text: &str| text.split("retimed").next().unwrap().to_owned();
        assert_eq!(untimed(&tally), untimed(&clean), "nothing was cut or discarded there");
        assert!(azure.uploads().iter().all(|it| it.sent <= 1_000_000 && it.plain <= 1_000_000));
    }
}

#[test]
fn no_body_of_a_hundred_thousand_random_events_is_too_large() {
    const ALPHABET: [&str; 8] =
        ["a", "\u{e9}", "\u{4e2d}", "\u{1f511}", "\\n", "\\u2028", "\\\"", "z"];
    let toml = "[sentinel]\nendpoint = 'http://127.0.0.1:1'\nrule = 'dcr-0'\nstream = 'Custom-A'\nauth = { arc = {} }";
    for profile in ["keeper-solution", "full"] {
        let config: sink::Config =
            toml::from_str(&format!("{toml}\nprofile = '{profile}'")).unwrap();
        assert_eq!(config.check(), []);
        let (sink, limits) = (config.build(), config.delivery().batch);
        let (mut random, mut batch, mut bodies) = (Rng::new(5), Batch::default(), 0);
        let mut largest = 0;
        for number in 0..50_000_u64 {
            let length = if number % 5000 == 1 { 400_000 } else { random.index(400) };
            let text: String = (0..length).map(|_| *random.pick(&ALPHABET)).collect();
            let raw = format!(r#"{{"audit_event":"login","username":"{text}","n":{number}}}"#);
            let event = Event {
                seq: number,
                uid: Uid([7; 16]),
                time: Some(START),
                event_type: Some("login"),
                raw: raw.as_bytes(),
                source: "acme",
                api: "keeper",
                received: START,
            };
            let before = batch.bytes.len();
            sink.encode(&event, &mut batch.bytes).unwrap();
            let is_too_much = batch.bytes.len() as u64 > limits.bytes.get();
            if before > 0 && (is_too_much || batch.ends.len() >= limits.events.get() as usize) {
                let next = batch.bytes.split_off(before);
                largest = largest.max(body_is_small_enough(&batch));
                bodies += 1;
                batch = Batch { bytes: next, ..Batch::default() };
            }
            batch.ends.push(batch.bytes.len());
        }
        assert!(bodies > 10 && largest > 900_000, "{bodies} bodies, {largest}");
    }
}

/// As the sink makes it of a batch: brackets, and gzip at its fastest.
fn body_is_small_enough(batch: &Batch) -> usize {
    let body = [b"[", &batch.bytes[1..], b"]"].concat();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(1));
    encoder.write_all(&body).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(body.len() <= 1_000_000 && packed.len() <= 1_000_000, "{}", body.len());
    assert!(serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(&body).is_ok());
    body.len()
}

#[test]
fn whatever_azure_says_in_between_nothing_is_lost_and_each_change_is_told_once() {
    let azure = Azure::start(Options::default());
    let (_sim, home) = given(&azure, plain(300), "batch = { events = 40 }");
    azure.fault_when(|seen| {
        (seen.kind == Kind::Ingest).then(|| Fault::status(401, "InvalidToken", "no"))
    });
    let mut daemon = home.spawn();
    let mut changes = 0;
    let mut is_told = |what: &str| {
        changes += 1;
        eventually(what, || troubles(&home).len() >= changes);
        let told = troubles(&home);
        assert_eq!(told.len(), changes, "{what}: {told:#?}");
        assert!(told[changes - 1].contains(what), "{what}: {told:#?}");
        assert!(told[changes - 1].contains("batch"), "its id is told: {told:#?}");
    };
    is_told("401");
    for code in [403, 404, 413, 429, 503] {
        let name = format!("Code{code}");
        azure.fault_when(move |seen| {
            (seen.kind == Kind::Ingest).then(|| Fault::status(code, &name, "because"))
        });
        daemon.signal("HUP");
        is_told(&code.to_string());
        let asked = azure.asked();
        daemon.signal("HUP");
        eventually("it asks again", || azure.asked() > asked);
    }

    azure.mend();
    daemon.signal("HUP");

    eventually("all has arrived", || {
        daemon.signal("HUP");
        copies(&azure).len() == 300
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(copies(&azure).values().all(|copies| *copies == 1));
    assert_eq!(
        (sink(&home)["dead_letters"].as_u64(), sink(&home)["ambiguous"].as_u64()),
        (Some(0), Some(0))
    );
}

#[test]
fn a_role_that_comes_late_is_waited_for() {
    let azure = Azure::start(Options::default());
    let (_sim, home) = given(&azure, plain(60), "");
    azure.grant(false);
    let mut daemon = home.spawn();
    eventually("it retries", || home.logged("Delivery failed; will retry.") == 1);
    eventually("it is shown", || sink(&home)["state"] == "retrying");
    assert!(troubles(&home)[0].contains("Monitoring Metrics Publisher"), "{:?}", troubles(&home));

    azure.grant(true);

    eventually("all has arrived", || copies(&azure).len() == 60);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(home.logged("Sink is blocked"), 0);
    assert!(copies(&azure).values().all(|copies| *copies == 1));
}

#[test]
fn a_narrow_table_gets_each_half_hour_by_itself() {
    let azure = Azure::start(Options { is_narrow: true, ..Options::default() });
    azure.fault_when(|seen| {
        (seen.kind == Kind::Ingest && seen.number % 5 == 3).then_some(Fault::LoseAnswer)
    });
    let hours = (0..5).flat_map(|hour| {
        numbered_from(START - 6 * HOUR + hour * HOUR, 20, |_| "long ago".to_owned())
    });
    let (sim, home) =
        given(&azure, hours.collect::<Vec<_>>(), "batch = { wait = \"0s\" }\ntimeout = \"5s\"");
    let config = read(&home.path("siemferry.toml"));
    let (before, rest) = config.split_once("start = \"").unwrap();
    let rest = rest.split_once('"').unwrap().1;
    home.write("siemferry.toml", &format!("{before}start = \"1d\"{rest}"));

    home.run_once_well();

    let (copies, count) = (copies(&azure), sim.api.truth().len());
    assert_eq!(copies.len(), count);
    let mut spans: std::collections::BTreeMap<u64, Vec<String>> = std::collections::BTreeMap::new();
    for row in azure.all_rows() {
        let raw: Value = serde_json::from_str(&row.raw).unwrap();
        let time = raw["TimeGenerated"].as_str().unwrap().to_owned();
        spans.entry(row.request).or_default().push(time);
    }
    assert!(spans.len() >= 8, "{} requests", spans.len());
    let repeated = copies.values().any(|copies| *copies > 1);
    let ambiguous = sink(&home)["ambiguous"].as_u64().unwrap();
    assert!(repeated && ambiguous > 0, "what was lost is repeated, and counted: {ambiguous}");
    assert_eq!(sink(&home)["dead_letters"], 0);
}

#[test]
fn a_batch_keeps_its_id_when_it_is_sent_again() {
    let azure = Azure::start(Options::default());
    azure.fault_when(|seen| match (seen.kind, seen.number) {
        (Kind::Ingest, 1) => Some(Fault::LoseAnswer),
        (Kind::Ingest, 2) => Some(Fault::limited("1")),
        _ => None,
    });
    let (_sim, home) = given(&azure, plain(30), "in_flight = 1");

    let output = home.run_once();

    assert!(output.status.success());
    let ids = |kind: Kind| -> Vec<String> {
        let seen = azure.seen().into_iter().filter(|seen| seen.kind == kind);
        seen.map(|seen| seen.header("x-ms-client-request-id").unwrap().to_owned()).collect()
    };
    let ids = ids(Kind::Ingest);
    assert!(ids.len() >= 3 && ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains(&ids[0]), "the log names it: {log}");
    assert_eq!(sink(&home)["ambiguous"], 1);
}

#[test]
fn events_of_long_ago_are_marked_and_told_of_once() {
    let azure = Azure::start(Options::default());
    let (_sim, home) = given(&azure, plain(90), "batch = { events = 10 }");

    let output = home.run_once();

    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && log.matches("Events are over two days old").count() == 1,
        "{log}"
    );
    let rows = azure.rows();
    let old: Vec<&Value> =
        rows.iter().filter(|row| row["data"]["siemferry"]["api"] == "keeper").collect();
    assert_eq!(old.len(), 90);
    for row in old {
        assert_eq!(row["data"]["siemferry"]["backfilled"], true);
        assert_eq!(row["timestamp"], row["data"]["siemferry"]["time"]);
        assert_ne!(row["timestamp"], row["TimeGenerated"], "Azure gives it another");
    }
}

#[test]
fn a_stream_that_would_lose_something_is_told_of_by_name() {
    let azure = Azure::start(Options::default());
    let (_sim, home) = given(&azure, plain(3), "");
    let columns =
        |columns: Value| json!({ "streamDeclarations": { KEEPER.name: { "columns": columns } } });
    let mut all: Vec<Value> = KEEPER
        .columns
        .iter()
        .map(|(name, kind)| json!({ "name": name, "type": format!("{kind:?}").to_lowercase() }))
        .collect();
    let path = home.path("stream.json");
    let config = read(&home.path("siemferry.toml"));
    home.write("siemferry.toml", &format!("{config}schema = \"{}\"\n", path.display()));
    let check = || {
        let output = home.command(&["check", "--online"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    home.write("stream.json", &columns(json!(all)).to_string());
    let told = check();
    assert!(told.contains("ok      sink `peer`"), "{told}");
    assert!(told.contains("takes rows for `Custom-KeeperSecurityEventNewLogs`"), "{told}");

    all.retain(|column| column["name"] != "client_version");
    all[1]["type"] = json!("int");
    home.write("stream.json", &columns(json!(all)).to_string());

    let told = check();
    assert!(told.contains("failed  sink `peer`"), "{told}");
    assert!(told.contains("`client_version` would vanish"), "{told}");
    assert!(
        told.contains("`audit_event` does not fit: it is declared int, and is string"),
        "{told}"
    );
}

#[test]
fn each_refusal_is_explained_by_its_name() {
    let options = Options::default();
    let rule = options.rule.clone();
    let other = "dcr-ffffffffffffffffffffffffffffffff";
    for (change, hint) in [
        (
            (rule.as_str(), other),
            "`rule` is the immutableId of the rule, and `endpoint` must be of the same region",
        ),
        (
            ("EventNewLogs", "EventOldLogs"),
            "declares no stream `Custom-KeeperSecurityEventOldLogs`",
        ),
        (("sinks.peer", "sinks.peer"), "Monitoring Metrics Publisher"),
    ] {
        let azure = Azure::start(options.clone());
        azure.grant(change.0 != change.1);
        let (_sim, home) = given(&azure, plain(3), "");
        let config = read(&home.path("siemferry.toml"));
        home.write("siemferry.toml", &config.replace(change.0, change.1));

        let output = home.command(&["check", "--online"]).output().unwrap();

        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(hint), "{hint}\n{told}");
    }
}

#[test]
fn an_event_that_azure_refuses_is_one_dead_letter() {
    let azure = Azure::start(Options::default());
    let text = |n: i64| if n == 5 { "poison".to_owned() } else { format!("text {n}") };
    let (_sim, home) = given(&azure, numbered(50, text), "");
    azure.refuse_text("poison");

    home.run_once_well();

    assert_eq!((sink(&home)["dead_letters"].as_u64(), copies(&azure).len()), (Some(1), 49));
}
