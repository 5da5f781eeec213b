//! The Splunk sink: events posted to an HTTP Event Collector, of Splunk or of LogScale.
//!
//! Promises that where the collector acknowledges, nothing counts as accepted before it is
//! acknowledged; that of a body that is taken in part, no event is sent again that was taken; and that
//! a repeat has the same uid in the indexed field `uid`.

use std::borrow::Cow;
use std::sync::Arc;

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
use channel::{Channel, Channels, Polled};
use pace::Pace;

/// Of an answer's body, nothing beyond this is read.
const ANSWER_CAP: usize = 64 << 10;

/// After so many refusals and no acceptance, one request does not look for more of them: the courier
/// decides what they mean.
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
    connection: Connection<HeaderMap>,
    channels: Channels,
    pace: Pace,
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
        Self {
            base: config.url.url(),
            flavor: config.flavor,
            ack: config.ack,
            format: config.format,
            labels: config.labels(),
            compress: config.compress,
            channels: Channels::new(config.ack == Ack::On, config.ack_timeout.duration()),
            pace: Pace::default(),
            connection: Connection::keeping_cookies(config.settings(), move || config.headers()),
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

    /// Sends these messages, again on another channel if the first is not known there. Waits until
    /// what was accepted is acknowledged, where it is.
    async fn send(&self, messages: &[&[u8]]) -> Result<Part, DeliveryError> {
        let mut has_learnt = false;
        loop {
            let channel = self.channels.current();
            let answer = self.post(messages, channel.as_deref()).await?;
            let told = Told::of(&answer);
            match self.meaning(&told, &answer) {
                Meaning::Accepted => self.pace.is_well(),
                Meaning::AcceptedInNeed => self.pace.is_in_need(),
                Meaning::Bad(Some(bad)) if bad < messages.len() => {
                    let reason = self.text(&answer)?;
                    if let Some((channel, ack)) = channel.as_ref().zip(told.ack).filter(|_| bad > 0)
                    {
                        self.acknowledged(channel, ack).await?;
                    }
                    return Ok(Part::Bad(bad, reason));
                }
                Meaning::WantsChannel if !has_learnt && self.ack != Ack::Off => {
                    has_learnt = true;
                    self.channels.renew(channel.as_ref());
                    continue;
                }
                _ => return Err(self.refusal(&told, &answer)),
            }
            return match (channel, told.ack) {
                (Some(channel), Some(ack)) => {
                    self.acknowledged(&channel, ack).await.map(|()| Part::Accepted)
                }
                (Some(_), None) if self.ack == Ack::On => Err(DeliveryError::blocked(
                    "the collector acknowledges nothing that is sent with this token",
                    r#"switch indexer acknowledgement on for the token, or `ack = "auto"`"#
                        .to_owned(),
                )),
                _ => Ok(Part::Accepted),
            };
        }
    }

    async fn post(
        &self,
        messages: &[&[u8]],
        channel: Option<&Channel>,
    ) -> Result<Answer, DeliveryError> {
        let url = self.url(&["event"])?;
        let compress = self.compress;
        let body = messages.concat();
        let make = move || compress.apply(Cow::Owned(body));
        let length = messages.iter().map(|message| message.len()).sum();
        let body = http::offload(length, make).await?;
        let asked = self.connection.with(async |opened| {
            let mut headers = opened.secrets.clone();
            if !body.is_empty() {
                self.compress.announce(&mut headers);
            }
            if let Some(channel) = channel {
                headers.insert(CHANNEL, channel.header());
            }
            let request = Request { method: Method::POST, url, headers, body };
            http::send(&opened.client, request, Wanted::Beginning(ANSWER_CAP)).await
        });
        asked.await
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

    fn text(&self, answer: &Answer) -> Result<String, DeliveryError> {
        Ok(self.asked(&self.url(&[])?).text(&readable(answer)))
    }

    /// What the courier is to do about an answer that is not an acceptance.
    fn refusal(&self, told: &Told, answer: &Answer) -> DeliveryError {
        let url = match self.url(&[]) {
            Ok(url) => url,
            Err(err) => return err,
        };
        let (asked, readable) = (self.asked(&url), readable(answer));
        let text = asked.text(&readable);
        match self.meaning(told, answer) {
            Meaning::Busy => DeliveryError::Retry {
                after: answer.retry_after,
                source: text.into(),
                is_ambiguous: false,
            },
            Meaning::Bad(_) => DeliveryError::Refused { reason: text, is_size: false },
            Meaning::Blocked | Meaning::WantsChannel => {
                DeliveryError::blocked(text, told.hint().map(str::to_owned))
            }
            _ => match http::judge(&asked, &readable) {
                Err(DeliveryError::Blocked { source, hint, may_be_content }) => {
                    let hint = told.hint().map(str::to_owned).or(hint);
                    DeliveryError::Blocked { source, hint, may_be_content }
                }
                Err(other) => other,
                Ok(()) => DeliveryError::blocked(
                    text,
                    "this is not the answer of a collector: check `url`, `flavor` and `proxy`"
                        .to_owned(),
                ),
            },
        }
    }

    /// Waits until the collector says that what it was sent under this number is kept.
    async fn acknowledged(&self, channel: &Arc<Channel>, ack: u64) -> Result<(), DeliveryError> {
        let ask = |acks: Vec<u64>| async move {
            let asked = self.connection.with(|opened| self.poll(opened, channel, acks));
            asked.await
        };
        match channel.wait(ack, self.channels.patience(), ask).await {
            Polled::Acknowledged => Ok(()),
            Polled::Never => {
                if self.ack == Ack::Auto && channel.is_without() {
                    self.channels.leave(channel);
                } else {
                    self.channels.renew(Some(channel));
                }
                let seconds = self.channels.patience().as_secs();
                Err(DeliveryError::Retry {
                    after: None,
                    source: format!(
                        "what was sent is not acknowledged within {seconds} s, or the collector no longer knows the channel; it is sent again on a new one"
                    )
                    .into(),
                    is_ambiguous: true,
                })
            }
        }
    }

    async fn poll(
        &self,
        opened: Arc<Opened<HeaderMap>>,
        channel: &Channel,
        acks: Vec<u64>,
    ) -> Result<Answer, DeliveryError> {
        let mut url = self.url(&["ack"])?;
        url.query_pairs_mut().append_pair("channel", &channel.id());
        let mut headers = opened.secrets.clone();
        headers.insert(CHANNEL, channel.header());
        let body = serde_json::json!({ "acks": acks }).to_string().into_bytes();
        let request = Request { method: Method::POST, url, headers, body };
        http::send(&opened.client, request, Wanted::Whole(1 << 20)).await
    }
}

/// The answer with what it says for people, and the code.
fn readable(answer: &Answer) -> Answer {
    let Told { text, code, .. } = Told::of(answer);
    let body = match code {
        Some(code) => format!("{text} (code {code})").into_bytes(),
        None => answer.body.clone(),
    };
    Answer { body, memory: None, ..answer.clone_head() }
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
        let (mut refusals, mut acceptances) = (0, 0);
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
            acceptances += accepted;
            verdicts.resize(verdicts.len() + accepted, Verdict::Accepted);
            if let Some(reason) = refused {
                refusals += 1;
                verdicts.push(Verdict::Refused { reason });
            }
            if refusals >= MOST_REFUSALS && acceptances == 0 {
                let reason = "it waits until it is known why others are refused".to_owned();
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
