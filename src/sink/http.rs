//! What the sinks over HTTP share: their keys, a connection, compression, and what an answer means.
//!
//! Promises that a secret is read at its first use and again after a block, so that a missing one
//! blocks its own sink alone; that no redirect is followed; and that no text holds a secret.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::{Client, Url};
use serde::de::{Deserialize, Deserializer};
use tokio::sync::Mutex;

use super::{BatchLimits, Delivery, DeliveryError, Route};
use crate::http::{self, Answer, Request, Settings, Wanted, url};
use crate::problem::Problem;
use crate::secret;
use crate::units::{Bytes, Span};

mod compress;
mod judge;
mod one_of;

pub use compress::{Compress, offload};
pub use judge::{Asked, judge};
pub use one_of::{OneOf, one_of};

/// What `in_flight` is unless set.
pub const IN_FLIGHT: NonZeroU32 = NonZeroU32::new(4).expect("4 is not zero");

/// What `timeout` is unless set.
pub const TIMEOUT: Span = Span::seconds(30);

/// More requests at once than this would be for a receiver to ask for.
const MOST_IN_FLIGHT: u32 = 64;

/// `batch = { events, bytes, wait }`, with the defaults of a sink over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// At most this many events.
    pub events: NonZeroU32,
    /// At most this many encoded bytes; a single longer event goes alone.
    pub bytes: Bytes,
    /// How long a batch that is not full waits for more.
    pub wait: Span,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            events: NonZeroU32::new(500).expect("500 is not zero"),
            bytes: Bytes::new(900 << 10),
            wait: Span::seconds(1),
        }
    }
}

impl Batch {
    /// The keys that are named, over a sink's own defaults.
    pub fn over<'de, D: Deserializer<'de>>(
        defaults: Self,
        deserializer: D,
    ) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Named {
            events: Option<NonZeroU32>,
            bytes: Option<Bytes>,
            wait: Option<Span>,
        }
        let named = Named::deserialize(deserializer)?;
        Ok(Self {
            events: named.events.unwrap_or(defaults.events),
            bytes: named.bytes.unwrap_or(defaults.bytes),
            wait: named.wait.unwrap_or(defaults.wait),
        })
    }
}

impl From<Batch> for BatchLimits {
    fn from(Batch { events, bytes, wait }: Batch) -> Self {
        Self { events, bytes, wait }
    }
}

/// The keys that every sink over HTTP has in its own table.
#[derive(Clone, Debug)]
pub struct Keys<'a> {
    /// Where to.
    pub url: &'a Address,
    /// The key that says so, and an example of what it says.
    pub url_key: (&'static str, &'static str),
    /// When a batch is full.
    pub batch: Batch,
    /// How many batches may be on their way at once.
    pub in_flight: NonZeroU32,
    /// PEM certificates trusted besides the operating system's.
    pub ca_file: Option<&'a PathBuf>,
    /// PEM: the certificate that we show, its chain and its key.
    pub client_certificate: Option<&'a PathBuf>,
    /// The HTTP proxy; none is used unless it is named here.
    pub proxy: Option<&'a str>,
    /// How long one request may take in all.
    pub timeout: Span,
    /// Which events are for it.
    pub route: &'a Route,
}

impl Keys<'_> {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let in_flight = (self.in_flight.get() > MOST_IN_FLIGHT).then(|| {
            Problem::at("in_flight", format!("`{}` is more than {MOST_IN_FLIGHT}", self.in_flight))
                .hint("it is how many batches may be on their way at once")
        });
        let timeout = self.timeout.is_zero();
        let timeout = timeout.then(|| Problem::at("timeout", "must be more than `0s`"));
        let batch = BatchLimits::from(self.batch).check();
        let proxy = url::check_proxy(self.proxy);
        [self.url.check(self.url_key), batch, in_flight, proxy, timeout]
            .into_iter()
            .flatten()
            .collect()
    }

    /// How the connection is to be made.
    pub fn settings(&self) -> Settings {
        Settings {
            ca_file: self.ca_file.cloned(),
            client_certificate: self.client_certificate.cloned(),
            proxy: self.proxy.map(str::to_owned),
            timeout: self.timeout.duration(),
        }
    }

    /// How the courier is to deliver.
    pub fn delivery(&self, is_exact: bool) -> Delivery {
        Delivery {
            batch: self.batch.into(),
            in_flight: self.in_flight.get() as usize,
            route: self.route.clone(),
            is_exact,
            counts_events: false,
        }
    }
}

