//! `siemferry forget`: removes what the store remembers of a source or sink that is gone.

use clap::{Args, Subcommand};

use super::{CONFIGURATION, ConfigPath, FAILED, Failure, print, status};
use crate::log::escape;
use crate::store;
use crate::store::forget::Forgetter;

/// Remove what the store remembers of a source or sink that is no longer configured.
///
/// A sink that is taken out of the configuration holds up nothing, and neither does a source; they
/// are listed by `status` until they are forgotten. When they come back they go on where they stood,
/// a sink with what the spool still keeps.
/// The daemon must not be running.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Forget a source: how far it was read, and what was read of it. Read again later, it begins at `start`, and its
    /// events are delivered again with the same uids.
    ///
    /// Events in the spool and records that could not be read stay.
    Source(Source),
    /// Forget a sink: how far it was served, its dead letters and the events that wait for it.
    Sink(Sink),
}

#[derive(Args)]
struct Source {
    #[command(flatten)]
    config: ConfigPath,

    /// Its name, as `status` shows it.
    name: String,
}

#[derive(Args)]
struct Sink {
    #[command(flatten)]
    config: ConfigPath,

    /// Its name, as `status` shows it.
    name: String,

    /// Agree that undelivered events and dead letters go with it.
    #[arg(long)]
    yes: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.what {
        What::Source(arguments) => source(arguments),
        What::Sink(arguments) => sink(arguments),
    }
}

fn source(arguments: &Source) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let name = &arguments.name;
    if config.sources.contains_key(name) {
        return Err(configured("source", name));
    }
    let store = open(&config.state.dir)?;
    let known = store.sources().map_err(|err| failed(&err))?;
    refuse_unknown("source", name, &known)?;
    store.source(name).map_err(|err| failed(&err))?;
    print(&format!("source `{name}` is forgotten\n"));
    Ok(())
}

fn sink(arguments: &Sink) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let name = &arguments.name;
    if config.sinks.contains_key(name) {
        return Err(configured("sink", name));
    }
    let store = open(&config.state.dir)?;
    let Some(lost) = store.lost_with(name).map_err(|err| failed(&err))? else {
        return refuse_unknown("sink", name, &store.sinks().map_err(|err| failed(&err))?);
    };
    let with_it = format!(
        "{} events that were not delivered and {} dead letters",
        lost.pending, lost.dead_letters
    );
    if !lost.is_nothing() && !arguments.yes {
        let text = format!("forget sink `{name}`: {with_it} would be lost with it");
        let hint = "add `--yes` if nobody needs them, or put the sink back into the configuration";
        return Err(Failure::new(CONFIGURATION, text, Some(hint.into())));
    }
    store.sink(name).map_err(|err| failed(&err))?;
    print(&format!("sink `{name}` is forgotten, and with it {with_it}\n"));
    Ok(())
}

fn open(dir: &std::path::Path) -> Result<Forgetter, Failure> {
    Forgetter::open(dir).map_err(|err| {
        let hint = match err {
            store::Error::InUse { .. } => {
                Some("stop the daemon first, and start it again afterwards".to_owned())
            }
            _ => status::hint(&err),
        };
        Failure::new(FAILED, err.to_string(), hint)
    })
}

fn configured(what: &str, name: &str) -> Failure {
    let text = format!("forget {what} `{name}`: it is configured");
    let hint = format!("take the {what} out of the configuration first");
    Failure::new(CONFIGURATION, text, Some(hint))
}

fn refuse_unknown(what: &str, name: &str, known: &[String]) -> Result<(), Failure> {
    if known.iter().any(|known| known == name) {
        return Ok(());
    }
    let hint = match known {
        [] => format!("it knows no {what}"),
        known => format!("it knows `{}`", known.join("`, `")),
    };
    let text = format!("forget {what} `{}`: the store does not know it", escape(name));
    Err(Failure::new(CONFIGURATION, text, Some(hint)))
}

fn failed(err: &store::Error) -> Failure {
    Failure::new(FAILED, err.to_string(), status::hint(err))
}
