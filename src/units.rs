//! Values with their unit in them: `"30s"`, `"64MiB"`, `"30d"` or a date.
// helper fills in: Deserialize with expected forms, Display, bounds.

use std::time::Duration;

/// A length of time, such as `30s`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Deserialize)]
pub struct Span(Duration);

impl Span {
    /// Whole seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    /// Minutes.
    pub const fn minutes(n: u64) -> Self {
        Self::seconds(n * 60)
    }
    /// Hours.
    pub const fn hours(n: u64) -> Self {
        Self::minutes(n * 60)
    }
    /// Days of 24 hours.
    pub const fn days(n: u64) -> Self {
        Self::hours(n * 24)
    }
    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

/// A number of bytes, such as `64MiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Deserialize)]
pub struct Bytes(u64);

impl Bytes {
    /// Units of 1,048,576 bytes.
    pub const fn mebibytes(n: u64) -> Self {
        Self(n * 1024 * 1024)
    }
    /// Units of 1,073,741,824 bytes.
    pub const fn gibibytes(n: u64) -> Self {
        Self::mebibytes(n * 1024)
    }
    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Where a first run begins: so long ago (`30d`), or at a date (`2026-01-02`, `2026-01-02T03:04:05Z`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
pub enum Start {
    /// So long before the first run.
    Ago(Span),
    /// At this second since the Unix epoch.
    At(i64),
}

impl Start {
    /// So long before the first run.
    pub const fn ago(span: Span) -> Self {
        Self::Ago(span)
    }
}
