//! The spool: committed pages, as bytes of the database and as events.
//!
//! A page holds all that a line is made of, so that the line can be made again byte for byte after
//! a crash, whatever the configuration says by then.

use std::io::Write as _;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};
use zstd::stream::write::Encoder;

use super::{Error, SinkId, SourceId, next_seq};
use crate::event::{Event, Millis, Seq, Uid};
use crate::position::PassId;

/// The first byte of every body; another layout gets another number.
const LAYOUT: u8 = 1;

/// The level at which a page costs a millisecond a megabyte and shrinks to a fifth.
const ZSTD_LEVEL: i32 = 1;

/// A body larger than this is no page of ours: one response is at most 32 MiB.
const MOST_BYTES: usize = 256 << 20;

/// A page of more than this is compressed as it grows, so that it does not stand in memory twice.
const AT_ONCE: usize = 1 << 20;

/// Builds a page's body, event by event.
pub struct Builder {
    /// What is not compressed yet.
    out: Vec<u8>,
    large: Option<std::io::Result<Encoder<'static, Vec<u8>>>>,
    count: u32,
}

impl Builder {
    /// Starts a page of one source, read through one API.
    pub fn new(source: &str, api: &str) -> Self {
        let mut out = vec![LAYOUT];
        put_bytes(&mut out, source.as_bytes());
        put_bytes(&mut out, api.as_bytes());
        Self { out, large: None, count: 0 }
    }

    /// Adds an event behind the others.
    pub fn push(&mut self, uid: Uid, time: Option<Millis>, event_type: Option<&str>, raw: &[u8]) {
        self.out.extend_from_slice(&uid.0);
        self.out.push(u8::from(time.is_some()) | u8::from(event_type.is_some()) << 1);
        self.out.extend_from_slice(&time.unwrap_or(0).to_le_bytes());
        put_bytes(&mut self.out, event_type.unwrap_or("").as_bytes());
        if self.out.len() + raw.len() > AT_ONCE {
            put_length(&mut self.out, raw);
            self.compress(raw);
        } else {
            put_bytes(&mut self.out, raw);
        }
        self.count += 1;
    }

    /// Compresses what is there, and `more` behind it. What goes wrong is told at the end.
    fn compress(&mut self, more: &[u8]) {
        let encoder = self.large.take().unwrap_or_else(|| Encoder::new(Vec::new(), ZSTD_LEVEL));
        let written = encoder.and_then(|mut encoder| {
            encoder.write_all(&self.out)?;
            encoder.write_all(more)?;
            Ok(encoder)
        });
        self.out.clear();
        self.large = Some(written);
    }

    /// How many events it holds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The body as it is stored.
    pub fn finish(mut self) -> std::io::Result<Vec<u8>> {
        if self.large.is_some() {
            self.compress(&[]);
        }
        match self.large {
            Some(encoder) => encoder?.finish(),
            None => zstd::bulk::compress(&self.out, ZSTD_LEVEL),
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes);
    out.extend_from_slice(bytes);
}

fn put_length(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("a response is at most 32 MiB");
    out.extend_from_slice(&len.to_le_bytes());
}

/// A page on its way into the spool.
pub struct NewPage {
    /// Its events.
    pub builder: Builder,
    /// The source that read it.
    pub source: SourceId,
    /// The reading it belongs to; 0 for what is only sent again.
    pub pass: PassId,
    /// When it was fetched.
    pub received: Millis,
    /// The one sink it is for; none when it is for all.
    pub only_sink: Option<SinkId>,
}

/// Gives the page's events the next numbers; returns the last number given, and the bytes that the
/// spool grew by. A page without events is none.
pub fn insert(conn: &Connection, page: NewPage) -> Result<(Seq, u64), Error> {
    let first = next_seq(conn)?;
    let count = page.builder.count();
    if count == 0 {
        return Ok((first - 1, 0));
    }
    let no_memory = |source| Error::Io {
        doing: "compress a page for",
        path: "the spool".into(),
        source: Arc::new(source),
    };
    let body = page.builder.finish().map_err(no_memory)?;
    conn.prepare_cached(
        "INSERT INTO pages (first_seq, count, source, pass, fetched_at, only_sink, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        first.cast_signed(),
        count,
        page.source,
        page.pass,
        page.received,
        page.only_sink,
        body
    ])?;
    let next = first + Seq::from(count);
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'next_seq'")?
        .execute(params![next.cast_signed()])?;
    Ok((next - 1, body.len() as u64))
}

/// A committed page, decompressed.
pub struct SpooledPage {
    first_seq: Seq,
    count: u32,
    received: Millis,
    only_sink: Option<SinkId>,
    bytes: Vec<u8>,
    /// Where each event begins in `bytes`.
    starts: Vec<usize>,
}

impl std::fmt::Debug for SpooledPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpooledPage({}..+{})", self.first_seq, self.count)
    }
}

impl SpooledPage {
    /// False when it is for another sink alone.
    pub fn is_for(&self, sink: SinkId) -> bool {
        self.only_sink.is_none_or(|only| only == sink)
    }

