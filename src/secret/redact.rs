//! Takes secret values out of text that comes from elsewhere.

use std::fmt::Write as _;
use std::sync::{PoisonError, RwLock};

/// A shorter value would turn ordinary text into stars.
const SHORTEST: usize = 6;

/// Every form of every secret that was read, longest first.
static FORMS: RwLock<Vec<Form>> = RwLock::new(Vec::new());

/// One way to write a secret.
struct Form {
    text: String,
    /// How many want it known; those of a lasting secret never cease to.
    holders: usize,
}

/// Has [`redact()`] know a value.
pub fn register(value: &str) {
    if value.len() < SHORTEST {
        return;
    }
    let mut known = FORMS.write().unwrap_or_else(PoisonError::into_inner);
    for text in forms(value) {
        match known.iter_mut().find(|form| form.text == text) {
            Some(form) => form.holders += 1,
            None => known.push(Form { text, holders: 1 }),
        }
    }
    // A form may contain another one, and must go as a whole.
    known.sort_by_key(|form| std::cmp::Reverse(form.text.len()));
}

/// Has [`redact()`] know a value that others follow, such as a token: for as long as this lives.
pub fn hold(value: &str) -> Held {
    register(value);
    Held(value.to_owned())
}

/// A value that [`redact()`] knows.
pub struct Held(String);

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.len() < SHORTEST {
            return;
        }
        let mut known = FORMS.write().unwrap_or_else(PoisonError::into_inner);
        for text in forms(&self.0) {
            if let Some(form) = known.iter_mut().find(|form| form.text == text) {
                form.holders -= 1;
            }
        }
        known.retain(|form| form.holders > 0);
    }
}

/// The text with `***` in place of every secret value that was read so far.
///
/// Finds a value as it is, percent-encoded, JSON-escaped and in base64. Values shorter than six
/// bytes are not looked for.
pub fn redact(text: &str) -> String {
    let known = FORMS.read().unwrap_or_else(PoisonError::into_inner);
    let mut text = text.to_owned();
    for Form { text: form, .. } in known.iter() {
        if text.contains(form.as_str()) {
            text = text.replace(form.as_str(), "***");
        }
    }
    text
}

/// The ways in which a server may write the value back.
fn forms(value: &str) -> Vec<String> {
    let encoded = percent(value);
    let json = serde_json::to_string(value).expect("a string is JSON");
    let json = json[1..json.len() - 1].to_owned();
    let base64 = base64(value.as_bytes());
    let url_safe = base64.replace('+', "-").replace('/', "_");
    let mut forms = vec![
        value.to_owned(),
        encoded.to_lowercase_escapes(),
        encoded.0.replace("%20", "+"),
        encoded.0,
        json.replace('/', "\\/"),
        json,
        base64.trim_end_matches('=').to_owned(),
        url_safe.trim_end_matches('=').to_owned(),
        base64,
        url_safe,
    ];
    forms.sort();
    forms.dedup();
    forms
}

/// A percent-encoded text.
struct Percent(String);

fn percent(value: &str) -> Percent {
    let mut encoded = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes every text");
        }
    }
    Percent(encoded)
}

impl Percent {
    /// The same with `%2f` for `%2F`.
    fn to_lowercase_escapes(&self) -> String {
        let mut digits = 0;
        let lower = |c: char| {
            let escaped = digits > 0;
            digits = if c == '%' { 2 } else { u8::saturating_sub(digits, 1) };
            if escaped { c.to_ascii_lowercase() } else { c }
        };
        self.0.chars().map(lower).collect()
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for sextet in 0..4 {
            let index = (bits >> (18 - 6 * sextet)) & 63;
            let letter = if sextet > chunk.len() { b'=' } else { ALPHABET[index as usize] };
            text.push(letter.into());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_value_is_found_in_every_form() {
        register("can\"ary/1 é?+");

        for text in [
            "can\"ary/1 é?+",
            "can%22ary%2F1%20%C3%A9%3F%2B",
            "can%22ary%2f1%20%c3%a9%3f%2b",
            "can%22ary%2F1+%C3%A9%3F%2B",
            "can\\\"ary/1 é?+",
            "can\\\"ary\\/1 é?+",
            "Y2FuImFyeS8xIMOpPys=",
            "Y2FuImFyeS8xIMOpPys",
            "Y2FuImFyeS8xIMOpPys",
        ] {
            assert_eq!(redact(&format!("<{text}>")), "<***>", "{text}");
        }
        assert_eq!(redact("nothing to hide"), "nothing to hide");
    }

    #[test]
    fn a_value_within_another_leaves_no_remains() {
        register("canary-inner");
        register("long-canary-inner-long");

        assert_eq!(redact("a long-canary-inner-long b canary-inner c"), "a *** b *** c");
    }

    #[test]
    fn a_value_that_is_held_twice_is_known_until_both_let_it_go() {
        let (first, second) = (hold("held-canary"), hold("held-canary"));

        drop(first);
        assert_eq!(redact("held-canary"), "***");
        drop(second);

        assert_eq!(redact("held-canary"), "held-canary");
    }

    #[test]
    fn a_short_value_is_not_looked_for() {
        register("error");

        assert_eq!(redact("an error occurred"), "an error occurred");
    }
}
