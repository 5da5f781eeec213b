//! `siemferry demo`: the real pipeline against the simulated Keeper API, in one process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::DateTime;
use tokio::sync::watch;

use super::{FAILED, Failure, print, runtime, signals};
use crate::config::Config;
use crate::daemon::{Daemon, Mode};
use crate::event::Millis;
use crate::sim::{self, Api, Clock, Options, SimEvent, oracle};
use crate::store::{self, inspect, wall_clock};
use crate::units::{Span, Start};
use crate::{log, own, secret, sink, source};

/// How many events the week holds.
const EVENTS: usize = 20_000;

const DAY: Millis = 86_400_000;

/// In this time half of what is left of the week passes.
const HALVED_EVERY: Duration = Duration::from_millis(400);

/// How often the display is drawn, and the simulated clock set.
const TICK: Duration = Duration::from_millis(50);

/// A demo that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(clap::Args)]
pub struct Arguments {
    /// Go on with new events after the week, until Ctrl-C.
    #[arg(long)]
    keep_running: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    // The simulated clock leaps: what a daemon would warn of is what is shown here.
    log::init(&log::Config { level: log::Level::Error, ..log::Config::default() });
    let failed = |text: String| Failure::new(FAILED, text, None);
    let dir = tempfile::Builder::new()
        .prefix("siemferry-demo-")
        .tempdir()
        .map_err(|err| failed(format!("create a temporary directory: {err}")))?
        .keep();
    let stop = signals::stop()?;
    let runtime = runtime()?;
    let stopped = stop.clone();
    let shown = runtime.block_on(play(&dir, arguments.keep_running, stop));
    runtime.shutdown_background();
    let report = shown.map_err(|err| Failure::of(FAILED, &err))?;
    if report.is_complete() || *stopped.borrow() {
        return Ok(());
    }
    Err(failed(format!("the demo ended before all was delivered: {report}")))
}

async fn play(
    dir: &Path,
    keep_running: bool,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<oracle::Report> {
    let end = wall_clock().div_euclid(1000) * 1000;
    let options = Options {
        clock: Clock::Manual(end - 6 * DAY),
        page_cap: 500,
        token_lifetime: None,
        ..Options::default()
    };
    let token = options.token.clone();
    let (api, serve) = Api::bind(options).await?;
    api.add_all(sim::week(1, end, EVENTS));
    let config = configuration(dir, &api, &token, end - 7 * DAY);
    let file = dir.join("events.ndjson");
    print(&format!(
        "A simulated Keeper API at {}, a week of events; they go to\n{}\n",
        api.url(),
        file.display()
    ));
    let daemon = Daemon::new(&config)?;
    let (halt, stopped) = (watch::Sender::new(false), stop.clone());
    let show = async {
        let shown = Show { api: &api, dir, end, stop, keep_running }.run().await;
        halt.send_replace(true);
        shown
    };
    let both = async { tokio::join!(daemon.run(Mode::Forever, halt.subscribe()), show) };
    let (ran, shown) = tokio::select! {
        both = both => both,
        served = serve => anyhow::bail!("the simulated API ended: {served:?}"),
    };
    ran?;
    shown?;
    let lines = BufReader::new(File::open(&file)?).lines().collect::<Result<Vec<_>, _>>()?;
    let report = oracle::compare(&api.truth(), &lines);
    let status = inspect::status(&dir.join("state"), wall_clock())?;
    let late = status.sources.values().map(|source| source.late).sum();
    // What was not read when it was stopped is not lost.
    let missing = if *stopped.borrow() { "not read yet" } else { "lost" };
    print(&table(&report, missing, late, &file, &lines));
    Ok(report)
}

fn configuration(dir: &Path, api: &Api, token: &str, start: Millis) -> Config {
    let rest = source::rest::Config {
        base_url: Some(api.url()),
        token: Some(secret::Config::plain(token)),
        start: Start::At(start.div_euclid(1000)),
        poll_every: Span::milliseconds(100),
        page_size: NonZeroU32::new(500).expect("500 is not zero"),
        ..source::rest::Config::default()
    };
    let file =
        sink::file::Config { path: dir.join("events.ndjson"), ..sink::file::Config::default() };
    Config {
        // The table is to count the events of the API alone.
        own_events: own::Config { enabled: false },
        state: store::Config { dir: dir.join("state") },
        sources: BTreeMap::from([("demo".into(), source::Config::Keeper(rest))]),
        sinks: BTreeMap::from([("archive".into(), sink::Config::File(file))]),
        ..Config::default()
    }
}

/// Lets the week pass, and shows how it goes.
struct Show<'a> {
    api: &'a Api,
    dir: &'a Path,
    end: Millis,
    stop: watch::Receiver<bool>,
    keep_running: bool,
}

