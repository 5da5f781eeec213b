//! The command line: one file per verb. stdout is data, stderr is logs and errors.
//!
//! Exit codes: 0 done, 1 failed while running, 2 usage or configuration.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config};
use crate::log::{chain, escape};
use crate::source::rest::SetupError;
use crate::{secret, sink, store};

mod backfill;
mod check;
mod dead_letters;
mod demo;
mod forget;
mod replay;
mod run;
mod send_test;
mod signals;
mod status;

/// Carries every audit event from SaaS APIs to the SIEM, and loses none.
///
/// Begin with `siemferry demo`: it needs no account, no configuration and no network.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Forward events until stopped, or once.
    Run(run::Arguments),
    /// Show it at work: a simulated Keeper API, the real pipeline, a file with the events.
    Demo(demo::Arguments),
    Check(check::Arguments),
    /// Show how far every source and sink has come, beside the daemon or without it.
    Status(status::Arguments),
    Backfill(backfill::Arguments),
    DeadLetters(dead_letters::Arguments),
    Replay(replay::Arguments),
    SendTest(send_test::Arguments),
    Forget(forget::Arguments),
}

#[derive(Args)]
struct ConfigPath {
    /// The configuration; files in `conf.d` beside it and `SIEMFERRY_…` variables add to it.
    #[arg(long, value_name = "FILE", default_value = "/etc/siemferry/siemferry.toml")]
    config: PathBuf,
}

impl ConfigPath {
    fn load(&self) -> Result<Config, Failure> {
        config::load(&self.config).map_err(|err| {
            let problems = err.problems().iter();
            let said = problems.map(|problem| (problem.to_string(), problem.hint.clone()));
            Failure { code: CONFIGURATION, said: said.collect() }
        })
    }
}

const FAILED: u8 = 1;
const CONFIGURATION: u8 = 2;

/// Why a verb did not do what was asked, and what to do about it.
#[derive(Debug)]
struct Failure {
    code: u8,
    said: Vec<(String, Option<String>)>,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>, hint: Option<String>) -> Self {
        Self { code, said: vec![(text.into(), hint)] }
    }

    /// Finds the hint in whatever lies below the error.
    fn of(code: u8, err: &anyhow::Error) -> Self {
        let store = || err.chain().find_map(|cause| cause.downcast_ref::<store::Error>()?.hint());
        let setup = || err.chain().find_map(|cause| cause.downcast_ref::<SetupError>()?.hint());
        Self::new(code, chain(err.as_ref()), store().or_else(setup))
    }

    fn tell(&self) {
        let mut stderr = std::io::stderr().lock();
        for (text, hint) in &self.said {
            let line = |label: &str, text: &str| {
                // Its line breaks as well: a server's text could pass for an error of ours.
                format!("{label}: {}\n", escape(&secret::redact(text)))
            };
            let hint = hint.as_ref().map(|hint| line("hint", hint)).unwrap_or_default();
            // There is no other place to complain to.
            let _ = write!(stderr, "{}{hint}", line("error", text));
        }
    }
}

/// Runs the verb of the command line.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Status(arguments) => status::run(&arguments),
        Verb::Backfill(arguments) => backfill::run(&arguments),
        Verb::DeadLetters(arguments) => dead_letters::run(&arguments),
        Verb::Replay(arguments) => replay::run(&arguments),
        Verb::SendTest(arguments) => send_test::run(&arguments),
        Verb::Forget(arguments) => forget::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.code)
        }
    }
}

/// Prints data. A reader that has gone, such as `head`, is no error.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// The configured sink of this name.
fn known_sink<'a>(config: &'a Config, name: &str) -> Result<&'a sink::Config, Failure> {
    config.sinks.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
        let hint = format!("the sinks are `{}`", known.join("`, `"));
        let text = format!("find sink `{name}`: there is none of this name");
        Failure::new(CONFIGURATION, text, Some(hint))
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|err| Failure::new(FAILED, format!("start threads: {err}"), None))
}
