//! `[sinks.<name>.sentinel]`

use std::num::NonZeroU32;
use std::path::PathBuf;

use reqwest::Url;
use serde::{Deserialize, Deserializer};

use super::cloud::Place;
use super::refusal::Target;
use super::token::Tokens;
use super::{Auth, Cloud, schema};
use crate::encode::sentinel::Profile;
use crate::http::{Settings, client};
use crate::problem::Problem;
use crate::secret;
use crate::sink::http::{self, Address, Compress, Keys};
use crate::sink::{Delivery, DeliveryError, From, Route};
use crate::units::{Bytes, Span, word};

/// The API takes 1 MB of a body, compressed or not; some room for what we do not know of.
const MOST_BYTES: u64 = 950_000;

/// `[sinks.<name>.sentinel]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The logs ingestion endpoint, of the rule itself or of a data collection endpoint.
    pub endpoint: Address,
    /// The immutable id of the data collection rule.
    pub rule: String,
    /// The stream of the rule.
    pub stream: String,
    /// Which columns a row has.
    #[serde(deserialize_with = "word")]
    pub profile: Profile,
    /// Which of Microsoft's clouds it is.
    #[serde(deserialize_with = "word")]
    pub cloud: Cloud,
    /// Where tokens come from, instead of where the cloud says.
    pub authority: Option<String>,
    /// What a token is asked for, instead of what the cloud says.
    pub scope: Option<String>,
    /// What Microsoft Entra knows the daemon by.
    pub auth: Option<Auth>,
    /// A file with the stream's declaration, which the rows are compared with.
    pub schema: Option<PathBuf>,
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
            endpoint: Address::default(),
            rule: String::new(),
            stream: String::new(),
            profile: Profile::default(),
            cloud: Cloud::default(),
            authority: None,
            scope: None,
            auth: None,
            schema: None,
            batch: BATCH,
            in_flight: http::IN_FLIGHT,
            compress: Compress::default(),
            ca_file: None,
            proxy: None,
            timeout: http::TIMEOUT,
            route: Route::default(),
            from: From::default(),
        }
    }
}

/// The bytes are what ends a batch: a minute may bring 2 GB of them, but only 12,000 requests.
const BATCH: http::Batch = http::Batch {
    events: NonZeroU32::new(5000).expect("5000 is not zero"),
    bytes: Bytes::new(MOST_BYTES),
    wait: Span::seconds(1),
};

fn batch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<http::Batch, D::Error> {
    http::Batch::over(BATCH, deserializer)
}

impl Config {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let query = self.endpoint.url().is_some_and(|url| url.query().is_some());
        let query = query.then(|| {
            Problem::at("endpoint", "holds a query")
                .hint("scheme and host alone: the rest is made of `rule` and `stream`")
        });
        let bytes = self.batch.bytes.get() > MOST_BYTES;
        let bytes = bytes.then(|| {
            Problem::at("batch.bytes", format!("is more than {MOST_BYTES} bytes"))
                .hint("the API takes 1 MB in a request, before compression")
        });
        let compress = (self.compress == Compress::Zstd).then(|| {
            Problem::at("compress", "the API does not read `zstd`").hint("`gzip`, or `none`")
        });
        let scope = self.scope.as_ref().filter(|scope| !scope.ends_with("/.default"));
        let scope = scope.map(|_| {
            Problem::at("scope", "does not end with `/.default`")
                .hint(r#"such as "https://monitor.azure.com/.default""#)
        });
        let found = [self.check_rule(), self.check_stream(), query, bytes, compress, scope];
        let auth = match &self.auth {
            Some(auth) => auth.check(),
            None => vec![Problem::at("auth", "is missing").hint(
                "one of `client_secret`, `certificate`, `workload_identity`, `managed_identity` and `arc`",
            )],
        };
        let shared = self.keys().check().into_iter();
        shared
            .chain(found.into_iter().flatten())
            .chain(self.check_authority())
            .chain(auth)
            .collect()
    }

    fn check_rule(&self) -> Option<Problem> {
        let digits = self.rule.strip_prefix("dcr-").unwrap_or_default();
        let is_one = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let text = if self.rule.is_empty() {
            "is missing"
        } else {
            "is no immutable id of a data collection rule"
        };
        (!is_one).then(|| {
            Problem::at("rule", text).hint(
                "`dcr-` and 32 digits: `az monitor data-collection rule show --name … --query immutableId`",
            )
        })
    }

