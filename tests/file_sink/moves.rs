use siemferry::encode::Format;

use super::pen::{Pen, records, sink};

/// One event settled, two written and not settled, a fourth to come; the sink is gone.
async fn crashed(format: Format) -> Pen {
    let mut pen = Pen::new(format, records(4)).await;
    pen.deliver(1).await.unwrap();
    pen.deliver_unsettled(3).await.unwrap();
    pen.crash();
    pen
}

#[tokio::test]
async fn a_file_that_was_moved_before_the_start_is_found_and_its_end_adopted() {
    for torn_by in [0, 10] {
        for begun_anew in [false, true] {
            let mut pen = crashed(Format::Json).await;
            let moved = pen.sibling("events.ndjson.1");
            std::fs::rename(pen.path(), &moved).unwrap();
            let file = std::fs::File::options().write(true).open(&moved).unwrap();
            file.set_len(file.metadata().unwrap().len() - torn_by).unwrap();
            if begun_anew {
                std::fs::write(pen.path(), "").unwrap();
            }

            let adopted = pen.start().await.unwrap();
            pen.deliver_rest().await;

            assert_eq!(adopted, if torn_by == 0 { 2 } else { 1 });
            let files = [std::fs::read(moved).unwrap(), pen.read()];
            pen.assert_each_once(&[&files[0], &files[1]], &format!("torn by {torn_by}"));
            assert!(files[0].ends_with(b"\n"));
        }
    }
}

#[tokio::test]
async fn lines_in_both_the_moved_and_the_new_file_are_adopted_in_their_order() {
    let mut pen = Pen::new(Format::Json, records(5)).await;
    pen.deliver(1).await.unwrap();
    let before = (pen.bookmark.clone(), pen.settled);
    pen.deliver(2).await.unwrap();
    let moved = pen.sibling("events.ndjson.1");
    std::fs::rename(pen.path(), &moved).unwrap();
    pen.deliver(4).await.unwrap();
    // Nothing of it was settled.
    (pen.bookmark, pen.settled) = before;
    pen.crash();

    assert_eq!(pen.start().await.unwrap(), 3);
    pen.deliver_rest().await;

    let files = [std::fs::read(moved).unwrap(), pen.read()];
    pen.assert_each_once(&[&files[0], &files[1]], "in two files");
}

#[tokio::test]
async fn a_file_that_is_moved_while_running_is_followed_by_a_new_one() {
    let mut pen = Pen::new(Format::Json, records(3)).await;
    pen.deliver(1).await.unwrap();
    let moved = pen.sibling("events.ndjson.1");
    std::fs::rename(pen.path(), &moved).unwrap();
    pen.deliver(2).await.unwrap();
    pen.crash();
    pen.start().await.unwrap();
    pen.deliver(3).await.unwrap();

    let files = [std::fs::read(moved).unwrap(), pen.read()];
    pen.assert_each_once(&[&files[0], &files[1]], "one file and the next");
    assert_eq!(files[0].split(|byte| *byte == b'\n').count() - 1, 1);
}

#[tokio::test]
async fn a_file_that_is_deleted_while_running_is_begun_anew() {
    let mut pen = Pen::new(Format::Json, records(3)).await;
    pen.deliver(1).await.unwrap();
    std::fs::remove_file(pen.path()).unwrap();
    pen.deliver(3).await.unwrap();

    assert_eq!(pen.read(), format!("{}\n", pen.expected(Format::Json)[1..].join("\n")).as_bytes());
}

#[tokio::test]
async fn a_file_that_is_deleted_between_runs_takes_only_what_was_settled_with_it() {
    let mut pen = crashed(Format::Json).await;
    std::fs::remove_file(pen.path()).unwrap();

    assert_eq!(pen.start().await.unwrap(), 0);
    pen.deliver_rest().await;

    assert_eq!(pen.read(), format!("{}\n", pen.expected(Format::Json)[1..].join("\n")).as_bytes());
}

#[tokio::test]
async fn a_file_that_another_replaces_while_running_gets_the_lines_behind_its_own() {
    let mut pen = Pen::new(Format::Json, records(2)).await;
    pen.deliver(1).await.unwrap();
    let theirs = pen.sibling("theirs");
    std::fs::write(&theirs, "theirs, without an end").unwrap();
    std::fs::rename(&theirs, pen.path()).unwrap();
    pen.deliver(2).await.unwrap();

    let expected = format!("theirs, without an end\n{}\n", pen.expected(Format::Json)[1]);
    assert_eq!(String::from_utf8(pen.read()).unwrap(), expected);
}

