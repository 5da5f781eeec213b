//! What a poller does when a page could not be had, and what it tells of it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::pass::Pass;
use super::plan::{HEAD, Reader, Task};
use super::{End, Poller, TELL_AGAIN, Then};
use crate::event::Millis;
use crate::health::State;
use crate::own::{contract_violation, window_unreadable};
use crate::position::{Window, rfc3339};
use crate::source::FetchError;
use crate::store::{self, Shortage};
use crate::units::Bytes;

/// So often a page that is too much is asked for before its window is halved.
const STRIKES: u32 = 3;

/// So often a page that breaks the contract is asked for before its window is begun again: that
/// costs all its pages, and the next answer may be a better one.
const VIOLATIONS: u32 = 8;

const VIOLATION: &str = "The API does not keep to its contract.";

/// How often a full disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the log says already; each of it is said once until it is over.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a sentence of its own")]
pub(super) struct Told {
    retry: bool,
    throttled: bool,
    unreadable: bool,
    blocked: bool,
}

impl Poller {
    /// Keeps a pass, to be gone on with when its reader is next asked.
    pub(super) fn suspend(&mut self, pass: Pass) {
        let reader = pass.task.reader;
        self.reading_mut(reader).suspended = Some(pass);
    }

    /// Nothing of the page is stored: the pass asks for it again.
    pub(super) async fn not_committed(
        &mut self,
        pass: Pass,
        err: store::Error,
    ) -> Result<Then, store::Error> {
        if matches!(err, store::Error::Busy) {
            return self.failed(pass, FetchError::Retry { after: None, source: err.into() }).await;
        }
        if !err.is_full() {
            return Err(err);
        }
        self.suspend(pass);
        Ok(Then::GoOn)
    }

    pub(super) async fn failed(
        &mut self,
        mut pass: Pass,
        err: FetchError,
    ) -> Result<Then, store::Error> {
        let task = pass.task;
        // Another reader has its turn: one bad window must not starve the head, nor the head it.
        self.turn = self.after(task.reader);
        match err {
            FetchError::Retry { after, source } => {
                self.suspend(pass);
                // On its own account as well: the pages of others say nothing about this window.
                let reading = self.reading_mut(task.reader);
                reading.may_pass = reading.may_pass || !reading.hold.is_on();
                reading.hold.lengthen();
                self.retry(task.window, &source.to_string(), after).await
            }
            FetchError::Throttled { after, source } => {
                self.suspend(pass);
                self.throttled(task.window, &source.to_string(), after).await
            }
            FetchError::Violation { .. } => self.hold(pass, &err.to_string(), VIOLATION).await,
            FetchError::PageExpired { .. } if pass.token.is_some() => {
                self.expired(pass, &err.to_string()).await
            }
            FetchError::TooMuch { source }
                if pass.token.is_some() && pass.strikes + 1 < STRIKES =>
            {
                pass.strikes += 1;
                self.suspend(pass);
                self.retry(task.window, &source.to_string(), None).await
            }
            FetchError::TooMuch { source } if self.plan.halve(task) => {
                self.turn = task.reader;
                let error = source.to_string();
                if self.told_halved.is_some_and(|at| at.elapsed() < TELL_AGAIN) {
                    debug!(window = %task.window, error, "Halves a window again.");
                } else {
                    self.told_halved = Some(Instant::now());
                    warn!(window = %task.window, error, "Fetch failed; halves the window.");
                }
                self.turn_to(State::Retrying, Some(&error)).await?;
                Ok(Then::GoOn)
            }
            FetchError::TooMuch { source } => {
                let pass = pass.restarted(self.source.token_scope());
                self.hold(pass, &source.to_string(), "One second is too much to be read.").await
            }
            FetchError::PageExpired { source } => {
                self.retry(task.window, &source.to_string(), None).await
            }
            FetchError::Blocked { source, hint } => {
                self.suspend(pass);
                self.blocked(source.to_string(), hint).await
            }
        }
    }

    /// The reader that has its turn behind this one.
    fn after(&self, reader: Reader) -> Reader {
        let mut later = self.plan.readers().skip_while(|other| *other != reader).skip(1);
        later.next().unwrap_or(HEAD)
    }

    /// The token of the next page is no longer taken: the window begins again, and the second time
    /// a shorter one.
    async fn expired(&mut self, pass: Pass, error: &str) -> Result<Then, store::Error> {
        let task = pass.task;
        let mut pass = pass.restarted(self.source.token_scope());
        pass.expired += 1;
        info!(window = %task.window, error, "Begins a window again.");
        self.turn = task.reader;
        if pass.expired < 2 {
            self.suspend(pass);
            return Ok(Then::GoOn);
        }
        if self.plan.halve(task) {
            return self.retry(task.window, error, None).await;
        }
        pass.expired = 0;
        self.hold(pass, error, "Page tokens expire before one second is read.").await
    }

    async fn retry(
        &mut self,
        window: Window,
        error: &str,
        after: Option<Duration>,
    ) -> Result<Then, store::Error> {
        let wait = self.health.retries.next(after);
        let attempt = self.health.retries.attempt();
        if std::mem::replace(&mut self.told.retry, true) {
            debug!(%window, attempt, retry_in = ?wait, error, "Fetch failed again.");
        } else {
            warn!(%window, attempt, retry_in = ?wait, error, "Fetch failed; will retry.");
        }
        self.turn_to(State::Retrying, Some(error)).await?;
        self.pause_for(wait).await;
        Ok(Then::GoOn)
    }

