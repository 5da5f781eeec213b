//! Sends what is still kept to one sink again: copies of its events, behind all others.
//!
//! First it looks, without holding anything up; then it adds, in transactions so short that a
//! running daemon can go on between them. A copy has the uid, times and source of its event.

use std::collections::VecDeque;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::requests::{existing, transaction};
use super::spool::{self, Builder, NewPage, SpooledPage};
use super::{Error, SinkId, next_seq, schema, watch};
use crate::event::{Event, Millis, OWN_API, Seq};

/// How much one transaction adds, before it is compressed; a single page may be larger.
const MOST_AT_ONCE: usize = 4 << 20;

/// How many pages one transaction adds.
const MOST_PAGES: usize = 64;

/// Which events are wanted.
pub struct Wanted<'a> {
    /// The sink that is to have them.
    pub sink: &'a str,
    /// Only what this source has read; all but our own events unless given.
    pub source: Option<&'a str>,
    /// The first instant, by the event's own time; by when it was received if it has none.
    pub from: Millis,
    /// The first instant after it.
    pub to: Millis,
    /// Whether the sink takes an event at all.
    pub takes: &'a dyn Fn(&Event<'_>) -> bool,
}

impl Wanted<'_> {
    fn is(&self, event: &Event<'_>) -> bool {
        let time = event.time.unwrap_or(event.received);
        let is_of_source = match self.source {
            Some(source) => event.source == source,
            None => event.api != OWN_API,
        };
        is_of_source && self.from <= time && time < self.to && (self.takes)(event)
    }
}

/// What a look has found.
#[derive(Debug, Default)]
pub struct Found {
    /// The pages with wanted events, by their first numbers.
    pages: VecDeque<Seq>,
    /// How many events are wanted.
    pub events: u64,
    /// About how many bytes the spool will grow by.
    pub bytes: u64,
    /// When the first and the last of them happened.
    pub span: Option<(Millis, Millis)>,
    /// When the oldest page was received that the spool holds.
    pub kept_since: Option<Millis>,
}

/// What was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// How many events.
    pub events: u64,
    /// The number of the last.
    pub last: Seq,
    /// How many pages had gone, for the daemon has made room.
    pub gone: u64,
}

/// A store with something to be sent again.
pub struct Replay<'a> {
    conn: Connection,
    wanted: Wanted<'a>,
    sink: SinkId,
    settled: Seq,
}

impl<'a> Replay<'a> {
    /// Opens the store in `dir`, beside the daemon or without it.
    ///
    /// # Errors
    /// [`Error::Unknown`] when the store has never met the sink.
    pub fn open(dir: &Path, wanted: Wanted<'a>) -> Result<Self, Error> {
        let path = existing(dir)?;
        let conn = schema::open_editor(&path).map_err(|err| err.at(&path))?;
        let sink = sink_of(&conn, wanted.sink)?;
        let settled: i64 =
            conn.query_row("SELECT settled_seq FROM sinks WHERE id = ?1", params![sink], |row| {
                row.get(0)
            })?;
        Ok(Self { conn, wanted, sink, settled: settled.cast_unsigned() })
    }

    /// Looks for what is wanted; tells now and then how much of a hundred it has looked through.
    pub fn find(&self, looked: &mut dyn FnMut(u64)) -> Result<Found, Error> {
        let mut found = Found::default();
        let (mut seq, mut oldest) = (0, None);
        while let Some(page) = spool::page_after(&self.conn, seq)? {
            found.kept_since = found.kept_since.or(Some(page.received()));
            if page.first_seq() > self.settled {
                break;
            }
            self.note(&page, &mut found)?;
            seq = page.last_seq();
            let oldest = *oldest.get_or_insert(page.first_seq());
            looked((seq - oldest + 1) * 100 / self.settled.saturating_sub(oldest - 1).max(1));
        }
        Ok(found)
    }

