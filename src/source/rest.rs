//! The engine: reads any REST API that a preset describes.
//!
//! Promises that asking for the same page again is harmless, and that a secret goes into its own
//! header and nowhere else. Knows no API by name.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use tracing::warn;

use super::preset::{Place, Preset};
use super::records::{self, Shape, TimeFormat, Violation};
use super::{FetchError, Page, Response, Source, remedied};
use crate::http::{self, Answer};
use crate::position::{PageToken, Second, Window, rfc3339};
use crate::secret::{self, Secret, redact};

mod config;
mod refusal;

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
    /// How many records a page of a single second may hold; fewer once they were too large.
    second_limit: AtomicU32,
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
            client_certificate: None,
            proxy: config.proxy.clone(),
            timeout: config.timeout.duration(),
        })?;
        Ok(Self {
            shape: preset.shape(),
            secret: Mutex::new(Some(token.read()?)),
            limit_refused: AtomicBool::new(false),
            second_limit: AtomicU32::new(config.page_size.get()),
            page_size: config.page_size,
            preset,
            base,
            client,
            token,
        })
    }

    /// How many records to ask for; none when the API is not to be told.
    fn limit(&self, window: Window) -> Option<u32> {
        let takes_one =
            self.preset.request.limit.is_some() && !self.limit_refused.load(Ordering::Relaxed);
        let limit = match window.seconds() {
            1 => self.second_limit.load(Ordering::Relaxed),
            _ => self.page_size.get(),
        };
        takes_one.then_some(limit)
    }

    /// A window of one second cannot be halved, but fewer records of it can be asked for at once.
    fn too_much(&self, window: Window, page: Option<&PageToken>, err: FetchError) -> FetchError {
        let limit = self.limit(window).filter(|limit| window.seconds() == 1 && *limit > 1);
        let (Some(limit), FetchError::TooMuch { source }) = (limit, &err) else { return err };
        // What takes too long is no shorter for being asked for in parts.
        if !matches!(source.downcast_ref(), Some(http::Error::TooLarge { .. })) {
            return err;
        }
        self.second_limit.store(limit / 2, Ordering::Relaxed);
        warn!(page_size = limit / 2, error = %source, "One second is too much for a page; asks for smaller ones.");
        // A token is bound to the page size that it was made for.
        let source = source.to_string().into();
        match page {
            Some(_) => FetchError::PageExpired { source },
            None => FetchError::Retry { after: None, source },
        }
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
        limit: Option<u32>,
    ) -> Result<Answer, FetchError> {
        let secret = self.secret().await?;
        let (url, headers) = self.request(window, page, limit, &secret)?;
        match http::get(&self.client, url, headers, BODY_CAP).await {
            Ok(answer) => Ok(answer),
            Err(err @ http::Error::TooLarge { .. }) => {
                Err(FetchError::TooMuch { source: err.into() })
            }
            // In the middle of a window, the same page may come in time when asked again.
            Err(err @ http::Error::Timeout { .. }) if page.is_none() && window.seconds() > 1 => {
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
        limit: Option<u32>,
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
        if let Some((parameter, limit)) = request.limit.as_ref().zip(limit) {
            parameters.push((parameter.place, &parameter.name, limit.to_string()));
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
}

#[async_trait]
impl Source for RestSource {
    async fn fetch(
        &self,
        window: Window,
        page: Option<&PageToken>,
    ) -> Result<Response, FetchError> {
        let limit = self.limit(window);
        let asked = self.ask(window, page, limit).await;
        let mut answer = match asked {
            Err(err @ FetchError::TooMuch { .. }) => return Err(self.too_much(window, page, err)),
            asked => asked?,
        };
        if answer.status == 400 && page.is_none() && limit.is_some() {
            let without = self.ask(window, page, None).await?;
            if without.status == 200 {
                self.limit_refused.store(true, Ordering::Relaxed);
                warn!(page_size = self.page_size, "The API refuses the page size; it is left out.");
            }
            answer = without;
        }
        if answer.status != 200 {
            return Err(self.refusal(&answer, page.is_some()));
        }
        if window.seconds() > 1 {
            // The second that was too large is read.
            self.second_limit.store(self.page_size.get(), Ordering::Relaxed);
        }
        Ok(answer.into())
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
        // The size of pages of a single second is left out: a token that does not fit is refused, and
        // the second begins again.
        let refused = self.limit_refused.load(Ordering::Relaxed);
        let limit = if refused { 0 } else { self.page_size.get() };
        format!("{} {} {limit}", self.base, self.preset.name)
    }

    fn page_caps(&self) -> Vec<usize> {
        let limits = [self.page_size.get(), self.second_limit.load(Ordering::Relaxed)];
        let limits = self.preset.request.limit.as_ref().map(|_| limits).into_iter().flatten();
        let limits = limits.map(|limit| limit as usize);
        self.preset.response.caps.iter().copied().chain(limits).collect()
    }

    async fn confirm_end(&self, window: Window) -> Result<(), FetchError> {
        let Some(limit) = self.limit(window) else { return Err(cut()) };
        // Asked for one less, an API that pages says that there is more.
        let less = if limit > 1 { limit - 1 } else { 2 };
        let answer = self.ask(window, None, Some(less)).await?;
        if answer.status != 200 {
            return Err(self.refusal(&answer, false));
        }
        let page = self.split(&Response::from(answer))?;
        let count = page.records.len() + page.bad.len();
        let is_full = count == less as usize || self.page_caps().contains(&count);
        if page.next.is_none() && is_full { Err(cut()) } else { Ok(()) }
    }
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        let Answer { body, memory, date, elapsed, content_type, .. } = answer;
        Self { body, memory, date, elapsed, content_type }
    }
}

fn cut() -> FetchError {
    let source = "one second fills a whole page, and the API gives no token for more: it cuts its answers without a word";
    FetchError::Violation { source: source.into() }
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
