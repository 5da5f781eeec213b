//! What the command line asks of the daemon, and what has become of it.
//!
//! Whoever asks writes a row beside the daemon, which notices it within a second; without a daemon
//! it waits for the next run.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::{Config, Error, Store, directory, schema};
use crate::event::Millis;
use crate::position::{Second, Window};

/// The key of a request.
pub type RequestId = i64;

/// A span of one source that somebody asked to be read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backfill {
    /// Its number.
    pub id: RequestId,
    /// The source's name.
    pub source: String,
    /// What is to be read.
    #[serde(skip)]
    pub window: Window,
    /// All of it before this second is read.
    #[serde(skip)]
    pub position: Second,
    /// `waiting`, `running`, `done` or `cancelled`.
    pub state: String,
    /// How many new events it has brought.
    pub events: u64,
    /// How many of its records were known.
    pub repeats: u64,
    /// When it was asked for.
    #[serde(skip)]
    pub asked_at: Millis,
    /// When its first page was committed.
    #[serde(skip)]
    pub begun_at: Option<Millis>,
}

impl Backfill {
    /// True while there is something to be done about it.
    pub fn is_open(&self) -> bool {
        matches!(self.state.as_str(), "waiting" | "running")
    }

    /// What is still to be read.
    pub fn left(&self) -> Window {
        Window { start: self.position, end: self.window.end }
    }
}

const BACKFILLS: &str = "
    SELECT id, target, window_start, window_end, position, state, events, repeats, asked_at,
        begun_at
    FROM requests WHERE verb = 'backfill'";

/// Asks for a backfill; makes the store if there is none. `again` agrees to events that may be
/// delivered a second time, for that they were is no longer known.
///
/// # Errors
/// [`Error::Forgotten`] when the span reaches back so far and `again` is not given.
pub fn ask_backfill(
    config: &Config,
    source: &str,
    window: Window,
    again: bool,
    now: Millis,
) -> Result<RequestId, Error> {
    let path = directory::database(&config.dir);
    if !path.exists() {
        Store::open(config)?.close();
    }
    let conn = schema::open_editor(&path).map_err(|err| err.at(&path))?;
    transaction(&conn, |conn| {
        if let Some(until) = forgotten(conn, source, window)?.filter(|_| !again) {
            return Err(Error::Forgotten { until });
        }
        conn.execute(
            "INSERT INTO requests (verb, target, window_start, window_end, position, asked_at)
             VALUES ('backfill', ?1, ?2, ?3, ?2, ?4)",
            params![source, window.start, window.end, now],
        )?;
        Ok(conn.last_insert_rowid())
    })
}

