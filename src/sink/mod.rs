//! PLUG POINT: where events are delivered to.
//!
//! A sink is one pure half, [`Sink::encode`], and one effect, [`Sink::deliver`].
//! It is only transport: retries, order and settling are the courier's. Never sees the store.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use uuid::Uuid;

use crate::encode::Format;
use crate::event::{Event, Seq, Uid};
use crate::position::Bookmark;
use crate::problem::Problem;
use crate::secret;
use crate::units::{Bytes, Span};

pub mod elastic;
pub mod file;
pub mod http;
mod route;
pub mod sentinel;
pub mod splunk;
pub mod syslog;
pub mod webhook;

pub use route::Route;

/// An error of any library, for the text of our own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// `[sinks.<name>.<kind>]`: which destination it is, and how it is written to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Config {
    /// Lines appended to a file.
    File(file::Config),
    /// Documents of Elasticsearch or OpenSearch.
    Elastic(elastic::Config),
    /// Rows of a stream of Microsoft Sentinel.
    Sentinel(sentinel::Config),
    /// Objects of Splunk's HTTP Event Collector.
    Splunk(splunk::Config),
    /// Messages to a syslog receiver.
    Syslog(syslog::Config),
    /// Requests to a URL.
    Webhook(webhook::Config),
}

impl Config {
    /// Sets the sink up. Nothing is opened before [`Sink::resume`].
    pub fn build(&self) -> Box<dyn Sink> {
        match self {
            Self::File(config) => Box::new(file::FileSink::new(config.clone())),
            Self::Elastic(config) => Box::new(elastic::ElasticSink::new(config.clone())),
            Self::Sentinel(config) => Box::new(sentinel::SentinelSink::new(config)),
            Self::Splunk(config) => Box::new(splunk::SplunkSink::new(config.clone())),
            Self::Syslog(config) => Box::new(syslog::SyslogSink::new(config)),
            Self::Webhook(config) => Box::new(webhook::WebhookSink::new(config.clone())),
        }
    }

    /// How the courier is to deliver.
    pub fn delivery(&self) -> Delivery {
        match self {
            Self::File(config) => Delivery {
                batch: config.batch,
                in_flight: 1,
                route: config.route.clone(),
                is_exact: true,
                counts_events: false,
            },
            Self::Elastic(config) => config.delivery(),
            Self::Sentinel(config) => config.delivery(),
            Self::Splunk(config) => config.delivery(),
            Self::Syslog(config) => config.delivery(),
            Self::Webhook(config) => config.delivery(),
        }
    }

    /// Where the sink begins when it is new.
    pub fn from(&self) -> From {
        match self {
            Self::File(config) => config.from,
            Self::Elastic(config) => config.from,
            Self::Sentinel(config) => config.from,
            Self::Splunk(config) => config.from,
            Self::Syslog(config) => config.from,
            Self::Webhook(config) => config.from,
        }
    }

    /// The kind's name, as the configuration has it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Elastic(_) => "elastic",
            Self::Sentinel(_) => "sentinel",
            Self::Splunk(_) => "splunk",
            Self::Syslog(_) => "syslog",
            Self::Webhook(_) => "webhook",
        }
    }

    /// The file it writes, if it writes one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(config) => Some(&config.path),
            _ => None,
        }
    }

    /// Which events are for it.
    pub fn route(&self) -> &Route {
        match self {
            Self::File(config) => &config.route,
            Self::Elastic(config) => &config.route,
            Self::Sentinel(config) => &config.route,
            Self::Splunk(config) => &config.route,
            Self::Syslog(config) => &config.route,
            Self::Webhook(config) => &config.route,
        }
    }

    /// The secrets it names, with their keys below the kind.
    pub fn secrets(&self) -> Vec<(String, &secret::Config)> {
        match self {
            Self::File(_) => Vec::new(),
            Self::Elastic(config) => config.secrets(),
            Self::Sentinel(config) => config.secrets(),
            Self::Splunk(config) => config.secrets(),
            Self::Syslog(config) => config.secrets(),
            Self::Webhook(config) => config.secrets(),
        }
    }

    /// What is wrong beyond the form of single values; keys are those below the kind.
    pub fn check(&self) -> Vec<Problem> {
        match self {
            Self::File(config) => config.check(),
            Self::Elastic(config) => config.check(),
            Self::Sentinel(config) => config.check(),
            Self::Splunk(config) => config.check(),
            Self::Syslog(config) => config.check(),
            Self::Webhook(config) => config.check(),
        }
    }

    /// Looks for what would block the sink, on this machine alone: opens nothing, asks nobody and
    /// changes nothing. Says what the sink will do.
    ///
    /// # Errors
    /// What would block it.
    pub fn examine(&self) -> Result<String, DeliveryError> {
        match self {
            Self::File(config) => config.examine(),
            Self::Elastic(config) => config.examine(),
            Self::Sentinel(config) => config.examine(),
            Self::Splunk(config) => config.examine(),
            Self::Syslog(config) => config.examine(),
            Self::Webhook(config) => config.examine(),
        }
    }
}

