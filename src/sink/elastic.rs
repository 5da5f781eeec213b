//! The Elasticsearch and OpenSearch sink: documents created by bulk requests, each judged alone.
//!
//! Promises that what is sent again is in an index once: events are only ever created, with their
//! uid as `_id`, and a conflict counts as accepted. Never changes anything else there.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::{Deserialize, Deserializer};

use super::http::{self, Address, Asked, Compress, Connection, Keys, Opened};
use super::{
    Batch, Delivery, DeliveryError, From, Receipt, Resumed, Route, Sink, Unencodable, Upcoming,
};
use crate::encode::{Format, elastic};
use crate::event::Event;
use crate::http::{Answer, Request, Wanted, client};
use crate::position::Bookmark;
use crate::problem::Problem;
use crate::secret;
use crate::units::{Bytes, Span, word};

mod answer;
mod auth;
mod probe;
mod target;

pub use auth::Auth;

use probe::{Presence, Template};
use target::Target;

/// What is left of an answer: order and number of the items stay, for each has a status.
const FILTER: &str = "errors,items.*.status,items.*.error";

/// An answer tells a line about each event of a batch; a longer one is not read.
const ANSWER_CAP: usize = 32 << 20;

/// `[sinks.<name>.elastic]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the cluster is; a path before that of the API is kept.
    pub url: Address,
    /// The index that events go to; `{date}` is the day of the event in UTC.
    pub index: Option<String>,
    /// The data stream that events go to, instead of an index.
    pub data_stream: Option<String>,
    /// How a request proves who sends it; not at all, unless set.
    pub auth: Option<Auth>,
    /// The ingest pipeline that documents go through; none unless it is named here.
    pub pipeline: Option<String>,
    /// What a document looks like.
    #[serde(deserialize_with = "word")]
    pub format: Format,
    /// When a batch is full.
    #[serde(deserialize_with = "batch")]
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
            index: None,
            data_stream: None,
            auth: None,
            pipeline: None,
            format: Format::default(),
            batch: BATCH,
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

/// A bulk request is at its best with some megabytes; four of them at once must fit into memory.
const BATCH: http::Batch = http::Batch {
    events: NonZeroU32::new(2000).expect("2000 is not zero"),
    bytes: Bytes::mebibytes(5),
    wait: Span::seconds(1),
};

fn batch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<http::Batch, D::Error> {
    http::Batch::over(BATCH, deserializer)
}

impl Config {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let query = self.url.url().is_some_and(|url| url.query().is_some());
        let query = query.then(|| {
            Problem::at("url", "holds a query")
                .hint(r#"scheme, host, port and path, such as "https://es.example.com:9200""#)
        });
        let target = self.target().err();
        let pipeline = self.pipeline.as_ref().filter(|name| name.is_empty());
        let pipeline = pipeline.map(|_| {
            Problem::at("pipeline", "is empty").hint("name the ingest pipeline, or leave it out")
        });
        let compress = (self.compress == Compress::Zstd).then(|| {
            Problem::at("compress", "neither Elasticsearch nor OpenSearch reads `zstd`")
                .hint("`gzip` is read by both")
        });
        let auth = self.auth.as_ref().and_then(Auth::check);
        let found = [query, target, auth, pipeline, compress];
        self.keys().check().into_iter().chain(found.into_iter().flatten()).collect()
    }

    fn target(&self) -> Result<Target, Problem> {
        Target::of(self.index.as_deref(), self.data_stream.as_deref())
    }

    /// The secrets it names, each under its key.
    pub fn secrets(&self) -> Vec<(String, &secret::Config)> {
        self.auth.iter().map(Auth::secret).collect()
    }

    /// How the courier is to deliver.
    pub fn delivery(&self) -> Delivery {
        self.keys().delivery(false)
    }

    /// Looks for what would block the sink, on this machine alone.
    pub fn examine(&self) -> Result<String, DeliveryError> {
        let unseen = self.auth.iter().map(Auth::secret);
        let unseen: Vec<_> = unseen.filter(|(_, secret)| secret.is_out_of_reach()).collect();
        if unseen.is_empty() {
            self.headers()?;
        }
        client(&self.keys().settings()).map_err(|err| http::no_answer(&err))?;
        let name = self.index.as_deref().or(self.data_stream.as_deref()).unwrap_or_default();
        let does = format!("delivers into `{name}` at {}", self.url.place());
        Ok(match unseen.first() {
            None => does,
            Some((key, _)) => format!("{does}; not checked, for only the unit has it: `{key}`"),
        })
    }

    fn keys(&self) -> Keys<'_> {
        Keys {
            url: &self.url,
            url_key: ("url", "https://es.example.com:9200"),
            batch: self.batch,
            in_flight: self.in_flight,
            ca_file: self.ca_file.as_ref(),
            client_certificate: self.client_certificate.as_ref(),
            proxy: self.proxy.as_deref(),
            timeout: self.timeout,
            route: &self.route,
        }
    }

    /// What every request has. Reads the secret, which may block.
    fn headers(&self) -> Result<HeaderMap, DeliveryError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(auth) = &self.auth {
            headers.insert(AUTHORIZATION, auth.header()?);
        }
        Ok(headers)
    }
}

/// Delivers into one index, one index per day, or one data stream.
pub struct ElasticSink {
    /// None where the configuration was not checked.
    place: Option<(Url, Target)>,
    format: Format,
    pipeline: Option<String>,
    compress: Compress,
    connection: Connection<HeaderMap>,
}

