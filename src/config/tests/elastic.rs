//! `[sinks.<name>.elastic]`

use super::*;

const HINT: &str =
    "lower case, without spaces and signs, such as `keeper-audit` or `keeper-{date}`";

/// A home with such a sink of these keys.
fn sink_with(keys: &str) -> Home {
    given(format!("{SOURCE}[sinks.search.elastic]\n{keys}\n"))
}

fn sink_and(keys: &str) -> Home {
    sink_with(&format!("url = 'https://es.example.com:9200'\n{keys}"))
}

#[track_caller]
fn refused(keys: &str, text: &str, hint: &str) {
    sink_and(keys).is_refused(&format!("`c.toml`: `sinks.search.elastic.{text}"), hint);
}

#[test]
fn every_key_is_read() {
    let home = sink_and(
        "data_stream = 'logs-a'\nauth = { basic = { user = 'u', password = { env = 'P' } } }\n\
         pipeline = 'p'\nformat = 'raw'\nbatch = { events = 7 }\nin_flight = 9\ncompress = 'none'\n\
         ca_file = '/ca'\nclient_certificate = '/cc'\nproxy = 'http://p:1'\ntimeout = '9s'\n\
         route = { exclude = ['x'] }\nfrom = 'kept'",
    );

    let config = home.load().unwrap();

    let sink::Config::Elastic(search) = &config.sinks["search"] else { panic!("another kind") };
    let secrets: Vec<_> = search.secrets().into_iter().map(|(key, _)| key).collect();
    assert_eq!(secrets, ["auth.basic.password"]);
    assert_eq!(search.data_stream.as_deref(), Some("logs-a"));
    assert_eq!(search.pipeline.as_deref(), Some("p"));
    // What is not named stays as it is for this kind.
    assert_eq!((search.batch.events.get(), search.batch.bytes), (7, Bytes::mebibytes(5)));
    assert_eq!((search.in_flight.get(), search.timeout), (9, Span::seconds(9)));
    assert_eq!(search.ca_file, Some("/ca".into()));
    assert_eq!(search.client_certificate, Some("/cc".into()));
    assert_eq!((search.format, search.from), (crate::encode::Format::Raw, sink::From::Kept));
}

#[test]
fn events_go_to_an_index_or_to_a_data_stream() {
    refused("", "index`: is missing", "name the `index` or the `data_stream` that events go to");
    refused(
        "index = 'a'\ndata_stream = 'b'",
        "data_stream`: stands beside `index`",
        "events go to one of them: keep one",
    );
    refused(
        "data_stream = 'logs-{date}'",
        "data_stream`: holds `{date}`",
        "a data stream begins new indices by itself: name it without a date",
    );
    for key in ["index", "data_stream"] {
        let named = |name: &str, why: &str| {
            refused(&format!("{key} = '{name}'"), &format!("{key}`: `{name}` {why}"), HINT);
        };
        named("", "is empty");
        named("Keeper", "holds an upper-case letter");
        named("a b", "holds a character that no name of an index may hold");
        named("a{day}", "holds a character that no name of an index may hold");
        named("_a", "begins with `-`, `_` or `+`");
        named("..", "is no name");
        named(&"a".repeat(256), "is longer than 255 bytes");
    }
    assert!(sink_and("index = 'keeper-{date}'").load().is_ok());
}

#[test]
fn a_url_is_that_of_the_cluster() {
    sink_with("index = 'a'").is_refused(
        "`c.toml`: `sinks.search.elastic.url`: is missing",
        r#"the receiver's address, such as "https://es.example.com:9200""#,
    );
    sink_with("index = 'a'\nurl = 'https://es.example.com/?a=b'").is_refused(
        "`c.toml`: `sinks.search.elastic.url`: holds a query",
        r#"scheme, host, port and path, such as "https://es.example.com:9200""#,
    );
    for url in ["https://es.example.com/a/path/", "http://127.0.0.1:9200"] {
        assert!(sink_with(&format!("index = 'a'\nurl = '{url}'")).load().is_ok(), "{url}");
    }
}

#[test]
fn what_the_products_do_not_understand_is_refused() {
    refused(
        "index = 'a'\ncompress = 'zstd'",
        "compress`: neither Elasticsearch nor OpenSearch reads `zstd`",
        "`gzip` is read by both",
    );
    refused(
        "index = 'a'\npipeline = ''",
        "pipeline`: is empty",
        "name the ingest pipeline, or leave it out",
    );
    refused("index = 'a'\nbatch = { bytes = '0B' }", "batch.bytes`: must be more than `0B`", "");
    refused("index = 'a'\ntimeout = '0s'", "timeout`: must be more than `0s`", "");
}

#[test]
fn a_credential_is_of_one_kind() {
    let auth = |auth: &str, text: &str, hint: &str| {
        refused(&format!("index = 'a'\nauth = {auth}"), text, hint);
    };
    let expected = "expected a table with one of `api_key`, `basic` and `bearer`";
    auth("'secret'", &format!("auth`: found a string, {expected}"), "");
    auth("7", &format!("auth`: found a number, {expected}"), "");
    auth("{}", &format!("auth`: {expected}"), "");
    auth("{ apikey = 'secret' }", &format!("auth`: unknown key, {expected}"), "");
    auth(
        "{ api_key = { env = 'A' }, bearer = { env = 'B' } }",
        &format!("auth`: more than one key, {expected}"),
        "",
    );
    auth("{ basic = { user = 'u' } }", "auth.basic`: `password` is missing", "");
    for user in ["", "a:b", "a\\u0007"] {
        auth(
            &format!("{{ basic = {{ user = \"{user}\", password = {{ env = 'P' }} }} }}"),
            "auth.basic.user`: is empty, or holds a `:` or a control character",
            "name the user alone",
        );
    }
    sink_and("index = 'a'\nauth = { bearer = '' }").mode("c.toml", 0o600).is_refused(
        "`c.toml`: `sinks.search.elastic.auth.bearer`: read secret from configured value: it is empty",
        "store the secret alone, as one line of ASCII",
    );
}

#[test]
fn a_credential_that_is_written_out_is_nobody_elses_to_read() {
    for (auth, key) in [
        ("{ api_key = 's3same-s3same' }", "api_key"),
        ("{ bearer = 's3same-s3same' }", "bearer"),
        ("{ basic = { user = 'u', password = 's3same-s3same' } }", "basic.password"),
    ] {
        let home = sink_and(&format!("index = 'a'\nauth = {auth}"));
        home.is_refused(
            &format!("`c.toml`: `sinks.search.elastic.auth.{key}`: a secret in a file that others can open (mode 0644)"),
            "chmod 600 c.toml, or name a file: `{ file = \"…\" }`",
        );
        assert!(home.mode("c.toml", 0o600).load().is_ok());
    }
}

#[test]
fn no_refusal_shows_a_credential() {
    for auth in [
        "'s3same-s3same'",
        "['s3same']",
        "{ s3same = 1 }",
        "{ api_key = ['s3same'] }",
        "{ bearer = { value = 's3same' } }",
        "{ bearer = 's3same-s3same', api_key = 's3same-s3same' }",
        "{ basic = 's3same' }",
        "{ basic = { user = 'u', password = ['s3same'] } }",
        "{ api_key = 's3same-s3same' }\nindex = 's3same-s3same Z'",
    ] {
        let shown = sink_and(&format!("auth = {auth}")).load().unwrap_err().to_string();

        assert!(!shown.contains("s3same"), "{auth}\n{shown}");
    }
}
