//! Room for new pages: in the spool, and on the disk below it.
//!
//! Makes it by removing what is settled, oldest first, and says why there is none. Never removes
//! what a sink still waits for.

use std::sync::Arc;

use rusqlite::Connection;

use super::{Error, Prune, Shortage, Store, next_seq, sinks, spool};
use crate::units::Bytes;

/// How much is removed at once while the disk is short of room: the log has to hold it meanwhile.
const BYTES_AT_ONCE: u64 = 4 << 20;

/// How many pages of the database are moved at once while the disk is short of room.
const MOVED_AT_ONCE: u32 = 128;

impl Store {
    /// From now on new pages wait while the file system has less free than `reserve`; 0 for never.
    /// Some room is taken up for the day when the disk is full.
    pub fn keep_free(&self, reserve: Bytes) {
        self.0.disk.keep_free(reserve);
        if self.0.disk.is_to_be_tended() {
            self.0.disk.tend(false);
        }
    }

    /// Why no new page may come in; none when there is room.
    pub fn shortage(&self, max_bytes: Bytes) -> Option<Shortage> {
        if self.spool_bytes() >= max_bytes.get() {
            return Some(Shortage::Spool(max_bytes));
        }
        self.0.disk.shortage()
    }

    /// True while nobody knows yet whether a full disk is over: no page has found room since.
    pub fn is_on_trial(&self) -> bool {
        self.0.disk.is_on_trial()
    }

    /// Removes settled pages as long as there is no room; says why there is none even so.
    pub async fn make_room(&self, max_bytes: Bytes) -> Result<Option<Shortage>, Error> {
        while self.spool_bytes() >= max_bytes.get() {
            let excess = self.spool_bytes() - max_bytes.get() + 1;
            if unless_full(self.prune(Prune::Bytes(excess)).await)?.unwrap_or(0) == 0 {
                return Ok(self.shortage(max_bytes));
            }
        }
        if self.0.disk.shortage().is_some() {
            self.give_back().await?;
        }
        if self.0.disk.is_to_be_tended() {
            self.tend().await?;
        }
        Ok(self.shortage(max_bytes))
    }

    /// Makes the database smaller by what is settled, a little at a time, until there is room.
    async fn give_back(&self) -> Result<(), Error> {
        loop {
            let freed = self.prune_and_move(Prune::Bytes(BYTES_AT_ONCE), 0).await;
            let freed = unless_full(freed)?.unwrap_or(0);
            let shrink = |conn: &Connection| Ok(spool::shrink(conn, MOVED_AT_ONCE)?);
            while unless_full(self.0.writer.write(shrink).await)?.unwrap_or(false) {
                if self.0.disk.shortage().is_none() {
                    return Ok(());
                }
            }
            if freed == 0 || self.0.disk.shortage().is_none() {
                return Ok(());
            }
        }
    }

    /// Sees to the ballast where nothing else is written at the same time.
    async fn tend(&self) -> Result<(), Error> {
        let sinks = self.0.sinks.lock().expect("no panic while held").clone();
        let disk = Arc::clone(&self.0.disk);
        let operation = move |conn: &Connection| {
            disk.tend(sinks::settled_by_all(conn, &sinks)? + 1 >= next_seq(conn)?);
            Ok(())
        };
        unless_full(self.0.writer.write(operation).await).map(drop)
    }
}

/// On a full disk it is tried again later.
fn unless_full<T>(done: Result<T, Error>) -> Result<Option<T>, Error> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(err) if err.is_full() => Ok(None),
        Err(err) => Err(err),
    }
}
