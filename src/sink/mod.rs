//! PLUG POINT: where events are delivered to.
//!
//! A sink is one pure half, [`Sink::encode`], and one effect, [`Sink::deliver`].
//! It is only transport: retries, order and settling are the courier's.

use std::path::Path;

use serde::Deserialize;

use crate::problem::Problem;
use crate::units::{Bytes, Span};

pub mod file;

/// `[sinks.<name>.<kind>]`: which destination it is, and how it is written to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Config {
    /// Lines appended to a file.
    File(file::Config),
}

impl Config {
    /// The kind's name, as the configuration has it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
        }
    }

    /// The file it writes, if it writes one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(config) => Some(&config.path),
        }
    }

    /// What is wrong beyond the form of single values; keys are those below the kind.
    pub fn check(&self) -> Vec<Problem> {
        match self {
            Self::File(config) => config.check(),
        }
    }
}

/// `batch = { events, bytes, wait }`: when a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchLimits {
    /// At most this many events.
    pub events: std::num::NonZeroU32,
    /// At most this many encoded bytes; a single longer event goes alone.
    pub bytes: Bytes,
    /// How long a batch that is not full waits for more.
    pub wait: Span,
}

impl BatchLimits {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Option<Problem> {
        (self.bytes.get() == 0).then(|| Problem::at("batch.bytes", "must be more than `0B`"))
    }
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            events: std::num::NonZeroU32::new(5000).expect("5000 is not zero"),
            bytes: Bytes::mebibytes(2),
            wait: Span::seconds(0),
        }
    }
}

/// Where a sink begins that the store does not know yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// With the events committed from now on.
    #[default]
    Now,
    /// With the oldest event that the spool still holds.
    Kept,
}
