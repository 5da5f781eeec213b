//! Reads one window, page by page.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::pass::Pass;
use super::plan::{HEAD, Plan, Reader, Task};
use super::{Fetched, Poller, TELL_AGAIN, Then};
use crate::event::{Millis, Page};
use crate::own;
use crate::position::{PageToken, Window};
use crate::source::{FetchError, Response};
use crate::store::sources::{self, Committed, Drained, PageCommit};
use crate::store::{self, wall_clock};

/// A pass that takes more pages than this reads half as much.
const MOST_PAGES: u64 = 10_000;

/// A clock that is off by less than this does not matter to where a first run begins.
const SKEWED: Millis = 60_000;

/// So often a full last page is asked for again, before it is believed that it is the last.
const ASKED_AGAIN: u32 = 2;

impl Poller {
    /// Reads a window from the pass's next page to its last.
    pub(super) async fn drain(&mut self, mut pass: Pass) -> Result<Then, store::Error> {
        let begun = Instant::now();
        let mut fetched = self.fetch(pass.task, pass.token.as_ref()).await;
        loop {
            let (response, page) = match fetched {
                Some(Ok(fetched)) => fetched,
                Some(Err(err)) => return self.failed(pass, err).await,
                None => return Ok(Then::End(super::End::Stopped)),
            };
            self.pace().went_well();
            self.tell_time(&mut pass, &response);
            drop(response);
            if self.begins_elsewhere().await? {
                return Ok(Then::GoOn);
            }
            if let Some(seen) = pass.objection(&page) {
                return self.failed(pass, FetchError::Violation { source: seen.into() }).await;
            }
            self.caps.learn(&page);
            let next = page.next.clone();
            if next.is_none() && self.caps.is_suspect(&page, &self.source.page_caps()) {
                match self.judge_full_page(&mut pass).await {
                    Some(Ok(())) => {}
                    Some(Err(err)) => return self.failed(pass, err).await,
                    None if pass.token.is_some() => {
                        fetched = self.fetch(pass.task, pass.token.as_ref()).await;
                        continue;
                    }
                    None => return Ok(Then::GoOn),
                }
            }
            self.page_came().await?;
            let commit = self.commit(&pass, page);
            let Some(token) = next else {
                return self.finish(pass, commit, begun).await;
            };
            let goes_on = !self.makes_way(&pass);
            let ahead =
                async { if goes_on { self.fetch(pass.task, Some(&token)).await } else { None } };
            let (committed, ahead) = tokio::join!(self.store.commit_page(commit), ahead);
            match committed {
                Ok(committed) => self.absorb(&mut pass, committed, Some(token)),
                Err(err) => return self.not_committed(pass, err).await,
            }
            self.reading_mut(pass.task.reader).progress(&pass);
            debug!(window = %pass.task.window, events = pass.tally.events, repeats = pass.tally.repeats,
                late = pass.tally.late, "Page committed.");
            if !goes_on || self.store.shortage(self.settings.spool_max).is_some() {
                return Ok(self.pass_over(pass));
            }
            fetched = ahead;
        }
    }

    /// True when a pass is to stop behind this page: for the newest events, which come first, for
    /// what the command line has asked, or because it has grown too long.
    fn makes_way(&self, pass: &Pass) -> bool {
        let now = self.planning_time();
        let head = self.plan.head_is_due(now, self.eager(now))
            && self.reading(HEAD).hold.is_over()
            && !self.plan.precedes_head(pass.task.reader, now);
        pass.task.reader != HEAD && (head || self.has_requests()) || is_too_long(pass)
    }

    /// Keeps a pass to be gone on with, unless it has grown too long.
    fn pass_over(&mut self, pass: Pass) -> Then {
        self.turn = HEAD;
        if pass.tally.pages >= MOST_PAGES && self.plan.halve(pass.task) {
            info!(window = %pass.task.window, pages = pass.tally.pages, "Halves a window of too many pages.");
        } else {
            self.suspend(pass);
        }
        Then::GoOn
    }

    /// A last page that is as full as pages get may have been cut. When it is the only one, half the
    /// window holds less; when others came before it, it is asked for again. None when that is done
    /// instead.
    async fn judge_full_page(&mut self, pass: &mut Pass) -> Option<Result<(), FetchError>> {
        let window = pass.task.window;
        if pass.token.is_some() {
            pass.full_ends += 1;
            return (pass.full_ends > ASKED_AGAIN).then_some(Ok(()));
        }
        if self.plan.halve(pass.task) {
            debug!(%window, "Halves a window that ends with a full page.");
            self.turn = pass.task.reader;
            return None;
        }
        // One second: an API that is known to tell of further pages would have told.
        if self.caps.pages() { Some(Ok(())) } else { Some(self.source.confirm_end(window).await) }
    }

    /// Commits the last page of a window, and with it the watermarks.
    async fn finish(
        &mut self,
        mut pass: Pass,
        mut commit: PageCommit,
        begun: Instant,
    ) -> Result<Then, store::Error> {
        let Task { reader, window } = pass.task;
        let begun_at = pass.begun_at.unwrap_or(pass.planned_at);
        let drained = match reader {
            Reader::Sweep(index) => {
                Drained::Swept(self.plan.moves(index, window, begun_at, pass.is_whole))
            }
            Reader::Backfill => self.filled(window),
        };
        commit.drained = Some(drained.clone());
        match self.store.commit_page(commit).await {
            Ok(committed) => self.absorb(&mut pass, committed, None),
            Err(err) => return self.not_committed(pass, err).await,
        }
        match (reader, &drained) {
            (Reader::Sweep(index), Drained::Swept(moves)) => {
                self.plan.moved(index, window, moves, pass.planned_at);
            }
            _ => self.has_filled(window),
        }
        self.listen(reader, window).await?;
        self.turn = HEAD;
        self.reading_mut(reader).end();
        self.recovered().await?;
        let tally = pass.tally;
        let elapsed = begun.elapsed();
        if tally.events > 0 {
            info!(%window, events = tally.events, repeats = tally.repeats, late = tally.late,
                pages = tally.pages, ?elapsed, "Window read.");
        } else {
            debug!(%window, repeats = tally.repeats, ?elapsed, "Window read.");
        }
        self.expire().await?;
        Ok(Then::GoOn)
    }

