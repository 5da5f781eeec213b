use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use siemferry::encode::Format;
use siemferry::sim::{Clock, Options, SimEvent};
use siemferry::sink::DeliveryError;

use super::pen::{Pen, records, sink};
use super::retries::in_a_process_of_its_own;
use crate::rig::{Home, Sim};

async fn refusal(pen: &mut Pen) -> String {
    match pen.start().await {
        Err(DeliveryError::Blocked { source, hint: Some(_), .. }) => source.to_string(),
        other => panic!("not blocked with a hint: {other:?}"),
    }
}

#[tokio::test]
async fn only_a_regular_file_is_written_to() {
    let mut pen = Pen::closed(Format::Json, records(1));
    let path = pen.path();
    std::fs::write(pen.sibling("target"), "").unwrap();

    std::os::unix::fs::symlink(pen.sibling("target"), &path).unwrap();
    assert!(refusal(&mut pen).await.ends_with("it is a symbolic link, not a regular file"));
    std::fs::remove_file(&path).unwrap();

    std::os::unix::fs::symlink(pen.sibling("nowhere"), &path).unwrap();
    assert!(refusal(&mut pen).await.ends_with("it is a symbolic link, not a regular file"));
    assert!(!pen.sibling("nowhere").exists());
    std::fs::remove_file(&path).unwrap();

    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(
        refusal(&mut pen).await.ends_with("it is a FIFO, socket or device, not a regular file")
    );
    std::fs::remove_file(&path).unwrap();

    std::fs::create_dir(&path).unwrap();
    assert!(refusal(&mut pen).await.ends_with("it is a directory, not a regular file"));
    std::fs::remove_dir(&path).unwrap();

    pen.sink = sink("/dev/null".into(), Format::Json);
    assert!(refusal(&mut pen).await.contains("it is a FIFO, socket or device"));
    pen.crash();
    pen.start().await.expect("and a file it is");
}

#[tokio::test]
async fn a_directory_that_anybody_may_write_to_is_refused_until_it_is_closed() {
    let mut pen = Pen::closed(Format::Json, records(1));
    let set_mode = |mode| std::fs::set_permissions(pen.dir.path(), Permissions::from_mode(mode));
    for open_to_all in [0o777, 0o1777] {
        set_mode(open_to_all).unwrap();
        let mut other = Pen::closed(Format::Json, records(1));
        other.sink = sink(pen.path(), Format::Json);
        assert!(refusal(&mut other).await.ends_with("other users may write to its directory"));
    }
    assert!(!pen.path().exists());

    set_mode(0o770).unwrap();
    pen.start().await.unwrap();
    pen.deliver_rest().await;
    assert!(!pen.read().is_empty());
}

#[tokio::test]
async fn two_writers_of_one_file_are_one_too_many() {
    let mut first = Pen::new(Format::Json, records(2)).await;
    let mut second = Pen::closed(Format::Json, records(2));
    second.sink = sink(first.path(), Format::Json);

    assert!(
        refusal(&mut second)
            .await
            .ends_with("another program, such as a second siemferry, has locked it")
    );
    first.deliver(2).await.unwrap();

    first.crash();
    second.start().await.expect("the lock goes with its holder");
}

#[tokio::test]
async fn what_others_left_in_the_file_stays_in_front_even_without_an_end() {
    for theirs in ["", "whole\n", "without an end", "\n"] {
        let mut pen = Pen::closed(Format::Json, records(2));
        std::fs::write(pen.path(), theirs).unwrap();

        assert_eq!(pen.start().await.unwrap(), 0);
        pen.deliver_rest().await;

        let gap = if theirs.is_empty() || theirs.ends_with('\n') { "" } else { "\n" };
        let expected = format!("{theirs}{gap}{}\n", pen.expected(Format::Json).join("\n"));
        assert_eq!(String::from_utf8(pen.read()).unwrap(), expected);
    }
}

#[tokio::test]
async fn directories_that_are_missing_are_made() {
    let mut pen = Pen::closed(Format::Json, records(1));
    pen.sink = sink(pen.sibling("a/b/c/events"), Format::Json);

    pen.start().await.unwrap();
    pen.deliver(1).await.unwrap();

    assert!(pen.sibling("a/b/c/events").metadata().unwrap().len() > 0);
}

#[test]
fn a_new_file_may_be_read_by_its_group_whatever_the_umask() {
    for umask in ["077", "022", "007"] {
        in_a_process_of_its_own("file_sink::refusals::child_makes_a_file_for_its_group", umask);
    }
}

#[tokio::test]
#[ignore = "is started with an umask by the test above"]
async fn child_makes_a_file_for_its_group() {
    if std::env::var_os("RIG_CHILD").is_none() {
        return;
    }
    let mut pen = Pen::new(Format::Json, records(2)).await;
    pen.deliver(1).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&pen.path()), 0o640);

    // A mode that somebody chose is theirs; the next new file has ours again.
    std::fs::set_permissions(pen.path(), Permissions::from_mode(0o604)).unwrap();
    pen.crash();
    pen.start().await.unwrap();
    assert_eq!(mode(&pen.path()), 0o604);
    std::fs::remove_file(pen.path()).unwrap();
    pen.deliver(2).await.unwrap();
    assert_eq!(mode(&pen.path()), 0o640);
}

#[test]
fn the_most_hostile_record_is_exactly_one_line() {
    const END: i64 = 1_790_000_000_000;
    let time = chrono::DateTime::from_timestamp_millis(END - 60_000).unwrap().to_rfc3339();
    let hostile = [
        "\"a\":\"\u{2028}\u{2029}\u{85}\u{7f}\"",
        r#""a":"\n\r\u000a\u000d\u2028\u0085""#,
        r#""a":"\u0000","\u0000":"\\n""#,
        r#""a":"\ud800 alone","b":1e400,"c":18446744073709551616"#,
        r#""siemferry":{"uid":"forged","seq":1},"siemferry":"twice""#,
        r#""a":"}\n{\"siemferry\":{\"seq\":1}}""#,
        "\n\r\t \"a\"\n:\r\n[\n1\n,\n2\n]\n",
    ];
    let sim = Sim::start(Options { clock: Clock::Manual(END), ..Options::default() });
    for members in hostile {
        let record = format!("{{\"audit_event\":\"x\",\"timestamp\":\"{time}\",{members}}}");
        sim.api.add(SimEvent::raw(END - 60_000, record.into_bytes()));
    }
    let home = Home::new(&sim.api.url(), "start = \"2026-09-01\"", "");

    home.run_once_well();

    let text = std::fs::read(home.file()).unwrap();
    assert_eq!(text.split(|byte| *byte == b'\n').count() - 1, hostile.len());
    assert!(!text.contains(&b'\r') && !text.contains(&0) && text.ends_with(b"\n"));
    let lines = String::from_utf8(text).unwrap();
    for (index, line) in lines.split_terminator('\n').enumerate() {
        assert!(
            line.ends_with('}') && line.contains("\"siemferry\":{\"uid\":\""),
            "{index}: {line}"
        );
    }
    assert!(lines.contains(
        r#""siemferry":{"uid":"forged","seq":1},"siemferry":"twice","siemferry":{"uid":"#
    ));
}
