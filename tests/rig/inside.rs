//! A daemon inside the test's own process: the real one, set up in a moment, with any preset.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use siemferry::config::Config;
use siemferry::daemon::{Daemon, Mode, Outcome, SourceParts};
use siemferry::sim::oracle::{self, Report};
use siemferry::sim::{Api, Options};
use siemferry::source::preset::Preset;
use siemferry::source::rest;
use siemferry::store::inspect::{self, Status};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::rig::{TOKEN, read};

/// How long a run may stand still.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many daemons run side by side.
pub const AT_ONCE: usize = 16;

/// What a daemon is made of, and the directory that it leaves its state and its output in.
pub struct Inside {
    dir: TempDir,
    preset: Preset,
    source: rest::Config,
    config: Config,
}

impl Inside {
    /// One source that `preset` describes, and one file; `source` holds more of the source's keys.
    pub fn new(api: &Api, preset: Preset, source: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = api.url();
        let source =
            toml::from_str(&format!("base_url = \"{url}\"\ntoken = \"{TOKEN}\"\n{source}"));
        let path = |name| dir.path().join(name).display().to_string();
        let config = toml::from_str(&format!(
            "state = {{ dir = {:?} }}\nown_events.enabled = false\nsinks.archive.file = {{ path = {:?} }}",
            path("state"),
            path("events.ndjson"),
        ));
        Self { preset, source: source.unwrap(), config: config.unwrap(), dir }
    }

    /// A new daemon, on whatever the last one left.
    pub fn daemon(&self) -> Daemon {
        let keep = self.config.seen.keep;
        let parts = SourceParts::new("acme", &self.source, self.preset.clone(), keep).unwrap();
        Daemon::from_parts(&self.config, vec![parts]).unwrap()
    }

    /// Runs once, to the end, whatever that is.
    pub async fn run(&self) -> Outcome {
        self.run_for(PATIENCE).await
    }

    /// Runs once, and stops in the middle when the API has been asked so often in all.
    pub async fn run_until(&self, api: &Api, requests: u64) {
        let (stop, stopped) = watch::channel(false);
        let run = self.daemon().run(Mode::Once(PATIENCE), stopped);
        let interrupt = async {
            api.wait_for_requests(requests).await;
            stop.send_replace(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // It may have been done before.
            ended = run => drop(ended.unwrap()),
            () = interrupt => {}
        }
    }

    /// Runs once, until nothing has moved for so long.
    pub async fn run_for(&self, patience: Duration) -> Outcome {
        let (_stop, stopped) = watch::channel(false);
        self.daemon().run(Mode::Once(patience), stopped).await.unwrap()
    }

    /// Runs once, and expects it to succeed.
    pub async fn run_well(&self) {
        assert_eq!(self.run().await, Outcome::Done);
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("events.ndjson")
    }

    pub fn status(&self) -> Status {
        inspect::status(&self.config.state.dir, 0).unwrap()
    }

    /// Compares the file with what the API holds.
    pub fn compare(&self, api: &Api) -> Report {
        oracle::compare(&api.truth(), read(&self.file()).lines())
    }
}

/// A simulated API that serves as long as the runtime lives.
pub async fn serve(options: Options) -> Api {
    let (api, serve) = Api::bind(options).await.unwrap();
    tokio::spawn(serve);
    api
}

/// Waits for something on this thread alone.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Does something with each of many, a few at a time: most of them wait most of the time.
pub fn for_each<T: Send>(each: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
    let each = Mutex::new(each);
    let next = || each.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(one) = next() {
                    work(one);
                }
            });
        }
    });
}

/// Panics with the first examples unless every event is in the file once.
#[track_caller]
pub fn assert_exact(what: &str, report: &Report) {
    assert!(report.is_exact(), "{what}: {report}\n{report:?}");
}
