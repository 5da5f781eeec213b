//! What a poller has to tell of its source, as events of our own: each change of state once.

use tokio::time::Instant;

use super::Poller;
use super::plan::{HEAD, Reader};
use crate::event::Millis;
use crate::own::{self, OwnEvent};
use crate::position::Window;
use crate::store;

/// A head that is further behind than this has not heard all there is.
const CAUGHT_UP: Millis = 60_000;

impl Poller {
    /// Keeps an event of our own until it can be told.
    pub(super) fn note(&mut self, event: OwnEvent) {
        if self.store.announces() {
            self.news.push(event);
        }
    }

    /// Tells what was noted. What the disk does not take is given up.
    pub(super) async fn tell_news(&mut self) {
        for event in std::mem::take(&mut self.news) {
            self.store.announce(event).await;
        }
    }

    /// The source is blocked, whatever it was before.
    pub(super) fn note_blocked(&mut self, error: &str, hint: Option<&str>) {
        if self.blocked_since.is_none() {
            self.blocked_since = Some(Instant::now());
            self.note(own::source_blocked(&self.origin.name, error, hint));
        }
    }

    /// A page came, so it is not blocked.
    pub(super) fn note_unblocked(&mut self) {
        if let Some(since) = self.blocked_since.take() {
            self.note(own::source_unblocked(&self.origin.name, since.elapsed()));
        }
    }

    /// A window was drained, perhaps without anything new for too long.
    pub(super) async fn listen(
        &mut self,
        reader: Reader,
        window: Window,
    ) -> Result<(), store::Error> {
        let (after, now) = (self.settings.silence_after, self.clock.now());
        // What happened meanwhile may be in the windows that are still to be read.
        let is_behind = window.end * 1000 + self.settings.rules.lag + CAUGHT_UP < now;
        if after == 0 || reader != HEAD || is_behind {
            return Ok(());
        }
        match self.store.fall_silent(self.origin.id, &self.origin.name, now, after).await {
            // It is still silent when there is room.
            Err(err) if !err.is_full() => Err(err),
            _ => Ok(()),
        }
    }
}
