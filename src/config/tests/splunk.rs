//! `[sinks.<name>.splunk]`

use super::*;
use crate::sink::splunk::{Ack, Flavor};

const HINT: &str = r#"scheme, host and port, such as "https://hec.example.com:8088""#;

/// A home with such a sink of these keys.
fn sink_with(keys: &str) -> Home {
    given(format!("{SOURCE}[sinks.hec.splunk]\n{keys}\n"))
}

fn sink_and(keys: &str) -> Home {
    sink_with(&format!("url = 'https://hec.example.com:8088'\ntoken = {{ env = 'T' }}\n{keys}"))
}

#[track_caller]
fn refused(home: &Home, text: &str, hint: &str) {
    home.is_refused(&format!("`c.toml`: `sinks.hec.splunk.{text}"), hint);
}

#[test]
fn every_key_is_read() {
    let home = sink_and(
        "index = 'i'\nhost = 'h'\nsource = 's'\nsourcetype = 't'\nflavor = 'logscale'\nack = 'off'\n\
         ack_timeout = '9m'\nformat = 'raw'\nbatch = { events = 7 }\nin_flight = 9\n\
         compress = 'none'\nca_file = '/ca'\nclient_certificate = '/cc'\nproxy = 'http://p:1'\n\
         timeout = '9s'\nroute = { exclude = ['x'] }\nfrom = 'kept'",
    );

    let config = home.load().unwrap();

    let sink::Config::Splunk(hec) = &config.sinks["hec"] else { panic!("another kind") };
    let labels = [&hec.index, &hec.host, &hec.source, &hec.sourcetype];
    assert_eq!(labels.map(|label| label.as_deref().unwrap()), ["i", "h", "s", "t"]);
    assert_eq!((hec.flavor, hec.ack), (Flavor::Logscale, Ack::Off));
    assert_eq!((hec.ack_timeout, hec.timeout), (Span::minutes(9), Span::seconds(9)));
    assert_eq!((hec.batch.events.get(), hec.batch.bytes.get()), (7, 900 << 10));
    assert_eq!((hec.in_flight.get(), hec.from), (9, sink::From::Kept));
    assert_eq!(hec.client_certificate, Some("/cc".into()));
}

#[test]
fn a_url_is_that_of_the_collector_alone() {
    refused(
        &sink_with("token = { env = 'T' }"),
        "url`: is missing",
        r#"the receiver's address, such as "https://hec.example.com:8088""#,
    );
    let with = |url: &str| sink_with(&format!("token = {{ env = 'T' }}\nurl = '{url}'"));
    refused(&with("https://a.example/?x=1"), "url`: holds a query", HINT);
    refused(
        &with("https://a.example/services/collector/event"),
        "url`: holds the path of the collector, which is added to it",
        HINT,
    );
    assert!(with("https://a.example:8088/splunk/").load().is_ok());
}

#[test]
fn what_collectors_do_not_understand_is_refused() {
    refused(
        &sink_and("compress = 'zstd'"),
        "compress`: collectors do not read `zstd`",
        "`gzip`, or `none`",
    );
    refused(&sink_and("index = ''"), "index`: is empty", "name it, or leave it out");
    refused(&sink_and("ack_timeout = '0s'"), "ack_timeout`: must be more than `0s`", "");
    refused(
        &sink_and("flavor = 'logscale'\nack = 'on'"),
        "ack`: LogScale acknowledges nothing",
        "leave `ack` out",
    );
}

#[test]
fn a_token_is_nobody_elses_to_read() {
    let url = "url = 'https://hec.example.com:8088'";
    refused(
        &sink_with(url),
        "token`: is missing",
        "where the collector's token is read from, such as { credential = \"hec\" }",
    );
    let home = sink_with(&format!("{url}\ntoken = 's3same-s3same'"));
    refused(
        &home,
        "token`: a secret in a file that others can open (mode 0644)",
        "chmod 600 c.toml, or name a file: `{ file = \"…\" }`",
    );
    assert!(home.mode("c.toml", 0o600).load().is_ok());
    for keys in ["token = 's3same-s3same'\nindex = ['s3same-s3same']", "token = ['s3same']"] {
        let shown = sink_with(&format!("{url}\n{keys}")).load().unwrap_err().to_string();

        assert!(!shown.contains("s3same"), "{keys}\n{shown}");
    }
}
