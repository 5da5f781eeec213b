//! `headers`: what the operator has sent with every request.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::problem::Problem;
use crate::secret;
use crate::sink::{DeliveryError, http};

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, Header>);

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// Anybody may know it.
    Text(String),
    /// It is kept out of every text.
    Secret(secret::Config),
}

/// Whether a header of this name holds a secret, even if it is written out.
pub fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "cookie", "credential", "key", "password", "secret", "signature", "token"]
        .iter()
        .any(|word| name.contains(word))
}

/// Why a header of this name is not the operator's to set.
fn is_ours(name: &str) -> Option<&'static str> {
    match name {
        "connection"
        | "host"
        | "keep-alive"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "expect" => Some("it belongs to the connection"),
        "accept-encoding" | "idempotency-key" => Some("siemferry sets it"),
        _ if name.starts_with("content-") => Some("it tells of the body, which siemferry makes"),
        _ if name.starts_with("webhook-") => Some("siemferry sets it"),
        _ => None,
    }
}

impl Headers {
    /// What is wrong with names and values.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<_> =
            self.0.iter().filter_map(|(name, value)| check(name, value)).collect();
        let mut known = BTreeMap::new();
        for name in self.0.keys() {
            if let Some(first) = known.insert(name.to_ascii_lowercase(), name) {
                let text = format!("the same header as `headers.{first}`");
                let hint = "the case of a header's name does not matter: keep one of them";
                problems.push(Problem::at(format!("headers.{name}"), text).hint(hint));
            }
        }
        problems
    }

    /// The secrets among them, each under its key.
    pub fn secrets(&self) -> impl Iterator<Item = (String, &secret::Config)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Header::Secret(secret) => Some((format!("headers.{name}"), secret)),
            Header::Text(_) => None,
        })
    }

    /// Takes out those whose secrets only the service manager has; says which.
    pub fn leave_out_of_reach(&mut self) -> Vec<String> {
        let is_out =
            |value: &Header| matches!(value, Header::Secret(secret) if secret.is_out_of_reach());
        let out = self.0.iter().filter(|(_, value)| is_out(value));
        let out = out.map(|(name, _)| format!("headers.{name}")).collect();
        self.0.retain(|_, value| !is_out(value));
        out
    }

    /// As they are sent. May block.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub fn read(&self) -> Result<HeaderMap, DeliveryError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.0 {
            let (value, is_secret) = match value {
                Header::Text(text) => (HeaderValue::from_str(text), false),
                Header::Secret(config) => {
                    let secret = http::secret(config)?;
                    register_parts(secret.expose());
                    (HeaderValue::from_str(secret.expose()), true)
                }
            };
            let name = HeaderName::from_bytes(name.as_bytes());
            let (Ok(name), Ok(mut value)) = (name, value) else {
                let text = "`headers` holds what cannot be sent as a header";
                return Err(DeliveryError::blocked(text, None));
            };
            value.set_sensitive(is_secret);
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

/// Of `Bearer …` and `Basic …`, a receiver may write back what follows, and what that stands for.
fn register_parts(value: &str) {
    let Some((scheme, rest)) = value.split_once(' ') else { return };
    secret::register(rest);
    if !scheme.eq_ignore_ascii_case("basic") {
        return;
    }
    let decoded = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some((_, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) {
        secret::register(password);
    }
}

fn check(name: &str, value: &Header) -> Option<Problem> {
    let key = format!("headers.{}", crate::log::escape(name));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        let hint = "names are of `a-z`, `A-Z`, `0-9`, `-` and `_`, such as `Authorization`";
        return Some(Problem::at("headers", "holds what is not a header's name").hint(hint));
    }
    if let Some(why) = is_ours(&name.to_ascii_lowercase()) {
        return Some(Problem::at(key, format!("cannot be set: {why}")).hint("leave it out"));
    }
    match value {
        Header::Text(text) if !is_line(text) => {
            let hint = "a value is one line of ASCII";
            Some(Problem::at(key, "cannot be sent as a header").hint(hint))
        }
        Header::Secret(secret) if secret.is_plain() => {
            secret.read().err().map(|err| Problem::at(key, err.to_string()).hint(err.hint()))
        }
        _ => None,
    }
}

fn is_line(text: &str) -> bool {
    !text.is_empty() && text.is_ascii() && !text.contains(|c: char| c.is_control())
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Table)
    }
}

struct Table;

impl<'de> Visitor<'de> for Table {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of headers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = if names_a_secret(&name) {
                Header::Secret(map.next_value()?)
            } else {
                map.next_value()?
            };
            headers.insert(name, value);
        }
        Ok(Headers(headers))
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Value)
    }
}

struct Value;

impl<'de> Visitor<'de> for Value {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, or a table with one of `file`, `env`, `credential` and `command`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Header, E> {
        Ok(Header::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Header, A::Error> {
        secret::Config::deserialize(MapAccessDeserializer::new(map)).map(Header::Secret)
    }
}
