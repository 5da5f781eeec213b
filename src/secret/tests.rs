use std::time::Duration;

use tempfile::TempDir;

use super::*;

fn parse(toml: &str) -> Result<Config, String> {
    #[derive(serde::Deserialize)]
    struct Holder {
        token: Config,
    }
    let parsed: Result<Holder, _> = toml::from_str(toml);
    parsed.map(|holder| holder.token).map_err(|error| error.message().to_owned())
}

fn home_with(content: &[u8], mode: u32) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("token");
    std::fs::write(&path, content).unwrap();
    crate::sys::set_mode(&std::fs::File::open(&path).unwrap(), mode).unwrap();
    (home, path)
}

fn refusal(config: &Config) -> (String, String) {
    let error = config.read().unwrap_err();
    (error.to_string(), error.hint())
}

#[test]
fn each_reference_is_parsed() {
    for (toml, config) in [
        ("token = { file = '/a' }", Config::File("/a".into())),
        ("token = { env = 'A' }", Config::Env("A".into())),
        ("token = { credential = 'a' }", Config::Credential("a".into())),
        ("token = { command = ['a', 'b'] }", Config::Command(vec!["a".into(), "b".into()])),
    ] {
        assert_eq!(parse(toml), Ok(config));
    }
    assert!(parse("token = 'it-is-me'").unwrap().is_plain());
}

#[test]
fn what_is_no_reference_is_refused_without_showing_it() {
    let form = "a table with one of `file`, `env`, `credential` and `command`";
    for (toml, text) in [
        ("token = {}", format!("expected {form}")),
        ("token = { sesame = 'sesame' }", format!("unknown key, expected {form}")),
        ("token = { file = 'a', env = 'b' }", format!("more than one key, expected {form}")),
        ("token = 987654321", format!("invalid type: a number, expected {form}")),
        ("token = 9.87654321", format!("invalid type: a number, expected {form}")),
        ("token = true", format!("invalid type: a boolean, expected {form}")),
        ("token = ['sesame']", format!("invalid type: sequence, expected {form}")),
        ("token = { file = '' }", "`file` is empty".into()),
        ("token = { env = 'A=sesame' }", "`env` is not the name of an environment variable".into()),
        ("token = { credential = '../a' }", "`credential` is not a plain file name".into()),
        ("token = { credential = '..' }", "`credential` is not a plain file name".into()),
        ("token = { command = [] }", "`command` names no program".into()),
    ] {
        assert_eq!(parse(toml), Err(text), "{toml}");
    }
}

#[test]
fn debug_shows_no_value() {
    let plain = parse("token = 'debug-canary'").unwrap();
    let command = Config::Command(vec!["print".into(), "debug-canary".into()]);

    assert_eq!(format!("{plain:?}"), "***");
    assert_eq!(format!("{:?}", plain.read().unwrap()), "***");
    assert_eq!(format!("{command:?}"), "Command(\"print\", ..)");
}

#[test]
fn a_value_is_known_to_redact_once_it_is_read() {
    let (_home, path) = home_with(b"file-canary-7\r\n", 0o600);
    assert_eq!(redact("file-canary-7"), "file-canary-7");

    let secret = Config::File(path).read().unwrap();

    assert_eq!(secret.expose(), "file-canary-7");
    assert_eq!(redact("said file-canary-7"), "said ***");
}

#[test]
fn a_value_written_out_is_known_before_it_is_read() {
    parse("token = 'plain-canary-7'").unwrap();

    assert_eq!(redact("said plain-canary-7"), "said ***");
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_is_refused() {
    for mode in [0o604, 0o644, 0o640, 0o620, 0o601] {
        let (_home, path) = home_with(b"sesame-sesame", mode);
        let shown = path.display().to_string();

        let refused = refusal(&Config::File(path));

        let text = format!("read secret file `{shown}`: readable by others (mode {mode:04o})");
        assert_eq!(refused, (text, format!("chmod 600 {shown}")));
    }
}

#[test]
fn the_group_may_read_a_file_of_somebody_else() {
    let (root, daemon) = (0, 991);

    assert!(!file::is_exposed(0o640, root, daemon));
    assert!(!file::is_exposed(0o600, daemon, daemon));
    assert!(file::is_exposed(0o640, daemon, daemon));
    assert!(file::is_exposed(0o644, root, daemon));
}

#[cfg(unix)]
#[test]
fn a_link_to_a_file_is_followed() {
    let (home, path) = home_with(b"link-canary", 0o600);
    let link = home.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();

    assert_eq!(Config::File(link).read().unwrap().expose(), "link-canary");
}

#[cfg(unix)]
#[test]
fn what_is_no_secret_file_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let shown = home.path().display().to_string();
    let pipe = home.path().join("pipe");
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status();
    assert!(made.unwrap().success());

    let missing = refusal(&Config::File(home.path().join("missing"))).0;
    let directory = refusal(&Config::File(home.path().to_owned())).0;
    let waiting = refusal(&Config::File(pipe)).0;

    assert_eq!(
        missing,
        format!("read secret file `{shown}/missing`: No such file or directory (os error 2)")
    );
    assert_eq!(directory, format!("read secret file `{shown}`: it is not a regular file"));
    assert_eq!(waiting, format!("read secret file `{shown}/pipe`: it is not a regular file"));
}

