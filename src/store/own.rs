//! Our own events on their way into the spool.
//!
//! A page of its own for each, of no source that is read, for every sink. They are told best: what a
//! full disk does not take is given up, unless it belongs to an operation, which then fails as a
//! whole. Dead letters are counted until they are told, over a restart as well.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, params};
use tracing::debug;

use super::spool::{self, Builder, NewPage};
use super::{Error, SinkId, SourceId, Store, next_seq};
use crate::event::{Millis, OWN_API, Seq};
use crate::own::{self, LastRun, Letters, OwnEvent};

/// After an event about dead letters, the next of the same sink or source waits so long.
const TELL_EVERY: Millis = 60_000;

/// What came into the spool beside what an operation is about; to be given to [`Store::announced`]
/// when that is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// The number of the last event; 0 for none.
    pub last: Seq,
    /// How many bytes the spool grew by.
    pub bytes: u64,
}

impl Store {
    /// From now on our own events are told, or not. Until then they are not.
    pub fn announce_when(&self, enabled: bool) {
        self.0.announces.store(enabled, Ordering::Relaxed);
    }

    /// True when our own events are told.
    pub fn announces(&self) -> bool {
        self.0.announces.load(Ordering::Relaxed)
    }

    /// Tells an event of our own through every sink; says its number. Does nothing when that is
    /// switched off, and never fails its caller: what cannot be stored is not told.
    pub async fn announce(&self, event: OwnEvent) -> Option<Seq> {
        if !self.announces() {
            return None;
        }
        let kind = event.kind();
        let disk = Arc::clone(&self.0.disk);
        let operation = move |conn: &Connection| {
            disk.admit_page()?;
            insert(conn, &event, None)
        };
        self.announced_or_not(kind, self.0.writer.write(operation).await)
    }

    /// Counts what an operation has added, and rings the couriers.
    pub fn announced(&self, added: Added) {
        if added.last == 0 {
            return;
        }
        self.0.spool_bytes.fetch_add(added.bytes.cast_signed(), Ordering::Relaxed);
        self.0.committed.send_if_modified(|last| {
            *last = added.last.max(*last);
            true
        });
    }

    fn announced_or_not(&self, kind: &'static str, stored: Result<Added, Error>) -> Option<Seq> {
        match stored {
            Ok(added) => {
                self.announced(added);
                Some(added.last).filter(|last| *last > 0)
            }
            Err(err) => {
                debug!(event = kind, error = %err, "An event of our own is not told.");
                None
            }
        }
    }

    /// Begins a run; says how the one before has ended.
    pub async fn begin_run(&self) -> Result<LastRun, Error> {
        self.0.writer.write(|conn| last_run(conn, "interrupted")).await
    }

    /// Remembers that the run has ended in order.
    pub async fn end_run(&self) -> Result<(), Error> {
        self.0.writer.write(|conn| last_run(conn, "orderly").map(drop)).await
    }

    /// Tells of the dead letters that were counted, but of those of one sink or source no more often
    /// than once a minute, unless it is the last chance.
    pub async fn announce_letters(&self, now: Millis, is_last: bool) {
        if !self.announces() {
            return;
        }
        // There is hardly ever one, and nobody is to wait for that.
        if self.read(move |conn| due_letters(conn, now, is_last)).await.is_ok_and(|d| d.is_empty())
        {
            return;
        }
        let disk = Arc::clone(&self.0.disk);
        let operation = move |conn: &Connection| {
            let due = due_letters(conn, now, is_last)?;
            if !due.is_empty() {
                disk.admit_page()?;
            }
            tell_letters(conn, &due, now)
        };
        self.announced_or_not("dead_letter", self.0.writer.write(operation).await);
    }

    /// Says that nothing comes from a source, if that was not said: together with the event.
    pub async fn fall_silent(
        &self,
        source: SourceId,
        name: &str,
        now: Millis,
        after: Millis,
    ) -> Result<(), Error> {
        if !self.announces() {
            return Ok(());
        }
        let before = now.saturating_sub(after);
        if self.read(move |conn| unheard(conn, source, before)).await?.is_none() {
            return Ok(());
        }
        let name = name.to_owned();
        let disk = Arc::clone(&self.0.disk);
        let operation = move |conn: &Connection| {
            let silent_since = unheard(conn, source, before)?;
            let Some(since) = silent_since else { return Ok(Added::default()) };
            disk.admit_page()?;
            conn.execute("UPDATE sources SET is_silent = 1 WHERE id = ?1", params![source])?;
            insert(conn, &own::source_silent(&name, since, now), None)
        };
        let added = self.0.writer.write(operation).await?;
        self.announced(added);
        Ok(())
    }

    /// The sinks of this run.
    pub fn sinks(&self) -> Vec<SinkId> {
        self.0.sinks.lock().expect("no panic while held").clone()
    }

