use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use siemferry::sim::Fault;

use crate::rig::{Home, Sim, eventually};
use crate::told::{home_at, home_of, week_of};

fn given() -> (Sim, Home) {
    let sim = week_of(300);
    let home = home_of(&sim);
    (sim, home)
}

/// From the middle of the reading on, every answer is this fault.
fn fails_from_the_third_request(sim: &Sim, fault: Fault) {
    sim.api.fault_when(move |request| (request.number > 2).then(|| fault.clone()));
}

/// Gives up with this text; once the API is mended, everything arrives.
#[track_caller]
fn gives_up(fault: Fault, said: &str) {
    let (sim, home) = given();
    fails_from_the_third_request(&sim, fault);

    let told = home.impatient();

    told.is(1, said);
    assert!(!home.lines().is_empty(), "what was read before is delivered");
    sim.api.mend();
    home.delivers_all(&sim);
}

/// The daemon waits as long as it was told to; once the API is mended, everything arrives.
#[track_caller]
fn waits(fault: Fault, seconds: u64) {
    let (sim, home) = given();
    fails_from_the_third_request(&sim, fault);

    let mut daemon = home.spawn();

    let wait = format!("\"retry_in\":\"{seconds}s\"");
    eventually("it says how long it waits", || home.logged(&wait) > 0);
    sim.api.mend();
    eventually("everything arrives", || home.lines().len() == sim.api.truth().len());
    home.holds_all(&sim);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}

fn raw(content_type: &str, body: impl Into<Vec<u8>>) -> Fault {
    Fault::Raw { headers: vec![("content-type".into(), content_type.into())], body: body.into() }
}

#[test]
fn a_name_that_cannot_be_looked_up_is_told() {
    let sim = week_of(120);
    let home = home_at("https://siemferry.invalid");

    let told = home.impatient();

    assert_eq!(told.code, Some(1), "{}", told.said);
    let begins = "error: source `acme` is retrying: look up `siemferry.invalid`: ";
    assert!(told.said.starts_with(begins), "{}", told.said);
    let remedy = "check the host name, and this machine's name servers";
    assert!(told.said.contains(remedy), "{}", told.said);
    home.edit("https://siemferry.invalid", &sim.api.url());
    home.delivers_all(&sim);
}

