//! A preset: the description of one API's shape, a TOML file.
//!
//! It says where things are, never what to do with them; the engine does what it says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::json::Pointer;
use super::records::{Shape, TimeFormat};
use crate::event::{Paging, Repeats};

/// The embedded description of the Keeper Security Admin REST API.
pub const KEEPER: &str = include_str!("../../config/presets/keeper.toml");

/// One API, described.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Shown in every event as `api`, and part of every uid.
    pub name: String,
    /// The region that is asked unless the configuration names one.
    pub default_region: String,
    /// Scheme and host by region.
    pub regions: BTreeMap<String, String>,
    /// How a request proves who asks.
    pub auth: Auth,
    /// How a page is asked for.
    pub request: Request,
    /// Where things are in an answer.
    pub response: Response,
    /// Where things are in a record.
    pub record: RecordShape,
    /// How records repeat.
    #[serde(default)]
    pub repeats: RepeatsShape,
    /// What refusals mean; the first that fits decides.
    #[serde(default)]
    pub errors: Vec<ErrorRule>,
}

/// The header that carries the secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Its name.
    pub header: String,
    /// What stands before the secret.
    #[serde(default)]
    pub prefix: String,
}

/// How a page is asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The path below the host.
    pub path: String,
    /// The first instant wanted.
    pub start: Bound,
    /// The last.
    pub end: Bound,
    /// The page token.
    pub token: Parameter,
    /// How many records a page may hold.
    pub limit: Option<Parameter>,
}

/// Where a parameter goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Into the query.
    Query,
    /// Into a header.
    Header,
}

/// A named parameter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Where it goes.
    #[serde(rename = "in")]
    pub place: Place,
    /// Its name there.
    pub name: String,
}

/// A parameter that is an instant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Where it goes.
    #[serde(rename = "in")]
    pub place: Place,
    /// Its name there.
    pub name: String,
    /// How it is written.
    pub format: TimeFormat,
}

/// Where things are in an answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// Where the records may be; the first that is an array.
    pub records: Vec<Pointer>,
    /// Else the only array of objects.
    #[serde(default)]
    pub lone_array: bool,
    /// The next page's token.
    pub token: Pointer,
    /// Whether there is a next page; without it the token decides.
    pub has_more: Option<Pointer>,
    /// The numbers of records at which an answer may end without a word that there is more.
    #[serde(default)]
    pub caps: Vec<usize>,
}

/// Where things are in a record.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordShape {
    /// What kind of event it is.
    #[serde(rename = "type")]
    pub event_type: Pointer,
    /// When it happened.
    pub time: TimeShape,
    /// Who did it.
    pub actor: Option<Pointer>,
    /// From which address.
    pub address: Option<Pointer>,
    /// In which tenant.
    pub tenant: Option<Pointer>,
}

/// Where a record's time is, and how it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeShape {
    /// Where.
    pub at: Pointer,
    /// How.
    pub format: TimeFormat,
}

/// How records repeat.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepeatsShape {
    /// Whether a pass shows each record once.
    pub paging: Paging,
    /// What makes a record equal to another; all of it when empty.
    pub identity: Vec<Pointer>,
    /// Whether that is unique to each event.
    pub unique: bool,
}

/// What the poller is to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reaction {
    /// Ask again later.
    Retry,
    /// Begin the window again.
    Expired,
    /// Halve the window.
    TooMuch,
    /// Wait until somebody has acted.
    Blocked,
}

/// What one kind of refusal means.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// The status codes it is about.
    pub status: Vec<u16>,
    /// Whether the request must, or must not, have carried a page token.
    pub with_token: Option<bool>,
    /// Where in the body (JSON pointers) `contains` is looked for; anywhere when empty.
    #[serde(default)]
    pub at: Vec<String>,
    /// A text that must be there, in any case.
    pub contains: Option<String>,
    /// What to do.
    pub then: Reaction,
    /// Where the body says how long to wait: a number of seconds, or a text such as `30 seconds`.
    #[serde(default)]
    pub wait: Vec<String>,
    /// What the operator can do.
    pub hint: Option<String>,
}

impl Preset {
    /// Reads a description.
    ///
    /// # Errors
    /// When it is not TOML, or names what does not exist.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The embedded preset of Keeper.
    pub fn keeper() -> Self {
        Self::parse(KEEPER).expect("a test parses the embedded preset")
    }

    /// What the splitter needs to know.
    pub fn shape(&self) -> Shape {
        Shape {
            records: self.response.records.clone(),
            lone_array: self.response.lone_array,
            token: self.response.token.clone(),
            has_more: self.response.has_more.clone(),
            event_type: self.record.event_type.clone(),
            time: self.record.time.at.clone(),
            time_format: self.record.time.format,
            identity: self.repeats.identity.clone(),
        }
    }

