//! Whether a document can be taken at all.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::ItemError;

/// `index.mapping.depth.limit`
const DEEPEST: usize = 20;

/// Refuses what is no object, what has a key twice, what is too deep, and a time that is none.
pub fn check(source: &[u8], is_stream: bool) -> Result<(), ItemError> {
    let timestamp = RefCell::new(None);
    let failed = |reason: &str| ItemError::new(400, "document_parsing_exception", reason);
    if source.trim_ascii_start().first() != Some(&b'{') {
        let cause = "Compressor detection can only be called on some xcontent bytes";
        let error = failed("[1:1] failed to parse").caused_by("not_x_content_exception", cause);
        return Err(error);
    }
    let mut parser = serde_json::Deserializer::from_slice(source);
    let parsed = Node { depth: 0, timestamp: &timestamp }.deserialize(&mut parser);
    parsed.and_then(|()| parser.end()).map_err(|err| {
        let at = format!("[{}:{}] ", err.line(), err.column());
        let text = err.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        match text {
            text if text.starts_with("Limit of") => {
                ItemError::new(400, "illegal_argument_exception", text)
            }
            text if text.starts_with("Duplicate") => failed(&format!("{at}{text}"))
                .caused_by("x_content_parse_exception", &format!("{at}{text}")),
            text => {
                failed(&format!("{at}failed to parse")).caused_by("x_content_parse_exception", text)
            }
        }
    })?;
    match timestamp.into_inner() {
        None if is_stream => {
            let reason =
                "[1:1] failed to parse: data stream timestamp field [@timestamp] is missing";
            Err(failed(reason).caused_by(
                "illegal_argument_exception",
                "data stream timestamp field [@timestamp] is missing",
            ))
        }
        Some(value) if !is_time(&value) => {
            let reason = "[1:1] failed to parse field [@timestamp] of type [date] in document";
            Err(failed(reason).caused_by(
                "illegal_argument_exception",
                &format!("failed to parse date field [{value}] with format [strict_date_optional_time||epoch_millis]"),
            ))
        }
        _ => Ok(()),
    }
}

fn is_time(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_i64(),
        Value::String(text) => {
            chrono::DateTime::parse_from_rfc3339(text).is_ok()
                || text.parse::<chrono::NaiveDate>().is_ok()
                || text.parse::<i64>().is_ok()
        }
        _ => false,
    }
}

/// Any value; keeps the time of the outermost object.
#[derive(Clone, Copy)]
struct Node<'a> {
    depth: usize,
    timestamp: &'a RefCell<Option<Value>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Node { depth: self.depth.max(1), ..self })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.depth > DEEPEST {
            let text = format_args!("Limit of mapping depth [{DEEPEST}] has been exceeded");
            return Err(A::Error::custom(text));
        }
        let mut keys: Vec<Cow<'de, str>> = Vec::with_capacity(16);
        while let Some(Key(key)) = map.next_key()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!("Duplicate field '{key}'")));
            }
            if key.is_empty() {
                return Err(A::Error::custom("field name cannot be an empty string"));
            }
            if self.depth == 0 && key == "@timestamp" {
                *self.timestamp.borrow_mut() = Some(map.next_value()?);
            } else {
                map.next_value_seed(Node { depth: self.depth + 1, ..self })?;
            }
            keys.push(key);
        }
        Ok(())
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}
