//! The webhook sink within the real binary.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use siemferry::sim::oracle;

use super::{origin, private};
use crate::collector::{Arrival, Collector, Fault, Options};
use crate::rig::{Home, Sim, eventually, read};
use crate::told::{Told, home_of, week_of};

/// A home with a webhook of these keys beside its file.
fn home_with(sim: &Sim, url: &str, keys: &str) -> Home {
    let home = home_of(sim);
    let hook = format!("[sinks.hook.webhook]\nurl = \"{url}\"\n{keys}\n[sinks.archive.file]");
    home.edit("[sinks.archive.file]", &hook);
    home
}

#[track_caller]
fn holds_all(collector: &Collector, sim: &Sim) {
    let report = oracle::compare(&sim.api.truth(), collector.events());
    assert!(report.is_exact() && report.held > 0, "{report}");
}

#[test]
fn every_event_arrives_once_beside_the_file() {
    let (sim, collector) = (week_of(1200), Collector::start(Options::default()));
    let home = home_with(&sim, &collector.url(), "");

    home.delivers_all(&sim);

    holds_all(&collector, &sim);
    let most = collector.accepted().iter().map(|received| received.count).max();
    assert_eq!(most, Some(500));
}

#[test]
fn as_many_batches_are_on_their_way_as_were_asked_for() {
    let (sim, collector) = (week_of(300), Collector::start(Options::default()));
    let home = home_with(&sim, &collector.url(), "in_flight = 3\nbatch = { events = 10 }");
    collector.fault_when(|_| Some(Fault::Hold));
    let _daemon = home.spawn();

    collector.wait_for_held(3);
    collector.mend();

    collector.wait_for(300);
    eventually("all is settled", || home.status()["sinks"]["hook"]["pending"] == 0);
    holds_all(&collector, &sim);
    let batches: HashSet<_> =
        collector.accepted().iter().map(|received| received.arrival.batch().to_owned()).collect();
    assert_eq!(batches.len(), collector.accepted().len(), "none was sent twice");
}

#[test]
fn what_hangs_at_a_stop_is_sent_again_as_it_was() {
    let (sim, collector) = (week_of(300), Collector::start(Options::default()));
    let home = home_with(&sim, &collector.url(), "in_flight = 1");
    home.edit("[log]", "[shutdown]\ngrace = \"200ms\"\n[log]");
    collector.fault_when(|_| Some(Fault::Stall));
    let mut daemon = home.spawn();
    collector.wait_for_requests(1);

    daemon.signal("TERM");
    assert!(daemon.wait().success());
    collector.mend();
    home.run_once_well();

    holds_all(&collector, &sim);
    let [first, again] = &collector.arrivals()[..2] else { panic!("there are two at least") };
    assert_eq!(first.batch(), again.batch());
    assert_eq!(first.header("content-length"), again.header("content-length"));
    assert_eq!(home.status()["sinks"]["hook"]["ambiguous"], 1);
}

#[test]
fn a_webhook_that_lacks_its_secret_holds_up_nobody() {
    let (sim, collector) = (week_of(300), Collector::start(Options::default()));
    let keys = "headers.Authorization = { env = \"THE_HOOK\" }";
    let home = home_with(&sim, &collector.url(), keys);

    let without = home.impatient();

    assert_eq!(without.code, Some(1), "{}", without.said);
    assert!(without.log.contains("read environment variable `THE_HOOK`: it is not set"));
    home.holds_all(&sim);
    assert_eq!(collector.arrivals().len(), 0);
    let mut command = home.command(&["run", "--once"]);
    command.env("THE_HOOK", "Bearer x");
    assert_eq!(home.told(command).code, Some(0));
    holds_all(&collector, &sim);
}

