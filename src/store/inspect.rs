//! Looks at a store from beside the daemon, without holding it up.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, params};
use serde::Serialize;

use super::disk::Disk;
use super::sinks::PENDING;
use super::{Error, Store, directory, schema, spool, wall_clock};
use crate::event::Millis;
use crate::position::{Second, rfc3339};

/// What `siemferry status --json` prints.
#[derive(Debug, Serialize)]
pub struct Status {
    /// By name.
    pub sources: BTreeMap<String, Source>,
    /// By name.
    pub sinks: BTreeMap<String, Sink>,
    /// What waits or is kept.
    pub spool: Spool,
}

/// How one source is doing.
#[derive(Debug, Serialize)]
pub struct Source {
    /// `ok`, `paused`, `blocked` or `retrying`.
    pub state: String,
    /// All before it has been read by the head.
    pub watermark: String,
    /// How far the head is behind the server's clock.
    pub lag_seconds: i64,
    /// The trailing readers.
    pub sweeps: Vec<Sweep>,
    /// How many events were committed.
    pub events: u64,
    /// How many records turned out to be known.
    pub repeats: u64,
    /// How many events a trailing sweep found first.
    pub late: u64,
    /// The newest error, even when it is over.
    pub last_error: Option<String>,
}

/// How far a trailing reader has come.
#[derive(Debug, Serialize)]
pub struct Sweep {
    /// How far it trails the clock.
    pub age: String,
    /// All before it has been read again.
    pub watermark: String,
}

/// How one sink is doing.
#[derive(Debug, Serialize)]
pub struct Sink {
    /// `ok`, `blocked` or `retrying`.
    pub state: String,
    /// Every event up to this number has met its fate.
    pub settled_seq: u64,
    /// How many events wait.
    pub pending: u64,
    /// How many were delivered.
    pub delivered: u64,
    /// How many were proven bad.
    pub dead_letters: u64,
    /// How many were refused alone and not proven bad yet.
    pub suspects: u64,
    /// How many sends had an outcome that could not be known.
    pub ambiguous: u64,
    /// The newest error, even when it is over.
    pub last_error: Option<String>,
}

/// What the spool holds.
#[derive(Debug, Serialize)]
pub struct Spool {
    /// As stored, compressed.
    pub bytes: u64,
    /// Waiting ones and kept ones.
    pub events: u64,
}

/// Reads the state of everything; `now` is the wall clock.
///
/// # Errors
/// When there is no store in `dir`, or it cannot be read.
pub fn status(dir: &Path, now: Millis) -> Result<Status, Error> {
    let path = directory::database(dir);
    if let Err(source) = std::fs::metadata(&path) {
        let source = std::sync::Arc::new(source);
        return Err(Error::Io { doing: "read the store", path, source });
    }
    let opened = schema::open_reader(&path).map_err(|err| Disk::new(dir).judge(err));
    match opened {
        Err(err) if err.is_full() => read_alone(dir, &path, now).ok_or(err),
        opened => read(&opened.map_err(|err| err.at(&path))?, now),
    }
}

/// On a full disk, when no daemon runs to whom all of it belongs.
fn read_alone(dir: &Path, path: &Path, now: Millis) -> Option<Status> {
    let _lock = directory::lock_known(dir)?;
    read(&schema::open_alone(path).ok()?, now).ok()
}

/// What a look at a state directory has found; nothing stands against using it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The numeric user who owns the directory; none when it is still to be made.
    pub owner: Option<u32>,
    /// True when there is a store in it.
    pub has_store: bool,
    /// The process that uses it.
    pub holder: Option<String>,
}

/// Looks for what would keep a store in `dir` from being opened. Makes nothing, changes nothing and
/// stands in nobody's way.
///
/// # Errors
/// What opening the store would say.
pub fn examine(dir: &Path) -> Result<Examined, Error> {
    let owner = directory::examine(dir)?;
    let path = directory::database(dir);
    let has_store = match schema::open_quietly(&path) {
        Ok(_) => true,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => false,
        Err(_) if !path.exists() => false,
        Err(err) => return Err(err.at(&path)),
    };
    Ok(Examined { owner, has_store, holder: directory::holder(dir) })
}

impl Store {
    /// The same from within the daemon.
    pub async fn status(&self) -> Result<Status, Error> {
        self.read(|conn| read(conn, wall_clock())).await
    }
}

fn read(conn: &Connection, now: Millis) -> Result<Status, Error> {
    // One transaction, so that the figures belong together.
    let transaction = conn.unchecked_transaction()?;
    let (bytes, events) = spool::bytes_and_events(&transaction)?;
    let (sources, sinks) = (sources(&transaction, now)?, sinks(&transaction)?);
    Ok(Status { sources, sinks, spool: Spool { bytes, events } })
}

fn sources(conn: &Connection, now: Millis) -> Result<BTreeMap<String, Source>, Error> {
    let mut select = conn.prepare(
        "SELECT id, name, state, skew_ms, events, repeats, late, last_error FROM sources",
    )?;
    let mut rows = select.query([])?;
    let mut sources = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let mut sweeps = sweeps(conn, row.get(0)?)?;
        if sweeps.is_empty() {
            continue;
        }
        let (_, watermark) = sweeps.remove(0);
        let server_now = (now + row.get::<_, Millis>(3)?).div_euclid(1000);
        let source = Source {
            state: row.get(2)?,
            watermark: rfc3339(watermark),
            lag_seconds: (server_now - watermark).max(0),
            sweeps: sweeps
                .into_iter()
                .map(|(age, at)| Sweep { age, watermark: rfc3339(at) })
                .collect(),
            events: count(row.get(4)?),
            repeats: count(row.get(5)?),
            late: count(row.get(6)?),
            last_error: row.get(7)?,
        };
        sources.insert(row.get(1)?, source);
    }
    Ok(sources)
}

fn sweeps(conn: &Connection, source: i64) -> Result<Vec<(String, Second)>, Error> {
    let mut select = conn
        .prepare_cached("SELECT age_ms, watermark FROM sweeps WHERE source = ?1 ORDER BY age_ms")?;
    let rows = select.query_map(params![source], |row| Ok((age(row.get(0)?), row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// As operators write it: `24h`, not `1d`.
fn age(millis: Millis) -> String {
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let (size, unit) = units.into_iter().find(|(size, _)| millis % size == 0).unwrap_or((1, "ms"));
    format!("{}{unit}", millis / size)
}

fn sinks(conn: &Connection) -> Result<BTreeMap<String, Sink>, Error> {
    let mut select = conn.prepare(&format!(
        "SELECT name, state, settled_seq, delivered, suspects, ambiguous, last_error, {PENDING},
             (SELECT count(*) FROM dead_letters WHERE sink = sinks.id)
         FROM sinks"
    ))?;
    let rows = select.query_map([], |row| {
        let sink = Sink {
            state: row.get(1)?,
            settled_seq: count(row.get(2)?),
            delivered: count(row.get(3)?),
            suspects: count(row.get(4)?),
            ambiguous: count(row.get(5)?),
            last_error: row.get(6)?,
            pending: count(row.get(7)?),
            dead_letters: count(row.get(8)?),
        };
        Ok((row.get(0)?, sink))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
