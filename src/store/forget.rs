//! Forgets a source or a sink that is no longer configured, while no daemon uses the store.

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::requests::{existing, transaction};
use super::sinks::PENDING;
use super::{Error, directory, schema};

/// The store, while nobody else may open it.
pub struct Forgetter {
    conn: Connection,
    _lock: File,
}

/// What goes with a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many events were not delivered.
    pub pending: u64,
    /// How many dead letters nobody can send again.
    pub dead_letters: u64,
}

impl Lost {
    /// True when nothing goes.
    pub fn is_nothing(self) -> bool {
        self.pending + self.dead_letters == 0
    }
}

impl Forgetter {
    /// Opens the store in `dir`.
    ///
    /// # Errors
    /// [`Error::InUse`] while a daemon runs; when there is no store, or it cannot be written.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = existing(dir)?;
        let lock = directory::lock(dir)?;
        let conn = schema::open_editor(&path).map_err(|err| err.at(&path))?;
        Ok(Self { conn, _lock: lock })
    }

    /// The sources that the store knows.
    pub fn sources(&self) -> Result<Vec<String>, Error> {
        self.names("SELECT name FROM sources ORDER BY name")
    }

    /// The sinks that the store knows.
    pub fn sinks(&self) -> Result<Vec<String>, Error> {
        self.names("SELECT name FROM sinks ORDER BY name")
    }

    fn names(&self, select: &str) -> Result<Vec<String>, Error> {
        let mut select = self.conn.prepare(select)?;
        let names = select.query_map([], |row| row.get(0))?;
        Ok(names.collect::<rusqlite::Result<_>>()?)
    }

    /// What would be lost with a sink; none when the store does not know it.
    pub fn lost_with(&self, sink: &str) -> Result<Option<Lost>, Error> {
        let select = format!(
            "SELECT {PENDING}, (SELECT count(*) FROM dead_letters WHERE sink = sinks.id)
             FROM sinks WHERE name = ?1"
        );
        let lost = |row: &rusqlite::Row<'_>| {
            let (pending, letters): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(Lost { pending: pending.cast_unsigned(), dead_letters: letters.cast_unsigned() })
        };
        Ok(self.conn.query_row(&select, params![sink], lost).optional()?)
    }

    /// Forgets a sink, with its bookmark, its dead letters and what waits for it alone.
    pub fn sink(&self, name: &str) -> Result<(), Error> {
        transaction(&self.conn, |conn| {
            let id: i64 =
                conn.query_row("SELECT id FROM sinks WHERE name = ?1", params![name], |row| {
                    row.get(0)
                })?;
            // Another sink may get its key.
            conn.execute("DELETE FROM pages WHERE only_sink = ?1", params![id])?;
            conn.execute("DELETE FROM sinks WHERE id = ?1", params![id])?;
            forget_sayings(conn, name, "dead_letter", "accept")
        })
    }

    /// Forgets a source: how far it was read, what was seen, what was asked for.
    pub fn source(&self, name: &str) -> Result<(), Error> {
        transaction(&self.conn, |conn| {
            let id: i64 =
                conn.query_row("SELECT id FROM sources WHERE name = ?1", params![name], |row| {
                    row.get(0)
                })?;
            // Another source may get its key.
            conn.execute("DELETE FROM seen WHERE source = ?1", params![id])?;
            conn.execute("DELETE FROM sources WHERE id = ?1", params![id])?;
            forget_sayings(conn, name, "bad_record", "backfill")
        })
    }
}

fn forget_sayings(conn: &Connection, name: &str, event: &str, verb: &str) -> Result<(), Error> {
    conn.execute(
        "DELETE FROM untold_letters WHERE event = ?1 AND about = ?2",
        params![event, name],
    )?;
    conn.execute("DELETE FROM requests WHERE verb = ?1 AND target = ?2", params![verb, name])?;
    Ok(())
}
