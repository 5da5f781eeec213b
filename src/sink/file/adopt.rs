//! What stands in the file beyond the bookmark: lines of ours, of others, and a torn end.

use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};

use tracing::{debug, info, warn};

use super::output::Output;
use crate::encode::Format;
use crate::sink::{BoxError, Encoded, Upcoming};

/// No line of ours is longer: one response is at most 32 MiB.
const LONGEST_LINE: u64 = 64 << 20;

/// Compares lines with the upcoming events, in their order.
pub struct Tail<'a> {
    format: Format,
    /// True when the line of an event may look otherwise than it did: then its identity decides.
    by_identity: bool,
    upcoming: &'a mut dyn Upcoming,
    expected: Option<Encoded>,
    asked: bool,
    adopted: u64,
    foreign: u64,
    cut: u64,
}

/// What a line is to us.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// The next event, whole.
    Ours,
    /// Another writer's; it stays.
    Foreign,
    /// The beginning of the next event, or a hole that a power cut left: nothing behind it counts.
    Torn,
}

impl<'a> Tail<'a> {
    /// Expects the upcoming events in the format they were written in.
    pub fn new(format: Format, by_identity: bool, upcoming: &'a mut dyn Upcoming) -> Self {
        let (adopted, foreign, cut) = (0, 0, 0);
        Self { format, by_identity, upcoming, expected: None, asked: false, adopted, foreign, cut }
    }

    /// Adopts the lines of `output` from byte `from` on, and cuts a torn end. What stands there is
    /// `known` to be written behind our own lines; else the file may be anybody's, until a line
    /// turns out to be ours.
    pub async fn adopt(
        &mut self,
        output: &mut Output,
        from: u64,
        mut known: bool,
    ) -> Result<(), BoxError> {
        let mut file = output.reader()?;
        file.seek(SeekFrom::Start(from))?;
        let mut lines = BufReader::with_capacity(256 << 10, file);
        let (mut at, before) = (from, self.adopted);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = read_line(&mut lines, &mut line)?;
            if read == 0 {
                break;
            }
            match self.judge(&line, known).await? {
                Judged::Ours => {
                    known = true;
                    self.adopted += 1;
                    self.asked = false;
                }
                Judged::Foreign => self.foreign += 1,
                Judged::Torn => {
                    self.cut += output.cut(at)?;
                    break;
                }
            }
            at += read;
        }
        if self.adopted > before {
            output.secure()?;
        }
        Ok(())
    }

    /// True when the first line of `output` is the next event.
    pub async fn is_begun_by(&mut self, output: &Output) -> Result<bool, BoxError> {
        let mut file = output.reader()?;
        file.rewind()?;
        let mut line = Vec::new();
        read_line(&mut BufReader::new(file), &mut line)?;
        Ok(self.judge(&line, false).await? == Judged::Ours)
    }

    /// As [`Tail::report`], after an attempt of this run: that it failed was told, and a full disk
    /// must not fill the log.
    pub fn report_again(&self) -> u64 {
        if self.adopted > 0 || self.cut > 0 {
            debug!(
                events = self.adopted,
                bytes = self.cut,
                "Found what a failed attempt has written."
            );
        }
        self.report_foreign();
        self.adopted
    }

    /// Tells the operator, and how many events were adopted.
    pub fn report(&self) -> u64 {
        if self.adopted > 0 {
            info!(events = self.adopted, "Adopted lines that were written before the stop.");
        }
        if self.cut > 0 {
            info!(bytes = self.cut, "Cut the torn end of the file.");
        }
        self.report_foreign();
        self.adopted
    }

    fn report_foreign(&self) {
        if self.foreign > 0 {
            warn!(lines = self.foreign, "The file holds lines of another writer; they are kept.");
        }
    }

    async fn judge(&mut self, line: &[u8], known: bool) -> Result<Judged, BoxError> {
        if !self.asked {
            self.expected = self.upcoming.next(self.format).await?;
            self.asked = true;
        }
        Ok(judge(line, self.expected.as_ref(), self.by_identity, known))
    }
}