/// The URL of a sink. Its path and query may hold a secret: only scheme, host and port are shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// The URL; none when [`Self::check`] finds something wrong.
    pub fn url(&self) -> Option<Url> {
        Url::parse(&self.0).ok().filter(|_| self.fault().is_none())
    }

    /// Scheme, host and port.
    pub fn place(&self) -> String {
        let origin = |url: Url| url.origin().ascii_serialization();
        Url::parse(&self.0).map_or_else(|_| "no URL".to_owned(), origin)
    }

    /// What is wrong with it; with the key that holds it and an example.
    pub fn check(&self, (key, example): (&str, &str)) -> Option<Problem> {
        let hint = format!("the receiver's address, such as \"{example}\"");
        self.fault().map(|text| Problem::at(key, text).hint(hint))
    }

    fn fault(&self) -> Option<&'static str> {
        if self.0.is_empty() {
            return Some("is missing");
        }
        let Ok(parsed) = Url::parse(&self.0) else { return Some("is not a URL") };
        match () {
            () if !url::is_web(&parsed) => Some("is not a URL of the web"),
            () if url::has_user(&parsed) => Some("holds a user name or a password"),
            () if parsed.fragment().is_some() => Some("holds a fragment"),
            () if parsed.scheme() == "http" && !url::is_loopback(&parsed) => {
                Some("would send events unencrypted: plain `http://` is for loopback")
            }
            () => None,
        }
    }

    /// Has every part known that may be a secret, so that a receiver that writes it back does not
    /// have it shown.
    fn register(&self) {
        /// A shorter part of a path is a word, and a shorter path is too.
        const A_KEY: usize = 20;
        const A_PATH: usize = 8;
        let Ok(url) = Url::parse(&self.0) else { return };
        url.query_pairs().for_each(|(_, value)| secret::register(&value));
        let segments = url.path_segments().into_iter().flatten();
        segments.filter(|segment| segment.len() >= A_KEY).for_each(secret::register);
        // As receivers quote it.
        if url.path().len() >= A_PATH {
            secret::register(url.path());
        }
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place())
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        let address = Self(text);
        address.register();
        address
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// Reads what a sink needs besides the client: its secrets, in the form in which they are sent.
type Read<S> = Arc<dyn Fn() -> Result<S, DeliveryError> + Send + Sync>;

/// What a sink delivers with, set up at the first use.
pub struct Connection<S> {
    settings: Settings,
    make: fn(&Settings) -> Result<Client, http::Error>,
    read: Read<S>,
    opened: Mutex<Option<Arc<Opened<S>>>>,
}

/// A client and the secrets to use it with.
pub struct Opened<S> {
    /// The client.
    pub client: Client,
    /// What `read` has given.
    pub secrets: S,
}

impl<S: Send + Sync + 'static> Connection<S> {
    /// A connection that has read nothing yet; `read` may block.
    pub fn new(
        settings: Settings,
        read: impl Fn() -> Result<S, DeliveryError> + Send + Sync + 'static,
    ) -> Self {
        Self { settings, make: http::client, read: Arc::new(read), opened: Mutex::default() }
    }

    /// The same, with a client that keeps cookies.
    pub fn keeping_cookies(
        settings: Settings,
        read: impl Fn() -> Result<S, DeliveryError> + Send + Sync + 'static,
    ) -> Self {
        Self { make: http::client_keeping_cookies, ..Self::new(settings, read) }
    }

    /// Reads secrets and certificates, unless they were read before.
    ///
    /// # Errors
    /// [`DeliveryError::Blocked`] when one of them cannot be read.
    pub async fn open(&self) -> Result<Arc<Opened<S>>, DeliveryError> {
        // Held meanwhile: a secret that is slow to come is asked for once.
        let mut held = self.opened.lock().await;
        if let Some(opened) = &*held {
            return Ok(Arc::clone(opened));
        }
        let (settings, make, read) = (self.settings.clone(), self.make, Arc::clone(&self.read));
        let open = move || {
            let secrets = read()?;
            let client = make(&settings).map_err(|err| no_answer(&err))?;
            Ok(Opened { client, secrets })
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(DeliveryError::passing)?;
        let opened = Arc::new(opened?);
        *held = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Works with it. After the work was blocked, everything is read anew at the next use: the
    /// operator may have put something else there meanwhile.
    ///
    /// # Errors
    /// Those of [`Self::open`] and of the work.
    pub async fn with<T, F>(
        &self,
        work: impl FnOnce(Arc<Opened<S>>) -> F,
    ) -> Result<T, DeliveryError>
    where
        F: Future<Output = Result<T, DeliveryError>>,
    {
        let opened = self.open().await?;
        let done = work(Arc::clone(&opened)).await;
        if matches!(done, Err(DeliveryError::Blocked { .. })) {
            self.forget(&opened).await;
        }
        done
    }

    /// Has everything read anew at the next use, unless that has happened since.
    pub async fn forget(&self, opened: &Arc<Opened<S>>) {
        let mut held = self.opened.lock().await;
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, opened)) {
            *held = None;
        }
    }
}

/// Sends the request and reads the answer, whatever its status.
///
/// # Errors
/// No answer: [`DeliveryError::Blocked`] when that lasts until somebody acts, else
/// [`DeliveryError::Retry`], which tells whether the request may have been received.
pub async fn send(
    client: &Client,
    request: Request,
    wanted: Wanted,
) -> Result<Answer, DeliveryError> {
    http::send(client, request, wanted).await.map_err(|err| no_answer(&err))
}

/// The secret, for a header or a signature.
///
/// # Errors
/// [`DeliveryError::Blocked`] when it cannot be read.
pub fn secret(config: &secret::Config) -> Result<secret::Secret, DeliveryError> {
    config.read().map_err(|err| {
        let hint = err.hint();
        DeliveryError::blocked(err, hint)
    })
}

/// What the courier is to do when there is no answer, or no client.
pub fn no_answer(err: &http::Error) -> DeliveryError {
    let text = secret::redact(&err.to_string());
    if err.is_lasting() {
        return DeliveryError::blocked(text, err.hint().map(str::to_owned));
    }
    let hint = err.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    DeliveryError::Retry {
        after: None,
        source: format!("{text}{hint}").into(),
        is_ambiguous: err.is_ambiguous(),
    }
}

#[cfg(test)]
mod tests;
