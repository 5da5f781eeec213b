use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;
use siemferry::store::{Config, Error, Store, database, inspect};

use super::shelf::{STABLE, Shelf, directory};

fn open(dir: &Path) -> Result<Store, Error> {
    Store::open(&Config { dir: dir.to_owned() })
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_new_store_and_all_that_is_in_it_are_the_owners_alone() {
    let home = directory();
    let dir = home.path().join("deep/er");

    let store = open(&dir).unwrap();

    assert_eq!((mode(&dir), mode(&home.path().join("deep"))), (0o700, 0o700));
    let mut files = 0;
    for file in dir.read_dir().unwrap().flatten() {
        assert_eq!(mode(&file.path()), 0o600, "{}", file.path().display());
        files += 1;
    }
    assert!(files >= 3, "the database, its log and the lock");
    drop(store);
}

#[test]
fn an_empty_directory_is_closed_to_others_and_so_is_one_that_holds_a_store() {
    let home = directory();
    set_mode(home.path(), 0o755);
    drop(open(home.path()).unwrap());
    assert_eq!(mode(home.path()), 0o700);

    set_mode(home.path(), 0o750);
    drop(open(home.path()).unwrap());
    assert_eq!(mode(home.path()), 0o700);
}

#[test]
fn a_directory_with_files_of_others_is_left_as_it_is() {
    let home = directory();
    std::fs::write(home.path().join("theirs"), "").unwrap();
    set_mode(home.path(), 0o755);

    let _store = open(home.path()).unwrap();

    assert_eq!(mode(home.path()), 0o755);
    assert_eq!(mode(&database(home.path())), 0o600);
}

#[test]
fn a_directory_that_anybody_may_write_to_is_refused() {
    let home = directory();
    for open_to_all in [0o777, 0o1777, 0o702] {
        set_mode(home.path(), open_to_all);
        let refused = open(home.path()).err();
        assert!(matches!(refused, Some(Error::Writable { .. })), "{open_to_all:o}: {refused:?}");
    }
    assert_eq!(home.path().read_dir().unwrap().count(), 0, "nor is anything made in it");
}

#[test]
fn a_second_daemon_is_refused_and_told_who_holds_the_store() {
    let home = directory();
    let first = open(home.path()).unwrap();

    let refused = open(home.path()).err().unwrap().to_string();
    assert!(refused.ends_with(&format!("in use by process {}", std::process::id())), "{refused}");

    drop(first);
    open(home.path()).expect("the lock goes with its holder");
}

#[test]
fn a_store_of_a_newer_schema_is_refused_and_left_alone() {
    let home = directory();
    drop(open(home.path()).unwrap());
    let conn = Connection::open(database(home.path())).unwrap();
    conn.execute_batch("PRAGMA user_version = 2").unwrap();
    drop(conn);

    let refused = open(home.path()).err();

    assert!(matches!(refused, Some(Error::Newer { found: 2, known: 1, .. })), "{refused:?}");
    let conn = Connection::open(database(home.path())).unwrap();
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 2);
}

#[test]
fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let home = directory();
    let path = database(home.path());
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(conn);
    let before = std::fs::read(&path).unwrap();
    let refused = open(home.path()).err();
    assert!(matches!(refused, Some(Error::Foreign { .. })), "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);

    std::fs::write(&path, "no database at all, but long enough for its header".repeat(40)).unwrap();
    let refused = open(home.path()).err();
    assert!(matches!(refused, Some(Error::Foreign { .. })), "{refused:?}");
}

#[test]
fn the_database_has_the_settings_that_the_promise_rests_on() {
    let home = directory();
    let store = open(home.path()).unwrap();

    let conn = Connection::open(database(home.path())).unwrap();
    let journal: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    let vacuum: i64 = conn.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)).unwrap();
    let integrity: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();

    assert_eq!((journal.as_str(), vacuum, integrity.as_str()), ("wal", 2, "ok"));
    drop(store);
}

#[test]
fn a_store_that_is_only_being_made_is_none_yet() {
    let home = directory();
    let missing = inspect::status(home.path(), 0).unwrap_err();
    std::fs::write(database(home.path()), "").unwrap();

    let begun = inspect::status(home.path(), 0).unwrap_err();

    let not_found = |err: &Error| matches!(err, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound);
    assert!(not_found(&missing) && not_found(&begun), "{missing}\n{begun}");
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_closed() {
    let shelf = Shelf::new(STABLE).await;
    let store = shelf.store().clone();

    store.close();

    let refused = store.register_sink("s", true).await.err();
    assert!(matches!(refused, Some(Error::Closed)), "{refused:?}");
    store.close();
}

#[tokio::test]
async fn a_stop_leaves_one_file_that_holds_all() {
    let mut shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 10, 100).await;
    shelf.reopen().await;

    assert_eq!(shelf.events().await.len(), 10);
}
