//! `siemferry check`: looks at everything the daemon will need, and changes nothing.
//!
//! Takes no lock and makes no file, so that it works beside a running daemon. All checks are made,
//! whichever fail; none is made without a configuration.

use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;

use super::{CONFIGURATION, ConfigPath, FAILED, Failure, print, runtime};
use crate::config::{self, Config};
use crate::daemon::SourceParts;
use crate::event::Millis;
use crate::log::{chain, escape};
use crate::position::Window;
use crate::sink::DeliveryError;
use crate::source::rest::SetupError;
use crate::source::{FetchError, Page, Source};
use crate::store::{inspect, wall_clock};
use crate::units::Bytes;
use crate::{secret, sink, source, sys};

/// With less room than this the disk of a sink is as good as full.
const LEAST_SPACE: Bytes = Bytes::mebibytes(64);

/// The second asked for is so long ago, in seconds: what happened in it is there to be read.
const AGO: i64 = 60;

/// A clock may be so far off before somebody is told, and before it fails the check.
const OFF: Millis = 5_000;
const ABSURD: Millis = 86_400_000;

/// Say what would keep the daemon from working, and what to do about it.
///
/// Checks the configuration, the secrets, the state directory, the disks and what each sink writes
/// to. Takes no lock, makes no file and stores nothing: it may be run at any time, beside a running
/// daemon too. Run it as the user that runs the daemon, for root may read and write everything.
///
/// Exits with 2 when the configuration must be mended, or a file or directory that it names; with 1
/// when a disk is short or something that was asked with --online failed; else with 0.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigPath,

    /// Also ask each source for one second of events, which are not stored, and open each sink,
    /// without writing.
    #[arg(long)]
    online: bool,

    /// Print JSON, for other programs: `{"ok":…,"checks":[{"what":…,"ok":…,"text":…,"hint":…}]}`.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = runtime()?;
    // The HTTP clients look for the runtime they belong to.
    let _guard = runtime.enter();
    let mut report = Report { json: arguments.json, code: 0, checks: Vec::new() };
    match config::load(&arguments.config.config) {
        Ok(config) => {
            let (sources, sinks) = (config.sources.len(), config.sinks.len());
            let text = format!("{} and {}", many(sources, "source"), many(sinks, "sink"));
            report.ok("configuration", &text);
            let checks = async {
                state(&mut report, &config);
                for (name, source) in &config.sources {
                    check_source(&mut report, name, source, &config, arguments.online).await;
                }
                for (name, sink) in &config.sinks {
                    check_sink(&mut report, name, sink, arguments.online).await;
                }
            };
            runtime.block_on(checks);
        }
        Err(err) => {
            for problem in err.problems() {
                let hint = problem.hint.as_deref();
                report.failed(CONFIGURATION, "configuration", &problem.to_string(), hint);
            }
        }
    }
    report.end()
}

/// One thing that was looked at.
#[derive(Serialize)]
struct Check {
    what: String,
    ok: bool,
    text: String,
    hint: Option<String>,
}

/// What was found. As text, each line is printed as soon as it is known.
struct Report {
    json: bool,
    code: u8,
    checks: Vec<Check>,
}

impl Report {
    fn ok(&mut self, what: &str, text: &str) {
        self.add(what, true, text, None);
    }

    /// Nothing fails by it, but somebody should know.
    fn noted(&mut self, what: &str, text: &str, hint: &str) {
        self.add(what, true, text, Some(hint));
    }

    fn failed(&mut self, code: u8, what: &str, text: &str, hint: Option<&str>) {
        self.code = self.code.max(code);
        self.add(what, false, text, hint);
    }

    fn add(&mut self, what: &str, ok: bool, text: &str, hint: Option<&str>) {
        let harmless = |text: &str| escape(&secret::redact(text));
        let hint = hint.map(harmless);
        let check = Check { what: harmless(what), ok, text: harmless(text), hint };
        if !self.json {
            print(&check.line());
        }
        self.checks.push(check);
    }