    fn note(&self, page: &SpooledPage, found: &mut Found) -> Result<(), Error> {
        let mut events = 0;
        for event in self.wanted_of(page) {
            events += 1;
            let time = event.time.unwrap_or(event.received);
            let (first, last) = found.span.get_or_insert((time, time));
            (*first, *last) = (time.min(*first), time.max(*last));
        }
        if events > 0 {
            let size: i64 = self
                .conn
                .prepare_cached("SELECT length(body) FROM pages WHERE first_seq = ?1")?
                .query_row(params![page.first_seq().cast_signed()], |row| row.get(0))
                .optional()?
                .unwrap_or(0);
            let count = page.last_seq() - page.first_seq() + 1;
            found.bytes += size.cast_unsigned() * events / count;
            found.events += events;
            found.pages.push_back(page.first_seq());
        }
        Ok(())
    }

    /// What the sink has not settled yet comes anyway.
    fn wanted_of<'p>(&'p self, page: &'p SpooledPage) -> impl Iterator<Item = Event<'p>> {
        let is_wanted = |event: &Event<'_>| event.seq <= self.settled && self.wanted.is(event);
        page.events().filter(move |event| page.is_for_all() && is_wanted(event))
    }

    /// How many bytes wait for one of these sinks.
    pub fn waiting_bytes<'n>(&self, sinks: impl Iterator<Item = &'n str>) -> Result<u64, Error> {
        let mut least = next_seq(&self.conn)? - 1;
        for name in sinks {
            let settled: Option<i64> = self
                .conn
                .query_row("SELECT settled_seq FROM sinks WHERE name = ?1", params![name], |row| {
                    row.get(0)
                })
                .optional()?;
            least = settled.map_or(least, |settled| least.min(settled.cast_unsigned()));
        }
        Ok(spool::bytes_after(&self.conn, least)?)
    }

    /// Adds copies of some of what was found, in one transaction; none when all of it is done.
    pub fn add_some(&self, found: &mut Found) -> Result<Option<Added>, Error> {
        if found.pages.is_empty() {
            return Ok(None);
        }
        let added = transaction(&self.conn, |conn| {
            let (mut added, mut size) = (Added::default(), 0);
            for _ in 0..MOST_PAGES {
                let Some(first) = found.pages.pop_front() else { break };
                size += self.copy(conn, first, &mut added)?;
                if size >= MOST_AT_ONCE {
                    break;
                }
            }
            Ok(added)
        })?;
        Ok(Some(added))
    }

    /// Adds what is wanted of one page as another; returns how long its events are.
    fn copy(&self, conn: &Connection, first: Seq, added: &mut Added) -> Result<usize, Error> {
        let page = spool::page_after(conn, first - 1)?.filter(|page| page.first_seq() == first);
        let Some(page) = page else {
            added.gone += 1;
            return Ok(0);
        };
        let (mut builder, mut size) = (None, 0);
        for event in self.wanted_of(&page) {
            let builder = builder.get_or_insert_with(|| Builder::new(event.source, event.api));
            builder.push(event.uid, event.time, event.event_type, event.raw);
            size += event.raw.len();
        }
        let Some(builder) = builder else { return Ok(0) };
        let source = conn
            .prepare_cached("SELECT source FROM pages WHERE first_seq = ?1")?
            .query_row(params![first.cast_signed()], |row| row.get(0))?;
        added.events += u64::from(builder.count());
        let (received, only_sink) = (page.received(), Some(self.sink));
        let (last, bytes) =
            spool::insert(conn, NewPage { builder, source, pass: 0, received, only_sink })?;
        watch::count_added(conn, bytes)?;
        added.last = last;
        Ok(size)
    }
}

/// The key of a sink.
///
/// # Errors
/// [`Error::Unknown`] when the store has never met it.
pub(super) fn sink_of(conn: &Connection, name: &str) -> Result<SinkId, Error> {
    let found = conn
        .query_row("SELECT id FROM sinks WHERE name = ?1", params![name], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    let mut select = conn.prepare("SELECT name FROM sinks ORDER BY name")?;
    let names = select.query_map([], |row| row.get(0))?;
    let known = names.collect::<rusqlite::Result<_>>()?;
    Err(Error::Unknown { what: "sink", name: name.to_owned(), known })
}