#[test]
fn a_check_tells_where_it_posts_and_asks_only_online() {
    let (sim, collector) = (week_of(10), Collector::start(Options::default()));
    let home = home_with(&sim, &format!("{}?key=check-canary", collector.url()), "");
    let check = |online: &[&str]| {
        let told = home.told(home.command(&[&["check"], online].concat()));
        let line = told.stdout.lines().find(|line| line.contains("sink `hook`")).map(str::to_owned);
        (told.code, line.unwrap_or(told.stdout))
    };
    let place = origin(&collector);

    assert_eq!(check(&[]), (Some(0), format!("ok      sink `hook`: posts to {place}")));
    assert_eq!(collector.arrivals().len(), 0);
    // The path has a query, which the receiver takes for a part of it.
    assert_eq!(
        check(&["--online"]).1,
        format!(
            "ok      sink `hook`: {place} answers, 404 Not Found to a request without events; \
             `siemferry send-test` shows whether it takes events"
        )
    );
    collector.fault_when(|_| Some(Fault::status(403)));
    let (code, line) = check(&["--online"]);
    assert_eq!(code, Some(1));
    assert_eq!(line, format!("failed  sink `hook`: HEAD {place}: 403 Forbidden"));
    assert_eq!(collector.accepted().len(), 0);
}

const CANARY: &str = "cAnArY-0123456789+abcdef";
const PATH: &str = "pAtHcAnArY0123456789abcdef";

/// No text may hold any of these; a part is as good as the whole.
const FORMS: [&str; 6] =
    ["cAnArY", "0123456789+", "0123456789%2", "Y0FuQXJZLTAx", "pAtHc", "a2V5Y2FuYXJ5"];

/// What a hostile receiver answers: all that it was sent, in every way.
fn echo(arrival: &Arrival, status: u16) -> Fault {
    let authorization = arrival.header("authorization").unwrap();
    let encoded = authorization.split_once(' ').unwrap().1;
    let password = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
    let text = format!(
        "{authorization} {encoded} {password} {} {} {}",
        arrival.path,
        arrival.header("x-token").unwrap(),
        STANDARD.encode(arrival.header("x-token").unwrap()),
    );
    let place = format!("https://elsewhere.example.com{}", arrival.path);
    Fault::answer(status, &[("location", &place), ("content-type", "text/plain")], &text)
}

#[track_caller]
fn is_clean(what: &str, text: &str) {
    for form in FORMS {
        let at = text.find(form);
        let shown = |at: usize| text[at..].chars().take(60).collect::<String>();
        assert!(at.is_none(), "{what}: …{}", shown(at.unwrap()));
    }
}

fn files(dir: &Path, but: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path, but)),
            false if but.contains(&path) => {}
            false => found.push(path),
        }
    }
    found
}

#[test]
fn no_secret_that_a_receiver_writes_back_is_shown() {
    let (sim, collector) = (week_of(20), Collector::start(Options::default()));
    let url = format!("http://127.0.0.1:{}/{PATH}?key={CANARY}", collector.port());
    let home = home_with(&sim, &url, "KEYS");
    let basic = format!("Basic {}", STANDARD.encode(format!("user:{CANARY}")));
    let file = PathBuf::from(private(&home.path(""), "basic", &basic));
    let key = format!("whsec_{}", STANDARD.encode("keycanary-keycanary-keycanary"));
    home.edit(
        "KEYS",
        &format!(
            "headers = {{ Authorization = {{ file = {file:?} }}, X-Token = \"{CANARY}\" }}\n\
             signature = {{ keys = [\"{key}\"] }}"
        ),
    );
    home.edit("level = \"debug\"", "level = \"trace\"");
    fs::set_permissions(home.config(), Permissions::from_mode(0o600)).unwrap();
    let run = |arguments: &[&str]| -> Told {
        let told = home.told(home.command(arguments));
        is_clean(&arguments.join(" "), &format!("{}{}{}", told.said, told.log, told.stdout));
        told
    };

    for status in [200, 302, 400, 401, 403, 404, 409, 410, 413, 415, 429, 500, 503] {
        collector.fault_when(move |arrival| Some(echo(arrival, status)));
        let told = run(&["run", "--once", "--patience", "2s"]);
        assert_eq!(told.code, Some(i32::from(status != 200)), "{status}: {}", told.log);
        assert!(status == 200 || told.log.contains("***"), "{status}: {}", told.log);
        run(&["status", "--json"]);
        run(&["check", "--online"]);
        for file in files(&home.path(""), &[file.clone(), home.config()]) {
            is_clean(&file.display().to_string(), &read(&file));
        }
        // Everything is to be delivered again.
        fs::remove_dir_all(home.state()).unwrap();
        fs::remove_file(home.file()).unwrap();
    }
}
