//! Repeats: whether a record is a new event or one that was read before.
//!
//! Keeper's events have no id, and two equal events can both be true. In one pass, the n-th copy of
//! a digest is therefore a new event only when n exceeds the copies known. A pass that misses copies
//! (interrupted, or interleaved with another) can only count too few; a later sweep finds the rest.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest as _, Sha256};

use super::{SourceId, requests};
use crate::event::{Digest, Paging, Repeats, Uid};
use crate::position::{PassId, Second};

/// How many copies of a digest a pass has met, for those it did not raise itself.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<HashMap<Digest, u32>>);

impl Counts {
    /// Takes over what a committed page added.
    pub fn merge(&mut self, delta: Delta) {
        Arc::make_mut(&mut self.0).extend(delta.met);
    }
}

/// What one page adds to the counts of its pass. Thrown away when its commit fails: a count kept
/// from a commit that never happened would make one event two.
#[derive(Debug, Default)]
pub struct Delta {
    met: HashMap<Digest, u32>,
    on_page: HashMap<Digest, u32>,
}

/// Judges the records of one page of one pass.
pub struct Judge<'a> {
    /// The transaction that commits the page.
    pub conn: &'a Connection,
    /// Whose records they are.
    pub source: SourceId,
    /// Which reading they belong to.
    pub pass: PassId,
    /// What the preset says.
    pub repeats: Repeats,
    /// What earlier pages of the pass have met.
    pub counts: &'a Counts,
    /// What this page adds.
    pub delta: &'a mut Delta,
    /// True while records turn out to be new; only a matter of speed.
    pub expects_new: bool,
}

#[derive(Clone, Copy, Default)]
struct Known {
    copies: u32,
    raised_here: bool,
    claimed_elsewhere: u32,
}

impl Judge<'_> {
    /// The number of the copy when the record is a new event; none when it is a repeat.
    pub fn admit(&mut self, second: Second, digest: Digest) -> rusqlite::Result<Option<u32>> {
        let admitted = self.copy(second, digest)?;
        self.expects_new = admitted.is_some();
        Ok(admitted)
    }

    /// The number of the event when a record that is known to be the `copy`-th of its equals is one
    /// that no reading has found meanwhile; none when one has.
    pub fn admit_copy(
        &mut self,
        second: Second,
        digest: Digest,
        copy: u32,
    ) -> rusqlite::Result<Option<u32>> {
        let known = self.known(second, digest)?.copies;
        let copy = if self.repeats.unique { 1 } else { copy };
        if known < copy { self.raise(second, digest, known + 1) } else { Ok(None) }
    }

    fn copy(&mut self, second: Second, digest: Digest) -> rusqlite::Result<Option<u32>> {
        let counts_copies = !self.repeats.unique && self.repeats.paging == Paging::Stable;
        if self.expects_new && counts_copies && self.met(digest) == 0 {
            // A backlog is new throughout: one statement an event instead of two.
            if self.insert(second, digest)? {
                return Ok(Some(1));
            }
        }
        let known = self.known(second, digest)?;
        if self.repeats.unique {
            return if known.copies == 0 { self.raise(second, digest, 1) } else { Ok(None) };
        }
        match self.repeats.paging {
            Paging::Stable => self.admit_stable(second, digest, known),
            Paging::Unstable => self.admit_unstable(second, digest, known),
        }
    }

    fn admit_stable(
        &mut self,
        second: Second,
        digest: Digest,
        known: Known,
    ) -> rusqlite::Result<Option<u32>> {
        // What this pass raised, it has met exactly as often as there are copies.
        let met = if known.raised_here { known.copies } else { self.met(digest) };
        let nth = met + 1;
        if nth > known.copies {
            return self.raise(second, digest, nth);
        }
        self.delta.met.insert(digest, nth);
        Ok(None)
    }

    fn admit_unstable(
        &mut self,
        second: Second,
        digest: Digest,
        known: Known,
    ) -> rusqlite::Result<Option<u32>> {
        let nth = self.met(digest) + 1;
        self.delta.met.insert(digest, nth);
        let on_page = self.delta.on_page.entry(digest).or_default();
        *on_page += 1;
        if *on_page > known.copies || (nth > known.copies && known.claimed_elsewhere >= nth) {
            return self.raise(second, digest, known.copies + 1);
        }
        if nth > known.copies {
            self.claim(second, digest, nth)?;
        }
        Ok(None)
    }

    fn met(&self, digest: Digest) -> u32 {
        let earlier = || self.counts.0.get(&digest).copied();
        self.delta.met.get(&digest).copied().or_else(earlier).unwrap_or(0)
    }

    fn known(&self, second: Second, digest: Digest) -> rusqlite::Result<Known> {
        let mut select = self.conn.prepare_cached(
            "SELECT copies, pass, claimed, claim_pass FROM seen
             WHERE source = ?1 AND second = ?2 AND digest = ?3",
        )?;
        let row = select
            .query_row(params![self.source, second, digest.0], |row| {
                let claim_pass: Option<PassId> = row.get(3)?;
                let elsewhere = claim_pass.is_some_and(|pass| pass != self.pass);
                Ok(Known {
                    copies: row.get(0)?,
                    raised_here: row.get::<_, PassId>(1)? == self.pass,
                    claimed_elsewhere: if elsewhere { row.get(2)? } else { 0 },
                })
            })
            .optional()?;
        Ok(row.unwrap_or_default())
    }

    /// True when no copy was known.
    fn insert(&mut self, second: Second, digest: Digest) -> rusqlite::Result<bool> {
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO seen (source, second, digest, copies, pass) VALUES (?1, ?2, ?3, 1, ?4)
             ON CONFLICT DO NOTHING",
        )?;
        Ok(insert.execute(params![self.source, second, digest.0, self.pass])? == 1)
    }

    fn raise(
        &mut self,
        second: Second,
        digest: Digest,
        copies: u32,
    ) -> rusqlite::Result<Option<u32>> {
        let mut upsert = self.conn.prepare_cached(
            "INSERT INTO seen (source, second, digest, copies, pass) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET copies = excluded.copies, pass = excluded.pass",
        )?;
        upsert.execute(params![self.source, second, digest.0, copies, self.pass])?;
        Ok(Some(copies))
    }

    fn claim(&mut self, second: Second, digest: Digest, copies: u32) -> rusqlite::Result<()> {
        let mut update = self.conn.prepare_cached(
            "UPDATE seen SET claimed = max(claimed, ?4), claim_pass = ?5
             WHERE source = ?1 AND second = ?2 AND digest = ?3",
        )?;
        update.execute(params![self.source, second, digest.0, copies, self.pass])?;
        Ok(())
    }
}