    /// True when it is for every sink.
    pub fn is_for_all(&self) -> bool {
        self.only_sink.is_none()
    }

    /// When it was fetched.
    pub fn received(&self) -> Millis {
        self.received
    }

    /// Its events, in their order.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        (self.first_seq..=self.last_seq()).filter_map(|seq| self.event(seq))
    }

    /// The number of its first event.
    pub fn first_seq(&self) -> Seq {
        self.first_seq
    }

    /// The number of its last event.
    pub fn last_seq(&self) -> Seq {
        self.first_seq + Seq::from(self.count) - 1
    }

    /// True when it holds the event with this number.
    pub fn holds(&self, seq: Seq) -> bool {
        self.first_seq <= seq && seq <= self.last_seq()
    }

    /// The event with this number, if it is one of the page's.
    pub fn event(&self, seq: Seq) -> Option<Event<'_>> {
        let index = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        let mut reader = Reader { bytes: &self.bytes, at: 1 };
        let source = reader.text()?;
        let api = reader.text()?;
        reader.at = *self.starts.get(index)?;
        reader.event(seq, source, api, self.received)
    }

    /// The first event of the page after this number.
    pub fn first_after(&self, seq: Seq) -> Option<Event<'_>> {
        self.event(self.first_seq.max(seq + 1))
    }

    fn decode(row: &RawPage<'_>) -> Option<Self> {
        let bytes = zstd::bulk::decompress(row.body, MOST_BYTES.min(decompressed_size(row.body)))
            .ok()
            .filter(|bytes| bytes.first() == Some(&LAYOUT))?;
        let mut reader = Reader { bytes: &bytes, at: 1 };
        reader.text()?;
        reader.text()?;
        let mut starts = Vec::with_capacity(row.count as usize);
        for _ in 0..row.count {
            starts.push(reader.at);
            reader.event(0, "", "", 0)?;
        }
        let whole = reader.at == bytes.len();
        let &RawPage { first_seq, count, fetched_at: received, only_sink, .. } = row;
        whole.then_some(Self { first_seq, count, received, only_sink, bytes, starts })
    }
}

fn decompressed_size(body: &[u8]) -> usize {
    zstd::bulk::Decompressor::upper_bound(body).unwrap_or(MOST_BYTES)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_le_bytes(self.array()?);
        self.take(len as usize)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.sized()?).ok()
    }

    fn event(
        &mut self,
        seq: Seq,
        source: &'a str,
        api: &'a str,
        received: Millis,
    ) -> Option<Event<'a>> {
        let uid = Uid(self.array()?);
        let [flags] = self.array()?;
        let time = i64::from_le_bytes(self.array()?);
        let event_type = self.text()?;
        let raw = self.sized()?;
        Some(Event {
            seq,
            uid,
            time: (flags & 1 != 0).then_some(time),
            event_type: (flags & 2 != 0).then_some(event_type),
            raw,
            source,
            api,
            received,
        })
    }
}

/// A page as it is stored; its body is the database's memory.
struct RawPage<'a> {
    first_seq: Seq,
    count: u32,
    fetched_at: Millis,
    only_sink: Option<SinkId>,
    body: &'a [u8],
}

/// The page of a row, when it holds an event after `seq`.
fn holding(row: &Row<'_>, seq: Seq) -> rusqlite::Result<Option<Result<SpooledPage, Error>>> {
    let raw = RawPage {
        first_seq: row.get::<_, i64>(0)?.cast_unsigned(),
        count: row.get(1)?,
        fetched_at: row.get(2)?,
        only_sink: row.get(3)?,
        body: row.get_ref(4)?.as_blob()?,
    };
    if raw.first_seq + Seq::from(raw.count) <= seq + 1 {
        return Ok(None);
    }
    Ok(Some(SpooledPage::decode(&raw).ok_or(Error::Damaged { seq: raw.first_seq })))
}

/// The page that holds the first event after `seq`; none when the spool holds no later one.
pub fn page_after(conn: &Connection, seq: Seq) -> Result<Option<SpooledPage>, Error> {
    let last_begun = "SELECT first_seq, count, fetched_at, only_sink, body FROM pages
         WHERE first_seq <= ?1 + 1 ORDER BY first_seq DESC LIMIT 1";
    let first_later = "SELECT first_seq, count, fetched_at, only_sink, body FROM pages
         WHERE first_seq > ?1 ORDER BY first_seq LIMIT 1";
    for query in [last_begun, first_later] {
        let mut select = conn.prepare_cached(query)?;
        let found = select.query_row(params![seq.cast_signed()], |row| holding(row, seq));
        if let Some(page) = found.optional()?.flatten() {
            return page.map(Some);
        }
    }
    Ok(None)
}

/// How many bytes the pages hold that begin behind this number.
pub fn bytes_after(conn: &Connection, seq: Seq) -> rusqlite::Result<u64> {
    conn.prepare_cached("SELECT coalesce(sum(length(body)), 0) FROM pages WHERE first_seq > ?1")?
        .query_row(params![seq.cast_signed()], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))
}

