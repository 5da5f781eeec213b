//! The file sink: whole lines, appended.

use std::path::PathBuf;

use serde::Deserialize;

use crate::encode::Format;
use crate::problem::Problem;
use crate::sink::{BatchLimits, From};
use crate::units::word;

/// `[sinks.<name>.file]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The file that lines are appended to.
    pub path: PathBuf,
    /// What a line looks like.
    #[serde(deserialize_with = "word")]
    pub format: Format,
    /// When a batch is full.
    pub batch: BatchLimits,
    /// Where the sink begins when it is new.
    #[serde(deserialize_with = "word")]
    pub from: From,
}

impl Config {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let path = self.path.as_os_str().is_empty().then(|| {
            Problem::at("path", "is missing").hint("name the file that events are appended to")
        });
        path.into_iter().chain(self.batch.check()).collect()
    }
}
