//! The whole of it: the real binary, from the API into the index.

use std::collections::BTreeMap;

use serde_json::Value;
use siemferry::sim::SimEvent;

use crate::hec::{AckMode, AckPlan, AtRestart, Fault, Hec, Kind, Options, Partly};
use crate::peer::{Peer as _, api_of, copies, home_for, numbered};
use crate::rig::{Home, Sim, eventually, read};

/// A home whose only sink is the simulator; `keys` are lines of its table.
fn given(hec: &Hec, events: impl IntoIterator<Item = SimEvent>, keys: &str) -> (Sim, Home) {
    let sim = api_of(events, 100);
    let home = home_for(&sim, "");
    let config = read(&home.path("siemferry.toml"));
    let others = config.split_once("[sinks.archive.file]").unwrap().0;
    let table = hec.config(keys).replace("ack = \"off\"", "ack = \"auto\"");
    home.write("siemferry.toml", &format!("{others}{table}"));
    (sim, home)
}

fn with_acks(plan: AckPlan) -> Options {
    Options { ack: AckMode::On, plan, ..Options::default() }
}

fn sink(home: &Home) -> Value {
    home.status()["sinks"]["peer"].clone()
}

fn number(home: &Home, name: &str) -> u64 {
    sink(home)[name].as_u64().unwrap()
}

/// How often each event is in the index for good.
fn acknowledged(hec: &Hec) -> BTreeMap<u64, usize> {
    let lines = hec.indexed().into_iter().filter(|event| event.is_acknowledged);
    copies(&lines.map(|event| event.event).collect::<Vec<_>>())
}

fn plain(count: i64) -> impl Iterator<Item = SimEvent> {
    numbered(count, |_| "a day like any other".to_owned())
}

#[test]
fn what_is_acknowledged_late_and_out_of_order_arrives_once() {
    for plan in [AckPlan::after(4), AckPlan::out_of_order()] {
        let hec = Hec::start(with_acks(plan));
        let (_sim, home) =
            given(&hec, plain(300), "batch = { events = 20 }\nack_timeout = \"50s\"");

        home.run_once_well();

        let acknowledged = acknowledged(&hec);
        assert_eq!(acknowledged.len(), 300);
        assert!(acknowledged.values().all(|copies| *copies == 1));
        assert_eq!(number(&home, "ambiguous"), 0);
        assert!(hec.waiting().most <= 4, "{}", hec.waiting().most);
    }
}

#[test]
fn what_is_never_acknowledged_is_sent_again_on_a_new_channel() {
    let hec = Hec::start(with_acks(AckPlan::by(|_, request| (request > 3).then_some(1))));
    let keys = "batch = { events = 20 }\nack_timeout = \"1s\"\nin_flight = 2";
    let (_sim, home) = given(&hec, plain(100), keys);

    home.run_once_well();

    let acknowledged = acknowledged(&hec);
    assert_eq!(acknowledged.len(), 100);
    let all = copies(&hec.lines());
    let repeats: usize = all.values().map(|copies| copies - 1).sum();
    let ambiguous = number(&home, "ambiguous");
    assert!(repeats > 0 && repeats as u64 <= ambiguous * 20, "{repeats} {ambiguous}");
    let channels: std::collections::BTreeSet<_> =
        hec.uploads().into_iter().filter_map(|upload| upload.channel).collect();
    assert!(channels.len() > 1, "{channels:?}");
    for event in hec.indexed() {
        let line: Value = serde_json::from_str(&event.event).unwrap();
        assert_eq!(event.fields.unwrap()["uid"], line["siemferry"]["uid"]);
    }
}

#[test]
fn an_indexer_that_restarts_and_loses_what_it_had_not_acknowledged_loses_nothing() {
    let plan = AckPlan::never();
    let hec = Hec::start(Options { unacknowledged: AtRestart::Lost, ..with_acks(plan) });
    let keys = "batch = { events = 20, wait = \"0s\" }\nack_timeout = \"30s\"";
    let (_sim, home) = given(&hec, plain(200), keys);
    let mut daemon = home.spawn();
    eventually("some wait", || hec.waiting().now == 4);
    assert_eq!(number(&home, "settled_seq"), 0, "nothing is settled before it is acknowledged");

    hec.plan(AckPlan::after(2));
    hec.restart_indexer();

    eventually("all is acknowledged", || acknowledged(&hec).len() == 200);
    eventually("all is settled", || number(&home, "settled_seq") == 200);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    let all = copies(&hec.lines());
    assert!(number(&home, "ambiguous") >= 4);
    assert_eq!(all.len(), 200);
}