/// The identity of the `copy`-th event with this digest, in one tenant of one API.
pub fn uid(api: &str, tenant: &str, digest: Digest, copy: u32) -> Uid {
    let mut hash = Sha256::new();
    for part in [api.as_bytes(), tenant.as_bytes(), &digest.0, &copy.to_be_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let whole = hash.finalize();
    let mut uid = [0; 16];
    uid.copy_from_slice(&whole[..16]);
    Uid(uid)
}

/// Forgets what no pass can read again: what lies below the earliest window of every pass that is
/// remembered, and was not raised by one of them.
///
/// The pass is asked as well as the second, for an API that filters by another clock than the
/// event's own shows old events in new windows. Removes at most `most` rows; returns how many.
pub fn expire(conn: &Connection, source: SourceId, most: u32) -> rusqlite::Result<usize> {
    let (start, pass): (Option<Second>, Option<PassId>) = conn.query_row(
        "SELECT min(window_start), min(id) FROM passes WHERE source = ?1",
        params![source],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let watermark: Option<Second> = conn.query_row(
        "SELECT min(watermark) FROM sweeps WHERE source = ?1",
        params![source],
        |row| row.get(0),
    )?;
    let Some(watermark) = watermark else { return Ok(0) };
    let asked = requests::earliest_left(conn, source)?.unwrap_or(watermark);
    // Requests reach one second below their window.
    let below = start.unwrap_or(watermark).min(watermark).min(asked) - 1;
    let gone = conn.execute(
        "DELETE FROM seen WHERE (source, second, digest) IN (
             SELECT source, second, digest FROM seen
             WHERE source = ?1 AND second < ?2 AND pass < ?3 LIMIT ?4)",
        params![source, below, pass.unwrap_or(PassId::MAX), most],
    )?;
    if gone > 0 {
        // What tells no time of its window may be gone with the pass that raised it, though a later
        // sweep has kept the others of that window: all windows of passes that are gone lie before
        // those of the head that are remembered.
        conn.execute(
            "UPDATE sources SET forgotten = max(
                 coalesce(forgotten, ?2), ?2,
                 coalesce(
                     (SELECT min(window_start) FROM passes WHERE source = ?1 AND age_ms = 0),
                     (SELECT watermark FROM sweeps WHERE source = ?1 AND age_ms = 0), ?2) - 1)
             WHERE id = ?1",
            params![source, below],
        )?;
    }
    Ok(gone)
}
