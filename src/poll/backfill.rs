//! What somebody asked to be read again, one backfill after the other.

use tracing::info;

use super::Poller;
use super::plan::Reader;
use crate::position::Window;
use crate::store;
use crate::store::requests::Backfill;
use crate::store::sources::Drained;

impl Poller {
    /// Looks after what the command line has asked for meanwhile.
    pub(super) async fn take_up_backfill(&mut self) -> Result<(), store::Error> {
        if !self.requests.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.requests.mark_unchanged();
        loop {
            let next = self.store.next_backfill(&self.origin.name).await?;
            let id = next.as_ref().map(|backfill| backfill.id);
            if id == self.backfill {
                return Ok(());
            }
            if self.backfill.is_some() {
                info!("Backfill cancelled.");
                self.reading_mut(Reader::Backfill).suspended = None;
                // Its last page may have been on its way.
                self.store.end_cancelled().await?;
            }
            self.backfill = id;
            self.plan.set_backfill(next.as_ref().map(Backfill::left));
            self.reading_mut(Reader::Backfill).end();
            let Some(backfill) = next else { return Ok(()) };
            if self.plan.left_from(backfill.position).is_some() {
                info!(id, window = %backfill.left(), "Backfill begins.");
                return Ok(());
            }
            self.store.end_backfill(backfill.id, store::wall_clock()).await?;
            info!(id, window = %backfill.left(), "Backfill has nothing to do: the newest events are read all the same.");
            self.backfill = None;
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
            info!(id = self.backfill, "Backfill done.");
            self.backfill = None;
            // Another may wait.
            self.requests.mark_changed();
        }
    }
}