    /// Those of these sinks that work and are still to settle up to `seq`.
    pub async fn sinks_before(&self, seq: Seq, sinks: Vec<SinkId>) -> Result<Vec<SinkId>, Error> {
        self.read(move |conn| {
            let mut select = conn.prepare_cached(
                "SELECT settled_seq < ?2 AND state = 'ok' FROM sinks WHERE id = ?1",
            )?;
            let mut found = Vec::new();
            for id in sinks {
                if select.query_row(params![id, seq.cast_signed()], |row| row.get(0))? {
                    found.push(id);
                }
            }
            Ok(found)
        })
        .await
    }
}

/// Puts an event of our own into the spool, inside of an operation: for every sink, or for one
/// alone.
///
/// # Errors
/// Those of the database: the operation fails as a whole.
pub fn insert(
    conn: &Connection,
    event: &OwnEvent,
    only_sink: Option<SinkId>,
) -> Result<Added, Error> {
    let instance: String = conn
        .prepare_cached("SELECT value FROM meta WHERE key = 'store_id'")?
        .query_row([], |row| row.get(0))?;
    let uid = OwnEvent::uid(&instance, next_seq(conn)?);
    let mut builder = Builder::new(OWN_API, OWN_API);
    builder.push(uid, Some(event.time()), Some(event.kind()), &event.record(&instance));
    let received = event.time();
    let (last, bytes) =
        spool::insert(conn, NewPage { builder, source: 0, pass: 0, received, only_sink })?;
    Ok(Added { last, bytes })
}

impl Added {
    /// Both together.
    pub fn and(self, later: Self) -> Self {
        Self { last: self.last.max(later.last), bytes: self.bytes + later.bytes }
    }
}

fn last_run(conn: &Connection, said_next: &str) -> Result<LastRun, Error> {
    let before: String =
        conn.query_row("SELECT value FROM meta WHERE key = 'last_run'", [], |row| row.get(0))?;
    conn.execute("UPDATE meta SET value = ?1 WHERE key = 'last_run'", params![said_next])?;
    Ok(match before.as_str() {
        "none" => LastRun::None,
        "orderly" => LastRun::Orderly,
        _ => LastRun::Interrupted,
    })
}

/// Since when nothing has come from a source, if that is before this and was not said.
fn unheard(conn: &Connection, source: SourceId, before: Millis) -> Result<Option<Millis>, Error> {
    let mut select = conn.prepare_cached(
        "SELECT max(heard_at) FROM sources WHERE id = ?1 AND NOT is_silent AND heard_at <= ?2",
    )?;
    Ok(select.query_row(params![source, before], |row| row.get(0))?)
}

/// What dead letters are told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About<'a> {
    /// Events that this sink refuses.
    Sink(&'a str),
    /// Records of this source that cannot be read.
    Source(&'a str),
}

/// Counts dead letters that are to be told of, with the operation that makes them.
pub(super) fn count_letters(
    conn: &Connection,
    about: About<'_>,
    letters: Letters<'_>,
) -> Result<(), Error> {
    let (event, about) = match about {
        About::Sink(name) => (DEAD_LETTER, name),
        About::Source(name) => (BAD_RECORD, name),
    };
    conn.prepare_cached(
        "INSERT INTO untold_letters (event, about, count, first, reason)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET count = count + ?3, first = coalesce(first, ?4),
             reason = coalesce(reason, ?5)",
    )?
    .execute(params![
        event,
        about,
        letters.count.cast_signed(),
        letters.id,
        letters.reason
    ])?;
    Ok(())
}

const DEAD_LETTER: &str = "dead_letter";
const BAD_RECORD: &str = "bad_record";

struct Due {
    event: String,
    about: String,
    count: u64,
    first: i64,
    reason: String,
}

fn due_letters(conn: &Connection, now: Millis, is_last: bool) -> Result<Vec<Due>, Error> {
    // A clock that went back must not keep it for long.
    let mut select = conn.prepare_cached(
        "SELECT event, about, count, first, reason FROM untold_letters
         WHERE count > 0 AND (?2 OR told_at NOT BETWEEN ?1 - ?3 AND ?1)",
    )?;
    let rows = select.query_map(params![now, is_last, TELL_EVERY], |row| {
        Ok(Due {
            event: row.get(0)?,
            about: row.get(1)?,
            count: row.get::<_, i64>(2)?.cast_unsigned(),
            first: row.get(3)?,
            reason: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn tell_letters(conn: &Connection, due: &[Due], now: Millis) -> Result<Added, Error> {
    let mut added = Added::default();
    for Due { event, about, count, first, reason } in due {
        let letters = Letters { count: *count, id: *first, reason };
        let told = match event.as_str() {
            BAD_RECORD => own::bad_record(about, letters),
            _ => own::dead_letter(about, letters),
        };
        added = added.and(insert(conn, &told, None)?);
        conn.prepare_cached(
            "UPDATE untold_letters SET count = 0, first = NULL, reason = NULL, told_at = ?3
             WHERE event = ?1 AND about = ?2",
        )?
        .execute(params![event, about, now])?;
    }
    Ok(added)
}
