use super::*;

#[test]
fn an_unknown_unit_is_refused() {
    let hint = "a whole number with its unit right behind it, in quotes";
    source_with("poll_every = '30'").is_refused(
        "`c.toml`: `sources.acme.keeper.poll_every`: found `30`, \
         expected a duration such as `30s`, `15m`, `24h` or `30d`",
        hint,
    );
    given(format!("{SOURCE}{SINK}[spool]\nmax_bytes = '4gb'")).is_refused(
        "`c.toml`: `spool.max_bytes`: found `4gb`, expected a size such as `64MiB` or `4GiB`",
        hint,
    );
    given(format!("{SOURCE}{SINK}[spool]\nreserve = '64'")).is_refused(
        "`c.toml`: `spool.reserve`: found `64`, expected a size such as `64MiB` or `4GiB`",
        hint,
    );
    source_with("resweep = ['1m', '1 h']").is_refused(
        "`c.toml`: `sources.acme.keeper.resweep.1`: found `1 h`, \
         expected a duration such as `30s`, `15m`, `24h` or `30d`",
        hint,
    );
}

#[test]
fn a_wrong_type_is_refused() {
    for (keys, text) in [
        (
            "page_size = 'x'",
            "page_size`: found a string, expected a whole number from 1 to 4294967295",
        ),
        ("page_size = 0", "page_size`: found `0`, expected a whole number from 1 to 4294967295"),
        ("page_size = -1", "page_size`: found `-1`, expected a whole number from 1 to 4294967295"),
        (
            "page_size = 1.5",
            "page_size`: found a fraction, expected a whole number from 1 to 4294967295",
        ),
        ("tenant = 1", "tenant`: found a number, expected a string"),
        ("resweep = '1m'", "resweep`: found a string, expected an array"),
        ("ca_file = []", "ca_file`: found an array, expected a path"),
        (
            "lag = 30",
            "lag`: found a number, expected a duration such as `30s`, `15m`, `24h` or `30d`",
        ),
    ] {
        source_with(keys).is_refused(&format!("`c.toml`: `sources.acme.keeper.{text}"), "");
    }
    given(format!("log = 'x'\n{SOURCE}{SINK}"))
        .is_refused("`c.toml`: `log`: found a string, expected a table", "");
    given(format!("log.level = 3\n{SOURCE}{SINK}"))
        .is_refused("`c.toml`: `log.level`: found a number, expected a string", "");
}

#[test]
fn a_number_from_the_environment_can_be_made_a_string() {
    let name = "SIEMFERRY_SOURCES__ACME__KEEPER__TENANT";
    source_with("").variable(name, "12").is_refused(
        "environment variable `SIEMFERRY_SOURCES__ACME__KEEPER__TENANT`: \
         `sources.acme.keeper.tenant`: found a number, expected a string",
        "quotes within the variable's value make it a string",
    );
    assert!(source_with("").variable(name, "\"12\"").load().is_ok());
    assert!(source_with("").variable(name, "012").load().is_ok());
}

#[test]
fn an_unknown_word_is_refused() {
    given(format!("log.level = 'verbose'\n{SOURCE}{SINK}")).is_refused(
        "`c.toml`: `log.level`: unknown value `verbose`",
        "known here: `error`, `warn`, `info`, `debug`, `trace`",
    );
    given(format!("{SOURCE}{SINK}format = 'jsno'")).is_refused(
        "`c.toml`: `sinks.archive.file.format`: unknown value `jsno`",
        "did you mean `json`?",
    );
}

#[test]
fn a_region_must_be_known() {
    source_with("region = 'mars'").is_refused(
        "`c.toml`: `sources.acme.keeper.region`: unknown region `mars`",
        "the regions are `au`, `ca`, `eu`, `govcloud`, `jp`, `us`; `base_url` names any other host",
    );
}

#[test]
fn a_region_and_a_base_url_exclude_each_other() {
    source_with("region = 'us'\nbase_url = 'https://example.com'").is_refused(
        "`c.toml`: `sources.acme.keeper.base_url`: stands beside `region`",
        "`region` is a short name for a `base_url`: keep one of them",
    );
}

