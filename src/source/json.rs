//! JSON as bytes: where a value ends, whether it is sound, and what a pointer points to.
//!
//! Promises that no depth, number or set of keys is too much: nothing recurses and nothing becomes
//! a map. A sound value stays what it was, byte for byte, except white space between its tokens.
//! Lone surrogates, numbers of any size and duplicate keys are sound; RFC 8259 allows them all.
//! Does not know what a record is.

#[cfg(test)]
pub(crate) mod arbitrary;
mod pointer;
mod tape;
mod text;

pub(crate) use pointer::Segment;
pub use pointer::{Pointer, PointerError};
pub use tape::{Kind, Tape, Value};
pub(crate) use text::{decode, decode_lossy, is_same};

/// Why text is not JSON, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {at}")]
pub struct Fault {
    /// How many bytes are in front of it.
    pub at: usize,
    /// What is wrong.
    pub reason: &'static str,
}

impl Fault {
    /// A fault at the end of the text is always the same one.
    pub(crate) fn new(src: &[u8], at: usize, reason: &'static str) -> Self {
        Self { at, reason: if at < src.len() { reason } else { "cut short" } }
    }
}

/// Finds where the value that starts at `at` ends, believing only quotes and brackets.
///
/// What is between them may be unsound. Fails when a bracket or a quote is never closed, when
/// brackets do not match, and when no value starts here.
pub fn skip_value(src: &[u8], at: usize) -> Result<usize, Fault> {
    match src.get(at) {
        Some(b'"') => skip_string(src, at),
        Some(b'{' | b'[') => skip_container(src, at),
        _ => skip_word(src, at),
    }
}

fn skip_container(src: &[u8], start: usize) -> Result<usize, Fault> {
    let mut closers = Vec::new();
    let mut at = start;
    loop {
        match src.get(at) {
            Some(b'"') => {
                at = skip_string(src, at)?;
                continue;
            }
            Some(b'{') => closers.push(b'}'),
            Some(b'[') => closers.push(b']'),
            Some(closer @ (b'}' | b']')) => {
                if closers.pop() != Some(*closer) {
                    return Err(Fault::new(src, at, "brackets that do not match"));
                }
                if closers.is_empty() {
                    return Ok(at + 1);
                }
            }
            Some(_) => {}
            None => return Err(Fault::new(src, at, "no end")),
        }
        at += 1;
    }
}

/// Finds the end of the string whose opening quote is at `at`.
pub(crate) fn skip_string(src: &[u8], at: usize) -> Result<usize, Fault> {
    let mut at = at + 1;
    loop {
        at = plain_end(src, at);
        match src.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return Err(Fault::new(src, src.len(), "no end")),
        }
    }
}

fn skip_word(src: &[u8], at: usize) -> Result<usize, Fault> {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    match src.iter().skip(at).take_while(|byte| word(byte)).count() {
        0 => Err(Fault::new(src, at, "no value")),
        length => Ok(at + length),
    }
}

/// The first byte from `at` on that is not white space.
pub(crate) fn skip_blank(src: &[u8], at: usize) -> usize {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    src[at..].iter().position(|byte| !blank(byte)).map_or(src.len(), |length| at + length)
}

/// The first quote, backslash or control character from `at` on, or the end.
#[inline]
fn plain_end(src: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES * 0x80;
    while let Some(word) = src.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let below = |value: u64, limit: u64| value.wrapping_sub(ONES * limit) & !value;
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        // A borrow can only spoil flags above the lowest one set, so the lowest is exact.
        let special = (quote | backslash | below(word, 0x20)) & HIGHS;
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    let rest = src.get(at..).unwrap_or_default();
    rest.iter().position(special).map_or(src.len(), |length| at + length)
}

/// The end of the number that starts at `at`, if one does.
pub(crate) fn number_end(src: &[u8], at: usize) -> Option<usize> {
    let digits = |at: usize| {
        let end = at + src.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (end > at).then_some(end)
    };
    let whole = at + usize::from(src.get(at) == Some(&b'-'));
    let mut end = if src.get(whole) == Some(&b'0') { whole + 1 } else { digits(whole)? };
    if src.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if let Some(b'e' | b'E') = src.get(end) {
        let signed = matches!(src.get(end + 1), Some(b'+' | b'-'));
        end = digits(end + 1 + usize::from(signed))?;
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_its_brackets_do_whatever_is_inside() {
        for (text, rest) in [
            (&br#"{"a":[1,{"b":"]}\"["}]},"#[..], ","),
            (b"[nul,\xFF,,]}".as_slice(), "}"),
            (br"[tru 'e' \x]]", "]"),
            (br#""a\\" "#, " "),
            (b"-1.5e+3,", ","),
            (b"undefined}", "}"),
            (b"\"raw \n newline\"]", "]"),
        ] {
            let end = skip_value(text, 0).unwrap();

            assert_eq!(text[end..], *rest.as_bytes());
        }
    }

    #[test]
    fn a_value_that_never_ends_is_cut_short() {
        for text in ["", "{", "[{}", "\"a", "\"a\\", "\"a\\\"", "{\"a"] {
            let fault = skip_value(text.as_bytes(), 0).unwrap_err();

            assert_eq!(fault.reason, "cut short", "{text}");
            assert_eq!(fault.at, text.len());
        }
    }

    #[test]
    fn brackets_of_two_kinds_do_not_match() {
        let fault = skip_value(br#"{"a":[1}"#, 0).unwrap_err();

        assert_eq!(fault.to_string(), "brackets that do not match at byte 7");
    }

    #[test]
    fn what_starts_like_no_value_is_none() {
        for text in [",", "]", "}", ":", "'a'", "<html>", "\\", "\u{e9}"] {
            assert_eq!(skip_value(text.as_bytes(), 0).unwrap_err().reason, "no value", "{text}");
        }
    }

    #[test]
    fn the_end_of_plain_text_is_found_at_every_offset() {
        for special in [b'"', b'\\', 0, 0x1F] {
            for length in 0..40 {
                // Bytes next to the special ones, which a careless borrow would flag.
                let mut text: Vec<u8> =
                    [0x20, 0x7F, 0x80, 0xA2, 0xDC, 0xFF, b'#', b'!', b']', b'[']
                        .into_iter()
                        .cycle()
                        .take(length)
                        .collect();
                text.push(special);
                text.extend_from_slice(b"\"\\\0\x01 tail of it");

                assert_eq!(plain_end(&text, 0), length);
                assert_eq!(plain_end(&text[..length], 0), length);
            }
        }
    }

    #[test]
    fn numbers_end_where_the_grammar_says() {
        for (text, end) in [
            ("0", Some(1)),
            ("-0.0e-0,", Some(7)),
            ("01", Some(1)),
            ("18446744073709551616", Some(20)),
            ("1e400", Some(5)),
            ("1.", None),
            ("1.e1", None),
            (".5", None),
            ("-", None),
            ("+1", None),
            ("1e", None),
            ("1e+", None),
            ("NaN", None),
            ("", None),
        ] {
            assert_eq!(number_end(text.as_bytes(), 0), end, "{text}");
        }
    }
}
