use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;

use crate::rig::{Home, Sim};
use crate::told::{Told, as_somebody, home_of, read_only, week_of};

fn given() -> (Sim, Home) {
    let sim = week_of(120);
    let home = home_of(&sim);
    (sim, home)
}

fn set_mode(home: &Home, mode: u32) {
    fs::set_permissions(home.state(), Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_state_directory_in_use_names_the_process_that_uses_it() {
    let (sim, home) = given();
    let mut daemon = home.spawn();
    sim.wait_for_requests(1);

    let told = home.impatient();

    let said = format!(
        "error: lock state directory `HOME/state`: it is in use by process {}\n\
         hint: stop the other siemferry, or give this one a `state.dir` of its own\n",
        daemon.id()
    );
    told.is(2, &said);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    home.delivers_all(&sim);
}

#[test]
fn a_file_in_the_place_of_the_state_directory_is_named() {
    let (sim, home) = given();
    home.write("state", "");

    let told = home.impatient();

    told.is(
        2,
        "error: use state directory `HOME/state`: it is not a directory\n\
         hint: choose another `state.dir`, or move away what stands there\n",
    );
    fs::remove_file(home.state()).unwrap();
    home.delivers_all(&sim);
}

#[test]
fn a_state_directory_below_a_file_is_named() {
    let (sim, home) = given();
    home.write("file", "");
    let state = home.state().display().to_string();
    let before = home.edit(&state, &home.path("file/state").display().to_string());

    let told = home.impatient();

    told.is(
        2,
        "error: create state directory `HOME/file/state`: Not a directory (os error 20)\n\
         hint: a file stands above it: choose another `state.dir`\n",
    );
    home.write("siemferry.toml", &before);
    home.delivers_all(&sim);
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (sim, home) = given();
    sim.api
        .fault_when(|request| (request.number > 2).then(|| siemferry::sim::Fault::status(401, "")));
    home.impatient();
    let database = Connection::open(home.path("state/siemferry.db")).unwrap();
    let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    database.pragma_update(None, "user_version", version + 1).unwrap();

    let told = home.impatient();

    let said = format!(
        "error: open `HOME/state/siemferry.db`: its schema is version {}, this siemferry knows up to {version}\n\
         hint: install the siemferry that wrote it, or a newer one\n",
        version + 1
    );
    told.is(2, &said);
    home.told(home.command(&["status"])).is(1, &said);
    database.pragma_update(None, "user_version", version).unwrap();
    sim.api.mend();
    home.delivers_all(&sim);
}

/// Refuses what stands in the place of the database, and leaves it as it is.
#[track_caller]
fn refuses_a_foreign_database(sim: &Sim, home: &Home) {
    let path = home.path("state/siemferry.db");
    let before = fs::read(&path).unwrap();

    let told = home.impatient();

    told.is(
        2,
        "error: open `HOME/state/siemferry.db`: it is not a siemferry database\n\
         hint: choose another `state.dir`, or move the file away\n",
    );
    assert!(fs::read(&path).unwrap() == before, "another program's file was changed");
    fs::rename(&path, home.path("state/theirs")).unwrap();
    home.delivers_all(sim);
}

#[test]
fn another_programs_database_is_refused_and_left_alone() {
    let (sim, home) = given();
    fs::create_dir(home.state()).unwrap();
    let theirs = Connection::open(home.path("state/siemferry.db")).unwrap();
    theirs.execute_batch("CREATE TABLE theirs (a); PRAGMA user_version = 1;").unwrap();
    drop(theirs);

    refuses_a_foreign_database(&sim, &home);
}

#[test]
fn a_text_file_in_the_place_of_the_database_is_refused_and_left_alone() {
    let (sim, home) = given();
    fs::create_dir(home.state()).unwrap();
    home.write("state/siemferry.db", "events of mine\n");

    refuses_a_foreign_database(&sim, &home);
}

#[test]
fn a_directory_in_the_place_of_the_database_is_named() {
    let (sim, home) = given();
    fs::create_dir_all(home.path("state/siemferry.db")).unwrap();

    let told = home.impatient();

    told.is(
        2,
        "error: open database `HOME/state/siemferry.db`: Is a directory (os error 21)\n\
         hint: move the directory `HOME/state/siemferry.db` away\n",
    );
    fs::remove_dir(home.path("state/siemferry.db")).unwrap();
    home.delivers_all(&sim);
}

#[test]
fn a_state_directory_that_all_may_write_to_is_refused() {
    let (sim, home) = given();
    fs::create_dir(home.state()).unwrap();
    set_mode(&home, 0o777);

    let told = home.impatient();

    told.is(
        2,
        "error: use state directory `HOME/state`: other users may write to it\n\
         hint: choose a `state.dir` of its own, below a directory that others cannot write to\n",
    );
    set_mode(&home, 0o700);
    home.delivers_all(&sim);
}

#[test]
fn a_state_directory_that_others_may_read_is_closed_to_them() {
    let (sim, home) = given();
    fs::create_dir(home.state()).unwrap();
    set_mode(&home, 0o755);

    home.delivers_all(&sim);

    let mode = |name: &str| fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("state"), 0o700);
    assert_eq!(mode("state/siemferry.db"), 0o600);
}

#[test]
fn root_a_read_only_file_system_is_named() {
    let (sim, home) = given();
    fs::create_dir(home.state()).unwrap();

    let told: Told = home.told(read_only(&home.state(), &home.command(&["run", "--once"])));

    told.is(
        2,
        "error: open lock file `HOME/state/siemferry.lock`: Read-only file system (os error 30)\n\
         hint: choose a `state.dir` on a file system that can be written to\n",
    );
    home.delivers_all(&sim);
}

/// Root may write anywhere, so the daemon runs as somebody else.
#[test]
fn root_a_state_directory_that_the_user_cannot_make_is_named() {
    let (sim, home) = given();
    fs::set_permissions(home.path(""), Permissions::from_mode(0o755)).unwrap();

    let told = home.told(as_somebody(&home.command(&["run", "--once"])));

    told.is(
        2,
        "error: create state directory `HOME/state`: Permission denied (os error 13)\n\
         hint: let the user that runs siemferry own `HOME/state`\n",
    );
    home.delivers_all(&sim);
}

#[test]
fn root_a_store_of_another_user_is_named() {
    let (sim, home) = given();
    fs::set_permissions(home.path(""), Permissions::from_mode(0o755)).unwrap();
    home.delivers_all(&sim);

    let told = home.told(as_somebody(&home.command(&["run", "--once"])));
    let status = home.told(as_somebody(&home.command(&["status"])));

    told.is(
        2,
        "error: open state directory `HOME/state`: Permission denied (os error 13)\n\
         hint: let the user that runs siemferry own `HOME/state`\n",
    );
    status.is(
        1,
        "error: read the store `HOME/state/siemferry.db`: Permission denied (os error 13)\n\
         hint: ask as root, or as the user that runs siemferry\n",
    );
}
