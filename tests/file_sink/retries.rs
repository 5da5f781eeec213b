//! A write that fails half-way, by a limit on the size of files: it needs a process of its own.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use siemferry::encode::Format;
use siemferry::sink::DeliveryError;

use super::pen::{Pen, records};

const EVENTS: usize = 4;

/// Runs one test of this binary with an umask, where too large a file is an error and no signal.
pub fn in_a_process_of_its_own(test: &str, umask: &str) {
    let output = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; umask "$0"; exec "$@""#, umask])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
        .env("RIG_CHILD", "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let (passed, stderr) = (told.contains("1 passed"), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && passed, "{told}{stderr}");
}

/// Lets no file grow beyond so many bytes.
pub fn limit(resource: Resource, most: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: most.or(maximum), maximum }).unwrap();
}

/// One event is settled; of the others only so many bytes come into the file before it is full.
async fn full_after(bytes: u64) -> Pen {
    let mut pen = Pen::new(Format::Json, records(EVENTS)).await;
    pen.deliver(1).await.unwrap();
    limit(Resource::Fsize, Some(pen.read().len() as u64 + bytes));
    let failed = pen.deliver_unsettled(EVENTS).await;
    limit(Resource::Fsize, None);
    assert!(matches!(failed, Err(DeliveryError::Retry { .. })), "after {bytes} bytes: {failed:?}");
    pen
}

async fn length_of_the_others() -> u64 {
    let pen = Pen::new(Format::Json, records(EVENTS)).await;
    (pen.batch(EVENTS).bytes.len() - pen.batch(1).bytes.len()) as u64
}

pub fn is_child() -> bool {
    std::env::var_os("RIG_CHILD").is_some()
}

#[test]
fn a_write_that_failed_half_way_is_gone_on_with() {
    in_a_process_of_its_own("file_sink::retries::child_goes_on", "022");
}

#[tokio::test]
#[ignore = "is started by the test above, for it limits the size of files"]
async fn child_goes_on() {
    if !is_child() {
        return;
    }
    for bytes in 0..length_of_the_others().await {
        let mut pen = full_after(bytes).await;
        let found = pen.read();
        // It fails again, further on or at once.
        limit(Resource::Fsize, Some(found.len() as u64 + bytes % 7));
        let again = pen.deliver_unsettled(EVENTS).await;
        limit(Resource::Fsize, None);
        if again.is_err() {
            pen.deliver(EVENTS).await.unwrap();
        }

        let file = pen.read();
        let whole = found.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        assert!(file.starts_with(&found[..whole]), "a whole line has vanished");
        pen.assert_each_once(&[&file], &format!("full after {bytes} bytes"));
        assert_eq!(file.split(|byte| *byte == b'\n').count() - 1, EVENTS);
    }
}

#[test]
fn a_file_that_is_moved_away_full_keeps_its_whole_lines_and_no_line_comes_twice() {
    in_a_process_of_its_own("file_sink::retries::child_finds_its_full_file_moved", "022");
}

#[tokio::test]
#[ignore = "is started by the test above, for it limits the size of files"]
async fn child_finds_its_full_file_moved() {
    if !is_child() {
        return;
    }
    for bytes in (0..length_of_the_others().await).step_by(3) {
        for also_crashes in [false, true] {
            let mut pen = full_after(bytes).await;
            let moved = pen.sibling("events.ndjson.1");
            std::fs::rename(pen.path(), &moved).unwrap();
            // Asked to open it again, the sink must not forget what it has written.
            pen.sink.reopen().await;
            if also_crashes {
                pen.crash();
                pen.start().await.unwrap();
                pen.deliver_rest().await;
            } else {
                // The new file is full as well, at first.
                limit(Resource::Fsize, Some(bytes / 2));
                let again = pen.deliver_unsettled(EVENTS).await;
                limit(Resource::Fsize, None);
                if again.is_err() {
                    pen.deliver(EVENTS).await.unwrap();
                }
            }

            let files = [std::fs::read(&moved).unwrap(), pen.read()];
            let context = format!("full after {bytes} bytes, crash: {also_crashes}");
            pen.assert_each_once(&[&files[0], &files[1]], &context);
            assert!(files.iter().all(|file| file.is_empty() || file.ends_with(b"\n")), "{context}");
        }
    }
}

#[test]
fn a_full_file_that_is_deleted_takes_nothing_with_it_that_was_not_settled() {
    in_a_process_of_its_own("file_sink::retries::child_finds_its_full_file_deleted", "022");
}

#[tokio::test]
#[ignore = "is started by the test above, for it limits the size of files"]
async fn child_finds_its_full_file_deleted() {
    if !is_child() {
        return;
    }
    for bytes in (0..length_of_the_others().await).step_by(20) {
        let mut pen = full_after(bytes).await;
        std::fs::remove_file(pen.path()).unwrap();
        pen.deliver(EVENTS).await.unwrap();

        let expected = format!("{}\n", pen.expected(Format::Json)[1..].join("\n"));
        assert_eq!(String::from_utf8(pen.read()).unwrap(), expected);
    }
}

#[test]
fn a_lack_of_file_handles_makes_no_line_come_twice() {
    in_a_process_of_its_own("file_sink::retries::child_lacks_handles", "022");
}

#[tokio::test]
#[ignore = "is started by the test above, for it limits the number of open files"]
async fn child_lacks_handles() {
    if !is_child() {
        return;
    }
    for bytes in (0..length_of_the_others().await).step_by(7) {
        let mut pen = full_after(bytes).await;
        limit(Resource::Nofile, Some(3));
        let failed = pen.deliver_unsettled(EVENTS).await;
        limit(Resource::Nofile, None);
        assert!(failed.is_err() || bytes == 0, "after {bytes} bytes");
        if failed.is_err() {
            pen.deliver(EVENTS).await.unwrap();
        }

        pen.assert_each_once(&[&pen.read()], &format!("full after {bytes} bytes"));
    }
}
