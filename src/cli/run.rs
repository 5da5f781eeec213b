//! `siemferry run`: the daemon.

use super::{CONFIGURATION, ConfigPath, FAILED, Failure, runtime, signals};
use crate::daemon::{Daemon, Mode, Outcome};
use crate::log;
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
    let daemon = {
        // The HTTP clients look for the runtime they belong to.
        let _guard = runtime.enter();
        Daemon::new(&config).map_err(|err| Failure::of(CONFIGURATION, &err))?
    };
    let mode =
        if arguments.once { Mode::Once(arguments.patience.duration()) } else { Mode::Forever };
    let ended = runtime.block_on(daemon.reopen_when(reopen).run(mode, stop));
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
