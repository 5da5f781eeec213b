//! Secrets: where they are read from, and how they are kept out of every text.

use std::path::PathBuf;

use serde::Deserialize;

/// `{ file = } { env = } { credential = } { command = [..] }`, or the value itself.
#[derive(Clone, Debug, Deserialize)]
pub enum Config {
    /// A file that others cannot read.
    File(PathBuf),
}
