use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use crate::rig::{Home, Sim};
use crate::told::{home_of, week_of};

const TOKEN: &str = "token = { env = \"RIG_TOKEN\" }";

fn given() -> (Sim, Home) {
    let sim = week_of(120);
    let home = home_of(&sim);
    (sim, home)
}

/// Refuses the configuration with `to` in place of `from`, then takes it as it was.
#[track_caller]
fn refuses(from: &str, to: &str, said: &str) {
    let (sim, home) = given();
    let before = home.edit(from, to);

    let told = home.impatient();

    told.is(2, said);
    assert_eq!(sim.api.requests(), 0);
    home.write("siemferry.toml", &before);
    home.delivers_all(&sim);
}

/// A home whose token stands in a file that is as `spoil` leaves it.
#[track_caller]
fn refuses_a_token_file(spoil: impl Fn(&Home), said: &str) {
    let (sim, home) = given();
    let file = home.path("token");
    home.edit(TOKEN, &format!("token = {{ file = \"{}\" }}", file.display()));
    spoil(&home);

    let told = home.impatient();

    told.is(2, said);
    if file.is_dir() {
        fs::remove_dir(&file).unwrap();
    }
    home.write("token", sim.api.options().token.as_str());
    set_mode(&home, 0o600);
    home.delivers_all(&sim);
}

