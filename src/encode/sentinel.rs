//! Rows of a stream of the Azure Monitor Logs Ingestion API, for Microsoft Sentinel.
//!
//! A row has every column of its profile, `TimeGenerated` first, and nothing else: Azure discards
//! what a stream does not declare, and does not say so. No value is longer than Azure keeps, for it
//! cuts what is longer without a word: we cut it ourselves, where it hurts least, and mark it.

use serde::Deserialize;

use super::cut::{put_members, put_value};
use super::json::{Marks, civil, put_member, put_time, put_uid};
use super::members::{members, unescaped};
use crate::event::{Event, Millis};

/// Of one value, Azure keeps 64 KB.
/// (learn.microsoft.com/azure/azure-monitor/service-limits#logs-ingestion-api)
pub const MOST_VALUE: usize = 64_000;

/// An older `TimeGenerated` is replaced by the time of receipt.
/// (learn.microsoft.com/azure/azure-monitor/logs/log-standard-columns)
pub const OLDEST: Millis = 2 * 24 * 3600 * 1000;

/// `profile = …`: which columns a row has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Those of the Content Hub's solution `Keeper Security`, whatever else the record has in `data`.
    #[default]
    KeeperSolution,
    /// Our own, for any source, with the whole record in `Raw`.
    Full,
}

/// The type of a column, of a stream's declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A moment.
    Datetime,
    /// A text.
    String,
    /// A whole number of 32 bits.
    Int,
    /// Any JSON.
    Dynamic,
}

const KEEPER_SOLUTION: [(&str, Type); 9] = [
    ("TimeGenerated", Type::Datetime),
    ("audit_event", Type::String),
    ("remote_address", Type::String),
    ("category", Type::String),
    ("client_version", Type::String),
    ("enterprise_id", Type::Int),
    ("username", Type::String),
    ("timestamp", Type::Datetime),
    ("data", Type::Dynamic),
];

const FULL: [(&str, Type); 10] = [
    ("TimeGenerated", Type::Datetime),
    ("EventUid", Type::String),
    ("EventTime", Type::Datetime),
    ("Type", Type::String),
    ("Category", Type::String),
    ("Actor", Type::String),
    ("SourceIp", Type::String),
    ("Source", Type::String),
    ("Api", Type::String),
    ("Raw", Type::Dynamic),
];

/// Members of the record that have a column of their own in `full`.
const ACTORS: [(&str, &str); 3] =
    [("Category", "category"), ("Actor", "username"), ("SourceIp", "remote_address")];

impl Profile {
    /// The columns of every row, in their order.
    pub const fn columns(self) -> &'static [(&'static str, Type)] {
        match self {
            Self::KeeperSolution => &KEEPER_SOLUTION,
            Self::Full => &FULL,
        }
    }

    /// Appends the row, with a comma before it.
    pub fn encode(self, event: &Event<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b",{\"TimeGenerated\":");
        put_time(Some(time(event)), out);
        match self {
            Self::KeeperSolution => keeper_solution(event, out),
            Self::Full => full(event, out),
        }
        out.push(b'}');
    }
}

impl Type {
    /// As a stream's declaration names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Datetime => "datetime",
            Self::String => "string",
            Self::Int => "int",
            Self::Dynamic => "dynamic",
        }
    }
}

/// The `TimeGenerated` of a message that [`Profile::encode`] has made, such as
/// `2026-01-02T03:04:05.678Z`.
pub fn time_of(message: &[u8]) -> Option<&str> {
    const BEFORE: usize = br#",{"TimeGenerated":""#.len();
    const LENGTH: usize = b"2026-01-02T03:04:05.678Z".len();
    std::str::from_utf8(message.get(BEFORE..BEFORE + LENGTH)?).ok()
}

/// When it happened; when it was received, where the event does not say or names no year of ours.
fn time(event: &Event<'_>) -> Millis {
    event.time.filter(|time| civil(*time).is_some()).unwrap_or(event.received)
}

/// What is known before the row is made; the same each time.
fn marks(event: &Event<'_>) -> Marks {
    let age = event.time.map(|time| event.received.saturating_sub(time));
    Marks { backfilled: age.is_some_and(|age| age > OLDEST), truncated: false }
}

