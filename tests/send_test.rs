//! `siemferry send-test`: one marked event, to one sink, and the truth about it.

use serde_json::Value;

use crate::rig::{Home, Sim, eventually, read};
use crate::told::{Told, home_of, week_of};

fn given() -> (Sim, Home) {
    let sim = week_of(60);
    let home = home_of(&sim);
    let config = std::fs::read_to_string(home.config()).unwrap();
    let other = home.path("other.ndjson");
    let sink = format!("[sinks.other.file]\npath = \"{}\"\n", other.display());
    home.write("siemferry.toml", &(config + &sink));
    (sim, home)
}

fn send_test(home: &Home, arguments: &[&str]) -> Told {
    home.told(home.command(&[&["send-test"], arguments].concat()))
}

fn tests(home: &Home, file: &str) -> Vec<Value> {
    let text = read(&home.path(file));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["siemferry"]["type"] == "test").collect()
}

#[test]
fn beside_a_daemon_it_takes_the_way_of_all_events() {
    let (sim, home) = given();
    let _daemon = home.spawn();
    eventually("all is read", || home.compare(&sim.api).is_exact());

    let told = send_test(&home, &["archive"]);

    assert_eq!((told.code, told.said.as_str()), (Some(0), ""));
    assert_eq!(told.stdout, "sink `archive` has taken the test event\n");
    let found = tests(&home, "events.ndjson");
    let [event] = &found[..] else { panic!("{found:?}") };
    assert_eq!((event["event"].as_str(), event["sink"].as_str()), (Some("test"), Some("archive")));
    assert!(event["user_id"].is_u64() && event["host"].is_string() && event["time"].is_string());
    assert_eq!(event["siemferry"]["source"], "siemferry");
    home.holds_all(&sim);
    eventually("the other sink passes it", || home.status()["sinks"]["other"]["pending"] == 0);
    assert!(tests(&home, "other.ndjson").is_empty(), "it is for one sink alone");
}

#[test]
fn without_a_daemon_the_sink_is_served_with_all_that_waits() {
    let (sim, home) = given();
    std::fs::create_dir(home.file()).unwrap();
    home.impatient();
    std::fs::remove_dir(home.file()).unwrap();

    let told = send_test(&home, &["archive"]);

    assert_eq!((told.code, told.said.as_str()), (Some(0), ""));
    let said = "sink `archive` has taken the test event, and 60 events that waited for it\n";
    assert_eq!(told.stdout, said);
    home.holds_all(&sim);
    assert_eq!(tests(&home, "events.ndjson").len(), 1);
    home.delivers_all(&sim);
    assert!(tests(&home, "other.ndjson").is_empty());
}

#[test]
fn before_the_first_run_it_works_as_well() {
    let (sim, home) = given();

    let told = send_test(&home, &["archive"]);

    assert_eq!(told.stdout, "sink `archive` has taken the test event\n", "{told:?}");
    assert_eq!(tests(&home, "events.ndjson").len(), 1);
    home.delivers_all(&sim);
}

#[test]
fn a_sink_that_is_blocked_is_told_with_what_to_do() {
    let (sim, home) = given();
    std::fs::create_dir(home.file()).unwrap();

    let alone = send_test(&home, &["archive"]);
    let daemon = home.spawn();
    eventually("it is blocked", || {
        sim.api.requests() > 0 && home.status()["sinks"]["archive"]["state"] == "blocked"
    });
    let beside = send_test(&home, &["archive"]);

    for told in [alone, beside] {
        assert_eq!(told.code, Some(1), "{told:?}");
        let begin = "error: send a test to sink `archive`: the sink is blocked: ";
        assert!(told.said.starts_with(begin), "{}", told.said);
        assert!(told.said.contains("\nhint: "), "{}", told.said);
        assert!(told.stdout.is_empty());
    }
    // Neither is lost.
    drop(daemon);
    std::fs::remove_dir(home.file()).unwrap();
    home.delivers_all(&sim);
    assert_eq!(tests(&home, "events.ndjson").len(), 2);
}

#[test]
fn what_cannot_arrive_is_said_at_once() {
    let (_sim, home) = given();

    send_test(&home, &["archvie"]).is(
        2,
        "error: find sink `archvie`: there is none of this name\nhint: the sinks are `archive`, `other`\n",
    );
    home.edit("[sinks.archive.file]", "[sinks.archive.file]\nroute = { exclude = [\"te*\"] }");
    send_test(&home, &["archive"]).is(
        1,
        "error: send a test to sink `archive`: its route excludes the type `test`\nhint: change `exclude` of the sink's `route`\n",
    );
}

#[test]
fn a_daemon_that_does_not_know_the_sink_is_to_be_restarted() {
    let (sim, home) = given();
    let _daemon = home.spawn();
    eventually("all is read", || home.compare(&sim.api).is_exact());
    home.edit("[sinks.other.file]", "[sinks.third.file]");

    send_test(&home, &["third"]).is(
        1,
        "error: send a test to sink `third`: find sink `third`: the store does not know it\nhint: the daemon was started without this sink: restart it\n",
    );
}
