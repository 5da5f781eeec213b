//! The engine: reads any REST API that a preset describes.
//!
//! Promises that asking for the same page again is harmless, and that a secret goes into its own
//! header and nowhere else. Knows no API by name.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use serde_json::Value;
use tracing::warn;

use super::preset::{Place, Preset, Reaction};
use super::records::{self, Shape, TimeFormat, Violation};
use super::{FetchError, Page, Response, Source, remedied};
use crate::http::{self, Answer};
use crate::position::{PageToken, Second, Window, rfc3339};
use crate::secret::{self, Secret, redact};

mod config;

pub use config::Config;

/// No body may be larger, after decompression.
const BODY_CAP: usize = 32 << 20;

/// Why a source cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The secret cannot be read.
    #[error("{0}")]
    Secret(#[from] secret::Error),
    /// There can be no HTTP client.
    #[error("{0}")]
    Http(#[from] http::Error),
    /// A setting does not fit the preset.
    #[error("{0}")]
    Setting(String),
}

impl SetupError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Secret(err) => Some(err.hint()),
            Self::Http(err) => err.hint().map(str::to_owned),
            Self::Setting(_) => None,
        }
    }
}

/// A configured API that a preset describes.
pub struct RestSource {
    preset: Preset,
    shape: Shape,
    base: Url,
    page_size: NonZeroU32,
    client: Client,
    token: secret::Config,
    /// Read again after the API has refused it.
    secret: Mutex<Option<Secret>>,
    limit_refused: AtomicBool,
}

impl RestSource {
    /// Sets a source up: reads the secret once, so that a missing one is told at the start.
    ///
    /// # Errors
    /// When the secret or a certificate cannot be read, or a setting does not fit the preset.
    pub fn new(config: &Config, preset: Preset) -> Result<Self, SetupError> {
        let setting = |text: &str| SetupError::Setting(text.to_owned());
        let token = config.token.clone().ok_or_else(|| setting("`token` is missing"))?;
        let region = config.region.as_ref().unwrap_or(&preset.default_region);
        let base = match &config.base_url {
            Some(base) => base,
            None => preset.regions.get(region).ok_or_else(|| setting("`region` is unknown"))?,
        };
        let base = Url::parse(base).map_err(|_| setting("`base_url` is not a URL"))?;
        let client = http::client(&http::Settings {
            ca_file: config.ca_file.clone(),
            proxy: config.proxy.clone(),
            timeout: config.timeout.duration(),
        })?;
        Ok(Self {
            shape: preset.shape(),
            secret: Mutex::new(Some(token.read()?)),
            limit_refused: AtomicBool::new(false),
            page_size: config.page_size,
            preset,
            base,
            client,
            token,
        })
    }

    async fn secret(&self) -> Result<Secret, FetchError> {
        let held = self.secret.lock().expect("no panic while held").clone();
        if let Some(secret) = held {
            return Ok(secret);
        }
        let config = self.token.clone();
        let read = tokio::task::spawn_blocking(move || config.read()).await;
        let secret = match read {
            Ok(Ok(secret)) => secret,
            Ok(Err(err)) => {
                let hint = Some(err.hint());
                return Err(FetchError::Blocked { source: err.into(), hint });
            }
            Err(err) => return Err(FetchError::Retry { after: None, source: err.into() }),
        };
        *self.secret.lock().expect("no panic while held") = Some(secret.clone());
        Ok(secret)
    }

    async fn ask(
        &self,
        window: Window,
        page: Option<&PageToken>,
        limit: bool,
    ) -> Result<Answer, FetchError> {
        let secret = self.secret().await?;
        let (url, headers) = self.request(window, page, limit, &secret)?;
        match http::get(&self.client, url, headers, BODY_CAP).await {
            Ok(answer) => Ok(answer),
            Err(err @ http::Error::TooLarge { .. }) => {
                Err(FetchError::TooMuch { source: err.into() })
            }
            // In the middle of a window, the same page may come in time when asked again.
            Err(err @ http::Error::Timeout { .. }) if page.is_none() => {
                Err(FetchError::TooMuch { source: err.into() })
            }
            Err(err) => {
                let source = remedied(redact(&err.to_string()), err.hint());
                Err(FetchError::Retry { after: None, source })
            }
        }
    }

    fn request(
        &self,
        window: Window,
        page: Option<&PageToken>,
        limit: bool,
        secret: &Secret,
    ) -> Result<(Url, HeaderMap), FetchError> {
        let request = &self.preset.request;
        let mut url = self.base.clone();
        url.set_path(&request.path);
        let mut headers = HeaderMap::new();
        // One second more on each side: whether the API's bounds belong to the span is then no
        // matter, for what is read twice is counted once.
        let start = instant(window.start - 1, request.start.format);
        let end = instant(window.end + 1, request.end.format);
        let mut parameters = vec![
            (request.start.place, &request.start.name, start),
            (request.end.place, &request.end.name, end),
        ];
        if let Some(parameter) = request.limit.as_ref().filter(|_| limit) {
            parameters.push((parameter.place, &parameter.name, self.page_size.to_string()));
        }
        if let Some(token) = page {
            parameters.push((request.token.place, &request.token.name, token.0.clone()));
        }
        for (place, name, value) in parameters {
            match place {
                Place::Query => {
                    url.query_pairs_mut().append_pair(name, &value);
                }
                Place::Header => insert(&mut headers, name, &value, false)?,
            }
        }
        let auth = &self.preset.auth;
        insert(&mut headers, &auth.header, &format!("{}{}", auth.prefix, secret.expose()), true)?;
        insert(&mut headers, "accept", "application/json", false)?;
        Ok((url, headers))
    }