impl Show<'_> {
    async fn run(mut self) -> anyhow::Result<()> {
        self.week().await;
        if self.keep_running && !*self.stop.borrow() {
            self.go_on().await;
        }
        show("");
        Ok(())
    }

    /// The week passes ever slower, so that late events arrive where the head has been already;
    /// then a day at once, in which the sweeps find them.
    async fn week(&mut self) {
        let begun = Instant::now();
        let to_come = i32::try_from((self.end - self.api.now()) / 1000).unwrap_or(i32::MAX);
        let settled_at = self.api.world().settled_at(self.end).unwrap_or(self.end);
        let all_read = settled_at + DAY + 3_600_000;
        while !*self.stop.borrow() && begun.elapsed() < PATIENCE {
            let halvings = begun.elapsed().as_secs_f64() / HALVED_EVERY.as_secs_f64();
            let left = f64::from(to_come) * 0.5_f64.powf(halvings);
            if left > 1.0 {
                let left = Duration::from_secs_f64(left).as_millis();
                self.api.set_now(self.end - Millis::try_from(left).unwrap_or(0));
            } else {
                self.api.set_now(all_read);
            }
            if self.draw() && self.api.now() >= all_read {
                return;
            }
            self.tick().await;
        }
    }

    /// New events now and then, at the pace of the world.
    async fn go_on(&mut self) {
        let (begun, from) = (Instant::now(), self.api.now());
        let now = || from + Millis::try_from(begun.elapsed().as_millis()).unwrap_or(0);
        let mut made = 0;
        while !*self.stop.borrow() {
            self.api.set_now(now());
            if begun.elapsed().as_millis() / 400 > made {
                made += 1;
                self.api.add(SimEvent::new(now(), "open_record"));
            }
            self.draw();
            self.tick().await;
        }
        // What was made last is still to be read.
        let asked = Instant::now();
        while !self.draw() && asked.elapsed() < Duration::from_secs(10) {
            self.api.set_now(now());
            tokio::time::sleep(TICK).await;
        }
    }

    /// True when every event is delivered.
    fn draw(&self) -> bool {
        let status = inspect::status(&self.dir.join("state"), wall_clock());
        // The store may not have been made yet.
        let Ok(status) = status else { return false };
        let Some(sink) = status.sinks.get("archive") else { return false };
        let now = DateTime::from_timestamp_millis(self.api.now()).unwrap_or_default();
        let late = status.sources.get("demo").map_or(0, |source| source.late);
        let held = self.api.world().len() as u64;
        let (now, delivered) = (now.format("%a %d %b %H:%M"), sink.delivered);
        show(&format!("{now}  {delivered} of {held} events delivered, {late} of them late"));
        delivered >= held
    }

    async fn tick(&mut self) {
        let _ = tokio::time::timeout(TICK, self.stop.wait_for(|stop| *stop)).await;
    }
}

/// Draws the line of progress anew. Nothing depends on it.
fn show(text: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{text}");
        let _ = stderr.flush();
    }
}

fn table(
    report: &oracle::Report,
    missing: &str,
    late: u64,
    file: &Path,
    lines: &[String],
) -> String {
    let mut out = String::new();
    let rows = [
        ("events the API holds", report.held),
        ("delivered", report.delivered),
        (missing, report.lost),
        ("doubled", report.doubled),
    ];
    for (label, number) in rows {
        let _ = writeln!(out, "{label:<22}{number:>7}");
    }
    let _ = writeln!(out, "found late, by sweeps {late:>7}");
    let _ = writeln!(out, "file                  {}", file.display());
    for line in lines.iter().take(3) {
        let _ = writeln!(out, "{}", log::escape(line));
    }
    out
}
