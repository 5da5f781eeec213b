use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::Resource;
use serde_json::Value;
use siemferry::encode::Format;
use siemferry::position::Bookmark;

use super::pen::{Pen, records};
use super::retries::{in_a_process_of_its_own, is_child, limit};
use crate::rotation::{contents, lines_of_all};

const EVENTS: usize = 9;

/// Two events a file: each is some 220 bytes.
const TWO: &str = "size = '500B'";

/// Delivers every event in a batch of its own, and settles it.
async fn deliver_each(pen: &mut Pen) {
    while pen.settled < pen.records.len() {
        pen.deliver(pen.settled + 1).await.unwrap();
        pen.look_after().await;
    }
}

async fn written(rotate: &str) -> Pen {
    let mut pen = Pen::rotating(rotate, records(EVENTS));
    pen.start().await.unwrap();
    deliver_each(&mut pen).await;
    pen
}

/// The names beside the live file, without its own as their beginning and without their times.
fn names(pen: &Pen) -> Vec<String> {
    let short = |name: String| {
        let name = name.strip_prefix("events.ndjson").map(str::to_owned).unwrap_or(name);
        match (name.find('-'), name.find('Z')) {
            (Some(from), Some(to)) => format!("{}{}", &name[..from], &name[to + 1..]),
            _ => name,
        }
    };
    let entries = pen.home.read_dir().unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| short(entry.unwrap().file_name().into_string().unwrap())).collect();
    names.sort();
    names
}

/// Where the rotated file with this number is.
fn rotated(pen: &Pen, number: u32) -> std::path::PathBuf {
    let part = format!("ndjson.{number:08}-");
    let entries = pen.home.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.to_str().unwrap().contains(&part)).expect("it is there")
}

#[track_caller]
fn assert_in_order(pen: &Pen, from: usize) {
    assert_eq!(lines_of_all(&pen.path()), pen.expected(pen.format)[from..]);
}

#[tokio::test]
async fn a_full_file_is_followed_by_another_and_names_sort_in_the_order_of_the_lines() {
    let pen = written(TWO).await;

    assert_eq!(names(&pen), ["", ".00000001", ".00000002", ".00000003", ".00000004"]);
    assert_in_order(&pen, 0);
    for entry in pen.home.read_dir().unwrap() {
        let metadata = entry.unwrap().metadata().unwrap();
        assert!((1..=500).contains(&metadata.len()));
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
    }
}

#[tokio::test]
async fn a_batch_that_no_file_can_hold_has_a_file_of_its_own() {
    let mut pen = Pen::rotating(TWO, records(EVENTS));
    pen.start().await.unwrap();
    for to in [5, 6, 9] {
        pen.deliver(to).await.unwrap();
    }

    assert_eq!(names(&pen), ["", ".00000001", ".00000002"]);
    assert_eq!([1, 2].map(|number| lines_of_all(&rotated(&pen, number)).len()), [5, 1]);
    assert_in_order(&pen, 0);
}

/// Has the bookmark say that the file was begun so many days earlier.
fn begun_earlier(pen: &mut Pen, days: i64) {
    let mut mark: Value = serde_json::from_str(&pen.bookmark.as_ref().unwrap().0).unwrap();
    mark["begun"] = (mark["begun"].as_i64().unwrap() - days * 86_400_000).into();
    pen.bookmark = Some(Bookmark(mark.to_string()));
}

#[tokio::test]
async fn a_file_of_an_earlier_day_is_followed_by_another_also_after_a_restart() {
    let mut pen = Pen::rotating("every = '365d'", records(4));
    pen.start().await.unwrap();
    pen.deliver(1).await.unwrap();
    pen.crash();
    pen.start().await.unwrap();
    pen.deliver(2).await.unwrap();
    assert_eq!(names(&pen), [""]);

    begun_earlier(&mut pen, 365);
    pen.crash();
    pen.start().await.unwrap();
    pen.deliver(3).await.unwrap();
    pen.deliver(4).await.unwrap();

    assert_eq!(names(&pen), ["", ".00000001"]);
    assert_eq!(lines_of_all(&rotated(&pen, 1)).len(), 2);
    assert_in_order(&pen, 0);
}

