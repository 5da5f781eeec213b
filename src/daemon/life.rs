//! Tells how a run begins and how it ends.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::Outcome;
use super::opening::Opening;
use crate::log::chain;
use crate::own::{self, LastRun};
use crate::store::{Error, Store, wall_clock};

/// How long a stop waits at most for sinks that work to have its event.
const LONGEST_FAREWELL: Duration = Duration::from_secs(2);

/// One run, from its start to its end.
pub(super) struct Life {
    store: Store,
    begun: Instant,
    has_said_stopped: bool,
}

impl Life {
    /// Begins a run: the sinks are known, so that all of them hear of it.
    ///
    /// # Errors
    /// When the store fails in a way that waiting does not mend.
    pub async fn begin(store: &Store, opening: &mut Opening) -> Result<Self, Error> {
        if let Some(last_run) = opening.of(async || store.begin_run().await).await? {
            if last_run == LastRun::Interrupted {
                debug!("The last run did not end in order.");
            }
            store.announce(own::started(last_run)).await;
        }
        Ok(Self { store: store.clone(), begun: Instant::now(), has_said_stopped: false })
    }

    /// What it is kept in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Says that the run ends; once. The pollers must have been told.
    pub async fn say_stopped(&mut self, reason: &'static str, error: Option<&str>) {
        if !std::mem::replace(&mut self.has_said_stopped, true) {
            self.store.announce_letters(wall_clock(), true).await;
            self.store.announce(own::stopped(reason, self.begun.elapsed(), error)).await;
        }
    }

    /// Says how the run ends, and leaves the sinks that work some time to deliver that: no more than
    /// half of what there is.
    pub async fn take_leave(&mut self, outcome: &anyhow::Result<Outcome>, time: Duration) {
        let waiting = match outcome {
            _ if self.has_said_stopped => return,
            Ok(Outcome::Done) => return self.say_and_wait("asked", None, time).await,
            Ok(Outcome::Waiting(waiting)) => waiting,
            Err(err) => return self.say_stopped("failed", Some(&chain(err.as_ref()))).await,
        };
        let error = waiting.first().map(|waiting| waiting.text.as_str());
        self.say_and_wait("waiting", error, time).await;
    }

    async fn say_and_wait(&mut self, reason: &'static str, error: Option<&str>, time: Duration) {
        let mut settled = self.store.settled();
        self.say_stopped(reason, error).await;
        if !self.store.announces() {
            return;
        }
        let last = *self.store.committed().borrow();
        let wait = async {
            let mut sinks = self.store.sinks();
            loop {
                sinks = match self.store.sinks_before(last, sinks).await {
                    Ok(sinks) if !sinks.is_empty() => sinks,
                    _ => return,
                };
                if settled.changed().await.is_err() {
                    return;
                }
            }
        };
        // Those that do not make it have it at the next start.
        let _ = tokio::time::timeout(LONGEST_FAREWELL.min(time / 2), wait).await;
    }

    /// Everything has ended: the next start says so.
    pub async fn end(&self) {
        if let Err(err) = self.store.end_run().await {
            debug!(error = %err, "The next start will say that this run was interrupted.");
        }
    }
}
