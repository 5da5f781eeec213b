//! The Microsoft Sentinel sink: rows posted to a stream of the Azure Monitor Logs Ingestion API.
//!
//! Promises that no request is larger than the API takes, before compression and after; that nothing
//! but 204 counts as accepted; and that no row has a member that the stream would discard, as far as
//! the stream is that of the profile. The API knows no repeats: an event's uid is in its row, so that
//! a query can remove them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{SecondsFormat, TimeDelta, Utc};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use tokio::time::Instant;
use tracing::{Span, warn};

use super::http::{self, Compress, Connection};
use super::{Batch, DeliveryError, Receipt, Resumed, Sink, Unencodable, Upcoming, Verdict};
use crate::encode::sentinel::{OLDEST, Profile, time_of};
use crate::event::Event;
use crate::http::{Answer, Request, Wanted};
use crate::position::Bookmark;

mod auth;
mod cloud;
mod config;
mod refusal;
mod schema;
mod token;

pub use auth::Auth;
pub use cloud::Cloud;
pub use config::Config;

use refusal::{Refusal, Target};
use token::{Token, Tokens};

/// Of an answer's body, nothing beyond this is read.
const ANSWER_CAP: usize = 64 << 10;

/// So long a role assignment takes to be known everywhere.
/// (learn.microsoft.com/azure/azure-monitor/logs/tutorial-logs-ingestion-code#troubleshooting)
const ROLE_TAKES: Duration = Duration::from_secs(30 * 60);

/// The tables that have a limit take rows of no longer a time in one request.
const HALF_AN_HOUR: i64 = 30 * 60;

/// Posts to one stream of one data collection rule.
pub struct SentinelSink {
    /// None where the configuration was not checked.
    url: Option<Url>,
    target: Target,
    profile: Profile,
    compress: Compress,
    schema: Option<PathBuf>,
    connection: Connection<()>,
    tokens: Option<Tokens>,
    /// Since when the role is missing.
    forbidden: std::sync::Mutex<Option<Instant>>,
    /// True from when the table has refused rows of more than half an hour.
    is_narrow: AtomicBool,
    /// True from when it was told that Azure gives old events another time.
    has_warned: AtomicBool,
    /// Of the courier, so that what is told names the sink.
    span: Span,
}

/// Why rows were not accepted.
enum Failure {
    /// They are of more than half an hour, and the table takes no more.
    TooWide,
    /// Anything else.
    Other(DeliveryError),
}

impl From<DeliveryError> for Failure {
    fn from(err: DeliveryError) -> Self {
        Self::Other(err)
    }
}

impl SentinelSink {
    /// A sink that has read no secret yet.
    pub fn new(config: &Config) -> Self {
        let settings = config.settings();
        Self {
            url: config.url(),
            target: config.target(),
            profile: config.profile,
            compress: config.compress,
            schema: config.schema.clone(),
            connection: Connection::new(settings.clone(), || Ok(())),
            tokens: config.tokens(),
            forbidden: std::sync::Mutex::default(),
            is_narrow: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
            span: Span::current(),
        }
    }

    fn place(&self) -> Result<(&Url, &Tokens), DeliveryError> {
        let wrong = || DeliveryError::blocked("neither `endpoint` nor `auth` is right", None);
        self.url.as_ref().zip(self.tokens.as_ref()).ok_or_else(wrong)
    }

    /// Posts a body. A token that is refused is renewed once. The token is returned too: while it is
    /// held, no text shows it, should the answer repeat it.
    async fn post(&self, id: &str, body: Vec<u8>) -> Result<(Answer, Token), DeliveryError> {
        let (_, tokens) = self.place()?;
        let token = tokens.get().await?;
        let answer = self.ask(id, &token, body.clone()).await?;
        if answer.status != 401 {
            return Ok((answer, token));
        }
        tokens.refused(&token).await;
        let token = tokens.get().await?;
        let answer = self.ask(id, &token, body).await?;
        if answer.status == 401 {
            // What comes after the block is to be the operator's, not what we hold.
            tokens.refused(&token).await;
        }
        Ok((answer, token))
    }

