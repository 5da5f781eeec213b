//! Starts a poller per source and a courier per sink, and stops them in order.
//!
//! The only place that spawns tasks, so that a stop can wait for all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{Instrument as _, error, info, info_span, warn};

use crate::config::Config;
use crate::deliver::{self, Courier, Orders};
use crate::poll::plan::Rules;
use crate::poll::{self, Poller};
use crate::position::Second;
use crate::sink;
use crate::source::Source;
use crate::source::preset::Preset;
use crate::source::rest::{self, RestSource};
use crate::store::sources::Origin;
use crate::store::{Prune, Store, wall_clock};
use crate::units::{Bytes, Span};

/// How often delivered pages that are old enough are removed.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

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
    /// The ages of its sweeps, the head's 0 first.
    pub ages: Vec<i64>,
    /// How often and how much is asked for.
    pub rules: Rules,
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
        let millis = |span: Span| i64::try_from(span.duration().as_millis()).unwrap_or(i64::MAX);
        let source = RestSource::new(config, preset)?;
        let origin = Origin {
            id: 0,
            name: name.to_owned(),
            api: source.api().to_owned(),
            tenant: config.tenant.clone().unwrap_or_else(|| name.to_owned()),
            repeats: source.repeats(),
            seen_keep: millis(seen_keep),
        };
        let rules = Rules {
            poll_every: millis(config.poll_every),
            max_window: millis(config.max_window) / 1000,
            lag: millis(config.lag),
        };
        Ok(Self {
            name: name.to_owned(),
            origin,
            start: config.start.second(Utc::now()),
            ages: std::iter::once(0).chain(config.resweep.iter().map(|age| millis(*age))).collect(),
            rules,
            source: Box::new(source),
        })
    }
}