    /// What a status other than 200 means.
    fn refusal(&self, answer: &Answer, with_token: bool) -> FetchError {
        let text = format!(
            "GET {}: {}{}",
            self.preset.request.path,
            status_text(answer.status),
            said(&answer.body).map(|said| format!(": {said}")).unwrap_or_default()
        );
        let rule = self.preset.rule(answer.status, with_token, &answer.body);
        let by_default = match answer.status {
            204 | 408 | 425 | 429 | 500..=599 => Reaction::Retry,
            _ => Reaction::Blocked,
        };
        let text = redact(&text);
        match rule.map_or(by_default, |rule| rule.then) {
            Reaction::Retry => {
                let said = rule.and_then(|rule| rule.wait(&answer.body));
                let source = remedied(text, rule.and_then(|rule| rule.hint.as_deref()));
                FetchError::Retry { after: said.max(answer.retry_after), source }
            }
            Reaction::Expired => FetchError::PageExpired { source: text.into() },
            Reaction::TooMuch => {
                let source = remedied(text, rule.and_then(|rule| rule.hint.as_deref()));
                FetchError::TooMuch { source }
            }
            Reaction::Blocked => {
                // The operator may have put a new one there meanwhile.
                self.secret.lock().expect("no panic while held").take();
                let hint =
                    rule.and_then(|rule| rule.hint.clone()).or_else(|| default_hint(answer.status));
                FetchError::Blocked { source: text.into(), hint }
            }
        }
    }
}

#[async_trait]
impl Source for RestSource {
    async fn fetch(
        &self,
        window: Window,
        page: Option<&PageToken>,
    ) -> Result<Response, FetchError> {
        let limit =
            self.preset.request.limit.is_some() && !self.limit_refused.load(Ordering::Relaxed);
        let mut answer = self.ask(window, page, limit).await?;
        if answer.status == 400 && page.is_none() && limit {
            let without = self.ask(window, page, false).await?;
            if without.status == 200 {
                self.limit_refused.store(true, Ordering::Relaxed);
                warn!(page_size = self.page_size, "The API refuses the page size; it is left out.");
            }
            answer = without;
        }
        if answer.status != 200 {
            return Err(self.refusal(&answer, page.is_some()));
        }
        let Answer { body, date, elapsed, content_type, .. } = answer;
        Ok(Response { body, date, elapsed, content_type })
    }

    fn split(&self, response: &Response) -> Result<Page, FetchError> {
        let violation = |text: String| FetchError::Violation { source: redact(&text).into() };
        let envelope = records::split(&response.body, &self.shape).map_err(|err| {
            let sent_as = response.content_type.as_ref().map(|kind| format!(" (sent as `{kind}`)"));
            let remedy = (err == Violation::Html).then_some(
                "; something in between may have answered: check `base_url` and `proxy`",
            );
            let (sent_as, remedy) = (sent_as.unwrap_or_default(), remedy.unwrap_or_default());
            violation(format!("{err}{sent_as}{remedy}"))
        })?;
        let next = match (envelope.has_more, envelope.token) {
            (Some(false), _) => None,
            (Some(true), None) => {
                return Err(violation(
                    "it says that there is more, and gives no token for it".into(),
                ));
            }
            (_, token) => token.map(PageToken),
        };
        Ok(Page { bytes: envelope.bytes, records: envelope.records, bad: envelope.bad, next })
    }

    fn place(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    fn token_scope(&self) -> String {
        let limit =
            if self.limit_refused.load(Ordering::Relaxed) { 0 } else { self.page_size.get() };
        format!("{} {} {limit}", self.base, self.preset.name)
    }
}

fn instant(second: Second, format: TimeFormat) -> String {
    match format {
        TimeFormat::Rfc3339 => rfc3339(second),
        TimeFormat::EpochSeconds => second.to_string(),
        TimeFormat::EpochMillis => format!("{second}000"),
        TimeFormat::EpochNanos => format!("{second}000000000"),
    }
}

fn insert(
    headers: &mut HeaderMap,
    name: &str,
    value: &str,
    is_secret: bool,
) -> Result<(), FetchError> {
    let refuse = || FetchError::Blocked {
        source: format!("header `{name}` cannot carry this value").into(),
        hint: Some("it may hold no control characters".into()),
    };
    let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| refuse())?;
    value.set_sensitive(is_secret);
    headers.insert(key, value);
    Ok(())
}

fn status_text(status: u16) -> String {
    let reason =
        reqwest::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
    reason.map_or_else(|| status.to_string(), |reason| format!("{status} {reason}"))
}

fn default_hint(status: u16) -> Option<String> {
    (300..400).contains(&status).then(|| {
        "redirects are not followed, for they would carry the token to another host: check `base_url`"
            .to_owned()
    })
}

/// What a refusal says for itself, shortened. Not the body of a good answer: that holds events.
fn said(body: &[u8]) -> Option<String> {
    const MOST_CHARS: usize = 200;
    let text = String::from_utf8_lossy(&body[..body.len().min(64 << 10)]);
    let text = text.trim();
    if text.starts_with('<') {
        return Some("an HTML page".into());
    }
    let json: Option<Value> = serde_json::from_str(text).ok();
    let named = ["/message", "/error", "/0/message", "/0/error", "/error_description", "/detail"];
    let found = json.as_ref().and_then(|json| {
        named.iter().find_map(|pointer| json.pointer(pointer).and_then(Value::as_str))
    });
    // Before it is shortened: a part of a secret is not known as one.
    let said: String = redact(found.unwrap_or(text)).chars().take(MOST_CHARS).collect();
    (!said.is_empty()).then_some(said)
}
