//! What the daemon has started: waited for, and ended together.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::error;

use super::life::Life;
use super::{Mode, Outcome, Waiting};
use crate::log::chain;
use crate::store::{Prune, Shortage, Store, wall_clock};
use crate::units::{Bytes, Span};
use crate::{deliver, poll};

/// How often delivered pages that are old enough are removed.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// How often is looked for what other processes have committed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What to do about a failure that may pass.
const LATER: &str =
    "it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`";

/// What runs.
#[derive(Default)]
pub(super) struct Tasks {
    pub pollers: JoinSet<(String, anyhow::Result<poll::End>)>,
    pub couriers: JoinSet<(String, anyhow::Result<deliver::End>)>,
    pub janitor: JoinSet<()>,
    /// The sources that are not done.
    pub reading: BTreeSet<String>,
    /// The sources and sinks that were blocked, reading once.
    blocked: Vec<Waiting>,
}

impl Tasks {
    /// Waits for the stop, for a failure, or, reading once, for the end.
    pub async fn watch(
        &mut self,
        life: &mut Life,
        mode: Mode,
        mut stop: watch::Receiver<bool>,
        finish: &watch::Sender<bool>,
    ) -> anyhow::Result<Outcome> {
        let store = &life.store().clone();
        let mut progress = Progress::new(store);
        loop {
            let patience = match mode {
                Mode::Forever => Duration::from_secs(3600),
                Mode::Once(patience) => patience,
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(stopped(mode)),
                err = store.breakdown() => return Err(err.into()),
                Some(ended) = self.pollers.join_next() => {
                    self.poller_ended(ended)?;
                    if self.pollers.is_empty() {
                        // Before the couriers are told to finish, so that every sink gets it.
                        life.say_stopped(self.reason(), None).await;
                        finish.send_replace(true);
                    }
                }
                Some(ended) = self.couriers.join_next() => {
                    self.courier_ended(ended)?;
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

    /// How a single run has read, for its own event.
    fn reason(&self) -> &'static str {
        if self.blocked.is_empty() { "done" } else { "waiting" }
    }

    fn poller_ended(
        &mut self,
        ended: Result<(String, anyhow::Result<poll::End>), tokio::task::JoinError>,
    ) -> anyhow::Result<()> {
        let (name, ended) = ended?;
        self.reading.remove(&name);
        let ended = ended.with_context(|| format!("read source `{name}`"))?;
        if let poll::End::Blocked { error, hint } = ended {
            self.blocked
                .push(Waiting { text: format!("source `{name}` is blocked: {error}"), hint });
        }
        Ok(())
    }

    fn courier_ended(
        &mut self,
        ended: Result<(String, anyhow::Result<deliver::End>), tokio::task::JoinError>,
    ) -> anyhow::Result<()> {
        let (name, ended) = ended?;
        let ended = ended.with_context(|| format!("deliver to sink `{name}`"))?;
        if let deliver::End::Blocked { error, hint, pending } = ended {
            let text = says("sink", &name, "blocked", pending, Some(&error));
            self.blocked.push(Waiting { text, hint });
        }
        Ok(())
    }

    /// Names what has not come to its end, for nothing has moved for too long.
    async fn waiting(&mut self, store: &Store) -> anyhow::Result<Vec<Waiting>> {
        let mut waiting = std::mem::take(&mut self.blocked);
        // Of the disk alone: what the sinks have not taken is told as theirs.
        let shortage = store.shortage(Bytes::new(u64::MAX));
        let status = store.status().await?;
        let reading = status.sources.iter().filter(|(_, source)| source.state != "ok");
        waiting.extend(reading.map(|(name, source)| {
            let (state, error) = (&source.state, source.last_error.as_deref());
            let hint =
                shortage.as_ref().filter(|_| state == "paused").map_or(LATER, Shortage::hint);
            Waiting { text: says("source", name, state, 0, error), hint: Some(hint.into()) }
        }));
        let pending =
            status.sinks.iter().filter(|(_, sink)| sink.pending > 0 || sink.state != "ok");
        waiting.extend(pending.map(|(name, sink)| {
            let (state, error) = (&sink.state, sink.last_error.as_deref());
            let text = says("sink", name, state, sink.pending, error);
            Waiting { text, hint: Some(LATER.into()) }
        }));
        if waiting.is_empty()
            && let Some(shortage) = shortage
        {
            // Too full even for the source's own state.
            let hint = Some(shortage.hint().into());
            waiting.push(Waiting { text: shortage.to_string(), hint });
        }
        let silent = self
            .reading
            .iter()
            .filter(|name| status.sources.get(*name).is_none_or(|source| source.state == "ok"));
        waiting.extend(silent.map(|name| {
            let text = format!("source `{name}` has not read everything, and no page comes");
            Waiting { text, hint: Some(LATER.into()) }
        }));
        if waiting.is_empty() {
            let text = "nothing moves any more".into();
            waiting.push(Waiting { text, hint: Some(LATER.into()) });
        }
        Ok(waiting)
    }

    pub async fn end(&mut self) {
        while let Some(ended) = self.pollers.join_next().await {
            report(ended.map(|(name, ended)| (name, ended.map(drop))));
        }
        while let Some(ended) = self.couriers.join_next().await {
            report(ended.map(|(name, ended)| (name, ended.map(drop))));
        }
        self.janitor.shutdown().await;
    }
}

/// How a run ends that is told to stop: a single one has not done what it was asked for.
pub fn stopped(mode: Mode) -> Outcome {
    match mode {
        Mode::Forever => Outcome::Done,
        Mode::Once(_) => {
            let text = "stopped before everything was read and delivered".into();
            let hint = Some("the next run goes on where this one stopped".into());
            Outcome::Waiting(vec![Waiting { text, hint }])
        }
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
        Ok((name, Err(err))) => error!(name, error = chain(err.as_ref()), "Ended with an error."),
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

/// Notices what the command line has committed beside the daemon.
pub(super) async fn look_beside(store: Store, mut halt: watch::Receiver<bool>) {
    while tokio::time::timeout(LOOK_EVERY, halt.changed()).await.is_err() {
        // A store that fails for good ends the pollers and couriers, who say so.
        let _ = store.look_beside().await;
    }
}

pub(super) async fn prune(store: Store, keep: Span, mut halt: watch::Receiver<bool>) {
    let keep = i64::try_from(keep.duration().as_millis()).unwrap_or(i64::MAX);
    loop {
        if tokio::time::timeout(PRUNE_EVERY, halt.changed()).await.is_ok() {
            return;
        }
        let before = wall_clock().saturating_sub(keep);
        while store.prune(Prune::FetchedBefore(before)).await.is_ok_and(|freed| freed > 0) {}
    }
}
