//! Somebody fills the disk in the middle, and frees it later.

use siemferry::sim::Rng;

use super::disk::{MIB, SmallDisk};
use super::flow::Flow;
use super::tight::is_sound;
use crate::rig::eventually;

const EVENTS: usize = 2000;

const PAUSED: &str = "There is no room for new events; polling pauses.";
const RETRIES: &str = "Delivery failed; will retry.";

/// A flow whose file is in a directory of its own; `spool` is that section.
fn flow(events: usize, spool: &str) -> Flow {
    let flow = Flow::new(events, spool);
    flow.home.edit("events.ndjson", "out/events.ndjson");
    std::fs::create_dir(flow.home.path("out")).unwrap();
    std::os::unix::fs::symlink("out/events.ndjson", flow.home.file()).unwrap();
    flow
}

/// Takes what becomes free as well, until the source waits; returns how often there was something.
#[track_caller]
fn fill_until_paused(flow: &Flow, disk: &SmallDisk) -> usize {
    let mut taken = 0;
    eventually("polling pauses", || {
        taken += usize::from(disk.fill());
        // Without a single block the source's state could not be stored.
        disk.give_back(256 << 10);
        flow.is_paused()
    });
    taken
}

/// The log tells the begin and the end of it, once each, and no oftener than it `may` have begun.
#[track_caller]
fn is_told_once(flow: &Flow, may: usize) {
    let told = |sentence: &str| flow.home.logged(sentence);
    assert!((1..=may).contains(&told(PAUSED)), "{may}: {}", flow.said());
    assert_eq!(told("Source works again."), told(PAUSED), "{}", flow.said());
    assert!(told(RETRIES) <= may, "{}", flow.said());
    assert_eq!(told(RETRIES), told("Sink works again."), "{}", flow.said());
}

#[test]
fn root_a_full_state_disk_pauses_polling_and_is_told_once() {
    let flow = flow(EVENTS, "reserve = \"4MiB\"");
    let disk = SmallDisk::mount(flow.home.state(), 24 * MIB);
    let mut daemon = flow.home.spawn();
    flow.wait_for_some();
    let ballast = flow.home.path("state/siemferry.ballast");
    let kept = ballast.metadata().unwrap().len();
    let half = 8 * MIB..=10 * MIB;
    assert!(half.contains(&kept), "half of what is free above the reserve: {kept}");

    let times = fill_until_paused(&flow, &disk);

    let (_, error) = flow.source();
    let dir = flow.home.state().display().to_string();
    let begin = format!("the file system of `{dir}` has ");
    let end = " MiB free, less than the reserve of 4MiB";
    let is_low = error.starts_with(&begin) && error.ends_with(end);
    let is_full = error == format!("there is no space left on the file system of `{dir}`");
    assert!(is_low || is_full, "{error}");
    disk.empty();
    flow.ends_well(&mut daemon);
    eventually("it works again", || {
        flow.home.logged("Source works again.") == flow.home.logged(PAUSED)
    });
    is_told_once(&flow, times);
}

#[test]
fn root_what_delivered_pages_take_up_is_given_back_before_polling_pauses() {
    let flow = flow(EVENTS, "reserve = \"4MiB\"");
    let disk = SmallDisk::mount(flow.home.state(), 24 * MIB);
    let mut daemon = flow.home.spawn();
    flow.wait_for_some();

    disk.fill_but(4 * MIB + MIB / 2);

    flow.ends_well(&mut daemon);
    let kept = &flow.home.status()["spool"]["events"];
    assert!(kept.as_u64().unwrap() < EVENTS as u64, "though `spool.keep` is a day: {kept}");
}

#[test]
fn root_a_full_disk_of_the_file_is_told_once_and_the_file_is_gone_on_with() {
    let flow = flow(EVENTS, "reserve = \"4MiB\"");
    let disk = SmallDisk::mount(flow.home.path("out"), 4 * MIB);
    let mut daemon = flow.home.spawn();
    flow.wait_for_some();

    disk.fill();
    eventually("it retries", || flow.home.logged("Delivery failed again.") >= 2);
    let sink = &flow.home.status()["sinks"]["archive"];
    assert_eq!(sink["state"], "retrying", "{sink}");
    let error = sink["last_error"].as_str().unwrap();
    assert!(error.contains("No space left on device"), "{error}");

    disk.empty();
    flow.ends_well(&mut daemon);
    let told = |sentence: &str| flow.home.logged(sentence);
    assert_eq!((told(RETRIES), told("Sink works again.")), (1, 1), "{}", flow.said());
    assert_eq!((told("Cut the torn end"), told("Adopted lines")), (0, 0), "{}", flow.said());
}

#[test]
fn root_state_and_file_on_one_full_disk_go_on_when_there_is_room() {
    for reserve in ["4MiB", "0B"] {
        let flow = Flow::new(EVENTS, &format!("reserve = \"{reserve}\""));
        flow.home.edit("events.ndjson", "state/events.ndjson");
        std::os::unix::fs::symlink("state/events.ndjson", flow.home.file()).unwrap();
        let disk = SmallDisk::mount(flow.home.state(), 24 * MIB);
        let mut daemon = flow.home.spawn();
        flow.wait_for_some();

        fill_until_stuck(&flow, &disk);

        disk.empty();
        flow.ends_well(&mut daemon);
        drop(daemon);
    }
}

/// Takes what becomes free as well, until nothing can be written for certain.
#[track_caller]
fn fill_until_stuck(flow: &Flow, disk: &SmallDisk) {
    eventually("nothing can be written", || {
        disk.fill();
        flow.home.logged(PAUSED) > 0 || flow.home.logged(RETRIES) > 0
    });
}

#[test]
fn root_two_full_disks_at_once_go_on_when_there_is_room() {
    for state_is_freed_first in [true, false] {
        let flow = flow(EVENTS, "reserve = \"1MiB\"");
        let state = SmallDisk::mount(flow.home.state(), 16 * MIB);
        let file = SmallDisk::mount(flow.home.path("out"), 4 * MIB);
        let mut daemon = flow.home.spawn();
        flow.wait_for_some();

        file.fill();
        fill_until_paused(&flow, &state);

        let (first, second) = if state_is_freed_first { (&state, &file) } else { (&file, &state) };
        first.empty();
        second.empty();
        flow.ends_well(&mut daemon);
        drop(daemon);
    }
}

/// Fills and frees either disk, or kills the daemon, in an order left to chance.
#[test]
fn root_disks_that_fill_at_random_and_kills_lose_and_double_nothing() {
    for seed in 0..4 {
        let flow = flow(3 * EVENTS, "reserve = \"1MiB\"");
        let state = SmallDisk::mount(flow.home.state(), 12 * MIB);
        let file = SmallDisk::mount(flow.home.path("out"), 8 * MIB);
        let mut random = Rng::new(seed);
        let mut daemon = flow.home.spawn();
        let mut kills = 0;

        for _ in 0..60 {
            let disk = if random.below(2) == 0 { &state } else { &file };
            match random.below(8) {
                0 | 1 => drop(disk.fill()),
                2 => drop(disk.fill_but(random.below(2 * MIB))),
                3..=5 => disk.empty(),
                _ => {
                    daemon.kill();
                    kills += 1;
                    daemon = flow.home.spawn();
                }
            }
            std::thread::park_timeout(std::time::Duration::from_millis(random.below(120)));
            assert!(!daemon.has_ended(), "{}", flow.said());
        }

        state.empty();
        file.empty();
        flow.ends_well(&mut daemon);
        assert!(kills > 0);
        drop(daemon);
        is_sound(&flow.home);
    }
}
