//! `siemferry backfill`: asks the daemon to read a span again from the API.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::Utc;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CONFIGURATION, ConfigPath, FAILED, Failure, print, status};
use crate::config::Config;
use crate::position::{Window, rfc3339};
use crate::store::requests::{self, Backfill, RequestId};
use crate::store::{self, wall_clock};
use crate::units::Start;

/// Read a span of time again from an API: events that are new come to every sink, the others are
/// known and left out.
///
/// For events that appeared in the API later than the oldest `resweep`, and for the time before
/// `start`. The daemon begins within a second or two, behind the newest events and before everything
/// else; without a daemon the next `run` or `run --once` does it. A backfill survives restarts, and
/// those of one source are done one after the other.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Ask for a span to be read again.
    ///
    /// On a terminal its progress is shown as long as a daemon is at it.
    #[command(after_help = EXAMPLE)]
    Start(Begin),
    /// List all backfills, the newest last, with their progress.
    List(List),
    /// Cancel a backfill that waits or is running; what it has read stays.
    Cancel(Cancel),
}

const EXAMPLE: &str = "\
Example: what laptops that were offline over Christmas sent in January.
  siemferry backfill start --source acme --from 2025-12-24 --to 2026-01-02";

#[derive(Args)]
struct Begin {
    #[command(flatten)]
    config: ConfigPath,

    /// The source, as the configuration names it.
    #[arg(long, value_name = "NAME")]
    source: String,

    /// Where the span begins: a date or time such as 2026-01-02, 2026-01-02T03:04:05Z, or so long
    /// ago, such as 30d.
    #[arg(long, value_name = "TIME")]
    from: Start,

    /// Where it ends, in the same way; now unless given.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    to: Start,

    /// Agree that events from before the time that is remembered (`seen.keep`) are delivered again,
    /// each with the same uid.
    #[arg(long)]
    again: bool,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    config: ConfigPath,

    /// Print JSON, for other programs.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Cancel {
    #[command(flatten)]
    config: ConfigPath,

    /// Its number, as `list` shows it.
    id: RequestId,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::Start(arguments) => start(arguments),
        Verb::List(arguments) => list(arguments),
        Verb::Cancel(arguments) => cancel(arguments),
    }
}

fn start(arguments: &Begin) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let window = window(arguments, &config)?;
    let asked = requests::ask_backfill(
        &config.state,
        &arguments.source,
        window,
        arguments.again,
        wall_clock(),
    );
    let id = asked.map_err(|err| {
        let code =
            if matches!(err, store::Error::Forgotten { .. }) { CONFIGURATION } else { FAILED };
        Failure::new(code, format!("ask for a backfill: {err}"), err.hint())
    })?;
    let is_running = store::is_in_use(&config.state.dir);
    let when = if is_running { "the daemon begins at once" } else { "the next `run` does it" };
    print(&format!("backfill {id} of source `{}`, {window}: {when}\n", arguments.source));
    if is_running && std::io::stderr().is_terminal() {
        watch(&config.state.dir, id)?;
    }
    Ok(())
}

fn window(arguments: &Begin, config: &Config) -> Result<Window, Failure> {
    let wrong = |text: String, hint: String| Failure::new(CONFIGURATION, text, Some(hint));
    let name = &arguments.source;
    if !config.sources.contains_key(name) {
        let known: Vec<&str> = config.sources.keys().map(String::as_str).collect();
        let hint = format!("the sources are `{}`", known.join("`, `"));
        return Err(wrong(format!("find source `{name}`: there is none of this name"), hint));
    }
    let now = Utc::now();
    let window = Window { start: arguments.from.second(now), end: arguments.to.second(now) };
    if window.end > now.timestamp() {
        let text = format!("ask for a backfill: `--to` {} is in the future", rfc3339(window.end));
        return Err(wrong(text, "name a time that is past".into()));
    }
    if window.start >= window.end {
        let text = format!("ask for a backfill: the span {window} holds nothing");
        return Err(wrong(text, "`--from` must be before `--to`".into()));
    }
    Ok(window)
}

fn list(arguments: &List) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let backfills = requests::backfills(&config.state.dir).map_err(|err| failed(&err))?;
    if arguments.json {
        let rows: Vec<Value> = backfills.iter().map(as_json).collect();
        print(&format!("{}\n", json!(rows)));
        return Ok(());
    }
    let now = wall_clock();
    let mut out = String::new();
    for backfill in &backfills {
        let Backfill { id, source, window, state, events, repeats, .. } = backfill;
        let _ = write!(out, "backfill {id} of source `{source}`, {window}: {state}");
        let _ =
            writeln!(out, ", {}, {events} new events, {repeats} known", progress(backfill, now));
    }
    print(if out.is_empty() { "no backfills\n" } else { &out });
    Ok(())
}

