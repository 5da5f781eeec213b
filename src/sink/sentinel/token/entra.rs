//! Tokens of Microsoft Entra itself, for an application: by secret, certificate or federation.
//!
//! OAuth 2.0 client credentials, RFC 6749, section 4.4, and RFC 7523, section 2.2:
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>

use chrono::Utc;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Url};

use super::held::Given;
use super::machine::Machine;
use super::{ANSWER_CAP, Asker, answer, blocking, certificate, unanswered};
use crate::http::{self, Request, Settings, Wanted, client};
use crate::secret;
use crate::sink::DeliveryError;
use crate::sink::http::{no_answer, secret as read_secret};
use crate::sink::sentinel::auth::{Auth, WorkloadIdentity, unfit_name};
use crate::sink::sentinel::cloud::Place;

/// What is asked, of whom.
struct Question {
    client: Client,
    url: Url,
    body: Vec<u8>,
    /// An answer may repeat what the question proves itself by.
    _known: [secret::Held; 2],
}

/// Reads what it needs and asks for a token.
pub async fn ask(asker: &Asker) -> Result<Given, DeliveryError> {
    let own = asker.clone();
    let question = blocking(move || question(&own)).await?;
    let (url, method) = (question.url.clone(), Method::POST);
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(CONTENT_TYPE, form);
    let request = Request { method: Method::POST, url: url.clone(), headers, body: question.body };
    let answer = http::send(&question.client, request, Wanted::Whole(ANSWER_CAP)).await;
    let answer = answer.map_err(|err| unanswered(&err))?;
    answer::token((method, &url), &answer, &asker.auth, Utc::now().timestamp())
}

fn question(asker: &Asker) -> Result<Question, DeliveryError> {
    let Asker { auth, place, settings, machine } = asker;
    let application = Application::of(auth, place, machine)?;
    let proof = application.proof(auth, machine)?;
    let client = client(settings).map_err(|err| no_answer(&err))?;
    let mut form = vec![
        ("grant_type", "client_credentials"),
        ("client_id", &application.client),
        ("scope", &place.scope),
    ];
    let (value, body) = match &proof {
        Proof::Secret(value) => {
            form.push(("client_secret", value.expose()));
            (value.expose(), encoded(&form))
        }
        Proof::Assertion(value) => {
            form.push(("client_assertion_type", BEARER));
            form.push(("client_assertion", value));
            (value.as_str(), encoded(&form))
        }
    };
    // As it is, and as it stands in the form.
    let in_form = encoded(&[("", value)]);
    let in_form = String::from_utf8_lossy(&in_form);
    let known = [value, in_form.trim_start_matches('=')].map(secret::hold);
    Ok(Question { client, url: application.url, body, _known: known })
}

/// RFC 7523, section 2.2
const BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What an application proves itself by.
enum Proof {
    Secret(secret::Secret),
    Assertion(String),
}

/// Who asks, and where.
struct Application {
    client: String,
    url: Url,
}

impl Application {
    fn of(auth: &Auth, place: &Place, machine: &Machine) -> Result<Self, DeliveryError> {
        let (tenant, client) = match auth {
            Auth::ClientSecret(config) => (config.tenant.clone(), config.client.clone()),
            Auth::Certificate(config) => (config.tenant.clone(), config.client.clone()),
            Auth::WorkloadIdentity(config) => federated_names(config, machine)?,
            Auth::ManagedIdentity(_) | Auth::Arc(_) => unreachable!("it is no application"),
        };
        let authority = match auth {
            Auth::WorkloadIdentity(_) if !place.is_named => federated_authority(machine)?,
            _ => None,
        };
        let authority = authority.unwrap_or_else(|| place.authority.clone());
        let url = token_url(authority, &tenant).ok_or_else(|| {
            DeliveryError::blocked(
                "the authority is not a URL of the web",
                "name scheme and host in `authority`".to_owned(),
            )
        })?;
        Ok(Self { client, url })
    }

    /// Reads the credential, and makes what is sent of it.
    fn proof(&self, auth: &Auth, machine: &Machine) -> Result<Proof, DeliveryError> {
        match auth {
            Auth::ClientSecret(config) => read_secret(&config.secret).map(Proof::Secret),
            Auth::Certificate(config) => {
                let now = Utc::now().timestamp();
                let credential = certificate::read(config, now)?;
                credential.assertion(&self.client, &self.url, now).map(Proof::Assertion)
            }
            Auth::WorkloadIdentity(config) => {
                federated_token(config, machine).map(Proof::Assertion)
            }
            Auth::ManagedIdentity(_) | Auth::Arc(_) => unreachable!("it is no application"),
        }
    }
}

