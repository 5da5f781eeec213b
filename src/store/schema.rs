//! The database file: its pragmas, its schema, and the assertions without which nothing starts.
//!
//! A pragma that SQLite quietly ignored would cost the promise, so each is read back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::Error;

/// "siem" in ASCII; tells our file from any other SQLite database.
const APPLICATION_ID: i64 = 0x7369_656d;

/// The schema this binary writes. A newer one is refused.
const VERSION: i64 = 1;

/// Before 3.51.3, two connections and a checkpoint racing a commit could corrupt the WAL
/// (<https://sqlite.org/wal.html#walresetbug>).
const OLDEST_SQLITE: i32 = 3_051_003;

const TABLES: &str = "
-- Numbers that outlive the rows they came from.
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('next_seq', 1);
-- Bytes of all pages that were ever added to the spool beside the daemon.
INSERT INTO meta VALUES ('added_bytes', 0);
-- Which store it is, for ever.
INSERT INTO meta VALUES ('store_id', lower(hex(randomblob(16))));
-- What the next start is to say of the run before: none, orderly or interrupted.
INSERT INTO meta VALUES ('last_run', 'none');

-- One configured API of one tenant.
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT 'ok',
    last_error TEXT,
    skew_ms INTEGER NOT NULL DEFAULT 0,
    -- All before this second may be forgotten; what was never asked for, before that one, was not.
    forgotten INTEGER,
    read_from INTEGER,
    events INTEGER NOT NULL DEFAULT 0,
    repeats INTEGER NOT NULL DEFAULT 0,
    late INTEGER NOT NULL DEFAULT 0,
    -- When its newest event was committed, by the server's clock, and whether it was said since that
    -- nothing comes.
    heard_at INTEGER,
    is_silent INTEGER NOT NULL DEFAULT 0
) STRICT;

-- How far each reader of a source has come; age 0 is the head.
CREATE TABLE sweeps (
    source INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    age_ms INTEGER NOT NULL,
    watermark INTEGER NOT NULL,
    read_at INTEGER,
    PRIMARY KEY (source, age_ms)
) STRICT, WITHOUT ROWID;

-- One reading of one window, by the sweep of an age or for a request.
CREATE TABLE passes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    age_ms INTEGER,
    request INTEGER REFERENCES requests (id) ON DELETE CASCADE,
    window_start INTEGER NOT NULL,
    window_end INTEGER NOT NULL,
    begun_at INTEGER NOT NULL,
    scope TEXT NOT NULL,
    token TEXT,
    pages INTEGER NOT NULL DEFAULT 0,
    events INTEGER NOT NULL DEFAULT 0,
    finished_at INTEGER
) STRICT;
CREATE INDEX passes_unfinished ON passes (source, age_ms) WHERE finished_at IS NULL;

