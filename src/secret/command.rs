//! Reads a secret from what a command prints.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Error;
use super::file::MAX_BYTES;

/// How long a command may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Runs a command and takes what it prints; its error output is dropped, as it may hold the secret.
pub fn read(words: &[String], limit: Duration) -> Result<String, Error> {
    let failed = |why: String| Error::Command { program: program(words).to_owned(), why };
    let deadline = Instant::now() + limit;
    let mut child = Command::new(program(words))
        .args(words.iter().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let printed = output(&mut child, deadline);
    let status = exit(&mut child, deadline).map_err(|error| failed(error.to_string()))?;
    match (status, printed) {
        (None, _) | (_, None) => Err(failed(format!("no answer within {}s", limit.as_secs_f32()))),
        // Before its status, as the pipe that was closed on it made it fail.
        (_, Some(value)) if value.len() as u64 > MAX_BYTES => {
            Err(failed("it prints more than 64 KiB".to_owned()))
        }
        (Some(status), _) if !status.success() => Err(failed(status.to_string())),
        (_, Some(value)) => {
            String::from_utf8(value).map_err(|_| failed("it does not print UTF-8".to_owned()))
        }
    }
}

/// The program, without its arguments.
pub fn program(words: &[String]) -> &str {
    words.first().map_or("", String::as_str)
}

/// What the child prints until it closes its output; none after the deadline.
fn output(child: &mut Child, deadline: Instant) -> Option<Vec<u8>> {
    let stdout = child.stdout.take().expect("the output is piped");
    let (sender, receiver) = mpsc::channel();
    // A thread of its own, as a pipe cannot be read with a time limit. It ends with the child.
    std::thread::spawn(move || {
        let mut value = Vec::new();
        if stdout.take(MAX_BYTES + 1).read_to_end(&mut value).is_ok() {
            // Nobody listens any more after the deadline.
            let _ = sender.send(value);
        }
    });
    receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

/// How the child ends; one that has not by the deadline is killed.
fn exit(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