#[test]
fn a_base_url_is_scheme_host_and_port() {
    let hint = r#"scheme, host and port, such as "https://keepersecurity.com""#;
    for (url, text) in [
        ("keepersecurity.com", "is not a URL"),
        ("ftp://example.com", "is not a URL of the web"),
        ("https://example.com/api", "holds a path"),
        ("https://example.com?a=b", "holds a query"),
        ("https://example.com/#a", "holds a query"),
        ("https://sesame@example.com", "holds a user name or a password"),
        ("https://a:sesame@example.com", "holds a user name or a password"),
        ("http://example.com", "would send the token unencrypted: plain `http://` is for loopback"),
        ("http://128.0.0.1", "would send the token unencrypted: plain `http://` is for loopback"),
        (
            "http://localhost.example.com",
            "would send the token unencrypted: plain `http://` is for loopback",
        ),
    ] {
        source_with(&format!("base_url = '{url}'"))
            .is_refused(&format!("`c.toml`: `sources.acme.keeper.base_url`: {text}"), hint);
    }
    for url in [
        "https://example.com",
        "https://example.com:8443/",
        "http://127.0.0.1:8080",
        "http://127.9.9.9",
        "http://[::1]:8080",
        "http://localhost:8080",
    ] {
        assert!(source_with(&format!("base_url = '{url}'")).load().is_ok(), "{url}");
    }
}

#[test]
fn a_proxy_is_a_url_without_a_password() {
    let hint = r#"such as "http://proxy:3128""#;
    source_with("proxy = 'proxy:3128'")
        .is_refused("`c.toml`: `sources.acme.keeper.proxy`: is not the URL of an HTTP proxy", hint);
    source_with("proxy = 'http://a:sesame@proxy'")
        .is_refused("`c.toml`: `sources.acme.keeper.proxy`: holds a user name or a password", hint);
}

#[test]
fn a_start_is_not_in_the_future() {
    source_with("start = '2026-01-03'").is_refused(
        "`c.toml`: `sources.acme.keeper.start`: `2026-01-03T00:00:00Z` is in the future",
        "events are read from there on: name a time that is past",
    );
    assert!(source_with("start = '2026-01-02'").load().is_ok());
}

#[test]
fn resweeps_ascend() {
    for ages in ["'4m', '1m'", "'1m', '1m'", "'0s', '1m'"] {
        source_with(&format!("resweep = [{ages}]")).is_refused(
            "`c.toml`: `sources.acme.keeper.resweep`: must ascend, and begin above `0s`",
            r#"such as `resweep = ["1m", "15m", "24h"]`"#,
        );
    }
    let ages: Vec<_> = (1..=17).map(|n| format!("'{n}m'")).collect();
    source_with(&format!("resweep = [{}]", ages.join(","))).is_refused(
        "`c.toml`: `sources.acme.keeper.resweep`: holds 17 ages, the most is 16",
        "few ages, each some times the one before",
    );
    assert!(source_with(&format!("resweep = [{}]", ages[1..].join(","))).load().is_ok());
    assert!(source_with("resweep = []").load().is_ok());
}

#[test]
fn spans_that_cannot_work_are_refused() {
    for window in ["0s", "500ms", "1500ms"] {
        source_with(&format!("max_window = '{window}'")).is_refused(
            &format!(
                "`c.toml`: `sources.acme.keeper.max_window`: \
                 `{window}` is not a number of whole seconds"
            ),
            "windows are cut on whole seconds: name at least `1s`",
        );
    }
    for key in ["poll_every", "timeout"] {
        source_with(&format!("{key} = '0s'")).is_refused(
            &format!("`c.toml`: `sources.acme.keeper.{key}`: must be more than `0s`"),
            "",
        );
    }
    given(format!("spool.max_bytes = '0B'\n{SOURCE}{SINK}batch.bytes = '0B'")).is_refused_with(&[
        "`c.toml`: `spool.max_bytes`: must be more than `0B`",
        "`c.toml`: `sinks.archive.file.batch.bytes`: must be more than `0B`",
    ]);
}

