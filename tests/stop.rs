//! SIGTERM and SIGINT: the first ends in order, the second at once, and the next run goes on.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use siemferry::sim::{Api, Fault};

use crate::rig::{Home, Running, Sim, eventually, read};
use crate::told::{home_of, week_of};

const SIGNALS: [&str; 2] = ["TERM", "INT"];

fn given() -> (Sim, Home) {
    let sim = week_of(600);
    let home = home_of(&sim);
    (sim, home)
}

/// Ends with success, having said so.
#[track_caller]
fn ends_in_order(home: &Home, daemon: &mut Running, signal: &str) {
    daemon.signal(signal);
    let status = daemon.wait();
    assert_eq!(status.code(), Some(0), "{signal}: {status}");
    assert!(read(&home.log()).contains("\"message\":\"Stopped.\""), "{signal}");
}

/// What the file holds is settled, and nothing else.
#[track_caller]
fn is_all_settled(home: &Home) {
    let status = home.status();
    let delivered = &status["sinks"]["archive"]["delivered"];
    assert_eq!(delivered, home.lines().len(), "{status}");
}

/// From some request on, this happens.
fn from_request(api: &Api, first: u64, fault: Fault) {
    api.fault_when(move |request| (request.number >= first).then(|| fault.clone()));
}

#[test]
fn a_signal_ends_the_daemon_in_the_middle_of_a_reading() {
    for signal in SIGNALS {
        let (sim, home) = given();
        from_request(&sim.api, 6, Fault::Hold);
        let mut daemon = home.spawn();
        sim.wait_for_requests(6);

        ends_in_order(&home, &mut daemon, signal);

        is_all_settled(&home);
        assert!(home.lines().len() < 600);
        sim.api.mend();
        home.delivers_all(&sim);
    }
}

#[test]
fn a_signal_ends_an_idle_daemon() {
    for signal in SIGNALS {
        let (sim, home) = given();
        home.edit("poll_every = \"50ms\"", "poll_every = \"1h\"");
        let mut daemon = home.spawn();
        eventually("all is read", || home.lines().len() == 600);

        ends_in_order(&home, &mut daemon, signal);

        is_all_settled(&home);
        home.delivers_all(&sim);
    }
}

#[test]
fn a_signal_ends_a_daemon_whose_source_is_blocked() {
    for signal in SIGNALS {
        let (sim, home) = given();
        from_request(&sim.api, 4, Fault::status(401, ""));
        let mut daemon = home.spawn();
        eventually("it is blocked", || home.logged("Source is blocked") > 0);

        ends_in_order(&home, &mut daemon, signal);

        is_all_settled(&home);
        sim.api.mend();
        home.delivers_all(&sim);
    }
}

#[test]
fn a_signal_ends_a_daemon_whose_source_waits_to_retry() {
    for signal in SIGNALS {
        let (sim, home) = given();
        let later = Fault::status(503, "").with_header("retry-after", "600");
        from_request(&sim.api, 4, later);
        let mut daemon = home.spawn();
        eventually("it retries", || home.logged("Fetch failed") > 0);

        ends_in_order(&home, &mut daemon, signal);

        is_all_settled(&home);
        sim.api.mend();
        home.delivers_all(&sim);
    }
}

#[test]
fn a_signal_ends_a_daemon_whose_sink_is_blocked() {
    for signal in SIGNALS {
        let (sim, home) = given();
        fs::create_dir(home.file()).unwrap();
        let mut daemon = home.spawn();
        eventually("it is blocked", || home.logged("Sink is blocked") > 0);

        ends_in_order(&home, &mut daemon, signal);

        assert_eq!(home.status()["sinks"]["archive"]["delivered"], 0);
        fs::remove_dir(home.file()).unwrap();
        home.delivers_all(&sim);
    }
}

#[test]
fn a_signal_ends_a_daemon_whose_api_does_not_answer() {
    let (sim, home) = given();
    from_request(&sim.api, 4, Fault::Stall);
    let mut daemon = home.spawn();
    sim.wait_for_requests(4);

    ends_in_order(&home, &mut daemon, "TERM");

    is_all_settled(&home);
    sim.api.mend();
    home.delivers_all(&sim);
}

#[test]
fn a_signal_ends_a_single_run_that_is_not_done() {
    let (sim, home) = given();
    from_request(&sim.api, 4, Fault::Stall);
    let mut command = home.command(&["run", "--once"]);
    let mut once = command.stderr(Stdio::null()).spawn().unwrap();
    sim.wait_for_requests(4);

    let kill = Command::new("kill").arg(once.id().to_string()).status();

    assert!(kill.unwrap().success());
    assert_eq!(once.wait().unwrap().code(), Some(1), "it has not read all it was to read");
    is_all_settled(&home);
    sim.api.mend();
    home.delivers_all(&sim);
}

/// Two signals of one kind may be told as one, so they are of two kinds.
const PAIRS: [[&str; 2]; 2] = [["TERM", "INT"], ["INT", "TERM"]];

#[track_caller]
fn ends_at_once(home: &Home, daemon: &mut Running, signals: [&str; 2]) {
    for signal in signals {
        daemon.signal(signal);
    }
    let status = daemon.wait();
    assert_eq!(status.code(), Some(1), "{signals:?}: {status}");
    assert_eq!(home.logged("Stopped."), 0, "{signals:?}");
}

#[test]
fn a_second_signal_ends_a_daemon_that_waits_for_its_store() {
    for signals in PAIRS {
        let (sim, home) = given();
        sim.api.fault_when(|request| (request.number == 4).then_some(Fault::Hold));
        let mut daemon = home.spawn();
        sim.wait_for_requests(4);
        let store = Connection::open(home.path("state/siemferry.db")).unwrap();
        store.busy_timeout(Duration::from_secs(60)).unwrap();
        store.execute_batch("BEGIN IMMEDIATE").unwrap();
        sim.api.release();
        // The next page is asked for while this one waits to be committed.
        sim.wait_for_requests(5);

        ends_at_once(&home, &mut daemon, signals);

        drop(store);
        home.delivers_all(&sim);
    }
}

#[test]
fn a_signal_ends_a_daemon_that_waits_for_its_token() {
    for signal in ["TERM", "INT"] {
        let (sim, home) = given();
        let (begun, pipe) = (home.path("begun"), home.path("pipe"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let script = format!(": > {}; exec cat {}", begun.display(), pipe.display());
        let command = format!("token = {{ command = [\"sh\", \"-c\", \"{script}\"] }}");
        let before = home.edit("token = { env = \"RIG_TOKEN\" }", &command);
        let mut daemon = home.spawn();
        eventually("the command runs", || begun.exists());

        daemon.signal(signal);

        assert_eq!(daemon.wait().code(), Some(0), "{signal}");

        // Lets the command end.
        fs::write(pipe, "").unwrap();
        home.write("siemferry.toml", &before);
        home.delivers_all(&sim);
    }
}