#[tokio::test]
async fn rotated_files_are_compressed_once_their_bookmark_is_history() {
    for (compress, suffix) in [("zstd", ".zst"), ("gzip", ".gz")] {
        let mut pen = written(&format!("{TWO}\ncompress = '{compress}'")).await;
        let all = (1..=4).map(|number| format!(".{number:08}{suffix}"));
        let expected: Vec<_> = std::iter::once(String::new()).chain(all).collect();
        assert_eq!(names(&pen), expected);
        assert_in_order(&pen, 0);

        // The file that the bookmark names stays as it is, although it has been rotated.
        let bookmark = pen.bookmark.clone();
        pen.records = records(EVENTS + 3);
        pen.deliver(EVENTS + 1).await.unwrap();
        pen.deliver_unsettled(EVENTS + 2).await.unwrap();
        pen.sink.close(false).await;
        assert!(names(&pen).contains(&".00000005".to_owned()), "{:?}", names(&pen));
        pen.crash();
        assert_ne!(bookmark, pen.bookmark);
        assert_eq!(pen.start().await.unwrap(), 1);
        assert!(names(&pen).contains(&".00000005".to_owned()));
        pen.look_after().await;
        assert!(names(&pen).contains(&format!(".00000005{suffix}")));
        assert_in_order_up_to(&pen, EVENTS + 2);
    }
}

#[track_caller]
fn assert_in_order_up_to(pen: &Pen, to: usize) {
    assert_eq!(lines_of_all(&pen.path()), pen.expected(pen.format)[..to]);
}

#[tokio::test]
async fn of_the_rotated_files_the_oldest_go_and_no_other() {
    let strangers = ["events.ndjson.1", "events.ndjson.old", "other.00000001-20200101T000000Z"];
    for (keep, stay) in [("2", 2), ("{ bytes = '1000B' }", 2), ("'1h'", 3), ("{ count = 1 }", 1)] {
        let mut pen = Pen::rotating(&format!("{TWO}\nkeep = {keep}"), records(EVENTS));
        for name in strangers {
            fs::write(pen.sibling(name), "theirs\n").unwrap();
        }
        // As rotated years ago, with the counter of another installation.
        fs::write(pen.sibling("events.ndjson.00000007-20200101T000000Z"), "old\n").unwrap();
        pen.start().await.unwrap();
        pen.look_after().await;
        // Numbers go on where the highest has been, even when that file has gone.
        for to in 1..=EVENTS - 2 {
            pen.deliver(to).await.unwrap();
            pen.look_after().await;
        }

        let ours: Vec<_> = names(&pen).into_iter().filter(|name| name.starts_with(".0")).collect();
        let expected: Vec<_> = (11 - stay..11).map(|number| format!(".{number:08}")).collect();
        assert_eq!(ours, expected, "keep = {keep}");
        assert!(strangers.iter().all(|name| pen.sibling(name).exists()));
        assert!(!pen.read().is_empty());
    }
}

#[tokio::test]
async fn numbers_go_on_when_every_rotated_file_has_been_taken_away() {
    let mut pen = written(TWO).await;
    for number in 1..=4 {
        fs::remove_file(rotated(&pen, number)).unwrap();
    }
    pen.crash();
    pen.records = records(EVENTS + 2);
    pen.start().await.unwrap();
    deliver_each(&mut pen).await;

    assert_eq!(names(&pen), ["", ".00000005"]);
}

