//! How one message is told from the next. (RFC 6587, section 3.4)

use memchr::memchr;

use super::Framing;
use crate::encode::digits::put_decimal;

/// Frames the message that is all there is from `begin` on.
pub(super) fn close(framing: Framing, begin: usize, out: &mut Vec<u8>) {
    match framing {
        Framing::Newline => out.push(b'\n'),
        Framing::OctetCounted => {
            let end = out.len();
            put_decimal((end - begin) as u64, out);
            out.push(b' ');
            // What was written last belongs first.
            let prefix = out.len() - end;
            out[begin..].rotate_right(prefix);
        }
    }
}

/// Makes a line of the JSON text that is all there is from `begin` on, where lines are what is
/// framed: every control character and separator of lines becomes its JSON escape, which means the
/// same. Records may hold DEL, those from U+0080 to U+009F, U+2028 and U+2029.
pub(super) fn escape(framing: Framing, begin: usize, out: &mut Vec<u8>) {
    if framing == Framing::Newline && out[begin..].chunks(64).any(may_hold_one) {
        let text = out.split_off(begin);
        put_escaped(&text, out);
    }
}

/// Whether there is a character to escape, or one that begins with the same byte.
#[expect(clippy::needless_bitwise_bool, reason = "without a branch many are done at once")]
fn may_hold_one(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, byte| {
        found | (*byte < 0x20) | (*byte == 0x7f) | (*byte == 0xc2) | (*byte == 0xe2)
    })
}

/// Appends the text as [`escape`] has it.
pub(super) fn put_escaped(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((first, _)) = rest.split_first() {
        let (code, length) = match rest {
            [0..0x20 | 0x7f, ..] => (u32::from(*first), 1),
            [0xc2, low @ 0x80..=0x9f, ..] => (u32::from(*low), 2),
            [0xe2, 0x80, low @ (0xa8 | 0xa9), ..] => (0x2000 | u32::from(low & 0x3f), 3),
            _ => {
                out.push(*first);
                rest = &rest[1..];
                continue;
            }
        };
        put_escape(code, out);
        rest = &rest[length..];
    }
}

fn put_escape(code: u32, out: &mut Vec<u8>) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    out.extend_from_slice(br"\u");
    for place in [12, 8, 4, 0] {
        out.push(DIGITS[((code >> place) & 15) as usize]);
    }
}

/// The messages that encoded bytes hold, without their framing.
pub fn messages(encoded: &[u8], framing: Framing) -> Messages<'_> {
    Messages { rest: encoded, framing }
}

/// See [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    framing: Framing,
}

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let (message, rest) = match self.framing {
            Framing::Newline => {
                let end = memchr(b'\n', self.rest)?;
                (&self.rest[..end], &self.rest[end + 1..])
            }
            Framing::OctetCounted => {
                let end = memchr(b' ', self.rest)?;
                let length = std::str::from_utf8(&self.rest[..end]).ok()?.parse().ok()?;
                self.rest[end + 1..].split_at_checked(length)?
            }
        };
        self.rest = rest;
        Some(message)
    }
}
