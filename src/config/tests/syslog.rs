//! `[sinks.<name>.syslog]`

use super::*;
use crate::encode::Format;
use crate::encode::syslog::{Facility, Framing, Header, Oversize};

/// A home with such a sink of these keys.
fn sink_with(keys: &str) -> Home {
    given(format!("{SOURCE}[sinks.soc.syslog]\n{keys}\n"))
}

fn sink_to(address: &str, keys: &str) -> Home {
    sink_with(&format!("address = '{address}'\n{keys}"))
}

#[track_caller]
fn refused(home: &Home, text: &str, hint: &str) {
    home.is_refused(&format!("`c.toml`: `sinks.soc.syslog.{text}"), hint);
}

#[test]
fn every_key_is_read() {
    let fingerprint = "0a".repeat(32);
    let home = sink_with(&format!(
        "address = ['tls://a.example', 'tcp://b.example:601']\nformat = 'raw'\nheader = 'rfc5424'\n\
         framing = 'newline'\nfacility = 'auth'\nhostname = 'h'\nenterprise_number = 7\n\
         max_message = '1KiB'\noversize = 'split'\nca_file = '/ca'\nclient_certificate = '/cc'\n\
         server_name = 's.example'\nfingerprints = ['sha256:{fingerprint}']\ntimeout = '9s'\n\
         rebind_every = '9m'\nbatch = {{ events = 7 }}\nroute = {{ exclude = ['x'] }}\nfrom = 'kept'"
    ));

    let config = home.load().unwrap();

    let sink::Config::Syslog(soc) = &config.sinks["soc"] else { panic!("another kind") };
    let places: Vec<_> = soc.address.sound().iter().map(ToString::to_string).collect();
    assert_eq!(places, ["tls://a.example:6514", "tcp://b.example:601"]);
    assert_eq!((soc.format, soc.header), (Format::Raw, Header::Rfc5424));
    assert_eq!((soc.framing, soc.facility), (Some(Framing::Newline), Some(Facility::Auth)));
    assert_eq!((soc.hostname.as_deref(), soc.enterprise_number), (Some("h"), Some(7)));
    assert_eq!((soc.max_message.get(), soc.oversize), (1024, Oversize::Split));
    assert_eq!(
        (soc.ca_file.clone(), soc.client_certificate.clone()),
        (Some("/ca".into()), Some("/cc".into()))
    );
    assert_eq!(soc.server_name.as_deref(), Some("s.example"));
    assert_eq!(soc.fingerprints[0].to_string(), format!("sha256:{fingerprint}"));
    assert_eq!((soc.timeout, soc.rebind_every), (Span::seconds(9), Some(Span::minutes(9))));
    assert_eq!((soc.batch.events.get(), soc.from), (7, sink::From::Kept));
}

#[test]
fn an_address_says_over_what_and_where_to() {
    const HINT: &str = "such as \"tls://siem.example.com:6514\"; also `udp://`, `tcp://`, `relp://` and \
                        `relps://` with a port, and `unix:///dev/log`";
    refused(&sink_with("format = 'raw'"), "address`: is missing", HINT);
    refused(&sink_with("address = []"), "address`: is missing", HINT);
    refused(
        &sink_to("siem.example.com:514", ""),
        "address`: `siem.example.com:514` has no `://`",
        HINT,
    );
    refused(
        &sink_with("address = ['tls://a.example', 'tcp://b.example']"),
        "address`: `tcp://b.example` names no port",
        HINT,
    );
}

#[test]
fn a_certificate_must_be_able_to_name_the_host() {
    refused(
        &sink_to("tls://a..b:6514", ""),
        "address`: no certificate can be for the host of `tls://a..b:6514`",
        "name the one that the receiver's is for in `server_name`",
    );
    assert!(sink_to("tls://a..b:6514", "server_name = 's.example'").load().is_ok());
    assert!(sink_to("tls://[::1]:6514", "").load().is_ok());
}

