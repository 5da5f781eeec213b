//! `siemferry run`: the daemon.

use super::{CONFIGURATION, ConfigPath, FAILED, Failure, runtime, signals};
use crate::daemon::{self, Daemon, Mode, Outcome};
use crate::log;
use crate::store;
use crate::units::Span;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigPath,

    /// Read every source up to now, deliver everything, and end.
    #[arg(long)]
    once: bool,

    /// With --once: give up when nothing has moved for so long.
    #[arg(long, value_name = "SPAN", default_value = "5m", requires = "once")]
    patience: Span,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    log::init(&config.log);
    let (stop, reopen) = (signals::stop()?, signals::reopen()?);
    let runtime = runtime()?;
    let mode =
        if arguments.once { Mode::Once(arguments.patience.duration()) } else { Mode::Forever };
    let opened = runtime.block_on(Daemon::when_there_is_room(&config, mode, stop.clone()));
    let ended = match opened.map_err(|err| not_opened(&err))? {
        Some(daemon) => runtime.block_on(daemon.reopen_when(reopen).run(mode, stop)),
        None => Ok(daemon::stopped(mode)),
    };
    // A task that hangs must not hold up the exit: the grace is over.
    runtime.shutdown_background();
    match ended {
        Ok(Outcome::Done) => Ok(()),
        Ok(Outcome::Waiting(waiting)) => {
            let said = waiting.into_iter().map(|waiting| (waiting.text, waiting.hint)).collect();
            Err(Failure { code: FAILED, said })
        }
        Err(err) => Err(Failure::of(FAILED, &err)),
    }
}

/// A disk that is full or broken is no fault of the configuration.
fn not_opened(err: &anyhow::Error) -> Failure {
    let may_pass = err.downcast_ref::<store::Error>().is_some_and(store::Error::may_pass);
    Failure::of(if may_pass { FAILED } else { CONFIGURATION }, err)
}
