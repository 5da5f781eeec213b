//! The identity of a machine that Azure Arc has connected: the service of its agent.
//!
//! <https://learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication>

use std::path::{Path, PathBuf};

use chrono::Utc;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use super::held::Given;
use super::machine::Machine;
use super::{answer, ask_here, blocking, unanswered_here};
use crate::http::{Answer, url};
use crate::secret;
use crate::sink::DeliveryError;
use crate::sink::http::{Asked, Compress};
use crate::sink::sentinel::auth::{Arc, Auth};

/// Where the agent listens unless the environment says otherwise.
const ENDPOINT: &str = "http://localhost:40342/metadata/identity/oauth2/token";

/// Asks for a token, and proves to be on this machine by reading what only its users can read.
pub async fn ask(resource: &str, machine: &Machine) -> Result<Given, DeliveryError> {
    let here = machine.clone();
    let mut url = blocking(move || place(&here)).await?;
    url.query_pairs_mut()
        .append_pair("api-version", "2020-06-01")
        .append_pair("resource", resource);
    let mut headers = HeaderMap::new();
    headers.insert("metadata", HeaderValue::from_static("true"));
    let unanswered =
        |err| unanswered_here(&err, "see whether the agent runs: `azcmagent show` tells");
    let challenge = ask_here(url.clone(), headers.clone()).await.map_err(unanswered)?;
    let file = proof_file(&challenge, &url, &machine.proofs)?;
    let (proof, _known) = blocking(move || proof(&file)).await?;
    headers.insert(AUTHORIZATION, proof);
    let answer = ask_here(url.clone(), headers).await.map_err(unanswered)?;
    answer::token((Method::GET, &url), &answer, &Auth::Arc(Arc {}), Utc::now().timestamp())
}

/// Where the agent listens.
fn place(machine: &Machine) -> Result<Url, DeliveryError> {
    let named = machine.variable("IDENTITY_ENDPOINT");
    // Alone, it is that of another service of Azure.
    let named = named.filter(|_| machine.variable("IMDS_ENDPOINT").is_some());
    let endpoint = match named {
        Some(named) => named,
        None if machine.agent.exists() => ENDPOINT.to_owned(),
        None => {
            return Err(DeliveryError::blocked(
                format!("find the agent of Azure Arc: there is no `{}`", machine.agent.display()),
                "connect this machine to Azure Arc (`azcmagent connect`), or use another kind of `auth`"
                    .to_owned(),
            ));
        }
    };
    let url = Url::parse(&endpoint).ok();
    url.filter(|url| url::is_web(url) && url::is_loopback(url)).ok_or_else(|| {
        DeliveryError::blocked(
            "environment variable `IDENTITY_ENDPOINT` names no place on this machine",
            "unset it, or let it name where the agent of Azure Arc listens".to_owned(),
        )
    })
}

/// The file that the agent wants read. Nothing else than its own may be sent to it.
fn proof_file(challenge: &Answer, url: &Url, directory: &Path) -> Result<PathBuf, DeliveryError> {
    let asked = Asked { method: Method::GET, url, compress: Compress::None, hint: |_| None };
    if challenge.status != 401 {
        return Err(match challenge.status {
            408 | 429 | 500..=599 => DeliveryError::Retry {
                after: challenge.retry_after,
                source: asked.text(challenge).into(),
                is_ambiguous: false,
            },
            _ => DeliveryError::blocked(asked.text(challenge), UNLIKE_ARC.to_owned()),
        });
    }
    let named = challenge.www_authenticate.as_deref().and_then(realm).map(Path::new);
    let is_proof = |file: &&Path| {
        file.parent() == Some(directory) && file.extension().is_some_and(|end| end == "key")
    };
    named.filter(is_proof).map(Path::to_owned).ok_or_else(|| {
        let place = url.origin().ascii_serialization();
        let text =
            format!("GET {place}: asks for a file that is no proof of `{}`", directory.display());
        DeliveryError::blocked(text, UNLIKE_ARC.to_owned())
    })
}

const UNLIKE_ARC: &str =
    "this is not the agent of Azure Arc: see what listens there, and what `IDENTITY_ENDPOINT` says";

/// RFC 7617, section 2; the agent does without quotes.
fn realm(header: &str) -> Option<&str> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    let (name, value) = rest.trim().split_once('=')?;
    let is_basic =
        scheme.eq_ignore_ascii_case("basic") && name.trim().eq_ignore_ascii_case("realm");
    is_basic.then(|| value.trim().trim_matches('"'))
}

/// What is in the file, as a header.
fn proof(file: &Path) -> Result<(HeaderValue, secret::Held), DeliveryError> {
    const MOST_BYTES: u64 = 4096;
    let failed = |why: String, hint: &str| {
        let text = format!("read the proof of Azure Arc from `{}`: {why}", file.display());
        DeliveryError::blocked(text, hint.to_owned())
    };
    let proof = secret::platform_file(file, MOST_BYTES).map_err(|err| match err.kind() {
        std::io::ErrorKind::InvalidData => failed(err.to_string(), UNLIKE_ARC),
        _ => failed(err.to_string(), JOIN),
    })?;
    let header = HeaderValue::from_str(&format!("Basic {proof}")).ok();
    let mut header = header.ok_or_else(|| failed("it is fit for no header".into(), UNLIKE_ARC))?;
    header.set_sensitive(true);
    Ok((header, secret::hold(&proof)))
}

const JOIN: &str = "add the daemon's user to the group `himds`, and start the daemon anew";

/// Looks for what would keep [`ask`] from asking, on this machine alone.
pub fn examine(machine: &Machine) -> Result<String, DeliveryError> {
    place(machine)?;
    match std::fs::read_dir(&machine.proofs) {
        Err(err) if err.kind() == std::io::ErrorKind::PermissionDenied => {
            let text = format!("read `{}`: {err}", machine.proofs.display());
            Err(DeliveryError::blocked(text, JOIN.to_owned()))
        }
        _ => Ok("identity of this machine by Azure Arc".to_owned()),
    }
}
