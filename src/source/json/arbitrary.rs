//! JSON values for property tests, and ways to write one value in many forms.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::Value;

/// Any value, four levels deep at most.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            members(inner),
        ]
    })
}

/// Any object.
pub(crate) fn object() -> impl Strategy<Value = Value> {
    members(value())
}

fn members(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(text(), inner, 0..6)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

fn text() -> impl Strategy<Value = String> {
    let char = prop_oneof![
        any::<char>(),
        prop::sample::select(vec!['a', 'b', '"', '\\', '/', '\n', '\0', '\u{2028}', '\u{1F600}']),
    ];
    prop::collection::vec(char, 0..12).prop_map(String::from_iter)
}

/// Choices that a test case makes on the way.
pub(crate) struct Choices(u64);

impl Choices {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// How a value is written.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Style {
    /// As `serde_json` does, with white space between the tokens.
    Spaced,
    /// Keys in any order, strings with any escapes, white space too.
    Any,
}

pub(crate) fn write(value: &Value, style: Style, choices: &mut Choices) -> String {
    let mut out = String::new();
    blank(choices, &mut out);
    append(value, style, choices, &mut out);
    blank(choices, &mut out);
    out
}

fn append(value: &Value, style: Style, choices: &mut Choices, out: &mut String) {
    match value {
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                separate(index, choices, out);
                append(element, style, choices, out);
            }
            blank(choices, out);
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            if style == Style::Any {
                for last in (1..members.len()).rev() {
                    members.swap(last, choices.below(last + 1));
                }
            }
            out.push('{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                separate(index, choices, out);
                append_text(key, style, choices, out);
                blank(choices, out);
                out.push(':');
                blank(choices, out);
                append(value, style, choices, out);
            }
            blank(choices, out);
            out.push('}');
        }
        Value::String(text) => append_text(text, style, choices, out),
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn separate(index: usize, choices: &mut Choices, out: &mut String) {
    blank(choices, out);
    if index > 0 {
        out.push(',');
        blank(choices, out);
    }
}

fn blank(choices: &mut Choices, out: &mut String) {
    out.push_str(["", "", " ", "\r\n", "\t", "          \n"][choices.below(6)]);
}

fn append_text(text: &str, style: Style, choices: &mut Choices, out: &mut String) {
    if style == Style::Spaced {
        out.push_str(&Value::from(text).to_string());
        return;
    }
    out.push('"');
    for char in text.chars() {
        match (char, choices.below(3)) {
            ('/', 0) => out.push_str("\\/"),
            (_, 1) => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").unwrap();
                }
            }
            (_, 2) => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04X}").unwrap();
                }
            }
            _ => {
                let quoted = Value::from(char.to_string()).to_string();
                out.push_str(&quoted[1..quoted.len() - 1]);
            }
        }
    }
    out.push('"');
}

/// Makes another value of it, by one change somewhere.
pub(crate) fn change(value: &mut Value, choices: &mut Choices) {
    match value {
        Value::Array(elements) if elements.is_empty() || choices.below(4) == 0 => {
            elements.insert(0, Value::Null);
        }
        Value::Array(elements) => {
            let index = choices.below(elements.len());
            change(&mut elements[index], choices);
        }
        Value::Object(members) if members.is_empty() || choices.below(4) == 0 => {
            members.insert("a key that no other has".to_owned(), Value::Null);
        }
        Value::Object(members) => {
            let index = choices.below(members.len());
            change(members.iter_mut().nth(index).unwrap().1, choices);
        }
        Value::String(text) => text.push('x'),
        Value::Number(_) => *value = Value::from(format!("not {value}")),
        Value::Bool(truth) => *truth = !*truth,
        Value::Null => *value = Value::from(false),
    }
}

/// Makes other text of it, by a few changes to bytes that matter to JSON.
pub(crate) fn spoil(text: &mut Vec<u8>, choices: &mut Choices) {
    const BYTES: &[u8] = b"\"\\{}[]:,0-.e+u dn/tfb\0\x1F\x7F\xC3\xA9\xED\xA0\x80\xFF\n";
    for _ in 0..=choices.below(3) {
        let at = choices.below(text.len() + 1);
        let byte = BYTES[choices.below(BYTES.len())];
        match choices.below(3) {
            0 => text.insert(at, byte),
            1 if at < text.len() => text[at] = byte,
            _ if at < text.len() => drop(text.remove(at)),
            _ => text.push(byte),
        }
    }
}