/// How a courier delivers to a sink.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// When a batch is full.
    pub batch: BatchLimits,
    /// How many batches may be on their way at once; a sink with bookmarks takes one.
    pub in_flight: usize,
    /// Which events are for it.
    pub route: Route,
    /// True when the sink finds out by itself what it holds: the store need not remember what is on
    /// its way.
    pub is_exact: bool,
    /// True when what may be repeated is single events, and counted as such; else batches are.
    pub counts_events: bool,
}

/// `batch = { events, bytes, wait }`: when a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchLimits {
    /// At most this many events.
    pub events: NonZeroU32,
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
            events: NonZeroU32::new(5000).expect("5000 is not zero"),
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

/// Encoded events on their way, one behind the other.
#[derive(Debug, Default)]
pub struct Batch {
    /// Names the batch for the destination: it stays the same whenever the batch is sent again.
    pub id: Uuid,
    /// The messages' bytes.
    pub bytes: Vec<u8>,
    /// Where each message ends in `bytes`.
    pub ends: Vec<usize>,
}

impl Batch {
    /// The messages, in the order of their events.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

/// What a delivery leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// What became of each message, where that is known for each; none when all were accepted.
    pub verdicts: Option<Vec<Verdict>>,
    /// True when the destination may hold some of what has another verdict than
    /// [`Verdict::Accepted`].
    pub is_ambiguous: bool,
    /// What the sink needs to resume behind this batch.
    pub bookmark: Option<Bookmark>,
}

/// What became of one message of a batch that the destination has taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The destination holds it.
    Accepted,
    /// It does not, but may when it is asked again.
    Retry {
        /// What it said.
        reason: String,
    },
    /// It was not asked: the message comes next.
    Unsent,
    /// It refuses this message.
    Refused {
        /// What it said.
        reason: String,
    },
}

/// Why a batch was not delivered, named for what the courier must do.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Deliver the same batch again, with the same id and bytes.
    #[error("{source}")]
    Retry {
        /// What the destination asked us to wait.
        after: Option<Duration>,
        /// What went wrong.
        source: BoxError,
        /// True when the destination may hold the batch all the same, such as after a time-out.
        is_ambiguous: bool,
    },
    /// Something in the batch, or its size: the courier divides it to find out what.
    #[error("{reason}")]
    Refused {
        /// What the destination said.
        reason: String,
        /// True when it said that there is too much: then no event is suspected but one that is
        /// alone.
        is_size: bool,
    },
    /// No event is at fault: keep everything until somebody has acted.
    #[error("{source}")]
    Blocked {
        /// What is wrong.
        source: BoxError,
        /// What to do.
        hint: Option<String>,
        /// True when what an event says may be the cause after all, as with the 403 of a web
        /// application firewall: then the courier finds out, at the second probe.
        may_be_content: bool,
    },
}

impl DeliveryError {
    /// Something that passes by itself, and has delivered nothing.
    pub fn passing(source: impl Into<BoxError>) -> Self {
        Self::Retry { after: None, source: source.into(), is_ambiguous: false }
    }

    /// Whether the destination may hold the batch all the same.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Retry { is_ambiguous: true, .. })
    }

    /// Something that somebody must mend, and that no event is the cause of.
    pub fn blocked(source: impl Into<BoxError>, hint: impl Into<Option<String>>) -> Self {
        Self::Blocked { source: source.into(), hint: hint.into(), may_be_content: false }
    }
}

/// Why an event cannot be made a message for this sink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unencodable {
    /// What stands against it.
    pub reason: String,
}

/// An event that follows the settled ones, as the sink would send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its number.
    pub seq: Seq,
    /// Its identity.
    pub uid: Uid,
    /// Its bytes in the format asked for.
    pub bytes: Vec<u8>,
}

/// The events that follow the settled ones, for a sink that finds out which of them it holds.
#[async_trait]
pub trait Upcoming: Send {
    /// The next of them, encoded; none when there is no later one.
    async fn next(&mut self, format: Format) -> Result<Option<Encoded>, BoxError>;
}

/// What a sink has found out when it resumes.
#[derive(Debug, PartialEq, Eq)]
pub struct Resumed {
    /// How many of the upcoming events it holds already.
    pub adopted: u64,
    /// Where it stands now.
    pub bookmark: Option<Bookmark>,
}

/// Delivers to one configured destination.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Finds out whether the destination would take events, without sending it any or changing
    /// anything there. Says what the sink will do.
    async fn probe(&self) -> Result<String, DeliveryError>;

    /// Opens the destination and finds out what it holds beyond the bookmark.
    async fn resume(
        &mut self,
        bookmark: Option<&Bookmark>,
        upcoming: &mut dyn Upcoming,
    ) -> Result<Resumed, DeliveryError>;

    /// Appends the event's message to `out`. Pure.
    ///
    /// # Errors
    /// When the event is none that this sink could ever take; `out` may be left with a part of it.
    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable>;

    /// Delivers a batch; what the receipt calls accepted, the destination has promised to keep.
    /// Several may be in flight. Called again with the same batch, it sends the same bytes under the
    /// same id.
    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError>;

    /// Is told that its last bookmark is committed: what an earlier one named is needed no more.
    async fn settled(&self) {}

    /// Opens its destination again, for it may be another by now.
    async fn reopen(&self) {}

    /// Ends what it does in the background; `in_a_hurry` only what cannot be left half-done.
    async fn close(&self, _in_a_hurry: bool) {}
}
