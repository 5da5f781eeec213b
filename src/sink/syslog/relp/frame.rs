//! Frames of RELP: `TXNR SP COMMAND SP DATALEN [SP DATA] LF`. Pure.
//! (github.com/rsyslog/librelp, doc/relp.html)

use std::io::Write as _;

/// Transactions are numbered from 1 up to this, and then from 1 again.
pub const LAST_NUMBER: u32 = 999_999_999;

/// What a server says is short: this much of it is never a frame.
const LONGEST_DATA: usize = 128 << 10;

/// `9 digits SP 32 letters SP 9 digits SP`
const LONGEST_HEAD: usize = 9 + 1 + 32 + 1 + 9 + 1;

/// Appends a frame.
pub fn put(number: u32, command: &str, data: &[u8], out: &mut Vec<u8>) {
    write!(out, "{number} {command} {}", data.len()).expect("a vector takes all");
    if !data.is_empty() {
        out.push(b' ');
        out.extend_from_slice(data);
    }
    out.push(b'\n');
}

/// The number behind this one.
pub const fn next(number: u32) -> u32 {
    if number >= LAST_NUMBER { 1 } else { number + 1 }
}

/// A frame of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The transaction; 0 for a hint that belongs to none.
    pub number: u32,
    /// Such as `rsp`.
    pub command: &'a [u8],
    /// What comes with it.
    pub data: &'a [u8],
}

/// What was received is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The frame that `received` begins with, and its length; none while it is not whole.
pub fn parse(received: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let head = &received[..received.len().min(LONGEST_HEAD)];
    let part = |from: usize| {
        let found = head.get(from..)?.iter().position(|byte| matches!(byte, b' ' | b'\n'))?;
        Some((from + found, &head[from..from + found]))
    };
    let wait = if head.len() < LONGEST_HEAD { Ok(None) } else { Err(Malformed) };
    let Some((first, number)) = part(0) else { return wait };
    let Some((second, command)) = part(first + 1) else { return wait };
    let Some((third, length)) = part(second + 1) else { return wait };
    let is_word = !command.is_empty() && command.iter().all(u8::is_ascii_alphabetic);
    let (number, length) = (digits(number)?, digits(length)? as usize);
    if received[first] != b' ' || received[second] != b' ' || !is_word || length > LONGEST_DATA {
        return Err(Malformed);
    }
    // Some put the space even where no data follows.
    let begin = third + usize::from(received[third] == b' ');
    if length > 0 && received[third] == b'\n' {
        return Err(Malformed);
    }
    match received.get(begin + length) {
        None => Ok(None),
        Some(b'\n') => {
            let data = &received[begin..begin + length];
            Ok(Some((Frame { number, command, data }, begin + length + 1)))
        }
        Some(_) => Err(Malformed),
    }
}

fn digits(text: &[u8]) -> Result<u32, Malformed> {
    if text.is_empty() || text.len() > 9 || !text.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    Ok(text.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

impl<'a> Frame<'a> {
    /// What a response says: its code, and the text behind it.
    pub fn response(&self) -> Option<(u16, &'a [u8])> {
        if self.command != b"rsp" {
            return None;
        }
        let code = self.data.get(..3)?;
        let code = std::str::from_utf8(code).ok()?.parse().ok()?;
        Some((code, self.data[3..].trim_ascii()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_the_protocol_has_it() {
        let mut out = Vec::new();

        put(1, "syslog", "hé".as_bytes(), &mut out);
        put(2, "close", b"", &mut out);

        assert_eq!(out, "1 syslog 3 hé\n2 close 0\n".as_bytes());
        assert_eq!((next(1), next(LAST_NUMBER)), (2, 1));
    }

    #[test]
    fn frames_are_taken_one_after_the_other_however_they_come() {
        let received = b"1 rsp 6 200 OK\n0 serverclose 0\n2 rsp 0 \n3 rsp 7 500 no\n\n";
        let whole =
            [("rsp", 1, "200 OK"), ("serverclose", 0, ""), ("rsp", 2, ""), ("rsp", 3, "500 no\n")];

        let (mut at, mut found) = (0, Vec::new());
        for end in 0..=received.len() {
            while let Some((frame, length)) = parse(&received[at..end]).unwrap() {
                let text = |bytes| std::str::from_utf8(bytes).unwrap();
                found.push((text(frame.command), frame.number, text(frame.data)));
                at += length;
            }
        }

        assert_eq!((found, at), (whole.to_vec(), received.len()));
    }

    #[test]
    fn what_is_no_frame_is_noticed_at_once() {
        for text in [
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "1 rsp 3 200x",
            "1 rsp 3\n200\n",
            "-1 rsp 0\n",
            "1 r5p 0\n",
            "1 rsp 999999999 ",
            "1234567890 rsp 0\n",
            " rsp 0\n",
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Malformed), "{text}");
        }
        let long = [b'1'; LONGEST_HEAD];
        assert_eq!(parse(&long), Err(Malformed));
    }

    #[test]
    fn a_response_has_a_code_and_a_text() {
        let frame = |data| Frame { number: 1, command: b"rsp", data };

        assert_eq!(frame(b"200 OK\na=b").response(), Some((200, &b"OK\na=b"[..])));
        assert_eq!(frame(b"500").response(), Some((500, &b""[..])));
        assert_eq!(frame(b"no").response(), None);
        assert_eq!(Frame { command: b"open", ..frame(b"200 OK") }.response(), None);
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_a_frame_or_none(received: Vec<u8>) {
            if let Ok(Some((frame, length))) = parse(&received) {
                proptest::prop_assert!(length <= received.len());
                proptest::prop_assert!(frame.data.len() < length);
            }
        }

        #[test]
        fn what_is_put_is_parsed(number in 0..=LAST_NUMBER, data: Vec<u8>) {
            let mut out = Vec::new();
            put(number, "syslog", &data, &mut out);
            let frame = Frame { number, command: b"syslog", data: &data };
            proptest::prop_assert_eq!(parse(&out), Ok(Some((frame, out.len()))));
        }
    }
}
