//! PLUG POINT: what events are read from.
//!
//! A source is one effect, [`Source::fetch`], and one pure half, [`Source::split`].
//! It never sees the store, decides nothing about windows, and keeps no position of its own.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::event::Millis;
pub use crate::event::{BadRecord, Page};
use crate::http::Memory;
use crate::position::{PageToken, Window};
use crate::problem::Problem;
use crate::secret;
use preset::Preset;

pub mod identity;
pub mod json;
pub mod preset;
pub mod records;
pub mod rest;

/// An error of any library, for the text of our own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// `[sources.<name>.<kind>]`: which API it is, and how it is read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Config {
    /// The Keeper Security Admin REST API.
    Keeper(rest::Config),
}

impl Config {
    /// The kind's name, as the configuration has it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Keeper(_) => "keeper",
        }
    }

    /// Where the API token is read from.
    pub const fn secret(&self) -> Option<&secret::Config> {
        match self {
            Self::Keeper(config) => config.token.as_ref(),
        }
    }

    /// What is wrong beyond the form of single values; keys are those below the kind.
    pub fn check(&self, now: DateTime<Utc>) -> Vec<Problem> {
        match self {
            Self::Keeper(config) => {
                let regions = self.preset().regions;
                config.check(&regions.keys().map(String::as_str).collect::<Vec<_>>(), now)
            }
        }
    }

    /// The description of the API.
    pub fn preset(&self) -> Preset {
        match self {
            Self::Keeper(_) => Preset::keeper(),
        }
    }

    /// How it is read.
    pub const fn rest(&self) -> &rest::Config {
        match self {
            Self::Keeper(config) => config,
        }
    }
}

/// One response of the API, as received and decoded.
#[derive(Debug)]
pub struct Response {
    /// The body, decompressed.
    pub body: Vec<u8>,
    /// Needed while the body is kept.
    pub memory: Memory,
    /// The server's `Date`, if it sent one.
    pub date: Option<Millis>,
    /// How long the request took, from its first byte to the last of the answer.
    pub elapsed: Duration,
    /// What the server said that the body is.
    pub content_type: Option<String>,
}

/// Why a page could not be had, named for what the poller must do.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Ask for the same page again, no sooner than `after`.
    #[error("{source}")]
    Retry {
        /// What the server asked us to wait.
        after: Option<Duration>,
        /// What went wrong.
        source: BoxError,
    },
    /// The same, for it was asked too often: ask slower from now on.
    #[error("{source}")]
    Throttled {
        /// What the server asked us to wait.
        after: Option<Duration>,
        /// What it answered.
        source: BoxError,
    },
    /// Start again, as a new pass.
    #[error("the page token has expired: {source}")]
    PageExpired {
        /// What the server answered.
        source: BoxError,
    },
    /// The window is too big for the API: halve it.
    #[error("the window is too big for the API: {source}")]
    TooMuch {
        /// What the server answered.
        source: BoxError,
    },
    /// The answer breaks the API's contract: no progress, ask again with back-off, tell the operator.
    #[error("the answer breaks the API's contract: {source}")]
    Violation {
        /// What was seen.
        source: BoxError,
    },
    /// A credential, a permission, the configuration: somebody must act.
    #[error("{source}")]
    Blocked {
        /// What the server answered, or what could not be read.
        source: BoxError,
        /// What to do.
        hint: Option<String>,
    },
}

impl FetchError {
    /// What went wrong and what to do about it, apart.
    pub fn told(&self) -> (String, Option<String>) {
        let text = self.to_string();
        let source = match self {
            Self::Blocked { hint, .. } => return (text, hint.clone()),
            Self::Retry { source, .. }
            | Self::Throttled { source, .. }
            | Self::PageExpired { source }
            | Self::TooMuch { source }
            | Self::Violation { source } => source,
        };
        match source.downcast_ref::<Remedied>() {
            Some(told) => {
                let before = text.strip_suffix(&told.to_string()).unwrap_or_default();
                (format!("{before}{}", told.text), Some(told.hint.clone()))
            }
            None => (text, None),
        }
    }
}

/// An error that passes by itself, and what to do when it does not: one text in a log and in
/// `status`.
#[derive(Debug, thiserror::Error)]
#[error("{text} ({hint})")]
pub struct Remedied {
    /// What went wrong.
    pub text: String,
    /// What to do.
    pub hint: String,
}

/// The error, with its remedy if there is one.
fn remedied(text: String, hint: Option<&str>) -> BoxError {
    match hint {
        Some(hint) => Remedied { text, hint: hint.to_owned() }.into(),
        None => text.into(),
    }
}

/// Reads one configured API of one tenant.
#[async_trait]
pub trait Source: Send + Sync {
    /// Fetches one page of `window`. Asking again for the same page is harmless.
    async fn fetch(&self, window: Window, page: Option<&PageToken>)
    -> Result<Response, FetchError>;

    /// Splits a body into records and finds the next page. Pure.
    fn split(&self, response: &Response) -> Result<Page, FetchError>;

    /// The numbers of records at which an answer may have been cut without a word.
    fn page_caps(&self) -> Vec<usize> {
        Vec::new()
    }

    /// Finds out whether the only page of a window of one second, as full as pages get, is whole.
    ///
    /// # Errors
    /// [`FetchError::Violation`] when the API cuts answers and does not say so.
    async fn confirm_end(&self, window: Window) -> Result<(), FetchError> {
        let _ = window;
        Ok(())
    }

    /// The scheme and host that are asked, to show.
    fn place(&self) -> String;

    /// What a page token is bound to: host, preset and page size. A token is resumed only while
    /// this stays the same.
    fn token_scope(&self) -> String;
}
