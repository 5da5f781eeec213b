//! Makes an event's bytes for a sink. Pure; never parses the record.

use serde::Deserialize;

/// `format = …`: what a delivered event looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The record with one member, `siemferry`, appended as its last.
    #[default]
    Json,
    /// The record alone.
    Raw,
}
