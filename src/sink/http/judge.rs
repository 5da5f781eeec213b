//! What an answer means for the events that were sent.

use reqwest::{Method, Url};

use super::Compress;
use crate::http::{Answer, said, status_text};
use crate::log::escape;
use crate::secret::redact;
use crate::sink::DeliveryError;

/// No reason is longer.
const MOST_CHARS: usize = 300;

/// What was asked, for the text of a refusal.
pub struct Asked<'a> {
    /// How.
    pub method: Method,
    /// Where; only its scheme, host and port are shown.
    pub url: &'a Url,
    /// How the body was sent.
    pub compress: Compress,
    /// What to do about a status, where the sink knows better.
    pub hint: fn(u16) -> Option<&'static str>,
}

/// Decides by the status what becomes of the batch.
///
/// # Errors
/// What the courier is to do about any status but 2xx.
pub fn judge(asked: &Asked<'_>, answer: &Answer) -> Result<(), DeliveryError> {
    let text = asked.text(answer);
    let retry = |is_ambiguous| {
        Err(DeliveryError::Retry {
            after: answer.retry_after,
            source: text.clone().into(),
            is_ambiguous,
        })
    };
    let blocked = |may_be_content| {
        let hint = Some(asked.hint(answer));
        Err(DeliveryError::Blocked { source: text.clone().into(), hint, may_be_content })
    };
    match answer.status {
        200..=299 => Ok(()),
        // It has not taken the request up: too early, too often, too busy, or another attempt of
        // the same batch is still being worked on.
        409 | 425 | 429 | 503 => retry(false),
        408 | 500..=599 => retry(true),
        413 => Err(DeliveryError::Refused { reason: text, is_size: true }),
        403 | 404 => blocked(true),
        // Of these, no event can be the cause.
        401 | 402 | 405 | 406 | 407 | 410 | 411 | 414 | 415 | 417 | 421 | 426 | 431 => {
            blocked(false)
        }
        400..=499 => Err(DeliveryError::Refused { reason: text, is_size: false }),
        _ => blocked(false),
    }
}

impl Asked<'_> {
    /// One line: what was asked where, the status, and what the answer says for itself.
    pub fn text(&self, answer: &Answer) -> String {
        let place = self.url.origin().ascii_serialization();
        let status = status_text(answer.status);
        let said = said(&answer.body).map(|said| format!(": {said}")).unwrap_or_default();
        let text = redact(&format!("{} {place}: {status}{said}", self.method));
        escape(&text).chars().take(MOST_CHARS).collect()
    }

    fn hint(&self, answer: &Answer) -> String {
        if let Some(hint) = (self.hint)(answer.status) {
            return hint.to_owned();
        }
        let hint = match answer.status {
            300..=399 => return self.moved(answer),
            401 => "the receiver does not take the credential: renew it where it is read from",
            403 => "the receiver knows the credential and does not let it in: ask its operator",
            404 => "the receiver knows no such path: check `url`",
            407 => "the proxy wants a credential: use one that does not, or let it pass this host",
            410 => {
                "the receiver is gone for good: ask its operator, then change `url` or remove the sink"
            }
            415 if self.compress != Compress::None => {
                r#"the receiver may not understand compressed bodies: try `compress = "none"`"#
            }
            400..=499 => "the receiver does not take such requests: check `url`",
            _ => "this is not an answer to events: check `url` and `proxy`",
        };
        hint.to_owned()
    }

    fn moved(&self, answer: &Answer) -> String {
        let place = answer.location.as_ref().and_then(|location| self.url.join(location).ok());
        // The query of the new place may repeat what is secret in the old one.
        let place =
            place.map(|url| format!("{}{}", url.origin().ascii_serialization(), url.path()));
        let place = place.map(|place| escape(&redact(&place)));
        let to = place.map(|place| format!(": it names `{place}`")).unwrap_or_default();
        let to: String = to.chars().take(MOST_CHARS).collect();
        format!(
            "redirects are not followed, for they would carry events and secrets to another place; check `url`{to}"
        )
    }
}
