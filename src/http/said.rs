//! What an answer that is a refusal says for itself.

use serde_json::Value;

use crate::secret::redact;

/// A status with its name.
pub fn status_text(status: u16) -> String {
    let reason =
        reqwest::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
    reason.map_or_else(|| status.to_string(), |reason| format!("{status} {reason}"))
}

/// What a refusal says for itself, shortened. Not the body of a good answer: that holds events.
pub fn said(body: &[u8]) -> Option<String> {
    const MOST_CHARS: usize = 200;
    let text = String::from_utf8_lossy(&body[..body.len().min(64 << 10)]);
    let text = text.trim();
    if text.starts_with('<') {
        return Some("an HTML page".into());
    }
    let json: Option<Value> = serde_json::from_str(text).ok();
    // OAuth has an `error` for programs, and a description beside it.
    let named = ["/message", "/error_description", "/error", "/0/message", "/0/error", "/detail"];
    let found = json.as_ref().and_then(|json| {
        named.iter().find_map(|pointer| json.pointer(pointer).and_then(Value::as_str))
    });
    // Before it is shortened: a part of a secret is not known as one.
    let said: String = redact(found.unwrap_or(text)).chars().take(MOST_CHARS).collect();
    (!said.is_empty()).then_some(said)
}