/// How much the spool holds.
pub fn bytes_and_events(conn: &Connection) -> rusqlite::Result<(u64, u64)> {
    conn.query_row(
        "SELECT coalesce(sum(length(body)), 0), coalesce(sum(count), 0) FROM pages",
        [],
        |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned())),
    )
}

/// Which settled pages may go.
#[derive(Clone, Copy, Debug)]
pub enum Prune {
    /// Those fetched before this moment.
    FetchedBefore(Millis),
    /// As many of the oldest as make this many bytes.
    Bytes(u64),
}

/// Removes pages whose events are all settled, that is not after `settled`, oldest first.
/// Returns how many bytes of bodies went.
pub fn prune(conn: &Connection, settled: Seq, which: Prune) -> rusqlite::Result<u64> {
    const MOST_PAGES_AT_ONCE: u32 = 256;
    let mut oldest = conn.prepare_cached(
        "SELECT first_seq, fetched_at, length(body) FROM pages
         WHERE first_seq + count - 1 <= ?1 ORDER BY first_seq LIMIT ?2",
    )?;
    let mut rows = oldest.query(params![settled.cast_signed(), MOST_PAGES_AT_ONCE])?;
    let (mut freed, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        let more = match which {
            Prune::FetchedBefore(moment) => row.get::<_, Millis>(1)? < moment,
            Prune::Bytes(wanted) => freed < wanted,
        };
        if !more {
            break;
        }
        last = Some(row.get::<_, i64>(0)?);
        freed += row.get::<_, i64>(2)?.cast_unsigned();
    }
    drop(rows);
    if let Some(last) = last {
        conn.execute("DELETE FROM pages WHERE first_seq <= ?1", params![last])?;
    }
    Ok(freed)
}

/// Makes the file smaller by what is free in it, by so many pages of the database at most; true
/// when more is free.
pub fn shrink(conn: &Connection, most: u32) -> rusqlite::Result<bool> {
    let free = || conn.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u32>(0));
    if most == 0 || free()? == 0 {
        return Ok(false);
    }
    let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({most})"))?;
    let mut steps = vacuum.query([])?;
    // Each step frees a single page.
    while steps.next()?.is_some() {}
    drop(steps);
    Ok(free()? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spooled(events: &[(&str, Option<Millis>, Option<&str>)]) -> Option<SpooledPage> {
        let mut builder = Builder::new("acme", "keeper");
        for (raw, time, event_type) in events {
            builder.push(Uid([7; 16]), *time, *event_type, raw.as_bytes());
        }
        let count = builder.count();
        let body = &builder.finish().unwrap();
        SpooledPage::decode(&RawPage { first_seq: 10, count, fetched_at: 5, only_sink: None, body })
    }

    #[test]
    fn a_page_gives_back_every_event_as_it_was_put_in() {
        let page = spooled(&[
            ("{\"a\":1}", Some(-3), Some("login")),
            ("{}", None, None),
            ("{\"b\":\"é\"}", Some(i64::MAX), Some("")),
        ])
        .unwrap();

        assert_eq!(page.last_seq(), 12);
        let first = page.event(10).unwrap();
        assert_eq!(
            (first.raw, first.time, first.event_type),
            (&b"{\"a\":1}"[..], Some(-3), Some("login"))
        );
        assert_eq!((first.source, first.api, first.received), ("acme", "keeper", 5));
        let second = page.event(11).unwrap();
        assert_eq!((second.raw, second.time, second.event_type), (&b"{}"[..], None, None));
        assert_eq!(page.event(12).unwrap().event_type, Some(""));
        assert!(page.event(9).is_none() && page.event(13).is_none());
    }

    fn raw(body: &[u8]) -> RawPage<'_> {
        RawPage { first_seq: 1, count: 1, fetched_at: 0, only_sink: None, body }
    }

    #[test]
    fn a_page_that_is_compressed_as_it_grows_gives_back_the_same() {
        let sizes = [3, AT_ONCE / 2, AT_ONCE / 2, 7, 3 * AT_ONCE, 5];
        let texts: Vec<String> =
            sizes.iter().zip('a'..).map(|(size, c)| c.to_string().repeat(*size)).collect();
        let events: Vec<_> = texts.iter().map(|text| (text.as_str(), Some(7), None)).collect();

        let page = spooled(&events).unwrap();

        for (seq, text) in (10..).zip(&texts) {
            assert!(page.event(seq).unwrap().raw == text.as_bytes(), "event {seq}");
        }
    }

    #[test]
    fn a_damaged_body_is_no_page() {
        let body = zstd::bulk::compress(&[LAYOUT, 4, 0, 0, 0, b'a'], 1).unwrap();
        assert!(SpooledPage::decode(&raw(&body)).is_none());
        let body = b"not zstd at all".to_vec();
        assert!(SpooledPage::decode(&raw(&body)).is_none());
    }
}
