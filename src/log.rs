//! `[log]`: structured logs on stderr.
//!
//! Every event is one line: JSON for machines, or a short line for a terminal. Fields of the
//! enclosing spans stand beside the event's own. Secrets are taken out of the finished line, and
//! text from outside cannot break a line or steer a terminal.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use chrono::{DateTime, Local, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::Value;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::secret::redact;
use crate::units::word;

mod fields;

use fields::Fields;

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What a line looks like.
    #[serde(deserialize_with = "word")]
    pub format: Format,
    /// The least severe level that is logged.
    #[serde(deserialize_with = "word")]
    pub level: Level,
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As for people on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object.
    Json,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// An operator must act.
    Error,
    /// Degraded without loss; mends itself.
    Warn,
    /// Changes of state.
    #[default]
    Info,
    /// One line per page or batch.
    Debug,
    /// Everything.
    Trace,
}

/// Logs to stderr from now on; a second call changes nothing.
pub fn init(config: &Config) {
    let terminal = std::io::stderr().is_terminal();
    let style = match config.format {
        Format::Json => Style::Json,
        Format::Auto if !terminal => Style::Json,
        Format::Auto | Format::Pretty => {
            Style::Pretty { colour: terminal && std::env::var_os("NO_COLOR").is_none() }
        }
    };
    let lines = Lines { style, write: write_to_stderr };
    let subscriber = Registry::default().with(lines.with_filter(filter(config.level)));
    // Only tests come here twice, and the first of them has set the same.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

fn write_to_stderr(line: &str) {
    // There is no other place to complain to.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Other crates' chatter is nobody's business, and at trace level may hold what they send.
fn filter(level: Level) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    let (own, others) = match level {
        Level::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        Level::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        Level::Info => (LevelFilter::INFO, LevelFilter::WARN),
        Level::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        Level::Trace => (LevelFilter::TRACE, LevelFilter::WARN),
    };
    let events = Targets::new().with_default(others).with_target("siemferry", own);
    // Whatever is logged, its spans say of which source or sink.
    filter_fn(move |metadata| {
        (metadata.is_span() && metadata.target().starts_with("siemferry"))
            || events.would_enable(metadata.target(), metadata.level())
    })
}

/// The text with everything escaped that could break a line, steer a terminal or reorder what is
/// read: control characters, line separators and marks of direction.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if is_unsafe(c) => {
                write!(escaped, "\\u{{{:x}}}", u32::from(c)).expect("a string takes every text");
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// JSON with the same characters escaped, which can only stand within its strings.
fn escape_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            write!(escaped, "\\u{:04x}", u32::from(c)).expect("a string takes every text");
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// An error and its causes in one sentence. A cause that the text before it tells already is not
/// told again.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
    }
    text
}

const fn is_unsafe(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[derive(Clone, Copy)]
enum Style {
    Json,
    Pretty { colour: bool },
}

/// Makes a line of every event.
struct Lines<W> {
    style: Style,
    write: W,
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&str) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        context.span(id).expect("a new span exists").extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("a span that is recorded to exists");
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.take("message");
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.add_missing(outer);
            }
        }
        let line = match self.style {
            Style::Json => {
                escape_json(&json(Utc::now(), event.metadata(), message.as_ref(), &fields))
            }
            Style::Pretty { colour } => {
                pretty(Local::now(), event.metadata(), message.as_ref(), &fields, colour)
            }
        };
        (self.write)(&(redact(&line) + "\n"));
    }
}

fn json(
    now: DateTime<Utc>,
    metadata: &Metadata<'_>,
    message: Option<&Value>,
    fields: &Fields,
) -> String {
    let own = [
        ("timestamp", Value::from(now.to_rfc3339_opts(SecondsFormat::Millis, true))),
        ("level", Value::from(metadata.level().as_str().to_ascii_lowercase())),
        ("message", message.cloned().unwrap_or_else(|| Value::from(""))),
    ];
    // A name twice in an object is read differently by every reader.
    let free = |name: &str| {
        let taken = own.iter().any(|(own, _)| *own == name);
        format!("{}{name}", if taken { "field." } else { "" })
    };
    let own_members = own.iter().map(|(name, value)| member(name, value));
    let members = own_members.chain(fields.iter().map(|(name, value)| member(&free(name), value)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn member(name: &str, value: &Value) -> String {
    format!("{}:{value}", Value::from(name))
}

fn pretty(
    now: DateTime<Local>,
    metadata: &Metadata<'_>,
    message: Option<&Value>,
    fields: &Fields,
    colour: bool,
) -> String {
    let (on, off) = match *metadata.level() {
        _ if !colour => ("", ""),
        tracing::Level::ERROR => ("\x1b[31m", "\x1b[0m"),
        tracing::Level::WARN => ("\x1b[33m", "\x1b[0m"),
        tracing::Level::INFO => ("\x1b[32m", "\x1b[0m"),
        _ => ("\x1b[2m", "\x1b[0m"),
    };
    let message = message.map_or_else(String::new, text);
    let mut line =
        format!("{} {on}{:<5}{off} {message}", now.format("%H:%M:%S"), metadata.level().as_str());
    for (at, (name, value)) in fields.iter().enumerate() {
        let gap = if at == 0 { "  " } else { " " };
        write!(line, "{gap}{name}={}", text(value)).expect("a string takes every text");
    }
    line
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), escape)
}

#[cfg(test)]
mod tests;
