//! `siemferry check`: whatever is wrong is told with its remedy, and nothing is changed by looking.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use serde_json::{Value, json};
use siemferry::sim::{Clock, Fault, Options, SimEvent};

use crate::rig::{Home, Sim, TOKEN, eventually, read};
use crate::tls;
use crate::told::{Told, as_somebody, home_at, home_of, read_only};
use crate::wire::{Wire, answer};

/// Whose clock goes as this machine's does, with something in the second asked for.
fn api() -> Sim {
    let sim = Sim::start(Options::default());
    let now = sim.api.now();
    sim.api.add_all((0..600).map(|tenth| SimEvent::new(now - 130_000 + tenth * 200, "login")));
    sim
}

fn given() -> (Sim, Home) {
    let sim = api();
    let home = home_of(&sim);
    (sim, home)
}

fn check(home: &Home, arguments: &[&str]) -> Told {
    home.told(home.command(&[&["check"], arguments].concat()))
}

/// The lines, without those of the disks, whose room differs by the machine.
fn lines(told: &Told) -> String {
    let of_disk = |line: &&str| !(line.contains("  disk of ") && line.ends_with(" free"));
    told.stdout.lines().filter(of_disk).fold(String::new(), |all, line| all + line + "\n")
}

/// Ends with this code, and says this among others; all else is fine.
#[track_caller]
fn fails(told: &Told, code: i32, said: &str) {
    assert_eq!(told.code, Some(code), "{}", told.stdout);
    assert!(told.stdout.contains(said), "{}", told.stdout);
    let failed = |text: &str| text.lines().filter(|line| line.starts_with("failed")).count();
    assert_eq!(failed(&told.stdout), failed(said), "{}", told.stdout);
    assert_eq!(told.said, "", "all is said on stdout");
}

#[track_caller]
fn is_told(told: &Told, said: &str) {
    assert!(told.stdout.contains(said), "{}", told.stdout);
}

#[track_caller]
fn is_fine(told: &Told, said: &str) {
    fails(told, 0, said);
}

