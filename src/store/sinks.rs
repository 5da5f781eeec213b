//! The sink end of the store: what is settled, and the bookmark to resume from.

use rusqlite::{Connection, OptionalExtension, params};

use super::dead_letters::{self, LetterId, Refused};
use super::{Error, SinkId, Store, next_seq, wall_clock};
use crate::event::Seq;
use crate::position::{Bookmark, Sending};

/// What the store knows of a sink when its courier starts.
#[derive(Debug)]
pub struct Registered {
    /// Its key.
    pub id: SinkId,
    /// Every event up to this number has met its fate.
    pub settled: Seq,
    /// What the sink needs to resume exactly.
    pub bookmark: Option<Bookmark>,
    /// What may have been on its way when the last run ended.
    pub sending: Sending,
    /// True when the store has not known it before.
    pub is_new: bool,
}

/// What has become of events, and what is on its way now: one transaction.
#[derive(Clone, Debug, Default)]
pub struct Settlement {
    /// The sink.
    pub sink: SinkId,
    /// Up to this number everything was settled before.
    pub from: Seq,
    /// Up to this number everything is settled now.
    pub to: Seq,
    /// How many more events were delivered, those behind `to` included.
    pub delivered: u64,
    /// How many more sends had an outcome that cannot be known.
    pub ambiguous: u64,
    /// How many events are suspects now.
    pub suspects: u64,
    /// What the sink needs to resume; none leaves it as it is.
    pub bookmark: Option<Bookmark>,
    /// What is on its way from now on.
    pub sending: Sending,
    /// What is a dead letter from now on.
    pub buried: Vec<Refused>,
}

impl Settlement {
    /// That all up to `to` is settled, and so many more events were delivered.
    pub fn of(sink: SinkId, from: Seq, to: Seq, delivered: u64) -> Self {
        Self { sink, from, to, delivered, ..Self::default() }
    }
}

/// How many events wait for the sink of the row at hand: those that are not for another one alone,
/// and have not met their fate ahead of others.
pub(super) const PENDING: &str = "
    max(0, (SELECT value FROM meta WHERE key = 'next_seq') - 1 - settled_seq -
    (SELECT coalesce(sum(count), 0) FROM pages INDEXED BY pages_of_one_sink
     WHERE only_sink IS NOT NULL AND only_sink <> sinks.id AND first_seq > settled_seq) -
    (SELECT coalesce(sum((value ->> 1) - (value ->> 0) + 1), 0)
     FROM json_each(coalesce(sending, '{}'), '$.done')))";

impl Store {
    /// Makes a sink known. A new one begins with the oldest event kept, or with the next one.
    pub async fn register_sink(&self, name: &str, from_kept: bool) -> Result<Registered, Error> {
        let name = name.to_owned();
        let operation = move |conn: &Connection| register(conn, &name, from_kept);
        let registered = self.0.writer.write(operation).await?;
        self.0.sinks.lock().expect("no panic while held").push(registered.id);
        Ok(registered)
    }

    /// Makes the fate of events final, together with the bookmark and with what is sent next.
    /// Returns the numbers of the dead letters.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] when `from` is not what the store holds, for something else has
    /// settled, or when `to` lies before it.
    pub async fn settle(&self, settlement: Settlement) -> Result<Vec<LetterId>, Error> {
        // That something is on its way is no progress.
        let moves = settlement.from < settlement.to || settlement.bookmark.is_some();
        let announces = self.announces();
        let operation = move |conn: &Connection| settle(conn, &settlement, announces);
        let letters = self.0.writer.write(operation).await?;
        if !letters.is_empty() {
            self.announce_letters(wall_clock(), false).await;
        }
        if moves {
            self.0.settled.send_modify(|settles| *settles += 1);
        }
        Ok(letters)
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
            "SELECT id, settled_seq, bookmark, sending FROM sinks WHERE name = ?1",
            params![name],
            |row| {
                Ok(Registered {
                    id: row.get(0)?,
                    settled: row.get::<_, i64>(1)?.cast_unsigned(),
                    bookmark: row.get::<_, Option<String>>(2)?.map(Bookmark),
                    sending: sending(row.get::<_, Option<String>>(3)?.as_deref()),
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
    let (id, sending) = (conn.last_insert_rowid(), Sending::default());
    Ok(Registered { id, settled, bookmark: None, sending, is_new: true })
}

/// What cannot be read is of no use: its events are sent again as new batches.
fn sending(text: Option<&str>) -> Sending {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn settle(
    conn: &Connection,
    settlement: &Settlement,
    announces: bool,
) -> Result<Vec<LetterId>, Error> {
    let Settlement { sink, from, to, delivered, ambiguous, suspects, .. } = settlement;
    let sending = (settlement.sending != Sending::default()).then(|| {
        serde_json::to_string(&settlement.sending).expect("numbers and ids are plain data")
    });
    let settled = conn
        .prepare_cached(
            "UPDATE sinks SET settled_seq = ?3, delivered = delivered + ?4,
             ambiguous = ambiguous + ?5, suspects = ?6, bookmark = coalesce(?7, bookmark),
             sending = ?8
             WHERE id = ?1 AND settled_seq = ?2 AND ?2 <= ?3",
        )?
        .execute(params![
            sink,
            from.cast_signed(),
            to.cast_signed(),
            delivered.cast_signed(),
            ambiguous.cast_signed(),
            suspects.cast_signed(),
            settlement.bookmark.as_ref().map(|bookmark| &bookmark.0),
            sending
        ])?;
    if settled != 1 {
        return Err(Error::OutOfOrder { what: "the bookmark" });
    }
    let buried = settlement.buried.iter();
    buried.map(|refused| dead_letters::bury(conn, refused, announces)).collect()
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
