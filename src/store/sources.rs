//! The source end of the store: who reads, how far each reader has come, and what it left behind.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::requests::{self, RequestId};
use super::{Error, SourceId, Store, seen, wall_clock};
use crate::event::Millis;
use crate::position::{PageToken, Second, Window};

mod commit;

pub use commit::{Committed, Drained, Origin, PageCommit};

/// How many records are forgotten in one transaction at most.
pub const EXPIRED_AT_ONCE: u32 = 20_000;

/// What the store knows of a source when its poller starts.
#[derive(Debug)]
pub struct Registered {
    /// Its key.
    pub id: SourceId,
    /// How far the server's clock was ahead of ours when it was last measured.
    pub skew: Millis,
    /// True while nothing of it was ever read.
    pub is_new: bool,
    /// Its readers, the head first.
    pub sweeps: Vec<StoredSweep>,
    /// The passes that a stop has cut off.
    pub unfinished: Vec<StoredPass>,
}

/// How far one reader of a source has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSweep {
    /// How far it trails the clock; 0 is the head.
    pub age: Millis,
    /// All before it has been read.
    pub watermark: Second,
    /// When its last pass began, by the server's clock.
    pub read_at: Option<Millis>,
}

/// Who makes a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The sweep that trails the clock by this; 0 is the head.
    Sweep(Millis),
    /// A backfill.
    Backfill(RequestId),
}

/// A pass that was begun and not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPass {
    /// Whose it is.
    pub reader: Reader,
    /// What it reads.
    pub window: Window,
    /// When it began, by the server's clock.
    pub begun_at: Millis,
    /// What its token is bound to.
    pub scope: String,
    /// The page it would ask for next.
    pub token: PageToken,
}

impl Store {
    /// Makes a source known, with a reader for each of `ages` (the head's 0 first). New readers of
    /// a known source begin where the next older one stands, so nothing is left unread.
    pub async fn register_source(
        &self,
        name: &str,
        ages: &[Millis],
        start: Second,
    ) -> Result<Registered, Error> {
        let (name, ages) = (name.to_owned(), ages.to_vec());
        let operation = move |conn: &Connection| register(conn, &name, &ages, start);
        self.0.writer.write(operation).await
    }

    /// Has a source of which nothing was ever read begin at another second; returns its readers.
    pub async fn begin_source_at(
        &self,
        id: SourceId,
        start: Second,
    ) -> Result<Vec<StoredSweep>, Error> {
        let operation = move |conn: &Connection| {
            conn.execute(
                "UPDATE sweeps SET watermark = ?2 WHERE source = ?1
                 AND (SELECT read_from FROM sources WHERE id = ?1) IS NULL",
                params![id, start],
            )?;
            stored_sweeps(conn, id)
        };
        self.0.writer.write(operation).await
    }

    /// Remembers how a source is doing, for `status`.
    pub async fn source_state(
        &self,
        id: SourceId,
        state: &'static str,
        error: Option<String>,
    ) -> Result<(), Error> {
        let operation = move |conn: &Connection| {
            conn.execute(
                "UPDATE sources SET state = ?2, last_error = coalesce(?3, last_error) WHERE id = ?1",
                params![id, state, error],
            )?;
            Ok(())
        };
        self.0.writer.write(operation).await
    }

    /// Forgets passes and records that nothing can meet again. Returns how many records.
    pub async fn expire(&self, origin: Arc<Origin>, now: Millis) -> Result<usize, Error> {
        let operation = move |conn: &Connection| {
            let since = (now - origin.seen_keep).div_euclid(1000);
            conn.execute(
                // Requests reach one second beyond their windows. What a pass has raised may be met
                // again as long as a sweep, however late, is still to read its window.
                "DELETE FROM passes WHERE source = ?1 AND finished_at < ?2
                 AND window_end + 2 < (SELECT min(watermark) FROM sweeps WHERE source = ?1)",
                params![origin.id, since],
            )?;
            Ok(seen::expire(conn, origin.id, EXPIRED_AT_ONCE)?)
        };
        self.0.writer.write(operation).await
    }
}

fn register(
    conn: &Connection,
    name: &str,
    ages: &[Millis],
    start: Second,
) -> Result<Registered, Error> {
    // A source that was never heard is silent from now on.
    conn.execute(
        "INSERT INTO sources (name, heard_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![name, wall_clock()],
    )?;
    let (id, skew) =
        conn.query_row("SELECT id, skew_ms FROM sources WHERE name = ?1", params![name], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let known = stored_sweeps(conn, id)?;
    for age in ages {
        let older = known.iter().filter(|sweep| sweep.age >= *age).map(|sweep| sweep.watermark);
        let oldest = known.iter().map(|sweep| sweep.watermark);
        let begin = older.max().or(oldest.min()).unwrap_or(start);
        conn.execute(
            "INSERT INTO sweeps (source, age_ms, watermark) VALUES (?1, ?2, ?3)
             ON CONFLICT DO NOTHING",
            params![id, age, begin],
        )?;
    }
    for gone in known.iter().filter(|sweep| !ages.contains(&sweep.age)) {
        conn.execute(
            "DELETE FROM sweeps WHERE source = ?1 AND age_ms = ?2",
            params![id, gone.age],
        )?;
        // What it had begun is never gone on with, and must not be remembered for ever.
        conn.execute(
            "UPDATE passes SET finished_at = begun_at / 1000, token = NULL
             WHERE source = ?1 AND age_ms = ?2 AND finished_at IS NULL",
            params![id, gone.age],
        )?;
    }
    requests::end_passes(conn)?;
    let sweeps = stored_sweeps(conn, id)?;
    let is_new = conn.query_row(
        "SELECT read_from IS NULL FROM sources WHERE id = ?1",
        params![id],
        |row| row.get(0),
    )?;
    Ok(Registered { id, skew, is_new, sweeps, unfinished: unfinished(conn, id)? })
}

fn stored_sweeps(conn: &Connection, id: SourceId) -> Result<Vec<StoredSweep>, Error> {
    let mut select = conn.prepare_cached(
        "SELECT age_ms, watermark, read_at FROM sweeps WHERE source = ?1 ORDER BY age_ms",
    )?;
    let rows = select.query_map(params![id], |row| {
        Ok(StoredSweep { age: row.get(0)?, watermark: row.get(1)?, read_at: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn unfinished(conn: &Connection, id: SourceId) -> Result<Vec<StoredPass>, Error> {
    let mut select = conn.prepare_cached(
        "SELECT age_ms, request, window_start, window_end, begun_at, scope, token FROM passes
         WHERE source = ?1 AND finished_at IS NULL AND token IS NOT NULL
         ORDER BY id DESC",
    )?;
    let rows = select.query_map(params![id], |row| {
        let request: Option<RequestId> = row.get(1)?;
        let reader = match request {
            Some(request) => Reader::Backfill(request),
            None => Reader::Sweep(row.get(0)?),
        };
        Ok(StoredPass {
            reader,
            window: Window { start: row.get(2)?, end: row.get(3)? },
            begun_at: row.get(4)?,
            scope: row.get(5)?,
            token: PageToken(row.get(6)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
