//! What a poller does when a page could not be had, and what it tells of it.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::pass::Pass;
use super::plan::Task;
use super::{End, Poller, Then};
use crate::event::Millis;
use crate::health::State;
use crate::position::{Window, rfc3339};
use crate::source::FetchError;
use crate::store::{self, Shortage};

/// How often a full disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Poller {
    /// Keeps a pass, to be gone on with when its sweep is next asked.
    pub(super) fn suspend(&mut self, pass: Pass) {
        let sweep = pass.task.sweep;
        self.suspended[sweep] = Some(pass);
    }

    pub(super) fn not_committed(
        &mut self,
        pass: Pass,
        err: store::Error,
    ) -> Result<Then, store::Error> {
        if !err.is_full() {
            return Err(err);
        }
        // Nothing of the page is stored: the pass asks for it again when there is room.
        self.suspend(pass);
        Ok(Then::GoOn)
    }

    pub(super) async fn failed(
        &mut self,
        pass: Pass,
        err: FetchError,
    ) -> Result<Then, store::Error> {
        let task = pass.task;
        // Another sweep has its turn: one bad window must not starve the head, nor the head it.
        self.turn = (task.sweep + 1) % self.suspended.len();
        match err {
            FetchError::Retry { after, source } => {
                self.suspend(pass);
                self.retry(task.window, &source.to_string(), after).await
            }
            FetchError::Violation { .. } => {
                self.suspend(pass);
                self.violation(task.window, &err.to_string()).await
            }
            FetchError::PageExpired { .. } if pass.token.is_some() => {
                let mut pass = pass.restarted(self.source.token_scope());
                pass.expired += 1;
                info!(window = %task.window, error = %err, "Begins a window again.");
                if pass.expired < 2 {
                    self.turn = task.sweep;
                    self.suspend(pass);
                    return Ok(Then::GoOn);
                }
                self.plan.halve(task);
                self.retry(task.window, &err.to_string(), None).await
            }
            FetchError::TooMuch { source } if self.plan.halve(task) => {
                self.turn = task.sweep;
                let error = source.to_string();
                info!(window = %task.window, error, "Halves a window.");
                self.turn_to(State::Retrying, Some(&error)).await?;
                Ok(Then::GoOn)
            }
            FetchError::PageExpired { source } | FetchError::TooMuch { source } => {
                self.retry(task.window, &source.to_string(), None).await
            }
            FetchError::Blocked { source, hint } => {
                self.suspend(pass);
                self.blocked(source.to_string(), hint).await
            }
        }
    }

    async fn retry(
        &mut self,
        window: Window,
        error: &str,
        after: Option<Duration>,
    ) -> Result<Then, store::Error> {
        let wait = self.health.retries.next(after);
        let attempt = self.health.retries.attempt();
        if self.health.state() == State::Retrying {
            debug!(%window, attempt, retry_in = ?wait, error, "Fetch failed again.");
        } else {
            warn!(%window, attempt, retry_in = ?wait, error, "Fetch failed; will retry.");
        }
        self.turn_to(State::Retrying, Some(error)).await?;
        self.pause_for(wait).await;
        Ok(Then::GoOn)
    }

    /// Like a failure, but it will hardly pass by itself: somebody has to know.
    async fn violation(&mut self, window: Window, error: &str) -> Result<Then, store::Error> {
        let wait = self.health.retries.next(None);
        if self.health.turn_to(State::Retrying, Some(error)) {
            let attempt = self.health.retries.attempt();
            error!(%window, attempt, retry_in = ?wait, error, "The API does not keep to its contract.");
        }
        self.remember().await?;
        self.pause_for(wait).await;
        Ok(Then::GoOn)
    }

    async fn blocked(&mut self, error: String, hint: Option<String>) -> Result<Then, store::Error> {
        if self.health.state() != State::Blocked {
            error!(error, hint, "Source is blocked; nothing is lost, and it goes on when mended.");
        }
        self.turn_to(State::Blocked, Some(&error)).await?;
        if self.settings.once {
            return Ok(Then::End(End::Blocked { error, hint }));
        }
        let wait = self.health.probes.next(None);
        self.pause_for(wait).await;
        Ok(Then::GoOn)
    }

    pub(super) async fn recovered(&mut self) -> Result<(), store::Error> {
        if self.health.state() == State::Paused && self.store.is_on_trial() {
            // Nor is it told: it may be full again at once.
            return Ok(());
        }
        if let Some((was, lasted)) = self.health.works() {
            info!(%was, ?lasted, "Source works again.");
        }
        self.remember().await
    }

    /// Asks the server for the time until it has come to where the events were read.
    pub(super) async fn ahead_of_server(&mut self, now: Millis) -> Result<Then, store::Error> {
        let end = now.div_euclid(1000);
        let task = Task { sweep: 0, window: Window { start: end - 1, end } };
        let mut pass = Pass::new(task, now, self.source.token_scope());
        match self.fetch(task.window, None).await {
            None => return Ok(Then::End(End::Stopped)),
            Some(Err(err)) => {
                let then = self.failed(pass, err).await;
                self.suspended[0] = None;
                return then;
            }
            Some(Ok((response, _))) => self.tell_time(&mut pass, &response),
        }
        let until = rfc3339(self.plan.watermark(0));
        let error = format!(
            "events were read up to {until}, which the server's clock has not come to: one of its answers told the time wrong"
        );
        let hint = "what happens until then is found by a later sweep, or not at all if the clock was wrong by more than the oldest `resweep`: to read it, begin with a new `state.dir`";
        if self.health.turn_to(State::Retrying, Some(&error)) {
            error!(error, hint, "The server's clock went back.");
        }
        self.remember().await?;
        if self.settings.once {
            return Ok(Then::End(End::Blocked { error, hint: Some(hint.into()) }));
        }
        let wait = self.settings.rules.poll_every.max(1000);
        self.pause_for(Duration::from_millis(wait.unsigned_abs())).await;
        Ok(Then::GoOn)
    }

    /// Waits until a sink has settled something, or there may be room on the disk again.
    pub(super) async fn pause(&mut self, shortage: &Shortage) -> Result<(), store::Error> {
        let error = shortage.to_string();
        if self.health.state() != State::Paused {
            let hint = shortage.hint();
            warn!(error, hint, "There is no room for new events; polling pauses.");
        }
        let mut settled = self.store.settled();
        self.turn_to(State::Paused, Some(&error)).await?;
        // What was settled before the doorbell was taken up.
        if self.store.make_room(self.settings.spool_max).await?.is_none() {
            return Ok(());
        }
        tokio::select! {
            _ = settled.changed() => {}
            () = self.pause_for(LOOK_EVERY) => {}
        }
        Ok(())
    }

    pub(super) async fn pause_for(&self, wait: Duration) {
        let _ = tokio::time::timeout(wait, self.stop.clone().wait_for(|stop| *stop)).await;
    }

    async fn turn_to(&mut self, state: State, error: Option<&str>) -> Result<(), store::Error> {
        self.health.turn_to(state, error);
        self.remember().await
    }

    /// Has `status` show how the source is doing, if that is news.
    pub(super) async fn remember(&mut self) -> Result<(), store::Error> {
        if !self.health.is_untold() {
            return Ok(());
        }
        let (state, error) = self.health.tell();
        match self.store.source_state(self.origin.id, state, error).await {
            Ok(()) => Ok(()),
            Err(err) if err.is_full() => {
                self.health.untell();
                Ok(())
            }
            Err(err) => Err(err),
        }
    }
}