    async fn ask(&self, id: &str, token: &Token, body: Vec<u8>) -> Result<Answer, DeliveryError> {
        let (url, _) = self.place()?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, token.header());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let id = HeaderValue::from_str(id).expect("digits and letters");
        headers.insert("x-ms-client-request-id", id);
        self.compress.announce(&mut headers);
        let request = Request { method: Method::POST, url: url.clone(), headers, body };
        let asked = self.connection.with(|opened| async move {
            http::send(&opened.client, request, Wanted::Beginning(ANSWER_CAP)).await
        });
        asked.await
    }

    /// Sends rows, the first of which begins with a comma.
    async fn send(&self, id: &str, rows: Vec<u8>) -> Result<(), Failure> {
        let (length, compress) = (rows.len(), self.compress);
        let make = move || compress.apply(array_of(rows).into());
        let body = http::offload(length, make).await?;
        let (mut answer, _token) = self.post(id, body).await?;
        self.judge(&mut answer)
    }

    fn judge(&self, answer: &mut Answer) -> Result<(), Failure> {
        if answer.status == 204 {
            *self.forbidden() = None;
            return Ok(());
        }
        let refusal = Refusal::of(answer);
        if refusal.is_too_wide() {
            return Err(Failure::TooWide);
        }
        let error = refusal.judge(&self.target, answer, self.compress);
        if answer.status == 403 && refusal.is_azures() {
            let since = *self.forbidden().get_or_insert_with(Instant::now);
            if since.elapsed() < ROLE_TAKES {
                return Err(Failure::Other(refusal::patient(error)));
            }
        }
        Err(Failure::Other(error))
    }

    fn forbidden(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.forbidden.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sends the rows of each half hour in a request of their own, until one is not accepted.
    async fn send_by_time(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        let id = batch.id.to_string();
        let mut parts: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (at, message) in batch.messages().enumerate() {
            parts.entry(half_hour(message)).or_default().push(at);
        }
        let messages: Vec<&[u8]> = batch.messages().collect();
        let later = || Verdict::Retry { reason: "it waits for another part of its batch".into() };
        let mut verdicts: Vec<Verdict> = messages.iter().map(|_| later()).collect();
        let mut is_first = true;
        for part in parts.into_values() {
            let rows = part.iter().map(|at| messages[*at]).collect::<Vec<_>>().concat();
            match self.send(&id, rows).await {
                Ok(()) => part.iter().for_each(|at| verdicts[*at] = Verdict::Accepted),
                Err(failure) if is_first => return Err(failure.told()),
                Err(failure) => {
                    let error = failure.told();
                    let is_ambiguous = error.is_ambiguous();
                    for verdict in &mut verdicts {
                        if let Verdict::Retry { reason } = verdict {
                            *reason = error.to_string();
                        }
                    }
                    return Ok(Receipt { verdicts: Some(verdicts), is_ambiguous, bookmark: None });
                }
            }
            is_first = false;
        }
        Ok(Receipt::default())
    }

    /// Tells, once, that Azure gives old events another time.
    fn warn_of_age(&self, batch: &Batch) {
        let oldest = Utc::now() - TimeDelta::milliseconds(OLDEST);
        let oldest = oldest.to_rfc3339_opts(SecondsFormat::Millis, true);
        let is_old = |message: &[u8]| time_of(message).is_some_and(|time| time < oldest.as_str());
        if !self.has_warned.load(Ordering::Relaxed) && batch.messages().any(is_old) {
            self.has_warned.store(true, Ordering::Relaxed);
            let column = match self.profile {
                Profile::KeeperSolution => "Timestamp",
                Profile::Full => "EventTime",
            };
            let _entered = self.span.enter();
            warn!(
                column,
                "Events are over two days old: Azure sets their TimeGenerated to when it receives them; their own time is in another column."
            );
        }
    }
}

impl Failure {
    fn told(self) -> DeliveryError {
        match self {
            Self::Other(error) => error,
            Self::TooWide => DeliveryError::blocked(
                "Azure refuses rows of less than half an hour as too long a time",
                "check the transformation of the rule: it may set another TimeGenerated".to_owned(),
            ),
        }
    }
}

/// The number of the half hour that a message is of, since the epoch.
fn half_hour(message: &[u8]) -> i64 {
    let time = time_of(message).and_then(|time| chrono::DateTime::parse_from_rfc3339(time).ok());
    time.map_or(0, |time| time.timestamp().div_euclid(HALF_AN_HOUR))
}

/// The body: an array of the rows, of which each begins with a comma.
fn array_of(mut rows: Vec<u8>) -> Vec<u8> {
    match rows.first_mut() {
        Some(comma) => *comma = b'[',
        None => rows.push(b'['),
    }
    rows.push(b']');
    rows
}

#[async_trait]
impl Sink for SentinelSink {
    async fn probe(&self) -> Result<String, DeliveryError> {
        self.place()?;
        let mismatch = match &self.schema {
            Some(path) => schema::compare(path, &self.target.stream, self.profile)?,
            None => None,
        };
        let id = uuid::Uuid::new_v4().to_string();
        let body = self.compress.apply(b"[]"[..].into()).map_err(DeliveryError::passing)?;
        let (mut answer, _token) = self.post(&id, body).await?;
        let told = Refusal::of(&mut answer).probed(&self.target, &answer, self.compress)?;
        match mismatch {
            Some(mismatch) => Err(mismatch),
            None => Ok(told),
        }
    }

    async fn resume(
        &mut self,
        _bookmark: Option<&Bookmark>,
        _upcoming: &mut dyn Upcoming,
    ) -> Result<Resumed, DeliveryError> {
        let (_, tokens) = self.place()?;
        self.connection.open().await?;
        tokens.get().await?;
        Ok(Resumed { adopted: 0, bookmark: None })
    }

    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        self.profile.encode(event, out);
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        self.warn_of_age(batch);
        if !self.is_narrow.load(Ordering::Relaxed) {
            match self.send(&batch.id.to_string(), batch.bytes.clone()).await {
                Ok(()) => return Ok(Receipt::default()),
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::TooWide) => self.is_narrow.store(true, Ordering::Relaxed),
            }
        }
        self.send_by_time(batch).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_an_array() {
        assert_eq!(array_of(br#",{"a":1},{"b":2}"#.to_vec()), br#"[{"a":1},{"b":2}]"#);
        assert_eq!(array_of(Vec::new()), b"[]");
    }

    #[test]
    fn rows_of_one_half_hour_are_one_part() {
        let of = |time: &str| half_hour(format!(r#",{{"TimeGenerated":"{time}","#).as_bytes());

        assert_eq!(of("2026-01-02T03:00:00.000Z"), of("2026-01-02T03:29:59.999Z"));
        assert_eq!(of("2026-01-02T03:30:00.000Z"), of("2026-01-02T03:29:59.999Z") + 1);
        assert_eq!(of("1969-12-31T23:59:59.999Z"), -1);
    }
}
