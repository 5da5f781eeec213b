//! The webhook sink: batches of events, posted to a URL.
//!
//! Promises that a batch that is sent again has the same bytes and the same id, by which the
//! receiver can know it: only the time and the signature, which tell of the attempt, are new.
//! Follows no redirect, and shows of the URL no more than scheme, host and port.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::http::{self, Address, Asked, Compress, Connection, Keys, Opened};
use super::{
    Batch, Delivery, DeliveryError, From, Receipt, Resumed, Route, Sink, Unencodable, Upcoming,
};
use crate::encode::Format;
use crate::event::Event;
use crate::http::{Answer, Request, Settings, Wanted, client, status_text};
use crate::position::Bookmark;
use crate::problem::Problem;
use crate::secret;
use crate::units::{Bytes, Span, word};

mod headers;
mod signature;

pub use headers::{Header, Headers, names_a_secret};
pub use signature::Signature;

use signature::Key;

/// Of an answer's body, nothing beyond this is read.
const ANSWER_CAP: usize = 64 << 10;

/// `[sinks.<name>.webhook]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where events are posted to.
    pub url: Address,
    /// How a batch becomes a body.
    #[serde(deserialize_with = "word")]
    pub body: Body,
    /// What an event looks like.
    #[serde(deserialize_with = "word")]
    pub format: Format,
    /// Sent with every request.
    pub headers: Headers,
    /// How requests are signed; not at all, unless set.
    pub signature: Option<Signature>,
    /// The statuses that accept a batch; every 2xx, unless set.
    pub accept: Option<Vec<u16>>,
    /// When a batch is full.
    pub batch: http::Batch,
    /// How many batches may be on their way at once.
    pub in_flight: NonZeroU32,
    /// How the body is sent.
    #[serde(deserialize_with = "word")]
    pub compress: Compress,
    /// PEM certificates trusted besides the operating system's.
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate that we show, its chain and its key.
    pub client_certificate: Option<PathBuf>,
    /// The HTTP proxy; none is used unless it is named here.
    pub proxy: Option<String>,
    /// How long one request may take in all.
    pub timeout: Span,
    /// Which events are for it.
    pub route: Route,
    /// Where the sink begins when it is new.
    #[serde(deserialize_with = "word")]
    pub from: From,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: Address::default(),
            body: Body::default(),
            format: Format::default(),
            headers: Headers::default(),
            signature: None,
            accept: None,
            batch: http::Batch::default(),
            in_flight: http::IN_FLIGHT,
            compress: Compress::default(),
            ca_file: None,
            client_certificate: None,
            proxy: None,
            timeout: http::TIMEOUT,
            route: Route::default(),
            from: From::default(),
        }
    }
}

/// `body`: how a batch becomes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// A line for each event.
    #[default]
    Ndjson,
    /// One JSON array of all events.
    Array,
    /// One event, in a request of its own.
    Single,
}

