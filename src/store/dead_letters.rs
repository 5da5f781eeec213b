//! Dead letters: records that could not be read, and events that a sink has refused for good.
//!
//! The command line looks at them, sends them again and throws them away by a connection of its
//! own, beside the daemon or without it. Each of its verbs is one transaction: a letter goes in the
//! same one in which its event comes into the spool.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::own::{self, About};
use super::{Error, SinkId, Store, directory, schema, wall_clock};
use crate::event::{BadRecord, Event, Millis, OWN_API, Seq, Uid};

mod retry;

pub use retry::{Configured, MOST_AT_ONCE, Retried};

/// Numbers the dead letters; never reused.
pub type LetterId = i64;

/// What is shown of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its number.
    pub id: LetterId,
    /// When it was found to be bad.
    pub at: Millis,
    /// The name of the source that read it.
    pub source: String,
    /// The sink that refuses it; none when it could not be read.
    pub sink: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// How often it was sent, or read again.
    pub attempts: u64,
    /// How long its event is.
    pub bytes: u64,
}

/// A dead letter with its event.
#[derive(Clone, Debug)]
pub struct Whole {
    /// What is shown of it.
    pub letter: Letter,
    /// The record, as received.
    pub event: Vec<u8>,
    /// What else a sink's letter knows of its event.
    pub facts: Option<Facts>,
    /// Which of its equals a record is that could not be read.
    copy: u32,
}

/// What a line is made of besides the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The number under which the sink refused it.
    pub seq: Seq,
    /// Its identity.
    pub uid: Uid,
    /// The API's preset.
    pub api: String,
    /// What kind of event it says it is.
    pub event_type: Option<String>,
    /// When it happened, by its own account.
    pub time: Option<Millis>,
    /// When its page was fetched.
    pub received: Millis,
}

/// Which letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// All of them.
    #[default]
    All,
    /// Those whose event this source has read.
    Source(String),
    /// Those that this sink refuses.
    Sink(String),
}

/// The dead letters of a store.
pub struct Letters {
    conn: Connection,
}

impl Letters {
    /// Opens the store in `dir` to look at its letters.
    ///
    /// # Errors
    /// When there is no store, or it cannot be read.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        Self::open(dir, schema::open_reader)
    }

    /// Opens the store in `dir` to change its letters.
    ///
    /// # Errors
    /// When there is no store, or it cannot be written.
    pub fn edit(dir: &Path) -> Result<Self, Error> {
        Self::open(dir, schema::open_editor)
    }

    fn open(dir: &Path, open: fn(&Path) -> Result<Connection, Error>) -> Result<Self, Error> {
        let path = directory::database(dir);
        if let Err(source) = std::fs::metadata(&path) {
            return Err(Error::Io { doing: "read the store", path, source: source.into() });
        }
        Ok(Self { conn: open(&path).map_err(|err| err.at(&path))? })
    }

    /// The letters, newest last.
    ///
    /// # Errors
    /// [`Error::Unknown`] when the store has never met the source or sink.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Letter>, Error> {
        let (source, sink) = match filter {
            Filter::All => (None, None),
            Filter::Source(name) => (Some(self.known("source", "sources", name)?), None),
            Filter::Sink(name) => (None, Some(self.known("sink", "sinks", name)?)),
        };
        let mut select = self.conn.prepare(&format!(
            "SELECT {LETTER} WHERE (?1 IS NULL OR dead_letters.source = ?1)
             AND (?2 IS NULL OR sinks.name = ?2) ORDER BY dead_letters.id"
        ))?;
        let rows = select.query_map(params![source, sink], letter)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn known<'a>(&self, what: &'static str, table: &str, name: &'a str) -> Result<&'a str, Error> {
        let mut select = self.conn.prepare(&format!("SELECT name FROM {table} ORDER BY name"))?;
        let names = select.query_map([], |row| row.get(0))?;
        let known: Vec<String> = names.collect::<rusqlite::Result<_>>()?;
        if known.iter().any(|known| known == name) {
            return Ok(name);
        }
        Err(Error::Unknown { what, name: name.to_owned(), known })
    }

    /// One letter, with its event.
    ///
    /// # Errors
    /// [`Error::NoLetter`] when there is none of this number.
    pub fn show(&self, id: LetterId) -> Result<Whole, Error> {
        whole(&self.conn, id)
    }

    /// Removes letters for good; returns what they were. All of them, or none when one is not there.
    ///
    /// # Errors
    /// [`Error::NoLetter`] when there is none of one of these numbers.
    pub fn discard(&mut self, ids: &[LetterId]) -> Result<Vec<Letter>, Error> {
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut gone = Vec::new();
        for id in ids {
            let select = format!("SELECT {LETTER} WHERE dead_letters.id = ?1");
            let letter = transaction.prepare_cached(&select)?.query_row([id], letter).optional()?;
            gone.push(letter.ok_or(Error::NoLetter { id: *id })?);
            remove(&transaction, *id)?;
        }
        transaction.commit()?;
        Ok(gone)
    }
}

