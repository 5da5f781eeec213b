//! The Splunk sink: events posted to an HTTP Event Collector, of Splunk or of LogScale.
//!
//! Promises that where the collector acknowledges, nothing counts as accepted before it is
//! acknowledged; that of a body that is taken in part, no event is sent again that was taken; and that
//! a repeat has the same uid in the indexed field `uid`.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use super::http::{self, Asked, Compress, Connection, Opened};
use super::{Batch, DeliveryError, Receipt, Resumed, Sink, Unencodable, Upcoming, Verdict};
use crate::encode::Format;
use crate::encode::splunk::{Labels, encode};
use crate::event::Event;
use crate::http::{Answer, Request, Wanted};
use crate::position::Bookmark;

mod answer;
mod channel;
mod config;
mod pace;
mod probe;

pub use config::{Ack, Config, Flavor};

use answer::{Meaning, Told};
use channel::{Channel, Polled};
use pace::Pace;

/// Of an answer's body, nothing beyond this is read.
const ANSWER_CAP: usize = 64 << 10;

/// After so many refusals one delivery does not look for more of them: it would be long, and what it
/// knows is lost with it.
const MOST_REFUSALS: usize = 16;

const CHANNEL: HeaderName = HeaderName::from_static("x-splunk-request-channel");

/// Posts to one collector.
pub struct SplunkSink {
    /// The collector; none where the configuration was not checked.
    base: Option<Url>,
    flavor: Flavor,
    ack: Ack,
    format: Format,
    labels: Labels,
    compress: Compress,
    connection: Connection<Session>,
    /// Whether a session has a channel.
    has_acks: Arc<AtomicBool>,
    ack_timeout: Duration,
    pace: Pace,
}

/// What is sent with, besides the client with its cookies: all of it is made anew together, for a
/// load balancer knows by a cookie which indexer has the channel.
struct Session {
    headers: HeaderMap,
    channel: Option<Channel>,
}

type Line = Arc<Opened<Session>>;

/// Why a part of a batch was not sent.
enum Trouble {
    /// The token is one with acknowledgement, or one without, other than was believed.
    Acks(bool, DeliveryError),
    /// Anything else.
    Other(DeliveryError),
}

impl From<DeliveryError> for Trouble {
    fn from(err: DeliveryError) -> Self {
        Self::Other(err)
    }
}

/// What became of a part of a batch: of so many messages from its first.
enum Part {
    /// All of it.
    Accepted,
    /// Those before this one were accepted, this one is refused.
    Bad(usize, String),
}

impl SplunkSink {
    /// A sink that has read no secret yet.
    pub fn new(config: Config) -> Self {
        let has_acks = Arc::new(AtomicBool::new(config.ack == Ack::On));
        let with_channel = Arc::clone(&has_acks);
        Self {
            base: config.url.url(),
            flavor: config.flavor,
            ack: config.ack,
            format: config.format,
            labels: config.labels(),
            compress: config.compress,
            has_acks,
            ack_timeout: config.ack_timeout.duration(),
            pace: Pace::default(),
            connection: Connection::keeping_cookies(config.settings(), move || {
                let channel = with_channel.load(Ordering::Relaxed).then(Channel::default);
                Ok(Session { headers: config.headers()?, channel })
            }),
        }
    }

