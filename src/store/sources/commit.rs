//! Commits a page: its events, what has been seen and the position, in one transaction.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Reader, StoredSweep};
use crate::event::{Digest, Millis, Page, Repeats, Seq};
use crate::own::{Letters, source_heard};
use crate::position::{PassId, Second, Window};
use crate::store::own::{self, About, Added};
use crate::store::seen::{self, Counts, Delta, Judge};
use crate::store::spool::{self, Builder, NewPage};
use crate::store::{Error, SourceId, Store, dead_letters, requests, wall_clock};

/// What stays the same over all pages of a source.
#[derive(Debug)]
pub struct Origin {
    /// The source's key.
    pub id: SourceId,
    /// Its name, shown in every event.
    pub name: String,
    /// The preset's name, shown in every event.
    pub api: String,
    /// Part of every uid.
    pub tenant: String,
    /// How its records repeat.
    pub repeats: Repeats,
    /// How long finished passes are remembered.
    pub seen_keep: Millis,
}

/// A page on its way into the store.
#[derive(Debug)]
pub struct PageCommit {
    /// Whose it is.
    pub origin: Arc<Origin>,
    /// The pass it belongs to; none on its first page.
    pub pass: Option<PassId>,
    /// Who makes the pass.
    pub reader: Reader,
    /// What the pass reads.
    pub window: Window,
    /// When the pass began, by the server's clock.
    pub begun_at: Millis,
    /// What its tokens are bound to.
    pub scope: String,
    /// The copies its earlier pages have met.
    pub counts: Counts,
    /// The records, and how to get the next page.
    pub page: Page,
    /// When the response came, by our clock.
    pub fetched_at: Millis,
    /// How far the server's clock is ahead of ours.
    pub skew: Millis,
    /// The server's time.
    pub now: Millis,
    /// What moves when this page drains the window; none when there are more.
    pub drained: Option<Drained>,
}

/// How far a reader has come with a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Where the watermarks go.
    Swept(Vec<StoredSweep>),
    /// How far the backfill has come, and whether that was all of it.
    Filled {
        /// All of its span before this second is read.
        position: Second,
        /// Nothing is left.
        is_done: bool,
    },
}

/// What became of a page.
#[derive(Debug)]
pub struct Committed {
    /// The pass it belongs to.
    pub pass: PassId,
    /// To be merged into the pass's counts.
    pub delta: Delta,
    /// How many of its records are new events.
    pub events: u64,
    /// How many were read before.
    pub repeats: u64,
    /// How many of the new ones the head had missed.
    pub late: u64,
    /// How many bad ones became dead letters.
    pub bad: u64,
    last_seq: Seq,
    bytes: u64,
    own: Added,
}

impl Store {
    /// Commits a page: its new events, what has been seen, the pass and, when the window is
    /// drained, the watermarks, in one transaction.
    pub async fn commit_page(&self, commit: PageCommit) -> Result<Committed, Error> {
        let disk = Arc::clone(&self.0.disk);
        let announces = self.announces();
        let operation = move |conn: &Connection| {
            disk.admit_page()?;
            let (mut committed, bad) = commit_page(conn, &commit)?;
            committed.own = hear(conn, &commit, &committed, announces)?;
            if let Some(letters) = bad.filter(|_| announces) {
                own::count_letters(conn, About::Source(&commit.origin.name), letters)?;
            }
            Ok(committed)
        };
        let committed = self.0.writer.write(operation).await?;
        self.0.disk.page_stored();
        self.0.spool_bytes.fetch_add(committed.bytes.cast_signed(), Ordering::Relaxed);
        self.0.moved.send_modify(|pages| *pages += 1);
        if committed.events > 0 {
            self.0.committed.send_if_modified(|last| {
                *last = committed.last_seq.max(*last);
                true
            });
        }
        self.announced(committed.own);
        if committed.bad > 0 {
            self.announce_letters(wall_clock(), false).await;
        }
        Ok(committed)
    }
}

/// A new event ends the silence of a source.
fn hear(
    conn: &Connection,
    commit: &PageCommit,
    committed: &Committed,
    announces: bool,
) -> Result<Added, Error> {
    // What is filled in later says nothing about now.
    if committed.events == 0 || matches!(commit.reader, Reader::Backfill(_)) {
        return Ok(Added::default());
    }
    let Origin { id, name, .. } = &*commit.origin;
    let silent_since: Option<Millis> = conn
        .prepare_cached("SELECT heard_at FROM sources WHERE id = ?1 AND is_silent")?
        .query_row(params![id], |row| row.get(0))
        .optional()?;
    conn.prepare_cached("UPDATE sources SET heard_at = ?2, is_silent = 0 WHERE id = ?1")?
        .execute(params![id, commit.now])?;
    match silent_since.filter(|_| announces) {
        Some(since) => own::insert(conn, &source_heard(name, since, commit.now), None),
        None => Ok(Added::default()),
    }
}