#[test]
fn a_value_that_does_not_fit_a_header_is_refused_without_showing_it() {
    for (content, why) in [
        (&b"\n"[..], "it is empty"),
        (b"sesame\nsesame", "it holds a line break or another control character"),
        (b"sesame\0", "it holds a line break or another control character"),
        ("sésame".as_bytes(), "it holds a character that is not ASCII"),
    ] {
        let (_home, path) = home_with(content, 0o600);
        let shown = path.display().to_string();

        let (text, hint) = refusal(&Config::File(path));

        assert_eq!(text, format!("read secret from file `{shown}`: {why}"));
        assert_eq!(hint, "store the secret alone, as one line of ASCII");
    }
}

#[test]
fn a_file_that_is_too_long_or_no_text_is_refused() {
    for (content, why) in [
        (vec![b'a'; 64 * 1024 + 1], "it is longer than 64 KiB"),
        (b"sesame\xff".to_vec(), "it is not UTF-8"),
    ] {
        let (_home, path) = home_with(&content, 0o600);
        let shown = path.display().to_string();

        assert_eq!(refusal(&Config::File(path)).0, format!("read secret file `{shown}`: {why}"));
    }
}

#[test]
fn a_missing_variable_is_named() {
    let (text, hint) = refusal(&Config::Env("SIEMFERRY_TEST_MISSING".into()));

    assert_eq!(text, "read environment variable `SIEMFERRY_TEST_MISSING`: it is not set");
    assert_eq!(hint, "set `SIEMFERRY_TEST_MISSING` in the environment of the daemon");
}

#[test]
fn a_credential_is_read_from_its_directory() {
    let (home, _) = home_with(b"credential-canary\n", 0o600);

    assert_eq!(credential("token", Some(home.path())).unwrap(), "credential-canary\n");
}

#[test]
fn a_missing_credential_says_how_to_add_it() {
    let home = tempfile::tempdir().unwrap();

    let absent = credential("keeper", Some(home.path())).unwrap_err();
    let unset = credential("keeper", None).unwrap_err();

    let text = "read credential `keeper`: No such file or directory (os error 2)";
    #[cfg(unix)]
    assert_eq!(absent.to_string(), text);
    assert_eq!(unset.to_string(), "read credential `keeper`: `$CREDENTIALS_DIRECTORY` is not set");
    assert_eq!(
        unset.hint(),
        "add `LoadCredential=keeper:/path/to/the/secret` to the `[Service]` section of the unit"
    );
}

#[cfg(unix)]
mod commands {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<String, String> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        command::read(&words, limit).map_err(|error| error.to_string())
    }

    #[test]
    fn a_secret_is_what_the_command_prints() {
        let words = ["/bin/sh", "-c", "echo command-canary"].map(str::to_owned);

        assert_eq!(Config::Command(words.into()).read().unwrap().expose(), "command-canary");
    }

    #[test]
    fn a_command_that_fails_does_not_show_its_output() {
        let failed = shell("echo sesame; echo sesame >&2; exit 3", command::LIMIT).unwrap_err();
        let absent = command::read(&["/no/such".to_owned()], command::LIMIT).unwrap_err();

        assert_eq!(failed, "run secret command `/bin/sh`: exit status: 3");
        assert_eq!(
            absent.to_string(),
            "run secret command `/no/such`: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let limit = Duration::from_millis(50);

        let silent = shell("exec sleep 600", limit).unwrap_err();
        let closed = shell("echo sesame; exec sleep 600 >&-", limit).unwrap_err();

        assert_eq!(silent, "run secret command `/bin/sh`: no answer within 0.05s");
        assert_eq!(closed, silent);
    }

    #[test]
    fn a_command_that_prints_without_end_is_ended() {
        let endless = shell("exec yes sesame", command::LIMIT).unwrap_err();

        assert_eq!(endless, "run secret command `/bin/sh`: it prints more than 64 KiB");
    }
}