#[tokio::test]
async fn what_a_stop_left_half_done_is_brought_to_its_end() {
    let rotate = format!("{TWO}\ncompress = 'zstd'");
    let mut pen = written(TWO).await;
    pen.rotate = Some(toml::from_str(&rotate).unwrap());
    let [one, two, three] = [1, 2, 3].map(|number| rotated(&pen, number));
    let with = |path: &Path, suffix: &str| format!("{}{suffix}", path.display());
    // Compressed, and the other not removed; compressed in part; a stranger's under that name.
    fs::write(with(&one, ".zst"), zstd::encode_all(&*contents(&one), 0).unwrap()).unwrap();
    let name = two.file_name().unwrap().to_str().unwrap();
    let partial = pen.sibling(&format!(".{name}.zst.partial"));
    fs::write(&partial, "part").unwrap();
    let theirs = zstd::encode_all(&b"theirs\n"[..], 0).unwrap();
    fs::write(with(&three, ".zst"), &theirs).unwrap();

    pen.crash();
    pen.start().await.unwrap();
    pen.look_after().await;

    assert!(!one.exists() && !two.exists() && !partial.exists());
    assert!(three.exists(), "no line goes for a file that does not hold it");
    assert_eq!(fs::read(with(&three, ".zst")).unwrap(), theirs);
    fs::remove_file(with(&three, ".zst")).unwrap();
    assert_in_order(&pen, 0);
    pen.crash();
    pen.start().await.unwrap();
    pen.look_after().await;
    let names = names(&pen);
    assert!(names[1..].iter().all(|name| name.contains(".zst")), "{names:?}");
    assert_in_order(&pen, 0);
}

#[tokio::test]
async fn a_stop_in_a_hurry_leaves_whole_files_and_the_next_start_goes_on() {
    let mut pen = written(TWO).await;
    pen.rotate = Some(toml::from_str(&format!("{TWO}\ncompress = 'gzip'")).unwrap());
    pen.crash();
    pen.start().await.unwrap();

    pen.sink.settled().await;
    pen.sink.close(true).await;

    assert_eq!(names(&pen).len(), 5, "each file is there in one form: {:?}", names(&pen));
    assert_in_order(&pen, 0);
    pen.crash();
    pen.start().await.unwrap();
    pen.look_after().await;
    assert!(names(&pen)[1..].iter().all(|name| name.contains(".gz")), "{:?}", names(&pen));
    assert_in_order(&pen, 0);
}

#[tokio::test]
async fn somebodys_own_rotation_beside_ours_is_harmless() {
    let mut pen = Pen::rotating(TWO, records(30));
    pen.start().await.unwrap();
    for n in 0..29 {
        if n % 5 == 2 {
            fs::rename(pen.path(), pen.sibling(&format!("events.ndjson.{n:03}"))).unwrap();
        }
        if n % 10 == 7 {
            pen.sink.reopen().await;
        }
        if n % 3 == 0 {
            let unsettled = pen.deliver_unsettled(n + 1).await.unwrap();
            pen.crash();
            assert!(unsettled.is_some());
            assert_eq!(pen.start().await.unwrap(), 1, "{n}");
            pen.look_after().await;
        } else {
            pen.deliver(n + 1).await.unwrap();
            pen.look_after().await;
        }
    }
    pen.deliver_rest().await;

    let mut lines = lines_of_all(&pen.path());
    let mut expected = pen.expected(Format::Json);
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
    assert!(names(&pen).len() > 10);
}

#[tokio::test]
async fn a_file_that_was_moved_while_idle_is_let_go_when_asked() {
    let mut pen = Pen::new(Format::Json, records(3)).await;
    pen.deliver(1).await.unwrap();
    pen.sink.reopen().await;
    assert_eq!(names(&pen), [""], "nothing has happened to it");
    let moved = pen.sibling("events.ndjson.1");
    fs::rename(pen.path(), &moved).unwrap();

    pen.sink.reopen().await;

    assert!(pen.path().exists(), "the new file is there before the next event");
    assert!(File::open(&moved).unwrap().try_lock().is_ok(), "the moved one is closed");
    pen.deliver(2).await.unwrap();
    pen.crash();
    pen.start().await.unwrap();
    pen.deliver(3).await.unwrap();
    pen.assert_each_once(&[&contents(&moved), &pen.read()], "reopened");
}

