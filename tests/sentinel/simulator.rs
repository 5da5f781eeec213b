//! What the simulator does that Microsoft's clients do not show.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::azure::{Azure, Fault, Kind, Options};

/// The answer to a request on a connection of its own; empty when there is none.
fn ask(base: &str, method: &str, target: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    // Dropped early by a fault, the connection may refuse the rest.
    let _ = write!(
        stream,
        "{method} {target} HTTP/1.1\r\nhost: here\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    // The other side reads on until this one has said all.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn member(answer: &str, name: &str) -> String {
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body[name].as_str().unwrap_or_default().to_owned()
}

const IMDS: &str =
    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://monitor.azure.com";
const ARC: &str =
    "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=https://monitor.azure.com";

/// Uploads with a token of the machine.
fn upload(azure: &Azure, stream: &str, body: &str) -> String {
    let token = member(&ask(&azure.url(), "GET", IMDS, "metadata: true\r\n", ""), "access_token");
    let target = format!(
        "/dataCollectionRules/{}/streams/{stream}?api-version=2023-01-01",
        Options::default().rule
    );
    let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    ask(&azure.url(), "POST", &target, &headers, body)
}

#[test]
fn a_machine_has_a_token_only_for_who_asks_as_it_must() {
    let azure = Azure::start(Options { user_identities: vec!["u1".into()], ..Options::default() });
    let ask = |target: &str, headers| ask(&azure.url(), "GET", target, headers, "");

    assert!(ask(IMDS, "metadata: true\r\n").contains("\"expires_in\":\"3599\""));
    assert!(ask(&format!("{IMDS}&client_id=u1"), "metadata: true\r\n").contains(" 200 "));
    assert!(ask(&format!("{IMDS}&client_id=u2"), "metadata: true\r\n").contains("not found"));
    assert!(ask(IMDS, "").contains(" 400 "));
    assert!(ask(IMDS, "metadata: true\r\nx-forwarded-for: a\r\n").contains(" 400 "));
    assert!(ask(ARC, "metadata: true\r\n").contains(" 400 "), "another version");
    assert!(ask(&format!("{IMDS}/.default"), "metadata: true\r\n").contains("AADSTS500011"));
}

#[test]
fn a_key_of_the_arc_agent_is_good_once() {
    let dir = tempfile::tempdir().unwrap();
    let arc_keys = Some(dir.path().to_owned());
    let azure = Azure::start(Options { arc_keys, ..Options::default() });
    let ask = |headers: &str| ask(&azure.arc_url(), "GET", ARC, headers, "");

    let challenge = ask("metadata: true\r\n");
    let path = challenge.split_once("Basic realm=").unwrap().1.lines().next().unwrap();
    let key = std::fs::read_to_string(path).unwrap();
    let headers = format!("metadata: true\r\nauthorization: Basic {key}\r\n");

    assert!(challenge.contains(" 401 "));
    assert!(ask(&headers).contains("access_token"));
    assert!(ask(&headers).contains(" 401 "));
    assert_eq!(azure.asked_of(Kind::Arc), 3);
}

#[test]
fn what_does_not_fit_a_stream_is_counted() {
    let azure = Azure::start(Options::default());
    let long = "é".repeat(40_000);
    let body = format!(
        r#"[{{"TimeGenerated":"2020-01-01T00:00:00Z","enterprise_id":"x","username":"{long}","other":1,"data":{{"a":[1]}}}}]"#
    );

    let answer = upload(&azure, "Custom-KeeperSecurityEventNewLogs", &body);

    assert!(answer.contains(" 204 "), "{answer}");
    let tally = azure.tally();
    assert_eq!(tally.discarded["other"], 1);
    assert_eq!(tally.nulled["enterprise_id"], 1);
    assert_eq!(tally.truncated["username"], 1);
    assert_eq!(tally.retimed[0].given.as_deref(), Some("2020-01-01T00:00:00Z"));
    let [row] = azure.rows().try_into().unwrap();
    assert_eq!(row["username"].as_str().unwrap().len(), 65_536);
    assert_eq!(row["TimeGenerated"], tally.retimed[0].received.as_str());
    assert_eq!(row["data"]["a"][0], 1);
    assert!(row.get("other").is_none());
    assert_eq!(azure.raw_rows(), [&body[1..body.len() - 1]]);
}

#[test]
fn a_narrow_table_takes_half_an_hour() {
    let azure = Azure::start(Options { is_narrow: true, ..Options::default() });
    let body = |minute| {
        format!(
            r#"[{{"TimeGenerated":"2026-01-01T00:00:00Z"}},{{"TimeGenerated":"2026-01-01T00:{minute}:00Z"}}]"#
        )
    };

    assert!(upload(&azure, "Custom-SiemferryEvents", &body("30")).contains(" 204 "));
    let refused = upload(&azure, "Custom-SiemferryEvents", &body("31"));
    assert!(refused.contains("x-ms-error-code: RecordsTimeRangeIsMoreThan30Minutes"));
}

#[test]
fn an_answer_that_is_lost_was_stored_and_a_connection_that_breaks_was_not() {
    let azure = Azure::start(Options::default());
    let faults = [Fault::LoseAnswer, Fault::ResetBefore, Fault::ResetWithin, Fault::limited("7")];
    let faults = std::sync::Mutex::new(faults.into_iter());
    azure.fault_when(
        move |seen| {
            if seen.kind == Kind::Ingest { faults.lock().unwrap().next() } else { None }
        },
    );
    let upload =
        |n| upload(&azure, "Custom-SiemferryEvents", &format!(r#"[{{"EventUid":"{n}"}}]"#));

    assert_eq!([upload(1), upload(2), upload(3)], ["", "", ""]);
    assert!(upload(4).contains("retry-after: 7"));
    assert!(upload(5).contains(" 204 "));

    let kept: Vec<_> = azure.rows().iter().map(|row| row["EventUid"].clone()).collect();
    assert_eq!(kept, ["1", "5"]);
    assert_eq!(azure.asked(), 5);
}

#[test]
fn a_token_ends_with_its_time() {
    let azure = Azure::start(Options::default());
    let token = member(&ask(&azure.url(), "GET", IMDS, "metadata: true\r\n", ""), "access_token");
    let target = format!(
        "/dataCollectionRules/{}/streams/Custom-SiemferryEvents?api-version=2023-01-01",
        Options::default().rule
    );
    let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    let upload = || ask(&azure.url(), "POST", &target, &headers, "[]");

    assert!(upload().contains(" 204 "));
    azure.move_clock(chrono::TimeDelta::seconds(3600));
    assert!(upload().contains("InvalidToken"));
}
