use siemferry::encode::Format;
use siemferry::position::Bookmark;

use super::pen::{Pen, records};

const SETTLED: usize = 2;
const UNSETTLED: usize = 3;

/// What stands in the file besides our lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Besides {
    Nothing,
    NulsBehind,
    ForeignBefore,
    ForeignBetween,
    ForeignBetweenNulsBehind,
    ForeignBehind,
    ForeignPartialBehind,
}

const ALL: [Besides; 7] = [
    Besides::Nothing,
    Besides::NulsBehind,
    Besides::ForeignBefore,
    Besides::ForeignBetween,
    Besides::ForeignBetweenNulsBehind,
    Besides::ForeignBehind,
    Besides::ForeignPartialBehind,
];

const FOREIGN: &str = "{\"another\":\"writer\"}";

/// Two events settled, three written and not settled.
async fn crashed(format: Format) -> (Pen, usize) {
    let mut pen = Pen::new(format, records(SETTLED + UNSETTLED)).await;
    pen.deliver(SETTLED).await.unwrap();
    let settled = pen.read().len();
    pen.deliver_unsettled(SETTLED + UNSETTLED).await.unwrap();
    pen.crash();
    (pen, settled)
}

/// The file as a crash leaves it when only `written` bytes of the unsettled lines came to the disk.
fn left(full: &[u8], settled: usize, written: usize, besides: Besides) -> Vec<u8> {
    let foreign = format!("{FOREIGN}\n").into_bytes();
    let (before, torn) = (&full[..settled], &full[settled..settled + written]);
    let between = || {
        let mut lines = Vec::new();
        for line in torn.split_inclusive(|byte| *byte == b'\n') {
            lines.extend_from_slice(line);
            if line.ends_with(b"\n") {
                lines.extend_from_slice(&foreign);
            }
        }
        lines
    };
    let nuls = vec![0; 300];
    match besides {
        Besides::Nothing => [before, torn].concat(),
        Besides::NulsBehind => [before, torn, &nuls].concat(),
        Besides::ForeignBefore => [before, &foreign, torn].concat(),
        Besides::ForeignBetween => [before, &between()].concat(),
        Besides::ForeignBetweenNulsBehind => [before, &between(), &nuls].concat(),
        Besides::ForeignBehind => [before, torn, &foreign].concat(),
        Besides::ForeignPartialBehind => [before, torn, &foreign[..9]].concat(),
    }
}

fn count(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).filter(|window| *window == part).count()
}

async fn at_every_byte(format: Format, then_format: Option<Format>) {
    let (mut pen, settled) = crashed(format).await;
    let (full, bookmark) = (pen.read(), pen.bookmark.clone());
    let mut runs = 0;
    for besides in ALL {
        let every_byte = matches!(besides, Besides::Nothing | Besides::NulsBehind);
        for written in 0..=full.len() - settled {
            let border = full[..settled + written].ends_with(b"\n")
                || full[settled + written..].starts_with(b"\n");
            if !every_byte && !border && written % 7 > 0 {
                continue;
            }
            let context = format!("{besides:?}, cut after {written} bytes");
            let found = left(&full, settled, written, besides);
            std::fs::write(pen.path(), &found).unwrap();
            (pen.bookmark, pen.settled) = (bookmark.clone(), SETTLED);
            pen.format = then_format.unwrap_or(format);
            pen.crash();

            let adopted = pen.start().await.unwrap();
            pen.deliver_rest().await;

            let file = pen.read();
            let whole_lines =
                full[settled..settled + written].split(|byte| *byte == b'\n').count() - 1;
            let foreign_in_front = besides == Besides::ForeignBehind && written == 0;
            assert!(adopted >= whole_lines || foreign_in_front, "{context}: {adopted}");
            let kept = found.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            assert!(file.starts_with(&found[..kept]), "{context}: a whole line has vanished");
            let all_adopted = adopted == UNSETTLED;
            assert!(!file.contains(&0) && (all_adopted || file.ends_with(b"\n")), "{context}");
            let partial = &FOREIGN.as_bytes()[..9];
            assert_eq!(count(&file, partial), count(&found, partial), "{context}: foreign lines");
            if then_format.is_none() {
                pen.assert_each_once(&[&file], &context);
            } else {
                each_once_in_either_format(&pen, &file, &context);
            }
            runs += 1;
        }
    }
    assert!(runs > 200);
}

fn each_once_in_either_format(pen: &Pen, file: &[u8], context: &str) {
    let formats = pen.expected(Format::Json).into_iter().zip(pen.expected(Format::Raw));
    for (json, raw) in formats {
        let ours = |line: &&[u8]| *line == json.as_bytes() || *line == raw.as_bytes();
        let times = file.split(|byte| *byte == b'\n').filter(ours).count();
        assert_eq!(times, 1, "{context}: {raw}\n{}", String::from_utf8_lossy(file));
    }
}

#[tokio::test]
async fn wherever_a_crash_cuts_the_file_each_event_is_one_whole_line() {
    at_every_byte(Format::Json, None).await;
    at_every_byte(Format::Raw, None).await;
}

#[tokio::test]
async fn a_format_that_changes_between_crash_and_start_changes_only_what_is_to_come() {
    at_every_byte(Format::Json, Some(Format::Raw)).await;
    at_every_byte(Format::Raw, Some(Format::Json)).await;
}

#[tokio::test]
async fn lines_of_another_version_are_known_by_uid_and_seq() {
    let (mut pen, settled) = crashed(Format::Json).await;
    let full = String::from_utf8(pen.read()).unwrap();
    let old_style = full[settled..].replace("\"type\":\"login\",", "");
    assert_ne!(old_style, full[settled..]);
    // Two whole lines and a half.
    let cut = old_style.match_indices('\n').nth(1).unwrap().0 + 20;
    std::fs::write(pen.path(), format!("{}{}", &full[..settled], &old_style[..cut])).unwrap();
    let bookmark = pen.bookmark.as_ref().unwrap().0.replace("\"encoding\":1", "\"encoding\":0");
    pen.bookmark = Some(Bookmark(bookmark));

    assert_eq!(pen.start().await.unwrap(), 2);
    pen.deliver_rest().await;

    let expected = format!(
        "{}{}{}\n",
        &full[..settled],
        &old_style[..cut - 19],
        pen.expected(Format::Json)[4]
    );
    assert_eq!(String::from_utf8(pen.read()).unwrap(), expected);
}

#[tokio::test]
async fn an_event_of_twenty_mebibytes_is_adopted_whole_and_cut_torn() {
    let huge = format!("{{\"n\":\"{}\"}}", "x".repeat(20 << 20));
    for cut in [0, 1, 10 << 20] {
        let mut pen = Pen::new(Format::Json, vec!["{}".into(), huge.clone()]).await;
        pen.deliver(1).await.unwrap();
        pen.deliver_unsettled(2).await.unwrap();
        pen.crash();
        let file = std::fs::File::options().write(true).open(pen.path()).unwrap();
        file.set_len(file.metadata().unwrap().len() - cut).unwrap();

        let adopted = pen.start().await.unwrap();
        pen.deliver_rest().await;

        assert_eq!(adopted, usize::from(cut == 0));
        let lines = pen.read().split(|byte| *byte == b'\n').map(<[u8]>::len).collect::<Vec<_>>();
        let expected: Vec<_> = pen.expected(Format::Json).iter().map(String::len).collect();
        assert_eq!(lines, [expected[0], expected[1], 0], "cut by {cut}");
    }
}