#[test]
fn a_rotation_that_cannot_work_is_refused() {
    let rotate = |keys: &str| given(format!("{SOURCE}{SINK}rotate = {{ {keys} }}"));
    let form = "expected a number of files such as `30`, an age such as `30d`, a size such as \
                `10GiB`, or a table of `count`, `age` and `bytes`";
    for keys in ["", "keep = 3, compress = 'zstd'"] {
        rotate(keys).is_refused(
            "`c.toml`: `sinks.archive.file.rotate`: names neither `size` nor `every`",
            "say when a file is done, such as `rotate = { size = \"256MiB\" }`",
        );
    }
    for (keys, text) in [
        ("size = '0B'", "size`: must be more than `0B`"),
        ("every = '0s'", "every`: must be more than `0s`"),
        ("size = '1B', keep = '0d'", "keep`: must be more than `0s`"),
        ("size = '1B', keep = { age = '0d' }", "keep`: must be more than `0s`"),
        ("size = '1B', keep = '0MiB'", "keep`: must be more than `0B`"),
        ("size = '1B', keep = 0", &format!("keep`: found `0`, {form}")),
        ("size = '1B', keep = -1", &format!("keep`: found `-1`, {form}")),
        ("size = '1B', keep = 4294967296", &format!("keep`: found `4294967296`, {form}")),
        ("size = '1B', keep = '30'", &format!("keep`: found `30`, {form}")),
        ("size = '1B', keep = true", &format!("keep`: found a boolean, {form}")),
        (
            "size = '1B', keep = { count = 0 }",
            "keep.count`: found `0`, expected a whole number from 1 to 4294967295",
        ),
    ] {
        rotate(keys).is_refused(&format!("`c.toml`: `sinks.archive.file.rotate.{text}"), "");
    }
    for (keys, text, hint) in [
        ("sise = '1B'", "sise`: unknown key", "did you mean `size`?"),
        ("size = '1B', keep = { days = 3 }", "keep.days`: unknown key", KNOWN_OF_KEEP),
        ("compress = 'xz'", "compress`: unknown value `xz`", KNOWN_OF_COMPRESS),
        ("size = '1G'", "size`: found `1G`, expected a size such as `64MiB` or `4GiB`", UNIT),
    ] {
        rotate(keys).is_refused(&format!("`c.toml`: `sinks.archive.file.rotate.{text}"), hint);
    }
    given(format!("{SOURCE}{SINK}rotate = '1d'"))
        .is_refused("`c.toml`: `sinks.archive.file.rotate`: found a string, expected a table", "");
}

const KNOWN_OF_KEEP: &str = "known here: `count`, `age`, `bytes`";
const KNOWN_OF_COMPRESS: &str = "known here: `none`, `zstd`, `gzip`";
const UNIT: &str = "a whole number with its unit right behind it, in quotes";

#[test]
fn a_rotation_may_come_from_the_environment() {
    let home = given(format!("{SOURCE}{SINK}rotate.size = '1MiB'"))
        .variable("SIEMFERRY_SINKS__ARCHIVE__FILE__ROTATE__KEEP", "30")
        .variable("SIEMFERRY_SINKS__ARCHIVE__FILE__ROTATE__COMPRESS", "gzip");

    let config = home.load().unwrap();

    let sink::Config::File(file) = &config.sinks["archive"] else { panic!("another kind") };
    let rotate = file.rotate.as_ref().unwrap();
    assert_eq!(rotate.keep.count.unwrap().get(), 30);
    assert_eq!(rotate.compress, sink::file::Compress::Gzip);
}

#[test]
fn what_is_missing_is_named() {
    given(format!("[sources.acme.keeper]\n{SINK}")).is_refused(
        "`c.toml`: `sources.acme.keeper.token`: is missing",
        "name where the API token is read from, such as `token = { file = \"…\" }`",
    );
    given(format!("{SOURCE}[sinks.archive.file]")).is_refused(
        "`c.toml`: `sinks.archive.file.path`: is missing",
        "name the file that events are appended to",
    );
    given(SINK).is_refused(
        "`c.toml`: `sources`: there is no source",
        "add one, such as `[sources.acme.keeper]`",
    );
    given(SOURCE).is_refused(
        "`c.toml`: `sinks`: there is no sink",
        "add one, such as `[sinks.archive.file]`",
    );
    given(format!("state.dir = ''\n{SOURCE}{SINK}"))
        .is_refused("`c.toml`: `state.dir`: is empty", "name the directory that holds the store");
}

#[test]
fn two_sources_do_not_share_a_secret() {
    given(format!("{SOURCE}[sources.twin.keeper]\ntoken = {{ env = 'T' }}\n{SINK}")).is_refused(
        "`c.toml`: `sources.twin.keeper.token`: the same secret as `sources.acme.keeper`",
        "read every account by one source: two would double its events",
    );
}

#[test]
fn two_sinks_do_not_share_a_file() {
    given(format!("{SOURCE}{SINK}[sinks.twin.file]\npath = '/./a'")).is_refused(
        "`c.toml`: `sinks.twin.file.path`: the same file as `sinks.archive.file`",
        "give every sink a file of its own",
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let home = given("[sources.a.keeper]\nlag = '1s'\n[sinks.b.file]\n");

    let error = home.load().unwrap_err();

    assert_eq!(error.problems().len(), 2);
    assert_eq!(error.to_string().lines().count(), 2);
    assert!(error.hint().unwrap().starts_with("name where the API token"));
}
