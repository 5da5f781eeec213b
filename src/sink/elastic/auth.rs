//! `auth = …`: how a request proves who sends it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess};

use crate::problem::Problem;
use crate::secret;
use crate::sink::DeliveryError;
use crate::sink::http::{self, OneOf, one_of};

/// `{ api_key = … }`, `{ basic = { user = "…", password = … } }` or `{ bearer = … }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// As Kibana shows it (encoded), or `id:key`.
    ApiKey(secret::Config),
    /// A user and a password.
    Basic(Basic),
    /// A token of the token service, or of a proxy.
    Bearer(secret::Config),
}

/// A user of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// The name.
    pub user: String,
    /// The password.
    pub password: secret::Config,
}

impl Auth {
    /// The secret, and its key below the kind.
    pub fn secret(&self) -> (String, &secret::Config) {
        let (key, secret) = match self {
            Self::ApiKey(secret) => ("api_key", secret),
            Self::Basic(basic) => ("basic.password", &basic.password),
            Self::Bearer(secret) => ("bearer", secret),
        };
        (format!("auth.{key}"), secret)
    }

    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Option<Problem> {
        let (key, secret) = self.secret();
        // Others are read when they are needed: a daemon may wait for them, a check must not.
        if secret.is_plain()
            && let Err(err) = secret.read()
        {
            return Some(Problem::at(key, err.to_string()).hint(err.hint()));
        }
        let Self::Basic(Basic { user, .. }) = self else { return None };
        // RFC 7617, section 2: the first colon ends the name.
        let is_unfit = user.is_empty() || user.contains(':') || user.contains(char::is_control);
        is_unfit.then(|| {
            Problem::at("auth.basic.user", "is empty, or holds a `:` or a control character")
                .hint("name the user alone")
        })
    }

    /// The header `Authorization`. Reads the secret, which may block.
    ///
    /// # Errors
    /// The secret cannot be had.
    pub fn header(&self) -> Result<HeaderValue, DeliveryError> {
        let (_, secret) = self.secret();
        let secret = http::secret(secret)?;
        let value = match self {
            Self::ApiKey(_) if secret.expose().contains(':') => {
                format!("ApiKey {}", encoded(secret.expose()))
            }
            Self::ApiKey(_) => format!("ApiKey {}", secret.expose()),
            Self::Basic(basic) => {
                format!("Basic {}", encoded(&format!("{}:{}", basic.user, secret.expose())))
            }
            Self::Bearer(_) => format!("Bearer {}", secret.expose()),
        };
        let mut header = HeaderValue::from_str(&value).expect("a secret is fit for a header");
        header.set_sensitive(true);
        Ok(header)
    }
}

/// In base64, which from now on is taken out of every text.
fn encoded(text: &str) -> String {
    let encoded = STANDARD.encode(text);
    secret::register(&encoded);
    encoded
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of(deserializer)
    }
}

impl OneOf for Auth {
    const EXPECTED: &'static str = "a table with one of `api_key`, `basic` and `bearer`";

    fn read<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Option<Self>, A::Error> {
        Ok(Some(match key {
            "api_key" => Self::ApiKey(map.next_value()?),
            "basic" => Self::Basic(map.next_value()?),
            "bearer" => Self::Bearer(map.next_value()?),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(auth: &str) -> String {
        let auth: Auth = toml::from_str(auth).unwrap();
        let header = auth.header().unwrap();
        assert!(header.is_sensitive());
        header.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_header_is_as_the_service_expects_it() {
        assert_eq!(header("api_key = 'aWQ6a2V5LWNhbmFyeQ=='"), "ApiKey aWQ6a2V5LWNhbmFyeQ==");
        assert_eq!(header("api_key = 'id:key-canary'"), "ApiKey aWQ6a2V5LWNhbmFyeQ==");
        assert_eq!(header("bearer = 'token-canary'"), "Bearer token-canary");
        assert_eq!(
            header("basic = { user = 'elastic', password = 'pass:word' }"),
            "Basic ZWxhc3RpYzpwYXNzOndvcmQ="
        );
    }

    #[test]
    fn what_is_made_of_a_secret_is_a_secret() {
        header("basic = { user = 'somebody', password = 'basic-canary-7' }");

        let echo = format!("Basic {}", STANDARD.encode("somebody:basic-canary-7"));
        assert_eq!(secret::redact(&echo), "Basic ***");
        let auth: Auth = toml::from_str("bearer = 'debug-canary'").unwrap();
        assert!(!format!("{auth:?}").contains("canary"));
    }
}
