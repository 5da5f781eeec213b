//! What a token service answers: a token, or why there is none. Pure.

use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::Value;

use super::held::{Given, Token};
use crate::http::Answer;
use crate::sink::DeliveryError;
use crate::sink::http::{Asked, Compress};
use crate::sink::sentinel::auth::Auth;

/// How long a token lasts that does not say so.
const UNTOLD: Duration = Duration::from_secs(300);

/// The token of an answer.
///
/// # Errors
/// What the courier is to do without one.
pub fn token(
    (method, url): (Method, &Url),
    answer: &Answer,
    auth: &Auth,
    now: i64,
) -> Result<Given, DeliveryError> {
    let asked = Asked { method, url, compress: Compress::None, hint: |_| None };
    if answer.status != 200 {
        return Err(refusal(asked.text(answer), answer, auth));
    }
    let given = serde_json::from_slice(&answer.body).ok().and_then(|body| given(&body, now));
    given.ok_or_else(|| {
        // The body may hold a token all the same: it is not shown.
        let place = url.origin().ascii_serialization();
        DeliveryError::blocked(
            format!("{} {place}: the answer holds no token", asked.method),
            Some(NOT_A_SERVICE.to_owned()),
        )
    })
}

const NOT_A_SERVICE: &str =
    "this is not the answer of a token service: check `authority` and `proxy`";

/// RFC 6749, section 5.1; the services of machines write numbers as strings.
fn given(body: &Value, now: i64) -> Option<Given> {
    let token = Token::new(body.get("access_token")?.as_str()?)?;
    let number = |name: &str| -> Option<i64> {
        let value = body.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
    };
    // A service may count `expires_in` from when it had the token itself; `expires_on` is of no use
    // where this machine's clock is wrong.
    let left = [number("expires_in"), number("expires_on").map(|on| on.saturating_sub(now))];
    let left = left.into_iter().flatten().filter(|left| *left > 0).min();
    let lasts = left.and_then(|left| u64::try_from(left).ok()).map(Duration::from_secs);
    Some(Given { token, lasts: lasts.unwrap_or(UNTOLD) })
}

/// What the courier is to do about a refusal. No event is at fault.
fn refusal(text: String, answer: &Answer, auth: &Auth) -> DeliveryError {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let is_passing = matches!(answer.status, 408 | 425 | 429 | 500..=599)
        || body.get("error").and_then(Value::as_str) == Some("temporarily_unavailable");
    if is_passing {
        let (after, source) = (answer.retry_after, text.into());
        return DeliveryError::Retry { after, source, is_ambiguous: false };
    }
    DeliveryError::blocked(text, hint(answer.status, &body, auth).to_owned())
}

fn hint(status: u16, body: &Value, auth: &Auth) -> &'static str {
    let of_code = code(body).and_then(|code| of_code(code, auth));
    match status {
        _ if of_code.is_some() => of_code.unwrap_or_default(),
        407 => "the proxy wants a credential: use one that does not, or let it pass this host",
        400 | 401 | 403 => of_kind(body, auth),
        _ => NOT_A_SERVICE,
    }
}

/// The number of the error, as in `AADSTS7000215`.
fn code(body: &Value) -> Option<u32> {
    let listed = body.pointer("/error_codes/0").and_then(Value::as_u64);
    listed.and_then(|code| u32::try_from(code).ok()).or_else(|| {
        let (_, rest) = body.get("error_description")?.as_str()?.split_once("AADSTS")?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

/// <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>
fn of_code(code: u32, auth: &Auth) -> Option<&'static str> {
    Some(match code {
        7_000_215 => {
            "store the value of a client secret of this application, which is not the secret's id"
        }
        7_000_222 => {
            "the client secret has expired: make a new one in the app registration, and store its value"
        }
        700_016 => "the tenant has no such application: check `client` and `tenant`",
        90_002 | 900_023 => "there is no such tenant: check `tenant` and `cloud`",
        7_000_112 => "the application is disabled: have an administrator of the tenant enable it",
        700_027 => {
            "upload this certificate to the app registration, under `Certificates & secrets`"
        }
        700_024 => match auth {
            Auth::WorkloadIdentity(_) => {
                "the federated token is out of its time: see whether its file is still renewed, and set this machine's clock"
            }
            _ => "set this machine's clock: what it signs is out of its time",
        },
        70_021 | 700_211..=700_213 => {
            "add a federated credential to the app registration, with the issuer, subject and audience of the token"
        }
        70_011 | 1_002_012 | 500_011 | 650_057 => {
            "this cloud gives no token for that: check `cloud` and `scope`"
        }
        53_003 => {
            "have the tenant's administrator let the application pass the conditional access policy, such as by this machine's address"
        }
        _ => return None,
    })
}

fn of_kind(body: &Value, auth: &Auth) -> &'static str {
    let said = body.get("error_description").and_then(Value::as_str).unwrap_or_default();
    match auth {
        Auth::ClientSecret(_) => {
            "check `tenant`, `client` and the secret against the app registration"
        }
        Auth::Certificate(_) => {
            "check `tenant` and `client`, and that the app registration has this certificate"
        }
        Auth::WorkloadIdentity(_) => {
            "check tenant and client, and the federated credentials of the app registration"
        }
        Auth::ManagedIdentity(config) if config.client.is_some() => {
            "assign the identity that `client` names to this machine, or name another"
        }
        Auth::ManagedIdentity(_) if said.contains("Identity not found") => {
            "assign an identity to this machine: `az vm identity assign` does"
        }
        Auth::ManagedIdentity(_) => {
            "see whether this machine has one identity alone: of several, `client` must name one"
        }
        Auth::Arc(_) => "see whether the machine is connected to Azure: `azcmagent show` tells",
    }
}