fn keeper_solution(event: &Event<'_>, out: &mut Vec<u8>) {
    const LAST: usize = KEEPER_SOLUTION.len() - 1;
    let (whole, event) = (event, &with_short_type(event));
    let mut columns: [Option<&[u8]>; LAST] = [None; LAST];
    let mut rest = Vec::with_capacity(16);
    for (key, value) in members(event.raw) {
        let name = unescaped(key);
        let at = (1..LAST).find(|at| KEEPER_SOLUTION[*at].0.as_bytes() == &*name);
        // What does not fit its column would be lost there, and so would a second of its name.
        match at.filter(|at| columns[*at].is_none() && fits(value, KEEPER_SOLUTION[*at].1)) {
            Some(at) => columns[at] = Some(value),
            None => rest.push((key, value)),
        }
    }
    let mut marks = marks(event);
    marks.truncated = event.event_type != whole.event_type;
    for (at, (name, _)) in KEEPER_SOLUTION.iter().enumerate().take(LAST).skip(1) {
        put_name(name, out);
        match (columns[at], *name) {
            (Some(value), _) => marks.truncated |= put_column(value, out),
            (None, "audit_event") => marks.truncated |= put_type(whole, out),
            (None, "timestamp") => put_time(event.time, out),
            (None, _) => out.extend_from_slice(b"null"),
        }
    }
    put_name("data", out);
    let mut ours = Vec::with_capacity(300);
    put_member(event, Marks { truncated: true, ..marks }, &mut ours);
    put_object(&rest, ours.len(), &mut marks, out, |marks, out| put_member(event, marks, out));
}

/// The same event, whose type is short enough to stand beside everything else in `data`.
fn with_short_type<'a>(event: &Event<'a>) -> Event<'a> {
    const MOST: usize = 1000;
    let short = |text: &'a str| {
        let end = (0..=MOST.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        &text[..end.unwrap_or_default()]
    };
    Event { event_type: event.event_type.map(short), ..*event }
}

fn full(event: &Event<'_>, out: &mut Vec<u8>) {
    let mut marks = marks(event);
    out.extend_from_slice(br#","EventUid":""#);
    put_uid(event.uid, out);
    out.extend_from_slice(br#"","EventTime":"#);
    put_time(event.time, out);
    put_name("Type", out);
    marks.truncated |= put_type(event, out);
    let mut columns: [Option<&[u8]>; ACTORS.len()] = [None; ACTORS.len()];
    let all: Vec<_> = members(event.raw).collect();
    for (key, value) in &all {
        let name = unescaped(key);
        let at = ACTORS.iter().position(|(_, member)| member.as_bytes() == &*name);
        if let Some(at) = at.filter(|_| fits(value, Type::String)) {
            columns[at].get_or_insert(value);
        }
    }
    for ((name, _), value) in ACTORS.iter().zip(columns) {
        put_name(name, out);
        // What is cut here is whole in `Raw`, or marked there.
        put_column(value.unwrap_or(b"null"), out);
    }
    for (name, value) in [("Source", event.source), ("Api", event.api)] {
        put_name(name, out);
        serde_json::to_writer(&mut *out, value).expect("a vector takes all");
    }
    put_name("Raw", out);
    let room = br#""siemferry":{"backfilled":true,"truncated":true}"#.len();
    put_object(&all, room, &mut marks, out, |marks, out| {
        if marks.any() {
            out.extend_from_slice(br#""siemferry":{"#);
            let first = out.len();
            marks.put(out);
            // The comma before the first.
            out.remove(first);
            out.push(b'}');
        }
    });
}

/// Appends an object of the members and of ours, which may take `reserved` bytes.
fn put_object(
    members: &[(&[u8], &[u8])],
    reserved: usize,
    marks: &mut Marks,
    out: &mut Vec<u8>,
    ours: impl FnOnce(Marks, &mut Vec<u8>),
) {
    let begin = out.len();
    // Two braces, and a comma before ours.
    marks.truncated |= put_members(members, MOST_VALUE.saturating_sub(reserved + 3), out);
    if out.len() == begin {
        out.push(b'{');
    } else {
        // In place of the comma before the first.
        out[begin] = b'{';
    }
    let end = out.len();
    if end > begin + 1 {
        out.push(b',');
    }
    let before = out.len();
    ours(*marks, out);
    if out.len() == before {
        out.truncate(end);
    }
    out.push(b'}');
}

/// Whether a column of this type takes the value as it is.
fn fits(value: &[u8], kind: Type) -> bool {
    let text = || std::str::from_utf8(value).unwrap_or_default();
    match kind {
        Type::Dynamic => true,
        Type::String => value.first() == Some(&b'"'),
        Type::Int => text().parse::<i32>().is_ok(),
        Type::Datetime => {
            let text = text().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            let text = text.filter(|text| text.is_ascii());
            let time = text.and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
            // Neither a leap second nor a year of ours beyond four digits is one of Azure's.
            time.is_some_and(|time| {
                time.timestamp_subsec_nanos() < 1_000_000_000
                    && civil(time.timestamp_millis()).is_some()
            })
        }
    }
}

fn put_name(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends a value; returns whether it was cut.
fn put_column(value: &[u8], out: &mut Vec<u8>) -> bool {
    put_value(value, MOST_VALUE, out);
    value.len() > MOST_VALUE
}

fn put_type(event: &Event<'_>, out: &mut Vec<u8>) -> bool {
    let begin = out.len();
    serde_json::to_writer(&mut *out, &event.event_type).expect("a vector takes all");
    let is_long = out.len() - begin > MOST_VALUE;
    if is_long {
        let whole = out.split_off(begin);
        put_value(&whole, MOST_VALUE, out);
    }
    is_long
}

#[cfg(test)]
mod tests;
