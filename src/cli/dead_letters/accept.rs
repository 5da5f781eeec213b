//! `siemferry dead-letters accept`: the way out for a sink that is blocked by too many refusals.

use clap::Args;

use super::failed;
use crate::cli::{ConfigPath, Failure, known_sink, print};
use crate::store::{accept, is_in_use, wall_clock};

/// Let what a sink refuses become dead letters, however much it is.
///
/// A sink that refuses too many events is blocked, for it may be the destination that is wrong and
/// not the events. When it is the events, this says so: each of those committed by now that the sink
/// refuses alone becomes a dead letter at once, and the others are delivered. `siemferry dead-letters
/// retry` sends them again once the destination takes them.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigPath,

    /// The sink, as the configuration names it.
    #[arg(long, value_name = "NAME")]
    sink: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let name = &arguments.sink;
    known_sink(&config, name)?;
    let dir = &config.state.dir;
    let accepted = accept::ask(dir, name, wall_clock()).map_err(|err| failed(&err))?;
    let when = if is_in_use(dir) { "from now on" } else { "from the next `run` on" };
    let state = match accepted.state.as_deref() {
        Some("blocked") => String::new(),
        Some(state) => format!("; it is not blocked now, but {state}"),
        None => "; it has not been served yet".into(),
    };
    print(&format!(
        "what sink `{name}` refuses of the events up to {} becomes dead letters, {when}{state}\n",
        accepted.until
    ));
    Ok(())
}