/// The file has moved twice since the bookmark, and lines of a batch that was never settled stand
/// in each of three files.
#[tokio::test]
async fn lines_in_files_that_were_begun_and_moved_since_the_bookmark_are_adopted() {
    for format in [Format::Json, Format::Raw] {
        for without_the_first in [false, true] {
            let mut pen = Pen::new(format, records(7)).await;
            pen.deliver(1).await.unwrap();
            let before = (pen.bookmark.clone(), pen.settled);
            let mut to = 2;
            for name in ["events.ndjson.2", "events.ndjson.1", "events.ndjson"] {
                pen.deliver(to).await.unwrap();
                fs::rename(pen.path(), pen.sibling(name)).unwrap();
                to += 2;
            }
            // A copy somebody made, and a file that is not ours.
            fs::copy(pen.sibling("events.ndjson.2"), pen.sibling("events.ndjson.copy")).unwrap();
            fs::write(pen.sibling("events.ndjson.gz"), [0x1f, 0x8b, b'{']).unwrap();
            (pen.bookmark, pen.settled) = before;
            if without_the_first {
                // It is settled up to the second event, whose file has been compressed since.
                pen.settled = 2;
                fs::remove_file(pen.sibling("events.ndjson.2")).unwrap();
                fs::remove_file(pen.sibling("events.ndjson.copy")).unwrap();
            }
            pen.crash();

            let adopted = pen.start().await.unwrap();
            pen.deliver_rest().await;

            let expected = match (format, without_the_first) {
                (_, false) => 5,
                (Format::Json, true) => 4,
                // Equal lines could be other events.
                (Format::Raw, true) => 0,
            };
            assert_eq!(adopted, expected, "{format:?}, without the first: {without_the_first}");
            if expected > 0 {
                let names = ["events.ndjson.2", "events.ndjson.1", "events.ndjson"];
                let lines = names.iter().map(|name| pen.sibling(name)).filter(|path| path.exists());
                let lines: Vec<_> = lines.flat_map(|path| fs::read(path).unwrap()).collect();
                let lines: Vec<_> =
                    String::from_utf8(lines).unwrap().lines().map(str::to_owned).collect();
                assert_eq!(lines, pen.expected(format)[usize::from(without_the_first) * 2..]);
            }
        }
    }
}

#[tokio::test]
async fn an_older_file_that_begins_like_the_next_event_is_not_taken_for_it() {
    let same = "{\"same\":1}".to_owned();
    let mut pen = Pen::new(Format::Raw, vec![same.clone(), same.clone(), same]).await;
    let old = pen.sibling("events.ndjson.old");
    fs::write(&old, "{\"same\":1}\n").unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    File::options().append(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    pen.deliver(1).await.unwrap();
    fs::rename(pen.path(), pen.sibling("events.ndjson.1")).unwrap();
    pen.crash();

    assert_eq!(pen.start().await.unwrap(), 0);
    pen.deliver_rest().await;
    assert_eq!(pen.read(), b"{\"same\":1}\n{\"same\":1}\n");
}

#[test]
fn a_next_file_that_cannot_be_opened_delays_the_batch_and_doubles_nothing() {
    in_a_process_of_its_own("file_sink::rotation::child_cannot_open_the_next_file", "022");
}

#[tokio::test]
#[ignore = "is started by the test above, for it limits the number of open files"]
async fn child_cannot_open_the_next_file() {
    if !is_child() {
        return;
    }
    let mut seen = BTreeSet::new();
    for also_crashes in [false, true] {
        for spare in 0..3 {
            let mut pen = Pen::rotating(TWO, records(4));
            pen.start().await.unwrap();
            pen.deliver(2).await.unwrap();
            // So many more may be open at once.
            let free: Vec<_> = (0..=spare).map(|_| File::open("/dev/null").unwrap()).collect();
            let limit_at = free.iter().map(AsRawFd::as_raw_fd).max().unwrap();
            drop(free);
            limit(Resource::Nofile, Some(u64::try_from(limit_at).unwrap()));
            let failed = pen.deliver(3).await.is_err();
            limit(Resource::Nofile, None);
            seen.insert((failed, pen.path().exists(), names(&pen).len()));
            if also_crashes {
                pen.crash();
                pen.start().await.unwrap();
            }
            pen.deliver_rest().await;
            pen.look_after().await;
            assert_in_order(&pen, 0);
        }
    }
    let [renamed_alone, grown_on] = [(true, false, 1), (false, true, 1)];
    assert!(seen.contains(&renamed_alone) && seen.contains(&grown_on), "{seen:?}");
}
