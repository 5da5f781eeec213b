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

mod keys;

mod values;

mod elastic;

mod webhook;

mod files;

mod secrets;

mod sentinel;

mod splunk;
mod syslog;

mod shipped;
