//! The whole of it: the real binary, from the API into the index.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use siemferry::sim::oracle;

use crate::bulk::{Access, Bulk, Fault, Options, Product, Seen};
use crate::rig::{Home, Sim, read};
use crate::told::{Told, home_of, week_of};

const EVENTS: usize = 300;

/// A home that delivers a week of events to the simulator as well as to its file.
fn given(search: &Bulk, keys: &str) -> (Sim, Home) {
    let sim = week_of(EVENTS);
    let home = home_of(&sim);
    let config = fs::read_to_string(home.config()).unwrap();
    let sink = format!("[sinks.search.elastic]\nurl = \"{}\"\n{keys}\n", search.url());
    home.write("siemferry.toml", &format!("{config}\n{sink}"));
    (sim, home)
}

/// The documents as the file has its lines: without the member that is not in them.
fn lines(search: &Bulk) -> Vec<String> {
    const LENGTH: usize = r#","@timestamp":"2026-01-02T03:04:05.678Z""#.len();
    let line = |document: String| {
        let at = document.rfind(r#","@timestamp":""#).unwrap();
        format!("{}{}", &document[..at], &document[at + LENGTH..])
    };
    search.documents().into_iter().map(line).collect()
}

fn check(home: &Home) -> Told {
    home.told(home.command(&["check", "--online"]))
}

/// What was found of the sink.
#[track_caller]
fn is_found(home: &Home, said: &str) {
    let told = check(home);
    assert!(told.stdout.contains(said), "{}", told.stdout);
}

#[test]
fn every_event_is_in_the_index_once() {
    for keys in [
        "index = \"keeper-{date}\"\ncompress = \"none\"",
        "index = \"keeper\"\ncompress = \"gzip\"",
    ] {
        let search = Bulk::start(Options::default());
        let (sim, home) = given(&search, &format!("{keys}\nbatch = {{ events = 40 }}"));

        home.run_once_well();

        let report = oracle::compare(&sim.api.truth(), lines(&search));
        assert!(report.is_exact() && report.held > 0, "{report}");
        assert!(search.all_tries().values().all(|tries| tries.created == 1));
        home.holds_all(&sim);
    }
}

#[test]
fn events_arrive_once_though_answers_are_lost_and_requests_refused() {
    let search = Bulk::start(Options::default());
    search.fault_when(|seen| match seen.number % 7 {
        1 => Some(Fault::status(503, "unavailable", "soon")),
        3 => Some(Fault::LoseAnswer),
        _ => None,
    });
    let (sim, home) = given(&search, "index = \"keeper\"\nbatch = { events = 100 }");

    home.run_once_well();

    let report = oracle::compare(&sim.api.truth(), lines(&search));
    assert!(report.is_exact(), "{report}");
    assert!(search.all_tries().values().all(|tries| tries.created == 1));
}

#[test]
fn check_says_what_the_cluster_is_and_what_it_holds() {
    let search = Bulk::start(Options::default());
    let (_sim, home) = given(&search, "index = \"keeper\"");
    is_found(&home, "Elasticsearch 9.5.1 on `simulated` has no `keeper` yet");
    home.run_once_well();
    is_found(&home, "Elasticsearch 9.5.1 on `simulated` has `keeper`");

    let search = Bulk::start(Options { product: Product::OpenSearch, ..Options::default() });
    let (_sim, home) = given(&search, "data_stream = \"logs-a\"");
    is_found(
        &home,
        "OpenSearch 2.19.1 on `simulated` has no data stream `logs-a`, and no index template is for it\n\
         hint: install an index template with `data_stream` for it",
    );
    let patterns = serde_json::json!({ "index_patterns": ["logs-*"] });
    search.install("plain", &patterns);
    is_found(&home, "the index template `plain` makes a plain index of it");
    let mut streams = patterns;
    streams["data_stream"] = serde_json::json!({});
    streams["priority"] = serde_json::json!(7);
    search.install("streams", &streams);
    is_found(&home, "the first event makes it, by the index template `streams`");
    home.run_once_well();
    is_found(&home, "has `logs-a`");
    assert!(search.indices().contains_key(".ds-logs-a-2026.11.25-000001"));
}

#[test]
fn check_changes_nothing_and_tells_the_remedy() {
    let access = Some(Access::Bearer("right-token".into()));
    let search = Bulk::start(Options { access, ..Options::default() });
    let (_sim, home) = given(&search, "index = \"keeper\"\nauth = { bearer = { env = \"ES\" } }");
    let check = |token: &str| {
        let mut command = home.command(&["check", "--online"]);
        home.told({
            command.env("ES", token);
            command
        })
    };

    let wrong = check("wrong-token");
    assert!(wrong.stdout.contains("failed  sink `search`: "), "{}", wrong.stdout);
    assert!(wrong.stdout.contains("401"), "{}", wrong.stdout);

    // A credential that may only write.
    search.fault_when(|seen: &Seen| {
        (seen.method == "GET").then(|| Fault::status(403, "security_exception", "unauthorized"))
    });
    let blind = check("right-token");
    assert!(blind.stdout.contains("ok      sink `search`: "), "{}", blind.stdout);
    assert!(blind.stdout.contains("whether it may write there is not known"), "{}", blind.stdout);

    search.fault_when(|_| {
        let body = "<html>hello</html>".to_owned();
        Some(Fault::Status { code: 200, headers: Vec::new(), body })
    });
    let other = check("right-token");
    let said = "the answer is none of Elasticsearch or OpenSearch";
    assert!(other.stdout.contains(said), "{}", other.stdout);

    assert!(search.seen().iter().all(|seen| seen.method == "GET"), "nothing was changed");
    assert!(search.indices().is_empty());
}

#[test]
fn a_credential_that_the_server_writes_back_is_shown_nowhere() {
    const CANARY: &str = "cAnArY-es-0123456789+xyz";
    // base64 of `elastic:` and the canary, and of the canary alone.
    const FORMS: [&str; 4] =
        ["cAnArY", "ZWxhc3RpYzpjQW5BclktZXMtMDEyMzQ1Njc4OSt4eXo", "Y0FuQXJZLWVz", "0123456789+"];
    for auth in [
        "{ bearer = { env = \"ES\" } }",
        "{ api_key = { env = \"ES\" } }",
        "{ basic = { user = \"elastic\", password = { env = \"ES\" } } }",
    ] {
        let search = Bulk::start(Options::default());
        search.fault_when(|seen| {
            let given = seen.header("authorization").unwrap_or_default();
            let body = serde_json::json!({ "error": { "type": given, "reason": given } });
            let headers = vec![("x-echo".to_owned(), given.to_owned())];
            let code = [500, 400, 401][usize::try_from(seen.number % 3).unwrap()];
            Some(Fault::Status { code, headers, body: body.to_string() })
        });
        let (_sim, home) = given(&search, &format!("index = \"a\"\nauth = {auth}"));
        home.edit("level = \"debug\"", "level = \"trace\"");
        let run = |arguments: &[&str]| {
            let mut command = home.command(arguments);
            command.env("ES", CANARY);
            home.told(command)
        };

        let told = [
            run(&["run", "--once", "--patience", "5s"]),
            run(&["check", "--online"]),
            run(&["status", "--json"]),
        ];

        assert!(!search.bulks().is_empty(), "it was told the credential");
        for text in told.iter().flat_map(|it| [&it.said, &it.log, &it.stdout]) {
            assert!(FORMS.iter().all(|form| !text.contains(form)), "{text}");
        }
        for file in files(&home.path("")) {
            let text = read(&file);
            assert!(FORMS.iter().all(|form| !text.contains(form)), "{}", file.display());
        }
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_credential_in_the_configuration_needs_a_file_of_ones_own() {
    let search = Bulk::start(Options::default());
    let (_sim, home) = given(&search, "index = \"a\"\nauth = { api_key = \"key-in-the-open\" }");
    fs::set_permissions(home.config(), Permissions::from_mode(0o644)).unwrap();

    let told = home.told(home.command(&["check"]));

    assert_eq!(told.code, Some(2));
    let said = "`sinks.search.elastic.auth.api_key`: a secret in a file that others can open";
    assert!(told.stdout.contains(said), "{}", told.stdout);
    assert!(!told.stdout.contains("key-in-the-open"), "{}", told.stdout);
}