fn judge(line: &[u8], expected: Option<&Encoded>, by_identity: bool, known: bool) -> Judged {
    let whole = line.strip_suffix(b"\n");
    if let (Some(line), Some(expected)) = (whole, expected)
        && (line == expected.bytes || by_identity && names(line, expected))
    {
        return Judged::Ours;
    }
    // JSON text holds no NUL: a file system gives such bytes for what it had not written yet.
    let hole = known && line.contains(&0);
    let written = line.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let begun = whole.is_none()
        && expected.is_some_and(|expected| expected.bytes.starts_with(&line[..written]));
    if hole || begun { Judged::Torn } else { Judged::Foreign }
}

/// True when the line says that it is the event, whatever else it says.
fn names(line: &[u8], expected: &Encoded) -> bool {
    let uid = format!(r#""uid":"{}""#, expected.uid);
    let seq = format!(r#""seq":{}}}"#, expected.seq);
    memchr::memmem::rfind(line, uid.as_bytes()).is_some()
        && memchr::memmem::rfind(line, seq.as_bytes()).is_some()
}

fn read_line(lines: &mut impl io::BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    let read = lines.by_ref().take(LONGEST_LINE).read_until(b'\n', line)?;
    Ok(read as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Uid;

    fn event(seq: u64, bytes: &str) -> Encoded {
        Encoded { seq, uid: Uid([7; 16]), bytes: bytes.into() }
    }

    #[test]
    fn a_line_is_ours_torn_or_anothers() {
        let next = event(3, r#"{"a":1}"#);
        let table: [(&[u8], Judged); 8] = [
            (b"{\"a\":1}\n", Judged::Ours),
            (b"{\"a\":1}", Judged::Torn),
            (b"{\"a", Judged::Torn),
            (b"{\"b\":1}\n", Judged::Foreign),
            (b"{\"b", Judged::Foreign),
            (b"{\"a\0\0\0\0\n", Judged::Torn),
            (b"\0\0\0", Judged::Torn),
            (b"\n", Judged::Foreign),
        ];
        for (line, expected) in table {
            assert_eq!(judge(line, Some(&next), false, true), expected, "{line:?}");
        }
    }

    #[test]
    fn with_nothing_upcoming_only_a_hole_is_cut() {
        assert_eq!(judge(b"{\"a\":1}\n", None, false, true), Judged::Foreign);
        assert_eq!(judge(b"{\"a", None, false, true), Judged::Foreign);
        assert_eq!(judge(b"\0", None, false, true), Judged::Torn);
    }

    #[test]
    fn another_encoding_of_the_same_event_is_known_by_uid_and_seq() {
        let next = event(3, "as it would be now");
        let line = format!("{{\"siemferry\":{{\"uid\":\"{}\",\"seq\":3}}}}\n", next.uid);
        let other = format!("{{\"siemferry\":{{\"uid\":\"{}\",\"seq\":33}}}}\n", next.uid);

        assert_eq!(judge(line.as_bytes(), Some(&next), true, true), Judged::Ours);
        assert_eq!(judge(line.as_bytes(), Some(&next), false, true), Judged::Foreign);
        assert_eq!(judge(other.as_bytes(), Some(&next), true, true), Judged::Foreign);
    }

    #[test]
    fn in_a_file_that_may_be_anybodys_only_our_own_beginning_is_torn() {
        let next = event(3, r#"{"a":1}"#);
        let table: [(&[u8], Judged); 7] = [
            (b"{\"a\":1}\n", Judged::Ours),
            (b"{\"a", Judged::Torn),
            (b"{\"a\0\0\0", Judged::Torn),
            (b"\0\0\0", Judged::Torn),
            (b"{\"a\0\0\0\n", Judged::Foreign),
            (b"\0\0\0\n", Judged::Foreign),
            (b"text\0\0", Judged::Foreign),
        ];
        for (line, expected) in table {
            assert_eq!(judge(line, Some(&next), false, false), expected, "{line:?}");
        }
        assert_eq!(judge(b"\0", None, false, false), Judged::Foreign);
    }
}