impl Daemon {
    /// Sets everything up and opens the store. Nothing is fetched or delivered yet.
    ///
    /// # Errors
    /// When a secret cannot be read, or the state directory cannot be used.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let mut sources = Vec::new();
        for (name, source) in &config.sources {
            let parts = SourceParts::new(name, source.rest(), source.preset(), config.seen.keep)
                .with_context(|| format!("set up source `{name}`"))?;
            sources.push(parts);
        }
        Self::from_parts(config, sources)
    }

    /// As [`Daemon::new`], with these sources instead of the configured ones: any preset will do.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn from_parts(config: &Config, sources: Vec<SourceParts>) -> anyhow::Result<Self> {
        Ok(Self {
            store: Store::open(&config.state)?,
            sources,
            sinks: config.sinks.clone(),
            spool_max: config.spool.max_bytes,
            spool_keep: config.spool.keep,
            grace: config.shutdown.grace.duration(),
        })
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
        self.start_couriers(&mut tasks, &halt, &finish).await?;
        self.start_pollers(&mut tasks, &halt, mode).await?;
        info!(version = env!("CARGO_PKG_VERSION"), "Started.");
        let outcome = tasks.watch(&store, mode, stop, &finish).await;
        halt.send_replace(true);
        if tokio::time::timeout(grace, tasks.end()).await.is_err() {
            // The store accounts for what hangs: it is sent again at the next start.
            warn!(?grace, "Something did not end in time and is abandoned.");
        }
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
    ) -> anyhow::Result<()> {
        for (name, config) in &self.sinks {
            let from_kept = config.from() == sink::From::Kept;
            let mut registered = self.store.register_sink(name, from_kept).await?;
            if registered.is_new {
                info!(sink = name, from = ?config.from(), "New sink.");
            }
            let orders = Orders { stop: halt.subscribe(), finish: finish.subscribe() };
            let bookmark = registered.bookmark.take();
            let courier = Courier::new(
                config.build(),
                config.batch(),
                self.store.clone(),
                &registered,
                orders,
            );
            let span = info_span!("courier", sink = %name);
            let name = name.clone();
            tasks.couriers.spawn(
                async move {
                    let ended = courier.run(bookmark).await;
                    (name, ended.map_err(anyhow::Error::from))
                }
                .instrument(span),
            );
        }
        let (store, keep) = (self.store.clone(), self.spool_keep);
        tasks.janitor.spawn(prune(store, keep, halt.subscribe()));
        Ok(())
    }

    async fn start_pollers(
        self,
        tasks: &mut Tasks,
        halt: &watch::Sender<bool>,
        mode: Mode,
    ) -> anyhow::Result<()> {
        for parts in self.sources {
            let SourceParts { name, source, mut origin, start, ages, rules } = parts;
            let stored = self.store.register_source(&name, &ages, start).await?;
            origin.id = stored.id;
            let once = mode != Mode::Forever;
            let settings = poll::Settings { rules, spool_max: self.spool_max, once };
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

/// What runs.
#[derive(Default)]
struct Tasks {
    pollers: JoinSet<(String, anyhow::Result<poll::End>)>,
    couriers: JoinSet<(String, anyhow::Result<deliver::End>)>,
    janitor: JoinSet<()>,
    /// The sources that were blocked, reading once.
    blocked: Vec<Waiting>,
}

impl Tasks {
    /// Waits for the stop, for a failure, or, reading once, for the end.
    async fn watch(
        &mut self,
        store: &Store,
        mode: Mode,
        mut stop: watch::Receiver<bool>,
        finish: &watch::Sender<bool>,
    ) -> anyhow::Result<Outcome> {
        let mut progress = Progress::new(store);
        loop {
            let patience = match mode {
                Mode::Forever => Duration::from_secs(3600),
                Mode::Once(patience) => patience,
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(Outcome::Done),
                Some(ended) = self.pollers.join_next() => {
                    self.poller_ended(ended)?;
                    if self.pollers.is_empty() {
                        finish.send_replace(true);
                    }
                }
                Some(ended) = self.couriers.join_next() => {
                    let (name, ended) = ended?;
                    ended.with_context(|| format!("deliver to sink `{name}`"))?;
                    if self.couriers.is_empty() {
                        let blocked = std::mem::take(&mut self.blocked);
                        return Ok(if blocked.is_empty() { Outcome::Done } else { Outcome::Waiting(blocked) });
                    }
                }
                () = progress.stalled(patience) => {
                    if mode != Mode::Forever {
                        return Ok(Outcome::Waiting(self.waiting(store).await?));
                    }
                }
            }
        }
    }

    fn poller_ended(
        &mut self,
        ended: Result<(String, anyhow::Result<poll::End>), tokio::task::JoinError>,
    ) -> anyhow::Result<()> {
        let (name, ended) = ended?;
        let ended = ended.with_context(|| format!("read source `{name}`"))?;
        if let poll::End::Blocked { error, hint } = ended {
            self.blocked
                .push(Waiting { text: format!("source `{name}` is blocked: {error}"), hint });
        }
        Ok(())
    }

    /// Names what has not come to its end, for nothing has moved for too long.
    async fn waiting(&mut self, store: &Store) -> anyhow::Result<Vec<Waiting>> {
        let mut waiting = std::mem::take(&mut self.blocked);
        let status = store.status().await?;
        let reading = status.sources.iter().filter(|(_, source)| source.state != "ok");
        waiting.extend(reading.map(|(name, source)| {
            let (state, error) = (&source.state, source.last_error.as_deref());
            Waiting { text: says("source", name, state, 0, error), hint: None }
        }));
        let pending =
            status.sinks.iter().filter(|(_, sink)| sink.pending > 0 || sink.state != "ok");
        waiting.extend(pending.map(|(name, sink)| {
            let (state, error) = (&sink.state, sink.last_error.as_deref());
            Waiting { text: says("sink", name, state, sink.pending, error), hint: None }
        }));
        if waiting.is_empty() {
            waiting.push(Waiting { text: "nothing moves any more".into(), hint: None });
        }
        Ok(waiting)
    }

    async fn end(&mut self) {
        while let Some(ended) = self.pollers.join_next().await {
            report(ended.map(|(name, ended)| (name, ended.map(drop))));
        }
        while let Some(ended) = self.couriers.join_next().await {
            report(ended.map(|(name, ended)| (name, ended.map(drop))));
        }
        self.janitor.shutdown().await;
    }
}

fn says(what: &str, name: &str, state: &str, pending: u64, error: Option<&str>) -> String {
    let pending = if pending > 0 { format!(", {pending} events wait") } else { String::new() };
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    format!("{what} `{name}` is {state}{pending}{error}")
}

fn report(ended: Result<(String, anyhow::Result<()>), tokio::task::JoinError>) {
    match ended {
        Ok((_, Ok(()))) => {}
        Ok((name, Err(err))) => error!(name, error = format!("{err:#}"), "Ended with an error."),
        Err(err) => error!(error = %err, "A task failed."),
    }
}

/// Notices when neither a commit nor a settle has happened for a while.
struct Progress {
    committed: watch::Receiver<u64>,
    settled: watch::Receiver<u64>,
    since: Instant,
}

impl Progress {
    fn new(store: &Store) -> Self {
        Self { committed: store.moved(), settled: store.settled(), since: Instant::now() }
    }

    /// Returns when nothing has moved for `patience`. Dropped half-way, it forgets nothing.
    async fn stalled(&mut self, patience: Duration) {
        loop {
            let left = patience.saturating_sub(self.since.elapsed());
            let moved = async {
                tokio::select! {
                    _ = self.committed.changed() => {}
                    _ = self.settled.changed() => {}
                }
            };
            if tokio::time::timeout(left, moved).await.is_err() {
                self.since = Instant::now();
                return;
            }
            self.since = Instant::now();
        }
    }
}

async fn prune(store: Store, keep: Span, mut halt: watch::Receiver<bool>) {
    let keep = i64::try_from(keep.duration().as_millis()).unwrap_or(i64::MAX);
    loop {
        if tokio::time::timeout(PRUNE_EVERY, halt.changed()).await.is_ok() {
            return;
        }
        let before = wall_clock().saturating_sub(keep);
        while store.prune(Prune::FetchedBefore(before)).await.is_ok_and(|freed| freed > 0) {}
    }
}