impl Config {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let shared = self.keys().check().into_iter();
        let signature = self.signature.iter().flat_map(Signature::check);
        shared.chain(self.headers.check()).chain(signature).chain(self.check_accept()).collect()
    }

    fn check_accept(&self) -> Option<Problem> {
        let accept = self.accept.as_ref()?;
        let wrong = |text| {
            let hint =
                "the statuses that say that the receiver holds the batch, such as [200, 202]";
            Some(Problem::at("accept", text).hint(hint))
        };
        // A receiver that knows a batch by its id may refuse it as one that it holds already.
        match accept.iter().find(|status| !matches!(status, 200..=299 | 409)) {
            Some(status) => wrong(format!("`{status}` is neither 2xx nor 409")),
            None if accept.is_empty() => wrong("names no status".to_owned()),
            None => None,
        }
    }

    /// The secrets it names, each under its key.
    pub fn secrets(&self) -> Vec<(String, &secret::Config)> {
        let signature = self.signature.iter().flat_map(|signature| &signature.keys);
        let signature = signature.map(|key| ("signature.keys".to_owned(), key));
        self.headers.secrets().chain(signature).collect()
    }

    /// How the courier is to deliver.
    pub fn delivery(&self) -> Delivery {
        let mut delivery = self.keys().delivery(false);
        match self.body {
            Body::Ndjson => {}
            // An array has one bracket more than there are events.
            Body::Array => {
                delivery.batch.bytes = Bytes::new(delivery.batch.bytes.get().saturating_sub(1));
            }
            Body::Single => delivery.batch.events = NonZeroU32::MIN,
        }
        delivery
    }

    /// Looks for what would block the sink, on this machine alone.
    pub fn examine(&self) -> Result<String, DeliveryError> {
        let (mut unseen, mut reach) = (Vec::new(), self.clone());
        unseen.extend(reach.headers.leave_out_of_reach());
        if let Some(signature) = &mut reach.signature {
            let before = signature.keys.len();
            signature.keys.retain(|key| !key.is_out_of_reach());
            if signature.keys.len() < before {
                unseen.push("signature.keys".to_owned());
            }
        }
        reach.ready()?;
        client(&self.settings()).map_err(|err| http::no_answer(&err))?;
        let place = self.url.place();
        Ok(match unseen.as_slice() {
            [] => format!("posts to {place}"),
            _ => format!(
                "posts to {place}; not checked, for only the unit has it: `{}`",
                unseen.join("`, `")
            ),
        })
    }

    fn keys(&self) -> Keys<'_> {
        Keys {
            url: &self.url,
            url_key: ("url", "https://siem.example.com:8443/in"),
            batch: self.batch,
            in_flight: self.in_flight,
            ca_file: self.ca_file.as_ref(),
            client_certificate: self.client_certificate.as_ref(),
            proxy: self.proxy.as_deref(),
            timeout: self.timeout,
            route: &self.route,
        }
    }

    fn settings(&self) -> Settings {
        self.keys().settings()
    }

    /// Reads the secrets. May block.
    fn ready(&self) -> Result<Ready, DeliveryError> {
        let keys = self.signature.iter().flat_map(|signature| signature.keys.iter().enumerate());
        let keys = keys.map(|(index, key)| Key::read(index, key)).collect::<Result<_, _>>()?;
        Ok(Ready { headers: self.headers.read()?, keys })
    }
}

impl Body {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Array | Self::Single => "application/json",
        }
    }

    /// The body of a batch whose messages are those of [`Sink::encode`].
    fn of(self, batch: &Batch) -> Cow<'_, [u8]> {
        if self != Self::Array {
            return Cow::Borrowed(&batch.bytes);
        }
        let mut body = Vec::with_capacity(batch.bytes.len() + 1);
        body.extend_from_slice(&batch.bytes);
        // In place of the comma before the first event.
        body[0] = b'[';
        body.push(b']');
        Cow::Owned(body)
    }
}

/// What is sent with every request, made of secrets.
struct Ready {
    headers: HeaderMap,
    keys: Vec<Key>,
}

/// Posts to one URL.
pub struct WebhookSink {
    url: Option<Url>,
    body: Body,
    format: Format,
    accept: Option<Vec<u16>>,
    compress: Compress,
    connection: Connection<Ready>,
}

impl WebhookSink {
    /// A sink that has read no secret yet.
    pub fn new(config: Config) -> Self {
        Self {
            url: config.url.url(),
            body: config.body,
            format: config.format,
            accept: config.accept.clone(),
            compress: config.compress,
            connection: Connection::new(config.settings(), move || config.ready()),
        }
    }

    fn url(&self) -> Result<&Url, DeliveryError> {
        self.url.as_ref().ok_or_else(|| DeliveryError::blocked("`url` is not a URL", None))
    }

