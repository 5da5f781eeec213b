//! `siemferry send-test`: one marked event, all the way to one sink.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;

use super::{ConfigPath, FAILED, Failure, known_sink, print, runtime, status};
use crate::config::Config;
use crate::daemon::{self, Trial};
use crate::event::{Event, OWN_API, Uid};
use crate::own;
use crate::store;
use crate::store::trial::{self, Fate};
use crate::units::Span;

/// Send one marked event to a sink, and say whether it has arrived.
///
/// The event is one of siemferry's own, of type `test`; it says who has sent it, from where and
/// when. Beside a running daemon it takes the way of all events, behind those that wait for the
/// sink. Without one, the sink is served here until nothing waits for it: whatever waits is
/// delivered as well; ask as the user that runs siemferry then, for files may be made. It works when
/// `own_events` are switched off, too.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigPath,

    /// The sink, as the configuration names it.
    sink: String,

    /// Give up waiting after so long; the event then stays in the spool.
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    patience: Span,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    let name = &arguments.sink;
    let route = known_sink(&config, name)?.delivery().route;
    let event = own::test(name);
    let (uid, raw) = (Uid([0; 16]), event.record(""));
    let like = Event {
        seq: 0,
        uid,
        time: None,
        event_type: Some(event.kind()),
        raw: &raw,
        source: OWN_API,
        api: OWN_API,
        received: 0,
    };
    if !route.takes(&like) {
        let text = format!("send a test to sink `{name}`: its route excludes the type `test`");
        let hint = "change `exclude` of the sink's `route`".to_owned();
        return Err(Failure::new(FAILED, text, Some(hint)));
    }
    let patience = arguments.patience.duration();
    let trial = if store::is_in_use(&config.state.dir) {
        beside(&config.state.dir, name, &event, patience)
    } else {
        alone(&config, name, event, patience)
    }?;
    tell(name, trial)
}

/// Leaves it to the daemon, and watches.
fn beside(
    dir: &Path,
    name: &str,
    event: &own::OwnEvent,
    patience: Duration,
) -> Result<Trial, Failure> {
    const EVERY: Duration = Duration::from_millis(100);
    let failed = |err: store::Error| {
        let hint = match err {
            store::Error::Unknown { .. } => {
                Some("the daemon was started without this sink: restart it".to_owned())
            }
            _ => status::hint(&err),
        };
        Failure::new(FAILED, format!("send a test to sink `{name}`: {err}"), hint)
    };
    let (begun, trial) = (Instant::now(), trial::Trial::begin(dir, name, event).map_err(failed)?);
    loop {
        let fate = trial.fate().map_err(failed)?;
        if let Some(ended) = ended(fate, begun.elapsed() >= patience) {
            return Ok(ended);
        }
        std::thread::sleep(EVERY);
    }
}

/// None while it may still arrive.
fn ended(fate: Fate, is_late: bool) -> Option<Trial> {
    match fate {
        Fate { refused: Some(reason), .. } => Some(Trial::Refused { reason }),
        Fate { is_settled: true, .. } => Some(Trial::Delivered { others: None }),
        Fate { state, error, pending, .. } if state == "blocked" => {
            let error = error.unwrap_or_else(|| "the log tells why".into());
            let hint = "`siemferry check --online` and the daemon's log say what to do; it stays in the spool".into();
            Some(Trial::Blocked { error, hint: Some(hint), pending })
        }
        Fate { error, pending, .. } if is_late => Some(Trial::Waiting { error, pending }),
        _ => None,
    }
}

/// Serves the sink here.
fn alone(
    config: &Config,
    name: &str,
    event: own::OwnEvent,
    patience: Duration,
) -> Result<Trial, Failure> {
    let runtime = runtime()?;
    let tried = runtime.block_on(daemon::try_sink(config, name, event, patience));
    runtime.shutdown_background();
    tried.map_err(|err| Failure::of(FAILED, &err.context(format!("send a test to sink `{name}`"))))
}

fn tell(name: &str, trial: Trial) -> Result<(), Failure> {
    let what = format!("send a test to sink `{name}`");
    let later = "it stays in the spool, and is delivered when the sink takes it";
    let (text, hint) = match trial {
        Trial::Delivered { others: None | Some(0) } => {
            print(&format!("sink `{name}` has taken the test event\n"));
            return Ok(());
        }
        Trial::Delivered { others: Some(others) } => {
            print(&format!(
                "sink `{name}` has taken the test event, and {others} events that waited for it\n"
            ));
            return Ok(());
        }
        Trial::Refused { reason } => (
            format!("{what}: it is refused for good: {reason}"),
            Some("it is a dead letter: `siemferry dead-letters list` shows it".to_owned()),
        ),
        Trial::Blocked { error, hint, .. } => {
            (format!("{what}: the sink is blocked: {error}"), hint.or(Some(later.into())))
        }
        Trial::Waiting { error, pending } => {
            let error = error.map(|error| format!("; its last error: {error}")).unwrap_or_default();
            let text = format!("{what}: it has not arrived in time, {pending} events wait{error}");
            (text, Some(format!("{later}; or wait longer with `--patience`")))
        }
    };
    Err(Failure::new(FAILED, text, hint))
}
