//! What an operator says to a sink that refuses too much: what is refused now is bad indeed.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::requests::{existing, transaction};
use super::{Error, Store, next_seq, schema};
use crate::event::{Millis, Seq};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The number of the last event that it is about.
    pub until: Seq,
    /// The sink's state; none when it has never run.
    pub state: Option<String>,
}

/// Asks for the events up to the last one committed to become dead letters of this sink as soon as
/// it refuses them alone.
pub fn ask(dir: &Path, sink: &str, now: Millis) -> Result<Accepted, Error> {
    let path = existing(dir)?;
    let conn = schema::open_editor(&path).map_err(|err| err.at(&path))?;
    transaction(&conn, |conn| {
        let until = next_seq(conn)? - 1;
        conn.execute(
            "INSERT INTO requests (verb, target, position, asked_at)
             VALUES ('accept', ?1, ?2, ?3)",
            params![sink, until.cast_signed(), now],
        )?;
        let state = conn
            .query_row("SELECT state FROM sinks WHERE name = ?1", params![sink], |row| row.get(0))
            .optional()?;
        Ok(Accepted { until, state })
    })
}

impl Store {
    /// Up to which event a sink's lone refusals are final; none when nobody has said so.
    pub async fn accepted_until(&self, sink: &str) -> Result<Option<Seq>, Error> {
        let sink = sink.to_owned();
        self.read(move |conn| {
            let until: Option<i64> = conn
                .prepare_cached(
                    "SELECT max(position) FROM requests
                     WHERE verb = 'accept' AND target = ?1 AND state = 'waiting'",
                )?
                .query_row(params![sink], |row| row.get(0))?;
            Ok(until.map(i64::cast_unsigned))
        })
        .await
    }

    /// Closes what was said of events that a sink has settled.
    pub async fn end_accept(&self, sink: &str, settled: Seq, now: Millis) -> Result<(), Error> {
        let sink = sink.to_owned();
        let operation = move |conn: &Connection| {
            conn.execute(
                "UPDATE requests SET state = 'done', ended_at = ?3
                 WHERE verb = 'accept' AND target = ?1 AND position <= ?2 AND state = 'waiting'",
                params![sink, settled.cast_signed(), now],
            )?;
            Ok(())
        };
        self.0.writer.write(operation).await
    }
}
