//! What flows: one audit event, as the API sent it, with its identity.
//!
//! Promises that the record's bytes are never parsed into a map and made again:
//! what is stored and forwarded is what was received.

use std::fmt;

use serde::Deserialize;

use crate::position::PageToken;

/// Milliseconds since the Unix epoch, the resolution in which Keeper reports.
pub type Millis = i64;

/// Numbers events in the order in which they were committed; never reused.
pub type Seq = u64;

/// The source and the API of the events that are our own; no source of the configuration may have
/// this name.
pub const OWN_API: &str = "siemferry";

/// The first 128 bits of SHA-256 over a record in canonical form.
///
/// Two records with equal digests are copies of each other, whatever the order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 16]);

/// The event's identity: stable across restarts, hosts and re-reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub [u8; 16]);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One record of a response, ready to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where its bytes are in [`Page::bytes`]; white space outside strings is gone.
    pub span: std::ops::Range<usize>,
    /// What kind of event it says it is (Keeper: `audit_event`).
    pub event_type: Option<Box<str>>,
    /// When it happened, by its own account.
    pub time: Option<Millis>,
    /// What makes it equal to another.
    pub digest: Digest,
}

/// One event of the spool, borrowed from the page it was committed with.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its number.
    pub seq: Seq,
    /// Its identity.
    pub uid: Uid,
    /// When it happened, by its own account.
    pub time: Option<Millis>,
    /// What kind of event it says it is.
    pub event_type: Option<&'a str>,
    /// The record as received.
    pub raw: &'a [u8],
    /// The source that read it.
    pub source: &'a str,
    /// The API's preset, such as `keeper`.
    pub api: &'a str,
    /// When its page was fetched.
    pub received: Millis,
}

/// What a response holds: the unit of commit.
#[derive(Debug, Default)]
pub struct Page {
    /// The records' bytes, one behind the other.
    pub bytes: Vec<u8>,
    /// The good records, in the order of the response.
    pub records: Vec<Record>,
    /// The bad ones: not an object, or not valid UTF-8.
    pub bad: Vec<BadRecord>,
    /// How to get the next page; none on the last.
    pub next: Option<PageToken>,
}

/// A record that cannot be forwarded as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Its bytes, as received.
    pub raw: Vec<u8>,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// What a preset says of how its records repeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    /// Whether paging shows each record once.
    pub paging: Paging,
    /// True when a vendor's id makes every record unlike any other: copies are then never new.
    pub unique: bool,
}

/// Whether records move between the pages of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Paging {
    /// A pass shows each record once.
    #[default]
    Stable,
    /// A record may be shown on two pages of a pass: only copies on one page are proof of copies;
    /// copies across pages count when two passes agree.
    Unstable,
}