    fn url(&self, path: &[&str]) -> Result<Url, DeliveryError> {
        let wrong = || DeliveryError::blocked("`url` is not a URL", None);
        let mut url = self.base.clone().ok_or_else(wrong)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["services", "collector"]).extend(path);
        }
        Ok(url)
    }

    /// Sends these messages, once more where it is found out by that whether they are acknowledged.
    async fn send(&self, messages: &[&[u8]]) -> Result<Part, DeliveryError> {
        let mut has_learnt = false;
        loop {
            let line = self.connection.open().await?;
            match self.send_on(&line, messages).await {
                Ok(part) => return Ok(part),
                Err(Trouble::Acks(has_acks, error)) => {
                    self.connection.forget(&line).await;
                    let may_learn = match self.ack {
                        Ack::Auto => true,
                        Ack::On => has_acks,
                        Ack::Off => false,
                    };
                    if !may_learn || has_learnt {
                        return Err(error);
                    }
                    self.has_acks.store(has_acks, Ordering::Relaxed);
                    has_learnt = true;
                }
                Err(Trouble::Other(error)) => {
                    let is_unanswered = line.secrets.channel.is_some() && error.is_ambiguous();
                    if is_unanswered || matches!(error, DeliveryError::Blocked { .. }) {
                        self.connection.forget(&line).await;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// The same on one line. Waits until what was accepted is acknowledged, where it is.
    async fn send_on(&self, line: &Line, messages: &[&[u8]]) -> Result<Part, Trouble> {
        let channel = line.secrets.channel.as_ref();
        let mut answer = self.post(line, channel, messages).await?;
        let told = Told::of(&answer);
        let waits = channel.zip(told.ack);
        match self.meaning(&told, &answer) {
            Meaning::Accepted => self.pace.is_well(),
            Meaning::AcceptedInNeed => self.pace.is_in_need(),
            Meaning::Bad(Some(bad)) if bad < messages.len() => {
                if let Some((channel, ack)) = waits.filter(|_| bad > 0) {
                    self.acknowledged(line, channel, ack).await?;
                }
                told.shown(&mut answer);
                return Ok(Part::Bad(bad, self.asked(&self.url(&[])?).text(&answer)));
            }
            Meaning::WantsChannel => return Err(Trouble::Acks(true, self.refusal(&told, answer))),
            Meaning::WantsNone => return Err(Trouble::Acks(false, self.refusal(&told, answer))),
            _ => return Err(self.refusal(&told, answer).into()),
        }
        match waits {
            Some((channel, ack)) => self.acknowledged(line, channel, ack).await?,
            None if self.ack == Ack::On => {
                let hint = r#"switch indexer acknowledgement on for the token, or `ack = "auto"`"#;
                let text = "the collector acknowledges nothing that is sent with this token";
                return Err(DeliveryError::blocked(text, hint.to_owned()).into());
            }
            None => {}
        }
        Ok(Part::Accepted)
    }

    async fn post(
        &self,
        line: &Line,
        channel: Option<&Channel>,
        messages: &[&[u8]],
    ) -> Result<Answer, DeliveryError> {
        let url = self.url(&["event"])?;
        let (body, compress) = (messages.concat(), self.compress);
        let length = body.len();
        let body = http::offload(length, move || compress.apply(Cow::Owned(body))).await?;
        let mut headers = line.secrets.headers.clone();
        if length > 0 {
            self.compress.announce(&mut headers);
        }
        let request = |headers| Request { method: Method::POST, url, headers, body };
        let Some(channel) = channel else {
            return http::send(&line.client, request(headers), Wanted::Beginning(ANSWER_CAP)).await;
        };
        headers.insert(CHANNEL, channel.header());
        channel.begins();
        let request = request(headers);
        let sent = http::send(&line.client, request, Wanted::Beginning(ANSWER_CAP)).await;
        channel.ends(sent.as_ref().is_err_and(DeliveryError::is_ambiguous));
        sent
    }

    fn meaning(&self, told: &Told, answer: &Answer) -> Meaning {
        match (self.flavor, told.code, answer.status) {
            // That of LogScale has codes of no documented meaning.
            (Flavor::Logscale, _, 200) if !answer.body.trim_ascii_start().starts_with(b"<") => {
                Meaning::Accepted
            }
            (Flavor::Logscale, ..) => Meaning::Status,
            _ => told.meaning(answer.status),
        }
    }

    fn asked<'a>(&self, url: &'a Url) -> Asked<'a> {
        Asked { method: Method::POST, url, compress: self.compress, hint: |_| None }
    }

    /// What the courier is to do about an answer that is not an acceptance.
    fn refusal(&self, told: &Told, mut answer: Answer) -> DeliveryError {
        let url = match self.url(&[]) {
            Ok(url) => url,
            Err(err) => return err,
        };
        let (asked, meaning) = (self.asked(&url), self.meaning(told, &answer));
        told.shown(&mut answer);
        let (text, hint) = (asked.text(&answer), told.hint().map(str::to_owned));
        match meaning {
            Meaning::Busy => {
                self.pace.is_in_need();
                let after = answer.retry_after;
                DeliveryError::Retry { after, source: text.into(), is_ambiguous: false }
            }
            Meaning::Bad(_) => DeliveryError::Refused { reason: text, is_size: false },
            Meaning::Blocked | Meaning::WantsChannel | Meaning::WantsNone => {
                DeliveryError::blocked(text, hint)
            }
            _ => match http::judge(&asked, &answer) {
                Err(DeliveryError::Blocked { source, hint: other, may_be_content }) => {
                    DeliveryError::Blocked { source, hint: hint.or(other), may_be_content }
                }
                Err(other) => other,
                Ok(()) => {
                    let hint =
                        "this is not the answer of a collector: check `url`, `flavor` and `proxy`";
                    DeliveryError::blocked(text, hint.to_owned())
                }
            },
        }
    }

    /// Waits until the collector says that what it was sent under this number is kept.
    async fn acknowledged(
        &self,
        line: &Line,
        channel: &Channel,
        ack: u64,
    ) -> Result<(), DeliveryError> {
        let polled = channel.wait(ack, self.ack_timeout, |acks| self.poll(line, channel, acks));
        let why = match polled.await {
            Polled::Acknowledged => return Ok(()),
            Polled::Late => {
                format!("what was sent is not acknowledged within {} s", self.ack_timeout.as_secs())
            }
            Polled::Lost => "the collector no longer knows what it was sent on the channel".into(),
            Polled::Without => {
                self.has_acks.store(self.ack == Ack::On, Ordering::Relaxed);
                "the token acknowledges nothing any more".into()
            }
        };
        let source = format!("{why}; it is sent again").into();
        Err(DeliveryError::Retry { after: None, source, is_ambiguous: true })
    }

    async fn poll(
        &self,
        line: &Line,
        channel: &Channel,
        acks: Vec<u64>,
    ) -> Result<Answer, DeliveryError> {
        let mut url = self.url(&["ack"])?;
        url.query_pairs_mut().append_pair("channel", &channel.id());
        let mut headers = line.secrets.headers.clone();
        headers.insert(CHANNEL, channel.header());
        let body = serde_json::json!({ "acks": acks }).to_string().into_bytes();
        let request = Request { method: Method::POST, url, headers, body };
        http::send(&line.client, request, Wanted::Whole(1 << 20)).await
    }
}

#[async_trait]
impl Sink for SplunkSink {
    async fn probe(&self) -> Result<String, DeliveryError> {
        probe::probe(self).await
    }

    async fn resume(
        &mut self,
        _bookmark: Option<&Bookmark>,
        _upcoming: &mut dyn Upcoming,
    ) -> Result<Resumed, DeliveryError> {
        self.url(&[])?;
        self.connection.open().await?;
        Ok(Resumed { adopted: 0, bookmark: None })
    }

    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        encode(event, self.format, &self.labels, out);
        Ok(())
    }

    /// A body is taken up to its first bad object: what follows that is sent once more, at once.
    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        self.pace.wait().await;
        let messages: Vec<&[u8]> = batch.messages().collect();
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(messages.len());
        let mut refusals = 0;
        while verdicts.len() < messages.len() {
            let rest = &messages[verdicts.len()..];
            let (accepted, refused) = match self.send(rest).await {
                Ok(Part::Accepted) => (rest.len(), None),
                Ok(Part::Bad(bad, reason)) => (bad, Some(reason)),
                Err(err) if verdicts.is_empty() => return Err(err),
                Err(err) => {
                    let is_ambiguous = err.is_ambiguous();
                    let retry = Verdict::Retry { reason: err.to_string() };
                    verdicts.resize(messages.len(), retry);
                    return Ok(Receipt { verdicts: Some(verdicts), is_ambiguous, bookmark: None });
                }
            };
            verdicts.resize(verdicts.len() + accepted, Verdict::Accepted);
            if let Some(reason) = refused {
                refusals += 1;
                verdicts.push(Verdict::Refused { reason });
            }
            if refusals >= MOST_REFUSALS {
                let reason = "it waits behind others that are refused".to_owned();
                verdicts.resize(messages.len(), Verdict::Retry { reason });
            }
        }
        let verdicts = (refusals > 0).then_some(verdicts);
        Ok(Receipt { verdicts, ..Receipt::default() })
    }
}

/// The header `Authorization`, which is never shown.
fn authorization(flavor: Flavor, token: &str) -> HeaderValue {
    let scheme = match flavor {
        Flavor::Splunk => "Splunk",
        Flavor::Logscale => "Bearer",
    };
    let value = HeaderValue::from_str(&format!("{scheme} {token}"));
    let mut value = value.expect("a secret is fit for a header");
    value.set_sensitive(true);
    value
}

/// What every request has.
fn headers(flavor: Flavor, token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, authorization(flavor, token))])
}