#[test]
fn nothing_comes_behind_udp_which_never_fails() {
    let behind = sink_with("address = ['udp://a.example', 'tcp://b.example:601']\nlossy = true");
    refused(
        &behind,
        "address`: `udp://a.example:514` never fails, so `tcp://b.example:601` is never tried",
        "name `udp://` last, and once",
    );
    let last = sink_with("address = ['tcp://b.example:601', 'udp://a.example']\nlossy = true");
    assert!(last.load().is_ok());
}

#[test]
fn udp_has_to_be_asked_for_by_its_flaw() {
    refused(
        &sink_to("udp://a.example", ""),
        "lossy`: must be true for `udp://`, which loses messages and never tells",
        "`relp://` loses none, `tcp://` few; or say `lossy = true`",
    );
    assert!(sink_to("udp://a.example", "lossy = true").load().is_ok());
    refused(
        &sink_to("tls://a.example", "lossy = true"),
        "lossy`: does nothing without a `udp://` address",
        "leave it out",
    );
}

#[test]
fn a_setting_that_does_nothing_is_refused() {
    for (address, key, needs) in [
        ("tcp://a.example:601", "ca_file = '/ca'", "a `tls://` or `relps://` address"),
        ("relp://a.example:1", "client_certificate = '/cc'", "a `tls://` or `relps://` address"),
        ("unix:///dev/log", "server_name = 'a'", "a `tls://` or `relps://` address"),
        ("relps://a.example:1", "framing = 'newline'", "a `tcp://`, `tls://` or `unix://` address"),
        ("tls://a.example", "header = 'none'\nfacility = 'auth'", "a header"),
        ("tls://a.example", "header = 'none'\nhostname = 'h'", "a header"),
        ("tls://a.example", "header = 'rfc3164'\nenterprise_number = 7", "`header = \"rfc5424\"`"),
    ] {
        let name = key.lines().last().unwrap().split(' ').next().unwrap();
        let text = format!("{name}`: does nothing without {needs}");
        refused(&sink_to(address, key), &text, "leave it out");
    }
}

#[test]
fn a_message_has_a_length_that_receivers_take() {
    let with = |address: &str, length: &str| sink_to(address, &format!("max_message = '{length}'"));
    refused(
        &with("tls://a.example", "479B"),
        "max_message`: less than 480 bytes, which every receiver takes",
        "",
    );
    refused(
        &with("tls://a.example", "129KiB"),
        "max_message`: more than the 131072 bytes that any receiver takes",
        "",
    );
    let udp = sink_to("udp://a.example", "lossy = true\nmax_message = '64KiB'");
    refused(&udp, "max_message`: more than the 65507 bytes that a datagram takes", "");
    assert!(with("tls://a.example", "480B").load().is_ok());
}

#[test]
fn what_cannot_be_is_refused() {
    refused(
        &sink_to("tls://a.example", "header = 'none'\noversize = 'split'"),
        "oversize`: `split` needs `header = \"rfc5424\"`",
        "the structured data of that header tells the parts of an event",
    );
    refused(
        &sink_to("tls://a.example", "server_name = 'a b'"),
        "server_name`: is not the name of a host",
        "such as \"siem.example.com\"",
    );
    refused(&sink_to("tls://a.example", "timeout = '0s'"), "timeout`: must be more than `0s`", "");
    for name in ["", "a b", "é"] {
        refused(
            &sink_to("tls://a.example", &format!("hostname = '{name}'")),
            "hostname`: is not 1 to 255 characters of ASCII without spaces",
            "name it as RFC 5424 has it, or leave it out",
        );
    }
    refused(
        &sink_to("tls://a.example", "enterprise_number = 0"),
        "enterprise_number`: is no number that IANA gives away",
        "your organisation's own, or leave it out",
    );
    refused(
        &sink_to("tls://a.example", "rebind_every = '0s'"),
        "rebind_every`: must be more than `0s`",
        "",
    );
    let pin = sink_to("tls://a.example", "fingerprints = ['sha1:00']");
    let refusals = pin.refusals();
    assert!(refusals[0].0.contains("`sha256:` and 64 hexadecimal digits"), "{refusals:?}");
}
