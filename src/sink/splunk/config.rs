//! `[sinks.<name>.splunk]`

use std::num::NonZeroU32;
use std::path::PathBuf;

use reqwest::header::HeaderMap;
use serde::{Deserialize, Deserializer};

use super::headers;
use crate::encode::Format;
use crate::encode::splunk::Labels;
use crate::http::{Settings, client};
use crate::problem::Problem;
use crate::secret;
use crate::sink::http::{self, Address, Compress, Keys};
use crate::sink::{Delivery, DeliveryError, From, Route};
use crate::units::{Bytes, Span, word};

/// `[sinks.<name>.splunk]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the collector is; a path before `/services/collector` is kept.
    pub url: Address,
    /// The collector's token.
    pub token: Option<secret::Config>,
    /// The index; unless set, the token's.
    pub index: Option<String>,
    /// The host; unless set, Splunk takes the address of this machine.
    pub host: Option<String>,
    /// The source; unless set, `siemferry`.
    pub source: Option<String>,
    /// The source type; unless set, that of the API, such as `keeper:audit`.
    pub sourcetype: Option<String>,
    /// Whose collector it is.
    #[serde(deserialize_with = "word")]
    pub flavor: Flavor,
    /// Whether acknowledgements are waited for.
    #[serde(deserialize_with = "word")]
    pub ack: Ack,
    /// How long an acknowledgement may take before its batch is sent again.
    pub ack_timeout: Span,
    /// What an event looks like.
    #[serde(deserialize_with = "word")]
    pub format: Format,
    /// When a batch is full.
    #[serde(deserialize_with = "batch")]
    pub batch: http::Batch,
    /// How many batches may be on their way at once, or not acknowledged.
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

/// `flavor`: whose collector it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavor {
    /// Splunk Enterprise or Splunk Cloud.
    #[default]
    Splunk,
    /// LogScale, and Falcon Next-Gen SIEM.
    Logscale,
}

/// `ack`: whether acknowledgements are waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// If the token is one with indexer acknowledgement.
    #[default]
    Auto,
    /// Always: a token without is refused.
    On,
    /// Never.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: Address::default(),
            token: None,
            index: None,
            host: None,
            source: None,
            sourcetype: None,
            flavor: Flavor::default(),
            ack: Ack::default(),
            ack_timeout: Span::minutes(5),
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

/// Splunk Cloud advises no more than 1 MB in a request.
const BATCH: http::Batch = http::Batch {
    events: NonZeroU32::new(1000).expect("1000 is not zero"),
    bytes: Bytes::new(900 << 10),
    wait: Span::seconds(1),
};

fn batch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<http::Batch, D::Error> {
    http::Batch::over(BATCH, deserializer)
}

impl Config {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let query = self.url.url().is_some_and(|url| url.query().is_some());
        let query = query.then(|| Problem::at("url", "holds a query").hint(EXAMPLE_HINT));
        let ends = self.url.url().is_some_and(|url| url.path().contains("/services/collector"));
        let ends = ends.then(|| {
            Problem::at("url", "holds the path of the collector, which is added to it")
                .hint(EXAMPLE_HINT)
        });
        let token = match &self.token {
            None => Some(Problem::at("token", "is missing").hint(
                "where the collector's token is read from, such as { credential = \"hec\" }",
            )),
            // Others are read when they are needed: a daemon may wait for them, a check must not.
            Some(token) if token.is_plain() => {
                token.read().err().map(|err| Problem::at("token", err.to_string()).hint(err.hint()))
            }
            Some(_) => None,
        };
        let labels = [
            ("index", &self.index),
            ("host", &self.host),
            ("source", &self.source),
            ("sourcetype", &self.sourcetype),
        ];
        let labels = labels.into_iter().filter(|(_, value)| value.as_deref() == Some(""));
        let labels =
            labels.map(|(key, _)| Problem::at(key, "is empty").hint("name it, or leave it out"));
        let compress = (self.compress == Compress::Zstd).then(|| {
            Problem::at("compress", "collectors do not read `zstd`").hint("`gzip`, or `none`")
        });
        let ack = (self.flavor == Flavor::Logscale && self.ack == Ack::On)
            .then(|| Problem::at("ack", "LogScale acknowledges nothing").hint("leave `ack` out"));
        let patience = self.ack_timeout.is_zero();
        let patience = patience.then(|| Problem::at("ack_timeout", "must be more than `0s`"));
        let found = [query, ends, token, compress, ack, patience];
        self.keys().check().into_iter().chain(found.into_iter().flatten()).chain(labels).collect()
    }

    /// The secrets it names, each under its key.
    pub fn secrets(&self) -> Vec<(String, &secret::Config)> {
        self.token.iter().map(|token| ("token".to_owned(), token)).collect()
    }

    /// How the courier is to deliver.
    pub fn delivery(&self) -> Delivery {
        self.keys().delivery(false)
    }

    /// Looks for what would block the sink, on this machine alone.
    pub fn examine(&self) -> Result<String, DeliveryError> {
        let is_unseen = self.token.as_ref().is_some_and(secret::Config::is_out_of_reach);
        if !is_unseen {
            self.headers()?;
        }
        client(&self.settings()).map_err(|err| http::no_answer(&err))?;
        let does = format!("delivers to the collector at {}", self.url.place());
        Ok(if is_unseen {
            format!("{does}; not checked, for only the unit has it: `token`")
        } else {
            does
        })
    }

    pub(super) fn settings(&self) -> Settings {
        self.keys().settings()
    }

    pub(super) fn labels(&self) -> Labels {
        Labels {
            index: self.index.clone(),
            host: self.host.clone(),
            source: self.source.clone(),
            sourcetype: self.sourcetype.clone(),
        }
    }

    /// What every request has. Reads the token, which may block.
    pub(super) fn headers(&self) -> Result<HeaderMap, DeliveryError> {
        let missing = || DeliveryError::blocked("`token` is missing", None);
        let token = http::secret(self.token.as_ref().ok_or_else(missing)?)?;
        Ok(headers(self.flavor, token.expose()))
    }

    fn keys(&self) -> Keys<'_> {
        Keys {
            url: &self.url,
            url_key: ("url", "https://hec.example.com:8088"),
            batch: self.batch,
            in_flight: self.in_flight,
            ca_file: self.ca_file.as_ref(),
            client_certificate: self.client_certificate.as_ref(),
            proxy: self.proxy.as_deref(),
            timeout: self.timeout,
            route: &self.route,
        }
    }
}

const EXAMPLE_HINT: &str = r#"scheme, host and port, such as "https://hec.example.com:8088""#;
