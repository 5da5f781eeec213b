//! What a refusal means, by the preset's rules, and what it says for itself.

use super::RestSource;
use crate::http::{Answer, said, status_text};
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

fn default_hint(status: u16) -> Option<String> {
    (300..400).contains(&status).then(|| {
        "redirects are not followed, for they would carry the token to another host: check `base_url`"
            .to_owned()
    })
}
