//! `siemferry status`: reads the store beside the daemon.

use std::fmt::Write as _;

use super::{ConfigPath, FAILED, Failure, print};
use crate::log::escape;
use crate::store::inspect::{self, Sink, Source, Status};
use crate::store::wall_clock;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigPath,

    /// Print JSON, for other programs.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let status = inspect::status(&config.state.dir, wall_clock()).map_err(|err| {
        let first = || "start `siemferry run` with this configuration first".to_owned();
        let hint = if err.is_missing() { Some(first()) } else { err.hint() };
        Failure::new(FAILED, err.to_string(), hint)
    })?;
    if arguments.json {
        let json = serde_json::to_string(&status).expect("a status is plain data");
        print(&format!("{json}\n"));
    } else {
        print(&table(&status));
    }
    Ok(())
}

fn table(status: &Status) -> String {
    let mut out = String::new();
    for (name, source) in &status.sources {
        put_source(&mut out, name, source);
    }
    for (name, sink) in &status.sinks {
        put_sink(&mut out, name, sink);
    }
    let spool = &status.spool;
    let _ = writeln!(out, "spool  {} bytes, {} events", spool.bytes, spool.events);
    out
}

fn put_source(out: &mut String, name: &str, source: &Source) {
    let _ = writeln!(
        out,
        "source {name}: {}, read up to {} ({} s behind), {} events, {} repeats, {} late",
        source.state,
        source.watermark,
        source.lag_seconds,
        source.events,
        source.repeats,
        source.late
    );
    for sweep in &source.sweeps {
        let _ = writeln!(out, "       again after {}: up to {}", sweep.age, sweep.watermark);
    }
    put_error(out, source.last_error.as_deref());
}

fn put_sink(out: &mut String, name: &str, sink: &Sink) {
    let _ = writeln!(
        out,
        "sink   {name}: {}, {} delivered, {} pending, {} dead letters, settled up to {}",
        sink.state, sink.delivered, sink.pending, sink.dead_letters, sink.settled_seq
    );
    put_error(out, sink.last_error.as_deref());
}

fn put_error(out: &mut String, error: Option<&str>) {
    if let Some(error) = error {
        let _ = writeln!(out, "       last error: {}", escape(error));
    }
}
