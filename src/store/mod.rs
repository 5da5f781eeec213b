//! The store: the spool, the positions and what has been seen, in one SQLite file.

use std::path::PathBuf;

use serde::Deserialize;

use crate::units::{Bytes, Span};

/// `[state]`: where the store is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory that holds `siemferry.db`; private to the daemon.
    pub dir: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { dir: PathBuf::from("/var/lib/siemferry") }
    }
}

/// `[spool]`: how much waits for the sinks, and how long delivered events stay.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// Polling pauses while the spool holds more than this.
    pub max_bytes: Bytes,
    /// Delivered pages stay this long if there is room.
    pub keep: Span,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { max_bytes: Bytes::gibibytes(4), keep: Span::hours(24) }
    }
}

/// `[seen]`: how long an event is remembered after its window was last read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeenConfig {
    /// How long.
    pub keep: Span,
}

impl Default for SeenConfig {
    fn default() -> Self {
        Self { keep: Span::days(7) }
    }
}
