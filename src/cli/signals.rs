//! SIGINT and SIGTERM: the first ends the work in hand, the second ends the process at once.
//! SIGHUP: every sink opens its file again.

use tokio::sync::watch;

use super::{FAILED, Failure};
use crate::sys;

/// Becomes true when the process is asked to stop.
pub fn stop() -> Result<watch::Receiver<bool>, Failure> {
    let stop = watch::Sender::new(false);
    let asked = stop.subscribe();
    let on_signal = move || {
        if stop.send_replace(true) {
            // Nothing is lost: the store accounts for what was under way.
            std::process::exit(i32::from(FAILED));
        }
    };
    sys::on_stop_signals(on_signal).map_err(|err| failed(&err))?;
    Ok(asked)
}

/// Changes whenever the sinks are asked to open their files again.
pub fn reopen() -> Result<watch::Receiver<()>, Failure> {
    let reopen = watch::Sender::new(());
    let asked = reopen.subscribe();
    sys::on_reopen_signal(move || reopen.send_replace(())).map_err(|err| failed(&err))?;
    Ok(asked)
}

fn failed(err: &std::io::Error) -> Failure {
    Failure::new(FAILED, format!("listen for signals: {err}"), None)
}
