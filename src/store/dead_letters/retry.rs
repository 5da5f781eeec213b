//! Tries dead letters again: reads a record anew, or puts an event back for its sink.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Facts, Letter, LetterId, Letters, Whole, remove, whole};
use crate::event::{Page, Record, Seq};
use crate::position::PassId;
use crate::store::seen::{self, Counts, Delta, Judge};
use crate::store::sources::Origin;
use crate::store::spool::{self, Builder, NewPage};
use crate::store::{Error, SourceId, wall_clock, watch};

/// How many letters one transaction may send again: the daemon waits for it.
pub const MOST_AT_ONCE: usize = 500;

/// What the configuration says, to try letters again by.
pub trait Configured {
    /// Whether there is such a sink.
    fn has_sink(&self, name: &str) -> bool;

    /// Reads one record of a source again, as if it came in a response; none when there is no such
    /// source.
    fn read_again(&self, source: &str, record: &[u8]) -> Option<(Origin, Page)>;
}

/// What became of a letter that was tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It can be read now, and is an event for every sink.
    Event(Seq),
    /// Its event waits for its sink again.
    SentAgain(Seq),
    /// Its event has been read meanwhile.
    Known,
    /// It still cannot be read; the letter stays.
    StillBad {
        /// Why not.
        reason: String,
        /// How often it was read again.
        attempts: u64,
    },
    /// Nobody is configured who could do something with it; the letter stays.
    NotConfigured,
}

impl Retried {
    /// True when the letter is still there.
    pub const fn stays(&self) -> bool {
        matches!(self, Self::StillBad { .. } | Self::NotConfigured)
    }
}

impl Letters {
    /// Tries letters again: reads a record anew, or puts an event back into the spool for the sink
    /// that has refused it. All in one transaction, or none when one is not there.
    ///
    /// # Errors
    /// [`Error::NoLetter`] when there is none of one of these numbers.
    pub fn retry(
        &mut self,
        ids: &[LetterId],
        configured: &dyn Configured,
    ) -> Result<Vec<(Letter, Retried)>, Error> {
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut done = Vec::new();
        for id in ids {
            let whole = whole(&transaction, *id)?;
            let retried = match &whole.facts {
                Some(facts) => send_again(&transaction, &whole, facts, configured)?,
                None => read_again(&transaction, &whole, configured)?,
            };
            done.push((whole.letter, retried));
        }
        transaction.commit()?;
        Ok(done)
    }
}

/// Puts the event back, as it was but for its number, for its sink alone.
fn send_again(
    conn: &Connection,
    whole: &Whole,
    facts: &Facts,
    configured: &dyn Configured,
) -> Result<Retried, Error> {
    let Whole { letter, event, .. } = whole;
    // Nobody would take it out of the spool, which forgets what nobody is to have.
    if !letter.sink.as_ref().is_some_and(|sink| configured.has_sink(sink)) {
        return Ok(Retried::NotConfigured);
    }
    let only_sink = conn
        .prepare_cached("SELECT sink FROM dead_letters WHERE id = ?1")?
        .query_row([letter.id], |row| row.get(0))?;
    let mut builder = Builder::new(&letter.source, &facts.api);
    builder.push(facts.uid, facts.time, facts.event_type.as_deref(), event);
    // The source may be forgotten; its name is in the page.
    let source = source_id(conn, &letter.source)?.unwrap_or(0);
    let seq = add(conn, NewPage { builder, source, pass: 0, received: facts.received, only_sink })?;
    remove(conn, letter.id)?;
    Ok(Retried::SentAgain(seq))
}

fn read_again(
    conn: &Connection,
    whole: &Whole,
    configured: &dyn Configured,
) -> Result<Retried, Error> {
    let letter = &whole.letter;
    let source = source_id(conn, &letter.source)?;
    let (Some(source), Some((mut origin, page))) =
        (source, configured.read_again(&letter.source, &whole.event))
    else {
        return Ok(Retried::NotConfigured);
    };
    origin.id = source;
    let ([record], []) = (&page.records[..], &page.bad[..]) else {
        let reason = page.bad.first().map_or("not one record", |bad| bad.reason).to_owned();
        let attempts = letter.attempts + 1;
        conn.prepare_cached("UPDATE dead_letters SET reason = ?2, attempts = ?3 WHERE id = ?1")?
            .execute(params![letter.id, reason, attempts.cast_signed()])?;
        return Ok(Retried::StillBad { reason, attempts });
    };
    let seq = revive(conn, whole, &origin, &page, record)?;
    Ok(seq.map_or(Retried::Known, Retried::Event))
}

/// Makes a letter an event for all sinks, unless a reading has found it meanwhile: equal letters are
/// as many events, in whatever order they are tried again.
fn revive(
    conn: &Connection,
    whole: &Whole,
    origin: &Origin,
    page: &Page,
    record: &Record,
) -> Result<Option<Seq>, Error> {
    let pass = begin_pass(conn, origin.id)?;
    let second = record.time.map_or(0, |time| time.div_euclid(1000));
    let mut judge = Judge {
        conn,
        source: origin.id,
        pass,
        repeats: origin.repeats,
        counts: &Counts::default(),
        delta: &mut Delta::default(),
        expects_new: false,
    };
    let admitted = judge.admit_copy(second, record.digest, whole.copy)?;
    remove(conn, whole.letter.id)?;
    let Some(copy) = admitted else { return Ok(None) };
    // Another letter of the same bytes has had this number: it takes over ours.
    conn.execute(
        "UPDATE dead_letters SET copy = ?1 WHERE id = (SELECT id FROM dead_letters
             WHERE sink IS NULL AND source = ?2 AND copy = ?3 AND event = ?4 LIMIT 1)",
        params![whole.copy, whole.letter.source, copy, whole.event],
    )?;
    let uid = seen::uid(&origin.api, &origin.tenant, record.digest, copy);
    let mut builder = Builder::new(&origin.name, &origin.api);
    let raw = &page.bytes[record.span.clone()];
    builder.push(uid, record.time, record.event_type.as_deref(), raw);
    let (source, received) = (origin.id, whole.letter.at);
    conn.prepare_cached("UPDATE sources SET events = events + 1 WHERE id = ?1")?
        .execute([source])?;
    Ok(Some(add(conn, NewPage { builder, source, pass, received, only_sink: None })?))
}

/// A reading of its own, of no time at all: what it has found is remembered as long as what any
/// other has.
fn begin_pass(conn: &Connection, source: SourceId) -> Result<PassId, Error> {
    conn.prepare_cached(
        "INSERT INTO passes (source, window_start, window_end, begun_at, scope, pages, events,
             finished_at)
         SELECT id, head, head, ?2 + skew_ms, '', 0, 1, (?2 + skew_ms) / 1000
         FROM sources, (SELECT max(watermark) AS head FROM sweeps WHERE source = ?1)
         WHERE id = ?1",
    )?
    .execute(params![source, wall_clock()])?;
    Ok(conn.last_insert_rowid())
}

fn add(conn: &Connection, page: NewPage) -> Result<Seq, Error> {
    let (seq, bytes) = spool::insert(conn, page)?;
    watch::count_added(conn, bytes)?;
    Ok(seq)
}

fn source_id(conn: &Connection, name: &str) -> rusqlite::Result<Option<SourceId>> {
    conn.prepare_cached("SELECT id FROM sources WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}
