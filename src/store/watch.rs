//! Notices what other processes commit, such as `siemferry dead-letters retry`.
//!
//! Asked of the writer's connection, for which only the commits of others change
//! `PRAGMA data_version`: the daemon's own work wakes nobody here.

use std::sync::atomic::Ordering;

use rusqlite::Connection;
use tokio::sync::watch::Receiver;

use super::{Error, Store, next_seq, schema, spool};
use crate::event::Seq;

/// How far other processes had come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    version: i64,
    added: i64,
    /// The number of the last event committed by whomsoever.
    pub last: Seq,
}

/// Where things stand when the store is opened, and how many bytes of pages it holds.
pub(super) fn begin(writer: &Connection) -> Result<(Beside, u64), Error> {
    // One transaction, so that no page is counted twice or never.
    let transaction = writer.unchecked_transaction()?;
    let beside = look(&transaction)?;
    let (bytes, _) = spool::bytes_and_events(&transaction)?;
    Ok((beside, bytes))
}

fn look(conn: &Connection) -> Result<Beside, Error> {
    let last = next_seq(conn)? - 1;
    let added = "SELECT value FROM meta WHERE key = 'added_bytes'";
    let added = conn.prepare_cached(added)?.query_row([], |row| row.get(0))?;
    Ok(Beside { version: schema::pragma(conn, "data_version")?, added, last })
}

/// Counts the bytes of a page that is added beside the daemon.
pub(super) fn count_added(conn: &Connection, bytes: u64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE meta SET value = value + ?1 WHERE key = 'added_bytes'")?
        .execute([bytes.cast_signed()])?;
    Ok(())
}

impl Store {
    /// Rings when another process has committed something.
    pub fn requests(&self) -> Receiver<u64> {
        self.0.requests.subscribe()
    }

    /// Rings the couriers' doorbell and [`Store::requests`] when another process has committed
    /// something since the last look.
    pub async fn look_beside(&self) -> Result<(), Error> {
        let found = self.0.writer.write(look).await?;
        let mut known = self.0.beside.lock().expect("no panic while held");
        if found.version == known.version {
            return Ok(());
        }
        self.0.spool_bytes.fetch_add(found.added - known.added, Ordering::Relaxed);
        *known = found;
        drop(known);
        self.0.committed.send_if_modified(|last| {
            let rises = found.last > *last;
            *last = found.last.max(*last);
            rises
        });
        self.0.requests.send_modify(|looks| *looks += 1);
        Ok(())
    }
}
