use super::*;

const KEY: &str = "webhook-canary-0";

/// A home with a webhook of these keys.
fn hook_with(keys: &str) -> Home {
    given(format!("{SOURCE}[sinks.hook.webhook]\n{keys}\n"))
}

fn hook_and(keys: &str) -> Home {
    hook_with(&format!("url = 'https://h.example.com/in'\n{keys}"))
}

#[test]
fn every_key_is_read() {
    let home = hook_and(
        "body = 'array'\nformat = 'raw'\nheaders = { X-Key = { env = 'K' }, X-Team = 'soc' }\n\
         signature = { keys = [{ env = 'S' }] }\naccept = [202]\nbatch = { events = 7 }\nin_flight = 9\n\
         compress = 'zstd'\nca_file = '/ca'\nclient_certificate = '/cc'\nproxy = 'http://p:1'\n\
         timeout = '9s'\nroute = { sources = ['acme'] }\nfrom = 'kept'",
    );

    let config = home.load().unwrap();

    let sink::Config::Webhook(hook) = &config.sinks["hook"] else { panic!("another kind") };
    let secrets: Vec<_> = hook.secrets().into_iter().map(|(key, _)| key).collect();
    assert_eq!(secrets, ["headers.X-Key", "signature.keys"]);
    assert_eq!(hook.accept, Some(vec![202]));
    assert_eq!((hook.batch.events.get(), hook.batch.bytes), (7, Bytes::new(900 << 10)));
    assert_eq!((hook.in_flight.get(), hook.timeout), (9, Span::seconds(9)));
    assert_eq!(hook.client_certificate, Some("/cc".into()));
    assert_eq!(hook.route.sources, Some(vec!["acme".into()]));
    assert_eq!((hook.body, hook.from), (sink::webhook::Body::Array, sink::From::Kept));
}

#[test]
fn a_url_is_encrypted_and_holds_no_password() {
    let hint = r#"the receiver's address, such as "https://siem.example.com:8443/in""#;
    for (url, text) in [
        ("", "is missing"),
        ("siem.example.com", "is not a URL"),
        ("ftp://siem.example.com", "is not a URL of the web"),
        ("https://u:secret@siem.example.com", "holds a user name or a password"),
        ("https://siem.example.com/#in", "holds a fragment"),
        (
            "http://siem.example.com/in",
            "would send events unencrypted: plain `http://` is for loopback",
        ),
    ] {
        let text = format!("`c.toml`: `sinks.hook.webhook.url`: {text}");
        hook_with(&format!("url = '{url}'")).is_refused(&text, hint);
    }
    for url in ["http://localhost:1/in", "http://127.0.0.1/", "http://[::1]/", "https://h/?a=b"] {
        assert!(hook_with(&format!("url = '{url}'")).load().is_ok(), "{url}");
    }
}

#[test]
fn numbers_that_cannot_work_are_refused() {
    let refused = |keys: &str, key: &str, text: &str, hint: &str| {
        let text = format!("`c.toml`: `sinks.hook.webhook.{key}`: {text}");
        hook_and(keys).is_refused(&text, hint);
    };
    let at_once = "it is how many batches may be on their way at once";
    refused("in_flight = 65", "in_flight", "`65` is more than 64", at_once);
    let expected = "found `0`, expected a whole number from 1 to 4294967295";
    refused("in_flight = 0", "in_flight", expected, "");
    refused("timeout = '0s'", "timeout", "must be more than `0s`", "");
    refused("batch = { bytes = '0B' }", "batch.bytes", "must be more than `0B`", "");
    let proxy = r#"such as "http://proxy:3128""#;
    refused("proxy = 'p'", "proxy", "is not the URL of an HTTP proxy", proxy);
    let accept = "the statuses that say that the receiver holds the batch, such as [200, 202]";
    refused("accept = []", "accept", "names no status", accept);
    refused("accept = [200, 500]", "accept", "`500` is neither 2xx nor 409", accept);
    let expected = "found `70000`, expected a whole number from 0 to 65535";
    refused("accept = [70000]", "accept.0", expected, "");
}