    fn asked<'a>(&self, method: Method, url: &'a Url) -> Asked<'a> {
        Asked { method, url, compress: self.compress, hint }
    }

    async fn post(
        &self,
        url: &Url,
        batch: &Arc<Batch>,
        opened: Arc<Opened<Ready>>,
    ) -> Result<Receipt, DeliveryError> {
        let (id, now) = (batch.id.to_string(), chrono::Utc::now().timestamp());
        let mut headers = opened.secrets.headers.clone();
        let value = |text: &str| HeaderValue::from_str(text).expect("digits and letters");
        headers.insert("idempotency-key", value(&id));
        headers.insert("webhook-id", value(&id));
        headers.insert("webhook-timestamp", value(&now.to_string()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.body.content_type()));
        self.compress.announce(&mut headers);
        let client = opened.client.clone();
        let (sent, shape, compress) = (Arc::clone(batch), self.body, self.compress);
        let make = move || {
            let body = shape.of(&sent);
            // What is signed is what the receiver has after it has undone the compression.
            let signatures = signature::sign(&opened.secrets.keys, &id, now, &body);
            Ok((compress.apply(body)?, signatures))
        };
        let (body, signatures) = http::offload(batch.bytes.len(), make).await?;
        if let Some(signatures) = signatures {
            headers.insert("webhook-signature", value(&signatures));
        }
        let request = Request { method: Method::POST, url: url.clone(), headers, body };
        let answer = http::send(&client, request, Wanted::Beginning(ANSWER_CAP)).await?;
        self.judge(url, &answer).map(|()| Receipt::default())
    }

    fn judge(&self, url: &Url, answer: &Answer) -> Result<(), DeliveryError> {
        let asked = self.asked(Method::POST, url);
        match &self.accept {
            Some(accept) if accept.contains(&answer.status) => Ok(()),
            Some(_) if (200..300).contains(&answer.status) => {
                let hint = "`accept` does not name this status: add it, if it says that the receiver holds the batch";
                Err(DeliveryError::blocked(asked.text(answer), hint.to_owned()))
            }
            _ => http::judge(&asked, answer),
        }
    }
}

#[async_trait]
impl Sink for WebhookSink {
    async fn probe(&self) -> Result<String, DeliveryError> {
        let url = self.url()?;
        let answer = self.connection.with(async |opened| {
            let (headers, body) = (opened.secrets.headers.clone(), Vec::new());
            let request = Request { method: Method::HEAD, url: url.clone(), headers, body };
            http::send(&opened.client, request, Wanted::Beginning(ANSWER_CAP)).await
        });
        let answer = answer.await?;
        let place = url.origin().ascii_serialization();
        let (status, ask) =
            (status_text(answer.status), "`siemferry send-test` shows whether it takes events");
        match http::judge(&self.asked(Method::HEAD, url), &answer) {
            Ok(()) => Ok(format!("{place} answers; {ask}")),
            // Few receivers know this method; those that refuse a credential do so for any.
            Err(_) if matches!(answer.status, 400 | 404..=406 | 411 | 415 | 422 | 501) => {
                Ok(format!("{place} answers, {status} to a request without events; {ask}"))
            }
            Err(err) => Err(err),
        }
    }

    async fn resume(
        &mut self,
        _bookmark: Option<&Bookmark>,
        _upcoming: &mut dyn Upcoming,
    ) -> Result<Resumed, DeliveryError> {
        self.url()?;
        self.connection.open().await?;
        Ok(Resumed { adopted: 0, bookmark: None })
    }

    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        if self.body == Body::Array {
            out.push(b',');
        }
        self.format.encode(event, out);
        if self.body == Body::Ndjson {
            out.push(b'\n');
        }
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        let url = self.url()?;
        self.connection.with(|opened| self.post(url, batch, opened)).await
    }
}

/// What to do about a status, where more is known than for any sink over HTTP.
fn hint(status: u16) -> Option<&'static str> {
    match status {
        401 => Some(
            "the receiver does not take what it was sent: check the secrets in `headers` and `signature`",
        ),
        403 => Some(
            "the receiver does not let us in: check the secrets in `headers` and `signature`, or ask its operator",
        ),
        _ => None,
    }
}