fn as_json(backfill: &Backfill) -> Value {
    let Backfill { id, source, window, position, state, events, repeats, .. } = backfill;
    json!({
        "id": id, "source": source, "from": rfc3339(window.start), "to": rfc3339(window.end),
        "state": state, "position": rfc3339(*position), "events": events, "repeats": repeats,
    })
}

fn cancel(arguments: &Cancel) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let id = arguments.id;
    let found = requests::cancel_backfill(&config.state.dir, id, wall_clock());
    match found.map_err(|err| failed(&err))? {
        Some(backfill) if backfill.is_open() => {
            print(&format!("backfill {id} is cancelled; what it has read stays\n"));
            Ok(())
        }
        Some(backfill) => Err(Failure::new(
            FAILED,
            format!("cancel backfill {id}: it is {} already", backfill.state),
            None,
        )),
        None => Err(Failure::new(
            FAILED,
            format!("cancel backfill {id}: there is none of this number"),
            Some("`siemferry backfill list` shows those that there are".into()),
        )),
    }
}

fn failed(err: &store::Error) -> Failure {
    Failure::new(FAILED, err.to_string(), status::hint(err))
}

/// How much is read, how fast, and how long it will take; a span is the measure, for nobody knows
/// how many events there are.
fn progress(backfill: &Backfill, now: i64) -> String {
    let whole = backfill.window.seconds().max(1);
    let read =
        if backfill.state == "done" { whole } else { backfill.position - backfill.window.start };
    let mut text = format!("{} % read", read * 100 / whole);
    let begun = backfill.begun_at.filter(|_| backfill.state == "running");
    if let Some(millis) = begun.map(|begun| (now - begun).max(1)) {
        let records = i64::try_from(backfill.events + backfill.repeats).unwrap_or(i64::MAX);
        let _ = write!(text, ", {} events/s", records.saturating_mul(1000) / millis);
        if read > 0 {
            let left = millis.saturating_mul(whole - read) / read / 1000;
            let _ = write!(text, ", {}:{:02}:{:02} left", left / 3600, left / 60 % 60, left % 60);
        }
    }
    text
}

/// Shows the progress until it is over. Whoever ends this ends the watching alone.
fn watch(dir: &Path, id: RequestId) -> Result<(), Failure> {
    const EVERY: Duration = Duration::from_millis(500);
    const PATIENCE: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    eprintln!("Ctrl-C ends this display, not the backfill.");
    loop {
        let all = requests::backfills(dir).map_err(|err| failed(&err))?;
        let Some(backfill) = all.into_iter().find(|backfill| backfill.id == id) else {
            return Ok(());
        };
        eprint!("\r\x1b[K{}: {}", backfill.state, progress(&backfill, wall_clock()));
        // There is no other place to complain to.
        let _ = std::io::stderr().flush();
        let waits_in_vain = begun.elapsed() > PATIENCE && !store::is_in_use(dir);
        if !backfill.is_open() || waits_in_vain {
            eprintln!();
            print(&format!(
                "{}, {} new events, {} known\n",
                backfill.state, backfill.events, backfill.repeats
            ));
            return Ok(());
        }
        std::thread::sleep(EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backfill(state: &str, position: i64) -> Backfill {
        Backfill {
            id: 1,
            source: "acme".into(),
            window: Window { start: 1000, end: 9000 },
            position,
            state: state.into(),
            events: 300,
            repeats: 700,
            asked_at: 0,
            begun_at: Some(5000),
        }
    }

    #[test]
    fn progress_tells_rate_and_time_left_while_something_is_read() {
        let waiting = Backfill { begun_at: None, ..backfill("waiting", 1000) };

        assert_eq!(progress(&waiting, 9000), "0 % read");
        assert_eq!(progress(&backfill("running", 1000), 9000), "0 % read, 250 events/s");
        let half = progress(&backfill("running", 3000), 15_000);
        assert_eq!(half, "25 % read, 100 events/s, 0:00:30 left");
        let long = progress(&backfill("running", 1001), 10_000);
        assert_eq!(long, "0 % read, 200 events/s, 11:06:35 left");
        // A clock that went back meanwhile.
        assert!(progress(&backfill("running", 3000), 0).starts_with("25 % read, "));
        assert_eq!(progress(&backfill("cancelled", 3000), 15_000), "25 % read");
        // The rest is the head's.
        assert_eq!(progress(&backfill("done", 8998), 15_000), "100 % read");
    }
}
