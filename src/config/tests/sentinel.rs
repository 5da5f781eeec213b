//! `[sinks.<name>.sentinel]`

use super::*;
use crate::encode::sentinel::Profile;

const AUTH: &str = "auth = { managed_identity = {} }";
const STREAM: &str = "stream = 'Custom-KeeperSecurityEventNewLogs'";
const RULE: &str = "rule = 'dcr-0123456789abcdef0123456789abcdef'";
const ENDPOINT: &str = "endpoint = 'https://k.westeurope-1.ingest.monitor.azure.com'";

/// A home with such a sink of these keys, besides those that have no default.
fn sink_and(keys: &str) -> Home {
    given(format!("{SOURCE}[sinks.azure.sentinel]\n{ENDPOINT}\n{RULE}\n{STREAM}\n{AUTH}\n{keys}\n"))
}

/// One in which `keys` stand in place of `without`.
fn sink_without(without: &str, keys: &str) -> Home {
    let others = [ENDPOINT, RULE, STREAM, AUTH].into_iter().filter(|key| *key != without);
    let others: Vec<_> = others.collect();
    given(format!("{SOURCE}[sinks.azure.sentinel]\n{}\n{keys}\n", others.join("\n")))
}

#[track_caller]
fn refused(home: &Home, text: &str, hint: &str) {
    home.is_refused(&format!("`c.toml`: `sinks.azure.sentinel.{text}"), hint);
}

#[test]
fn every_key_is_read() {
    let home = sink_without(
        STREAM,
        "stream = 'Custom-SiemferryEvents'\nprofile = 'full'\ncloud = 'china'\nauthority = 'https://login.example.com'\n\
         scope = 'https://logs.example.com/.default'\nschema = '/s.json'\nbatch = { events = 7 }\n\
         in_flight = 9\ncompress = 'none'\nca_file = '/ca'\nproxy = 'http://p:1'\ntimeout = '9s'\n\
         route = { exclude = ['x'] }\nfrom = 'kept'",
    );

    let config = home.load().unwrap();

    let sink::Config::Sentinel(azure) = &config.sinks["azure"] else { panic!("another kind") };
    assert_eq!((azure.profile, azure.cloud), (Profile::Full, sink::sentinel::Cloud::China));
    assert_eq!(azure.authority.as_deref(), Some("https://login.example.com"));
    assert_eq!(azure.scope.as_deref(), Some("https://logs.example.com/.default"));
    assert_eq!(azure.schema, Some("/s.json".into()));
    assert_eq!((azure.batch.events.get(), azure.batch.bytes.get()), (7, 950_000));
    assert_eq!((azure.in_flight.get(), azure.timeout), (9, Span::seconds(9)));
    assert_eq!((azure.ca_file.clone(), azure.from), (Some("/ca".into()), sink::From::Kept));
}

#[test]
fn what_has_no_default_must_be_named() {
    let without = |key, text: &str, hint: &str| refused(&sink_without(key, ""), text, hint);
    without(
        ENDPOINT,
        "endpoint`: is missing",
        "the receiver's address, such as \"https://keeper-a1b2-westeurope.logs.z1.ingest.monitor.azure.com\"",
    );
    let rule =
        "`dcr-` and 32 digits: `az monitor data-collection rule show --name … --query immutableId`";
    without(RULE, "rule`: is missing", rule);
    let stream = "as the rule declares it: `Custom-KeeperSecurityEventNewLogs`, or `Custom-SiemferryEvents` for the profile `full`";
    without(STREAM, "stream`: is missing", stream);
    without(
        AUTH,
        "auth`: is missing",
        "one of `client_secret`, `certificate`, `workload_identity`, `managed_identity` and `arc`",
    );
    for name in ["KeeperLogs", "/subscriptions/1/dcr", "dcr-", "dcr-0/../1"] {
        let home = sink_without(RULE, &format!("rule = '{name}'"));
        refused(&home, "rule`: is no immutable id of a data collection rule", rule);
    }
    for name in ["KeeperSecurityEventNewLogs_CL", "Custom-", "Custom-a b", "Custom-a/b"] {
        let home = sink_without(STREAM, &format!("stream = '{name}'"));
        refused(&home, "stream`: is no name of a stream", stream);
    }
}