/// All backfills, the oldest first.
pub fn backfills(dir: &Path) -> Result<Vec<Backfill>, Error> {
    let path = existing(dir)?;
    let conn = schema::open_reader(&path).map_err(|err| err.at(&path))?;
    let mut select = conn.prepare(&format!("{BACKFILLS} ORDER BY id"))?;
    let rows = select.query_map([], backfill)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Cancels a backfill; what it has read stays. None when there is none of that number.
/// Returns it as it was.
pub fn cancel_backfill(dir: &Path, id: RequestId, now: Millis) -> Result<Option<Backfill>, Error> {
    let path = existing(dir)?;
    let conn = schema::open_editor(&path).map_err(|err| err.at(&path))?;
    transaction(&conn, |conn| {
        let found = conn
            .query_row(&format!("{BACKFILLS} AND id = ?1"), params![id], backfill)
            .optional()?;
        if found.as_ref().is_some_and(Backfill::is_open) {
            conn.execute(
                "UPDATE requests SET state = 'cancelled', ended_at = ?2 WHERE id = ?1",
                params![id, now],
            )?;
            end_passes(conn)?;
        }
        Ok(found)
    })
}

impl Store {
    /// The backfill that a source is to do next, if there is one.
    pub async fn next_backfill(&self, source: &str) -> Result<Option<Backfill>, Error> {
        let source = source.to_owned();
        self.read(move |conn| {
            let mut select = conn.prepare_cached(
                "SELECT id, target, window_start, window_end, position, state, events, repeats,
                     asked_at, begun_at
                 FROM requests WHERE verb = 'backfill' AND target = ?1
                 AND state IN ('waiting', 'running') ORDER BY id LIMIT 1",
            )?;
            Ok(select.query_row(params![source], backfill).optional()?)
        })
        .await
    }

    /// Marks a backfill as done of which nothing is left to be read.
    pub async fn end_backfill(&self, id: RequestId, now: Millis) -> Result<(), Error> {
        let operation = move |conn: &Connection| {
            conn.execute(
                "UPDATE requests SET state = 'done', ended_at = ?2
                 WHERE id = ?1 AND state IN ('waiting', 'running')",
                params![id, now],
            )?;
            end_passes(conn)
        };
        self.0.writer.write(operation).await
    }

    /// True when a backfill was not read to its end, for somebody has cancelled it.
    pub async fn is_cancelled(&self, id: RequestId) -> Result<bool, Error> {
        self.read(move |conn| {
            let state: Option<String> = conn
                .query_row("SELECT state FROM requests WHERE id = ?1", params![id], |row| {
                    row.get(0)
                })
                .optional()?;
            Ok(state.as_deref() == Some("cancelled"))
        })
        .await
    }

    /// Ends the passes of cancelled backfills, which would hold up the forgetting for ever.
    pub async fn end_cancelled(&self) -> Result<(), Error> {
        self.0.writer.write(end_passes).await
    }
}

/// Nothing goes on with the passes of a request that is closed.
pub(super) fn end_passes(conn: &Connection) -> Result<(), Error> {
    conn.execute(
        "UPDATE passes SET finished_at = begun_at / 1000, token = NULL
         WHERE request IS NOT NULL AND finished_at IS NULL
         AND request NOT IN (SELECT id FROM requests WHERE state IN ('waiting', 'running'))",
        [],
    )?;
    Ok(())
}

/// How far a backfill has come with a page, and whether that was its last.
pub(super) fn advance(
    conn: &Connection,
    id: RequestId,
    position: Option<(Second, bool)>,
    counts: (u64, u64),
    now: Millis,
) -> Result<(), Error> {
    let is_done = position.is_some_and(|(_, is_done)| is_done);
    // One that was cancelled meanwhile stays so; what the page has brought is true all the same.
    conn.execute(
        "UPDATE requests SET position = coalesce(?2, position), events = events + ?3,
         repeats = repeats + ?4, begun_at = coalesce(begun_at, ?5),
         state = iif(state = 'cancelled', state, iif(?6, 'done', 'running')),
         ended_at = iif(state = 'cancelled', ended_at, iif(?6, ?5, NULL))
         WHERE id = ?1",
        params![
            id,
            position.map(|(position, _)| position),
            counts.0.cast_signed(),
            counts.1.cast_signed(),
            now,
            is_done
        ],
    )?;
    Ok(())
}

/// The earliest second that a backfill is still to read.
pub(super) fn earliest_left(conn: &Connection, source: i64) -> rusqlite::Result<Option<Second>> {
    conn.query_row(
        "SELECT min(position) FROM requests WHERE verb = 'backfill'
         AND state IN ('waiting', 'running')
         AND target = (SELECT name FROM sources WHERE id = ?1)",
        params![source],
        |row| row.get(0),
    )
}

/// Until which second events of this span may have been read and forgotten.
fn forgotten(conn: &Connection, source: &str, window: Window) -> Result<Option<Second>, Error> {
    let known: Option<(Option<Second>, Option<Second>)> = conn
        .query_row(
            "SELECT forgotten, read_from FROM sources WHERE name = ?1",
            params![source],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((Some(forgotten), Some(read_from))) = known else { return Ok(None) };
    // Requests reach one second beyond their windows.
    let meets = window.start - 1 < forgotten && window.end + 1 >= read_from;
    Ok(meets.then_some(forgotten))
}

fn backfill(row: &Row<'_>) -> rusqlite::Result<Backfill> {
    Ok(Backfill {
        id: row.get(0)?,
        source: row.get(1)?,
        window: Window { start: row.get(2)?, end: row.get(3)? },
        position: row.get(4)?,
        state: row.get(5)?,
        events: row.get::<_, i64>(6)?.cast_unsigned(),
        repeats: row.get::<_, i64>(7)?.cast_unsigned(),
        asked_at: row.get(8)?,
        begun_at: row.get(9)?,
    })
}

pub(super) fn existing(dir: &Path) -> Result<std::path::PathBuf, Error> {
    let path = directory::database(dir);
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(source) => Err(Error::Io { doing: "read the store", path, source: Arc::new(source) }),
    }
}

pub(super) fn transaction<T>(
    conn: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    match work(conn) {
        Ok(done) => {
            conn.execute_batch("COMMIT")?;
            Ok(done)
        }
        Err(err) => {
            // The first error says more than that it could not be undone.
            let _ = conn.execute_batch("ROLLBACK");
            Err(err)
        }
    }
}
