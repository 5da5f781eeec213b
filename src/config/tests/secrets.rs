use super::*;

/// Everything that a refusal can show.
fn shown(home: &Home) -> String {
    let error = home.load().expect_err("is refused");
    format!("{error} {error:?} {:?}", error.hint())
}

#[test]
fn a_secret_is_accepted_in_a_file_of_the_owner_alone() {
    let toml = format!("[sources.acme.keeper]\ntoken = 'conf-canary-0'\n{SINK}");

    let config = given(&toml).mode("c.toml", 0o600).load().unwrap();

    assert!(!format!("{config:?}").contains("canary"));
    for mode in [0o640, 0o604, 0o644] {
        given(&toml).mode("c.toml", mode).is_refused(
            &format!(
                "`c.toml`: `sources.acme.keeper.token`: \
                 a secret in a file that others can open (mode {mode:04o})"
            ),
            "chmod 600 c.toml, or name a file: `{ file = \"…\" }`",
        );
    }
}

#[test]
fn only_the_file_that_holds_the_secret_is_private() {
    let home = given(format!("[sources.acme.keeper]\n{SINK}"));
    let secret = "sources.acme.keeper.token = 'conf-canary-1'";

    let home = home.file("conf.d/token.toml", secret).mode("conf.d/token.toml", 0o600);

    assert!(home.load().is_ok());
    let open = home.mode("conf.d/token.toml", 0o644);
    assert!(shown(&open).starts_with(&format!("`{}`", open.path("conf.d/token.toml").display())));
}

#[test]
fn a_secret_may_come_from_the_environment() {
    let home = source_with("").variable("SIEMFERRY_SOURCES__ACME__KEEPER__TOKEN", "conf-canary-2");

    assert!(home.load().unwrap().sources["acme"].secret().unwrap().is_plain());
}

#[test]
fn a_secret_that_cannot_be_sent_is_refused() {
    given(format!("[sources.acme.keeper]\ntoken = ''\n{SINK}")).mode("c.toml", 0o600).is_refused(
        "`c.toml`: `sources.acme.keeper.token`: read secret from configured value: it is empty",
        "store the secret alone, as one line of ASCII",
    );
}

#[test]
fn no_refusal_shows_a_secret() {
    let token = |value: &str| format!("[sources.acme.keeper]\ntoken = {value}\n{SINK}");
    for toml in [
        token("'s3same-s3same'"),
        token("'s3same\\n'"),
        token("\"s3same\\u0007\""),
        token("['s3same']"),
        token("{ value = 's3same' }"),
        token("{ s3same = 's3same' }"),
        token("{ 's3same' = 1 }"),
        token("{ env = ['s3same'] }"),
        token("{ env = 'T', s3same = 1 }"),
        token("{ env = 's3same=' }"),
        token("{ credential = '/s3same' }"),
        token("{ command = 's3same' }"),
        token("s3same"),
        token("\"s3same"),
        token("'''s3same"),
        token("'s3same' s3same"),
        token("{ file = 's3same"),
        token("'s3same-s3same'\ntoken = 's3same'"),
        token("'s3same-s3same'\ntoken.s3same = 's3same'"),
        format!("sources.acme.token = 's3same'\n{SINK}"),
        format!("sources.acme = 's3same'\n{SINK}"),
        format!("sources = 's3same'\n{SINK}"),
        format!("sources.acme.keeper = 's3same'\n{SINK}"),
    ] {
        let shown = shown(&given(&toml));

        assert!(!shown.contains("s3same"), "{toml}\n{shown}");
    }
    for digits in
        ["987654321", "9.87654321", "98765432100000000000000", "0x987654321", "9876-54-32"]
    {
        let shown = shown(&given(token(digits)));

        assert!(!shown.contains("9876") && !shown.contains("9.876"), "{digits}\n{shown}");
    }
}

#[test]
fn no_refusal_shows_a_secret_of_the_environment() {
    for value in
        ["[s3same", "{ s3same = 1 }", "{ env = 1, s3same = 1 }", "\"s3same", "[\"s3same\"]"]
    {
        let home = source_with("").variable("SIEMFERRY_SOURCES__ACME__KEEPER__TOKEN", value);

        let shown = shown(&home);

        assert!(!shown.contains("s3same"), "{value}\n{shown}");
    }
}
