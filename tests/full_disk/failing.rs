//! System calls that fail: for a quota, which is a full disk, and for a disk that is broken.

use std::process::Command;

use super::flow::Flow;
use super::tight::is_sound;
use crate::rig::{Home, eventually};
use crate::told::wrapped;

const EVENTS: usize = 1500;

/// The same command, with some of the system calls on some of the files failing.
fn failing(home: &Home, command: &Command, files: &[&str], inject: &str) -> Command {
    traced(home, command, files, inject, &[])
}

/// The daemon, as above. It keeps its process id.
fn failing_daemon(home: &Home, files: &[&str], inject: &str) -> Command {
    traced(home, &home.command(&["run"]), files, inject, &["-D"])
}

fn traced(home: &Home, command: &Command, files: &[&str], inject: &str, how: &[&str]) -> Command {
    let told = home.path("strace").display().to_string();
    let call = inject.split(':').next().unwrap();
    let (trace, inject) = (format!("trace={call}"), format!("inject={inject}"));
    let paths: Vec<_> = files.iter().map(|file| home.path(file).display().to_string()).collect();
    let mut arguments = how.to_vec();
    arguments.extend(["-f", "-qq", "-o", &told, "-e", &trace, "-e", &inject]);
    arguments.extend(paths.iter().flat_map(|path| ["-P", path]));
    wrapped("strace", &arguments, command)
}

/// How many calls were made to fail.
fn injected(home: &Home) -> usize {
    crate::rig::read(&home.path("strace")).matches("(INJECTED)").count()
}

const STORE: [&str; 3] = ["state/siemferry.db", "state/siemferry.db-wal", "state/siemferry.db-shm"];

#[test]
fn a_quota_below_the_store_is_taken_for_a_full_disk() {
    for (call, error) in [("pwrite64", "EDQUOT"), ("fsync", "EDQUOT"), ("pwrite64", "ENOSPC")] {
        let flow = Flow::new(EVENTS, "reserve = \"0B\"");
        let often = if call == "fsync" { "when=20+13" } else { "when=60+151" };
        let inject = format!("{call}:error={error}:{often}");
        let mut daemon = flow.home.spawn_as(failing_daemon(&flow.home, &STORE, &inject));

        flow.ends_well(&mut daemon);

        eventually("calls have failed", || injected(&flow.home) >= 5);
        assert!(flow.home.logged("The disk is full; the ballast goes.") > 0, "{inject}");
        daemon.signal("TERM");
        assert!(daemon.wait().success(), "{}", flow.said());
        is_sound(&flow.home);
    }
}

#[test]
fn a_quota_below_the_file_is_waited_for() {
    let flow = Flow::new(EVENTS, "");
    let inject = "write:error=EDQUOT:when=3+2";
    let mut daemon = flow.home.spawn_as(failing_daemon(&flow.home, &["events.ndjson"], inject));

    eventually("it has failed", || flow.home.logged("Delivery failed") > 0);
    flow.ends_well(&mut daemon);

    eventually("calls have failed", || injected(&flow.home) > 0);
}

/// A disk that fails ends the run, and the next one loses and doubles nothing.
#[track_caller]
fn ends_and_goes_on(flow: &Flow, files: &[&str], inject: &str) -> bool {
    flow.settle_time();
    let command = flow.home.command(&["run", "--once", "--patience", "20s"]);

    let told = flow.home.told(failing(&flow.home, &command, files, inject));

    let has_failed = injected(&flow.home) > 0;
    if has_failed {
        assert_eq!(told.code, Some(1), "{inject}: {}{}", told.said, told.log);
        let said = ["use the database: disk I/O error", "Input/output error (os error 5)"];
        let is_told = said.iter().any(|said| told.said.contains(said));
        // SQLite hides what keeps it from the making of a log.
        let is_hidden = told.said.contains("`journal_mode` is delete instead of wal");
        assert!(is_told || is_hidden, "{inject}: {}", told.said);
        let hint = "\nhint: see the kernel's log for what is wrong with the disk; \
                    what is stored stays, and the next start goes on from there\n";
        assert!(is_hidden || told.said.ends_with(hint), "{inject}: {}", told.said);
    } else {
        assert_eq!(told.code, Some(0), "{inject}: {}", told.said);
    }
    flow.ends_well_once();
    is_sound(&flow.home);
    has_failed
}

#[test]
fn an_error_of_the_disk_ends_the_run_and_the_next_one_loses_nothing() {
    let mut failed = 0;
    for call in ["fsync", "pwrite64"] {
        // The first ones are made while the store is opened, the later ones by its writer.
        for when in ["1", "2", "4", "5+", "8+", "20", "33+"] {
            let inject = format!("{call}:error=EIO:when={when}");
            let flow = Flow::new(EVENTS, "");
            failed += usize::from(ends_and_goes_on(&flow, &STORE, &inject));
        }
    }
    assert!(failed >= 10, "only {failed} of 14 have hit anything");
}

#[test]
fn an_error_while_the_log_is_moved_into_the_database_ends_the_run_as_well() {
    let flow = Flow::new(8 * EVENTS, "");
    flow.home.run_once_well();

    // The first one is that of the start, or the first move; the second can only be a move.
    assert!(ends_and_goes_on(&flow, &["state/siemferry.db"], "fsync:error=EIO:when=2"));
}