impl ElasticSink {
    /// A sink that has read no secret yet.
    pub fn new(config: Config) -> Self {
        Self {
            place: config.url.url().zip(config.target().ok()),
            format: config.format,
            pipeline: config.pipeline.clone(),
            compress: config.compress,
            connection: Connection::new(config.keys().settings(), move || config.headers()),
        }
    }

    fn place(&self) -> Result<&(Url, Target), DeliveryError> {
        let wrong = || DeliveryError::blocked("neither `url` nor a target is right", None);
        self.place.as_ref().ok_or_else(wrong)
    }

    async fn post(
        &self,
        url: Url,
        batch: &Arc<Batch>,
        opened: Arc<Opened<HeaderMap>>,
    ) -> Result<Receipt, DeliveryError> {
        let mut headers = opened.secrets.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let id = HeaderValue::from_str(&batch.id.to_string());
        headers.insert("x-opaque-id", id.expect("digits and letters"));
        self.compress.announce(&mut headers);
        let (compress, sent) = (self.compress, Arc::clone(batch));
        let make = move || compress.apply(Cow::Borrowed(&sent.bytes));
        let body = http::offload(batch.bytes.len(), make).await?;
        let request = Request { method: Method::POST, url: url.clone(), headers, body };
        let answer = http::send(&opened.client, request, Wanted::Whole(ANSWER_CAP)).await?;
        let answer = self.good(Method::POST, &url, answer)?;
        answer::judge(&answer.body, batch.ends.len())
    }

    /// The answer, when it is none of a refusal of the whole request.
    fn good(&self, method: Method, url: &Url, mut answer: Answer) -> Result<Answer, DeliveryError> {
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let told = answer::refusal(&answer.body);
        let is_cluster = told.is_some();
        if let Some(told) = told {
            answer.body = told.into_bytes();
        }
        let judged = http::judge(&Asked { method, url, compress: self.compress, hint }, &answer);
        judged.map(|()| answer).map_err(|err| match err {
            // It comes from no firewall that has read the events.
            DeliveryError::Blocked { source, hint, may_be_content: true } if is_cluster => {
                DeliveryError::Blocked { source, hint, may_be_content: false }
            }
            err => err,
        })
    }

    /// Asks without sending anything; any answer is one.
    async fn ask(&self, url: &Url) -> Result<Answer, DeliveryError> {
        let asked = self.connection.with(async |opened| {
            let (headers, body) = (opened.secrets.clone(), Vec::new());
            let request = Request { method: Method::GET, url: url.clone(), headers, body };
            http::send(&opened.client, request, Wanted::Whole(ANSWER_CAP)).await
        });
        asked.await
    }

    /// The list of templates tells what a data stream that is missing would become.
    async fn missing_stream(
        &self,
        base: &Url,
        product: &str,
        name: &str,
    ) -> Result<String, DeliveryError> {
        let url = below(base, ["_index_template"], [("filter_path", probe::TEMPLATES)]);
        let answer = self.ask(&url).await?;
        if answer.status != 200 {
            return Ok(Presence::Unknown.told(product, name));
        }
        probe::missing_stream(product, name, Template::of(name, &answer.body).as_ref())
    }
}

#[async_trait]
impl Sink for ElasticSink {
    async fn probe(&self) -> Result<String, DeliveryError> {
        let (base, target) = self.place()?;
        let url = below(base, [], [("filter_path", probe::ABOUT)]);
        let about = self.ask(&url).await?;
        let product = match about.status {
            // To know the cluster is a privilege that no delivery needs.
            403 => base.origin().ascii_serialization(),
            _ => probe::product(&self.good(Method::GET, &url, about)?.body)?,
        };
        let name = target.at(Utc::now().timestamp_millis());
        let path = probe::path(target, &name);
        let url = below(base, path, [("filter_path", "data_streams.name")]);
        let found = self.ask(&url).await?;
        match Presence::of(found.status) {
            Some(Presence::Missing) if matches!(target, Target::Stream(_)) => {
                self.missing_stream(base, &product, &name).await
            }
            Some(presence) => Ok(presence.told(&product, &name)),
            None => {
                self.good(Method::GET, &url, found)?;
                Ok(Presence::Unknown.told(&product, &name))
            }
        }
    }

    async fn resume(
        &mut self,
        _bookmark: Option<&Bookmark>,
        _upcoming: &mut dyn Upcoming,
    ) -> Result<Resumed, DeliveryError> {
        self.place()?;
        self.connection.open().await?;
        // What the index holds is found out by creating it again.
        Ok(Resumed { adopted: 0, bookmark: None })
    }

    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let daily = self.place.as_ref().and_then(|(_, target)| target.daily());
        elastic::encode(event, self.format, daily, out);
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        let (base, target) = self.place()?;
        let path = target.in_url().into_iter().chain(["_bulk"]);
        let pipeline = self.pipeline.as_deref().map(|name| ("pipeline", name));
        let url = below(base, path, [("filter_path", FILTER)].into_iter().chain(pipeline));
        self.connection.with(|opened| self.post(url, batch, opened)).await
    }
}

fn below<'a>(
    base: &Url,
    path: impl IntoIterator<Item = &'a str>,
    query: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url.query_pairs_mut().extend_pairs(query);
    url
}

/// What to do about a status, where more is known than for any sink over HTTP.
fn hint(status: u16) -> Option<&'static str> {
    match status {
        401 => Some(
            "check `auth`: the cluster does not know this credential, or it is no longer valid",
        ),
        403 => Some(answer::PRIVILEGES),
        404 => {
            Some("check that `url` names the cluster itself, with the path that a proxy has for it")
        }
        _ => None,
    }
}
