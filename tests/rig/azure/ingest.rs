//! The Logs Ingestion API.
//! <https://learn.microsoft.com/azure/azure-monitor/logs/logs-ingestion-api-overview>
//!
//! The codes of 401, 404, 413 and of bad streams and payloads, the order of the checks, and the
//! limits of depth and of numbers are unproven.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::http::Seen;
use super::{Refusal, Row, Shared, State, Stream, Upload, table};
use crate::plain_http::Answer;

/// "Maximum size of API call: 1MB for both compressed and uncompressed data."
const LONGEST_CALL: usize = 1_000_000;

/// What the readers of .NET take if nobody says otherwise.
const DEEPEST: usize = 64;

const API_VERSION: &str = "2023-01-01";

pub fn answer(shared: &Shared, request: &Seen) -> Answer {
    let bearer = request.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
    let mut upload = Upload {
        number: request.number,
        status: 204,
        sent: request.body.len(),
        plain: 0,
        request_id: request.header("x-ms-client-request-id").map(str::to_owned),
        token: bearer.map(str::to_owned),
        rows: 0,
    };
    let answer = match take(shared, request, &mut upload) {
        Ok(()) => Answer { status: 204, headers: Vec::new(), body: String::new() },
        Err(refusal) => refusal.answer(),
    };
    upload.status = answer.status;
    let rows = upload.rows as u64;
    shared.state.lock().unwrap().uploads.push(upload);
    shared.rows.send_modify(|count| *count += rows);
    answer
}

pub fn too_long() -> Answer {
    length_exceeded().answer()
}

fn length_exceeded() -> Refusal {
    let message = format!("Maximum allowed content length: {LONGEST_CALL} bytes.");
    Refusal::new(413, "ContentLengthLimitExceeded", &message)
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(400, "InvalidPayload", message)
}

fn take(shared: &Shared, request: &Seen, upload: &mut Upload) -> Result<(), Refusal> {
    let (rule, name) = target(request)?;
    let mut state = shared.state.lock().unwrap();
    authenticate(shared, &state, upload)?;
    let stream = stream(shared, &state, rule, name)?;
    check_content_type(request)?;
    let plain = plain(request)?;
    upload.plain = plain.len();
    if plain.len() > LONGEST_CALL {
        return Err(length_exceeded());
    }
    let text = std::str::from_utf8(&plain).map_err(|err| invalid(&err.to_string()))?;
    if let Some(text) = state.refused_texts.iter().find(|it| text.contains(it.as_str())) {
        return Err(invalid(&format!("The payload has '{text}' in it.")));
    }
    let rows = rows(text)?;
    if shared.options.is_narrow {
        check_span(&rows)?;
    }
    upload.rows = rows.len();
    let now = state.now();
    for (raw, row) in rows {
        let value = stream.hold(&row, now, &mut state.tally);
        let request = upload.number;
        state.rows.push(Row { stream: stream.name, request, raw: raw.to_owned(), value });
    }
    Ok(())
}

/// The rule and the stream that the request names.
fn target(request: &Seen) -> Result<(&str, &str), Refusal> {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let [_, rule, "streams", stream] = path.as_slice() else {
        return Err(Refusal::new(404, "NotFound", "The resource was not found."));
    };
    if request.method != "POST" {
        let message = format!("The HTTP method '{}' is not supported.", request.method);
        let header = Some(("allow", "POST".to_owned()));
        return Err(Refusal { header, ..Refusal::new(405, "MethodNotAllowed", &message) });
    }
    match request.query("api-version") {
        Some(API_VERSION) => {}
        Some(other) => {
            let message = format!("The api-version '{other}' is not supported.");
            return Err(Refusal::new(400, "UnsupportedApiVersion", &message));
        }
        None => {
            let message = "The api-version query parameter (?api-version=) is required.";
            return Err(Refusal::new(400, "MissingApiVersionParameter", message));
        }
    }
    Ok((rule, stream))
}

fn authenticate(shared: &Shared, state: &State, upload: &Upload) -> Result<(), Refusal> {
    let refused = |message: &str| {
        let challenge = format!(
            "Bearer authorization=\"https://login.microsoftonline.com/{}\", resource=\"{}\"",
            shared.options.tenant, shared.options.resource
        );
        let header = Some(("www-authenticate", challenge));
        Refusal { header, ..Refusal::new(401, "InvalidToken", message) }
    };
    let Some(given) = &upload.token else {
        return Err(refused("The authorization token is missing."));
    };
    let known = state.tokens.iter().find(|token| token.text == *given);
    let known = known.ok_or_else(|| refused("The authorization token is not valid."))?;
    if known.until <= state.now() {
        return Err(refused("The authorization token has expired."));
    }
    if known.resource != shared.options.resource {
        return Err(refused("The authorization token is for another audience."));
    }
    Ok(())
}

