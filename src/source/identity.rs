//! What makes two records copies of each other.
//!
//! A digest is the first 128 bits of SHA-256 over a canonical form, which must never change:
//! every stored digest would be a stranger. One byte says what follows: `01` a whole record, `02`
//! the values at the identity pointers in their order.
//! A value is `n`, `t` or `f`; `#`, the number's source text and `FF`; `"`, the string in WTF-8
//! with escapes decoded and `FF`; `[`, the elements and `]`; `{`, each key as a string followed by
//! its value, and `}`; or `-` where a pointer finds none. Keys are sorted by their bytes; equal
//! ones stay in their order. `FF` is in no WTF-8, so that no two values have one form.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use crate::event::Digest;
use crate::source::json::{self, Kind, Pointer, Value};

const RECORD: u8 = 1;
const IDENTITY: u8 = 2;
const END: u8 = 0xFF;

/// Makes digests; keeps its buffers from record to record.
#[derive(Debug)]
pub struct Digester<'a> {
    identity: &'a [Pointer],
    form: Vec<u8>,
    frames: Vec<Frame>,
    members: Vec<Member>,
    keys: Vec<u8>,
}

impl<'a> Digester<'a> {
    /// Tells records apart by the values at these pointers; with none, by all they hold.
    pub fn new(identity: &'a [Pointer]) -> Self {
        let (form, frames, members, keys) = Default::default();
        Self { identity, form, frames, members, keys }
    }

    /// The digest of a record.
    pub fn digest(&mut self, record: Value<'_>) -> Digest {
        self.form.clear();
        if self.identity.is_empty() {
            self.form.push(RECORD);
            self.append(record);
        } else {
            self.form.push(IDENTITY);
            for pointer in self.identity {
                match record.find(pointer) {
                    Some(value) => self.append(value),
                    None => self.form.push(b'-'),
                }
            }
        }
        truncate(&Sha256::digest(&self.form))
    }

    fn append(&mut self, value: Value<'_>) {
        self.enter(value);
        while let Some(frame) = self.frames.last_mut() {
            let next = frame.next;
            if next == frame.end {
                self.leave();
                continue;
            }
            match frame.kind {
                FrameKind::Array => {
                    let element = value.at(next);
                    frame.next = element.next_index();
                    self.enter(element);
                }
                FrameKind::Object { .. } => {
                    frame.next += 1;
                    let member = &self.members[next];
                    let key = value.at(member.key);
                    append_text(&mut self.form, member.text(value, &self.keys));
                    self.enter(value.at(key.next_index()));
                }
            }
        }
    }

    /// Appends a scalar; of a container, the opening bracket, and a frame for the rest.
    fn enter(&mut self, value: Value<'_>) {
        match value.kind() {
            Kind::Null => self.form.push(b'n'),
            Kind::True => self.form.push(b't'),
            Kind::False => self.form.push(b'f'),
            Kind::Number => {
                self.form.push(b'#');
                self.form.extend_from_slice(value.raw());
                self.form.push(END);
            }
            Kind::String if value.is_escaped() => {
                self.form.push(b'"');
                json::decode(value.inner(), &mut self.form);
                self.form.push(END);
            }
            Kind::String => append_text(&mut self.form, value.inner()),
            Kind::Array => {
                self.form.push(b'[');
                let (next, end) = (value.index() + 1, value.next_index());
                self.frames.push(Frame { next, end, kind: FrameKind::Array });
            }
            Kind::Object => self.enter_object(value),
        }
    }

    fn enter_object(&mut self, object: Value<'_>) {
        self.form.push(b'{');
        let (members, keys) = (self.members.len(), self.keys.len());
        for key in object.children().step_by(2) {
            let start = self.keys.len();
            if key.is_escaped() {
                json::decode(key.inner(), &mut self.keys);
            }
            let decoded = start..self.keys.len();
            self.members.push(Member { head: 0, key: key.index(), decoded });
        }
        let (own, keys_text) = (&mut self.members[members..], &self.keys);
        for member in &mut *own {
            member.head = head(member.text(object, keys_text));
        }
        // Stable: duplicate keys stay in their order.
        own.sort_by(|a, b| {
            let rest = || a.text(object, keys_text).cmp(b.text(object, keys_text));
            a.head.cmp(&b.head).then_with(rest)
        });
        let end = self.members.len();
        self.frames.push(Frame { next: members, end, kind: FrameKind::Object { members, keys } });
    }

