//! What somebody asked to be read again, one backfill after the other.

use std::time::Duration;

use tracing::info;

use super::Poller;
use super::plan::Reader;
use crate::position::Window;
use crate::store;
use crate::store::requests::Backfill;
use crate::store::sources::Drained;

/// When what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Poller {
    /// Looks after what the command line has asked for meanwhile.
    pub(super) async fn take_up_backfill(&mut self) -> Result<(), store::Error> {
        if !self.has_requests() {
            return Ok(());
        }
        self.requests.mark_unchanged();
        match self.take_up_next().await {
            Err(err) if err.is_full() || matches!(err, store::Error::Busy) => {
                // What could not be written now is asked for again, at leisure.
                self.pause_for(AGAIN).await;
                self.requests.mark_changed();
                Ok(())
            }
            done => done,
        }
    }

    /// True when the command line may have asked for something.
    pub(super) fn has_requests(&self) -> bool {
        self.requests.has_changed().unwrap_or(false)
    }

    async fn take_up_next(&mut self) -> Result<(), store::Error> {
        loop {
            let next = self.store.next_backfill(&self.origin.name).await?;
            let id = next.as_ref().map(|backfill| backfill.id);
            if id == self.backfill {
                return Ok(());
            }
            if let Some(id) = self.backfill {
                // Its last page may have been on its way.
                self.store.end_cancelled().await?;
                if self.store.is_cancelled(id).await? {
                    info!(id, "Backfill cancelled.");
                } else {
                    info!(id, "Backfill done.");
                }
            }
            self.backfill = None;
            self.plan.set_backfill(next.as_ref().map(Backfill::left));
            let reading = self.reading_mut(Reader::Backfill);
            reading.suspended = None;
            reading.end();
            let Some(backfill) = next else { return Ok(()) };
            let (id, left) = (backfill.id, backfill.left());
            if self.plan.left_from(backfill.position).is_some() {
                info!(id, window = %left, "Backfill begins.");
                self.backfill = Some(id);
                return Ok(());
            }
            // The head will have moved on when the plan is next asked.
            self.plan.set_backfill(None);
            self.store.end_backfill(id, store::wall_clock()).await?;
            info!(id, window = %left, "Backfill has nothing to do: the newest events are read all the same.");
        }
    }

    /// What is committed with the last page of one of the backfill's windows.
    pub(super) fn filled(&self, window: Window) -> Drained {
        let is_done = self.plan.left_from(window.end).is_none();
        Drained::Filled { position: window.end, is_done }
    }

    /// Takes over that it was committed.
    pub(super) fn has_filled(&mut self, window: Window) {
        let left = self.plan.left_from(window.end);
        self.plan.filled(left);
        if left.is_none() {
            // It is over, and another may wait.
            self.requests.mark_changed();
        }
    }
}
