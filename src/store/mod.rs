//! The store: the spool, the positions and what has been seen, in one SQLite file.
//!
//! It is the only queue: each operation is one transaction, and a position is committed in the same
//! transaction as the events it accounts for. Every promise follows from that.
//! The only module that holds SQL. Knows neither APIs nor destinations.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use serde::Deserialize;
use tokio::sync::watch::{Receiver, Sender};

use crate::event::{Millis, Seq};
use crate::units::{Bytes, Span};

pub mod accept;
pub mod dead_letters;
mod directory;
mod disk;
mod error;
pub mod forget;
pub mod inspect;
pub mod own;
pub mod replay;
pub mod requests;
mod room;
mod schema;
pub mod seen;
pub mod sinks;
pub mod sources;
mod spool;
pub mod trial;
mod watch;
mod writer;

use disk::Disk;
pub use disk::Shortage;
pub use error::Error;
pub use spool::{Prune, SpooledPage};
use watch::Beside;
use writer::Writer;

/// The key of a source in the store.
pub type SourceId = i64;
/// The key of a sink in the store.
pub type SinkId = i64;

/// `[state]`: where the store is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory that holds `siemferry.db`; private to the daemon.
    pub dir: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { dir: PathBuf::from("/var/lib/siemferry") }
    }
}

/// `[spool]`: how much waits for the sinks, and how long delivered events stay.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// Polling pauses while the spool holds more than this.
    pub max_bytes: Bytes,
    /// Polling pauses while the file system of the store has less free than this; 0 for never.
    pub reserve: Bytes,
    /// Delivered pages stay this long if there is room.
    pub keep: Span,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            max_bytes: Bytes::gibibytes(4),
            reserve: Bytes::mebibytes(64),
            keep: Span::hours(24),
        }
    }
}

/// `[seen]`: how long an event is remembered after its window was last read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeenConfig {
    /// How long.
    pub keep: Span,
}

impl Default for SeenConfig {
    fn default() -> Self {
        Self { keep: Span::days(7) }
    }
}

/// The daemon's handle on its store. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    writer: Writer,
    disk: Arc<Disk>,
    reader: Arc<Mutex<Connection>>,
    /// The number of the last event committed: the couriers' doorbell.
    committed: Sender<Seq>,
    /// Rung at each page, even one without new events.
    moved: Sender<u64>,
    /// Rung at each settle: the pollers' doorbell when the spool was full.
    settled: Sender<u64>,
    /// Rung when another process has committed something.
    requests: Sender<u64>,
    /// What other processes had committed when it was last looked at.
    beside: Mutex<Beside>,
    /// Signed, for a page may be pruned before the one who committed it has counted it.
    spool_bytes: AtomicI64,
    /// Whether our own events are told.
    announces: AtomicBool,
    /// The sinks of this run; only these pin pages of the spool.
    sinks: Mutex<Vec<SinkId>>,
    /// Held as long as the store is open.
    _lock: std::fs::File,
}

