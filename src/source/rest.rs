//! The engine that reads any REST API a preset describes.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::Deserialize;

use crate::secret;
use crate::units::{Span, Start};

/// `[sources.<name>.keeper]`, and of every other API that a preset describes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which of the preset's hosts; `base_url` instead names any host.
    pub region: Option<String>,
    /// The API's scheme, host and port, such as `https://keepersecurity.com`.
    pub base_url: Option<String>,
    /// The API token.
    pub token: Option<secret::Config>,
    /// Part of every event's uid; the source's name unless set.
    pub tenant: Option<String>,
    /// How far back the first run reads.
    pub start: Start,
    /// How often the newest events are asked for.
    pub poll_every: Span,
    /// The ages at which the same time is read again.
    pub resweep: Vec<Span>,
    /// How far behind the server's clock the head stays.
    pub lag: Span,
    /// How many events a page may hold.
    pub page_size: NonZeroU32,
    /// The longest window asked for.
    pub max_window: Span,
    /// PEM certificates trusted besides the operating system's.
    pub ca_file: Option<PathBuf>,
    /// The HTTP proxy; none is used unless it is named here.
    pub proxy: Option<String>,
    /// How long one request may take in all.
    pub timeout: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: None,
            base_url: None,
            token: None,
            tenant: None,
            start: Start::ago(Span::days(30)),
            poll_every: Span::seconds(30),
            resweep: vec![
                Span::minutes(1),
                Span::minutes(4),
                Span::minutes(15),
                Span::hours(1),
                Span::hours(24),
            ],
            lag: Span::seconds(0),
            page_size: NonZeroU32::new(1000).expect("1000 is not zero"),
            max_window: Span::days(1),
            ca_file: None,
            proxy: None,
            timeout: Span::seconds(60),
        }
    }
}
