//! `siemferry dead-letters`: shows what could not be forwarded, tries it again, throws it away.
//!
//! Works on the store beside the daemon or without it; the daemon notices by itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigPath, FAILED, Failure, print, status};
use crate::config::Config;
use crate::daemon;
use crate::event::{Millis, Page};
use crate::log::escape;
use crate::secret::redact;
use crate::source::preset::Preset;
use crate::source::records::{self, Shape};
use crate::store;
use crate::store::dead_letters::{
    Configured, Filter, Letter, LetterId, Letters, MOST_AT_ONCE, Retried, Whole,
};
use crate::store::sources::Origin;

mod accept;

/// Show the records that could not be forwarded, try them again, or throw them away.
///
/// A dead letter without a sink is a record that could not be read: not a JSON object, or not valid
/// UTF-8. One with a sink is an event that this sink has refused for good. They are kept until
/// somebody decides; nothing else waits for them. Every verb works beside a running daemon, which
/// notices within a second or two, and without one.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List them, newest last.
    List(List),
    /// Show one with its event.
    Show(Show),
    /// Read unreadable records again with this version; send a sink's events to it again.
    ///
    /// A record that can be read now becomes an event for every sink, unless it has been read
    /// meanwhile. One that still cannot be read stays a dead letter, and the exit code is 1.
    Retry(Chosen),
    /// Throw them away for good, each one told.
    Discard(Chosen),
    Accept(accept::Arguments),
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    config: ConfigPath,

    #[command(flatten)]
    of: Of,

    /// Print JSON, for other programs.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Show {
    #[command(flatten)]
    config: ConfigPath,

    /// Its number.
    id: LetterId,

    /// Print the event alone, byte for byte.
    #[arg(long)]
    raw: bool,
}

#[derive(Args)]
struct Chosen {
    #[command(flatten)]
    config: ConfigPath,

    /// Their numbers; when one is not there, none is touched.
    #[arg(value_name = "ID", required_unless_present = "all",
        conflicts_with_all = ["all", "source", "sink"])]
    ids: Vec<LetterId>,

    /// All of them, or all of a source or sink.
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    of: Of,
}

#[derive(Args)]
#[group(multiple = false)]
struct Of {
    /// Only those whose event this source has read.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,

    /// Only those that this sink refuses.
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
}

impl Of {
    fn filter(&self) -> Filter {
        match (&self.source, &self.sink) {
            (Some(name), _) => Filter::Source(name.clone()),
            (_, Some(name)) => Filter::Sink(name.clone()),
            _ => Filter::All,
        }
    }
}

/// What is said when there are none.
const NONE: &str = "no dead letters\n";

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::List(arguments) => list(arguments),
        Verb::Show(arguments) => show(arguments),
        Verb::Retry(chosen) => retry(chosen),
        Verb::Discard(chosen) => discard(chosen),
        Verb::Accept(arguments) => accept::run(arguments),
    }
}

fn failed(err: &store::Error) -> Failure {
    Failure::new(FAILED, err.to_string(), status::hint(err))
}

fn list(arguments: &List) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let letters = Letters::read(&config.state.dir)
        .and_then(|letters| letters.list(&arguments.of.filter()))
        .map_err(|err| failed(&err))?;
    print(&if arguments.json { as_json(&letters) } else { table(&letters) });
    Ok(())
}

fn as_json(letters: &[Letter]) -> String {
    let letters: Vec<_> = letters
        .iter()
        .map(|letter| {
            json!({
                "id": letter.id, "at": time(letter.at), "source": letter.source,
                "sink": letter.sink, "reason": redact(&letter.reason), "bytes": letter.bytes,
                "attempts": letter.attempts,
            })
        })
        .collect();
    format!("{}\n", json!({ "dead_letters": letters }))
}

fn table(letters: &[Letter]) -> String {
    if letters.is_empty() {
        return NONE.into();
    }
    let mut out = format!(
        "{:>6}  {:<24}  {:<16}  {:<16}  {:>8}  {:>8}  REASON\n",
        "ID", "AT", "SOURCE", "SINK", "BYTES", "ATTEMPTS"
    );
    for letter in letters {
        let (source, sink) = (harmless(&letter.source), sink(letter));
        let _ = writeln!(
            out,
            "{:>6}  {:<24}  {source:<16}  {sink:<16}  {:>8}  {:>8}  {}",
            letter.id,
            time(letter.at),
            letter.bytes,
            letter.attempts,
            harmless(&letter.reason),
        );
    }
    out
}

fn show(arguments: &Show) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let whole = Letters::read(&config.state.dir)
        .and_then(|letters| letters.show(arguments.id))
        .map_err(|err| failed(&err))?;
    if arguments.raw {
        // A reader that has gone is no error.
        let _ = std::io::stdout().lock().write_all(&whole.event);
    } else {
        print(&sheet(&whole));
    }
    Ok(())
}

