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

-- One configured API of one tenant.
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT 'ok',
    last_error TEXT,
    skew_ms INTEGER NOT NULL DEFAULT 0,
    events INTEGER NOT NULL DEFAULT 0,
    repeats INTEGER NOT NULL DEFAULT 0,
    late INTEGER NOT NULL DEFAULT 0
) STRICT;

-- How far each reader of a source has come; age 0 is the head.
CREATE TABLE sweeps (
    source INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    age_ms INTEGER NOT NULL,
    watermark INTEGER NOT NULL,
    read_at INTEGER,
    PRIMARY KEY (source, age_ms)
) STRICT, WITHOUT ROWID;

-- One reading of one window; age_ms is null for a backfill.
CREATE TABLE passes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    age_ms INTEGER,
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

-- The spool: the new events of one response each.
CREATE TABLE pages (
    first_seq INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    source INTEGER NOT NULL,
    pass INTEGER NOT NULL,
    fetched_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

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

-- Events proven bad, with the reason; without a sink: records that could not be read.
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sink INTEGER REFERENCES sinks (id) ON DELETE CASCADE,
    source INTEGER NOT NULL,
    seq INTEGER,
    event BLOB NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;

-- What the command line asks of the daemon.
CREATE TABLE requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    verb TEXT NOT NULL,
    arguments TEXT NOT NULL,
    asked_at INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    answer TEXT
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
    create(&conn)?;
    assert_pragmas(&conn)?;
    // A power cut with an empty database and a full WAL makes SQLite discard the WAL; and what a
    // failed flush has left in the WAL may be in memory alone, and look like stored.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Opens a connection that can only read.
pub fn open_reader(path: &Path) -> Result<Connection, Error> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(5))?;
    refuse_foreign(&conn, path)?;
    if pragma(&conn, "user_version")? == 0 {
        // The daemon is about to make it.
        let source = Arc::new(std::io::ErrorKind::NotFound.into());
        return Err(Error::Io { doing: "read the store", path: path.to_owned(), source });
    }
    Ok(conn)
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

fn pragma(conn: &Connection, name: &str) -> Result<i64, Error> {
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