    fn end(self) -> Result<(), Failure> {
        if self.json {
            let report = serde_json::json!({ "ok": self.code == 0, "checks": self.checks });
            print(&format!("{report}\n"));
        }
        // All was said: on stdout, where a check's answer belongs.
        if self.code == 0 { Ok(()) } else { Err(Failure { code: self.code, said: Vec::new() }) }
    }
}

impl Check {
    fn line(&self) -> String {
        let word = if self.ok { "ok    " } else { "failed" };
        let hint = self.hint.as_ref().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        format!("{word}  {}: {}\n{hint}", self.what, self.text)
    }
}

fn state(report: &mut Report, config: &Config) {
    let dir = &config.state.dir;
    match inspect::examine(dir) {
        Ok(found) => {
            let store = if found.has_store { "holds a store" } else { "will hold a new store" };
            let user =
                found.holder.map_or("not in use".into(), |holder| format!("in use by {holder}"));
            let text = format!("`{}` {store}, {user}", dir.display());
            match found.owner {
                Some(owner) if owner != sys::effective_user() => report.noted(
                    "state",
                    &format!("{text}; it belongs to user {owner}"),
                    &format!("to be sure that the daemon can use everything, ask as its user: `sudo -u '#{owner}' siemferry check`"),
                ),
                _ => report.ok("state", &text),
            }
        }
        Err(err) => {
            report.failed(CONFIGURATION, "state", &err.to_string(), err.hint().as_deref());
        }
    }
    disk(report, "disk of the state", dir, config.spool.reserve);
}

fn disk(report: &mut Report, what: &str, path: &Path, least: Bytes) {
    let at = sys::existing(path);
    match sys::free_bytes(at) {
        Ok(free) if free < least.get() => report.failed(
            FAILED,
            what,
            &format!("{} free on the file system of `{}`", size(free), at.display()),
            Some("free some space: on a full disk nothing is lost, and nothing goes on"),
        ),
        Ok(free) => report.ok(what, &format!("{} free", size(free))),
        Err(err) if err.kind() == ErrorKind::Unsupported => {}
        Err(err) => {
            let text = format!("ask how much is free at `{}`: {err}", at.display());
            report.failed(CONFIGURATION, what, &text, None);
        }
    }
}

fn size(bytes: u64) -> String {
    match bytes >> 20 {
        mebibytes @ 0..10_240 => format!("{mebibytes} MiB"),
        mebibytes => format!("{} GiB", mebibytes >> 10),
    }
}

async fn check_source(
    report: &mut Report,
    name: &str,
    config: &source::Config,
    all: &Config,
    online: bool,
) {
    let (what, secret) = (format!("source `{name}`"), format!("secret of source `{name}`"));
    let parts = match SourceParts::new(name, config.rest(), config.preset(), all.seen.keep) {
        Ok(parts) => parts,
        Err(err) => return not_set_up(report, name, config, &err, online),
    };
    report.ok(&secret, "it can be read");
    if online {
        ask(report, name, &*parts.source).await;
    } else {
        report.ok(&what, &format!("reads {}", parts.source.place()));
    }
}

/// A source that could not be set up for its settings, or for its secret.
fn not_set_up(
    report: &mut Report,
    name: &str,
    config: &source::Config,
    err: &anyhow::Error,
    online: bool,
) {
    let (what, secret) = (format!("source `{name}`"), format!("secret of source `{name}`"));
    let setup = err.downcast_ref::<SetupError>();
    let (text, hint) = (chain(err.as_ref()), setup.and_then(SetupError::hint));
    let is_of_unit = config.secret().is_some_and(secret::Config::is_out_of_reach);
    if !matches!(setup, Some(SetupError::Secret(_))) {
        match config.secret().map(secret::Config::read) {
            Some(Err(err)) if !is_of_unit => {
                report.failed(CONFIGURATION, &secret, &err.to_string(), Some(&err.hint()));
            }
            _ => {}
        }
        return report.failed(CONFIGURATION, &what, &text, hint.as_deref());
    }
    if is_of_unit {
        let hint = "to check it as well: `systemd-run --pipe --property=LoadCredential=<name>:<file> siemferry check`, as the unit has it";
        report.noted(&secret, &format!("not checked: {text}; only the unit has it"), hint);
    } else {
        report.failed(CONFIGURATION, &secret, &text, hint.as_deref());
    }
    if online {
        let hint = "the source can be asked as soon as its secret can be read";
        report.failed(FAILED, &what, "not asked: there is no secret to ask with", Some(hint));
    }
}

