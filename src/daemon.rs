//! Starts a poller per source and a courier per sink, and stops them in order.
//!
//! The only place that spawns tasks, so that a stop can wait for all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument as _, info, info_span, warn};

use crate::config::Config;
use crate::deliver::{Courier, Orders};
use crate::poll::plan::Rules;
use crate::poll::{self, Poller};
use crate::position::Second;
use crate::sink;
use crate::source::Source;
use crate::source::preset::Preset;
use crate::source::rest::{self, RestSource};
use crate::store::Store;
use crate::store::sources::Origin;
use crate::units::{Bytes, Span, Start};

mod life;
mod notice;
mod opening;
mod tasks;
mod trial;

use life::Life;
use opening::Opening;
use tasks::Tasks;
pub use tasks::stopped;
pub use trial::{Trial, try_sink};

/// How long the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Until it is told to stop.
    Forever,
    /// Until every source is read up to the start and every sink is settled, or nothing has moved
    /// for this long.
    Once(Duration),
}

/// How a run has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// Reading once, something still waits.
    Waiting(Vec<Waiting>),
}

/// What still waits, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which source or sink, and its last error.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Sources and sinks set up and ready to run.
pub struct Daemon {
    store: Store,
    sources: Vec<SourceParts>,
    sinks: BTreeMap<String, sink::Config>,
    spool_max: Bytes,
    spool_keep: Span,
    grace: Duration,
    own_events: bool,
    reopen: watch::Receiver<()>,
}

/// A source with what its poller needs to know.
pub struct SourceParts {
    /// Its name.
    pub name: String,
    /// The API.
    pub source: Box<dyn Source>,
    /// The API's name, tenant and way of repeating; the key comes from the store.
    pub origin: Origin,
    /// How far the first run reads back.
    pub start: Second,
    /// How long ago that is, in seconds; none when it is a date.
    pub ago: Option<i64>,
    /// The ages of its sweeps, the head's 0 first.
    pub ages: Vec<i64>,
    /// How often and how much is asked for.
    pub rules: Rules,
    /// After how long nothing new is silence, in milliseconds; 0 for never.
    pub silence_after: i64,
}

impl SourceParts {
    /// Sets up a source that a preset describes.
    ///
    /// # Errors
    /// When its secret or a certificate cannot be read.
    pub fn new(
        name: &str,
        config: &rest::Config,
        preset: Preset,
        seen_keep: Span,
    ) -> anyhow::Result<Self> {
        let origin = origin(name, config, &preset, seen_keep);
        let source = RestSource::new(config, preset)?;
        let rules = Rules {
            poll_every: millis(config.poll_every),
            max_window: millis(config.max_window) / 1000,
            lag: millis(config.lag),
        };
        Ok(Self {
            name: name.to_owned(),
            origin,
            start: config.start.second(Utc::now()),
            ago: match config.start {
                Start::Ago(span) => Some(millis(span) / 1000),
                Start::At(_) => None,
            },
            ages: std::iter::once(0).chain(config.resweep.iter().map(|age| millis(*age))).collect(),
            rules,
            silence_after: millis(config.silence_after),
            source: Box::new(source),
        })
    }
}

/// What the store needs to know of a configured source; the key comes from the store.
pub fn origin(name: &str, config: &rest::Config, preset: &Preset, seen_keep: Span) -> Origin {
    Origin {
        id: 0,
        name: name.to_owned(),
        api: preset.name.clone(),
        tenant: config.tenant.clone().unwrap_or_else(|| name.to_owned()),
        repeats: preset.repeats(),
        seen_keep: millis(seen_keep),
    }
}

fn millis(span: Span) -> i64 {
    i64::try_from(span.duration().as_millis()).unwrap_or(i64::MAX)
}