    fn absorb(&mut self, pass: &mut Pass, committed: Committed, next: Option<PageToken>) {
        self.unreadable += committed.bad;
        let is_told = self.told_unreadable.is_some_and(|at| at.elapsed() < TELL_AGAIN);
        if self.unreadable > 0 && !is_told {
            let hint = "`siemferry dead-letters list` shows them";
            let records = std::mem::take(&mut self.unreadable);
            error!(records, hint, "Records cannot be read; they are kept as dead letters.");
            self.told_unreadable = Some(Instant::now());
        }
        pass.absorb(committed, next);
    }

    fn commit(&self, pass: &Pass, page: Page) -> PageCommit {
        let fetched_at = wall_clock();
        let now = self.clock.now();
        let reader = match (pass.task.reader, self.backfill) {
            (Reader::Sweep(index), _) => sources::Reader::Sweep(self.plan.age(index)),
            (Reader::Backfill, id) => sources::Reader::Backfill(
                id.expect("the plan reads a backfill only while there is one"),
            ),
        };
        PageCommit {
            origin: Arc::clone(&self.origin),
            pass: pass.id,
            reader,
            window: pass.task.window,
            begun_at: pass.begun_at.unwrap_or(pass.planned_at),
            scope: pass.scope.clone(),
            counts: pass.counts.clone(),
            page,
            fetched_at,
            skew: self.clock.skew(fetched_at),
            now,
            drained: None,
        }
    }

    /// Asks for a page and splits it, no faster than the API allows; none when told to stop
    /// meanwhile.
    pub(super) async fn fetch(&self, task: Task, token: Option<&PageToken>) -> Option<Fetched> {
        let mut stop = self.stop.clone();
        let fetch = async {
            let next = self.pace().next();
            tokio::time::sleep_until(next).await;
            self.pace().asked();
            self.source.fetch(task.window, token).await
        };
        let fetched = tokio::select! {
            fetched = fetch => fetched,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        let split = |response| self.source.split(&response).map(|page| (response, page));
        Some(fetched.and_then(split))
    }

    pub(super) fn tell_time(&mut self, pass: &mut Pass, response: &Response) {
        let sent = self.observe(response);
        self.start = self.start.or(Some(self.clock.at(self.started)));
        // A resumed pass began with its first page, before the stop.
        pass.begun_at = pass.begun_at.or(Some(sent.unwrap_or(pass.planned_at)));
    }

    /// A first run begins so long before the server's time, which its first answer tells; true when
    /// that is another window.
    async fn begins_elsewhere(&mut self) -> Result<bool, store::Error> {
        let Some(ago) = self.settings.ago.take() else { return Ok(false) };
        let skew = self.clock.skew(wall_clock());
        if skew.abs() < SKEWED {
            return Ok(false);
        }
        let start = self.clock.now().div_euclid(1000) - ago;
        let sweeps = match self.store.begin_source_at(self.origin.id, start).await {
            Ok(sweeps) => sweeps,
            Err(err) if err.is_full() => {
                self.settings.ago = Some(ago);
                self.pause_for(Duration::from_secs(1)).await;
                return Ok(true);
            }
            Err(err) => return Err(err),
        };
        info!(skew_seconds = skew / 1000, "Begins by the server's clock.");
        self.plan = Plan::new(&sweeps, self.settings.rules);
        // A backfill is taken up again by the new plan.
        self.backfill = None;
        self.requests.mark_changed();
        Ok(true)
    }

    fn observe(&mut self, response: &Response) -> Option<Millis> {
        let Some(date) = response.date else {
            if !self.dateless {
                self.dateless = true;
                warn!("The API tells no time; this machine's clock must be right.");
            }
            return None;
        };
        let before = self.clock.now();
        let sent = self.clock.observe(date, response.elapsed);
        let moved = self.clock.now() - before;
        // The first answer of a run tells what was not known.
        if moved.abs() > 60_000 && self.start.is_some() {
            self.note(own::server_clock_jumped(&self.origin.name, moved));
        }
        if moved.abs() > 60_000 {
            warn!(seconds = moved / 1000, "The server's clock is not where it was expected.");
        }
        Some(sent)
    }

    /// Asks for the second before the watermark, for the sake of the server's clock alone.
    pub(super) async fn probe(&mut self) -> Result<Then, store::Error> {
        let end = self.plan.watermark(0);
        let task = Task { reader: HEAD, window: Window { start: end - 1, end } };
        let mut pass = Pass::new(task, self.clock.now(), self.source.token_scope());
        match self.fetch(task, None).await {
            None => Ok(Then::End(super::End::Stopped)),
            Some(Err(err)) => {
                let then = self.failed(pass, err).await;
                self.reading_mut(HEAD).suspended = None;
                then
            }
            Some(Ok((response, _))) => {
                self.tell_time(&mut pass, &response);
                self.page_came().await?;
                self.reading_mut(HEAD).end();
                Ok(Then::GoOn)
            }
        }
    }
}

fn is_too_long(pass: &Pass) -> bool {
    pass.tally.pages + 1 >= MOST_PAGES && pass.task.window.seconds() > 1
}