fn set_mode(home: &Home, mode: u32) {
    fs::set_permissions(home.path("token"), Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_missing_token_file_is_named() {
    refuses_a_token_file(
        |_| (),
        "error: set up source `acme`: read secret file `HOME/token`: No such file or directory (os error 2)\n\
         hint: put the secret alone into `HOME/token`, with mode 0600, or name another file\n",
    );
}

#[test]
fn a_directory_for_a_token_file_is_named() {
    refuses_a_token_file(
        |home| fs::create_dir(home.path("token")).unwrap(),
        "error: set up source `acme`: read secret file `HOME/token`: it is not a regular file\n\
         hint: name the file that holds the secret alone\n",
    );
}

#[test]
fn a_token_file_that_the_world_can_read_is_named() {
    refuses_a_token_file(
        |home| {
            home.write("token", "sesame");
            set_mode(home, 0o644);
        },
        "error: set up source `acme`: read secret file `HOME/token`: readable by others (mode 0644)\n\
         hint: chmod 600 HOME/token\n",
    );
}

#[test]
fn a_token_file_with_two_lines_is_named() {
    refuses_a_token_file(
        |home| {
            home.write("token", "sesame\nsesame\n");
            set_mode(home, 0o600);
        },
        "error: set up source `acme`: read secret from file `HOME/token`: it holds a line break or another control character\n\
         hint: store the secret alone, as one line of ASCII\n",
    );
}

#[test]
fn a_token_variable_that_is_not_set_is_named() {
    let (sim, home) = given();
    let mut command = home.command(&["run", "--once"]);
    command.env_remove("RIG_TOKEN");

    let told = home.told(command);

    told.is(
        2,
        "error: set up source `acme`: read environment variable `RIG_TOKEN`: it is not set\n\
         hint: set `RIG_TOKEN` in the environment of the daemon\n",
    );
    home.delivers_all(&sim);
}

#[test]
fn a_credential_outside_of_the_service_manager_says_how_to_add_it() {
    refuses(
        TOKEN,
        "token = { credential = \"keeper\" }",
        "error: set up source `acme`: read credential `keeper`: `$CREDENTIALS_DIRECTORY` is not set\n\
         hint: add `LoadCredential=keeper:/path/to/the/secret` to the `[Service]` section of the unit\n",
    );
}

#[test]
fn a_secret_command_that_fails_is_named() {
    refuses(
        TOKEN,
        "token = { command = [\"/bin/sh\", \"-c\", \"exit 3\"] }",
        "error: set up source `acme`: run secret command `/bin/sh`: exit status: 3\n\
         hint: run it by hand as the daemon's user: it must print the secret and exit 0\n",
    );
}

#[test]
fn a_token_in_a_file_that_others_can_open_is_refused() {
    refuses(
        TOKEN,
        "token = \"simulated-token\"",
        "error: `HOME/siemferry.toml`: `sources.acme.keeper.token`: a secret in a file that others can open (mode 0644)\n\
         hint: chmod 600 HOME/siemferry.toml, or name a file: `{ file = \"…\" }`\n",
    );
}

#[test]
fn certificates_that_are_none_are_named() {
    refuses(
        TOKEN,
        &format!("{TOKEN}\nca_file = \"/dev/null\""),
        "error: set up source `acme`: read certificates from `/dev/null`: it holds no certificate\n\
         hint: `ca_file` must hold PEM certificates\n",
    );
}

#[test]
fn an_unknown_key_is_named() {
    refuses(
        "poll_every",
        "pol_every",
        "error: `HOME/siemferry.toml`: `sources.acme.keeper.pol_every`: unknown key\n\
         hint: did you mean `poll_every`?\n",
    );
}

#[test]
fn an_unknown_kind_is_named() {
    refuses(
        "[sources.acme.keeper]",
        "[sources.acme.kepeer]",
        "error: `HOME/siemferry.toml`: `sources.acme.kepeer`: unknown kind `kepeer`\n\
         hint: did you mean `keeper`?\n",
    );
}

#[test]
fn an_unknown_region_is_named() {
    let (sim, home) = given();
    let url = format!("base_url = \"{}\"", sim.api.url());
    let before = home.edit(&url, "region = \"mars\"");

    let told = home.impatient();

    told.is(
        2,
        "error: `HOME/siemferry.toml`: `sources.acme.keeper.region`: unknown region `mars`\n\
         hint: the regions are `au`, `ca`, `eu`, `govcloud`, `jp`, `us`; `base_url` names any other host\n",
    );
    home.write("siemferry.toml", &before);
    home.delivers_all(&sim);
}

#[test]
fn an_unknown_unit_is_named() {
    refuses(
        "poll_every = \"50ms\"",
        "poll_every = \"50\"",
        "error: `HOME/siemferry.toml`: `sources.acme.keeper.poll_every`: found `50`, expected a duration such as `30s`, `15m`, `24h` or `30d`\n\
         hint: a whole number with its unit right behind it, in quotes\n",
    );
}

#[test]
fn two_kinds_under_one_name_are_named() {
    refuses(
        "[sinks.archive.file]",
        "[sinks.archive.syslog]\n[sinks.archive.file]",
        "error: `HOME/siemferry.toml`: `sinks.archive`: two kinds under one name: `file` (`HOME/siemferry.toml`) and `syslog` (`HOME/siemferry.toml`)\n\
         hint: give every sink a name of its own\n",
    );
}

#[test]
fn plain_http_beyond_loopback_is_refused() {
    refuses(
        "http://127.0.0.1",
        "http://192.0.2.1",
        "error: `HOME/siemferry.toml`: `sources.acme.keeper.base_url`: would send the token unencrypted: plain `http://` is for loopback\n\
         hint: scheme, host and port, such as \"https://keepersecurity.com\"\n",
    );
}

#[test]
fn a_start_in_the_future_is_refused() {
    let (sim, home) = given();
    let config = fs::read_to_string(home.config()).unwrap();
    let start = config.lines().find(|line| line.starts_with("start")).unwrap();
    let before = home.edit(start, "start = \"9999-12-31\"");

    let told = home.impatient();

    told.is(
        2,
        "error: `HOME/siemferry.toml`: `sources.acme.keeper.start`: `9999-12-31T00:00:00Z` is in the future\n\
         hint: events are read from there on: name a time that is past\n",
    );
    home.write("siemferry.toml", &before);
    home.delivers_all(&sim);
}

#[test]
fn a_syntax_error_is_located() {
    refuses(
        "level = \"debug\"",
        "level = debug",
        "error: `HOME/siemferry.toml`: line 4, column 9: string values must be quoted, expected literal string\n\
         hint: mend the line; https://toml.io shows how each value is written\n",
    );
}

#[test]
fn a_missing_configuration_is_named() {
    let (_, home) = given();
    fs::remove_file(home.config()).unwrap();

    let told = home.impatient();

    told.is(
        2,
        "error: `HOME/siemferry.toml`: there is no such file\n\
         hint: name the configuration file with `--config`\n",
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let (sim, home) = given();
    let before = home.edit(TOKEN, "max_window = \"1500ms\"");

    let told = home.impatient();

    told.is(
        2,
        "error: `HOME/siemferry.toml`: `sources.acme.keeper.token`: is missing\n\
         hint: name where the API token is read from, such as `token = { file = \"…\" }`\n\
         error: `HOME/siemferry.toml`: `sources.acme.keeper.max_window`: `1500ms` is not a number of whole seconds\n\
         hint: windows are cut on whole seconds: name at least `1s`\n",
    );
    home.write("siemferry.toml", &before);
    home.delivers_all(&sim);
}

/// Root can read everything, so the daemon runs as somebody else.
#[test]
fn root_a_token_file_that_the_user_cannot_read_is_named() {
    let (_sim, home) = given();
    for name in ["", "siemferry.toml"] {
        fs::set_permissions(home.path(name), Permissions::from_mode(0o755)).unwrap();
    }
    home.write("token", "sesame");
    set_mode(&home, 0o600);
    home.edit(TOKEN, &format!("token = {{ file = \"{}\" }}", home.path("token").display()));
    let run = home.command(&["run", "--once"]);
    let mut command = crate::told::as_somebody(&run);
    command.env("RIG_TOKEN", "sesame");

    let told = home.told(command);

    told.is(
        2,
        "error: set up source `acme`: read secret file `HOME/token`: Permission denied (os error 13)\n\
         hint: let the daemon's user read it: `ls -l HOME/token` shows who can\n",
    );
}
