//! The disk is full before the daemon starts.

use std::fs;

use super::disk::{MIB, SmallDisk};
use super::flow::Flow;
use crate::rig::eventually;

const WAITS: &str = "There is no room for the store; the start waits.";

fn given() -> (Flow, SmallDisk) {
    // More than the ballast.
    let flow = Flow::new(1000, "reserve = \"9MiB\"");
    let disk = SmallDisk::mount(flow.home.state(), 16 * MIB);
    (flow, disk)
}

/// As the last run leaves it that was killed in the middle.
fn given_a_store() -> (Flow, SmallDisk) {
    let (flow, disk) = given();
    let mut daemon = flow.home.spawn();
    flow.wait_for_some();
    daemon.kill();
    (flow, disk)
}

#[test]
fn root_a_first_start_waits_for_room_and_goes_on_by_itself() {
    // To the last block, and with room for a part of what a store is made of.
    for free in (0..16).map(|n| n * 20_480) {
        let (flow, disk) = given();
        disk.fill_but(free);
        let mut daemon = flow.home.spawn();
        eventually("it is told", || flow.home.logged(WAITS) + flow.home.logged("pauses") > 0);
        assert!(!daemon.has_ended());

        disk.empty();
        flow.ends_well(&mut daemon);
        assert!(flow.home.logged(WAITS) <= 1, "{free}: {}", flow.said());
        drop(daemon);
    }
}

#[test]
fn root_a_start_that_waits_for_room_ends_when_it_is_told_to() {
    for signal in ["TERM", "INT"] {
        let (flow, disk) = given();
        disk.fill();
        let mut daemon = flow.home.spawn();
        eventually("it waits", || flow.home.logged(WAITS) > 0);

        daemon.signal(signal);

        assert_eq!(daemon.wait().code(), Some(0), "{}", flow.said());
        disk.empty();
        flow.ends_well_once();
    }
}

#[test]
fn root_a_single_run_waits_for_room_as_long_as_it_has_patience() {
    let (flow, disk) = given();
    disk.fill();

    let told = flow.home.impatient();

    assert_eq!(told.code, Some(1), "{}", told.log);
    let hint =
        "hint: free some space on the file system of `state.dir`; siemferry goes on by itself\n";
    assert!(told.said.starts_with("error: "), "{}", told.said);
    assert!(told.said.contains("no space left") || told.said.ends_with(hint), "{}", told.said);
    assert_eq!(told.log.matches(WAITS).count(), 1, "{}", told.log);
    disk.empty();
    flow.ends_well_once();
}

#[test]
fn root_a_start_gives_up_the_ballast_and_delivers_what_is_stored() {
    let (flow, disk) = given_a_store();
    assert!(flow.home.path("state/siemferry.ballast").exists());
    disk.fill();

    let mut daemon = flow.home.spawn();

    eventually("polling pauses", || flow.home.logged("polling pauses") > 0);
    eventually("all is delivered", || {
        let status = flow.home.status();
        status["sinks"]["archive"]["pending"] == 0 && status["sources"]["acme"]["state"] == "paused"
    });
    assert_eq!(flow.home.logged(WAITS), 0, "{}", flow.said());
    disk.empty();
    flow.ends_well(&mut daemon);
}

#[test]
fn root_a_start_without_a_ballast_waits_and_goes_on_by_itself() {
    let (flow, disk) = given_a_store();
    fs::remove_file(flow.home.path("state/siemferry.ballast")).unwrap();
    disk.fill();

    let mut daemon = flow.home.spawn();
    eventually("it is told", || flow.home.logged(WAITS) + flow.home.logged("pauses") > 0);
    assert!(!daemon.has_ended());

    disk.empty();
    flow.ends_well(&mut daemon);
}

#[test]
fn root_a_start_with_a_full_disk_of_the_file_waits_for_the_file_alone() {
    let flow = Flow::new(1000, "");
    flow.home.edit("events.ndjson", "out/events.ndjson");
    let disk = SmallDisk::mount(flow.home.path("out"), 4 * MIB);
    std::os::unix::fs::symlink("out/events.ndjson", flow.home.file()).unwrap();
    disk.fill();
    // Not even an empty file can be made.
    disk.limit_files(2);

    let mut daemon = flow.home.spawn();
    eventually("it retries", || flow.home.logged("Delivery failed again.") > 0);
    let status = flow.home.status();
    assert_eq!(status["sinks"]["archive"]["state"], "retrying", "{status}");
    assert_eq!(status["sources"]["acme"]["state"], "ok", "{status}");

    disk.empty();
    disk.limit_files(1000);
    flow.ends_well(&mut daemon);
}

#[test]
fn root_status_shows_what_is_stored_while_the_disk_is_full_and_nothing_runs() {
    let (flow, disk) = given_a_store();
    for stops_in_order in [false, true] {
        if stops_in_order {
            disk.empty();
            let mut daemon = flow.home.spawn();
            flow.wait_for_some();
            daemon.signal("TERM");
            assert!(daemon.wait().success());
        }
        let before = flow.home.status();
        if stops_in_order {
            // These are left by the one who looked, and would have to be made anew.
            for file in ["siemferry.db-shm", "siemferry.db-wal"] {
                fs::remove_file(flow.home.state().join(file)).unwrap();
            }
        }
        disk.fill();

        let shown = flow.home.status();

        for key in ["sinks", "spool"] {
            assert_eq!(shown[key], before[key]);
        }
    }
    disk.empty();
    flow.ends_well_once();
}