#[test]
fn what_the_api_does_not_take_is_refused() {
    refused(
        &sink_and("batch = { bytes = '1MiB' }"),
        "batch.bytes`: is more than 950000 bytes",
        "the API takes 1 MB in a request, before compression",
    );
    refused(
        &sink_and("compress = 'zstd'"),
        "compress`: the API does not read `zstd`",
        "`gzip`, or `none`",
    );
    refused(
        &sink_without(ENDPOINT, "endpoint = 'https://k.example.com/?a=b'"),
        "endpoint`: holds a query",
        "scheme and host alone: the rest is made of `rule` and `stream`",
    );
}

#[test]
fn a_stream_of_the_other_profile_is_refused() {
    let hint = "nearly every column would vanish: change `stream` or `profile`";
    refused(&sink_and("profile = 'full'"), "stream`: is that of the other profile", hint);
    let home = sink_without(STREAM, "stream = 'Custom-SiemferryEvents'");
    refused(&home, "stream`: is that of the other profile", hint);
}

#[test]
fn a_key_in_the_place_of_its_file_is_not_shown() {
    let file = "-----BEGIN PRIVATE KEY-----\\ns3same\\n-----END PRIVATE KEY-----";
    let auth =
        format!("auth = {{ certificate = {{ tenant = 't', client = 'c', file = \"{file}\" }} }}");
    refused(
        &sink_without(AUTH, &auth),
        "auth.certificate.file`: is no name of a file",
        "put what stands there into a file with mode 0600, and name that file",
    );
}

#[test]
fn tokens_come_from_where_nobody_listens() {
    let hint = r#"scheme and host, such as "https://login.microsoftonline.com""#;
    refused(&sink_and("authority = 'login'"), "authority`: is not a URL", hint);
    refused(
        &sink_and("authority = 'http://login.example.com'"),
        "authority`: would send a credential unencrypted: plain `http://` is for loopback",
        hint,
    );
    refused(
        &sink_and("scope = 'https://monitor.azure.com'"),
        "scope`: does not end with `/.default`",
        r#"such as "https://monitor.azure.com/.default""#,
    );
}

#[test]
fn a_secret_that_is_written_out_is_nobody_elses_to_read() {
    for (auth, key) in [
        (
            "{ client_secret = { tenant = 't', client = 'c', secret = 's3same-s3same' } }",
            "client_secret.secret",
        ),
        (
            "{ certificate = { tenant = 't', client = 'c', file = 'f', password = 's3same-s3same' } }",
            "certificate.password",
        ),
    ] {
        let home = sink_without(AUTH, &format!("auth = {auth}"));

        refused(
            &home,
            &format!("auth.{key}`: a secret in a file that others can open (mode 0644)"),
            "chmod 600 c.toml, or name a file: `{ file = \"…\" }`",
        );
        assert!(home.mode("c.toml", 0o600).load().is_ok());
    }
}

#[test]
fn no_refusal_shows_a_secret() {
    for auth in [
        "'s3same-s3same'",
        "{ s3same = 1 }",
        "{ client_secret = 's3same' }",
        "{ client_secret = { tenant = 't', client = 'c', secret = ['s3same'] } }",
        "{ client_secret = { tenant = 's3same-s3same', client = 'c', secret = 's3same-s3same' } }\nprofile = 's3same-s3same'",
        "{ arc = {}, client_secret = { tenant = 't', client = 'c', secret = 's3same-s3same' } }",
    ] {
        let shown = sink_without(AUTH, &format!("auth = {auth}")).load().unwrap_err().to_string();

        assert!(!shown.contains("s3same"), "{auth}\n{shown}");
    }
}
