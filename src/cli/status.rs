//! `siemferry status`: reads the store beside the daemon.

use std::fmt::Write as _;
use std::io::ErrorKind;

use super::{ConfigPath, FAILED, Failure, print};
use crate::log::escape;
use crate::store::inspect::{self, Sink, Source, Status};
use crate::store::{self, wall_clock};

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
    let status = inspect::status(&config.state.dir, wall_clock())
        .map_err(|err| Failure::new(FAILED, err.to_string(), hint(&err)))?;
    if arguments.json {
        let json = serde_json::to_string(&status).expect("a status is plain data");
        print(&format!("{json}\n"));
    } else {
        print(&table(&status));
    }
    Ok(())
}

/// What to do, for somebody who only wants to look.
pub(super) fn hint(err: &store::Error) -> Option<String> {
    let kind = match err {
        store::Error::Io { source, .. } => Some(source.kind()),
        _ => None,
    };
    match kind {
        Some(ErrorKind::NotFound) => {
            Some("start `siemferry run` with this configuration first".to_owned())
        }
        Some(ErrorKind::PermissionDenied) => {
            Some("ask as root, or as the user that runs siemferry".to_owned())
        }
        _ => err.hint(),
    }
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
        "sink   {name}: {}, {} delivered, {} pending, {} suspects, {} dead letters, {} ambiguous, \
         settled up to {}",
        sink.state,
        sink.delivered,
        sink.pending,
        sink.suspects,
        sink.dead_letters,
        sink.ambiguous,
        sink.settled_seq
    );
    put_error(out, sink.last_error.as_deref());
}

fn put_error(out: &mut String, error: Option<&str>) {
    if let Some(error) = error {
        let _ = writeln!(out, "       last error: {}", escape(error));
    }
}
