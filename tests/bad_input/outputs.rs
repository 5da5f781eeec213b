use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use crate::rig::{Home, Sim, read};
use crate::told::{home_of, week_of};

fn given() -> (Sim, Home) {
    let sim = week_of(120);
    let home = home_of(&sim);
    (sim, home)
}

/// Is blocked with every event waiting; the hint stands in the log as well.
#[track_caller]
fn is_blocked(home: &Home, why: &str, hint: &str) {
    let told = home.impatient();

    let said = format!("error: sink `archive` is blocked, 120 events wait: {why}\nhint: {hint}\n");
    told.is(1, &said);
    assert!(told.log.contains(hint), "{}", told.log);
}

#[test]
fn a_symbolic_link_is_not_written_through() {
    let (sim, home) = given();
    home.write("elsewhere", "theirs\n");
    symlink(home.path("elsewhere"), home.file()).unwrap();

    is_blocked(
        &home,
        "open `HOME/events.ndjson`: it is a symbolic link, not a regular file",
        "name a regular file in `path`, or one that does not exist yet",
    );

    assert_eq!(read(&home.path("elsewhere")), "theirs\n");
    fs::remove_file(home.file()).unwrap();
    home.delivers_all(&sim);
}

#[test]
fn a_dangling_link_makes_no_file() {
    let (sim, home) = given();
    symlink(home.path("elsewhere"), home.file()).unwrap();

    is_blocked(
        &home,
        "open `HOME/events.ndjson`: it is a symbolic link, not a regular file",
        "name a regular file in `path`, or one that does not exist yet",
    );

    assert!(!home.path("elsewhere").exists());
    fs::remove_file(home.file()).unwrap();
    home.delivers_all(&sim);
}

#[test]
fn a_pipe_is_not_opened() {
    let (sim, home) = given();
    assert!(Command::new("mkfifo").arg(home.file()).status().unwrap().success());

    is_blocked(
        &home,
        "open `HOME/events.ndjson`: it is a FIFO, socket or device, not a regular file",
        "name a regular file in `path`, or one that does not exist yet",
    );

    fs::remove_file(home.file()).unwrap();
    home.delivers_all(&sim);
}

#[test]
fn a_directory_is_not_written_to() {
    let (sim, home) = given();
    fs::create_dir(home.file()).unwrap();

    is_blocked(
        &home,
        "open `HOME/events.ndjson`: it is a directory, not a regular file",
        "name a regular file in `path`, or one that does not exist yet",
    );

    fs::remove_dir(home.file()).unwrap();
    home.delivers_all(&sim);
}

#[test]
fn a_directory_that_all_may_write_to_is_not_used() {
    let (sim, home) = given();
    let shared = home.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
    let path = shared.join("events.ndjson");
    home.edit(&home.file().display().to_string(), &path.display().to_string());

    is_blocked(
        &home,
        "open `HOME/shared/events.ndjson`: other users may write to its directory",
        "choose a directory that only its owner writes to",
    );

    assert!(!path.exists());
    fs::set_permissions(&shared, Permissions::from_mode(0o755)).unwrap();
    home.run_once_well();
    fs::rename(path, home.file()).unwrap();
    home.holds_all(&sim);
}

#[test]
fn a_directory_that_is_a_file_is_named() {
    let (sim, home) = given();
    home.write("file", "theirs");
    let path = home.path("file/events.ndjson");
    let before = home.edit(&home.file().display().to_string(), &path.display().to_string());

    is_blocked(
        &home,
        "open `HOME/file/events.ndjson`: Not a directory (os error 20)",
        "let the user that runs siemferry write to `HOME/file`",
    );

    assert_eq!(read(&home.path("file")), "theirs");
    home.write("siemferry.toml", &before);
    home.delivers_all(&sim);
}

#[test]
fn a_file_that_another_program_has_locked_is_left_alone() {
    let (sim, home) = given();
    let theirs = fs::File::create(home.file()).unwrap();
    theirs.lock().unwrap();

    is_blocked(
        &home,
        "open `HOME/events.ndjson`: another program, such as a second siemferry, has locked it",
        "give each siemferry, and each sink, a file of its own",
    );

    assert_eq!(read(&home.file()), "");
    drop(theirs);
    home.delivers_all(&sim);
}