#[tokio::test]
async fn a_truncated_file_loses_nothing_that_is_to_come() {
    // While it runs, as `copytruncate` does.
    let mut pen = Pen::new(Format::Json, records(4)).await;
    pen.deliver(2).await.unwrap();
    std::fs::write(pen.path(), "").unwrap();
    pen.deliver(3).await.unwrap();
    pen.crash();
    pen.start().await.unwrap();
    pen.deliver(4).await.unwrap();
    assert_eq!(pen.read(), format!("{}\n", pen.expected(Format::Json)[2..].join("\n")).as_bytes());

    // Between two runs.
    let mut pen = crashed(Format::Json).await;
    std::fs::write(pen.path(), "").unwrap();
    assert_eq!(pen.start().await.unwrap(), 0);
    pen.deliver_rest().await;
    assert_eq!(pen.read(), format!("{}\n", pen.expected(Format::Json)[1..].join("\n")).as_bytes());
}

#[tokio::test]
async fn in_a_file_that_was_rewritten_the_lines_to_come_are_adopted_wherever_they_stand() {
    let mut pen = crashed(Format::Json).await;
    let text = String::from_utf8(pen.read()).unwrap().replace("user 1", "*");
    std::fs::write(pen.path(), &text).unwrap();

    assert_eq!(pen.start().await.unwrap(), 2);
    pen.deliver_rest().await;

    let expected = format!("{text}{}\n", pen.expected(Format::Json)[3]);
    assert_eq!(String::from_utf8(pen.read()).unwrap(), expected);
}

#[tokio::test]
async fn a_copy_of_the_file_in_its_place_is_taken_up_where_it_was_settled() {
    // Raw lines of equal events are equal: a settled one must not be taken for the next.
    let twice = "{\"same\":1}".to_owned();
    let mut pen = Pen::new(Format::Raw, vec![twice.clone(), twice]).await;
    pen.deliver(1).await.unwrap();
    pen.crash();
    std::fs::copy(pen.path(), pen.sibling("copy")).unwrap();
    std::fs::remove_file(pen.path()).unwrap();
    std::fs::rename(pen.sibling("copy"), pen.path()).unwrap();

    assert_eq!(pen.start().await.unwrap(), 0);
    pen.deliver_rest().await;

    assert_eq!(pen.read(), b"{\"same\":1}\n{\"same\":1}\n");
}

#[tokio::test]
async fn nothing_is_cut_from_a_file_that_is_not_ours() {
    let theirs: [&[u8]; 4] =
        [b"\0binary\0\nmore\n", b"text\n\0\0\0", b"\x7fELF\0\0no line break", b"a\n{\0\0\0\0b"];
    for content in theirs {
        let mut pen = crashed(Format::Json).await;
        let elsewhere = pen.sibling("theirs");
        std::fs::write(&elsewhere, content).unwrap();
        std::fs::remove_file(pen.path()).unwrap();
        // The configuration names another file now.
        pen.sink = sink(elsewhere.clone(), Format::Json);
        pen.start().await.unwrap();
        pen.deliver_rest().await;

        let file = std::fs::read(elsewhere).unwrap();
        let lossy = String::from_utf8_lossy(&file);
        let kept = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        assert!(file.starts_with(&content[..kept]), "{lossy:?}");
        let rest = format!("{}\n", pen.expected(Format::Json)[1..].join("\n"));
        assert!(file.ends_with(rest.as_bytes()), "{lossy:?}");
    }
}

#[tokio::test]
async fn a_new_file_of_ours_that_a_power_cut_left_full_of_nuls_is_written_again() {
    let mut pen = Pen::new(Format::Json, records(4)).await;
    pen.deliver(1).await.unwrap();
    std::fs::rename(pen.path(), pen.sibling("events.ndjson.1")).unwrap();
    pen.deliver_unsettled(3).await.unwrap();
    pen.crash();
    let mut file = pen.read();
    let half = file.len() / 2;
    file[half..].fill(0);
    std::fs::write(pen.path(), file).unwrap();

    pen.start().await.unwrap();
    pen.deliver_rest().await;

    let file = pen.read();
    assert_eq!(file, format!("{}\n", pen.expected(Format::Json)[1..].join("\n")).as_bytes());
}