    fn check_stream(&self) -> Option<Problem> {
        let other = match self.profile {
            Profile::KeeperSolution => "Custom-SiemferryEvents",
            Profile::Full => "Custom-KeeperSecurityEventNewLogs",
        };
        if self.stream == other {
            let hint = "nearly every column would vanish: change `stream` or `profile`";
            return Some(Problem::at("stream", "is that of the other profile").hint(hint));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_one = ["Custom-", "Microsoft-"]
            .iter()
            .any(|kind| self.stream.strip_prefix(kind).is_some_and(|name| !name.is_empty()))
            && self.stream.bytes().all(is_plain);
        let text = if self.stream.is_empty() { "is missing" } else { "is no name of a stream" };
        (!is_one).then(|| {
            Problem::at("stream", text).hint(
                "as the rule declares it: `Custom-KeeperSecurityEventNewLogs`, or `Custom-SiemferryEvents` for the profile `full`",
            )
        })
    }

    fn check_authority(&self) -> Option<Problem> {
        let authority = self.authority.as_ref()?;
        match Url::parse(authority) {
            Ok(url) => Place::check(&url),
            Err(_) => Some(
                Problem::at("authority", "is not a URL")
                    .hint(r#"scheme and host, such as "https://login.microsoftonline.com""#),
            ),
        }
    }

    /// The secrets it names, each under its key.
    pub fn secrets(&self) -> Vec<(String, &secret::Config)> {
        self.auth.iter().flat_map(Auth::secrets).collect()
    }

    /// How the courier is to deliver.
    pub fn delivery(&self) -> Delivery {
        let mut delivery = self.keys().delivery(false);
        // An array has one bracket more than there are rows.
        delivery.batch.bytes = Bytes::new(delivery.batch.bytes.get().saturating_sub(1));
        delivery
    }

    /// Looks for what would block the sink, on this machine alone.
    pub fn examine(&self) -> Result<String, DeliveryError> {
        if let Some(path) = &self.schema {
            schema::read(path, &self.stream)?;
        }
        client(&self.settings()).map_err(|err| http::no_answer(&err))?;
        let does = format!("delivers to `{}` at {}", self.stream, self.endpoint.place());
        let unseen: Vec<_> =
            self.secrets().into_iter().filter(|(_, secret)| secret.is_out_of_reach()).collect();
        if let Some((key, _)) = unseen.first() {
            return Ok(format!("{does}; not checked, for only the unit has it: `{key}`"));
        }
        let identity = match self.tokens() {
            Some(tokens) => tokens.examine()?,
            None => return Ok(does),
        };
        Ok(format!("{does}, {identity}"))
    }

    /// Where rows go.
    pub(super) fn target(&self) -> Target {
        Target {
            place: self.endpoint.place(),
            rule: self.rule.clone(),
            stream: self.stream.clone(),
        }
    }

    /// Where rows are posted to.
    pub(super) fn url(&self) -> Option<Url> {
        let mut url = self.endpoint.url()?;
        url.path_segments_mut().ok()?.pop_if_empty().extend([
            "dataCollectionRules",
            &self.rule,
            "streams",
            &self.stream,
        ]);
        url.query_pairs_mut().append_pair("api-version", "2023-01-01");
        Some(url)
    }

    pub(super) fn settings(&self) -> Settings {
        self.keys().settings()
    }

    pub(super) fn tokens(&self) -> Option<Tokens> {
        let authority = match &self.authority {
            Some(authority) => Some(Url::parse(authority).ok()?),
            None => None,
        };
        let place = Place::of(self.cloud, authority.as_ref(), self.scope.as_deref());
        Some(Tokens::new(self.auth.clone()?, place, self.settings()))
    }

    fn keys(&self) -> Keys<'_> {
        Keys {
            url: &self.endpoint,
            url_key: (
                "endpoint",
                "https://keeper-a1b2-westeurope.logs.z1.ingest.monitor.azure.com",
            ),
            batch: self.batch,
            in_flight: self.in_flight,
            ca_file: self.ca_file.as_ref(),
            client_certificate: None,
            proxy: self.proxy.as_deref(),
            timeout: self.timeout,
            route: &self.route,
        }
    }
}
