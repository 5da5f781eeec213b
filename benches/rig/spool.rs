//! What the benchmarks of the sinks share: a spool that is filled once, and one run for each sink.

use std::path::Path;

use siemferry::sim::Rng;

use crate::rig::{self, END, Measured, SPAN};

/// The uids are drawn, so that compression has as much to do as with real ones.
pub fn serve(events: i64) {
    let mut random = Rng::new(4);
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut uids = |count: usize| -> Vec<String> {
        let mut uid = || (0..22).map(|_| char::from(*random.pick(letters))).collect();
        (0..count).map(|_| uid()).collect()
    };
    let (records, shared_folders, folders) = (uids(20_000), uids(200), uids(2_000));
    rig::serve((0..events).map(move |number| {
        let uids = [&records, &shared_folders, &folders].map(|uids| random.pick(uids).as_str());
        rig::event(number, events, uids)
    }));
}

/// Reads all events into the spool, where they stay.
pub fn fill(home: &Path, url: &str, events: u64) {
    let sink = format!("[sinks.fill.file]\npath = \"{}/fill.ndjson\"\n", home.display());
    rig::run_once(home, &(rig::config(home, url, END - SPAN) + KEEP + &sink));
    let lines = std::fs::read(home.join("fill.ndjson")).expect("it was written");
    assert_eq!(memchr::memchr_iter(b'\n', &lines).count() as u64, events);
}

/// One run with one sink, which the store does not know yet; it begins with the oldest event kept.
pub fn once(home: &Path, api: &str, name: &str, sink: &str) -> Measured {
    // Another source than that of the events: its first window begins where it ends.
    let config = rig::config(home, api, END).replace("sources.bench", "sources.idle");
    let sink = format!("[sinks.{name}.{sink}\nfrom = \"kept\"\n");
    rig::run_once(home, &(config + KEEP + &sink))
}

const KEEP: &str = "[spool]\nkeep = \"7d\"\n";

pub fn header() {
    println!(
        "{:<26}{:>12}{:>22}{:>14}{:>10}{:>10}",
        "median of runs", "events/s", "from to", "CPU s/million", "peak MiB", "MB sent"
    );
}

/// What is in the middle of the runs.
#[derive(Clone, Copy)]
pub struct Medians {
    pub events_a_second: f64,
    /// Seconds for a million events.
    pub cpu: f64,
}

#[allow(clippy::cast_precision_loss)]
pub fn row(label: &str, events: u64, runs: &[Measured], sent: u64) -> Medians {
    let middle = |of: fn(&Measured) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        (all[0], all[all.len() / 2], all[all.len() - 1])
    };
    let events = events as f64;
    let (fastest, wall, slowest) = middle(|run| run.wall.as_secs_f64());
    let spread = format!("{:.0} to {:.0}", events / slowest, events / fastest);
    let (_, cpu, _) = middle(|run| run.cpu);
    let (_, _, peak) = middle(|run| run.peak_mib);
    let medians = Medians { events_a_second: events / wall, cpu: cpu * 1e6 / events };
    println!(
        "{label:<26}{:>12.0}{spread:>22}{:>14.2}{peak:>10.1}{:>10}",
        medians.events_a_second,
        medians.cpu,
        sent / 1_000_000
    );
    medians
}