#[test]
fn a_connection_that_is_refused_is_told() {
    let sim = week_of(120);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let home = home_at(&nobody);

    let told = home.impatient();

    told.is(
        1,
        "error: source `acme` is retrying: connect to `127.0.0.1`: Connection refused (os error 111) (check the firewall, or name a `proxy`)\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
    home.edit(&nobody, &sim.api.url());
    home.delivers_all(&sim);
}

#[test]
fn html_in_place_of_events_is_told() {
    gives_up(
        Fault::Html,
        "error: source `acme` is retrying: the answer breaks the API's contract: the body is not JSON: it begins with `<`, as HTML does (sent as `text/html`); something in between may have answered: check `base_url` and `proxy`\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
}

#[test]
fn a_body_that_is_cut_short_is_told() {
    gives_up(
        Fault::Truncated,
        "error: source `acme` is retrying: read the answer of `127.0.0.1`: end of file before message length reached\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
}

#[test]
fn a_body_that_ends_too_early_is_told() {
    gives_up(
        raw("application/json", "{\"events\":[{\"audit_event\":"),
        "error: source `acme` is retrying: the answer breaks the API's contract: the body is not sound JSON: cut short at byte 26 (sent as `application/json`)\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
}

#[test]
fn an_empty_body_is_told() {
    gives_up(
        raw("application/json", ""),
        "error: source `acme` is retrying: the answer breaks the API's contract: the body is empty (sent as `application/json`)\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
}

#[test]
fn a_connection_that_closes_without_an_answer_is_told() {
    gives_up(
        Fault::Reset,
        "error: source `acme` is retrying: read the answer of `127.0.0.1`: connection closed before message completed\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
}

#[test]
fn a_compression_bomb_is_not_inflated() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    let mebibyte = vec![b' '; 1 << 20];
    for _ in 0..1024 {
        bomb.write_all(&mebibyte).unwrap();
    }
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();

    let (sim, home) = given();
    fails_from_the_third_request(&sim, Fault::Raw { headers, body: bomb.finish().unwrap() });

    let mut daemon = home.spawn();

    // First it asks for ever shorter windows.
    eventually("it retries", || home.source_error().is_some());
    let said = "read the answer of `127.0.0.1`: it is larger than 33554432 bytes";
    assert_eq!(home.source_error().as_deref(), Some(said));
    sim.api.mend();
    eventually("everything arrives", || home.lines().len() == sim.api.truth().len());
    home.holds_all(&sim);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}

#[test]
fn a_compression_that_was_not_asked_for_is_told() {
    let fault = raw("application/json", "?").with_header("content-encoding", "br");

    gives_up(
        fault,
        "error: source `acme` is retrying: read the answer of `127.0.0.1`: content encoding br was not asked for\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
}

#[test]
fn a_wrong_envelope_shows_its_keys_and_no_value() {
    gives_up(
        raw("application/json", r#"{"status":"sesame","count":987654321}"#),
        "error: source `acme` is retrying: the answer breaks the API's contract: the body has no array of records; its keys: `status`, `count` (sent as `application/json`)\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = week_of(10);
    let to = format!("{}/api/rest/public/events", elsewhere.api.url());

    gives_up(
        Fault::Redirect { to },
        "error: source `acme` is blocked: GET /api/rest/public/events: 302 Found\n\
         hint: redirects are not followed, for they would carry the token to another host: check `base_url`\n",
    );

    assert_eq!(elsewhere.api.requests(), 0);
}

#[test]
fn a_token_that_is_refused_says_how_to_make_a_new_one() {
    gives_up(
        Fault::status(401, r#"{"error":"unauthorized","message":"Invalid or missing API token"}"#),
        "error: source `acme` is blocked: GET /api/rest/public/events: 401 Unauthorized: Invalid or missing API token\n\
         hint: make a new API token (Keeper Commander: `public-api-key generate --name siemferry --integrations \"SIEM:1\"`) and put it where `token` points to; siemferry goes on by itself\n",
    );
}

#[test]
fn a_refused_permission_says_which_is_needed() {
    gives_up(
        Fault::status(403, r#"{"error":"access_denied","message":"not for you"}"#),
        "error: source `acme` is blocked: GET /api/rest/public/events: 403 Forbidden: not for you\n\
         hint: the token needs the SIEM role, and the tenant the Advanced Reporting & Alerts add-on; siemferry goes on by itself\n",
    );
}

#[test]
fn a_missing_resource_says_what_to_check() {
    let (sim, home) = given();
    sim.api.fault_when(|_| Some(Fault::status(404, "")));

    let told = home.impatient();

    told.is(
        1,
        "error: source `acme` is blocked: GET /api/rest/public/events: 404 Not Found\n\
         hint: check `region` or `base_url`, and that the tenant has the Admin REST API\n",
    );
    sim.api.mend();
    home.delivers_all(&sim);
}

#[test]
fn a_failing_server_is_told() {
    gives_up(
        Fault::status(500, "<html><h1>Oops</h1></html>"),
        "error: source `acme` is retrying: GET /api/rest/public/events: 500 Internal Server Error: an HTML page\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
}

#[test]
fn a_throttled_request_is_told() {
    gives_up(
        Fault::status(403, r#"{"error":"throttled","message":"Please wait 17 seconds"}"#),
        "error: source `acme` is retrying: GET /api/rest/public/events: 403 Forbidden: Please wait 17 seconds (the API limits how often it may be asked: raise `poll_every` if this goes on)\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
}

#[test]
fn steering_characters_of_an_answer_reach_no_terminal() {
    gives_up(
        Fault::status(500, "{\"message\":\"a\\u001b[31mb\\nerror: c\\u202e\"}"),
        "error: source `acme` is retrying: GET /api/rest/public/events: 500 Internal Server Error: a\\u{1b}[31mb\\nerror: c\\u{202e}\nhint: it is tried again by itself; if it goes on, see the log, or wait longer with `--patience`\n",
    );
}

#[test]
fn a_throttled_source_waits_as_long_as_the_body_says() {
    waits(Fault::status(403, r#"{"error":"throttled","message":"Please wait 2 seconds"}"#), 2);
}

#[test]
fn a_throttled_source_waits_as_long_as_the_header_says() {
    waits(Fault::status(429, "").with_header("retry-after", "2"), 2);
}
