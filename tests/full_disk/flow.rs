//! Events that flow as long as they are asked for.

use siemferry::sim::{self, Clock, Options};

use crate::rig::{Home, Running, Sim, eventually};

const DAY: i64 = 86_400_000;
const END: i64 = 1_790_000_000_000;

/// A tenant whose week goes by with the requests, and a home that reads it.
pub struct Flow {
    pub sim: Sim,
    pub home: Home,
    events: usize,
}

impl Flow {
    /// So many events, and a little of the week with each request; `spool` is that section.
    pub fn new(events: usize, spool: &str) -> Self {
        let options = Options {
            clock: Clock::Manual(END - 7 * DAY + 1),
            page_cap: 50,
            token_lifetime: None,
            ..Options::default()
        };
        let sim = Sim::start(options);
        sim.api.add_all(sim::week(17, END, events));
        let clock = sim.api.clone();
        let step = 7 * DAY / i64::try_from(events / 2).unwrap();
        sim.api.fault_when(move |_| {
            if clock.now() < END {
                clock.advance(step);
            }
            None
        });
        let start = chrono::DateTime::from_timestamp_millis(END - 7 * DAY).unwrap().to_rfc3339();
        let source = format!(
            "start = \"{start}\"\npoll_every = \"10ms\"\nmax_window = \"12h\"\nresweep = [\"1h\", \"13h\"]"
        );
        let rest = format!("batch = {{ events = 100 }}\n[spool]\n{spool}");
        let home = Home::new(&sim.api.url(), &source, &rest);
        Self { sim, home, events }
    }

    /// Waits until some more events have arrived.
    #[track_caller]
    pub fn wait_for_some(&self) {
        let enough = self.home.lines().len() + self.events / 20;
        eventually("events arrive", || self.home.lines().len() >= enough);
    }

    /// True when the source waits for room, as `status` shows it.
    pub fn is_paused(&self) -> bool {
        self.source().0 == "paused"
    }

    /// Lets the rest of the week pass, and expects everything once, by the same process.
    #[track_caller]
    pub fn ends_well(&self, daemon: &mut Running) {
        self.settle_time();
        eventually("all arrive", || {
            assert!(!daemon.has_ended(), "{}", self.said());
            self.home.lines().len() >= self.events
        });
        self.is_exact();
        assert!(!daemon.has_ended(), "{}", self.said());
    }

    /// Lets the rest of the week pass, and reads it once.
    #[track_caller]
    pub fn ends_well_once(&self) {
        self.settle_time();
        self.home.run_once_well();
        self.is_exact();
    }

    pub fn settle_time(&self) {
        self.sim.api.mend();
        let settled_at = self.sim.api.world().settled_at(END).unwrap_or(END);
        self.sim.api.set_now(settled_at.max(END) + DAY);
    }

    #[track_caller]
    pub fn is_exact(&self) {
        let report = self.home.compare(&self.sim.api);
        assert!(report.is_exact(), "{report}\n{report:?}\n{}", self.said());
        assert_eq!(report.held, self.events);
    }

    /// The log, for whom a test fails.
    pub fn said(&self) -> String {
        let log = crate::rig::read(&self.home.log());
        let lines: Vec<_> = log.lines().filter(|line| !line.contains("DEBUG")).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// What `status` says of the source: its state and its last error.
    pub fn source(&self) -> (String, String) {
        let status = self.home.status();
        let source = &status["sources"]["acme"];
        let text = |key: &str| source[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("last_error"))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}