/// Names, sizes, modes and times of everything below a directory.
fn contents(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in dir.read_dir().unwrap().map(Result::unwrap) {
        let meta = entry.path().symlink_metadata().unwrap();
        let (mode, changed) = (meta.mode(), (meta.ctime(), meta.ctime_nsec()));
        let told = (entry.path(), meta.len(), mode, meta.mtime(), meta.mtime_nsec(), changed);
        found.push(format!("{told:?}"));
        if meta.is_dir() {
            found.extend(contents(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_fine_is_told_line_by_line() {
    let (sim, home) = given();
    let url = sim.api.url();

    let offline = check(&home, &[]);
    let online = check(&home, &["--online"]);

    let before = "ok      configuration: 1 source and 1 sink\n\
                  ok      state: `HOME/state` will hold a new store, not in use\n\
                  ok      secret of source `acme`: it can be read\n";
    let sink = "ok      sink `archive`: makes `HOME/events.ndjson`\n";
    is_fine(&offline, "");
    assert_eq!(lines(&offline), format!("{before}ok      source `acme`: reads {url}\n{sink}"));
    is_fine(&online, "");
    let online = lines(&online);
    let (source, rest) = online.strip_prefix(before).unwrap().split_once('\n').unwrap();
    assert!(source.starts_with(&format!("ok      source `acme`: {url} gives ")), "{source}");
    assert!(source.ends_with(" events around one second"), "{source}");
    assert!(!source.contains("gives 0"), "{source}");
    assert_eq!(rest, format!("ok      clock beside source `acme`: right within 5 s\n{sink}"));
    assert_eq!(sim.api.requests(), 1, "without `--online` nobody is asked");
}

#[test]
fn programs_are_told_the_same() {
    let (sim, home) = given();
    let shape = |value: &Value| {
        let object = value.as_object().unwrap();
        let members = ["what", "ok", "text", "hint"];
        assert!(members.iter().all(|name| object.contains_key(*name)), "{value}");
        assert_eq!(object.len(), members.len(), "{value}");
        object["what"].as_str().unwrap().to_owned()
    };

    let fine = check(&home, &["--json", "--online"]);
    sim.api.fault_when(|_| Some(Fault::status(401, "")));
    let refused = check(&home, &["--json", "--online"]);

    let (fine, refused): (Value, Value) = (parsed(&fine), parsed(&refused));
    assert_eq!((&fine["ok"], &refused["ok"]), (&json!(true), &json!(false)));
    let what: Vec<_> = fine["checks"].as_array().unwrap().iter().map(shape).collect();
    let expected = [
        "configuration",
        "state",
        "disk of the state",
        "secret of source `acme`",
        "source `acme`",
        "clock beside source `acme`",
        "sink `archive`",
        "disk of sink `archive`",
    ];
    assert_eq!(what, expected);
    assert_eq!(fine["checks"][0]["hint"], json!(null));
    let failed = &refused["checks"][4];
    assert_eq!(failed["ok"], false);
    assert_eq!(failed["text"], "GET /api/rest/public/events: 401 Unauthorized");
    assert!(failed["hint"].as_str().unwrap().starts_with("make a new API token"), "{failed}");
}

fn parsed(told: &Told) -> Value {
    serde_json::from_str(&told.stdout).unwrap()
}

#[test]
fn to_look_changes_nothing_before_the_first_run_and_after_it() {
    let (sim, home) = given();
    let before = contents(&home.path(""));

    check(&home, &["--online"]);

    assert_eq!(contents(&home.path("")), before);
    home.run_once_well();
    let before = contents(&home.path(""));

    let told = check(&home, &["--online"]);

    assert_eq!(contents(&home.path("")), before);
    is_fine(&told, "ok      state: `HOME/state` holds a store, not in use\n");
    is_fine(&told, "ok      sink `archive`: appends to `HOME/events.ndjson`\n");
    home.holds_all(&sim);
}

#[test]
fn to_look_changes_nothing_after_a_kill() {
    let (sim, home) = given();
    let mut daemon = home.spawn();
    eventually("something is delivered", || !home.lines().is_empty());
    daemon.kill();
    let database = fs::read(home.path("state/siemferry.db")).unwrap();
    let log = fs::read(home.path("state/siemferry.db-wal")).unwrap();

    let told = check(&home, &[]);

    is_fine(&told, "ok      state: `HOME/state` holds a store, not in use\n");
    assert!(fs::read(home.path("state/siemferry.db")).unwrap() == database);
    assert!(fs::read(home.path("state/siemferry.db-wal")).unwrap() == log);
    home.run_once_well();
    home.holds_all(&sim);
}

#[test]
fn a_check_beside_the_daemon_holds_it_up_in_nothing() {
    let (sim, home) = given();
    let mut daemon = home.spawn();
    eventually("something is delivered", || !home.lines().is_empty());

    let told = check(&home, &["--online"]);

    let said =
        format!("ok      state: `HOME/state` holds a store, in use by process {}\n", daemon.id());
    is_fine(&told, &said);
    is_fine(&told, "ok      sink `archive`: appends to `HOME/events.ndjson`\n");
    sim.api.add(SimEvent::new(sim.api.now(), "logout"));
    let truth = sim.api.truth().len();
    eventually("what happens later arrives", || home.lines().len() >= truth);
    assert!(!daemon.has_ended());
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    home.holds_all(&sim);
}

#[test]
fn every_problem_of_the_configuration_is_told_and_nothing_else_is_looked_at() {
    let (_sim, home) = given();
    home.edit("resweep = [\"24h\"]", "resweep = [\"24h\", \"1m\"]\ntenant = 7");

    let mistyped = check(&home, &[]);
    home.edit("tenant = 7", "region = \"eu\"");
    let both = check(&home, &["--json"]);

    fails(
        &mistyped,
        2,
        "failed  configuration: `HOME/siemferry.toml`: `sources.acme.keeper.tenant`: found a number, expected a string\n",
    );
    assert_eq!(both.code, Some(2));
    let checks = parsed(&both)["checks"].clone();
    let texts: Vec<_> = checks.as_array().unwrap().iter().map(|check| &check["text"]).collect();
    let expected = [
        "`HOME/siemferry.toml`: `sources.acme.keeper.base_url`: stands beside `region`",
        "`HOME/siemferry.toml`: `sources.acme.keeper.resweep`: must ascend, and begin above `0s`",
    ];
    assert_eq!(texts, expected);
    assert_eq!(checks[0]["hint"], "`region` is a short name for a `base_url`: keep one of them");
}

#[test]
fn a_configuration_that_is_not_there_is_told() {
    let (_sim, home) = given();
    fs::remove_file(home.config()).unwrap();

    fails(
        &check(&home, &[]),
        2,
        "failed  configuration: `HOME/siemferry.toml`: there is no such file\n\
         hint: name the configuration file with `--config`\n",
    );
}

#[test]
fn all_is_looked_at_whatever_fails_before() {
    let (sim, home) = given();
    home.edit("{ env = \"RIG_TOKEN\" }", "{ env = \"RIG_NOTHING\" }");
    home.write("state", "");
    fs::create_dir(home.file()).unwrap();

    let told = check(&home, &["--online"]);

    let expected = "ok      configuration: 1 source and 1 sink\n\
         failed  state: use state directory `HOME/state`: it is not a directory\n\
         hint: choose another `state.dir`, or move away what stands there\n\
         failed  secret of source `acme`: read environment variable `RIG_NOTHING`: it is not set\n\
         hint: set `RIG_NOTHING` in the environment of the daemon\n\
         failed  source `acme`: not asked: there is no secret to ask with\n\
         hint: the source can be asked as soon as its secret can be read\n\
         failed  sink `archive`: open `HOME/events.ndjson`: it is a directory, not a regular file\n\
         hint: name a regular file in `path`, or one that does not exist yet\n";
    assert_eq!((lines(&told).as_str(), told.code), (expected, Some(2)));
    assert_eq!(sim.api.requests(), 0);
}

#[test]
fn a_secret_that_others_can_read_is_told_and_not_shown() {
    let (_sim, home) = given();
    home.write("token", TOKEN);
    fs::set_permissions(home.path("token"), Permissions::from_mode(0o644)).unwrap();
    let file = format!("{{ file = {:?} }}", home.path("token"));
    home.edit("{ env = \"RIG_TOKEN\" }", &file);

    let exposed = check(&home, &[]);
    fs::set_permissions(home.path("token"), Permissions::from_mode(0o600)).unwrap();

    fails(
        &exposed,
        2,
        "failed  secret of source `acme`: read secret file `HOME/token`: readable by others (mode 0644)\n\
         hint: chmod 600 HOME/token\n",
    );
    assert!(!exposed.stdout.contains(TOKEN));
    is_fine(&check(&home, &["--online"]), "ok      secret of source `acme`: it can be read\n");
}

#[test]
fn a_credential_that_only_the_unit_has_fails_nothing_but_the_question() {
    let (_sim, home) = given();
    home.edit("{ env = \"RIG_TOKEN\" }", "{ credential = \"keeper-token\" }");
    let said = "ok      secret of source `acme`: not checked: read credential `keeper-token`: \
                `$CREDENTIALS_DIRECTORY` is not set; only the unit has it\n\
                hint: to check it as well: `systemd-run --pipe --property=LoadCredential=<name>:<file> siemferry check`, as the unit has it\n";
    let run = |arguments: &[&str], directory: Option<&Path>| {
        let mut command = home.command(arguments);
        command.env_remove("CREDENTIALS_DIRECTORY");
        command.envs(directory.map(|directory| ("CREDENTIALS_DIRECTORY", directory)));
        command
    };

    let offline = home.told(run(&["check"], None));
    let online = home.told(run(&["check", "--online"], None));
    let missing = home.told(run(&["check"], Some(&home.path(""))));
    fs::write(home.path("keeper-token"), TOKEN).unwrap();
    fs::set_permissions(home.path("keeper-token"), Permissions::from_mode(0o600)).unwrap();
    let there = home.told(run(&["check", "--online"], Some(&home.path(""))));

    is_fine(&offline, said);
    assert!(online.stdout.contains(said), "{}", online.stdout);
    fails(&online, 1, "failed  source `acme`: not asked: there is no secret to ask with\n");
    fails(
        &missing,
        2,
        "failed  secret of source `acme`: read credential `keeper-token`: No such file",
    );
    is_fine(&there, "ok      secret of source `acme`: it can be read\n");
}

#[test]
fn certificates_that_cannot_be_read_are_told_beside_the_secret() {
    let (_sim, home) = given();
    home.write("ca.pem", "no certificate");
    home.edit("[sinks", &format!("ca_file = {:?}\n[sinks", home.path("ca.pem")));
    home.edit("{ env = \"RIG_TOKEN\" }", "{ env = \"RIG_NOTHING\" }");

    fails(
        &check(&home, &[]),
        2,
        "failed  secret of source `acme`: read environment variable `RIG_NOTHING`: it is not set\n\
         hint: set `RIG_NOTHING` in the environment of the daemon\n\
         failed  source `acme`: read certificates from `HOME/ca.pem`: it holds no certificate\n\
         hint: `ca_file` must hold PEM certificates\n",
    );
}

#[test]
fn a_state_directory_below_a_file_is_told() {
    let (_sim, home) = given();
    home.write("file", "");
    home.edit(&home.state().display().to_string(), &home.path("file/state").display().to_string());

    fails(
        &check(&home, &[]),
        2,
        "failed  state: create state directory `HOME/file/state`: not a directory\n\
         hint: a file stands above it: choose another `state.dir`\n",
    );
}

#[test]
fn a_state_directory_that_all_may_write_to_is_told() {
    let (_sim, home) = given();
    fs::create_dir(home.state()).unwrap();
    fs::set_permissions(home.state(), Permissions::from_mode(0o777)).unwrap();

    fails(
        &check(&home, &[]),
        2,
        "failed  state: use state directory `HOME/state`: other users may write to it\n\
         hint: choose a `state.dir` of its own, below a directory that others cannot write to\n",
    );
}

#[test]
fn a_database_that_is_not_ours_is_told_and_left_alone() {
    let (_sim, home) = given();
    fs::create_dir(home.state()).unwrap();
    let said = "failed  state: open `HOME/state/siemferry.db`: it is not a siemferry database\n\
                hint: choose another `state.dir`, or move the file away\n";

    home.write("state/siemferry.db", "events of mine\n");
    fails(&check(&home, &[]), 2, said);
    assert_eq!(read(&home.path("state/siemferry.db")), "events of mine\n");

    fs::remove_file(home.path("state/siemferry.db")).unwrap();
    let theirs = Connection::open(home.path("state/siemferry.db")).unwrap();
    theirs.execute_batch("CREATE TABLE theirs (a)").unwrap();
    fails(&check(&home, &[]), 2, said);
}

#[test]
fn a_database_of_a_newer_schema_is_told() {
    let (_sim, home) = given();
    home.run_once_well();
    let database = Connection::open(home.path("state/siemferry.db")).unwrap();
    database.pragma_update(None, "user_version", 1000).unwrap();

    let logged = check(&home, &[]);
    drop(database);
    let at_rest = check(&home, &[]);

    for told in [logged, at_rest] {
        fails(
            &told,
            2,
            "failed  state: open `HOME/state/siemferry.db`: its schema is version 1000, ",
        );
        assert!(
            told.stdout.contains("hint: install the siemferry that wrote it, or a newer one\n")
        );
    }
}

#[test]
fn a_directory_in_the_place_of_the_database_is_told() {
    let (_sim, home) = given();
    fs::create_dir_all(home.path("state/siemferry.db")).unwrap();

    fails(
        &check(&home, &[]),
        2,
        "failed  state: open database `HOME/state/siemferry.db`: Is a directory (os error 21)\n\
         hint: move the directory `HOME/state/siemferry.db` away\n",
    );
}

/// The same is refused with and without `--online`, and nothing is made.
#[track_caller]
fn refuses_the_file(home: &Home, why: &str, hint: &str) {
    let before = contents(&home.path(""));

    for arguments in [&[][..], &["--online"]] {
        let said = format!("failed  sink `archive`: {why}\nhint: {hint}\n");
        fails(&check(home, arguments), 2, &said);
    }

    assert_eq!(contents(&home.path("")), before);
}

#[test]
fn what_is_no_file_of_ours_to_write_is_told() {
    const HINT: &str = "name a regular file in `path`, or one that does not exist yet";
    let (_sim, home) = given();
    let is = |what: &str| format!("open `HOME/events.ndjson`: it is {what}, not a regular file");

    symlink(home.path("elsewhere"), home.file()).unwrap();
    refuses_the_file(&home, &is("a symbolic link"), HINT);

    fs::remove_file(home.file()).unwrap();
    assert!(Command::new("mkfifo").arg(home.file()).status().unwrap().success());
    refuses_the_file(&home, &is("a FIFO, socket or device"), HINT);

    fs::remove_file(home.file()).unwrap();
    fs::create_dir(home.file()).unwrap();
    refuses_the_file(&home, &is("a directory"), HINT);
}

#[test]
fn a_file_below_a_file_is_told() {
    let (_sim, home) = given();
    home.write("file", "");
    let path = home.path("file/events.ndjson");
    home.edit(&home.file().display().to_string(), &path.display().to_string());

    refuses_the_file(
        &home,
        "open `HOME/file/events.ndjson`: Not a directory (os error 20)",
        "let the user that runs siemferry write to `HOME/file`",
    );
}

#[test]
fn a_file_in_a_directory_that_all_may_write_to_is_told() {
    let (_sim, home) = given();
    fs::create_dir(home.path("shared")).unwrap();
    fs::set_permissions(home.path("shared"), Permissions::from_mode(0o1777)).unwrap();
    let path = home.path("shared/events.ndjson");
    home.edit(&home.file().display().to_string(), &path.display().to_string());

    refuses_the_file(
        &home,
        "open `HOME/shared/events.ndjson`: other users may write to its directory",
        "choose a directory that only its owner writes to",
    );
}

#[test]
fn a_directory_that_is_still_to_be_made_is_fine_and_not_made() {
    let (_sim, home) = given();
    let path = home.path("some/where/events.ndjson");
    home.edit(&home.file().display().to_string(), &path.display().to_string());

    let said = "ok      sink `archive`: makes `HOME/some/where/events.ndjson` and its directory\n";
    is_fine(&check(&home, &["--online"]), said);
    assert!(!home.path("some").exists());
}

/// Root may do anything, so somebody else looks.
#[test]
fn root_what_the_user_may_not_write_is_told() {
    let (_sim, home) = given();
    fs::set_permissions(home.path(""), Permissions::from_mode(0o755)).unwrap();

    let before = home.told(as_somebody(&home.command(&["check"])));
    home.run_once_well();
    let after = home.told(as_somebody(&home.command(&["check"])));
    let as_root = check(&home, &[]);

    is_told(
        &before,
        "failed  state: create state directory `HOME/state`: Permission denied (os error 13)\n\
         hint: let the user that runs siemferry own `HOME/state`\n",
    );
    is_told(
        &before,
        "failed  sink `archive`: make a file in `HOME`: Permission denied (os error 13)\n\
         hint: let the user that runs siemferry write to `HOME`\n",
    );
    is_told(
        &after,
        "failed  state: open state directory `HOME/state`: Permission denied (os error 13)\n\
         hint: let the user that runs siemferry own `HOME/state`\n",
    );
    is_told(
        &after,
        "failed  sink `archive`: open `HOME/events.ndjson`: Permission denied (os error 13)\n\
         hint: let the user that runs siemferry write to `HOME`\n",
    );
    assert_eq!((before.code, after.code), (Some(2), Some(2)));
    is_fine(&as_root, "ok      state: `HOME/state` holds a store, not in use\n");
}

#[test]
fn root_the_daemons_user_looks_at_its_own_and_root_is_told_to_ask_as_that_user() {
    let (_sim, home) = given();
    fs::set_permissions(home.path(""), Permissions::from_mode(0o755)).unwrap();
    home.run_once_well();
    for path in [home.state(), home.path("state/siemferry.db"), home.path("state/siemferry.lock")] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    std::os::unix::fs::chown(home.file(), Some(65534), Some(65534)).unwrap();

    let own = home.told(as_somebody(&home.command(&["check"])));
    let as_root = check(&home, &[]);

    is_fine(&own, "ok      state: `HOME/state` holds a store, not in use\n");
    is_fine(
        &as_root,
        "ok      state: `HOME/state` holds a store, not in use; it belongs to user 65534\n\
         hint: to be sure that the daemon can use everything, ask as its user: `sudo -u '#65534' siemferry check`\n",
    );
}

#[test]
fn root_a_read_only_file_system_is_told() {
    let (_sim, home) = given();
    fs::create_dir(home.state()).unwrap();

    let told = home.told(read_only(&home.state(), &home.command(&["check"])));

    fails(
        &told,
        2,
        "failed  state: write to state directory `HOME/state`: Read-only file system (os error 30)\n\
         hint: choose a `state.dir` on a file system that can be written to\n",
    );
}

#[test]
fn root_a_disk_without_room_is_told_and_is_no_fault_of_the_configuration() {
    let (_sim, home) = given();
    fs::create_dir(home.path("small")).unwrap();
    let path = home.path("small/events.ndjson");
    home.edit(&home.file().display().to_string(), &path.display().to_string());
    let plain = home.command(&["check"]);
    let mount = r#"mount -t tmpfs -o size=8m,mode=700 none "$0" && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", mount]).arg(home.path("small"));
    command.arg(plain.get_program()).args(plain.get_args()).env("RIG_TOKEN", TOKEN);

    let told = home.told(command);

    fails(
        &told,
        1,
        "failed  disk of sink `archive`: 8 MiB free on the file system of `HOME/small`\n\
         hint: free some space: on a full disk nothing is lost, and nothing goes on\n",
    );
}

/// Everything but the source is fine.
#[track_caller]
fn is_refused(fault: Fault, text: &str, hint: &str) {
    let (sim, home) = given();
    sim.api.fault_when(move |_| Some(fault.clone()));

    let told = check(&home, &["--online"]);

    fails(&told, 1, &format!("failed  source `acme`: {text}\nhint: {hint}\n"));
    assert!(!home.state().exists(), "nothing is stored");
    is_fine(&check(&home, &[]), "");
}

#[test]
fn a_refused_token_is_told_with_how_to_make_one() {
    is_refused(
        Fault::status(401, r#"{"message":"who are you"}"#),
        "GET /api/rest/public/events: 401 Unauthorized: who are you",
        "make a new API token (Keeper Commander: `public-api-key generate --name siemferry --integrations \"SIEM:1\"`) and put it where `token` points to; siemferry goes on by itself",
    );
}

#[test]
fn a_refused_permission_is_told_with_which_is_needed() {
    is_refused(
        Fault::status(403, ""),
        "GET /api/rest/public/events: 403 Forbidden",
        "the token needs the SIEM role, and the tenant the Advanced Reporting & Alerts add-on; siemferry goes on by itself",
    );
}

#[test]
fn a_throttled_source_is_told_with_how_to_ask_less() {
    is_refused(
        Fault::status(429, "throttled"),
        "GET /api/rest/public/events: 429 Too Many Requests: throttled",
        "the API limits how often it may be asked: raise `poll_every` if this goes on",
    );
}

#[test]
fn a_failing_server_is_told_with_what_happens_by_itself() {
    is_refused(
        Fault::status(503, "later"),
        "GET /api/rest/public/events: 503 Service Unavailable: later",
        "ask again later: the daemon does so by itself",
    );
}

#[test]
fn a_redirect_is_told_and_not_followed() {
    let elsewhere = api();
    let to = elsewhere.api.url();
    is_refused(
        Fault::Redirect { to },
        "GET /api/rest/public/events: 302 Found",
        "redirects are not followed, for they would carry the token to another host: check `base_url`",
    );
    assert_eq!(elsewhere.api.requests(), 0);
}

#[test]
fn html_in_place_of_events_is_told() {
    let (sim, home) = given();
    sim.api.fault_when(|_| Some(Fault::Html));

    fails(
        &check(&home, &["--online"]),
        1,
        "failed  source `acme`: the answer breaks the API's contract: the body is not JSON: it begins with `<`, as HTML does (sent as `text/html`); something in between may have answered: check `base_url` and `proxy`\n\
         hint: check that `base_url` or `region` names the API, and that nothing in between answers in its place\n",
    );
}

#[test]
fn another_envelope_is_told_by_its_keys() {
    let (sim, home) = given();
    let headers = vec![("content-type".into(), "application/json".into())];
    let body = br#"{"status":"sesame"}"#.to_vec();
    sim.api.fault_when(move |_| Some(Fault::Raw { headers: headers.clone(), body: body.clone() }));

    let told = check(&home, &["--online"]);

    fails(
        &told,
        1,
        "failed  source `acme`: the answer breaks the API's contract: the body has no array of records; its keys: `status` (sent as `application/json`)\n\
         hint: check that `base_url` or `region` names the API, and that nothing in between answers in its place\n",
    );
    assert!(!told.stdout.contains("sesame"));
}

#[test]
fn a_window_that_is_too_much_is_told() {
    is_refused(
        Fault::status(413, ""),
        "the window is too big for the API: GET /api/rest/public/events: 413 Payload Too Large",
        "if even one second is refused, the request itself is: see `last_error` in `siemferry status`",
    );
}

#[test]
fn a_host_that_is_not_known_is_told() {
    let home = home_at("https://siemferry.invalid");

    let told = check(&home, &["--online"]);

    fails(&told, 1, "failed  source `acme`: look up `siemferry.invalid`: ");
    let hint = "\nhint: check the host name, and this machine's name servers\n";
    assert!(told.stdout.contains(hint), "{}", told.stdout);
}

#[test]
fn a_host_that_does_not_answer_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let home = home_at(&format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);

    fails(
        &check(&home, &["--online"]),
        1,
        "failed  source `acme`: connect to `127.0.0.1`: Connection refused (os error 111)\n\
         hint: check the firewall, or name a `proxy`\n",
    );
}

#[test]
fn a_server_that_cannot_prove_who_it_is_is_told_and_sent_nothing() {
    let authority = tls::Authority::new();
    let body = r#"{"events":[],"has_more":false}"#;
    let prepared = answer(200, &[("content-type", "application/json")], body);
    let wire = Wire::over_tls(prepared, authority.server("localhost", 2100).config);
    let home = home_at(&format!("https://localhost:{}", wire.port()));

    let distrusted = check(&home, &["--online"]);
    assert_eq!(wire.heads(), [""; 0]);
    home.edit("[sinks", &format!("ca_file = {:?}\n[sinks", authority.file()));
    let trusted = check(&home, &["--online"]);

    fails(&distrusted, 1, "failed  source `acme`: connect to `localhost`: ");
    let hint = "\nhint: check this machine's clock; name a private CA in `ca_file`\n";
    assert!(distrusted.stdout.contains(hint), "{}", distrusted.stdout);
    is_fine(
        &trusted,
        "ok      clock beside source `acme`: the server tells no time\n\
         hint: this machine's clock must be right: run a time service, such as chrony\n",
    );
}

/// What is said of a server whose clock differs by so much.
fn clock_off_by(seconds: i64) -> Told {
    let now = chrono::Utc::now().timestamp_millis();
    let clock = Clock::Manual(now + seconds * 1000);
    let sim = Sim::start(Options { clock, ..Options::default() });
    check(&home_of(&sim), &["--online"])
}

#[test]
fn a_clock_that_is_off_is_told_and_fails_only_when_it_is_absurd() {
    let off = |told: &Told| {
        let line = told.stdout.lines().find(|line| line.contains("clock beside")).unwrap();
        let (_, seconds) = line.split_once("clock is ").unwrap();
        let (seconds, side) = seconds.split_once(" s ").unwrap();
        (seconds.parse::<i64>().unwrap(), side.to_owned())
    };

    let (behind, ahead) = (clock_off_by(3600), clock_off_by(-7200));
    let absurd = clock_off_by(-400 * 86_400);

    is_fine(&behind, "hint: nothing is lost by it, for the server's clock counts");
    is_fine(&ahead, "hint: nothing is lost by it, for the server's clock counts");
    let (seconds, side) = off(&behind);
    assert!((3000..=3600).contains(&seconds) && side == "behind the server's", "{seconds} {side}");
    let (seconds, side) = off(&ahead);
    assert!((7200..7800).contains(&seconds) && side == "ahead of the server's", "{seconds} {side}");
    fails(&absurd, 1, "failed  clock beside source `acme`: this machine's clock is 345");
    assert!(absurd.stdout.contains("hint: set the one that is wrong"), "{}", absurd.stdout);
}

#[test]
fn a_token_that_comes_back_and_text_that_steers_a_terminal_are_not_shown() {
    let (sim, home) = given();
    sim.api.fault_when(|_| Some(Fault::EchoToken { code: 401 }));
    let echoed = [check(&home, &["--online"]), check(&home, &["--online", "--json"])];
    let message = "{\"message\":\"a\\u001b[31m\\r\\nok      state: fine\\u202e\"}";
    sim.api.fault_when(move |_| Some(Fault::status(500, message)));

    let steering = check(&home, &["--online"]);

    for told in echoed {
        assert_eq!(told.code, Some(1));
        assert!(told.stdout.contains("you sent Bearer ***"), "{}", told.stdout);
        assert!(!told.stdout.contains(TOKEN) && !told.log.contains(TOKEN));
    }
    let said = "500 Internal Server Error: a\\u{1b}[31m\\r\\nok      state: fine\\u{202e}\n";
    fails(&steering, 1, "failed  source `acme`: GET /api/rest/public/events: ");
    assert!(steering.stdout.contains(said), "{}", steering.stdout);
}

#[test]
fn records_that_cannot_be_read_are_counted() {
    let body =
        r#"{"events":[{"audit_event":"login"},7,{}],"continuation_token":"t","has_more":true}"#;
    let headers = [("content-type", "application/json"), ("date", "Fri, 20 Nov 2026 10:00:00 GMT")];
    let wire = Wire::answering(answer(200, &headers, body));
    let home = home_at(&wire.url());

    let told = check(&home, &["--online"]);

    let said = "gives 2 events and more, 1 record that cannot be read around one second\n";
    assert!(told.stdout.contains(said), "{}", told.stdout);
    assert_eq!(wire.heads().len(), 1, "one page is enough");
}
