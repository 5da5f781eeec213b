//! `check --online`: what the collector says of its health, and of a request without an event.

use reqwest::Method;

use super::answer::{Meaning, Told};
use super::{ANSWER_CAP, Ack, Channel, Flavor, Line, SplunkSink};
use crate::http::{Answer, Request, Wanted};
use crate::sink::{DeliveryError, http};

/// "No data": the token is good, and nothing was sent.
const NO_DATA: u32 = 5;

/// Says what the sink will do.
///
/// # Errors
/// What would keep it from that.
pub async fn probe(sink: &SplunkSink) -> Result<String, DeliveryError> {
    let place = sink.url(&[])?.origin().ascii_serialization();
    let line = sink.connection.open().await?;
    if sink.flavor == Flavor::Logscale {
        let answer = sink.post(&line, None, &[]).await?;
        return match answer.status {
            // What it says to no event at all is not documented.
            200..=299 | 400 => Ok(format!(
                "{place} answers and knows the token; `siemferry send-test` shows whether it takes events"
            )),
            _ => Err(sink.refusal(&Told::of(&answer), answer)),
        };
    }
    healthy(sink, &line).await?;
    let mut channel = (sink.ack == Ack::On).then(Channel::default);
    let mut answer = sink.post(&line, channel.as_ref(), &[]).await?;
    if sink.meaning(&Told::of(&answer), &answer) == Meaning::WantsChannel && sink.ack == Ack::Auto {
        channel = Some(Channel::default());
        answer = sink.post(&line, channel.as_ref(), &[]).await?;
    }
    let told = Told::of(&answer);
    if told.code != Some(NO_DATA) {
        return Err(sink.refusal(&told, answer));
    }
    let with = match (channel, sink.ack) {
        (Some(_), Ack::On) => "with acknowledgement, as configured",
        (Some(_), _) => "with acknowledgement, for the token has it",
        (None, _) => "without acknowledgement",
    };
    Ok(format!("{place} takes events with this token, {with}"))
}

async fn healthy(sink: &SplunkSink, line: &Line) -> Result<(), DeliveryError> {
    let answer = health(sink, line).await?;
    let told = Told::of(&answer);
    match told.meaning(answer.status) {
        Meaning::Busy => Err(match sink.refusal(&told, answer) {
            DeliveryError::Retry { source, after, is_ambiguous } => {
                let hint = told.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                let source = format!("{source}{hint}").into();
                DeliveryError::Retry { source, after, is_ambiguous }
            }
            other => other,
        }),
        // Whoever keeps this path from others may take events all the same.
        _ => Ok(()),
    }
}

async fn health(sink: &SplunkSink, line: &Line) -> Result<Answer, DeliveryError> {
    let (url, headers) = (sink.url(&["health"])?, line.secrets.headers.clone());
    let request = Request { method: Method::GET, url, headers, body: Vec::new() };
    http::send(&line.client, request, Wanted::Beginning(ANSWER_CAP)).await
}
