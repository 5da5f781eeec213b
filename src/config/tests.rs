use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::sys::set_mode;
use crate::units::{Bytes, Start};

/// A directory with configuration files, and the environment they are read in.
struct Home {
    dir: TempDir,
    environment: Vec<(OsString, OsString)>,
}

const SOURCE: &str = "[sources.acme.keeper]\ntoken = { env = 'T' }\n";
const SINK: &str = "[sinks.archive.file]\npath = '/a'\n";

fn home() -> Home {
    Home { dir: tempfile::tempdir().unwrap(), environment: Vec::new() }
}

/// A home whose main file holds `toml` and nothing else.
fn given(toml: impl AsRef<[u8]>) -> Home {
    home().file("c.toml", toml)
}

/// A home whose main file holds `keys` in a source beside what else is needed.
fn source_with(keys: &str) -> Home {
    given(format!("{SOURCE}{keys}\n{SINK}"))
}

impl Home {
    fn file(self, name: &str, toml: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, toml).unwrap();
        self.mode(name, 0o644)
    }

    fn mode(self, name: &str, mode: u32) -> Self {
        set_mode(&File::open(self.path(name)).unwrap(), mode).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self) -> Result<Config, Error> {
        let now = DateTime::from_timestamp(1_767_312_000, 0).unwrap();
        load_with(&self.path("c.toml"), self.environment.clone(), now)
    }

    /// The texts and hints of every problem, without the name of the directory.
    fn refusals(&self) -> Vec<(String, String)> {
        let error = self.load().expect_err("is refused");
        let dir = format!("{}/", self.dir.path().display());
        let clean = |text: String| text.replace(&dir, "");
        let pair = |problem: &Problem| {
            (clean(problem.to_string()), clean(problem.hint.clone().unwrap_or_default()))
        };
        error.problems().iter().map(pair).collect()
    }

    #[track_caller]
    fn is_refused(&self, text: &str, hint: &str) {
        assert_eq!(self.refusals(), [(text.to_owned(), hint.to_owned())]);
    }

    #[track_caller]
    fn is_refused_with(&self, texts: &[&str]) {
        let found: Vec<_> = self.refusals().into_iter().map(|(text, _)| text).collect();
        assert_eq!(found, texts);
    }
}

#[test]
fn an_empty_section_is_the_default() {
    let bare = given(format!("{SOURCE}{SINK}")).load().unwrap();
    let empty =
        given(format!("[state]\n[spool]\n[seen]\n[log]\n[shutdown]\n[own_events]\n{SOURCE}{SINK}"));

    assert_eq!(empty.load().unwrap(), bare);
    assert_eq!(
        Config { sources: BTreeMap::new(), sinks: BTreeMap::new(), ..bare },
        Config::default()
    );
}

#[test]
fn every_key_is_read() {
    let config = source_with(
        "region = 'eu'\ntenant = 't'\nstart = 2026-01-01\npoll_every = '10s'\nresweep = ['2m']\n\
         lag = '5s'\nsilence_after = '7d'\npage_size = 10\nmax_window = '1h'\nca_file = '/ca'\nproxy = 'http://p:1'\ntimeout = '9s'",
    );

    let config = config.load().unwrap();

    let source::Config::Keeper(keeper) = &config.sources["acme"];
    assert_eq!(keeper.token, Some(secret::Config::Env("T".into())));
    assert_eq!(keeper.start, Start::At(1_767_225_600));
    assert_eq!(keeper.resweep, [Span::minutes(2)]);
    assert_eq!(keeper.silence_after, Span::days(7));
    assert_eq!(keeper.page_size.get(), 10);
    assert_eq!(keeper.ca_file, Some("/ca".into()));
}

#[test]
fn later_layers_win() {
    let home = source_with("poll_every = '1s'\nlag = '1s'\npage_size = 1\n")
        .file("conf.d/20.toml", "sources.acme.keeper = { lag = '3s', page_size = 3 }")
        .file("conf.d/10.toml", "sources.acme.keeper = { lag = '2s' }")
        .file("conf.d/.hidden.toml", "[[[")
        .file("conf.d/readme.txt", "[[[")
        .variable("SIEMFERRY_SOURCES__ACME__KEEPER__PAGE_SIZE", "4")
        .variable("SIEMFERRY_SOURCES__ACME__KEEPER__RESWEEP", "[\"9m\"]")
        .variable("SIEMFERRY_LOG__LEVEL", "debug")
        .variable("SIEMFERRY_STATE__DIR", "/s")
        .variable("SIEMFERRY_SPOOL__MAX_BYTES", "64MiB");

    let config = home.load().unwrap();

    let source::Config::Keeper(keeper) = &config.sources["acme"];
    assert_eq!(keeper.poll_every, Span::seconds(1));
    assert_eq!(keeper.lag, Span::seconds(3));
    assert_eq!(keeper.page_size.get(), 4);
    assert_eq!(keeper.resweep, [Span::minutes(9)]);
    assert_eq!(config.log.level, log::Level::Debug);
    assert_eq!(config.state.dir, Path::new("/s"));
    assert_eq!(config.spool.max_bytes, Bytes::mebibytes(64));
}

