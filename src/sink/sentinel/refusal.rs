//! What the Logs Ingestion API says when it does not answer 204, and what to do about it. Pure.
//!
//! Not all of its codes are documented. One that is not known here is taken by its status, so that no
//! event is refused for what is wrong with the rule.

use chrono::Utc;
use reqwest::{Method, Url};
use serde::Deserialize;

use crate::http::Answer;
use crate::sink::DeliveryError;
use crate::sink::http::{self, Asked, Compress};

/// A clock that is off by more than this makes tokens look old.
const MOST_SKEW_MILLIS: i64 = 5 * 60 * 1000;

/// Where rows go, for a text.
#[derive(Clone, Debug)]
pub struct Target {
    /// Scheme, host and port.
    pub place: String,
    /// The rule's immutable id.
    pub rule: String,
    /// The stream's name.
    pub stream: String,
}

/// What an answer says for itself.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct Body {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    /// What the answer says; nothing where it is none of Azure's. Leaves in its place one line of text.
    pub fn of(answer: &mut Answer) -> Self {
        let Ok(Body { error: Said { code, message } }) = serde_json::from_slice(&answer.body)
        else {
            return Self::default();
        };
        answer.body = format!("{code}: {message}").into_bytes();
        Self { code, message }
    }

    /// Whether Azure itself says so, and not what stands in between.
    pub fn is_azures(&self) -> bool {
        !self.code.is_empty()
    }

    /// Whether the rows are of more time than the table takes at once.
    /// (github.com/Azure/Azure-Sentinel/issues/12130)
    pub fn is_too_wide(&self) -> bool {
        self.code == "RecordsTimeRangeIsMoreThan30Minutes"
    }

    /// What the courier is to do.
    pub fn judge(&self, target: &Target, answer: &Answer, compress: Compress) -> DeliveryError {
        let error = Self::plain(target, answer, compress);
        let is_too_large =
            self.code.contains("ConnectionAbort") || self.code.contains("ContentLength");
        match error {
            DeliveryError::Refused { reason, is_size } => {
                if self.speaks_of_the_rule() {
                    return DeliveryError::blocked(reason, self.hint(target, answer));
                }
                DeliveryError::Refused { reason, is_size: is_size || is_too_large }
            }
            DeliveryError::Blocked { source, .. } if is_too_large => {
                DeliveryError::Refused { reason: source.to_string(), is_size: true }
            }
            DeliveryError::Blocked { source, hint, may_be_content } => DeliveryError::Blocked {
                source,
                hint: self.hint(target, answer).or(hint),
                // Azure does not read what a row says before it lets anybody in.
                may_be_content: may_be_content && !self.is_azures(),
            },
            retry @ DeliveryError::Retry { .. } => retry,
        }
    }

    /// What `check --online` says after an empty array was sent.
    ///
    /// # Errors
    /// What would keep rows from being taken.
    pub fn probed(
        &self,
        target: &Target,
        answer: &Answer,
        compress: Compress,
    ) -> Result<String, DeliveryError> {
        let Target { place, rule, stream } = target;
        match answer.status {
            204 => Ok(format!("{place} takes rows for `{stream}` of `{rule}`")),
            // Whether the service takes an array without rows is not documented.
            400 if self.speaks_of_nothing_sent() => Ok(format!(
                "{place} knows `{stream}` of `{rule}`; it wants rows to say more: `siemferry send-test` sends one"
            )),
            _ => Err(match self.judge(target, answer, compress) {
                DeliveryError::Refused { reason, .. } => {
                    DeliveryError::blocked(reason, self.hint(target, answer))
                }
                other => other,
            }),
        }
    }

    fn plain(target: &Target, answer: &Answer, compress: Compress) -> DeliveryError {
        let url = Url::parse(&target.place);
        let Ok(url) = url else { return DeliveryError::blocked("`endpoint` is not a URL", None) };
        let asked = Asked { method: Method::POST, url: &url, compress, hint: |_| None };
        if (200..300).contains(&answer.status) {
            let hint = "only 204 says that the rows are kept: check `endpoint` and `proxy`, another service may answer in Azure's place";
            return DeliveryError::blocked(asked.text(answer), hint.to_owned());
        }
        match http::judge(&asked, answer) {
            Err(error) => error,
            Ok(()) => DeliveryError::passing(asked.text(answer)),
        }
    }

    /// Whether what it names is not the rows but what the configuration says.
    fn speaks_of_the_rule(&self) -> bool {
        let code = self.code.to_ascii_lowercase();
        [
            "stream",
            "datacollectionrule",
            "immutableid",
            "dcr",
            "dce",
            "apiversion",
            "region",
            "endpoint",
        ]
        .iter()
        .any(|word| code.contains(word))
    }

    fn speaks_of_nothing_sent(&self) -> bool {
        let code = self.code.to_ascii_lowercase();
        let message = self.message.to_ascii_lowercase();
        let words = ["empty", "no records", "at least one"];
        !self.speaks_of_the_rule()
            && (code.contains("empty") || words.iter().any(|word| message.contains(word)))
    }

    /// What to do, by the name of what is wrong.
    fn hint(&self, target: &Target, answer: &Answer) -> Option<String> {
        let Target { place, rule, stream } = target;
        let message = self.message.to_ascii_lowercase();
        let code = self.code.to_ascii_lowercase();
        let is_bound = !message.contains("isdcrdcebindingvalid: false");
        let says = |word: &str| code.contains(word) || message.contains(word);
        Some(match answer.status {
            401 => return Some(unauthorized(answer, says("audience") || says("scope"))),
            403 if !is_bound => format!(
                "the endpoint {place} is not linked to the rule `{rule}`, or is of another region: use the rule's own `endpoints.logsIngestion`, or link the data collection endpoint"
            ),
            403 if self.is_azures() => format!(
                "give the identity the role `Monitoring Metrics Publisher` on the data collection rule `{rule}`; a new assignment takes up to 30 minutes"
            ),
            404 => format!(
                "{place} knows no rule `{rule}`: `rule` is the immutableId of the rule, and `endpoint` must be of the same region"
            ),
            400 if says("region") || says("location") => format!(
                "rule, workspace and endpoint must be of one region: check `endpoint`, which is {place}"
            ),
            400 if says("stream") => format!(
                "the rule `{rule}` declares no stream `{stream}`: `az monitor data-collection rule show --query streamDeclarations` lists those that it has"
            ),
            400 => format!(
                "the rule `{rule}` does not take such rows: compare its stream `{stream}` with the `profile`, by `schema`"
            ),
            _ => return None,
        })
    }
}

/// What is known to pass by itself within half an hour.
pub fn patient(error: DeliveryError) -> DeliveryError {
    match error {
        DeliveryError::Blocked { source, hint, .. } => {
            let hint = hint.unwrap_or_default();
            DeliveryError::passing(format!("{source} ({hint})"))
        }
        other => other,
    }
}

/// A token was refused twice, the second time a new one.
fn unauthorized(answer: &Answer, is_audience: bool) -> String {
    let skew = answer.date.map_or(0, |date| Utc::now().timestamp_millis() - date);
    if skew.abs() > MOST_SKEW_MILLIS {
        let direction = if skew > 0 { "ahead" } else { "behind" };
        return format!(
            "this machine's clock is {} s {direction} of Azure's: set it right, for tokens are good for an hour",
            skew.abs() / 1000
        );
    }
    let cause = if is_audience {
        "the token is for another service"
    } else {
        "Azure takes no token of ours"
    };
    format!(
        "{cause}: check `cloud`, or `authority` and `scope`, and that the application is of the workspace's tenant"
    )
}