-- The spool: the new events of one response each, or one that is sent again to only_sink alone.
CREATE TABLE pages (
    first_seq INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    source INTEGER NOT NULL,
    pass INTEGER NOT NULL,
    fetched_at INTEGER NOT NULL,
    only_sink INTEGER,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX pages_of_one_sink ON pages (first_seq) WHERE only_sink IS NOT NULL;

-- How many copies of a record are known. Second before digest: the other order is 25 times slower.
CREATE TABLE seen (
    source INTEGER NOT NULL,
    second INTEGER NOT NULL,
    digest BLOB NOT NULL,
    copies INTEGER NOT NULL,
    pass INTEGER NOT NULL,
    claimed INTEGER NOT NULL DEFAULT 0,
    claim_pass INTEGER,
    PRIMARY KEY (source, second, digest)
) STRICT, WITHOUT ROWID;

-- One configured destination.
CREATE TABLE sinks (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    settled_seq INTEGER NOT NULL,
    sending TEXT,
    bookmark TEXT,
    state TEXT NOT NULL DEFAULT 'ok',
    last_error TEXT,
    delivered INTEGER NOT NULL DEFAULT 0,
    suspects INTEGER NOT NULL DEFAULT 0,
    ambiguous INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Events proven bad for a sink, with the reason and all that their line is made of; without a
-- sink: records that could not be read, each with its number among its equals. The source's name
-- outlives the source.
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sink INTEGER REFERENCES sinks (id) ON DELETE CASCADE,
    source TEXT NOT NULL,
    event BLOB NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    at INTEGER NOT NULL,
    copy INTEGER,
    seq INTEGER,
    uid BLOB,
    api TEXT,
    type TEXT,
    time INTEGER,
    received INTEGER
) STRICT;
CREATE INDEX dead_letters_of_sink ON dead_letters (sink);

-- Dead letters that no event of ours has told of yet, by the event that will and what it is about:
-- how many, and the first of them.
CREATE TABLE untold_letters (
    event TEXT NOT NULL,
    about TEXT NOT NULL,
    count INTEGER NOT NULL,
    first INTEGER,
    reason TEXT,
    told_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (event, about)
) STRICT, WITHOUT ROWID;

-- What the command line asks of the daemon, and how far that has come.
CREATE TABLE requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    verb TEXT NOT NULL,
    target TEXT NOT NULL,
    window_start INTEGER,
    window_end INTEGER,
    position INTEGER,
    asked_at INTEGER NOT NULL,
    begun_at INTEGER,
    ended_at INTEGER,
    state TEXT NOT NULL DEFAULT 'waiting',
    events INTEGER NOT NULL DEFAULT 0,
    repeats INTEGER NOT NULL DEFAULT 0
) STRICT;
";

/// Opens the daemon's own connection, making the schema if the file is new.
pub fn open_writer(path: &Path) -> Result<Connection, Error> {
    check_library()?;
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(5))?;
    refuse_foreign(&conn, path)?;
    // Take effect only before the first table exists. A page of events is some tens of kilobytes:
    // larger pages of the database cost fewer writes.
    conn.execute_batch("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL;")?;
    set_pragmas(&conn)?;
    create(&conn)?;
    assert_pragmas(&conn)?;
    // A power cut with an empty database and a full WAL makes SQLite discard the WAL; and what a
    // failed flush has left in the WAL may be in memory alone, and look like stored.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Opens a second connection that can write, for a short transaction beside the daemon or without
/// it. Makes nothing: there must be a store.
pub fn open_editor(path: &Path) -> Result<Connection, Error> {
    check_library()?;
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(30))?;
    refuse_foreign(&conn, path)?;
    refuse_unmade(&conn, path)?;
    set_pragmas(&conn)?;
    assert_pragmas(&conn)?;
    Ok(conn)
}

/// Opens the database to look at it, and touches no other file when its log is empty.
pub fn open_quietly(path: &Path) -> Result<Connection, Error> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let is_logged = || std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    if is_logged() {
        return open_reader(path);
    }
    // A daemon may have begun to write while we looked.
    open_unlogged(path).or_else(|err| if is_logged() { open_reader(path) } else { Err(err) })
}

/// Opens the file without its log, and without a lock.
fn open_unlogged(path: &Path) -> Result<Connection, Error> {
    let encoded: String =
        path.as_os_str().as_encoded_bytes().iter().copied().map(uri_byte).collect();
    let conn = Connection::open_with_flags(
        format!("file:{encoded}?immutable=1"),
        OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI,
    )?;
    refuse_foreign(&conn, path)?;
    refuse_unmade(&conn, path)?;
    Ok(conn)
}

fn uri_byte(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
        char::from(byte).into()
    } else {
        format!("%{byte:02X}")
    }
}

/// Opens a connection that can only read.
pub fn open_reader(path: &Path) -> Result<Connection, Error> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(5))?;
    refuse_foreign(&conn, path)?;
    refuse_unmade(&conn, path)?;
    Ok(conn)
}

fn refuse_unmade(conn: &Connection, path: &Path) -> Result<(), Error> {
    if pragma(conn, "user_version")? == 0 {
        // The daemon is about to make it.
        let source = Arc::new(std::io::ErrorKind::NotFound.into());
        return Err(Error::Io { doing: "read the store", path: path.to_owned(), source });
    }
    Ok(())
}