#[test]
fn of_a_body_that_is_taken_in_part_no_good_event_is_lost_or_doubled() {
    for (ack, partly) in [
        (AckMode::Off, Partly::WithAckId),
        (AckMode::On, Partly::WithAckId),
        (AckMode::On, Partly::Without),
    ] {
        for poisons in [&[0][..], &[25], &[59], &[0, 1, 2, 30, 58, 59]] {
            let hec = Hec::start(Options { ack, partly, ..Options::default() });
            let text = |n: i64| {
                if poisons.contains(&n) { "poison".to_owned() } else { format!("text {n}") }
            };
            let (_sim, home) =
                given(&hec, numbered(60, text).chain(later()), "batch = { events = 100 }");
            hec.refuse_text("poison");

            home.run_once_well();

            let what = format!("{ack:?} {partly:?} {poisons:?}");
            let all = copies(&hec.lines());
            assert_eq!(all.len(), 100 - poisons.len(), "{what}");
            assert!(all.values().all(|copies| *copies == 1), "{what}: {all:?}");
            assert_eq!(number(&home, "dead_letters"), poisons.len() as u64, "{what}");
        }
    }
}

/// Good events behind the others, which show that it is not the collector's fault.
fn later() -> impl Iterator<Item = SimEvent> {
    crate::peer::numbered_from(crate::tenant::START + crate::tenant::HOUR, 40, |_| {
        "later".to_owned()
    })
}

#[test]
fn each_code_is_explained_by_check() {
    for (status, code, said) in [
        (403, 1, "the token is disabled"),
        (401, 2, "does not see our token"),
        (403, 4, "does not know this token"),
        (400, 7, "may not write to this index"),
        (503, 18, "queues are full"),
    ] {
        let hec = Hec::start(Options::default());
        hec.fault_when(move |_| Some(Fault::code(status, code, "as scripted")));
        let (_sim, home) = given(&hec, plain(3), "");

        let output = home.command(&["check", "--online"]).output().unwrap();

        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains("failed  sink `peer`") && told.contains(said), "{code}: {told}");
    }
    for (options, said) in [
        (Options::default(), "without acknowledgement"),
        (with_acks(AckPlan::after(1)), "with acknowledgement, for the token has it"),
    ] {
        let hec = Hec::start(options);
        let (_sim, home) = given(&hec, plain(3), "");

        let output = home.command(&["check", "--online"]).output().unwrap();

        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains("ok      sink `peer`") && told.contains(said), "{told}");
        assert_eq!(hec.count(), 0, "nothing was sent");
    }
}

#[test]
fn what_is_not_acknowledged_when_that_is_switched_off_is_sent_again() {
    let hec = Hec::start(with_acks(AckPlan::after(1)));
    hec.fault_when(|seen| seen.is(Kind::Ack, 1).then(|| Fault::code(400, 14, "ACK is disabled")));
    let (_sim, home) = given(&hec, plain(60), "batch = { events = 20 }");

    home.run_once_well();

    assert_eq!(acknowledged(&hec).len(), 60);
    assert!(number(&home, "ambiguous") > 0, "what was on its way is counted");
}

#[test]
fn a_token_that_is_replaced_is_used_without_a_restart() {
    let hec = Hec::start(Options::default());
    let (_sim, home) = given(&hec, plain(30), "");
    let put = |token: &str| {
        std::fs::write(home.path("token.new"), token).unwrap();
        let owners = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(home.path("token.new"), owners).unwrap();
        std::fs::rename(home.path("token.new"), home.path("token")).unwrap();
    };
    put("an-old-token");
    let config = read(&home.path("siemferry.toml"));
    let (before, behind) = config.split_once("token = { command").unwrap();
    let behind = behind.split_once('\n').unwrap().1;
    let token = format!("token = {{ file = \"{}\" }}", home.path("token").display());
    home.write("siemferry.toml", &format!("{before}{token}\n{behind}"));
    let mut daemon = home.spawn();
    eventually("it is blocked", || home.logged("Sink is blocked") > 0);

    put(&hec.options().token);
    daemon.signal("HUP");

    eventually("all has arrived", || copies(&hec.lines()).len() == 30);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_page_of_a_proxy_is_no_acceptance() {
    let hec = Hec::start(Options::default());
    hec.fault_when(|seen| {
        let page = || Fault::Status { code: 200, headers: Vec::new(), body: "<html>".to_owned() };
        (seen.kind == Kind::Event).then(page)
    });
    let (_sim, home) = given(&hec, plain(30), "");
    let mut daemon = home.spawn();
    eventually("it is blocked", || home.logged("Sink is blocked") > 0);
    assert_eq!((number(&home, "delivered"), number(&home, "settled_seq")), (0, 0));

    hec.mend();
    daemon.signal("HUP");

    eventually("all has arrived", || copies(&hec.lines()).len() == 30);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_collector_near_its_capacity_has_accepted() {
    let hec = Hec::start(Options::default());
    hec.fault_when(|seen| (seen.kind == Kind::Event && seen.number < 3).then_some(Fault::Near(24)));
    let (_sim, home) = given(&hec, plain(60), "batch = { events = 20 }\nin_flight = 1");

    home.run_once_well();

    assert_eq!(copies(&hec.lines()).len(), 60);
    assert_eq!((hec.count(), number(&home, "ambiguous")), (60, 0));
}
