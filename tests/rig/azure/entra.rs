//! The token endpoint of Entra, for applications that prove themselves.
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>
//! The codes are those of <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>;
//! which of status 400 and 401 goes with each is partly unproven.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;
use uuid::Uuid;

use super::assertion::{self, Registered};
use super::http::Seen;
use super::{Options, Shared, with_json};
use crate::plain_http::{self, Answer};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What an application's proof is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppState {
    Good,
    Expired,
}

/// What the application may prove itself with.
#[derive(Default)]
pub struct App {
    secrets: Vec<(String, AppState)>,
    certificates: Vec<Registered>,
    /// Tokens of another issuer that is trusted.
    subject_tokens: Vec<(String, AppState)>,
    /// Ids of assertions that were used.
    pub(super) used: Vec<String>,
}

impl App {
    pub(super) fn new(secrets: &[String]) -> Self {
        let secrets = secrets.iter().map(|secret| (secret.clone(), AppState::Good)).collect();
        Self { secrets, ..Self::default() }
    }

    /// Adds a secret, or says how it is from now on.
    pub fn secret(&mut self, secret: &str, state: AppState) {
        self.remove_secret(secret);
        self.secrets.push((secret.to_owned(), state));
    }

    pub fn remove_secret(&mut self, secret: &str) {
        self.secrets.retain(|(known, _)| known != secret);
    }

    /// Registers the first certificate of a PEM text.
    pub fn add_certificate(&mut self, pem: &str) {
        self.certificates.push(Registered::from_pem(pem));
    }

    pub fn remove_certificate(&mut self, pem: &str) {
        let gone = Registered::from_pem(pem);
        self.certificates.retain(|known| *known != gone);
    }

    /// Trusts a token of another issuer, or says how it is from now on.
    pub fn subject_token(&mut self, token: &str, state: AppState) {
        self.remove_subject_token(token);
        self.subject_tokens.push((token.to_owned(), state));
    }

    pub fn remove_subject_token(&mut self, token: &str) {
        self.subject_tokens.retain(|(known, _)| known != token);
    }
}

/// A refusal, as Entra tells it.
pub struct Refusal {
    status: u16,
    error: &'static str,
    code: u32,
    description: String,
}

impl Refusal {
    pub fn new(
        status: u16,
        error: &'static str,
        code: u32,
        description: impl Into<String>,
    ) -> Self {
        Self { status, error, code, description: description.into() }
    }

    pub fn invalid_client(code: u32, description: impl Into<String>) -> Self {
        Self::new(401, "invalid_client", code, description)
    }

    pub fn invalid_request(code: u32, description: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", code, description)
    }

    fn answer(self, now: DateTime<Utc>) -> Answer {
        let (trace, correlation) = (Uuid::new_v4(), Uuid::new_v4());
        let timestamp = now.to_rfc3339_opts(SecondsFormat::Secs, true).replace('T', " ");
        let body = json!({
            "error": self.error,
            "error_description": format!(
                "AADSTS{}: {} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}",
                self.code, self.description
            ),
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace.to_string(),
            "correlation_id": correlation.to_string(),
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.code),
        });
        with_json(Answer { status: self.status, headers: Vec::new(), body: body.to_string() })
    }
}

/// Answers a request for a token.
pub fn token(shared: &Shared, request: &Seen) -> Answer {
    let mut state = shared.state.lock().unwrap();
    let now = state.now();
    if let Err(refusal) = check(&shared.options, request, &mut state.app, now) {
        return refusal.answer(now);
    }
    let token = state.token(&shared.options);
    let lifetime = shared.options.token_lifetime.as_secs();
    let body = json!({
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": token,
    });
    let headers = vec![("cache-control", "no-store, no-cache".to_owned())];
    with_json(Answer { status: 200, headers, body: body.to_string() })
}

fn check(
    options: &Options,
    request: &Seen,
    app: &mut App,
    now: DateTime<Utc>,
) -> Result<(), Refusal> {
    if request.method != "POST" {
        let text = format!(
            "The endpoint only accepts POST requests. Received a {} request.",
            request.method
        );
        return Err(Refusal::invalid_request(900_561, text));
    }
    check_tenant(options, &request.path[0])?;
    let kind = request.header("content-type").unwrap_or_default();
    let is_form = kind.split(';').next() == Some("application/x-www-form-urlencoded");
    let form = if is_form { String::from_utf8_lossy(&request.body) } else { "".into() };
    let form = plain_http::pairs(&form);
    let given = |name: &str| plain_http::value_of(&form, name).filter(|value| !value.is_empty());
    let needed = |name: &str| {
        given(name).ok_or_else(|| {
            let text = format!("The request body must contain the following parameter: '{name}'.");
            Refusal::invalid_request(900_144, text)
        })
    };
    let grant = needed("grant_type")?;
    if grant != "client_credentials" {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        return Err(Refusal::new(400, "unsupported_grant_type", 70_003, text));
    }
    if needed("client_id")? != options.client {
        let text = format!(
            "Application with identifier '{}' was not found in the directory '{}'. This can happen \
             if the application has not been installed by the administrator of the tenant or \
             consented to by any user in the tenant. You may have sent your authentication request \
             to the wrong tenant.",
            needed("client_id")?,
            options.tenant
        );
        return Err(Refusal::new(400, "unauthorized_client", 700_016, text));
    }
    check_scope(options, needed("scope")?)?;
    if let Some(given) = given("client_assertion") {
        if needed("client_assertion_type")? != ASSERTION_TYPE {
            let text = format!("The client assertion type must be '{ASSERTION_TYPE}'.");
            return Err(Refusal::invalid_request(50_027, text));
        }
        return check_assertion(options, request, app, given, now);
    }
    check_secret(options, app, given("client_secret"))
}

