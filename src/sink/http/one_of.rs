//! Tables of which one key says what the others are: `auth = { bearer = … }`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

/// What is written as a table with exactly one of several keys.
pub trait OneOf: Sized {
    /// The keys, for a refusal: "a table with one of …".
    const EXPECTED: &'static str;

    /// What the key's value says; none for a key that is not known, with the value unread.
    fn read<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Option<Self>, A::Error>;
}

/// Reads one. No refusal shows a key that is not known: it may be a secret in the wrong place.
pub fn one_of<'de, T: OneOf, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(One(PhantomData))
}

struct One<T>(PhantomData<T>);

impl<'de, T: OneOf> Visitor<'de> for One<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let refused = |why: &str| A::Error::custom(format_args!("{why}expected {}", T::EXPECTED));
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            let next = T::read(&key, &mut map)?.ok_or_else(|| refused("unknown key, "))?;
            if found.replace(next).is_some() {
                return Err(refused("more than one key, "));
            }
        }
        found.ok_or_else(|| refused(""))
    }
}