    fn leave(&mut self) {
        match self.frames.pop().map(|frame| frame.kind) {
            Some(FrameKind::Object { members, keys }) => {
                self.form.push(b'}');
                self.members.truncate(members);
                self.keys.truncate(keys);
            }
            _ => self.form.push(b']'),
        }
    }
}

/// A container whose form is being made.
#[derive(Debug)]
struct Frame {
    /// In an array the tape's index of the next element, in an object the next member.
    next: usize,
    end: usize,
    kind: FrameKind,
}

#[derive(Debug)]
enum FrameKind {
    Array,
    /// Where the object's own members and decoded keys begin.
    Object {
        members: usize,
        keys: usize,
    },
}

/// A member of an object on the way to its place.
#[derive(Debug)]
struct Member {
    /// The first bytes of the key, which settle most comparisons.
    head: u64,
    key: usize,
    decoded: Range<usize>,
}

impl Member {
    /// The key's text; `keys` holds those that had to be decoded.
    #[inline]
    fn text<'t>(&self, tape: Value<'t>, keys: &'t [u8]) -> &'t [u8] {
        let key = tape.at(self.key);
        if key.is_escaped() { &keys[self.decoded.clone()] } else { key.inner() }
    }
}

fn head(text: &[u8]) -> u64 {
    if let Some(head) = text.first_chunk() {
        return u64::from_be_bytes(*head);
    }
    let mut head = [0; 8];
    head[..text.len()].copy_from_slice(text);
    u64::from_be_bytes(head)
}

fn append_text(form: &mut Vec<u8>, text: &[u8]) {
    form.push(b'"');
    form.extend_from_slice(text);
    form.push(END);
}

