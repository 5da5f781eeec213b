//! A start on a full disk waits for room, as everything does later.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info};

use super::Mode;
use crate::store::Error;

/// How often it is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// What is tried again until there is room.
pub(super) struct Opening {
    mode: Mode,
    stop: watch::Receiver<bool>,
    begun: Instant,
    is_told: bool,
    /// Becomes true when the couriers may begin.
    go: watch::Sender<bool>,
}

impl Opening {
    pub fn new(mode: Mode, stop: watch::Receiver<bool>) -> Self {
        Self { mode, stop, begun: Instant::now(), is_told: false, go: watch::Sender::new(false) }
    }

    /// Attempts it until it succeeds or fails for another reason; none when told to stop. A single
    /// run has its patience.
    pub async fn of<T>(
        &mut self,
        mut attempt: impl AsyncFnMut() -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        loop {
            let err = match attempt().await {
                Err(err) if err.is_full() && self.has_patience() => err,
                ended => {
                    if std::mem::take(&mut self.is_told) && ended.is_ok() {
                        info!(waited = ?self.begun.elapsed(), "There is room for the store.");
                    }
                    return ended.map(Some);
                }
            };
            // What they deliver is what makes room.
            self.let_go();
            if !self.is_told {
                let hint = err.hint();
                error!(error = %err, hint, "There is no room for the store; the start waits.");
                self.is_told = true;
            }
            let stopped = self.stop.wait_for(|stop| *stop);
            if tokio::time::timeout(TRY_EVERY, stopped).await.is_ok() {
                return Ok(None);
            }
        }
    }

    /// What the couriers wait for: that the run was told of, before they tell of anything.
    pub fn gate(&self) -> watch::Receiver<bool> {
        self.go.subscribe()
    }

    /// Lets the couriers begin.
    pub fn let_go(&self) {
        self.go.send_replace(true);
    }

    fn has_patience(&self) -> bool {
        match self.mode {
            Mode::Forever => true,
            Mode::Once(patience) => self.begun.elapsed() < patience,
        }
    }
}