    /// The API says that it was asked too often: the newest events come first, and all of it goes
    /// slower.
    async fn throttled(
        &mut self,
        window: Window,
        error: &str,
        after: Option<Duration>,
    ) -> Result<Then, store::Error> {
        self.turn = HEAD;
        let wait = self.health.retries.next(after);
        self.pace().refused(wait);
        if std::mem::replace(&mut self.told.throttled, true) {
            debug!(%window, retry_in = ?wait, error, "Asked too often again.");
        } else {
            warn!(%window, retry_in = ?wait, error, "Asked too often; goes on slower.");
        }
        self.turn_to(State::Retrying, Some(error)).await?;
        self.pause_for(wait).await;
        Ok(Then::GoOn)
    }

    /// Leaves a reader alone whose window cannot be read. It will hardly mend by itself: somebody
    /// has to know.
    async fn hold(
        &mut self,
        mut pass: Pass,
        error: &str,
        sentence: &'static str,
    ) -> Result<Then, store::Error> {
        let window = pass.task.window;
        pass.strikes += 1;
        if pass.token.is_some() && pass.strikes >= VIOLATIONS {
            pass = pass.restarted(self.source.token_scope());
        }
        let reading = self.reading_mut(pass.task.reader);
        reading.may_pass = false;
        let hold = &mut reading.hold;
        let (wait, attempt) = (hold.lengthen(), hold.attempt());
        if std::mem::replace(&mut self.told.unreadable, true) {
            debug!(%window, attempt, retry_in = ?wait, error, "{sentence}");
        } else {
            error!(%window, attempt, retry_in = ?wait, error, "{sentence}");
            let tell = if sentence == VIOLATION { contract_violation } else { window_unreadable };
            self.note(tell(&self.origin.name, &window.to_string(), error));
        }
        self.suspend(pass);
        self.turn_to(State::Retrying, Some(error)).await?;
        Ok(Then::GoOn)
    }

    async fn blocked(&mut self, error: String, hint: Option<String>) -> Result<Then, store::Error> {
        self.note_blocked(&error, hint.as_deref());
        if !std::mem::replace(&mut self.told.blocked, true) {
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

    /// A page came. All is well unless one of the readers has a window that it cannot read.
    pub(super) async fn page_came(&mut self) -> Result<(), store::Error> {
        self.note_unblocked();
        self.health.retries.reset();
        self.health.probes.reset();
        if self.readers.iter().all(|reading| !reading.hold.is_on()) {
            return self.recovered().await;
        }
        if self.health.state() == State::Blocked {
            self.health.turn_to(State::Retrying, None);
        }
        self.remember().await
    }

    /// A window was drained, or there is room again.
    pub(super) async fn recovered(&mut self) -> Result<(), store::Error> {
        if self.health.state() == State::Paused && self.store.is_on_trial() {
            // Nor is it told: it may be full again at once.
            return Ok(());
        }
        let throttled = self.told.throttled && self.pace().is_slow();
        let is_held = self.readers.iter().any(|reading| reading.hold.is_on());
        let was_told = self.told;
        let unreadable = is_held && was_told.unreadable;
        self.told = Told { throttled, unreadable, ..Told::default() };
        if is_held {
            return self.remember().await;
        }
        let is_news = was_told.retry || was_told.blocked || was_told.unreadable;
        if let Some((was, lasted)) = self.health.works()
            && (is_news || was == State::Paused)
        {
            info!(%was, ?lasted, "Source works again.");
        }
        self.remember().await
    }

    /// Asks the server for the time until it has come to where the events were read.
    pub(super) async fn ahead_of_server(&mut self, now: Millis) -> Result<Then, store::Error> {
        let end = now.div_euclid(1000);
        let task = Task { reader: HEAD, window: Window { start: end - 1, end } };
        let mut pass = Pass::new(task, now, self.source.token_scope());
        match self.fetch(task, None).await {
            None => return Ok(Then::End(End::Stopped)),
            Some(Err(err)) => {
                let then = self.failed(pass, err).await;
                self.reading_mut(HEAD).suspended = None;
                return then;
            }
            Some(Ok((response, _))) => self.tell_time(&mut pass, &response),
        }
        self.reading_mut(HEAD).end();
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
        let most = self.settings.spool_max.get();
        // Some more than the next page needs, or a full spool would be told of page by page.
        let enough = Bytes::new(most - most / 8);
        self.turn_to(State::Paused, Some(&error)).await?;
        // Asked again at once: something may have been settled before the doorbell was taken up.
        while !*self.stop.borrow() {
            let error = match self.store.make_room(enough).await? {
                None => break,
                Some(Shortage::Spool(_)) => Shortage::Spool(self.settings.spool_max).to_string(),
                Some(shortage) => shortage.to_string(),
            };
            self.turn_to(State::Paused, Some(&error)).await?;
            tokio::select! {
                _ = settled.changed() => {}
                () = self.pause_for(LOOK_EVERY) => {}
            }
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
        self.tell_news().await;
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
