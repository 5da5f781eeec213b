use super::*;

#[test]
fn a_misspelt_key_is_named_with_what_was_meant() {
    given(format!("{SOURCE}[sinks.archive.file]\npaht = '/x'"))
        .is_refused("`c.toml`: `sinks.archive.file.paht`: unknown key", "did you mean `path`?");
}

#[test]
fn an_unknown_key_is_refused_in_every_table() {
    for (table, known) in [
        ("[state]", "dir"),
        ("[seen]", "keep"),
        ("[spool]", "max_bytes`, `reserve`, `keep"),
        ("[log]", "format`, `level"),
        ("[shutdown]", "grace"),
        ("[own_events]", "enabled"),
        ("[sinks.x.file]", "path`, `format`, `batch`, `route`, `from`, `rotate"),
        ("[sinks.x.file.batch]", "events`, `bytes`, `wait"),
        ("[sinks.x.file.rotate]", "size`, `every`, `keep`, `compress"),
        ("[sinks.x.file.route]", "sources`, `include`, `exclude"),
        (
            "[sinks.x.elastic]",
            "url`, `index`, `data_stream`, `auth`, `pipeline`, `format`, `batch`, `in_flight`, \
             `compress`, `ca_file`, `client_certificate`, `proxy`, `timeout`, `route`, `from",
        ),
        ("[sinks.x.elastic.batch]", "events`, `bytes`, `wait"),
        ("[sinks.x.elastic.auth.basic]", "user`, `password"),
        (
            "[sinks.x.webhook]",
            "url`, `body`, `format`, `headers`, `signature`, `accept`, `batch`, `in_flight`, \
             `compress`, `ca_file`, `client_certificate`, `proxy`, `timeout`, `route`, `from",
        ),
        ("[sinks.x.webhook.batch]", "events`, `bytes`, `wait"),
        ("[sinks.x.webhook.signature]", "keys"),
    ] {
        let key = table.trim_matches(['[', ']']);
        given(format!("{SOURCE}{SINK}{table}\nxyzzyxyzzy = 1")).is_refused(
            &format!("`c.toml`: `{key}.xyzzyxyzzy`: unknown key"),
            &format!("known here: `{known}`"),
        );
    }
}

#[test]
fn an_unknown_section_is_refused() {
    given(format!("{SOURCE}{SINK}[sorces.x.keeper]"))
        .is_refused("`c.toml`: `sorces`: unknown key", "did you mean `sources`?");
}

#[test]
fn an_unknown_key_of_a_drop_in_or_a_variable_is_blamed_on_it() {
    source_with("")
        .file("conf.d/a.toml", "log.levle = 'x'")
        .is_refused("`conf.d/a.toml`: `log.levle`: unknown key", "did you mean `level`?");
    source_with("").variable("SIEMFERRY_LOG__LEVLE", "x").is_refused(
        "environment variable `SIEMFERRY_LOG__LEVLE`: `log.levle`: unknown key",
        "did you mean `level`?",
    );
}

#[test]
fn a_variable_with_one_underscore_too_few_is_refused() {
    source_with("").variable("SIEMFERRY_LOG_LEVEL", "debug").is_refused(
        "environment variable `SIEMFERRY_LOG_LEVEL`: is not a key of the configuration",
        "two underscores separate levels: did you mean `SIEMFERRY_LOG__LEVEL`?",
    );
    source_with("").variable("SIEMFERRY_LOG____LEVEL", "debug").is_refused(
        "environment variable `SIEMFERRY_LOG____LEVEL`: holds an empty part between `__`",
        "",
    );
}

#[test]
fn an_unknown_kind_is_refused() {
    given(format!("{SINK}[sources.acme.kepeer]")).is_refused(
        "`c.toml`: `sources.acme.kepeer`: unknown kind `kepeer`",
        "did you mean `keeper`?",
    );
    given(format!("{SOURCE}[sinks.a.pigeon]")).is_refused(
        "`c.toml`: `sinks.a.pigeon`: unknown kind `pigeon`",
        "known here: `file`, `elastic`, `sentinel`, `splunk`, `syslog`, `webhook`",
    );
}

#[test]
fn two_kinds_under_one_name_are_refused() {
    let text = "`c.toml`: `sources.acme`: two kinds under one name: \
                `keeper` (`c.toml`) and `okta` (`c.toml`)";
    given(format!("{SOURCE}[sources.acme.okta]\n{SINK}"))
        .is_refused(text, "give every source a name of its own");
}

#[test]
fn two_kinds_under_one_name_are_refused_across_files() {
    let text = "`conf.d/a.toml`: `sinks.archive`: two kinds under one name: \
                `file` (`c.toml`) and `syslog` (`conf.d/a.toml`)";
    source_with("")
        .file("conf.d/a.toml", "[sinks.archive.syslog]")
        .is_refused(text, "give every sink a name of its own");
}

#[test]
fn a_source_or_sink_that_only_the_environment_names_is_refused() {
    source_with("").variable("SIEMFERRY_SOURCES__AMCE__KEEPER__LAG", "1s").is_refused(
        "environment variable `SIEMFERRY_SOURCES__AMCE__KEEPER__LAG`: `sources.amce`: \
         a source that no file names",
        "name every source in a file: a misspelt variable would add one",
    );
    source_with("").variable("SIEMFERRY_SINKS__B__FILE__PATH", "/b").is_refused(
        "environment variable `SIEMFERRY_SINKS__B__FILE__PATH`: `sinks.b`: \
         a sink that no file names",
        "name every sink in a file: a misspelt variable would add one",
    );
}

#[test]
fn a_bad_name_is_refused() {
    let hint = "names are at most 64 of `a-z`, `0-9`, `_` and `-`";
    for name in ["Acme", "a.b", "a b", "", "é", &"a".repeat(65)] {
        given(format!("{SOURCE}{SINK}[sources.'{name}'.keeper]"))
            .is_refused(&format!("`c.toml`: `sources.{name}`: not a name"), hint);
    }
    given(format!("{SOURCE}{SINK}[sinks.A.file]"))
        .is_refused("`c.toml`: `sinks.A`: not a name", hint);
    given(format!("{SINK}[sources.siemferry.keeper]"))
        .is_refused("`c.toml`: `sources.siemferry`: the name is reserved", hint);
}

#[test]
fn a_source_without_a_kind_is_refused() {
    let hint = "write `[sources.acme.<kind>]`";
    given(format!("{SINK}[sources.acme]"))
        .is_refused("`c.toml`: `sources.acme`: the source has no kind", hint);
    given(format!("sources.acme = 'x'\n{SINK}"))
        .is_refused("`c.toml`: `sources.acme`: found a string, expected a table", hint);
    given(format!("{SINK}[sources.acme]\nregion = 'us'\ntoken = {{ env = 'T' }}"))
        .is_refused("`c.toml`: `sources.acme`: found a string at `region`, expected a table", hint);
}