fn truncate(hash: &[u8]) -> Digest {
    let (first, _) = hash.split_first_chunk().expect("SHA-256 has 32 bytes");
    Digest(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::json::Tape;
    use crate::source::json::arbitrary::{self, Choices, Style};

    fn digest_by(text: &str, identity: &[&str]) -> Digest {
        let (mut tape, mut bytes) = (Tape::default(), Vec::new());
        tape.read(text.as_bytes(), 0, &mut bytes).unwrap();
        let identity: Vec<Pointer> = identity.iter().map(|text| text.parse().unwrap()).collect();
        Digester::new(&identity).digest(tape.value(&bytes))
    }

    fn digest(text: &str) -> Digest {
        digest_by(text, &[])
    }

    #[test]
    fn the_canonical_form_is_the_one_that_is_stored() {
        let text = r#"{"b":[1.0,null,true,false,{}],"\u0061":"\/"}"#;
        let form = b"\x01{\"a\xFF\"/\xFF\"b\xFF[#1.0\xFFntf{}]}";

        assert_eq!(digest(text), truncate(&Sha256::digest(form)));
    }

    #[test]
    fn the_form_of_an_identity_marks_what_is_absent() {
        let form = b"\x02\"x\xFF-#1\xFF";

        let digest = digest_by(r#"{"id":"x","n":1,"other":2}"#, &["/id", "/gone", "/n"]);

        assert_eq!(digest, truncate(&Sha256::digest(form)));
    }

    #[test]
    fn copies_have_one_digest() {
        for (one, other) in [
            (r#"{"a":1,"b":2}"#, r#" { "b" : 2, "a" : 1 } "#),
            (r#"{"a":"A"}"#, r#"{"\u0061":"\u0041"}"#),
            (r#"{"a":"/"}"#, r#"{"a":"\/"}"#),
            (r#"{"a":"\ud83d\ude00"}"#, "{\"a\":\"\u{1F600}\"}"),
            (r#"{"a":"\ud800"}"#, r#"{"a":"\uD800"}"#),
            (r#"{"o":{"x":{"p":1,"q":2},"a":0}}"#, r#"{"o":{"a":0,"x":{"q":2,"p":1}}}"#),
        ] {
            assert_eq!(digest(one), digest(other), "{one} {other}");
        }
    }

    #[test]
    fn whatever_differs_has_another_digest() {
        let texts = [
            r#"{"a":1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e0}"#,
            r#"{"a":"1"}"#,
            r#"{"a":[1]}"#,
            r#"{"a":[]}"#,
            r#"{"a":{}}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":[[1],2]}"#,
            r#"{"a":[[1,2]]}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":2,"a":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":null}"#,
            r#"{"a":"null"}"#,
            r#"{"a":true}"#,
            r#"{"a":false}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\udc00"}"#,
            "{\"a\":\"\u{FFFD}\"}",
            r#"{"a":"\udc00\ud800"}"#,
            r#"{"a":18446744073709551616}"#,
            r#"{"a":18446744073709551617}"#,
            r#"{"a":"x\u0000"}"#,
            r#"{"a":"x"}"#,
            r#"{"a":"x","b":""}"#,
            r#"{"a\u0000":"x"}"#,
            "{}",
        ];
        let mut digests: Vec<_> = texts.iter().map(|text| digest(text)).collect();

        let count = digests.len();
        digests.sort();
        digests.dedup();

        assert_eq!(digests.len(), count);
    }

    #[test]
    fn an_identity_looks_at_nothing_else() {
        let by_id = |text| digest_by(text, &["/id", "/o/k"]);

        assert_eq!(by_id(r#"{"id":1,"read":1}"#), by_id(r#"{"read":2,"id":1}"#));
        assert_eq!(
            by_id(r#"{"id":1,"o":{"k":{"x":1,"y":2}}}"#),
            by_id(r#"{"id":1,"o":{"k":{"y":2,"x":1}}}"#)
        );
        assert_ne!(by_id(r#"{"id":1,"o":{"k":null}}"#), by_id(r#"{"id":1}"#));
        assert_ne!(by_id(r#"{"id":1}"#), by_id(r#"{"o":{"k":1}}"#));
        assert_ne!(by_id(r#"{"id":1}"#), digest(r#"{"id":1}"#));
    }

    #[test]
    fn great_depth_and_many_keys_are_digested() {
        let depth = 100_000;
        let deep = "{\"b\":0,\"\\u0061\":".repeat(depth) + "1" + &"}".repeat(depth);
        let turned = "{\"a\":".repeat(depth) + "1" + &",\"b\":0}".repeat(depth);
        let arrays = "[".repeat(depth) + &"]".repeat(depth);
        let keys: Vec<_> =
            (0..1_000_000).map(|key| format!("\"a common start {key}\":{key}")).collect();
        let back: Vec<_> = keys.iter().rev().map(String::as_str).collect();

        assert_eq!(digest(&deep), digest(&turned));
        assert_ne!(digest(&arrays), digest(&deep));
        assert_eq!(
            digest(&format!("{{{}}}", keys.join(","))),
            digest(&format!("{{{}}}", back.join(",")))
        );
    }

    proptest! {
        #[test]
        fn another_way_to_write_a_record_keeps_its_digest(
            record in arbitrary::object(),
            seed: u64,
        ) {
            let written = arbitrary::write(&record, Style::Any, &mut Choices::new(seed));

            prop_assert_eq!(digest(&written), digest(&record.to_string()));
        }

        #[test]
        fn any_change_to_a_record_changes_its_digest(record in arbitrary::object(), seed: u64) {
            let mut changed = record.clone();
            arbitrary::change(&mut changed, &mut Choices::new(seed));

            prop_assert_ne!(digest(&changed.to_string()), digest(&record.to_string()));
        }
    }
}
