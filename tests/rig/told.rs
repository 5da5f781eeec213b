//! What the binary told when it ended, without the paths and numbers that differ from run to run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use siemferry::sim::{self, Clock, Options};

use crate::rig::{Home, Sim};

const DAY: i64 = 86_400_000;
const END: i64 = 1_767_000_000_000;

/// An API with a week of events, all of them visible; tokens last.
pub fn week_of(events: usize) -> Sim {
    let clock = Clock::Manual(END + 2 * DAY);
    let sim =
        Sim::start(Options { clock, page_cap: 50, token_lifetime: None, ..Options::default() });
    sim.api.add_all(sim::week(3, END, events));
    let settled_at = sim.api.world().settled_at(END).unwrap_or(END);
    sim.api.set_now(settled_at.max(END) + 2 * DAY);
    sim
}

/// A home that reads all of that week.
pub fn home_of(sim: &Sim) -> Home {
    home_at(&sim.api.url())
}

/// A home that reads the same span of another API.
pub fn home_at(base_url: &str) -> Home {
    let start = chrono::DateTime::from_timestamp_millis(END - 8 * DAY).unwrap().to_rfc3339();
    let source = format!("start = \"{start}\"\npoll_every = \"50ms\"\nresweep = [\"24h\"]");
    Home::new(base_url, &source, "")
}

/// How a run has ended.
#[derive(Debug)]
pub struct Told {
    pub code: Option<i32>,
    /// The lines `error:` and `hint:`, and what follows them.
    pub said: String,
    /// The lines of the log.
    pub log: String,
    pub stdout: String,
}

impl Told {
    #[track_caller]
    pub fn is(&self, code: i32, said: &str) {
        assert_eq!(self.said, said, "{}", self.log);
        assert_eq!(self.code, Some(code), "{}", self.log);
    }
}

impl Home {
    /// What the command says, with `HOME` in place of this home's directory.
    pub fn told(&self, mut command: Command) -> Told {
        self.telling(&command.output().unwrap())
    }

    fn telling(&self, output: &Output) -> Told {
        let text = |bytes: &[u8]| {
            let home = self.path("").display().to_string();
            String::from_utf8_lossy(bytes).replace(home.trim_end_matches('/'), "HOME")
        };
        let stderr = text(&output.stderr);
        let lines = |is_log: bool| {
            let lines = stderr.split_inclusive('\n');
            lines.filter(|line| line.starts_with('{') == is_log).collect::<String>()
        };
        let code = output.status.code();
        Told { code, said: lines(false), log: lines(true), stdout: text(&output.stdout) }
    }

    /// A run that gives up soon.
    pub fn impatient(&self) -> Told {
        self.told(self.command(&["run", "--once", "--patience", "2s"]))
    }

    /// The last error of the source, as `status` shows it; none before there is a store.
    pub fn source_error(&self) -> Option<String> {
        let told = self.told(self.command(&["status", "--json"]));
        let status: Value = serde_json::from_str(&told.stdout).ok()?;
        status["sources"]["acme"]["last_error"].as_str().map(str::to_owned)
    }

    pub fn config(&self) -> PathBuf {
        self.path("siemferry.toml")
    }

    /// Changes the configuration; returns it as it was.
    pub fn edit(&self, from: &str, to: &str) -> String {
        let before = std::fs::read_to_string(self.config()).unwrap();
        assert!(before.contains(from), "{before}");
        self.write("siemferry.toml", &before.replace(from, to));
        before
    }

    /// Runs once, and expects every event of the API in the file, once.
    #[track_caller]
    pub fn delivers_all(&self, sim: &Sim) {
        self.run_once_well();
        self.holds_all(sim);
    }

    #[track_caller]
    pub fn holds_all(&self, sim: &Sim) {
        let report = self.compare(&sim.api);
        assert!(report.is_exact() && report.held > 0, "{report}");
    }
}

/// The same command as an unprivileged user.
pub fn as_somebody(command: &Command) -> Command {
    wrapped("setpriv", &["--reuid=65534", "--regid=65534", "--clear-groups", "--"], command)
}

/// The same command where `dir` is a file system that cannot be written to.
pub fn read_only(dir: &Path, command: &Command) -> Command {
    let mount = r#"mount -t tmpfs -o ro,mode=700 none "$0" && exec "$@""#;
    let dir = dir.to_str().unwrap();
    wrapped("unshare", &["--mount", "sh", "-c", mount, dir], command)
}

/// The same command by way of another program.
pub fn wrapped(program: &str, before: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(program);
    outer.args(before).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        outer.env(name, value.expect("a test sets variables"));
    }
    outer
}
