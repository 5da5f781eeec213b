//! The members of a record, without parsing what they hold.

use std::borrow::Cow;

/// Key and value of each member of an object that has no white space between its tokens, as a stored
/// record has none; both as they stand there, a key with its quotation marks. Not the members of its
/// values.
pub fn members(object: &[u8]) -> Members<'_> {
    Members { object, at: 1 }
}

/// See [`members()`].
pub struct Members<'a> {
    object: &'a [u8],
    /// Where the next key begins.
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.object.get(self.at) != Some(&b'"') {
            return None;
        }
        let end = end_of_string(self.object, self.at + 1);
        let key = &self.object[self.at..end];
        let begin = (end + 1).min(self.object.len());
        let end = end_of_value(self.object, begin);
        self.at = end + 1;
        Some((key, &self.object[begin..end]))
    }
}

/// What a key says, between its quotation marks. One that is no text to others is none of our keys.
pub fn unescaped(quoted: &[u8]) -> Cow<'_, [u8]> {
    if !quoted.contains(&b'\\') {
        return Cow::Borrowed(quoted.strip_suffix(b"\"").unwrap_or(quoted).get(1..).unwrap_or(b""));
    }
    Cow::Owned(serde_json::from_slice::<String>(quoted).unwrap_or_default().into_bytes())
}

/// Behind the value that begins at `at`.
fn end_of_value(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at = end_of_string(text, at + 1);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' => return at + depth,
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// Behind the quotation mark that ends the string whose first character is at `at`.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(object: &str) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        members(object.as_bytes()).map(|(key, value)| (text(key), text(value))).collect()
    }

    #[test]
    fn members_are_those_of_the_object_itself() {
        assert_eq!(read("{}"), []);
        assert_eq!(
            read(r#"{"a":1,"b":"x,}\"","c":{"d":[1,{"e":"]"}],"f":{}},"g":[],"h\"":null}"#),
            [
                (r#""a""#, "1"),
                (r#""b""#, r#""x,}\"""#),
                (r#""c""#, r#"{"d":[1,{"e":"]"}],"f":{}}"#),
                (r#""g""#, "[]"),
                (r#""h\"""#, "null"),
            ]
        );
    }

    #[test]
    fn a_key_is_read_through_its_escapes() {
        assert_eq!(&*unescaped(br#""plain""#), b"plain");
        assert_eq!(&*unescaped(br#""pl\u0061in""#), b"plain");
        assert_eq!(&*unescaped(br#""\ud800""#), b"");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_it_ends(text in "[{}\\[\\],:\"\\\\a]{0,40}") {
            let found = members(text.as_bytes()).count();
            proptest::prop_assert!(found <= text.len());
        }
    }
}
