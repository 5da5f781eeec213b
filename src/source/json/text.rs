//! What a string means: its escapes decoded.

use std::borrow::Cow;

use memchr::memchr;

const REPLACEMENT: u32 = 0xFFFD;

/// Appends the text between a string's quotes, lone surrogates as WTF-8 has them, so that unequal
/// strings stay unequal. What is no escape is copied as it is.
pub(crate) fn decode(inner: &[u8], out: &mut Vec<u8>) {
    decode_with(inner, out, |lone| lone);
}

/// The text between a string's quotes; lone surrogates and bytes that are not UTF-8 become U+FFFD.
pub(crate) fn decode_lossy(inner: &[u8]) -> Cow<'_, str> {
    if memchr(b'\\', inner).is_none() {
        return String::from_utf8_lossy(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    decode_with(inner, &mut out, |_| REPLACEMENT);
    match String::from_utf8(out) {
        Ok(text) => Cow::Owned(text),
        Err(bad) => Cow::Owned(String::from_utf8_lossy(bad.as_bytes()).into_owned()),
    }
}

/// True when the text between a string's quotes means `text`.
pub(crate) fn is_same(inner: &[u8], text: &[u8]) -> bool {
    if memchr(b'\\', inner).is_none() {
        return inner == text;
    }
    let mut out = Vec::with_capacity(inner.len());
    decode(inner, &mut out);
    out == text
}

/// The code unit written in the four bytes from `at` on.
pub(super) fn hex4(src: &[u8], at: usize) -> Option<u32> {
    src.get(at..at + 4)?
        .iter()
        .try_fold(0, |unit, byte| Some(unit << 4 | char::from(*byte).to_digit(16)?))
}

fn decode_with(inner: &[u8], out: &mut Vec<u8>, lone: impl Fn(u32) -> u32) {
    let mut rest = inner;
    while let Some(length) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
        rest = &rest[decode_escape(rest, out, &lone)..];
    }
    out.extend_from_slice(rest);
}

/// Decodes the escape at the start of `rest` and tells its length.
fn decode_escape(rest: &[u8], out: &mut Vec<u8>, lone: impl Fn(u32) -> u32) -> usize {
    let byte = match rest.get(1) {
        Some(b'u') => return decode_unit(rest, out, lone),
        Some(b'b') => 8,
        Some(b'f') => 12,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
        _ => {
            out.push(b'\\');
            return 1;
        }
    };
    out.push(byte);
    2
}

fn decode_unit(rest: &[u8], out: &mut Vec<u8>, lone: impl Fn(u32) -> u32) -> usize {
    let Some(unit) = hex4(rest, 2) else {
        out.push(b'\\');
        return 1;
    };
    if !(0xD800..0xE000).contains(&unit) {
        push(unit, out);
        return 6;
    }
    let follows = || hex4(rest.get(6..)?.strip_prefix(b"\\u")?, 0);
    match follows() {
        Some(low @ 0xDC00..0xE000) if unit < 0xDC00 => {
            push(0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00), out);
            12
        }
        _ => {
            push(lone(unit), out);
            6
        }
    }
}

/// Appends a code point, a surrogate in the three bytes that its number would have.
fn push(point: u32, out: &mut Vec<u8>) {
    if let Some(char) = char::from_u32(point) {
        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        return;
    }
    let [high, low] = [point >> 6 & 0x3F, point & 0x3F].map(|bits| 0x80 | bits);
    out.extend([0xED, high, low].map(|byte| u8::try_from(byte).expect("six bits and a mark")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(inner: &str) -> Vec<u8> {
        let mut out = Vec::new();
        decode(inner.as_bytes(), &mut out);
        out
    }

    #[test]
    fn escapes_become_what_they_stand_for() {
        let inner = r#"a\"\\\/\b\f\n\r\t\u0041\u00e9\u0000\u2028\uD83D\ude00"#;

        assert_eq!(decoded(inner), "a\"\\/\u{8}\u{c}\n\r\tA\u{e9}\0\u{2028}\u{1F600}".as_bytes());
    }

    #[test]
    fn lone_surrogates_stay_distinct() {
        assert_eq!(decoded(r"\ud800"), b"\xED\xA0\x80");
        assert_eq!(decoded(r"\udfff"), b"\xED\xBF\xBF");
        assert_eq!(decoded(r"\udc00\ud800"), b"\xED\xB0\x80\xED\xA0\x80");
        assert_eq!(decoded(r"\ud800\ud83d\ude00"), b"\xED\xA0\x80\xF0\x9F\x98\x80");
    }

    #[test]
    fn lone_surrogates_are_replaced_in_text_for_people() {
        assert_eq!(decode_lossy(br"a\ud800b\udc00"), "a\u{FFFD}b\u{FFFD}");
        assert_eq!(decode_lossy(b"a\xFF\\n"), "a\u{FFFD}\n");
    }

    #[test]
    fn what_is_no_escape_is_copied() {
        for inner in [r"\", r"\x", r"\u12", r"\u12\u0041x", r"a\ud8"] {
            assert!(decoded(inner).starts_with(&inner.as_bytes()[..1]), "{inner}");
        }
        assert_eq!(decoded(r"\u12\u0041"), br"\u12A");
    }
}
