//! The canary: a token that a hostile server writes back in every way is found in no artefact.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use siemferry::sim::{Clock, Fault, Options, SimEvent};
use siemferry::{config, secret, source};

use crate::rig::{Home, Sim, read};
use crate::told::{Told, home_of, week_of};

const CANARY: &str = "cAnArY-0123456789+abcdef";
const BASE64: &str = "Y0FuQXJZLTAxMjM0NTY3ODkrYWJjZGVm";
const PERCENT: &str = "cAnArY-0123456789%2Babcdef";

/// No text may hold any of these; a part is as good as the whole.
const FORMS: [&str; 4] = ["cAnArY", "0123456789+", "0123456789%2", "Y0FuQXJZLTAx"];

const NOW: i64 = 1_767_000_000_000;

/// An API that lets the canary in.
fn api() -> Sim {
    let clock = Clock::Manual(NOW);
    let sim = Sim::start(Options { token: CANARY.into(), clock, ..Options::default() });
    sim.api.add_all((1..200).map(|age| SimEvent::new(NOW - age * 60_000, "login")));
    sim
}

/// A home with this in place of the token, its log at the most telling level.
fn home(sim: &Sim, token: &str) -> Home {
    let home = home_of(sim);
    home.edit("token = { env = \"RIG_TOKEN\" }", token);
    home.edit("level = \"debug\"", "level = \"trace\"");
    home
}

fn keep(home: &Home, name: &str, text: &str) -> PathBuf {
    home.write(name, text);
    let path = home.path(name);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// What a hostile server answers, one after the other; the last one blocks the source.
fn echoes() -> Vec<Fault> {
    let json = |body: String| {
        let headers = vec![("content-type".into(), "application/json".into())];
        Fault::Raw { headers, body: body.into_bytes() }
    };
    let message = |text: &str| Fault::status(500, &format!("{{\"message\":\"{text}\"}}"));
    vec![
        Fault::EchoToken { code: 500 },
        Fault::EchoToken { code: 400 },
        json(format!("{{\"{CANARY}\":1,\"b {BASE64}\":2}}")),
        json(format!("{{\"{}{CANARY}\":1}}", "k".repeat(30))),
        json("?".into()).with_header("content-type", &format!("text/{CANARY}")),
        json("?".into()).with_header("content-encoding", CANARY),
        message(&format!("percent {PERCENT}, base64 {BASE64}")),
        // Where a long text is shortened.
        message(&format!("{}{CANARY}", "x".repeat(190))),
        Fault::EchoToken { code: 403 },
    ]
}

/// Every file below the home but these.
fn files(dir: &Path, but: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, but));
        } else if !but.contains(&path) {
            found.push(path);
        }
    }
    found
}

#[track_caller]
fn is_clean(what: &str, text: &str) {
    for form in FORMS {
        let at = text.find(form);
        assert!(
            at.is_none(),
            "{what}: …{}",
            text[at.unwrap()..].chars().take(60).collect::<String>()
        );
    }
}

/// Runs against each echo, then to the end, and looks everywhere but into the files meant for it.
#[track_caller]
fn is_never_shown(sim: &Sim, home: &Home, meant: &[PathBuf], with: impl Fn(&mut Command)) {
    let run = |arguments: &[&str]| -> Told {
        let mut command = home.command(arguments);
        with(&mut command);
        home.told(command)
    };
    let look = |what: &str, told: &Told| {
        is_clean(what, &told.said);
        is_clean(what, &told.log);
        is_clean(what, &told.stdout);
    };
    let everywhere = || {
        let status = [run(&["status"]), run(&["status", "--json"])];
        assert!(status.iter().all(|told| told.code == Some(0)), "{status:?}");
        for told in &status {
            look("status", told);
        }
        let files = files(&home.path(""), meant);
        assert!(files.iter().any(|file| file.ends_with("siemferry.db")), "{files:?}");
        for file in files {
            is_clean(&file.display().to_string(), &read(&file));
        }
    };
    for fault in echoes() {
        let name = format!("{fault:?}");
        sim.api.fault_when(move |request| (request.number > 1).then(|| fault.clone()));
        let told = run(&["run", "--once", "--patience", "400ms"]);
        assert_eq!(told.code, Some(1), "{name}: {}", told.log);
        look(&name, &told);
        everywhere();
    }
    sim.api.fault_when(|_| Some(Fault::EchoToken { code: 401 }));
    let told = run(&["run", "--once"]);
    assert!(told.said.contains("401 Unauthorized: you sent Bearer ***\n"), "{}", told.said);
    everywhere();
    sim.api.mend();
    let told = run(&["run", "--once"]);
    assert_eq!(told.code, Some(0), "{}", told.said);
    look("the last run", &told);
    everywhere();
    home.holds_all(sim);
}

