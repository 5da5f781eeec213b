//! What a refusal means, by the preset's rules, and what it says for itself.

use serde_json::Value;

use super::RestSource;
use crate::http::Answer;
use crate::secret::redact;
use crate::source::preset::Reaction;
use crate::source::{FetchError, remedied};

impl RestSource {
    /// What a status other than 200 means.
    pub(super) fn refusal(&self, answer: &Answer, with_token: bool) -> FetchError {
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
                let after = rule.and_then(|rule| rule.wait(&answer.body)).max(answer.retry_after);
                let source = remedied(text, rule.and_then(|rule| rule.hint.as_deref()));
                if answer.status == 429 || rule.is_some_and(|rule| !rule.wait.is_empty()) {
                    FetchError::Throttled { after, source }
                } else {
                    FetchError::Retry { after, source }
                }
            }
            Reaction::Expired => FetchError::PageExpired { source: text.into() },
            Reaction::TooMuch => FetchError::TooMuch {
                source: remedied(text, rule.and_then(|rule| rule.hint.as_deref())),
            },
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