#[test]
fn variables_that_are_not_meant_are_left_alone() {
    let home = source_with("")
        .variable("SIEMFERRY_KEEPER_TOKEN", "x")
        .variable("SIEMFERRY_SERVICE_HOST", "10.0.0.1")
        .variable("SIEMFERRY_PORT_8080_TCP_ADDR", "10.0.0.1")
        .variable("LOG__LEVEL", "x");

    assert!(home.load().is_ok());
}

mod keys {
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
            "known here: `file`, `elastic`, `webhook`",
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
        given(format!("{SINK}[sources.acme]\nregion = 'us'\ntoken = {{ env = 'T' }}")).is_refused(
            "`c.toml`: `sources.acme`: found a string at `region`, expected a table",
            hint,
        );
    }
}

mod values {
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
            (
                "page_size = 0",
                "page_size`: found `0`, expected a whole number from 1 to 4294967295",
            ),
            (
                "page_size = -1",
                "page_size`: found `-1`, expected a whole number from 1 to 4294967295",
            ),
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
            (
                "http://example.com",
                "would send the token unencrypted: plain `http://` is for loopback",
            ),
            (
                "http://128.0.0.1",
                "would send the token unencrypted: plain `http://` is for loopback",
            ),
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
        source_with("proxy = 'proxy:3128'").is_refused(
            "`c.toml`: `sources.acme.keeper.proxy`: is not the URL of an HTTP proxy",
            hint,
        );
        source_with("proxy = 'http://a:sesame@proxy'").is_refused(
            "`c.toml`: `sources.acme.keeper.proxy`: holds a user name or a password",
            hint,
        );
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
        given(format!("spool.max_bytes = '0B'\n{SOURCE}{SINK}batch.bytes = '0B'")).is_refused_with(
            &[
                "`c.toml`: `spool.max_bytes`: must be more than `0B`",
                "`c.toml`: `sinks.archive.file.batch.bytes`: must be more than `0B`",
            ],
        );
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
        given(format!("{SOURCE}{SINK}rotate = '1d'")).is_refused(
            "`c.toml`: `sinks.archive.file.rotate`: found a string, expected a table",
            "",
        );
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
        given(format!("state.dir = ''\n{SOURCE}{SINK}")).is_refused(
            "`c.toml`: `state.dir`: is empty",
            "name the directory that holds the store",
        );
    }

    #[test]
    fn two_sources_do_not_share_a_secret() {
        given(format!("{SOURCE}[sources.twin.keeper]\ntoken = {{ env = 'T' }}\n{SINK}"))
            .is_refused(
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
}

mod elastic;

mod webhook {
    use super::*;

    const KEY: &str = "webhook-canary-0";

    /// A home with a webhook of these keys.
    fn hook_with(keys: &str) -> Home {
        given(format!("{SOURCE}[sinks.hook.webhook]\n{keys}\n"))
    }

    fn hook_and(keys: &str) -> Home {
        hook_with(&format!("url = 'https://h.example.com/in'\n{keys}"))
    }

    #[test]
    fn every_key_is_read() {
        let home = hook_and(
            "body = 'array'\nformat = 'raw'\nheaders = { X-Key = { env = 'K' }, X-Team = 'soc' }\n\
             signature = { keys = [{ env = 'S' }] }\naccept = [202]\nbatch = { events = 7 }\nin_flight = 9\n\
             compress = 'zstd'\nca_file = '/ca'\nclient_certificate = '/cc'\nproxy = 'http://p:1'\n\
             timeout = '9s'\nroute = { sources = ['acme'] }\nfrom = 'kept'",
        );

        let config = home.load().unwrap();

        let sink::Config::Webhook(hook) = &config.sinks["hook"] else { panic!("another kind") };
        let secrets: Vec<_> = hook.secrets().into_iter().map(|(key, _)| key).collect();
        assert_eq!(secrets, ["headers.X-Key", "signature.keys"]);
        assert_eq!(hook.accept, Some(vec![202]));
        assert_eq!((hook.batch.events.get(), hook.batch.bytes), (7, Bytes::new(900 << 10)));
        assert_eq!((hook.in_flight.get(), hook.timeout), (9, Span::seconds(9)));
        assert_eq!(hook.client_certificate, Some("/cc".into()));
        assert_eq!(hook.route.sources, Some(vec!["acme".into()]));
        assert_eq!((hook.body, hook.from), (sink::webhook::Body::Array, sink::From::Kept));
    }

    #[test]
    fn a_url_is_encrypted_and_holds_no_password() {
        let hint = r#"the receiver's address, such as "https://siem.example.com:8443/in""#;
        for (url, text) in [
            ("", "is missing"),
            ("siem.example.com", "is not a URL"),
            ("ftp://siem.example.com", "is not a URL of the web"),
            ("https://u:secret@siem.example.com", "holds a user name or a password"),
            ("https://siem.example.com/#in", "holds a fragment"),
            (
                "http://siem.example.com/in",
                "would send events unencrypted: plain `http://` is for loopback",
            ),
        ] {
            let text = format!("`c.toml`: `sinks.hook.webhook.url`: {text}");
            hook_with(&format!("url = '{url}'")).is_refused(&text, hint);
        }
        for url in ["http://localhost:1/in", "http://127.0.0.1/", "http://[::1]/", "https://h/?a=b"]
        {
            assert!(hook_with(&format!("url = '{url}'")).load().is_ok(), "{url}");
        }
    }

    #[test]
    fn numbers_that_cannot_work_are_refused() {
        let refused = |keys: &str, key: &str, text: &str, hint: &str| {
            let text = format!("`c.toml`: `sinks.hook.webhook.{key}`: {text}");
            hook_and(keys).is_refused(&text, hint);
        };
        let at_once = "it is how many batches may be on their way at once";
        refused("in_flight = 65", "in_flight", "`65` is more than 64", at_once);
        let expected = "found `0`, expected a whole number from 1 to 4294967295";
        refused("in_flight = 0", "in_flight", expected, "");
        refused("timeout = '0s'", "timeout", "must be more than `0s`", "");
        refused("batch = { bytes = '0B' }", "batch.bytes", "must be more than `0B`", "");
        let proxy = r#"such as "http://proxy:3128""#;
        refused("proxy = 'p'", "proxy", "is not the URL of an HTTP proxy", proxy);
        let accept = "the statuses that say that the receiver holds the batch, such as [200, 202]";
        refused("accept = []", "accept", "names no status", accept);
        refused("accept = [200, 500]", "accept", "`500` is neither 2xx nor 409", accept);
        let expected = "found `70000`, expected a whole number from 0 to 65535";
        refused("accept = [70000]", "accept.0", expected, "");
    }

    #[test]
    fn a_header_has_a_name_and_a_value_of_its_own() {
        let refused = |headers: &str, key: &str, text: &str, hint: &str| {
            let text = format!("`c.toml`: `sinks.hook.webhook.{key}`: {text}");
            hook_and(&format!("headers = {{ {headers} }}")).is_refused(&text, hint);
        };
        for (name, why) in [
            ("Host", "it belongs to the connection"),
            ("transfer-encoding", "it belongs to the connection"),
            ("Content-Type", "it tells of the body, which siemferry makes"),
            ("Webhook-Id", "siemferry sets it"),
            ("Idempotency-Key", "siemferry sets it"),
        ] {
            let key = format!("headers.{name}");
            let value = format!("{name} = {{ env = 'X' }}");
            refused(&value, &key, &format!("cannot be set: {why}"), "leave it out");
        }
        let names = "names are of `a-z`, `A-Z`, `0-9`, `-` and `_`, such as `Authorization`";
        refused("'a b' = 'x'", "headers", "holds what is not a header's name", names);
        let case = "the case of a header's name does not matter: keep one of them";
        let text = "the same header as `headers.X-Team`";
        refused("X-Team = 'a', x-team = 'b'", "headers.x-team", text, case);
        let line = "a value is one line of ASCII";
        refused("X-Team = 'é'", "headers.X-Team", "cannot be sent as a header", line);
        let expected = "found a number, expected text, or a table with one of `file`, `env`, \
                        `credential` and `command`";
        refused("X-Team = 7", "headers.X-Team", expected, "");
        let expected = "found a number, expected a table with one of `file`, `env`, `credential` \
                        and `command`";
        refused("X-Api-Key = 7", "headers.X-Api-Key", expected, "");
    }

    #[test]
    fn a_signature_has_keys() {
        let refused = |keys: &str, text: &str| {
            let text = format!("`c.toml`: `sinks.hook.webhook.signature.keys`: {text}");
            let home = hook_and(&format!("signature = {{ keys = {keys} }}"));
            home.mode("c.toml", 0o600).is_refused(
                &text,
                "a key is `whsec_` and 24 to 64 bytes in base64: \
                 `echo whsec_$(openssl rand -base64 32)` makes one",
            );
        };
        refused("[]", "names no key");
        refused("['webhook-canary-1']", "the key does not begin with `whsec_`");
        refused("['whsec_canary']", "what follows `whsec_` is not base64");
        refused("['whsec_Y2FuYXJ5']", "the key does not have 24 to 64 bytes");
        hook_and("signature = {}")
            .is_refused("`c.toml`: `sinks.hook.webhook.signature`: `keys` is missing", "");
    }

    #[test]
    fn a_secret_is_accepted_in_a_file_of_the_owner_alone() {
        let key = "whsec_d2ViaG9vay1jYW5hcnktd2ViaG9vay1jYW5hcnk=";
        for (keys, at) in [
            (
                format!("headers = {{ Authorization = '{KEY}', X-Team = 'soc' }}"),
                "headers.Authorization",
            ),
            (format!("signature = {{ keys = ['{key}', '{key}'] }}"), "signature.keys"),
        ] {
            let config = hook_and(&keys).mode("c.toml", 0o600).load().unwrap();
            let shown = format!("{config:?}");
            assert!(!shown.contains("canary") && !shown.contains("d2Vi"), "{shown}");
            hook_and(&keys).is_refused(
                &format!(
                    "`c.toml`: `sinks.hook.webhook.{at}`: \
                     a secret in a file that others can open (mode 0644)"
                ),
                "chmod 600 c.toml, or name a file: `{ file = \"…\" }`",
            );
        }
        assert!(hook_and("headers = { X-Team = 'soc' }").load().is_ok());
    }

    #[test]
    fn no_refusal_shows_a_secret() {
        for keys in [
            format!("headers = {{ Authorization = '{KEY}' }}\nbody = '{KEY}'"),
            format!("signature = {{ keys = ['{KEY}'] }}\nbody = '{KEY}'"),
            format!("headers = {{ Authorization = ['{KEY}'] }}"),
            format!("headers = {{ Authorization = \"{KEY}\\u0007\" }}"),
            format!("headers = {{ X-Team = ['{KEY}'] }}"),
            format!("headers = {{ X-Team = {{ {KEY} = 1 }} }}"),
            format!("headers = '{KEY}'"),
            format!("signature = '{KEY}'"),
            format!("signature = {{ keys = '{KEY}' }}"),
            format!("proxy = 'http://u:{KEY}@p:1'"),
            format!("url = 'ftp://h/?key={KEY}'"),
            format!("url = 'https://{KEY}@h'"),
        ] {
            let home = if keys.starts_with("url") { hook_with(&keys) } else { hook_and(&keys) };
            let error = home.mode("c.toml", 0o600).load().expect_err(&keys);

            let shown = format!("{error} {error:?}");
            assert!(!error.to_string().contains("canary"), "{keys}\n{shown}");
        }
    }

    #[test]
    fn a_route_names_sources_that_are_there() {
        hook_and("route = { sources = ['acme', 'siemferry'] }").load().unwrap();
        hook_and("route = { sources = ['acme', 'amce'] }").is_refused(
            "`c.toml`: `sinks.hook.webhook.route.sources`: names `amce`, which is no source",
            "the sources are `acme`",
        );
        given(format!("{SOURCE}{SINK}route = {{ sources = ['other'] }}")).is_refused(
            "`c.toml`: `sinks.archive.file.route.sources`: names `other`, which is no source",
            "the sources are `acme`",
        );
    }
}

mod files {
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
}

mod secrets {
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
        assert!(
            shown(&open).starts_with(&format!("`{}`", open.path("conf.d/token.toml").display()))
        );
    }

    #[test]
    fn a_secret_may_come_from_the_environment() {
        let home =
            source_with("").variable("SIEMFERRY_SOURCES__ACME__KEEPER__TOKEN", "conf-canary-2");

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
}

mod shipped {
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
        let webhook = sink::webhook::Config {
            url: sink::http::Address::from("https://hook.example.com/in".to_owned()),
            ..sink::webhook::Config::default()
        };
        let expected = Config {
            sources: BTreeMap::from([("acme".into(), source::Config::Keeper(keeper))]),
            sinks: BTreeMap::from([
                ("archive".into(), sink::Config::File(file)),
                ("hook".into(), sink::Config::Webhook(webhook)),
                ("search".into(), sink::Config::Elastic(search)),
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
            "sinks.hook.webhook",
        ];
        for table in tables {
            let section = text.split(&format!("\n#[{table}]\n")).nth(1).expect(table);
            let section = section.split("\n#[").next().unwrap();
            let known = given(format!("[{table}]\nxyzzyxyzzyxyzzy = 1")).refusals().remove(0).1;
            for key in known.split('`').skip(1).step_by(2) {
                let named = section.lines().any(|line| {
                    line.trim_start_matches(['#', ' ']).starts_with(&format!("{key} = "))
                });
                assert!(named, "{table}.{key}");
            }
        }
    }
}