/// An event that a sink refuses for good.
#[derive(Clone, Debug)]
pub struct Refused {
    sink: SinkId,
    source: String,
    event: Vec<u8>,
    facts: Facts,
    reason: String,
    attempts: u64,
}

impl Refused {
    /// Takes all of the event that a letter needs.
    pub fn new(sink: SinkId, event: &Event<'_>, reason: &str, attempts: u64) -> Self {
        let facts = Facts {
            seq: event.seq,
            uid: event.uid,
            api: event.api.to_owned(),
            event_type: event.event_type.map(str::to_owned),
            time: event.time,
            received: event.received,
        };
        let (source, event, reason) = (event.source.into(), event.raw.to_vec(), reason.into());
        Self { sink, source, event, facts, reason, attempts }
    }
}

impl Store {
    /// Keeps an event as a dead letter of the sink that refuses it.
    pub async fn bury(&self, refused: Refused) -> Result<LetterId, Error> {
        let announces = self.announces();
        let id = self.0.writer.write(move |conn| bury(conn, &refused, announces)).await?;
        self.announce_letters(wall_clock(), false).await;
        Ok(id)
    }
}

/// Keeps an event as a dead letter, and counts it for an event of our own if those are announced.
pub(super) fn bury(
    conn: &Connection,
    refused: &Refused,
    announces: bool,
) -> Result<LetterId, Error> {
    let Refused { sink, source, event, facts, reason, attempts } = refused;
    conn.prepare_cached(
        "INSERT INTO dead_letters (sink, source, event, reason, attempts, at, seq, uid, api, type,
             time, received) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        sink,
        source,
        event,
        reason,
        attempts.cast_signed(),
        wall_clock(),
        facts.seq.cast_signed(),
        facts.uid.0,
        facts.api,
        facts.event_type,
        facts.time,
        facts.received
    ])?;
    let id = conn.last_insert_rowid();
    if announces {
        count_untold(conn, refused, id)?;
    }
    Ok(id)
}

/// Counts a letter that is to be told of, in the operation that makes it. One of our own events is
/// not: that would be told of, and so on.
pub(super) fn count_untold(
    conn: &Connection,
    refused: &Refused,
    id: LetterId,
) -> Result<(), Error> {
    if refused.facts.api == OWN_API {
        return Ok(());
    }
    let sink: String = conn
        .prepare_cached("SELECT name FROM sinks WHERE id = ?1")?
        .query_row([refused.sink], |row| row.get(0))?;
    let untold = crate::own::Letters { count: 1, id, reason: &refused.reason };
    own::count_letters(conn, About::Sink(&sink), untold)
}

/// Keeps a record that could not be read, the `copy`-th of its equals.
pub(super) fn keep_unread(
    conn: &Connection,
    source: &str,
    record: &BadRecord,
    copy: u32,
    at: Millis,
) -> rusqlite::Result<LetterId> {
    conn.prepare_cached(
        "INSERT INTO dead_letters (source, event, reason, attempts, at, copy)
         VALUES (?1, ?2, ?3, 0, ?4, ?5)",
    )?
    .execute(params![source, record.raw, record.reason, at, copy])?;
    Ok(conn.last_insert_rowid())
}

const LETTER: &str = "dead_letters.id, at, source, sinks.name, reason, attempts, length(event)
    FROM dead_letters LEFT JOIN sinks ON sinks.id = dead_letters.sink";

fn letter(row: &Row<'_>) -> rusqlite::Result<Letter> {
    Ok(Letter {
        id: row.get(0)?,
        at: row.get(1)?,
        source: row.get(2)?,
        sink: row.get(3)?,
        reason: row.get(4)?,
        attempts: row.get::<_, i64>(5)?.cast_unsigned(),
        bytes: row.get::<_, i64>(6)?.cast_unsigned(),
    })
}

fn whole(conn: &Connection, id: LetterId) -> Result<Whole, Error> {
    let select = format!("SELECT {LETTER} WHERE dead_letters.id = ?1");
    let shown = conn.prepare_cached(&select)?.query_row([id], letter).optional()?;
    let letter = shown.ok_or(Error::NoLetter { id })?;
    let mut select = conn.prepare_cached(
        "SELECT event, copy, seq, uid, api, type, time, received FROM dead_letters WHERE id = ?1",
    )?;
    let row = |row: &Row<'_>| {
        let seq: Option<i64> = row.get(2)?;
        let facts = seq.map(|seq| facts(row, seq.cast_unsigned())).transpose()?;
        let copy = row.get::<_, Option<u32>>(1)?.unwrap_or(1);
        Ok(Whole { letter, event: row.get(0)?, facts, copy })
    };
    Ok(select.query_row([id], row)?)
}

fn facts(row: &Row<'_>, seq: Seq) -> rusqlite::Result<Facts> {
    Ok(Facts {
        seq,
        uid: Uid(row.get(3)?),
        api: row.get(4)?,
        event_type: row.get(5)?,
        time: row.get(6)?,
        received: row.get(7)?,
    })
}

fn remove(conn: &Connection, id: LetterId) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?.execute([id])?;
    Ok(())
}
