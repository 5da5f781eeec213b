//! Notices what is nobody's own: that a clock was set, that the spool fills, that dead letters are
//! still to be told of.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::event::Millis;
use crate::own::{self, OwnEvent};
use crate::store::{Error, Shortage, Store, wall_clock};
use crate::units::Bytes;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often is measured what waits: that takes some reading when it is much.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// A clock that moves by more than this, while another tells otherwise, has jumped.
const JUMP: Millis = 60_000;

/// Looks until it is halted.
pub(super) async fn notice(store: Store, spool_max: Bytes, mut halt: watch::Receiver<bool>) {
    let mut clock = Clock::new(wall_clock(), Instant::now());
    let mut room = Room::Ample;
    let mut looked = Instant::now();
    while tokio::time::timeout(LOOK_EVERY, halt.changed()).await.is_err() {
        if let Some(by) = clock.jumped(wall_clock(), Instant::now()) {
            store.announce(own::machine_clock_jumped(by)).await;
        }
        store.announce_letters(wall_clock(), false).await;
        if looked.elapsed() >= MEASURE_EVERY {
            looked = Instant::now();
            room = tell_room(&store, spool_max, room).await;
        }
    }
}

/// Tells of the room for new events, if that is news; says what was told.
async fn tell_room(store: &Store, spool_max: Bytes, told: Room) -> Room {
    // A store that fails for good ends the pollers and couriers, who say so.
    let Ok(found) = Found::in_store(store, spool_max, told).await else { return told };
    let (next, event) = told.next(&found);
    let is_told = match event {
        Some(event) => store.announce(event).await.is_some(),
        None => true,
    };
    // What the disk does not take is told as soon as it does, if it is still so.
    if is_told { next } else { told }
}

/// This machine's clock, against one that only runs.
struct Clock {
    wall: Millis,
    at: Instant,
}

impl Clock {
    fn new(wall: Millis, at: Instant) -> Self {
        Self { wall, at }
    }

    /// By how much it was set since the last look, if that is much.
    fn jumped(&mut self, wall: Millis, at: Instant) -> Option<Millis> {
        let ran = at.duration_since(self.at).as_millis();
        let by = (wall - self.wall).saturating_sub(Millis::try_from(ran).unwrap_or(Millis::MAX));
        // Small steps add up to nothing: a clock that is corrected slowly has not jumped.
        *self = Self::new(wall, at);
        (by.abs() > JUMP).then_some(by)
    }
}

/// What was told of the room for new events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// There is enough.
    Ample,
    /// What waits for the sinks takes up most of the spool.
    Little,
    /// Polling pauses.
    Paused,
}

/// How much room there is.
#[derive(Debug)]
struct Found {
    waiting: u64,
    max: u64,
    shortage: Option<Shortage>,
}

impl Found {
    async fn in_store(store: &Store, max: Bytes, told: Room) -> Result<Self, Error> {
        // All that is stored is more than what waits, and costs nothing to know.
        let stored = store.spool_bytes();
        let waiting = if told == Room::Ample && !is_much(stored, max.get()) {
            stored
        } else {
            store.waiting_bytes().await?
        };
        // A spool full of what may go is no shortage.
        let shortage =
            store.shortage(if waiting >= max.get() { max } else { Bytes::new(u64::MAX) });
        Ok(Self { waiting, max: max.get(), shortage })
    }
}

/// Four fifths.
fn is_much(bytes: u64, max: u64) -> bool {
    bytes / 4 >= max / 5
}

impl Room {
    /// What is to be told now, and what was told then.
    fn next(self, found: &Found) -> (Self, Option<OwnEvent>) {
        let &Found { waiting, max, .. } = found;
        let filling = |paused| Some(own::spool_filling(waiting, max, paused));
        match (self, &found.shortage) {
            (Self::Paused, Some(_)) => (Self::Paused, None),
            (_, Some(shortage)) => {
                (Self::Paused, filling(Some((&shortage.to_string(), shortage.hint()))))
            }
            (Self::Ample, None) if is_much(waiting, max) => (Self::Little, filling(None)),
            (Self::Ample, None) => (Self::Ample, None),
            // Below half again, or it would be told time and again.
            (told, None) if waiting >= max / 2 => (told, None),
            (_, None) => (Self::Ample, Some(own::spool_draining(waiting, max))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_has_jumped_once_and_one_that_runs_has_not() {
        let mut clock = Clock::new(5_000_000, Instant::now());
        let mut after = |seconds, wall| {
            let later = clock.at + Duration::from_secs(seconds);
            clock.jumped(wall, later)
        };

        assert_eq!(after(3600, 8_600_000), None);
        assert_eq!(after(1, 8_661_000), None, "by a minute and no more");
        assert_eq!(after(1, 8_722_001), Some(60_001));
        assert_eq!(after(1, 8_723_001), None);
        assert_eq!(after(10, 1_000_000), Some(-7_733_001));
    }

    #[test]
    fn a_spool_that_fills_is_told_once_at_each_height_and_once_when_it_drains() {
        let short = || Some(Shortage::Spool(Bytes::new(100)));
        let looks = [
            (79, None, Room::Ample, None),
            (80, None, Room::Little, Some("spool_filling")),
            (95, None, Room::Little, None),
            (100, short(), Room::Paused, Some("spool_filling")),
            (120, short(), Room::Paused, None),
            (50, None, Room::Paused, None),
            (49, None, Room::Ample, Some("spool_draining")),
            (10, None, Room::Ample, None),
            (10, short(), Room::Paused, Some("spool_filling")),
            (10, None, Room::Ample, Some("spool_draining")),
        ];
        let mut room = Room::Ample;
        for (waiting, shortage, next, told) in looks {
            let event;
            (room, event) = room.next(&Found { waiting, max: 100, shortage });

            assert_eq!((room, event.map(|event| event.kind())), (next, told), "{waiting}");
        }
    }
}