fn token_url(mut authority: Url, tenant: &str) -> Option<Url> {
    authority.path_segments_mut().ok()?.pop_if_empty().extend([tenant, "oauth2", "v2.0", "token"]);
    Some(authority)
}

/// `application/x-www-form-urlencoded`
fn encoded(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut url = Url::parse("form:").expect("it is a URL");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().into()
}

/// Tenant and client.
fn federated_names(
    config: &WorkloadIdentity,
    machine: &Machine,
) -> Result<(String, String), DeliveryError> {
    let named = |key: &str, value: Option<&String>, variable: &str| {
        let Some(value) = value.cloned().or_else(|| machine.variable(variable)) else {
            return Err(unset(key, variable));
        };
        match unfit_name(&value) {
            None => Ok(value),
            Some(wrong) => Err(DeliveryError::blocked(
                format!("environment variable `{variable}` {wrong}"),
                format!("mend it, or name `{key}` in `workload_identity`"),
            )),
        }
    };
    let tenant = named("tenant", config.tenant.as_ref(), "AZURE_TENANT_ID")?;
    Ok((tenant, named("client", config.client.as_ref(), "AZURE_CLIENT_ID")?))
}

fn unset(key: &str, variable: &str) -> DeliveryError {
    DeliveryError::blocked(
        format!("workload identity: neither `{key}` nor `{variable}` in the environment is set"),
        format!("name `{key}` in `workload_identity`, or let the platform set `{variable}`"),
    )
}

fn federated_authority(machine: &Machine) -> Result<Option<Url>, DeliveryError> {
    const VARIABLE: &str = "AZURE_AUTHORITY_HOST";
    let Some(host) = machine.variable(VARIABLE) else { return Ok(None) };
    // Microsoft's own libraries take a host alone, too.
    let host = if host.contains("://") { host } else { format!("https://{host}") };
    let url = Url::parse(&host).ok().filter(|url| Place::check(url).is_none());
    url.map(Some).ok_or_else(|| {
        DeliveryError::blocked(
            format!(
                "environment variable `{VARIABLE}` is not a URL that a credential can be sent to"
            ),
            "mend it, or name `authority` in the sink".to_owned(),
        )
    })
}

/// The token of the other issuer. Reads it.
fn federated_token(config: &WorkloadIdentity, machine: &Machine) -> Result<String, DeliveryError> {
    const VARIABLE: &str = "AZURE_FEDERATED_TOKEN_FILE";
    const MOST_BYTES: u64 = 64 << 10;
    let named = || machine.variable(VARIABLE).map(Into::into);
    let file = config.file.clone().or_else(named).ok_or_else(|| unset("file", VARIABLE))?;
    let failed = |why: String| {
        DeliveryError::blocked(
            format!("read the federated token from `{}`: {why}", file.display()),
            "mount the token there: on Kubernetes, label the pod `azure.workload.identity/use: \"true\"`"
                .to_owned(),
        )
    };
    let token = secret::platform_file(&file, MOST_BYTES).map_err(|err| failed(err.to_string()))?;
    let token = token.trim();
    let is_fit = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_fit { Ok(token.to_owned()) } else { Err(failed("it holds no token".to_owned())) }
}

/// Looks for what would keep [`ask`] from asking, on this machine alone.
pub fn examine(
    auth: &Auth,
    place: &Place,
    settings: &Settings,
    machine: &Machine,
) -> Result<String, DeliveryError> {
    client(settings).map_err(|err| no_answer(&err))?;
    let application = Application::of(auth, place, machine)?;
    let says = format!("{} of application `{}`", auth.name(), application.client);
    let secrets = auth.secrets();
    if let Some((key, _)) = secrets.iter().find(|(_, secret)| secret.is_out_of_reach()) {
        return Ok(format!("{says}; not checked, for only the unit has it: `{key}`"));
    }
    if let Auth::Certificate(config) = auth {
        let until = certificate::read(config, Utc::now().timestamp())?.until();
        return Ok(format!("{says}, which ends on {until}"));
    }
    application.proof(auth, machine)?;
    Ok(says)
}
