//! One event for one sink, to see what becomes of it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::requests::{existing, transaction};
use super::sinks::PENDING;
use super::{Error, SinkId, Store, own, schema, watch};
use crate::event::Seq;
use crate::own::OwnEvent;

/// What has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// True when the sink has settled it.
    pub is_settled: bool,
    /// Why it is a dead letter, if it is one.
    pub refused: Option<String>,
    /// The sink's state.
    pub state: String,
    /// Its newest error.
    pub error: Option<String>,
    /// How many events wait for it.
    pub pending: u64,
}

/// The store of a running daemon, with a trial in it.
pub struct Trial {
    conn: Connection,
    sink: SinkId,
    seq: Seq,
}

impl Trial {
    /// Puts an event into the spool for one sink alone, beside the daemon.
    ///
    /// # Errors
    /// [`Error::Unknown`] when the store has never met the sink.
    pub fn begin(dir: &Path, sink: &str, event: &OwnEvent) -> Result<Self, Error> {
        let path = existing(dir)?;
        let conn = schema::open_editor(&path).map_err(|err| err.at(&path))?;
        let (sink, seq) = transaction(&conn, |conn| {
            let id = super::replay::sink_of(conn, sink)?;
            let added = own::insert(conn, event, Some(id))?;
            watch::count_added(conn, added.bytes)?;
            Ok((id, added.last))
        })?;
        Ok(Self { conn, sink, seq })
    }

    /// What has become of it by now.
    pub fn fate(&self) -> Result<Fate, Error> {
        fate(&self.conn, self.sink, self.seq)
    }
}

impl Store {
    /// Puts an event into the spool for one sink alone.
    pub async fn send_to(&self, sink: SinkId, event: OwnEvent) -> Result<Seq, Error> {
        let operation = move |conn: &Connection| own::insert(conn, &event, Some(sink));
        let added = self.0.writer.write(operation).await?;
        self.announced(added);
        Ok(added.last)
    }

    /// What has become of an event that was for one sink.
    pub async fn fate_of(&self, sink: SinkId, seq: Seq) -> Result<Fate, Error> {
        self.read(move |conn| fate(conn, sink, seq)).await
    }
}

fn fate(conn: &Connection, sink: SinkId, seq: Seq) -> Result<Fate, Error> {
    let refused = conn
        .query_row(
            "SELECT reason FROM dead_letters WHERE sink = ?1 AND seq = ?2",
            params![sink, seq.cast_signed()],
            |row| row.get(0),
        )
        .optional()?;
    let select =
        format!("SELECT settled_seq >= ?2, state, last_error, {PENDING} FROM sinks WHERE id = ?1");
    Ok(conn.query_row(&select, params![sink, seq.cast_signed()], |row| {
        Ok(Fate {
            is_settled: row.get(0)?,
            refused,
            state: row.get(1)?,
            error: row.get(2)?,
            pending: row.get::<_, i64>(3)?.cast_unsigned(),
        })
    })?)
}