impl Store {
    /// Opens the store in `config.dir`, making both if they are new, and locks it against a second
    /// daemon.
    ///
    /// # Errors
    /// When the directory cannot be used, is in use or on a network file system, or the database is
    /// another program's, a newer schema's, or does not take the settings the promise rests on.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let lock = directory::prepare(&config.dir)?;
        let disk = Arc::new(Disk::new(&config.dir));
        let path = directory::database(&config.dir);
        let opened = match open_both(&path, &disk) {
            // What an earlier run has kept for this.
            Err(err) if err.is_full() && disk.ran_full() => open_both(&path, &disk),
            opened => opened,
        };
        let (writer, reader) = opened?;
        let (beside, bytes) = watch::begin(&writer)?;
        directory::sync(&config.dir)?;
        let start =
            |source| Error::Io { doing: "start the writer of", path, source: Arc::new(source) };
        Ok(Self(Arc::new(Inner {
            writer: Writer::start(writer, Arc::clone(&disk)).map_err(start)?,
            disk,
            reader: Arc::new(Mutex::new(reader)),
            committed: Sender::new(beside.last),
            moved: Sender::new(0),
            settled: Sender::new(0),
            requests: Sender::new(0),
            beside: Mutex::new(beside),
            spool_bytes: AtomicI64::new(bytes.cast_signed()),
            announces: AtomicBool::new(false),
            sinks: Mutex::default(),
            _lock: lock,
        })))
    }

    /// Waits until the disk below the store fails; a full one does not.
    pub async fn breakdown(&self) -> Error {
        self.0.writer.breakdown().await
    }

    /// Rings when events are committed; holds the number of the last one.
    pub fn committed(&self) -> Receiver<Seq> {
        self.0.committed.subscribe()
    }

    /// Rings when a page is committed, with new events or without.
    pub fn moved(&self) -> Receiver<u64> {
        self.0.moved.subscribe()
    }

    /// Rings when events are settled.
    pub fn settled(&self) -> Receiver<u64> {
        self.0.settled.subscribe()
    }

    /// How many bytes of pages the spool holds.
    pub fn spool_bytes(&self) -> u64 {
        u64::try_from(self.0.spool_bytes.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// How many bytes of pages wait for a sink of this run.
    pub async fn waiting_bytes(&self) -> Result<u64, Error> {
        let sinks = self.sinks();
        self.read(move |conn| Ok(spool::bytes_after(conn, sinks::settled_by_all(conn, &sinks)?)?))
            .await
    }

    /// The page that holds the first event after `seq`.
    pub async fn page_after(&self, seq: Seq) -> Result<Option<SpooledPage>, Error> {
        self.read(move |conn| spool::page_after(conn, seq)).await
    }

    /// Removes settled pages; returns how many bytes went.
    pub async fn prune(&self, which: Prune) -> Result<u64, Error> {
        self.prune_and_move(which, 4096).await
    }

    async fn prune_and_move(&self, which: Prune, moved: u32) -> Result<u64, Error> {
        let sinks = self.0.sinks.lock().expect("no panic while held").clone();
        let operation = move |conn: &Connection| {
            let settled = sinks::settled_by_all(conn, &sinks)?;
            let freed = spool::prune(conn, settled, which)?;
            if freed > 0 {
                spool::shrink(conn, moved)?;
            }
            Ok(freed)
        };
        let freed = self.0.writer.write(operation).await?;
        self.0.spool_bytes.fetch_sub(freed.cast_signed(), Ordering::Relaxed);
        Ok(freed)
    }

    /// Finishes what was asked for and closes the database. Called last.
    pub fn close(&self) {
        self.0.writer.close();
    }

    async fn read<T, F>(&self, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let reader = Arc::clone(&self.0.reader);
        let work = move || operation(&reader.lock().expect("no panic while held"));
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)?
    }
}

/// The file of a state directory that holds the database.
pub fn database(dir: &Path) -> PathBuf {
    directory::database(dir)
}

/// True while a daemon has the store of this directory open.
pub fn is_in_use(dir: &Path) -> bool {
    directory::holder(dir).is_some()
}

/// Opens the connection that writes and the one that reads.
fn open_both(path: &Path, disk: &Disk) -> Result<(Connection, Connection), Error> {
    directory::create_database(path)?;
    let open = || Ok((schema::open_writer(path)?, schema::open_reader(path)?));
    open().map_err(|err: Error| disk.judge(err).at(path))
}

fn next_seq(conn: &Connection) -> Result<Seq, Error> {
    let mut select = conn.prepare_cached("SELECT value FROM meta WHERE key = 'next_seq'")?;
    Ok(select.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// The wall clock, for what is only shown or counted in days.
pub fn wall_clock() -> Millis {
    chrono::Utc::now().timestamp_millis()
}
