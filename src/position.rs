//! How far the events have flowed: windows, page tokens and passes at the source end,
//! bookmarks at the sink end.

use std::fmt;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Whole seconds since the Unix epoch. Windows are cut on them.
pub type Second = i64;

/// A half-open span of event time, `[start, end)`; the unit of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// The first second that belongs to it.
    pub start: Second,
    /// The first second after it.
    pub end: Second,
}

impl Window {
    /// How many seconds it spans.
    pub fn seconds(self) -> i64 {
        self.end - self.start
    }

    /// True when requests for the two, which reach one second further, may show the same record.
    pub fn meets(self, other: Self) -> bool {
        self.start - 1 <= other.end + 1 && other.start - 1 <= self.end + 1
    }

    /// True when the instant lies in it.
    pub fn contains(self, second: Second) -> bool {
        self.start <= second && second < self.end
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", rfc3339(self.start), rfc3339(self.end))
    }
}

/// A second as RFC 3339 in UTC, such as `2026-01-02T03:04:05Z`.
pub fn rfc3339(second: Second) -> String {
    match DateTime::from_timestamp(second, 0) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Secs, true),
        None => format!("@{second}"),
    }
}

/// What the API wants back to give the next page of a window.
///
/// Opaque; held as text. It is no secret, but long: `Debug` shows its length alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PageToken(pub String);

impl fmt::Debug for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageToken({} bytes)", self.0.len())
    }
}

/// Numbers the passes of all sources; never reused.
pub type PassId = i64;

/// What a sink needs to resume exactly, in the sink's own words (JSON); committed with the settle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark(pub String);

/// What a sink without bookmarks was doing when the last settle was committed: so that after a crash
/// the same batches are sent again, with the same ids and bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// The batches that may be on their way, in the order of their events.
    pub batches: Vec<Sent>,
    /// The ranges behind the settled events that have met their fate already; both ends belong to
    /// them.
    pub done: Vec<(u64, u64)>,
}

/// A batch that may be on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its id.
    pub id: Uuid,
    /// The number that it begins with.
    pub first: u64,
    /// The number that it ends with.
    pub last: u64,
    /// True when all its sends came to an end before the stop, and those in doubt are counted.
    #[serde(default)]
    pub is_counted: bool,
}
