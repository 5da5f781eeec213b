//! The file sink: whole lines, appended.

use std::path::PathBuf;

use serde::Deserialize;

use crate::encode::Format;
use crate::sink::{BatchLimits, From};

/// `[sinks.<name>.file]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The file that lines are appended to.
    pub path: PathBuf,
    /// What a line looks like.
    pub format: Format,
    /// When a batch is full.
    pub batch: BatchLimits,
    /// Where the sink begins when it is new.
    pub from: From,
}
