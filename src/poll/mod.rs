//! The poller: reads one source, window after window, and commits what it finds.
//!
//! Promises that a position never moves without the events it accounts for, and that no failure
//! ends the reading: it waits, halves, begins again, or is blocked until somebody acts.
//! Knows neither the API's shape nor the sinks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::event::{Millis, Page};
use crate::health::{Health, State};
use crate::position::{PageToken, Second, Window};
use crate::source::{FetchError, Response, Source};
use crate::store::sources::{EXPIRED_AT_ONCE, Origin, PageCommit, Registered};
use crate::store::{self, Store, wall_clock};
use crate::units::Bytes;

mod clock;
mod pass;
pub mod plan;
mod trouble;

use clock::ServerClock;
use pass::Pass;
use plan::{Next, Plan, Rules, Task};

/// How often what nothing can meet again is forgotten.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// How far the watermark may be ahead of the server's clock before somebody is told.
const AHEAD: Millis = 60_000;

/// What a poller needs besides its source.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often and how much is asked for.
    pub rules: Rules,
    /// Polling pauses while the spool holds more than this.
    pub spool_max: Bytes,
    /// True when the poller ends as soon as it has read up to the moment of its start.
    pub once: bool,
}

/// How a poller came to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stopped,
    /// It has read all up to its start.
    Done,
    /// Reading once, it was blocked.
    Blocked {
        /// By what.
        error: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// Reads one source.
pub struct Poller {
    source: Box<dyn Source>,
    store: Store,
    origin: Arc<Origin>,
    settings: Settings,
    stop: watch::Receiver<bool>,
    plan: Plan,
    clock: ServerClock,
    stored: Registered,
    /// The pass of each sweep that failed on its way, to be gone on with.
    suspended: Vec<Option<Pass>>,
    /// The sweep that is asked first: the head, unless its last attempt failed.
    turn: usize,
    health: Health,
    started: Instant,
    /// The server's time at the start of this run, once an answer has told it.
    start: Option<Millis>,
    dateless: bool,
    expired_at: Option<Instant>,
}

/// What to do after a failure.
enum Then {
    GoOn,
    End(End),
}

type Fetched = Result<(Response, Page), FetchError>;

impl Poller {
    /// Takes up a source where the store stands.
    pub fn new(
        source: Box<dyn Source>,
        store: Store,
        origin: Origin,
        stored: Registered,
        settings: Settings,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let plan = Plan::new(&stored.sweeps, settings.rules);
        let seed = u64::from(std::process::id()) ^ wall_clock().cast_unsigned();
        Self {
            suspended: plan.ages().map(|_| None).collect(),
            clock: ServerClock::new(wall_clock, stored.skew),
            health: Health::new(Duration::from_secs(1), Duration::from_secs(300), seed),
            origin: Arc::new(origin),
            turn: 0,
            started: Instant::now(),
            start: None,
            dateless: false,
            expired_at: None,
            source,
            store,
            settings,
            stop,
            plan,
            stored,
        }
    }

    /// Reads until told to stop, or once.
    ///
    /// # Errors
    /// When the store fails in a way that waiting does not mend.
    pub async fn run(mut self) -> Result<End, store::Error> {
        self.started = Instant::now();
        // What the last run left in the store says nothing about this one.
        self.remember().await?;
        loop {
            if *self.stop.borrow() {
                return Ok(End::Stopped);
            }
            if let Some(shortage) = self.store.make_room(self.settings.spool_max).await? {
                self.pause(&shortage).await?;
                continue;
            }
            if self.health.state() == State::Paused {
                self.recovered().await?;
            }
            let now = self.planning_time();
            let then = match self.plan.next(now, self.turn, self.eager(now)) {
                Next::Read(task) => {
                    let pass = self.pass_for(task, now);
                    self.drain(pass).await?
                }
                Next::Wait(_) if self.must_probe(now) => self.probe().await?,
                Next::Wait(_) if self.is_ahead(now) => self.ahead_of_server(now).await?,
                Next::Wait(_) if self.settings.once => return Ok(End::Done),
                Next::Wait(until) => {
                    self.wait_until(until, now).await;
                    Then::GoOn
                }
            };
            if let Then::End(end) = then {
                return Ok(end);
            }
        }
    }

    /// The server's time; reading once, that of the start, or the windows would follow the clock.
    fn planning_time(&self) -> Millis {
        let start = self.start.filter(|_| self.settings.once);
        start.unwrap_or_else(|| self.clock.now())
    }

    /// Reading once, the head goes as far as the moment of the start without waiting for its turn.
    fn eager(&self, now: Millis) -> Option<Second> {
        self.settings.once.then(|| (now - self.settings.rules.lag).div_euclid(1000))
    }

    /// True when events were read up to a time that the server has not come to: one of its answers
    /// must have told the time wrong.
    fn is_ahead(&self, now: Millis) -> bool {
        self.start.is_some() && now + AHEAD < self.plan.watermark(0) * 1000
    }

    /// Nothing to read, though no answer has told the time yet: our own clock may be behind.
    fn must_probe(&self, now: Millis) -> bool {
        let behind = now < self.plan.watermark(0) * 1000;
        self.start.is_none() && (behind || self.settings.once)
    }

    fn pass_for(&mut self, task: Task, now: Millis) -> Pass {
        let suspended = self.suspended[task.sweep].take();
        // A pass between the pages of another may raise copies that the other had met.
        for other in self.suspended.iter_mut().flatten() {
            other.is_whole = false;
        }
        let scope = self.source.token_scope();
        if let Some(pass) = suspended {
            // A token of other pages would show records twice; and what the oldest sweep's pass has
            // counted too low, no later one mends.
            let is_spoilt = self.plan.is_oldest(task.sweep) && !pass.is_whole;
            let is_sound = pass.token.is_none() || (pass.scope == scope && !is_spoilt);
            return if is_sound { pass } else { pass.restarted(scope) };
        }
        let age = self.plan.age(task.sweep);
        let stored = self.stored.unfinished.iter().position(|pass| pass.age == age);
        let Some(stored) = stored.map(|index| self.stored.unfinished.remove(index)) else {
            return Pass::new(task, now, scope);
        };
        // What an interrupted pass of the oldest sweep has counted too low, no later one mends.
        if self.plan.is_oldest(task.sweep)
            || stored.scope != scope
            || stored.window.start != task.window.start
        {
            info!(window = %task.window, "Begins an interrupted window again.");
            return Pass::new(task, now, scope);
        }
        info!(window = %stored.window, "Goes on with an interrupted window.");
        Pass::resumed(task.sweep, stored, now)
    }

    /// Reads a window from the pass's next page to its last.
    async fn drain(&mut self, mut pass: Pass) -> Result<Then, store::Error> {
        let begun = Instant::now();
        let mut fetched = self.fetch(pass.task.window, pass.token.as_ref()).await;
        loop {
            let (response, page) = match fetched {
                Some(Ok(fetched)) => fetched,
                Some(Err(err)) => return self.failed(pass, err).await,
                None => return Ok(Then::End(End::Stopped)),
            };
            self.tell_time(&mut pass, &response);
            drop(response);
            let next = page.next.clone();
            if next.as_ref().is_some_and(|token| pass.is_repeated(token)) {
                let seen = "it gives a page token a second time in one pass";
                return self.failed(pass, FetchError::Violation { source: seen.into() }).await;
            }
            self.recovered().await?;
            let commit = self.commit(&pass, page);
            let Some(token) = next else {
                return self.finish(pass, commit, begun).await;
            };
            let ahead = self.fetch(pass.task.window, Some(&token));
            let (committed, ahead) = tokio::join!(self.store.commit_page(commit), ahead);
            match committed {
                Ok(committed) => pass.absorb(committed, Some(token)),
                Err(err) => return self.not_committed(pass, err),
            }
            debug!(window = %pass.task.window, events = pass.tally.events, repeats = pass.tally.repeats,
                late = pass.tally.late, "Page committed.");
            if self.store.shortage(self.settings.spool_max).is_some() {
                self.suspend(pass);
                return Ok(Then::GoOn);
            }
            fetched = ahead;
        }
    }

    /// Commits the last page of a window, and with it the watermarks.
    async fn finish(
        &mut self,
        mut pass: Pass,
        mut commit: PageCommit,
        begun: Instant,
    ) -> Result<Then, store::Error> {
        let begun_at = pass.begun_at.unwrap_or(pass.planned_at);
        let moves = self.plan.moves(pass.task, begun_at, pass.is_whole);
        commit.drained.clone_from(&moves);
        match self.store.commit_page(commit).await {
            Ok(committed) => pass.absorb(committed, None),
            Err(err) => return self.not_committed(pass, err),
        }
        self.plan.moved(pass.task, &moves, pass.planned_at);
        self.turn = 0;
        let tally = pass.tally;
        let elapsed = begun.elapsed();
        if tally.events > 0 {
            info!(window = %pass.task.window, events = tally.events, repeats = tally.repeats,
                late = tally.late, pages = tally.pages, ?elapsed, "Window read.");
        } else {
            debug!(window = %pass.task.window, repeats = tally.repeats, ?elapsed, "Window read.");
        }
        self.expire().await?;
        Ok(Then::GoOn)
    }

    fn commit(&self, pass: &Pass, page: Page) -> PageCommit {
        let fetched_at = wall_clock();
        let now = self.clock.now();
        PageCommit {
            origin: Arc::clone(&self.origin),
            pass: pass.id,
            age: self.plan.age(pass.task.sweep),
            window: pass.task.window,
            begun_at: pass.begun_at.unwrap_or(pass.planned_at),
            scope: pass.scope.clone(),
            counts: pass.counts.clone(),
            page,
            fetched_at,
            skew: self.clock.skew(fetched_at),
            now,
            drained: Vec::new(),
        }
    }

    /// Asks for a page and splits it; none when told to stop meanwhile.
    async fn fetch(&self, window: Window, token: Option<&PageToken>) -> Option<Fetched> {
        let mut stop = self.stop.clone();
        let fetched = tokio::select! {
            fetched = self.source.fetch(window, token) => fetched,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        let split = |response| self.source.split(&response).map(|page| (response, page));
        Some(fetched.and_then(split))
    }

    fn tell_time(&mut self, pass: &mut Pass, response: &Response) {
        let sent = self.observe(response);
        self.start = self.start.or(Some(self.clock.at(self.started)));
        // A resumed pass began with its first page, before the stop.
        pass.begun_at = pass.begun_at.or(Some(sent.unwrap_or(pass.planned_at)));
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
        if moved.abs() > 60_000 {
            warn!(seconds = moved / 1000, "The server's clock is not where it was expected.");
        }
        Some(sent)
    }

    /// Asks for the second before the watermark, for the sake of the server's clock alone.
    async fn probe(&mut self) -> Result<Then, store::Error> {
        let end = self.plan.watermark(0);
        let window = Window { start: end - 1, end };
        let task = Task { sweep: 0, window };
        let mut pass = Pass::new(task, self.clock.now(), self.source.token_scope());
        match self.fetch(window, None).await {
            None => Ok(Then::End(End::Stopped)),
            Some(Err(err)) => {
                let then = self.failed(pass, err).await;
                self.suspended[0] = None;
                then
            }
            Some(Ok((response, _))) => {
                self.tell_time(&mut pass, &response);
                self.recovered().await?;
                Ok(Then::GoOn)
            }
        }
    }

    async fn wait_until(&mut self, until: Millis, now: Millis) {
        // Often enough to notice a server whose clock runs faster than ours.
        let most = self.settings.rules.poll_every;
        let wait = (until - now).clamp(10, most.max(10));
        self.pause_for(Duration::from_millis(wait.unsigned_abs())).await;
    }

    async fn expire(&mut self) -> Result<(), store::Error> {
        if self.expired_at.is_some_and(|at| at.elapsed() < EXPIRE_EVERY) {
            return Ok(());
        }
        match self.store.expire(Arc::clone(&self.origin), self.clock.now()).await {
            // There is more to forget than one transaction should.
            Ok(forgotten) if forgotten >= EXPIRED_AT_ONCE as usize => Ok(()),
            Err(err) if !err.is_full() => Err(err),
            _ => {
                self.expired_at = Some(Instant::now());
                Ok(())
            }
        }
    }
}
