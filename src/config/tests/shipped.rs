use super::*;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

/// The text with its commented-out keys in force.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
            key.to_owned()
        }
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn example_of_every_default() -> String {
    uncommented(&std::fs::read_to_string(shipped().join("siemferry.toml")).unwrap())
}

#[test]
fn every_shipped_file_is_accepted() {
    let examples = shipped().join("examples");
    let files = [shipped(), examples].map(|dir| std::fs::read_dir(dir).unwrap());

    let mut count = 0;
    for path in files.into_iter().flatten().map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = given(text).load();
        if path.ends_with("config/siemferry.toml") {
            let error = loaded.unwrap_err();
            let keys: Vec<_> = error.problems().iter().map(|p| p.key.as_str()).collect();
            assert_eq!(keys, ["sources", "sinks"], "only what nobody can know is missing");
        } else {
            loaded.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
    assert!(count >= 5, "{count} files");
}

#[test]
fn the_commented_default_shows_the_defaults() {
    let config = given(example_of_every_default()).load().unwrap();

    let keeper = source::rest::Config {
        token: Some(secret::Config::Credential("keeper-token".into())),
        ..source::rest::Config::default()
    };
    let file = sink::file::Config {
        path: "/var/log/siemferry/events.ndjson".into(),
        ..sink::file::Config::default()
    };
    let search = sink::elastic::Config {
        url: sink::http::Address::from("https://es.example.com:9200".to_owned()),
        index: Some("keeper-audit".into()),
        ..sink::elastic::Config::default()
    };
    let auth = "client_secret = { tenant = 'contoso.example', client = '00000000-0000-0000-0000-000000000000', secret = { credential = 'sentinel' } }";
    let sentinel = sink::sentinel::Config {
        endpoint: sink::http::Address::from(
            "https://keeper-a1b2-westeurope.logs.z1.ingest.monitor.azure.com".to_owned(),
        ),
        rule: "dcr-0123456789abcdef0123456789abcdef".into(),
        stream: "Custom-KeeperSecurityEventNewLogs".into(),
        auth: Some(toml::from_str(auth).unwrap()),
        ..sink::sentinel::Config::default()
    };
    let splunk = sink::splunk::Config {
        url: sink::http::Address::from("https://hec.example.com:8088".to_owned()),
        token: Some(secret::Config::Credential("hec".into())),
        ..sink::splunk::Config::default()
    };
    let syslog = sink::syslog::Config {
        address: toml::Value::from("tls://siem.example.com:6514").try_into().unwrap(),
        ..sink::syslog::Config::default()
    };
    let webhook = sink::webhook::Config {
        url: sink::http::Address::from("https://hook.example.com/in".to_owned()),
        ..sink::webhook::Config::default()
    };
    let expected = Config {
        sources: BTreeMap::from([("acme".into(), source::Config::Keeper(keeper))]),
        sinks: BTreeMap::from([
            ("archive".into(), sink::Config::File(file)),
            ("hec".into(), sink::Config::Splunk(splunk)),
            ("hook".into(), sink::Config::Webhook(webhook)),
            ("search".into(), sink::Config::Elastic(search)),
            ("sentinel".into(), sink::Config::Sentinel(sentinel)),
            ("soc".into(), sink::Config::Syslog(syslog)),
        ]),
        ..Config::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn the_commented_default_names_every_key() {
    let text = std::fs::read_to_string(shipped().join("siemferry.toml")).unwrap();
    let tables = [
        "state",
        "spool",
        "seen",
        "log",
        "shutdown",
        "own_events",
        "sources.acme.keeper",
        "sinks.archive.file",
        "sinks.search.elastic",
        "sinks.sentinel.sentinel",
        "sinks.hec.splunk",
        "sinks.soc.syslog",
        "sinks.hook.webhook",
    ];
    for table in tables {
        let section = text.split(&format!("\n#[{table}]\n")).nth(1).expect(table);
        let section = section.split("\n#[").next().unwrap();
        let known = given(format!("[{table}]\nxyzzyxyzzyxyzzy = 1")).refusals().remove(0).1;
        for key in known.split('`').skip(1).step_by(2) {
            let named = section
                .lines()
                .any(|line| line.trim_start_matches(['#', ' ']).starts_with(&format!("{key} = ")));
            assert!(named, "{table}.{key}");
        }
    }
}

#[test]
fn every_sink_that_a_page_shows_is_accepted() {
    let root = shipped().parent().unwrap().to_owned();
    let mut count = 0;
    for page in std::fs::read_dir(root.join("docs")).unwrap() {
        let path = page.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            // A page may show a second way to write the same sink.
            let home = given(format!("{SOURCE}{}\n", block.replace('…', "0")));
            home.load().unwrap_or_else(|error| panic!("{}: {error}\n{block}", path.display()));
            count += 1;
        }
    }
    assert!(count > 0);
}
