//! The sink end of the store: what is settled, and the bookmark to resume from.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Error, SinkId, Store, next_seq};
use crate::event::Seq;
use crate::position::Bookmark;

/// What the store knows of a sink when its courier starts.
#[derive(Debug)]
pub struct Registered {
    /// Its key.
    pub id: SinkId,
    /// Every event up to this number has met its fate.
    pub settled: Seq,
    /// What the sink needs to resume exactly.
    pub bookmark: Option<Bookmark>,
    /// True when the store has not known it before.
    pub is_new: bool,
}

/// How many events wait for the sink of the row at hand: those that are not for another one alone.
pub(super) const PENDING: &str = "
    (SELECT value FROM meta WHERE key = 'next_seq') - 1 - settled_seq -
    (SELECT coalesce(sum(count), 0) FROM pages INDEXED BY pages_of_one_sink
     WHERE only_sink IS NOT NULL AND only_sink <> sinks.id AND first_seq > settled_seq)";

impl Store {
    /// Makes a sink known. A new one begins with the oldest event kept, or with the next one.
    pub async fn register_sink(&self, name: &str, from_kept: bool) -> Result<Registered, Error> {
        let name = name.to_owned();
        let operation = move |conn: &Connection| register(conn, &name, from_kept);
        let registered = self.0.writer.write(operation).await?;
        self.0.sinks.lock().expect("no panic while held").push(registered.id);
        Ok(registered)
    }

    /// Makes the fate of the events after `from` and up to `to` final, together with the bookmark;
    /// `delivered` of them were this sink's, and delivered.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] when `from` is not what the store holds, for something else has
    /// settled, or when `to` lies before it.
    pub async fn settle(
        &self,
        sink: SinkId,
        from: Seq,
        to: Seq,
        delivered: u64,
        bookmark: Option<Bookmark>,
    ) -> Result<(), Error> {
        let operation = move |conn: &Connection| settle(conn, sink, from, to, delivered, bookmark);
        self.0.writer.write(operation).await?;
        self.0.settled.send_modify(|settles| *settles += 1);
        Ok(())
    }

    /// How many events wait for a sink.
    pub async fn pending(&self, id: SinkId) -> Result<u64, Error> {
        self.read(move |conn| {
            let mut select =
                conn.prepare_cached(&format!("SELECT {PENDING} FROM sinks WHERE id = ?1"))?;
            Ok(select.query_row(params![id], |row| row.get::<_, i64>(0))?.cast_unsigned())
        })
        .await
    }

    /// Remembers how a sink is doing, for `status`.
    pub async fn sink_state(
        &self,
        id: SinkId,
        state: &'static str,
        error: Option<String>,
    ) -> Result<(), Error> {
        let operation = move |conn: &Connection| {
            conn.execute(
                "UPDATE sinks SET state = ?2, last_error = coalesce(?3, last_error) WHERE id = ?1",
                params![id, state, error],
            )?;
            Ok(())
        };
        self.0.writer.write(operation).await
    }
}

fn register(conn: &Connection, name: &str, from_kept: bool) -> Result<Registered, Error> {
    let known = conn
        .query_row(
            "SELECT id, settled_seq, bookmark FROM sinks WHERE name = ?1",
            params![name],
            |row| {
                Ok(Registered {
                    id: row.get(0)?,
                    settled: row.get::<_, i64>(1)?.cast_unsigned(),
                    bookmark: row.get::<_, Option<String>>(2)?.map(Bookmark),
                    is_new: false,
                })
            },
        )
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    let next = next_seq(conn)?;
    let oldest: Option<i64> =
        conn.query_row("SELECT min(first_seq) FROM pages", [], |row| row.get(0))?;
    let first = oldest.filter(|_| from_kept).map_or(next, i64::cast_unsigned);
    let settled = first - 1;
    conn.execute(
        "INSERT INTO sinks (name, settled_seq) VALUES (?1, ?2)",
        params![name, settled.cast_signed()],
    )?;
    Ok(Registered { id: conn.last_insert_rowid(), settled, bookmark: None, is_new: true })
}

fn settle(
    conn: &Connection,
    sink: SinkId,
    from: Seq,
    to: Seq,
    delivered: u64,
    bookmark: Option<Bookmark>,
) -> Result<(), Error> {
    let settled = conn
        .prepare_cached(
            "UPDATE sinks SET settled_seq = ?3, delivered = delivered + ?4,
             bookmark = coalesce(?5, bookmark)
             WHERE id = ?1 AND settled_seq = ?2 AND ?2 <= ?3",
        )?
        .execute(params![
            sink,
            from.cast_signed(),
            to.cast_signed(),
            delivered.cast_signed(),
            bookmark.map(|bookmark| bookmark.0)
        ])?;
    if settled == 1 { Ok(()) } else { Err(Error::OutOfOrder { what: "the bookmark" }) }
}

/// The number up to which all of these sinks have settled. With none, nothing may go.
pub(super) fn settled_by_all(conn: &Connection, sinks: &[SinkId]) -> rusqlite::Result<Seq> {
    let mut select = conn.prepare_cached("SELECT settled_seq FROM sinks WHERE id = ?1")?;
    let mut least = None::<i64>;
    for id in sinks {
        let settled: i64 = select.query_row(params![id], |row| row.get(0))?;
        least = Some(least.map_or(settled, |least| least.min(settled)));
    }
    Ok(least.unwrap_or(0).cast_unsigned())
}
