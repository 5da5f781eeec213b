//! The strict half: one value checked, compacted and laid out as tokens.
//!
//! Promises one pass over the value and no allocation once the buffers have grown.

use std::borrow::Cow;
use std::str;

use super::text::hex4;
use super::{Fault, Pointer, decode_lossy, is_same, number_end, plain_end, skip_blank};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`
    True,
    /// `false`
    False,
    /// A number of any size.
    Number,
    /// A string; also a key.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A token: 16 bytes, so that a body of two-byte tokens stays affordable.
#[derive(Clone, Copy, Debug)]
struct Node {
    kind: Kind,
    escaped: bool,
    start: u32,
    end: u32,
    /// The node behind this value and all it contains.
    next: u32,
}

/// The tokens of one value that was checked; reused from value to value.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: Vec<Node>,
    open: Vec<u32>,
}

impl Tape {
    /// Checks the value that starts at `at` against RFC 8259, appends it to `out` without white
    /// space between tokens, and tells where it ends in `src`.
    ///
    /// On a fault `out` is left as it was, and the tape holds nothing of use.
    pub fn read(&mut self, src: &[u8], at: usize, out: &mut Vec<u8>) -> Result<usize, Fault> {
        let length = out.len();
        let read =
            self.read_into(src, at, out).and_then(|end| match str::from_utf8(&out[length..]) {
                Ok(_) => Ok(end),
                Err(_) => Err(Fault { at, reason: "not valid UTF-8" }),
            });
        read.inspect_err(|_| out.truncate(length))
    }

    fn read_into(&mut self, src: &[u8], at: usize, out: &mut Vec<u8>) -> Result<usize, Fault> {
        if u32::try_from(src.len() - at).is_err() {
            return Err(Fault { at, reason: "longer than 4 GiB" });
        }
        self.nodes.clear();
        self.open.clear();
        let (nodes, open) = (&mut self.nodes, &mut self.open);
        let mut reader = Reader { src, at, origin: at, copied: at, out, nodes, open };
        reader.read()?;
        let (end, copied) = (reader.at, reader.copied);
        out.extend_from_slice(&src[copied..end]);
        Ok(end)
    }

    /// The value that was read last; `bytes` is what [`Tape::read`] appended for it.
    pub fn value<'a>(&'a self, bytes: &'a [u8]) -> Value<'a> {
        Value { nodes: &self.nodes, bytes, index: 0 }
    }
}

struct Reader<'a> {
    src: &'a [u8],
    at: usize,
    /// A position minus this is the position in the compacted value.
    origin: usize,
    /// What is in front of this has been copied or left out.
    copied: usize,
    out: &'a mut Vec<u8>,
    nodes: &'a mut Vec<Node>,
    open: &'a mut Vec<u32>,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), Fault> {
        loop {
            match self.value()? {
                Some(Kind::Object) => self.key()?,
                None if self.close_all()? => return Ok(()),
                _ => {}
            }
        }
    }

    /// Reads a scalar or an empty container, or opens a container and tells which.
    #[inline]
    fn value(&mut self) -> Result<Option<Kind>, Fault> {
        self.skip_blank();
        let start = self.offset();
        let kind = match self.peek() {
            b'"' => {
                self.string()?;
                return Ok(None);
            }
            b'{' => return Ok(self.open(Kind::Object)),
            b'[' => return Ok(self.open(Kind::Array)),
            b't' => self.literal(b"true", Kind::True)?,
            b'f' => self.literal(b"false", Kind::False)?,
            b'n' => self.literal(b"null", Kind::Null)?,
            _ => {
                let end = number_end(self.src, self.at);
                self.at = end.ok_or_else(|| self.fault("no value"))?;
                Kind::Number
            }
        };
        self.push(kind, false, start);
        Ok(None)
    }

    fn literal(&mut self, text: &[u8], kind: Kind) -> Result<Kind, Fault> {
        if !self.src[self.at..].starts_with(text) {
            return Err(self.fault("no value"));
        }
        self.at += text.len();
        Ok(kind)
    }

    fn open(&mut self, kind: Kind) -> Option<Kind> {
        self.open.push(narrow(self.nodes.len()));
        self.push(kind, false, self.offset());
        self.at += 1;
        self.skip_blank();
        let closer = if kind == Kind::Object { b'}' } else { b']' };
        if self.peek() != closer {
            return Some(kind);
        }
        self.close();
        None
    }

    fn close(&mut self) {
        self.at += 1;
        let (end, next) = (self.offset(), narrow(self.nodes.len()));
        let index = self.open.pop().expect("a container is open");
        let node = &mut self.nodes[index as usize];
        (node.end, node.next) = (end, next);
    }

    /// Goes on behind a value; true when it was the outermost.
    #[inline]
    fn close_all(&mut self) -> Result<bool, Fault> {
        while let Some(&index) = self.open.last() {
            let kind = self.nodes[index as usize].kind;
            self.skip_blank();
            match (self.peek(), kind) {
                (b',', _) => {
                    self.at += 1;
                    if kind == Kind::Object {
                        self.key()?;
                    }
                    return Ok(false);
                }
                (b'}', Kind::Object) | (b']', Kind::Array) => self.close(),
                _ => return Err(self.fault("neither a comma nor the closing bracket")),
            }
        }
        Ok(true)
    }

    #[inline]
    fn key(&mut self) -> Result<(), Fault> {
        self.skip_blank();
        if self.peek() != b'"' {
            return Err(self.fault("no key"));
        }
        self.string()?;
        self.skip_blank();
        if self.peek() != b':' {
            return Err(self.fault("no colon behind a key"));
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn string(&mut self) -> Result<(), Fault> {
        let start = self.offset();
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at = plain_end(self.src, self.at);
            match self.peek() {
                b'"' => break,
                b'\\' => self.escape()?,
                _ => return Err(self.fault("a control character in a string")),
            }
            escaped = true;
        }
        self.at += 1;
        self.push(Kind::String, escaped, start);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let length = match self.src.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') if hex4(self.src, self.at + 2).is_some() => 6,
            _ => return Err(self.fault("an escape that is none")),
        };
        self.at += length;
        Ok(())
    }

    /// The next byte; NUL, which stands for nothing outside strings, at the end.
    #[inline]
    fn peek(&self) -> u8 {
        self.src.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn skip_blank(&mut self) {
        if self.peek() <= b' ' {
            self.leave_out_blank();
        }
    }

    fn leave_out_blank(&mut self) {
        let end = skip_blank(self.src, self.at);
        self.out.extend_from_slice(&self.src[self.copied..self.at]);
        self.origin += end - self.at;
        (self.at, self.copied) = (end, end);
    }

    #[inline]
    fn offset(&self) -> u32 {
        narrow(self.at - self.origin)
    }

    #[inline]
    fn push(&mut self, kind: Kind, escaped: bool, start: u32) {
        let next = narrow(self.nodes.len() + 1);
        self.nodes.push(Node { kind, escaped, start, end: self.offset(), next });
    }

    fn fault(&self, reason: &'static str) -> Fault {
        Fault::new(self.src, self.at, reason)
    }
}

#[inline]
fn narrow(position: usize) -> u32 {
    u32::try_from(position).expect("a value longer than 4 GiB is refused before it is read")
}

/// One value of a tape.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    nodes: &'a [Node],
    bytes: &'a [u8],
    index: usize,
}

impl<'a> Value<'a> {
    /// What it is.
    #[inline]
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// Its text, quotes and brackets included.
    #[inline]
    pub fn raw(self) -> &'a [u8] {
        let node = self.node();
        &self.bytes[node.start as usize..node.end as usize]
    }

    /// What is between a string's quotes, escapes and all.
    #[inline]
    pub(crate) fn inner(self) -> &'a [u8] {
        let node = self.node();
        &self.bytes[node.start as usize + 1..node.end as usize - 1]
    }

    /// True for a string with escapes in it.
    #[inline]
    pub(crate) fn is_escaped(self) -> bool {
        self.node().escaped
    }

    /// A string's text, each lone surrogate replaced by U+FFFD; of a number or a truth value, its
    /// source. None for anything else.
    pub fn text(self) -> Option<Cow<'a, str>> {
        match self.kind() {
            Kind::String => Some(decode_lossy(self.inner())),
            Kind::Number | Kind::True | Kind::False => Some(String::from_utf8_lossy(self.raw())),
            Kind::Null | Kind::Array | Kind::Object => None,
        }
    }

    /// The value that the pointer names; the first of duplicate keys.
    pub fn find(self, pointer: &Pointer) -> Option<Self> {
        pointer.segments().iter().try_fold(self, |value, segment| match value.kind() {
            Kind::Object => value.member(segment.key().as_bytes()),
            Kind::Array => value.children().nth(segment.index()?),
            _ => None,
        })
    }

    fn member(self, name: &[u8]) -> Option<Self> {
        let mut keys = self.children();
        while let Some(key) = keys.next() {
            let value = keys.next()?;
            let same =
                if key.is_escaped() { is_same(key.inner(), name) } else { key.inner() == name };
            if same {
                return Some(value);
            }
        }
        None
    }

    /// The values in an array; in an object, its keys and values in turn.
    pub(crate) fn children(self) -> Children<'a> {
        Children { next: self.at(self.index + 1), end: self.node().next as usize }
    }

    /// The same tape, at another place.
    #[inline]
    pub(crate) fn at(self, index: usize) -> Self {
        Self { index, ..self }
    }

    /// Where in the tape it is.
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.index
    }

    /// Where in the tape the value behind it is.
    #[inline]
    pub(crate) fn next_index(self) -> usize {
        self.node().next as usize
    }

    #[inline]
    fn node(self) -> &'a Node {
        &self.nodes[self.index]
    }
}

/// Walks the children of one container.
pub(crate) struct Children<'a> {
    next: Value<'a>,
    end: usize,
}

impl<'a> Iterator for Children<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        let child = self.next;
        if child.index >= self.end {
            return None;
        }
        self.next = child.at(child.next_index());
        Some(child)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::super::arbitrary::{self, Choices, Style};
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut out = b"before".to_vec();
        let read = Tape::default().read(text, 0, &mut out);
        assert!(read.is_ok() || out == b"before");
        assert!(read.is_err() || skip_blank(text, read.unwrap()) == text.len());
        read.map(|_| out.split_off(6))
    }

    fn fault(text: impl AsRef<[u8]>) -> &'static str {
        read(text.as_ref()).unwrap_err().reason
    }

    #[test]
    fn what_the_grammar_allows_stays_byte_for_byte() {
        for text in [
            r#"{"a":1,"a":2,"":3}"#,
            r#"["\ud800","\udc00\ud800x","\ud83d\ude00","\u0000"]"#,
            "[18446744073709551616,1e400,-0,-0.0E-10,123456789012345678901234567890.5]",
            "[\"\u{2028}\u{2029}\u{7f}\u{feff}\u{10ffff}\"]",
            r#"["\"\\\/\b\f\n\r\t\u00e9\uABcd"]"#,
            "[true,false,null,[],{},\"\",[[{}]]]",
        ] {
            assert_eq!(read(text.as_bytes()).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn white_space_goes_only_outside_strings() {
        let text = "\n{ \"a b\\n\" :\t[ 1 , \" 2 \" ,[ ] , { } ]\r\n}";

        assert_eq!(read(text.as_bytes()).unwrap(), br#"{"a b\n":[1," 2 ",[],{}]}"#);
    }

    #[test]
    fn what_the_grammar_forbids_is_told() {
        for (text, reason) in [
            ("[\"a\tb\"]", "a control character in a string"),
            ("[\"a\0\"]", "a control character in a string"),
            (r#"["\x"]"#, "an escape that is none"),
            (r#"["\u12g4"]"#, "an escape that is none"),
            (r#"["\u+123"]"#, "an escape that is none"),
            ("[1,]", "no value"),
            ("[,1]", "no value"),
            ("[nul]", "no value"),
            ("[NaN]", "no value"),
            ("[+1]", "no value"),
            ("[01]", "neither a comma nor the closing bracket"),
            ("[truex]", "neither a comma nor the closing bracket"),
            ("[1}", "neither a comma nor the closing bracket"),
            ("[1 2]", "neither a comma nor the closing bracket"),
            ("['a']", "no value"),
            ("[1\u{b}]", "neither a comma nor the closing bracket"),
            ("{\"a\":1,}", "no key"),
            ("{a:1}", "no key"),
            ("{1:1}", "no key"),
            ("{\"a\" 1}", "no colon behind a key"),
            ("{\"a\"}", "no colon behind a key"),
            ("{\"a\":}", "no value"),
            ("[\u{a0}1]", "no value"),
            ("[1", "cut short"),
            ("{\"a", "cut short"),
            ("{\"a\"", "cut short"),
            ("{", "cut short"),
            ("", "cut short"),
        ] {
            assert_eq!(fault(text), reason, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_told() {
        for bytes in [&b"\xFF"[..], b"\xC3", b"\xED\xA0\x80", b"\xC0\x80", b"\xF4\x90\x80\x80"] {
            assert_eq!(fault([b"[\"", bytes, b"\"]"].concat()), "not valid UTF-8");
        }
    }

    #[test]
    fn depth_and_width_have_no_limit() {
        let depth = 100_000;
        let arrays = "[".repeat(depth) + &"]".repeat(depth);
        let objects = "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        let keys: Vec<_> = (0..1_000_000).map(|key| format!("\"{key}\":0")).collect();
        let wide = format!("{{{}}}", keys.join(","));
        let long = format!("\"{}\"", "x".repeat(1 << 20));

        for text in [arrays, objects, wide, long] {
            assert!(read(text.as_bytes()).unwrap() == text.as_bytes());
        }
    }

    #[test]
    fn a_tape_is_used_again_after_a_fault() {
        let (mut tape, mut out) = (Tape::default(), Vec::new());
        tape.read(b"[[[[\"a\",}", 0, &mut out).unwrap_err();

        let end = tape.read(b" , {\"a\": 7}, ", 3, &mut out).unwrap();

        assert_eq!(end, 11);
        assert_eq!(tape.value(&out).find(&"/a".parse().unwrap()).unwrap().raw(), b"7");
    }

    fn found(text: &str, pointer: &str) -> Option<String> {
        let (mut tape, mut out) = (Tape::default(), Vec::new());
        tape.read(text.as_bytes(), 0, &mut out).unwrap();
        let value = tape.value(&out).find(&pointer.parse().unwrap())?;
        Some(String::from_utf8(value.raw().to_vec()).unwrap())
    }

    #[test]
    fn pointers_lead_through_objects_and_arrays() {
        let text = r#" { "a" : [ 10, {"b/~": [[], "x"]}, 30 ], "": {"0": 1}, "\u0061b": 5 } "#;
        for (pointer, value) in [
            ("/a/0", Some("10")),
            ("/a/1/b~1~0/1", Some("\"x\"")),
            ("/a/2", Some("30")),
            ("/a/3", None),
            ("/a/00", None),
            ("/a/-", None),
            ("/a/0/0", None),
            ("/", Some(r#"{"0":1}"#)),
            ("//0", Some("1")),
            ("/ab", Some("5")),
            ("/b", None),
        ] {
            assert_eq!(found(text, pointer).as_deref(), value, "{pointer}");
        }
        assert_eq!(found("[1, 2]", "").as_deref(), Some("[1,2]"));
    }

    #[test]
    fn the_first_of_duplicate_keys_is_found() {
        assert_eq!(found(r#"{"a":1,"\u0061":2,"a":3}"#, "/a").as_deref(), Some("1"));
    }

    proptest! {
        #[test]
        fn compacting_spaced_json_gives_what_was_spaced(
            value in arbitrary::value(),
            seed: u64,
        ) {
            let spaced = arbitrary::write(&value, Style::Spaced, &mut Choices::new(seed));

            prop_assert_eq!(read(spaced.as_bytes()).unwrap(), value.to_string().into_bytes());
        }

        #[test]
        fn the_check_agrees_with_serde_json(value in arbitrary::value(), seed: u64) {
            let choices = &mut Choices::new(seed);
            let mut text = arbitrary::write(&value, Style::Any, choices).into_bytes();
            arbitrary::spoil(&mut text, choices);

            // A raw value has no limits on surrogates, numbers and depth either.
            let theirs = serde_json::from_slice::<Box<RawValue>>(&text);
            let (mut tape, mut out) = (Tape::default(), Vec::new());
            let ours = tape.read(&text, 0, &mut out);
            let whole = ours.is_ok_and(|end| skip_blank(&text, end) == text.len());

            prop_assert_eq!(whole, theirs.is_ok(), "{:?}", String::from_utf8_lossy(&text));
        }

        #[test]
        fn what_is_sound_ends_where_its_brackets_do(value in arbitrary::value(), seed: u64) {
            let choices = &mut Choices::new(seed);
            let mut text = arbitrary::write(&value, Style::Any, choices).into_bytes();
            arbitrary::spoil(&mut text, choices);
            let start = skip_blank(&text, 0);

            if let Ok(end) = Tape::default().read(&text, start, &mut Vec::new()) {
                // A number that runs into letters is a word to one and a number to the other.
                let next = text.get(end).copied().unwrap_or(b' ');
                if !next.is_ascii_alphanumeric() && !matches!(next, b'.' | b'+' | b'-') {
                    prop_assert_eq!(super::super::skip_value(&text, start), Ok(end));
                }
            }
        }
    }
}