#[test]
fn a_token_of_the_environment_is_never_shown() {
    let sim = api();
    let home = home(&sim, "token = { env = \"THE_TOKEN\" }");

    is_never_shown(&sim, &home, &[], |command| {
        command.env("THE_TOKEN", CANARY);
    });
}

#[test]
fn a_token_in_a_file_is_never_shown() {
    let sim = api();
    let home = home(&sim, "token = { file = \"FILE\" }");
    let file = keep(&home, "token", CANARY);
    home.edit("FILE", &file.display().to_string());

    is_never_shown(&sim, &home, &[file], |_| ());
}

#[test]
fn a_credential_is_never_shown() {
    let sim = api();
    let home = home(&sim, "token = { credential = \"keeper\" }");
    fs::create_dir(home.path("credentials")).unwrap();
    let file = keep(&home, "credentials/keeper", CANARY);
    let dir = home.path("credentials");

    is_never_shown(&sim, &home, &[file], |command| {
        command.env("CREDENTIALS_DIRECTORY", &dir);
    });
}

#[test]
fn what_a_command_prints_is_never_shown() {
    let sim = api();
    let home = home(&sim, &format!("token = {{ command = [\"echo\", \"{CANARY}\"] }}"));

    is_never_shown(&sim, &home, &[home.config()], |_| ());
}

#[test]
fn a_token_in_the_configuration_is_never_shown() {
    let sim = api();
    let home = home(&sim, &format!("token = \"{CANARY}\""));
    fs::set_permissions(home.config(), Permissions::from_mode(0o600)).unwrap();

    is_never_shown(&sim, &home, &[home.config()], |_| ());
}

#[test]
fn a_token_that_replaces_the_configured_one_is_never_shown() {
    let sim = api();
    let home = home(&sim, "token = { env = \"NONE\" }");

    is_never_shown(&sim, &home, &[], |command| {
        command.env("SIEMFERRY_SOURCES__ACME__KEEPER__TOKEN", CANARY);
    });
}

#[test]
fn a_token_never_reaches_another_host() {
    let (sim, elsewhere) = (api(), week_of(10));
    let home = home(&sim, "token = { env = \"THE_TOKEN\" }");
    let to = format!("{}/api/rest/public/events?token={CANARY}", elsewhere.api.url());
    sim.api.fault_when(move |_| Some(Fault::Redirect { to: to.clone() }));
    let mut command = home.command(&["run", "--once"]);
    command.env("THE_TOKEN", CANARY);

    let told = home.told(command);

    assert_eq!(told.code, Some(1), "{}", told.log);
    assert_eq!(elsewhere.api.requests(), 0);
    is_clean("the run", &format!("{told:?}"));
}

#[test]
fn a_refused_configuration_shows_no_token() {
    let sim = api();
    let token = format!("token = \"{CANARY}\"");
    for (from, to) in [
        ("base_url", format!("tenant = \"{CANARY}\"\nunknown = \"{CANARY}\"\nbase_url")),
        ("poll_every = \"50ms\"", format!("poll_every = \"{CANARY}\"")),
        ("base_url = \"http://", format!("base_url = \"https://{CANARY}@")),
        ("base_url = \"http://", format!("region = \"{CANARY}\"\nca_file = \"")),
        (token.as_str(), format!("token = \"{CANARY}\" \"{CANARY}\"")),
        (token.as_str(), format!("token = \"{CANARY}")),
        (token.as_str(), format!("token = {{ file = \"{CANARY}\", env = \"{CANARY}\" }}")),
        (token.as_str(), format!("token = {{ {} = 1 }}", CANARY.replace('+', "-"))),
        (token.as_str(), format!("token = [\"{CANARY}\"]")),
        (token.as_str(), format!("token = \"{CANARY}\\n{CANARY}\"")),
    ] {
        let home = home(&sim, &token);
        home.edit(from, &to);
        for mode in [0o600, 0o644] {
            fs::set_permissions(home.config(), Permissions::from_mode(mode)).unwrap();

            let told = home.impatient();

            assert_eq!(told.code, Some(2), "{to}: {}", told.said);
            is_clean(&to, &format!("{told:?}"));
        }
    }
}

#[test]
fn debug_shows_no_token() {
    let plain = secret::Config::plain(CANARY);
    let command = secret::Config::Command(vec!["print".into(), CANARY.into()]);
    let token = plain.read().unwrap();
    let rest = source::rest::Config { token: Some(plain.clone()), ..Default::default() };
    let source = source::Config::Keeper(rest.clone());
    let sources = [("acme".to_owned(), source.clone())].into();
    let all = config::Config { sources, ..Default::default() };

    for text in [
        format!("{plain:?}{plain:#?}"),
        format!("{command:?}{command:#?}"),
        format!("{token:?}{token:#?}"),
        format!("{rest:?}{rest:#?}"),
        format!("{source:?}{source:#?}"),
        format!("{all:?}{all:#?}"),
    ] {
        assert!(text.contains("***") || text.contains("print"), "{text}");
        is_clean("Debug", &text);
    }
}
