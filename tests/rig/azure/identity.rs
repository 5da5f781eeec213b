//! The tokens of managed identities: of a virtual machine, and of a server with the Arc agent.
//! <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>
//! <https://learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use uuid::Uuid;

use super::http::Seen;
use super::{Shared, State, with_json};
use crate::plain_http::Answer;

const IMDS_VERSION: &str = "2018-02-01";
const ARC_VERSION: &str = "2020-06-01";

/// Answers as the metadata service of a virtual machine.
pub fn imds(shared: &Shared, request: &Seen) -> Answer {
    if let Err(answer) = check(shared, request, IMDS_VERSION) {
        return answer;
    }
    given(shared, request, &mut shared.state.lock().unwrap())
}

/// Answers as the Arc agent: who can read its key may have a token.
pub fn arc(shared: &Shared, request: &Seen) -> Answer {
    if request.path != ["metadata", "identity", "oauth2", "token"] {
        return refused(404, "not_found", "The path is not known");
    }
    if let Err(answer) = check(shared, request, ARC_VERSION) {
        return answer;
    }
    let Some(dir) = &shared.options.arc_keys else {
        return refused(500, "internal_error", "The agent is not connected");
    };
    let mut state = shared.state.lock().unwrap();
    let proof = request.header("authorization").and_then(|it| it.strip_prefix("Basic "));
    let known = proof.and_then(|proof| state.arc_keys.iter().position(|(_, key)| key == proof));
    if let Some(index) = known {
        let (path, _) = state.arc_keys.swap_remove(index);
        // The test may have taken it away already.
        let _ = std::fs::remove_file(path);
        return given(shared, request, &mut state);
    }
    let path = dir.join(format!("{}.key", Uuid::new_v4()));
    let key = STANDARD.encode(format!("{}{}", Uuid::new_v4(), Uuid::new_v4()));
    std::fs::write(&path, &key).unwrap();
    let realm = format!("Basic realm={}", path.display());
    state.arc_keys.push((path, key));
    let mut answer = refused(401, "unauthorized", "Unauthorized");
    answer.headers.push(("www-authenticate", realm));
    answer
}

fn check(shared: &Shared, request: &Seen, version: &str) -> Result<(), Answer> {
    let bad = |why: &str| Err(refused(400, "invalid_request", why));
    if request.method != "GET" {
        return Err(refused(405, "invalid_request", "The method is not allowed"));
    }
    if request.header("metadata").is_none_or(|it| !it.eq_ignore_ascii_case("true")) {
        return bad("Required metadata header not specified");
    }
    // Somebody else's request, passed on by a proxy.
    if request.header("x-forwarded-for").is_some() {
        return bad("Requests with an X-Forwarded-For header are not served");
    }
    match request.query("api-version") {
        Some(given) if given == version => {}
        _ => return bad("The api-version is missing or not supported"),
    }
    match request.query("resource") {
        None => return bad("Required query variable 'resource' is missing"),
        Some(given) if given.trim_end_matches('/') == shared.options.resource => {}
        Some(given) => {
            let why = format!(
                "AADSTS500011: The resource principal named {given} was not found in the tenant"
            );
            return Err(refused(400, "invalid_resource", &why));
        }
    }
    Ok(())
}

/// The token of the identity that is asked for.
fn given(shared: &Shared, request: &Seen, state: &mut State) -> Answer {
    let options = &shared.options;
    let client = request.query("client_id");
    let is_known = match client {
        Some(client) => options.user_identities.iter().any(|known| known == client),
        None => options.has_system_identity,
    };
    if !is_known {
        return refused(400, "invalid_request", "Identity not found");
    }
    let token = state.token(options);
    let (now, lifetime) = (state.now().timestamp(), options.token_lifetime.as_secs());
    let body = json!({
        "access_token": token,
        "client_id": client.unwrap_or("00000000-0000-0000-0000-00000000000a"),
        "expires_in": lifetime.to_string(),
        "expires_on": (now + i64::try_from(lifetime).unwrap()).to_string(),
        "ext_expires_in": lifetime.to_string(),
        "not_before": now.to_string(),
        "resource": request.query("resource"),
        "token_type": "Bearer",
    });
    with_json(Answer { status: 200, headers: Vec::new(), body: body.to_string() })
}

fn refused(status: u16, error: &str, description: &str) -> Answer {
    let body = json!({ "error": error, "error_description": description }).to_string();
    with_json(Answer { status, headers: Vec::new(), body })
}