/// Asks for one second, the way the daemon does.
async fn ask(report: &mut Report, name: &str, source: &dyn Source) {
    let what = format!("source `{name}`");
    let end = wall_clock().div_euclid(1000) - AGO;
    let response = match source.fetch(Window { start: end - 1, end }, None).await {
        Ok(response) => response,
        Err(err) => return refused(report, &what, &err),
    };
    let skew = response.date.map(|date| date - wall_clock());
    match source.split(&response) {
        Ok(page) => report.ok(&what, &format!("{} gives {}", source.place(), held(&page))),
        Err(err) => refused(report, &what, &err),
    }
    clock(report, &format!("clock beside source `{name}`"), skew);
}

fn refused(report: &mut Report, what: &str, err: &FetchError) {
    let (text, hint) = err.told();
    let by_default = match err {
        FetchError::Violation { .. } => {
            "check that `base_url` or `region` names the API, and that nothing in between answers in its place"
        }
        FetchError::TooMuch { .. } => {
            "even one second is too much: raise `timeout`, or ask the API's operator"
        }
        _ => "ask again later: the daemon does so by itself",
    };
    report.failed(FAILED, what, &text, Some(hint.as_deref().unwrap_or(by_default)));
}

fn held(page: &Page) -> String {
    let more = if page.next.is_some() { " and more" } else { "" };
    let bad = match page.bad.len() {
        0 => String::new(),
        bad => format!(", {} that cannot be read", many(bad, "record")),
    };
    format!("{}{more}{bad} around one second", many(page.records.len(), "event"))
}

/// Tells how far the server's clock is ahead of ours.
fn clock(report: &mut Report, what: &str, skew: Option<Millis>) {
    let Some(skew) = skew else {
        let hint = "this machine's clock must be right: run a time service, such as chrony";
        return report.noted(what, "the server tells no time", hint);
    };
    let side = if skew > 0 { "behind" } else { "ahead of" };
    let text = format!("this machine's clock is {} s {side} the server's", skew.abs() / 1000);
    match skew.abs() {
        off if off <= OFF => report.ok(what, "right within 5 s"),
        off if off <= ABSURD => {
            let hint = "nothing is lost by it, for the server's clock counts; `received` and the log tell this machine's: run a time service, such as chrony";
            report.noted(what, &text, hint);
        }
        _ => {
            let hint = "set the one that is wrong: a server that tells a time of the future has its events read only when that time has come";
            report.failed(FAILED, what, &text, Some(hint));
        }
    }
}

async fn check_sink(report: &mut Report, name: &str, config: &sink::Config, online: bool) {
    let what = format!("sink `{name}`");
    let (code, found) = match config.examine() {
        Ok(_) if online => (FAILED, config.build().probe().await),
        found => (CONFIGURATION, found),
    };
    match found {
        Ok(text) => report.ok(&what, &text),
        Err(DeliveryError::Blocked { source, hint, .. }) => {
            report.failed(code, &what, &source.to_string(), hint.as_deref());
        }
        Err(DeliveryError::Refused { reason, .. }) => {
            report.failed(FAILED, &what, &reason, None);
        }
        Err(DeliveryError::Retry { source, .. }) => {
            let hint = "ask again later: the daemon does so by itself";
            report.failed(FAILED, &what, &source.to_string(), Some(hint));
        }
    }
    if let Some(path) = config.path() {
        disk(report, &format!("disk of sink `{name}`"), path, LEAST_SPACE);
    }
}

fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