fn check_tenant(options: &Options, tenant: &str) -> Result<(), Refusal> {
    if Uuid::try_parse(tenant).is_err() && !tenant.contains('.') {
        let text = format!(
            "Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid \
             external domain."
        );
        return Err(Refusal::invalid_request(900_023, text));
    }
    if !tenant.eq_ignore_ascii_case(&options.tenant) {
        let text = format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are \
             signing into the correct cloud. Check with your subscription administrator, this may \
             happen if there are no active subscriptions for the tenant."
        );
        return Err(Refusal::invalid_request(90_002, text));
    }
    Ok(())
}

fn check_scope(options: &Options, scope: &str) -> Result<(), Refusal> {
    if scope.contains(' ') {
        let text = format!(
            "The provided request must include a 'scope' input parameter. The provided value for \
             the input parameter 'scope' is not valid. The scope {scope} is not valid."
        );
        return Err(Refusal::new(400, "invalid_scope", 70_011, text));
    }
    let Some(resource) = scope.strip_suffix("/.default") else {
        let text = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have \
             a scope value with /.default suffixed to the resource identifier (application ID URI)."
        );
        return Err(Refusal::new(400, "invalid_scope", 1_002_012, text));
    };
    // Microsoft's own samples have two slashes.
    if resource.strip_suffix('/').unwrap_or(resource) != options.resource {
        let text = format!(
            "The resource principal named {resource} was not found in the tenant named {}.",
            options.tenant
        );
        return Err(Refusal::new(400, "invalid_resource", 500_011, text));
    }
    Ok(())
}

fn check_secret(options: &Options, app: &App, secret: Option<&str>) -> Result<(), Refusal> {
    let Some(secret) = secret else {
        let text = "The request body must contain the following parameter: 'client_assertion' or \
            'client_secret'.";
        return Err(Refusal::invalid_client(7_000_218, text));
    };
    match app.secrets.iter().find(|(known, _)| known == secret) {
        Some((_, AppState::Good)) => Ok(()),
        Some((_, AppState::Expired)) => {
            let text = format!(
                "The provided client secret keys for app '{}' are expired. Visit the Azure portal \
                 to create new keys for your app: https://aka.ms/NewClientSecret, or consider using \
                 certificate credentials for added security: https://aka.ms/certCreds.",
                options.client
            );
            Err(Refusal::invalid_client(7_000_222, text))
        }
        None => {
            let text = format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is \
                 the client secret value, not the client secret ID, for a secret added to app '{}'.",
                options.client
            );
            Err(Refusal::invalid_client(7_000_215, text))
        }
    }
}

fn check_assertion(
    options: &Options,
    request: &Seen,
    app: &mut App,
    given: &str,
    now: DateTime<Utc>,
) -> Result<(), Refusal> {
    match app.subject_tokens.iter().find(|(known, _)| known == given) {
        Some((_, AppState::Good)) => return Ok(()),
        Some((_, AppState::Expired)) => return Err(assertion::out_of_time(now, None)),
        None => {}
    }
    let audience = format!("{}/{}", request.origin(), request.path.join("/"));
    let expected = assertion::Expected { client: &options.client, audience: &audience, now };
    let id = assertion::check(given, &app.certificates, &expected)?;
    // Entra does not promise to look at it; a client that uses one twice is wrong all the same.
    if app.used.contains(&id) {
        return Err(Refusal::invalid_client(50_027, "The assertion's jti was used before."));
    }
    app.used.push(id);
    Ok(())
}

/// Answers what a client asks before it asks for a token.
pub fn about(shared: &Shared, request: &Seen) -> Answer {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    if let ("GET", [tenant, "v2.0", ".well-known", "openid-configuration"]) =
        (request.method.as_str(), path.as_slice())
    {
        if let Err(refusal) = check_tenant(&shared.options, tenant) {
            return refusal.answer(shared.state.lock().unwrap().now());
        }
        let base = format!("{}/{tenant}", request.origin());
        let body = json!({
            "issuer": format!("{base}/v2.0"),
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
            "jwks_uri": format!("{base}/discovery/v2.0/keys"),
            "token_endpoint_auth_methods_supported":
                ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        });
        return with_json(Answer { status: 200, headers: Vec::new(), body: body.to_string() });
    }
    with_json(Answer { status: 404, headers: Vec::new(), body: json!({}).to_string() })
}