#[test]
fn a_header_has_a_name_and_a_value_of_its_own() {
    let refused = |headers: &str, key: &str, text: &str, hint: &str| {
        let text = format!("`c.toml`: `sinks.hook.webhook.{key}`: {text}");
        hook_and(&format!("headers = {{ {headers} }}")).is_refused(&text, hint);
    };
    for (name, why) in [
        ("Host", "it belongs to the connection"),
        ("transfer-encoding", "it belongs to the connection"),
        ("Content-Type", "it tells of the body, which siemferry makes"),
        ("Webhook-Id", "siemferry sets it"),
        ("Idempotency-Key", "siemferry sets it"),
    ] {
        let key = format!("headers.{name}");
        let value = format!("{name} = {{ env = 'X' }}");
        refused(&value, &key, &format!("cannot be set: {why}"), "leave it out");
    }
    let names = "names are of `a-z`, `A-Z`, `0-9`, `-` and `_`, such as `Authorization`";
    refused("'a b' = 'x'", "headers", "holds what is not a header's name", names);
    let case = "the case of a header's name does not matter: keep one of them";
    let text = "the same header as `headers.X-Team`";
    refused("X-Team = 'a', x-team = 'b'", "headers.x-team", text, case);
    let line = "a value is one line of ASCII";
    refused("X-Team = 'é'", "headers.X-Team", "cannot be sent as a header", line);
    let expected = "found a number, expected text, or a table with one of `file`, `env`, \
                    `credential` and `command`";
    refused("X-Team = 7", "headers.X-Team", expected, "");
    let expected = "found a number, expected a table with one of `file`, `env`, `credential` \
                    and `command`";
    refused("X-Api-Key = 7", "headers.X-Api-Key", expected, "");
}

#[test]
fn a_signature_has_keys() {
    let refused = |keys: &str, text: &str| {
        let text = format!("`c.toml`: `sinks.hook.webhook.signature.keys`: {text}");
        let home = hook_and(&format!("signature = {{ keys = {keys} }}"));
        home.mode("c.toml", 0o600).is_refused(
            &text,
            "a key is `whsec_` and 24 to 64 bytes in base64: \
             `echo whsec_$(openssl rand -base64 32)` makes one",
        );
    };
    refused("[]", "names no key");
    refused("['webhook-canary-1']", "the key does not begin with `whsec_`");
    refused("['whsec_canary']", "what follows `whsec_` is not base64");
    refused("['whsec_Y2FuYXJ5']", "the key does not have 24 to 64 bytes");
    hook_and("signature = {}")
        .is_refused("`c.toml`: `sinks.hook.webhook.signature`: `keys` is missing", "");
}

#[test]
fn a_secret_is_accepted_in_a_file_of_the_owner_alone() {
    let key = "whsec_d2ViaG9vay1jYW5hcnktd2ViaG9vay1jYW5hcnk=";
    for (keys, at) in [
        (
            format!("headers = {{ Authorization = '{KEY}', X-Team = 'soc' }}"),
            "headers.Authorization",
        ),
        (format!("signature = {{ keys = ['{key}', '{key}'] }}"), "signature.keys"),
    ] {
        let config = hook_and(&keys).mode("c.toml", 0o600).load().unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains("canary") && !shown.contains("d2Vi"), "{shown}");
        hook_and(&keys).is_refused(
            &format!(
                "`c.toml`: `sinks.hook.webhook.{at}`: \
                 a secret in a file that others can open (mode 0644)"
            ),
            "chmod 600 c.toml, or name a file: `{ file = \"…\" }`",
        );
    }
    assert!(hook_and("headers = { X-Team = 'soc' }").load().is_ok());
}

#[test]
fn no_refusal_shows_a_secret() {
    for keys in [
        format!("headers = {{ Authorization = '{KEY}' }}\nbody = '{KEY}'"),
        format!("signature = {{ keys = ['{KEY}'] }}\nbody = '{KEY}'"),
        format!("headers = {{ Authorization = ['{KEY}'] }}"),
        format!("headers = {{ Authorization = \"{KEY}\\u0007\" }}"),
        format!("headers = {{ X-Team = ['{KEY}'] }}"),
        format!("headers = {{ X-Team = {{ {KEY} = 1 }} }}"),
        format!("headers = '{KEY}'"),
        format!("signature = '{KEY}'"),
        format!("signature = {{ keys = '{KEY}' }}"),
        format!("proxy = 'http://u:{KEY}@p:1'"),
        format!("url = 'ftp://h/?key={KEY}'"),
        format!("url = 'https://{KEY}@h'"),
    ] {
        let home = if keys.starts_with("url") { hook_with(&keys) } else { hook_and(&keys) };
        let error = home.mode("c.toml", 0o600).load().expect_err(&keys);

        let shown = format!("{error} {error:?}");
        assert!(!error.to_string().contains("canary"), "{keys}\n{shown}");
    }
}

#[test]
fn a_route_names_sources_that_are_there() {
    hook_and("route = { sources = ['acme', 'siemferry'] }").load().unwrap();
    hook_and("route = { sources = ['acme', 'amce'] }").is_refused(
        "`c.toml`: `sinks.hook.webhook.route.sources`: names `amce`, which is no source",
        "the sources are `acme`",
    );
    given(format!("{SOURCE}{SINK}route = {{ sources = ['other'] }}")).is_refused(
        "`c.toml`: `sinks.archive.file.route.sources`: names `other`, which is no source",
        "the sources are `acme`",
    );
}
