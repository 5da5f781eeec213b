//! Makes an event's bytes for a sink. Pure; never parses the record.

use serde::{Deserialize, Serialize};

use crate::event::Event;

mod cut;
mod digits;
pub mod elastic;
pub mod json;
mod mapping;
mod members;
pub mod sentinel;
pub mod splunk;
pub mod syslog;

/// `format = …`: what a delivered event looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The record with one member, `siemferry`, appended as its last.
    #[default]
    Json,
    /// The record alone.
    Raw,
}

impl Format {
    /// Appends the encoded event to `out`. It is free of line breaks: records are stored without
    /// white space outside strings, and inside strings JSON allows none.
    pub fn encode(self, event: &Event<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::encode(event, out),
            Self::Raw => out.extend_from_slice(event.raw),
        }
    }
}