fn stream(shared: &Shared, state: &State, rule: &str, name: &str) -> Result<Stream, Refusal> {
    let options = &shared.options;
    let digits = rule.strip_prefix("dcr-").unwrap_or_default();
    if digits.len() != 32 || !digits.chars().all(|it| it.is_ascii_hexdigit()) {
        let message =
            format!("The immutable Id '{rule}' of the data collection rule is not valid.");
        return Err(Refusal::new(400, "InvalidDataCollectionRuleId", &message));
    }
    if rule != options.rule {
        let message = format!("Data collection rule with immutable Id '{rule}' not found.");
        return Err(Refusal::new(404, "NotFound", &message));
    }
    if state.is_role_missing {
        return Err(Refusal::new(403, "OperationFailed", &no_access(&options.tenant, rule)));
    }
    let known = options.streams.iter().find(|stream| stream.name == name);
    known.copied().ok_or_else(|| {
        let message =
            format!("The stream {name} was not configured in the data collection rule {rule}.");
        Refusal::new(400, "InvalidStream", &message)
    })
}

fn no_access(tenant: &str, rule: &str) -> String {
    let arm = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/siem/providers/\
        Microsoft.Insights/dataCollectionRules/siemferry";
    format!(
        "The authentication token provided does not have access to ingest data for the data \
         collection rule with immutable Id '{rule}' PipelineAccessResult: AccessGranted: False, \
         IsRbacPresent: False, IsDcrDceBindingValid: , DcrArmId: {arm}, Message: Required \
         authorization action was not found for tenantId {tenant} objectId \
         00000000-0000-0000-0000-000000000002 on resourceId {arm} ConfigurationId: {rule}.."
    )
}

fn check_content_type(request: &Seen) -> Result<(), Refusal> {
    let given = request.header("content-type").unwrap_or_default();
    let (kind, parameters) = given.split_once(';').unwrap_or((given, "charset=utf-8"));
    let is_utf_8 = parameters.trim().eq_ignore_ascii_case("charset=utf-8");
    if kind.trim().eq_ignore_ascii_case("application/json") && is_utf_8 {
        return Ok(());
    }
    let message = format!("The content type '{given}' is not supported.");
    Err(Refusal::new(415, "UnsupportedMediaType", &message))
}

/// The body as it was before it was compressed, as far as it may be long.
fn plain(request: &Seen) -> Result<Vec<u8>, Refusal> {
    if request.body.len() > LONGEST_CALL {
        return Err(length_exceeded());
    }
    match request.header("content-encoding") {
        None | Some("identity") => Ok(request.body.clone()),
        Some("gzip") => {
            let mut plain = Vec::new();
            MultiGzDecoder::new(&*request.body)
                .take(LONGEST_CALL as u64 + 1)
                .read_to_end(&mut plain)
                .map_err(|err| invalid(&format!("The gzip stream is not valid: {err}.")))?;
            Ok(plain)
        }
        Some(other) => {
            let message = format!("The content encoding '{other}' is not supported.");
            Err(Refusal::new(415, "UnsupportedMediaType", &message))
        }
    }
}

/// A row as it came, and what it says.
type Sent<'a> = (&'a str, Map<String, Value>);

fn rows(text: &str) -> Result<Vec<Sent<'_>>, Refusal> {
    let rows: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|err| invalid(&err.to_string()))?;
    let read = |row: &&'_ RawValue| {
        // The array around it counts.
        if depth(row.get()) >= DEEPEST {
            return Err(invalid("The maximum depth of 64 is exceeded."));
        }
        let value = serde_json::from_str(row.get()).map_err(|err| invalid(&err.to_string()))?;
        Ok(value)
    };
    rows.iter().map(|row| Ok((row.get(), read(row)?))).collect()
}

fn depth(text: &str) -> usize {
    let (mut now, mut deepest) = (0_usize, 0);
    let mut bytes = text.bytes();
    let mut is_quoted = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => is_quoted = !is_quoted,
            b'{' | b'[' if !is_quoted => {
                now += 1;
                deepest = deepest.max(now);
            }
            b'}' | b']' if !is_quoted => now -= 1,
            _ => {}
        }
    }
    deepest
}

/// What some plans of tables ask for.
/// <https://learn.microsoft.com/azure/azure-monitor/logs/tutorial-logs-ingestion-code#troubleshooting>
fn check_span(rows: &[Sent<'_>]) -> Result<(), Refusal> {
    let times = rows.iter().filter_map(|(_, row)| table::time(row.get(table::TIME)?.as_str()?));
    let times: Vec<_> = times.collect();
    let span = times.iter().max().zip(times.iter().min()).map(|(last, first)| *last - *first);
    if span.is_none_or(|span| span <= chrono::TimeDelta::minutes(30)) {
        return Ok(());
    }
    let code = "RecordsTimeRangeIsMoreThan30Minutes";
    let message = "The time duration between DataEndTime and DataStartTime should be within the \
        range of 0 to 30 minutes.";
    let header = Some(("x-ms-error-code", code.to_owned()));
    Err(Refusal { header, ..Refusal::new(400, code, message) })
}
