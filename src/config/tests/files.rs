use super::*;

#[test]
fn a_missing_file_is_named() {
    home().is_refused(
        "`c.toml`: there is no such file",
        "name the configuration file with `--config`",
    );
}

#[test]
fn a_file_of_a_parent_directory_is_not_taken() {
    let home = source_with("");
    let below = home.path("below");
    std::fs::create_dir(&below).unwrap();

    let error = load_with(&below.join("c.toml"), [], Utc::now()).unwrap_err();

    assert!(error.to_string().ends_with("there is no such file"), "{error}");
}

#[test]
fn a_directory_is_refused() {
    let home = home();
    std::fs::create_dir(home.path("c.toml")).unwrap();

    home.is_refused("`c.toml`: is not a regular file", "name a file, not a directory");
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    given(b"a = '\xff'").is_refused("`c.toml`: is not UTF-8", "save it as UTF-8");
}

#[test]
fn a_variable_that_is_not_text_is_refused() {
    let mut home = source_with("");
    let value = OsString::from_vec(b"sesame\xff".to_vec());
    home.environment.push(("SIEMFERRY_LOG__LEVEL".into(), value));

    home.is_refused("environment variable `SIEMFERRY_LOG__LEVEL`: is not UTF-8", "");
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    for mode in [0o620, 0o602, 0o666] {
        let text = format!("`c.toml`: is writable by others (mode {mode:04o})");
        source_with("").mode("c.toml", mode).is_refused(&text, "chmod go-w c.toml");
    }
    source_with("").file("conf.d/a.toml", "").mode("conf.d/a.toml", 0o664).is_refused(
        "`conf.d/a.toml`: is writable by others (mode 0664)",
        "chmod go-w conf.d/a.toml",
    );
}

#[test]
fn a_file_belongs_to_root_or_the_running_user() {
    assert_eq!(read::refusal(0, 0o644, 991), None);
    assert_eq!(read::refusal(991, 0o644, 991), None);
    assert_eq!(
        read::refusal(1000, 0o644, 991).unwrap(),
        "belongs to user 1000, neither root nor the running user"
    );
}

#[test]
fn a_syntax_error_is_located_and_not_quoted() {
    let hint = "mend the line; https://toml.io shows how each value is written";
    given("[state]\ndir = '/a'\n\n[sources.acme.keeper]\ntoken = \"sesame\n")
        .is_refused("`c.toml`: line 5, column 16: invalid basic string, expected `\"`", hint);
    given("token = sesame\n").is_refused(
        "`c.toml`: line 1, column 9: string values must be quoted, expected literal string",
        hint,
    );
    given("a = 99999999999999999999")
        .is_refused("`c.toml`: line 1, column 5: integer out of range", hint);
    given("a = 1\na = 2").is_refused("`c.toml`: line 2, column 1: duplicate key", hint);
}