/// Opens a connection that can only read, where there is no room for the memory that connections
/// share. Nobody else may use the database meanwhile.
pub fn open_alone(path: &Path) -> Result<Connection, Error> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // The log is left as it is, unless it is made only now.
    let has_log = path.with_extension("db-wal").exists();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log)?;
    conn.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
    conn.execute_batch("PRAGMA query_only = ON")?;
    refuse_foreign(&conn, path)?;
    Ok(conn)
}

fn check_library() -> Result<(), Error> {
    let found = rusqlite::version_number();
    if found < OLDEST_SQLITE {
        return Err(Error::OldSqlite { found: rusqlite::version().to_owned() });
    }
    Ok(())
}

fn refuse_foreign(conn: &Connection, path: &Path) -> Result<(), Error> {
    let id = pragma(conn, "application_id")?;
    let version = pragma(conn, "user_version")?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && id != APPLICATION_ID {
        return Err(Error::Foreign { path: path.to_owned() });
    }
    if version > VERSION {
        return Err(Error::Newer { path: path.to_owned(), found: version, known: VERSION });
    }
    Ok(())
}

/// One transaction: a half-made schema was found after 5 of 71 kills when it was two.
fn create(conn: &Connection) -> Result<(), Error> {
    if pragma(conn, "user_version")? == VERSION {
        return Ok(());
    }
    conn.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         {TABLES}
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {VERSION};
         COMMIT;"
    ))?;
    Ok(())
}

fn set_pragmas(conn: &Connection) -> Result<(), Error> {
    // What a savepoint would undo is kept in memory: another file system may be full as well, and
    // must not hold events. It also makes a third more events a second, for 8 MiB.
    conn.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA mmap_size = 0;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -8000;",
    )?;
    Ok(())
}

fn assert_pragmas(conn: &Connection) -> Result<(), Error> {
    let mode: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Error::Pragma { name: "journal_mode", wanted: "wal".into(), found: mode });
    }
    let wanted = [
        ("synchronous", 2),
        ("auto_vacuum", 2),
        ("foreign_keys", 1),
        ("mmap_size", 0),
        ("application_id", APPLICATION_ID),
        ("user_version", VERSION),
    ];
    for (name, value) in wanted {
        let found = pragma(conn, name)?;
        if found != value {
            let (wanted, found) = (value.to_string(), found.to_string());
            return Err(Error::Pragma { name, wanted, found });
        }
    }
    Ok(())
}

pub(super) fn pragma(conn: &Connection, name: &str) -> Result<i64, Error> {
    // A VFS without memory mapping gives no row for mmap_size: as good as 0.
    let mut statement = conn.prepare(&format!("PRAGMA {name}"))?;
    let mut rows = statement.query([])?;
    Ok(rows.next()?.map_or(Ok(0), |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_was_not_taken_is_noticed() {
        // A database in memory has no log of its own.
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL").unwrap();

        let refused = assert_pragmas(&conn);

        let expected = "open the database: `journal_mode` is memory instead of wal";
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }

    #[test]
    fn each_setting_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        std::fs::write(&path, "").unwrap();
        let settings = [
            ("journal_mode", "DELETE"),
            ("synchronous", "NORMAL"),
            ("foreign_keys", "OFF"),
            ("mmap_size", "65536"),
            ("application_id", "1"),
            ("user_version", "0"),
        ];
        for (name, wrong) in settings {
            let conn = open_writer(&path).unwrap();
            conn.query_row(&format!("PRAGMA {name} = {wrong}"), [], |_| Ok(())).ok();

            let refused = assert_pragmas(&conn).unwrap_err();

            assert!(refused.to_string().contains(name), "{refused}");
            conn.execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            ))
            .unwrap();
        }
    }

    #[test]
    fn the_tables_come_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let conn = Connection::open(&path).unwrap();
        // The last table but one is there already, so that making the schema fails half-way.
        conn.execute_batch("CREATE TABLE dead_letters (a)").unwrap();

        create(&conn).unwrap_err();
        conn.execute_batch("ROLLBACK").unwrap();

        let tables = "SELECT count(*) FROM sqlite_schema";
        assert_eq!(conn.query_row(tables, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    }
}
