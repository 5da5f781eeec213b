//! JSON pointers (RFC 6901), parsed once.

use std::str::FromStr;

use serde::Deserialize;

/// Names a value in a document, such as `/data/events`; the empty pointer names the document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pointer {
    segments: Box<[Segment]>,
}

impl Pointer {
    /// The steps down, in order.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let refused = || PointerError(text.to_owned());
        let mut parts = text.split('/');
        if parts.next() != Some("") {
            return Err(refused());
        }
        let segments = parts.map(|part| Segment::parse(part).ok_or_else(refused));
        Ok(Self { segments: segments.collect::<Result<_, _>>()? })
    }
}

impl TryFrom<String> for Pointer {
    type Error = PointerError;

    fn try_from(text: String) -> Result<Self, PointerError> {
        text.parse()
    }
}

/// Text that is no JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON pointer such as `/a/b`, or nothing for the whole document, found `{0}`")]
pub struct PointerError(String);

/// One step of a pointer: a key, which may also be read as an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    key: Box<str>,
    index: Option<usize>,
}

impl Segment {
    fn parse(part: &str) -> Option<Self> {
        let mut pieces = part.split('~');
        let mut key = pieces.next()?.to_owned();
        for piece in pieces {
            let (escaped, plain) = match piece.as_bytes().first()? {
                b'0' => ('~', &piece[1..]),
                b'1' => ('/', &piece[1..]),
                _ => return None,
            };
            key.push(escaped);
            key.push_str(plain);
        }
        let digits = key.bytes().all(|byte| byte.is_ascii_digit());
        let leads = key.len() > 1 && key.starts_with('0');
        let index = if digits && !leads { key.parse().ok() } else { None };
        Some(Self { key: key.into(), index })
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn index(&self) -> Option<usize> {
        self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_read_from_config() {
        let pointer: Pointer = serde_json::from_str(r#""/a~1b/0/~01""#).unwrap();

        let steps: Vec<_> =
            pointer.segments().iter().map(|step| (step.key(), step.index())).collect();
        assert_eq!(steps, [("a/b", None), ("0", Some(0)), ("~1", None)]);
    }

    #[test]
    fn nothing_is_the_whole_document() {
        assert!("".parse::<Pointer>().unwrap().segments().is_empty());
    }

    #[test]
    fn what_is_no_pointer_is_told_the_form() {
        for text in ["a", "a/b", "/~", "/a~2", "$.a", "#/a"] {
            let error = text.parse::<Pointer>().unwrap_err().to_string();

            assert_eq!(
                error,
                format!(
                    "expected a JSON pointer such as `/a/b`, or nothing for the whole document, \
                     found `{text}`"
                )
            );
        }
    }
}
