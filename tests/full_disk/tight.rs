//! A disk on which all of it hardly fits, and SQLite itself finds no space, again and again.

use super::disk::{MIB, SmallDisk};
use super::flow::Flow;
use crate::rig::{Home, eventually};
use crate::told::{home_of, week_of, wrapped};

const GOES: &str = "The disk is full; the ballast goes.";

/// What SQLite says of its file.
#[track_caller]
pub fn is_sound(home: &Home) {
    let database = rusqlite::Connection::open(home.path("state/siemferry.db")).unwrap();
    let found: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
}

#[test]
fn root_a_disk_that_is_full_time_and_again_delivers_everything_by_itself() {
    let mut times = 0;
    for kib in [1200, 1600, 2000, 2800] {
        let flow = Flow::new(4000, "reserve = \"0B\"");
        let disk = SmallDisk::mount(flow.home.state(), kib << 10);
        let mut daemon = flow.home.spawn();

        flow.ends_well(&mut daemon);

        times += flow.home.logged(GOES);
        println!("{kib} KiB: {} times full, {} free", flow.home.logged(GOES), disk.free());
        daemon.signal("TERM");
        assert!(daemon.wait().success());
        is_sound(&flow.home);
    }
    assert!(times >= 8, "only {times} times full");
}

#[test]
fn root_kills_on_a_disk_that_is_always_full_lose_and_double_nothing() {
    let flow = Flow::new(4000, "reserve = \"0B\"");
    let _disk = SmallDisk::mount(flow.home.state(), 1600 << 10);
    for _ in 0..30 {
        let mut daemon = flow.home.spawn();
        let asked = flow.sim.api.requests();
        eventually("it goes on, or is full", || {
            flow.sim.api.requests() > asked + 20 || flow.home.logged(GOES) > 0
        });
        daemon.kill();
        is_sound(&flow.home);
    }

    flow.ends_well_once();
}

/// A sink that takes nothing must not have its room taken by pages.
#[test]
fn root_pages_wait_while_a_sink_takes_nothing_and_the_disk_is_full() {
    let flow = Flow::new(4000, "reserve = \"0B\"");
    let _disk = SmallDisk::mount(flow.home.state(), 2 * MIB);
    std::fs::create_dir(flow.home.file()).unwrap();
    let mut daemon = flow.home.spawn();

    eventually("polling pauses", || flow.home.logged("polling pauses") > 0 && flow.is_paused());
    let (_, error) = flow.source();
    let dir = flow.home.state().display().to_string();
    assert_eq!(error, format!("there is no space left on the file system of `{dir}`"));
    assert_eq!(flow.home.status()["sinks"]["archive"]["state"], "blocked");
    let asked = flow.sim.api.requests();
    assert!(!daemon.has_ended());
    daemon.signal("TERM");
    assert!(daemon.wait().success(), "{}", flow.said());

    assert_eq!(flow.sim.api.requests(), asked);
    std::fs::remove_dir(flow.home.file()).unwrap();
    let mut daemon = flow.home.spawn();
    flow.ends_well(&mut daemon);
}

#[test]
fn a_single_run_below_the_reserve_ends_with_what_to_do() {
    let sim = week_of(120);
    let home = home_of(&sim);
    home.edit("[log]", "[spool]\nreserve = \"8000TiB\"\n[log]");

    let told = home.impatient();

    assert_eq!(told.code, Some(1), "{}", told.log);
    let begin = "error: source `acme` is paused: the file system of `HOME/state` has ";
    let end = " MiB free, less than the reserve of 8000TiB\n\
               hint: free some space, or lower `spool.reserve`; polling goes on by itself\n";
    assert!(told.said.starts_with(begin) && told.said.ends_with(end), "{}", told.said);
    assert_eq!(sim.api.requests(), 0);
    assert!(!home.path("state/siemferry.ballast").exists(), "there is no room for it");
    home.edit("8000TiB", "0B");
    home.delivers_all(&sim);
    assert!(home.path("state/siemferry.ballast").exists());
}

/// As a quota, but per file, and it needs no disk of its own.
#[test]
fn a_limit_on_the_size_of_files_is_taken_for_a_full_disk() {
    let flow = Flow::new(3000, "reserve = \"0B\"");
    let limited = r#"trap "" XFSZ; ulimit -f 3000; exec "$@""#;
    let command = wrapped("sh", &["-c", limited, "sh"], &flow.home.command(&["run"]));
    let mut daemon = flow.home.spawn_as(command);

    flow.ends_well(&mut daemon);

    assert!(flow.home.logged(GOES) > 0, "{}", flow.said());
}