fn commit_page<'a>(
    conn: &Connection,
    commit: &'a PageCommit,
) -> Result<(Committed, Option<Letters<'a>>), Error> {
    let pass = begin_pass(conn, commit)?;
    let mut delta = Delta::default();
    let mut builder = Builder::new(&commit.origin.name, &commit.origin.api);
    let judge = &mut Judge {
        conn,
        source: commit.origin.id,
        pass,
        repeats: commit.origin.repeats,
        counts: &commit.counts,
        delta: &mut delta,
        expects_new: true,
    };
    admit_records(judge, commit, &mut builder)?;
    let letters = admit_bad(judge, commit)?;
    let bad = letters.map_or(0, |letters| letters.count);
    let events = u64::from(builder.count());
    let (source, received) = (commit.origin.id, commit.fetched_at);
    let page = NewPage { builder, source, pass, received, only_sink: None };
    let (last_seq, bytes) = spool::insert(conn, page)?;
    let records = (commit.page.records.len() + commit.page.bad.len()) as u64;
    let late = if matches!(commit.reader, Reader::Sweep(1..)) { events } else { 0 };
    let repeats = records - events - bad;
    advance(conn, commit, pass, events)?;
    if let Reader::Backfill(id) = commit.reader {
        let position = match commit.drained {
            Some(Drained::Filled { position, is_done }) => Some((position, is_done)),
            _ => None,
        };
        requests::advance(conn, id, position, (events, repeats), commit.fetched_at)?;
    }
    conn.prepare_cached(
        "UPDATE sources SET events = events + ?2, repeats = repeats + ?3, late = late + ?4,
         skew_ms = ?5 WHERE id = ?1",
    )?
    .execute(params![
        commit.origin.id,
        events.cast_signed(),
        repeats.cast_signed(),
        late.cast_signed(),
        commit.skew
    ])?;
    let own = Added::default();
    Ok((Committed { pass, delta, events, repeats, late, bad, last_seq, bytes, own }, letters))
}

/// A pass has one number from its first page on; what the same reader left unfinished ends here.
fn begin_pass(conn: &Connection, commit: &PageCommit) -> Result<PassId, Error> {
    if let Some(pass) = commit.pass {
        return Ok(pass);
    }
    let (age, request) = match commit.reader {
        Reader::Sweep(age) => (Some(age), None),
        Reader::Backfill(request) => (None, Some(request)),
    };
    conn.prepare_cached(
        "UPDATE passes SET finished_at = ?4, token = NULL
         WHERE source = ?1 AND age_ms IS ?2 AND request IS ?3 AND finished_at IS NULL",
    )?
    .execute(params![commit.origin.id, age, request, commit.now.div_euclid(1000)])?;
    conn.prepare_cached(
        "INSERT INTO passes (source, age_ms, request, window_start, window_end, begun_at, scope)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        commit.origin.id,
        age,
        request,
        commit.window.start,
        commit.window.end,
        commit.begun_at,
        commit.scope
    ])?;
    let pass = conn.last_insert_rowid();
    conn.prepare_cached(
        "UPDATE sources SET read_from = min(coalesce(read_from, ?2), ?2) WHERE id = ?1",
    )?
    .execute(params![commit.origin.id, commit.window.start])?;
    Ok(pass)
}

fn admit_records(
    judge: &mut Judge<'_>,
    commit: &PageCommit,
    builder: &mut Builder,
) -> Result<(), Error> {
    let origin = &commit.origin;
    for record in &commit.page.records {
        let second = record.time.map_or(0, |time| time.div_euclid(1000));
        if let Some(copy) = judge.admit(second, record.digest)? {
            let uid = seen::uid(&origin.api, &origin.tenant, record.digest, copy);
            let raw = &commit.page.bytes[record.span.clone()];
            builder.push(uid, record.time, record.event_type.as_deref(), raw);
        }
    }
    Ok(())
}

/// Bad records become dead letters without a sink: once, not at each re-read.
fn admit_bad<'a>(
    judge: &mut Judge<'_>,
    commit: &'a PageCommit,
) -> Result<Option<Letters<'a>>, Error> {
    let mut bad = None::<Letters<'a>>;
    for record in &commit.page.bad {
        if let Some(copy) = judge.admit(0, bad_digest(&record.raw))? {
            let source = &commit.origin.name;
            let id =
                dead_letters::keep_unread(judge.conn, source, record, copy, commit.fetched_at)?;
            let first = Letters { count: 0, id, reason: record.reason };
            bad.get_or_insert(first).count += 1;
        }
    }
    Ok(bad)
}

/// Domain-separated from the digests of good records by its prefix.
fn bad_digest(raw: &[u8]) -> Digest {
    use sha2::Digest as _;
    let hash = sha2::Sha256::new().chain_update(b"bad record\0").chain_update(raw).finalize();
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash[..16]);
    Digest(digest)
}

fn advance(conn: &Connection, commit: &PageCommit, pass: PassId, events: u64) -> Result<(), Error> {
    let finished = commit.drained.is_some().then(|| commit.now.div_euclid(1000));
    let token = commit.page.next.as_ref().filter(|_| finished.is_none()).map(|token| &token.0);
    conn.prepare_cached(
        "UPDATE passes SET token = ?2, pages = pages + 1, events = events + ?3, finished_at = ?4
         WHERE id = ?1",
    )?
    .execute(params![pass, token, events.cast_signed(), finished])?;
    let Some(Drained::Swept(sweeps)) = &commit.drained else { return Ok(()) };
    for sweep in sweeps {
        let moved = conn
            .prepare_cached(
                "UPDATE sweeps SET watermark = ?3, read_at = ?4
                 WHERE source = ?1 AND age_ms = ?2 AND watermark <= ?3 RETURNING 1",
            )?
            .query_row(params![commit.origin.id, sweep.age, sweep.watermark, sweep.read_at], |_| {
                Ok(())
            })
            .optional()?;
        if moved.is_none() {
            return Err(Error::OutOfOrder { what: "the watermark" });
        }
    }
    Ok(())
}
