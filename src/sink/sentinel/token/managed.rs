//! The identity of an Azure virtual machine: its instance metadata service (IMDS).
//!
//! <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>

use std::time::Duration;

use chrono::Utc;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use super::held::Given;
use super::machine::Machine;
use super::{answer, ask_here, unanswered_here};
use crate::http::url;
use crate::sink::DeliveryError;
use crate::sink::sentinel::auth::{Auth, ManagedIdentity};

/// The same on every virtual machine.
const HOST: &str = "http://169.254.169.254";

/// Asks for a token, again while the service says that there is none yet.
pub async fn ask(
    config: &ManagedIdentity,
    resource: &str,
    machine: &Machine,
) -> Result<Given, DeliveryError> {
    let (mut url, auth) = (place(machine)?, Auth::ManagedIdentity(config.clone()));
    url.query_pairs_mut()
        .append_pair("api-version", "2018-02-01")
        .append_pair("resource", resource);
    if let Some(client) = &config.client {
        url.query_pairs_mut().append_pair("client_id", client);
    }
    let (mut failures, mut waited) = (0, Duration::ZERO);
    loop {
        let mut headers = HeaderMap::new();
        headers.insert("metadata", HeaderValue::from_static("true"));
        let answer = ask_here(url.clone(), headers).await;
        let answer = answer.map_err(|err| unanswered_here(&err, MAYBE_ELSEWHERE))?;
        let Some(wait) = wait(machine.wait, failures, waited, answer.status) else {
            return answer::token((Method::GET, &url), &answer, &auth, Utc::now().timestamp());
        };
        tokio::time::sleep(wait).await;
        (failures, waited) = (failures + 1, waited + wait);
    }
}

const MAYBE_ELSEWHERE: &str =
    "this machine may be no Azure virtual machine, and only those have a `managed_identity`";

/// How long to wait before asking again, if that may help. A 410 says that the service is being
/// replaced, which takes up to 70 seconds.
fn wait(first: Duration, failures: u32, waited: Duration, status: u16) -> Option<Duration> {
    const ATTEMPTS: u32 = 5;
    let wait = first * (1 << failures.min(ATTEMPTS));
    match status {
        // In waits, not in seconds, so that a test need not wait for so long.
        410 => waited < first.mul_f64(70.0 / 0.8),
        404 | 429 | 500..=599 => failures < ATTEMPTS,
        _ => false,
    }
    .then_some(wait)
}

/// Where the service is. Plain HTTP: only this machine, or the link it is on, may give the tokens.
fn place(machine: &Machine) -> Result<Url, DeliveryError> {
    const VARIABLE: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
    let host = machine.variable(VARIABLE).unwrap_or_else(|| HOST.to_owned());
    let near = |url: &Url| url::is_web(url) && (url::is_loopback(url) || is_link_local(url));
    let url = Url::parse(&host).ok().filter(near);
    let url = url.and_then(|url| url.join("/metadata/identity/oauth2/token").ok());
    url.ok_or_else(|| {
        DeliveryError::blocked(
            format!("environment variable `{VARIABLE}` names no place on this machine or its link"),
            "unset it, or let it name one such as `http://169.254.169.254`".to_owned(),
        )
    })
}

fn is_link_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(std::net::IpAddr::V4(address)) => address.is_link_local(),
        Ok(std::net::IpAddr::V6(address)) => address.is_unicast_link_local(),
        Err(_) => false,
    }
}

/// Looks at the settings alone: whether there is such a service, only it can tell.
pub fn examine(config: &ManagedIdentity, machine: &Machine) -> Result<String, DeliveryError> {
    place(machine)?;
    let which = config.client.as_ref().map(|client| format!(" `{client}`")).unwrap_or_default();
    Ok(format!("managed identity{which} of this machine"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long is waited in all, in milliseconds, when every answer has this status.
    fn waits(status: u16) -> (u32, u128) {
        let (mut failures, mut waited) = (0, Duration::ZERO);
        while let Some(wait) = wait(Duration::from_millis(800), failures, waited, status) {
            (failures, waited) = (failures + 1, waited + wait);
        }
        (failures, waited.as_millis())
    }

    #[test]
    fn a_service_that_is_replaced_is_waited_for() {
        assert_eq!(waits(404), (5, 24_800));
        assert_eq!(waits(503), (5, 24_800));
        assert_eq!(waits(410), (7, 76_000), "at least 70 seconds");
        assert_eq!(waits(400), (0, 0));
        assert_eq!(waits(200), (0, 0));
    }
}