fn sheet(whole: &Whole) -> String {
    let letter = &whole.letter;
    let mut out = String::new();
    let mut put = |label: &str, value: &str| {
        let _ = writeln!(out, "{label:<9} {}", harmless(value));
    };
    put("id", &letter.id.to_string());
    put("at", &time(letter.at));
    put("source", &letter.source);
    put("sink", &sink(letter));
    put("reason", &letter.reason);
    put("attempts", &letter.attempts.to_string());
    if let Some(facts) = &whole.facts {
        put("seq", &facts.seq.to_string());
        put("uid", &facts.uid.to_string());
        put("api", &facts.api);
        put("type", facts.event_type.as_deref().unwrap_or("-"));
        put("time", &facts.time.map_or("-".into(), time));
        put("received", &time(facts.received));
    }
    put("bytes", &letter.bytes.to_string());
    let _ = writeln!(out, "event     {}", readable(&whole.event));
    out
}

fn discard(chosen: &Chosen) -> Result<(), Failure> {
    let config = chosen.config.load()?;
    let mut letters = Letters::edit(&config.state.dir).map_err(|err| failed(&err))?;
    let ids = chosen.ids(&letters)?;
    let gone = letters.discard(&ids).map_err(|err| failed(&err))?;
    for letter in &gone {
        print(&format!("discarded {}: {}\n", named(letter), harmless(&letter.reason)));
    }
    if gone.is_empty() {
        print(NONE);
    }
    Ok(())
}

fn retry(chosen: &Chosen) -> Result<(), Failure> {
    let config = chosen.config.load()?;
    let mut letters = Letters::edit(&config.state.dir).map_err(|err| failed(&err))?;
    let ids = chosen.ids(&letters)?;
    let readers = Readers::new(&config);
    // Those that were named go together; of all there are, not more than the daemon can wait for.
    let at_once = if chosen.all { MOST_AT_ONCE } else { ids.len() };
    let mut stay = 0;
    for ids in ids.chunks(at_once.max(1)) {
        for (letter, retried) in letters.retry(ids, &readers).map_err(|err| failed(&err))? {
            stay += usize::from(retried.stays());
            print(&format!("{}: {}\n", named(&letter), outcome(&letter, &retried)));
        }
    }
    if ids.is_empty() {
        print(NONE);
    }
    if stay == 0 {
        return Ok(());
    }
    let hint = "a later version may read what this one cannot; `siemferry dead-letters show ID` shows one, `discard ID` throws it away";
    let text = format!("try dead letters again: {stay} of {} stay dead letters", ids.len());
    Err(Failure::new(FAILED, text, Some(hint.into())))
}

impl Chosen {
    fn ids(&self, letters: &Letters) -> Result<Vec<LetterId>, Failure> {
        if !self.all {
            let mut ids = self.ids.clone();
            ids.sort_unstable();
            ids.dedup();
            return Ok(ids);
        }
        let listed = letters.list(&self.of.filter()).map_err(|err| failed(&err))?;
        Ok(listed.iter().map(|letter| letter.id).collect())
    }
}

fn named(letter: &Letter) -> String {
    let Letter { id, bytes, .. } = letter;
    let of = match &letter.sink {
        Some(sink) => format!("of sink `{}`", harmless(sink)),
        None => format!("of source `{}`", harmless(&letter.source)),
    };
    format!("dead letter {id} {of} ({bytes} bytes)")
}

fn outcome(letter: &Letter, retried: &Retried) -> String {
    match retried {
        Retried::Event(seq) => format!("can be read now; it is event {seq}, for every sink"),
        Retried::SentAgain(seq) => format!("waits for its sink again, as event {seq}"),
        Retried::Known => "has been read meanwhile; nothing is to be sent".into(),
        Retried::StillBad { reason, attempts } => {
            format!("still bad: {} (attempt {attempts})", harmless(reason))
        }
        Retried::NotConfigured => match &letter.sink {
            Some(_) => "stays: the configuration has no such sink".into(),
            None => "stays: the configuration has no such source".into(),
        },
    }
}

/// Reads records as the sources of the configuration do.
struct Readers<'a> {
    config: &'a Config,
    shapes: BTreeMap<&'a str, (Preset, Shape)>,
}

impl<'a> Readers<'a> {
    fn new(config: &'a Config) -> Self {
        let shapes = config.sources.iter().map(|(name, source)| {
            let preset = source.preset();
            let shape = preset.shape();
            (name.as_str(), (preset, shape))
        });
        Self { config, shapes: shapes.collect() }
    }
}

impl Configured for Readers<'_> {
    fn has_sink(&self, name: &str) -> bool {
        self.config.sinks.contains_key(name)
    }

    fn read_again(&self, source: &str, record: &[u8]) -> Option<(Origin, Page)> {
        let (preset, shape) = self.shapes.get(source)?;
        let rest = self.config.sources.get(source)?.rest();
        let origin = daemon::origin(source, rest, preset, self.config.seen.keep);
        // What is no record at all stays bad.
        let page = records::split_one(record, shape).map_or_else(
            |_| Page::default(),
            |found| Page { bytes: found.bytes, records: found.records, bad: found.bad, next: None },
        );
        Some((origin, page))
    }
}

fn sink(letter: &Letter) -> String {
    letter.sink.as_deref().map_or("-".into(), harmless)
}

fn time(millis: Millis) -> String {
    DateTime::from_timestamp_millis(millis)
        .map_or("-".into(), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn harmless(text: &str) -> String {
    escape(&redact(text))
}

/// The bytes as text, with what is none shown as `\xff`.
fn readable(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(&harmless(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}