    /// What the store needs to know.
    pub fn repeats(&self) -> Repeats {
        Repeats { paging: self.repeats.paging, unique: self.repeats.unique }
    }

    /// The rule for a refusal, if there is one.
    pub fn rule(&self, status: u16, with_token: bool, body: &[u8]) -> Option<&ErrorRule> {
        self.errors.iter().find(|rule| {
            rule.status.contains(&status)
                && rule.with_token.is_none_or(|wanted| wanted == with_token)
                && rule.contains.as_ref().is_none_or(|text| rule.finds(text, body))
        })
    }
}

impl ErrorRule {
    /// How long the body asks us to wait.
    pub fn wait(&self, body: &[u8]) -> Option<Duration> {
        let json: Value = serde_json::from_slice(body).ok()?;
        let mut said = self.wait.iter().filter_map(|pointer| json.pointer(pointer));
        let seconds = said.find_map(seconds)?;
        Some(Duration::from_secs(seconds))
    }

    fn finds(&self, text: &str, body: &[u8]) -> bool {
        let text = text.to_lowercase();
        if self.at.is_empty() {
            return String::from_utf8_lossy(body).to_lowercase().contains(&text);
        }
        let Ok(json) = serde_json::from_slice::<Value>(body) else { return false };
        let values = self.at.iter().filter_map(|pointer| json.pointer(pointer));
        values.filter_map(Value::as_str).any(|value| value.to_lowercase().contains(&text))
    }
}

fn seconds(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => number(text.trim()).or_else(|| seconds_in(text)),
        _ => None,
    }
}

/// The span named in a sentence such as `Try again in 2 minutes.`
fn seconds_in(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let words = words(&text);
    let named = words.windows(2).filter_map(|pair| {
        let number = number(pair[0])?;
        let unit = match pair[1] {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "min" | "mins" | "minute" | "minutes" => 60,
            "hour" | "hours" => 3600,
            _ => return None,
        };
        Some(number.saturating_mul(unit))
    });
    named.reduce(u64::saturating_add)
}

/// Numbers and words, be there a space between them or not.
fn words(text: &str) -> Vec<&str> {
    let kind = |c: char| (c.is_ascii_digit(), c.is_ascii_alphabetic());
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| kind(c) != kind(first)).unwrap_or(rest.len());
        if first.is_ascii_alphanumeric() {
            words.push(&rest[..end]);
        }
        rest = &rest[end..];
    }
    words
}

/// A number, however large.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaction(status: u16, with_token: bool, body: &str) -> Option<(Reaction, Option<u64>)> {
        let keeper = Preset::keeper();
        let rule = keeper.rule(status, with_token, body.as_bytes())?;
        Some((rule.then, rule.wait(body.as_bytes()).map(|wait| wait.as_secs())))
    }

    #[test]
    fn a_403_is_throttling_only_when_its_body_says_so() {
        let retry = |seconds| Some((Reaction::Retry, seconds));
        let table = [
            (r#"{"error":"throttled","message":"Please wait 17 seconds"}"#, retry(Some(17))),
            (r#"[{"error":"throttled","message":"try again in 2 minutes"}]"#, retry(Some(120))),
            (r#"{"result_code":"throttled","retry_after":"9"}"#, retry(Some(9))),
            (r#"{"result_code":"throttled","retry_after":9}"#, retry(Some(9))),
            (r#"{"error":"throttled","message":"wait 5s"}"#, retry(Some(5))),
            (r#"{"error":"throttled","message":"1 minute and 30 seconds"}"#, retry(Some(90))),
            (
                r#"{"error":"throttled","message":"wait 99999999999999999999 seconds"}"#,
                retry(Some(u64::MAX)),
            ),
            ("Throttled", retry(None)),
            (r#"{"error":"access_denied"}"#, Some((Reaction::Blocked, None))),
            ("", Some((Reaction::Blocked, None))),
        ];
        for (body, expected) in table {
            assert_eq!(reaction(403, false, body), expected, "{body}");
        }
    }

    #[test]
    fn a_refusal_is_read_by_whether_a_page_token_was_sent() {
        assert_eq!(reaction(400, true, ""), Some((Reaction::Expired, None)));
        assert_eq!(reaction(400, false, ""), Some((Reaction::TooMuch, None)));
        assert_eq!(reaction(404, false, ""), Some((Reaction::Blocked, None)));
        assert_eq!(reaction(500, false, ""), None);
    }

    #[test]
    fn a_preset_with_a_misspelt_key_is_refused() {
        let text = KEEPER.replace("lone_array", "lone_arry");

        let err = Preset::parse(&text).unwrap_err();

        assert!(err.message().contains("unknown field `lone_arry`"), "{err}");
    }
}
