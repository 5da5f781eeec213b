//! The simulated API on a thread of its own, the real binary as a child, and a directory for both.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use siemferry::sim::oracle::{self, Report};
use siemferry::sim::{Api, Options};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What the simulated API takes as a token, unless a test says otherwise.
pub const TOKEN: &str = "simulated-token";

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A simulated API that serves until it is dropped.
pub struct Sim {
    pub api: Api,
    runtime: Option<Runtime>,
}

impl Sim {
    pub fn start(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (api, serve) = runtime.block_on(Api::bind(options)).unwrap();
        runtime.spawn(serve);
        Self { api, runtime: Some(runtime) }
    }

    /// Waits until the API has been asked so often in all.
    pub fn wait_for_requests(&self, count: u64) {
        self.wait_for_requests_for(count, PATIENCE);
    }

    /// The same, where that takes long.
    pub fn wait_for_requests_for(&self, count: u64, patience: Duration) {
        let runtime = self.runtime.as_ref().unwrap();
        let asked =
            async { tokio::time::timeout(patience, self.api.wait_for_requests(count)).await };
        runtime.block_on(asked).expect("the requests come in time");
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// A directory with a configuration, a state and an output.
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// One source and one file sink; `source` and `rest` are more lines of the configuration.
    pub fn new(base_url: &str, source: &str, rest: &str) -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        let config = format!(
            "[state]\ndir = \"{}\"\n[log]\nlevel = \"debug\"\n\
             [own_events]\nenabled = false\n\
             [sources.acme.keeper]\nbase_url = \"{base_url}\"\ntoken = {{ env = \"RIG_TOKEN\" }}\n{source}\n\
             [sinks.archive.file]\npath = \"{}\"\n{rest}\n",
            home.state().display(),
            home.file().display(),
        );
        home.write("siemferry.toml", &config);
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn file(&self) -> PathBuf {
        self.path("events.ndjson")
    }

    pub fn log(&self) -> PathBuf {
        self.path("log")
    }

    /// A command with this home's configuration; its logs go to a file.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_siemferry"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path("siemferry.toml"))
            .env("RIG_TOKEN", TOKEN)
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon.
    pub fn spawn(&self) -> Running {
        self.spawn_as(self.command(&["run"]))
    }

    /// Starts the daemon by a command of its own.
    pub fn spawn_as(&self, mut command: Command) -> Running {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Running(child)
    }

    /// Runs once, to the end.
    pub fn run_once(&self) -> Output {
        self.command(&["run", "--once", "--patience", "20s"]).output().unwrap()
    }

    /// Runs once, and expects it to succeed.
    pub fn run_once_well(&self) {
        let output = self.run_once();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn status(&self) -> Value {
        let output = self.command(&["status", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn lines(&self) -> Vec<String> {
        read(&self.file()).lines().map(str::to_owned).collect()
    }

    /// How often the logs say this.
    pub fn logged(&self, sentence: &str) -> usize {
        read(&self.log()).lines().filter(|line| line.contains(sentence)).count()
    }

    /// Compares the file with what the API holds.
    pub fn compare(&self, api: &Api) -> Report {
        oracle::compare(&api.truth(), self.lines())
    }
}

/// A daemon that is killed when it is dropped.
pub struct Running(Child);

impl Running {
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the daemon ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is true.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The text of a file; nothing when it does not exist yet.
pub fn read(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
