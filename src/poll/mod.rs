//! The poller: reads one source, window after window, and commits what it finds.
//!
//! Promises that a position never moves without the events it accounts for, and that no failure
//! ends the reading: it waits, halves, begins again, or is blocked until somebody acts.
//! Knows neither the API's shape nor the sinks.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use crate::event::{Millis, Page};
use crate::health::{Health, State};
use crate::own::OwnEvent;
use crate::position::Second;
use crate::source::{FetchError, Response, Source};
use crate::store::requests::RequestId;
use crate::store::sources::{self, EXPIRED_AT_ONCE, Origin, Registered};
use crate::store::{self, Store, wall_clock};
use crate::units::Bytes;

mod backfill;
mod caps;
mod clock;
mod hold;
mod news;
mod pace;
mod pass;
pub mod plan;
mod read;
mod trouble;

use caps::Caps;
use clock::ServerClock;
use hold::Hold;
use pace::Pace;
use pass::Pass;
use plan::{HEAD, Next, Plan, Reader, Rules, Task};
use trouble::Told;

/// When a first failure is tried again, or somewhat sooner.
const SOON: Duration = Duration::from_millis(250);

/// What goes on is told again so late.
const TELL_AGAIN: Duration = Duration::from_secs(3600);

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
    /// How long ago a source that was never read begins, in seconds; none when it is a date, or was
    /// read before.
    pub ago: Option<i64>,
    /// After how long nothing new is silence, in milliseconds; 0 for never.
    pub silence_after: Millis,
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
    readers: Vec<Reading>,
    /// The backfill that is under way.
    backfill: Option<RequestId>,
    /// Rings when the command line has asked for something.
    requests: watch::Receiver<u64>,
    /// The reader that is asked first: the head, unless its last attempt failed.
    turn: Reader,
    pace: Mutex<Pace>,
    caps: Caps,
    health: Health,
    told: Told,
    /// Records that could not be read, of which nobody was told yet.
    unreadable: u64,
    told_unreadable: Option<Instant>,
    told_halved: Option<Instant>,
    /// Since when it is blocked, as far as our own events have told.
    blocked_since: Option<Instant>,
    /// Our own events that are to be told.
    news: Vec<OwnEvent>,
    started: Instant,
    /// The server's time at the start of this run, once an answer has told it.
    start: Option<Millis>,
    dateless: bool,
    expired_at: Option<Instant>,
}

/// What a poller knows of one of its readers besides the plan.
struct Reading {
    reader: Reader,
    /// The pass that failed or made way for the head, to be gone on with.
    suspended: Option<Pass>,
    hold: Hold,
    /// True while it is held for what passes by itself, page by page.
    may_pass: bool,
    /// How many pages of its window a pass has come to at most.
    furthest: u64,
}

impl Reading {
    /// A page was committed: further than ever, it is no use to wait as long as before.
    fn progress(&mut self, pass: &Pass) {
        if pass.tally.pages > self.furthest {
            self.furthest = pass.tally.pages;
            self.hold.shorten();
        }
        if self.may_pass {
            self.hold.end();
        }
    }

