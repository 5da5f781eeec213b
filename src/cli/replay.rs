//! `siemferry replay`: sends events that are still kept to one sink again.

use std::time::{Duration, Instant};

use chrono::Utc;
use clap::Args;

use super::{CONFIGURATION, ConfigPath, FAILED, Failure, known_sink, print, status};
use crate::config::Config;
use crate::event::Millis;
use crate::position::rfc3339;
use crate::store::replay::{Added, Found, Replay, Wanted};
use crate::store::{self};
use crate::units::{Bytes, Start};

/// Send events that the spool still keeps to one sink again, though it has had them.
///
/// For a destination that has lost what it was given. The events are chosen by the time they
/// happened, or were received if they tell none; each keeps its uid, so that a destination that
/// knows uids (Elasticsearch) refuses what it still has. Copies of them are put behind everything
/// that waits: a running daemon delivers them at once, otherwise the next `run` does. How far the
/// spool reaches back is up to `spool.keep`; from before that, `siemferry backfill start --again`
/// has the API read again, for all sinks.
///
/// Left out are events that the sink has not had yet, what was sent again before, and siemferry's
/// own events unless `--source siemferry` asks for them. A replay that is interrupted has added a
/// part: asked again, it adds that part again.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigPath,

    /// The sink that is to have them, as the configuration names it.
    #[arg(long, value_name = "NAME")]
    sink: String,

    /// Where the span begins: a date or time such as 2026-01-02, 2026-01-02T03:04:05Z, or so long
    /// ago, such as 6h.
    #[arg(long, value_name = "TIME")]
    from: Start,

    /// Where it ends, in the same way; there is no end unless given.
    #[arg(long, value_name = "TIME")]
    to: Option<Start>,

    /// Only what this source has read; `siemferry` for siemferry's own events.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

const EXAMPLE: &str = "\
Example: the index of this morning was deleted.
  siemferry replay --sink search --from 2026-01-02T06:00:00Z --to 2026-01-02T12:00:00Z";

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let sink = known_sink(&config, &arguments.sink)?;
    let route = sink.delivery().route;
    let takes = |event: &crate::event::Event<'_>| route.takes(event);
    let (from, to) = span(arguments)?;
    let source = arguments.source.as_deref();
    let wanted = Wanted { sink: &arguments.sink, source, from, to, takes: &takes };
    let dir = &config.state.dir;
    let replay = Replay::open(dir, wanted).map_err(|err| failed(&err))?;
    let mut progress = Progress::new();
    let mut found = replay
        .find(&mut |percent| progress.tell(|| format!("{percent} % of the spool looked through")))
        .map_err(|err| failed(&err))?;
    let reach = reach(&found, from);
    if found.events == 0 {
        let hint = "the spool keeps what is delivered for `spool.keep`, if there is room; `siemferry backfill start --again` reads the API again";
        let text = format!("send events to sink `{}` again: nothing is found", arguments.sink);
        return Err(Failure::new(FAILED, text + &reach, Some(hint.into())));
    }
    refuse_overfull(&config, &replay, &found)?;
    let (span, wanted) = (found.span.unwrap_or_default(), found.events);
    let (added, gone) = add(&replay, &mut found, &mut progress, wanted)?;
    let who = if store::is_in_use(dir) { "the daemon" } else { "the next `run`" };
    print(&format!(
        "{} events from {} to {} wait for sink `{}` again, up to event {}; {who} delivers them{reach}\n",
        added.events,
        rfc3339(span.0.div_euclid(1000)),
        rfc3339(span.1.div_euclid(1000)),
        arguments.sink,
        added.last,
    ));
    if gone == 0 {
        return Ok(());
    }
    let text = format!("send events again: {gone} pages were removed meanwhile to make room");
    Err(Failure::new(FAILED, text, Some("raise `spool.max_bytes`".into())))
}

/// In milliseconds.
fn span(arguments: &Arguments) -> Result<(Millis, Millis), Failure> {
    let now = Utc::now();
    let from = arguments.from.second(now).saturating_mul(1000);
    let to = arguments.to.map_or(Millis::MAX, |to| to.second(now).saturating_mul(1000));
    if from < to {
        return Ok((from, to));
    }
    let text = format!("send events again: the span from {} holds nothing", rfc3339(from / 1000));
    Err(Failure::new(CONFIGURATION, text, Some("`--from` must be before `--to`".into())))
}

/// What is said when the span begins before all that is kept.
fn reach(found: &Found, from: Millis) -> String {
    match found.kept_since {
        Some(since) if from < since => {
            format!("; kept since {}", rfc3339(since.div_euclid(1000)))
        }
        _ => String::new(),
    }
}

fn refuse_overfull(config: &Config, replay: &Replay<'_>, found: &Found) -> Result<(), Failure> {
    let max = config.spool.max_bytes;
    let waiting = replay.waiting_bytes(config.sinks.keys().map(String::as_str));
    let waiting = waiting.map_err(|err| failed(&err))?;
    if waiting + found.bytes <= max.get() {
        return Ok(());
    }
    let (events, more, waiting) = (found.events, Bytes::new(found.bytes), Bytes::new(waiting));
    let text = format!(
        "send {events} events again: they take {more}, and {waiting} wait already, of `spool.max_bytes` ({max})"
    );
    let hint = "name a shorter span, wait until the sinks have taken what waits, or raise `spool.max_bytes`";
    Err(Failure::new(FAILED, text, Some(hint.into())))
}

/// Adds all of it, and leaves a running daemon as much time as it takes itself.
fn add(
    replay: &Replay<'_>,
    found: &mut Found,
    progress: &mut Progress,
    wanted: u64,
) -> Result<(Added, u64), Failure> {
    let (mut total, mut gone) = (Added::default(), 0);
    loop {
        let begun = Instant::now();
        let added = replay.add_some(found).map_err(|err| {
            let events = total.events;
            let text = format!("send events again, after {events} of {wanted}: {err}");
            Failure::new(FAILED, text, err.hint())
        })?;
        let Some(added) = added else { return Ok((total, gone)) };
        total.events += added.events;
        total.last = total.last.max(added.last);
        gone += added.gone;
        progress.tell(|| format!("{} of {wanted} events added", total.events));
        std::thread::sleep(begun.elapsed().max(Duration::from_millis(10)));
    }
}

/// Says now and then how far long work has come.
struct Progress {
    told: Instant,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(2);

    fn new() -> Self {
        Self { told: Instant::now() }
    }

    fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.told.elapsed() >= Self::EVERY {
            self.told = Instant::now();
            eprintln!("{}", text());
        }
    }
}

fn failed(err: &store::Error) -> Failure {
    Failure::new(FAILED, format!("send events again: {err}"), status::hint(err))
}