impl Daemon {
    /// Sets everything up and opens the store. Nothing is fetched or delivered yet.
    ///
    /// # Errors
    /// When a secret cannot be read, or the state directory cannot be used.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Self::from_parts(config, Self::sources(config)?)
    }

    /// As [`Daemon::new`], but on a full disk it waits for room, reading once only as long as the
    /// mode says. None when told to stop meanwhile.
    ///
    /// # Errors
    /// As those of [`Daemon::new`].
    pub async fn when_there_is_room(
        config: &Config,
        mode: Mode,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<Option<Self>> {
        // A command that gives a token may take its time.
        let (of_sources, mut stopping) = (config.clone(), stop.clone());
        let set_up = tokio::task::spawn_blocking(move || Self::sources(&of_sources));
        let sources = tokio::select! {
            sources = set_up => sources??,
            _ = stopping.wait_for(|stop| *stop) => return Ok(None),
        };
        let store = Opening::new(mode, stop).of(async || Store::open(&config.state)).await?;
        Ok(store.map(|store| Self::on(store, config, sources)))
    }

    fn sources(config: &Config) -> anyhow::Result<Vec<SourceParts>> {
        let mut sources = Vec::new();
        for (name, source) in &config.sources {
            let parts = SourceParts::new(name, source.rest(), source.preset(), config.seen.keep)
                .with_context(|| format!("set up source `{name}`"))?;
            sources.push(parts);
        }
        Ok(sources)
    }

    /// As [`Daemon::new`], with these sources instead of the configured ones: any preset will do.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn from_parts(config: &Config, sources: Vec<SourceParts>) -> anyhow::Result<Self> {
        Ok(Self::on(Store::open(&config.state)?, config, sources))
    }

    fn on(store: Store, config: &Config, sources: Vec<SourceParts>) -> Self {
        store.keep_free(config.spool.reserve);
        store.announce_when(config.own_events.enabled);
        Self {
            store,
            sources,
            sinks: config.sinks.clone(),
            spool_max: config.spool.max_bytes,
            spool_keep: config.spool.keep,
            grace: config.shutdown.grace.duration(),
            own_events: config.own_events.enabled,
            reopen: watch::channel(()).1,
        }
    }

    /// Has every sink open its file again whenever `asked` changes.
    pub fn reopen_when(self, asked: watch::Receiver<()>) -> Self {
        Self { reopen: asked, ..self }
    }

    /// The store, to look at beside the run.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Runs until `stop` becomes true, or as the mode says.
    ///
    /// # Errors
    /// When the store fails in a way that waiting does not mend.
    pub async fn run(self, mode: Mode, stop: watch::Receiver<bool>) -> anyhow::Result<Outcome> {
        let (store, grace) = (self.store.clone(), self.grace);
        let finish = watch::Sender::new(false);
        let halt = watch::Sender::new(false);
        let mut tasks = Tasks::default();
        let mut opening = Opening::new(mode, stop.clone());
        let halt_couriers = watch::Sender::new(false);
        self.start_couriers(&mut tasks, &halt_couriers, &finish, &mut opening).await?;
        let mut life = Life::begin(&store, &mut opening).await?;
        opening.let_go();
        self.start_janitors(&mut tasks, &halt);
        self.start_pollers(&mut tasks, &halt, mode, &mut opening).await?;
        info!(version = env!("CARGO_PKG_VERSION"), "Started.");
        let outcome = tasks.watch(&mut life, mode, stop, &finish).await;
        let end = Instant::now() + grace;
        halt.send_replace(true);
        life.take_leave(&outcome, grace).await;
        halt_couriers.send_replace(true);
        if tokio::time::timeout_at(end, tasks.end()).await.is_err() {
            // The store accounts for what hangs: it is sent again at the next start.
            warn!(?grace, "Something did not end in time and is abandoned.");
        }
        let _ = tokio::time::timeout(grace, life.end()).await;
        let closing = store.clone();
        let closed = tokio::task::spawn_blocking(move || closing.close());
        let _ = tokio::time::timeout(grace, closed).await;
        info!("Stopped.");
        outcome
    }

    async fn start_couriers(
        &self,
        tasks: &mut Tasks,
        halt: &watch::Sender<bool>,
        finish: &watch::Sender<bool>,
        opening: &mut Opening,
    ) -> anyhow::Result<()> {
        for (name, config) in &self.sinks {
            let from_kept = config.from() == sink::From::Kept;
            let register = async || self.store.register_sink(name, from_kept).await;
            let Some(mut registered) = opening.of(register).await? else { return Ok(()) };
            if registered.is_new {
                info!(sink = name, from = ?config.from(), "New sink.");
            }
            let (stop, finish) = (halt.subscribe(), finish.subscribe());
            let orders = Orders { stop, finish, reopen: self.reopen.clone() };
            let bookmark = registered.bookmark.take();
            let courier = Courier::new(
                name,
                config.build(),
                config.delivery(),
                self.store.clone(),
                &registered,
                orders,
            );
            let span = info_span!("courier", sink = %name);
            let (name, mut gate) = (name.clone(), opening.gate());
            tasks.couriers.spawn(
                async move {
                    let _ = gate.wait_for(|is_open| *is_open).await;
                    let ended = courier.run(bookmark).await;
                    (name, ended.map_err(anyhow::Error::from))
                }
                .instrument(span),
            );
        }
        Ok(())
    }

    fn start_janitors(&self, tasks: &mut Tasks, halt: &watch::Sender<bool>) {
        let store = || self.store.clone();
        tasks.janitor.spawn(tasks::prune(store(), self.spool_keep, halt.subscribe()));
        tasks.janitor.spawn(tasks::look_beside(store(), halt.subscribe()));
        if self.own_events {
            tasks.janitor.spawn(notice::notice(store(), self.spool_max, halt.subscribe()));
        }
    }

    async fn start_pollers(
        self,
        tasks: &mut Tasks,
        halt: &watch::Sender<bool>,
        mode: Mode,
        opening: &mut Opening,
    ) -> anyhow::Result<()> {
        for parts in self.sources {
            let SourceParts { name, source, mut origin, start, ago, ages, rules, .. } = parts;
            let register = async || self.store.register_source(&name, &ages, start).await;
            let Some(stored) = opening.of(register).await? else { return Ok(()) };
            origin.id = stored.id;
            let once = mode != Mode::Forever;
            let ago = ago.filter(|_| stored.is_new);
            let (spool_max, silence_after) = (self.spool_max, parts.silence_after);
            let settings = poll::Settings { rules, spool_max, once, ago, silence_after };
            tasks.reading.insert(name.clone());
            let store = self.store.clone();
            let poller = Poller::new(source, store, origin, stored, settings, halt.subscribe());
            let span = info_span!("poller", source = %name);
            tasks.pollers.spawn(
                async move { (name, poller.run().await.map_err(anyhow::Error::from)) }
                    .instrument(span),
            );
        }
        Ok(())
    }
}