    /// A window was drained.
    fn end(&mut self) {
        (self.furthest, self.may_pass) = (0, false);
        self.hold.end();
    }
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
        let reading = |reader| Reading {
            reader,
            suspended: None,
            hold: Hold::new(seed.rotate_left(7)),
            may_pass: false,
            furthest: 0,
        };
        let mut requests = store.requests();
        // What was asked for before the start is as good as what is asked for from now on.
        requests.mark_changed();
        Self {
            readers: plan.readers().map(reading).collect(),
            clock: ServerClock::new(wall_clock, stored.skew),
            health: Health::new(SOON, Duration::from_secs(300), seed),
            caps: Caps::default(),
            origin: Arc::new(origin),
            backfill: None,
            turn: HEAD,
            pace: Mutex::new(Pace::new()),
            told: Told::default(),
            unreadable: 0,
            told_unreadable: None,
            told_halved: None,
            blocked_since: None,
            news: Vec::new(),
            started: Instant::now(),
            start: None,
            dateless: false,
            expired_at: None,
            requests,
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
            self.take_up_backfill().await?;
            if let Then::End(end) = self.step().await? {
                return Ok(end);
            }
        }
    }

    /// Does what is next, or waits until something is.
    async fn step(&mut self) -> Result<Then, store::Error> {
        let now = self.planning_time();
        let ready = |reader| self.reading(reader).hold.is_over();
        match self.plan.next(now, self.turn, self.eager(now), ready) {
            Next::Read(task) => {
                let pass = self.pass_for(task, now);
                self.drain(pass).await
            }
            Next::Wait(_) if self.must_probe(now) => self.probe().await,
            Next::Wait(_) if self.is_ahead(now) && self.reading(HEAD).hold.is_over() => {
                self.ahead_of_server(now).await
            }
            Next::Wait(_) if self.settings.once && self.held_until().is_none() => {
                Ok(Then::End(End::Done))
            }
            Next::Wait(until) => {
                self.wait_until(until, now).await;
                Ok(Then::GoOn)
            }
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().expect("no panic while held")
    }

    fn reading(&self, reader: Reader) -> &Reading {
        let found = self.readers.iter().find(|reading| reading.reader == reader);
        found.expect("the plan has no other readers")
    }

    fn reading_mut(&mut self, reader: Reader) -> &mut Reading {
        let found = self.readers.iter_mut().find(|reading| reading.reader == reader);
        found.expect("the plan has no other readers")
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
        self.start.is_none() && (behind || self.settings.once) && self.reading(HEAD).hold.is_over()
    }

    fn pass_for(&mut self, task: Task, now: Millis) -> Pass {
        let suspended = self.reading_mut(task.reader).suspended.take();
        // A pass between the pages of another may raise copies that the other had met.
        for other in self.readers.iter_mut().filter_map(|reading| reading.suspended.as_mut()) {
            other.is_whole &= !other.task.window.meets(task.window);
        }
        let scope = self.source.token_scope();
        if let Some(pass) = suspended {
            // A token of other pages would show records twice; and what the last reader's pass has
            // counted too low, no later one mends.
            let is_spoilt = self.plan.is_last(task.reader) && !pass.is_whole;
            let is_sound = pass.token.is_none() || (pass.scope == scope && !is_spoilt);
            return if is_sound { pass } else { pass.restarted(scope) };
        }
        let stored =
            self.stored.unfinished.iter().position(|pass| self.is_of(pass.reader, task.reader));
        let Some(stored) = stored.map(|index| self.stored.unfinished.remove(index)) else {
            return Pass::new(task, now, scope);
        };
        let is_other = stored.scope != scope || stored.window.start != task.window.start;
        if self.plan.is_last(task.reader) || is_other {
            info!(window = %task.window, "Begins an interrupted window again.");
            // What was interrupted may be too long to be read between two interruptions.
            self.plan.shorten(task.reader, stored.window.seconds() / 2);
            let window = self.plan.window(task.reader, now).unwrap_or(task.window);
            return Pass::new(Task { window, ..task }, now, scope);
        }
        info!(window = %stored.window, "Goes on with an interrupted window.");
        Pass::resumed(task.reader, stored, now)
    }

    fn is_of(&self, stored: sources::Reader, reader: Reader) -> bool {
        match stored {
            sources::Reader::Sweep(age) => {
                self.plan.sweep_of(age).map(Reader::Sweep) == Some(reader)
            }
            sources::Reader::Backfill(id) => {
                reader == Reader::Backfill && self.backfill == Some(id)
            }
        }
    }

    async fn wait_until(&mut self, until: Millis, now: Millis) {
        // Often enough to notice a server whose clock runs faster than ours.
        let most = self.settings.rules.poll_every;
        let wait = (until - now).clamp(10, most.max(10));
        let wait = Instant::now() + Duration::from_millis(wait.unsigned_abs());
        let held =
            self.held_until().unwrap_or(wait).max(Instant::now() + Duration::from_millis(10));
        tokio::select! {
            () = tokio::time::sleep_until(wait.min(held)) => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
            _ = self.requests.changed() => self.requests.mark_changed(),
        }
    }

    /// When the first of the readers that have failed may try again.
    fn held_until(&self) -> Option<Instant> {
        self.readers.iter().filter_map(|reading| reading.hold.until()).min()
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
