//! JSON as text: taken apart and put together without ever turning a number or a string into
//! something else.
//!
//! Works on text known to be valid JSON, except [`canonical`], which finds out.

use serde::de::IgnoredAny;

use super::rng::Rng;

/// One member of an object, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Between its quotes, escapes and all.
    pub name: &'a str,
    /// Its value's text.
    pub value: &'a str,
}

/// The members of an object in their order; none when the text is not an object.
pub fn members(text: &str) -> Option<Vec<Member<'_>>> {
    let inner = between(text, '{', '}')?;
    Some(pieces(inner).map(member).collect())
}

/// An object of these members, in this order.
pub fn object<'a>(members: impl IntoIterator<Item = Member<'a>>) -> String {
    let mut text = String::new();
    for Member { name, value } in members {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.extend(["\"", name, "\":", value]);
    }
    text.push_str(if text.is_empty() { "{}" } else { "}" });
    text
}

/// The object again, its members in another order, and those of the objects in it.
pub fn shuffled(text: &str, rng: &mut Rng) -> String {
    let mut out = String::with_capacity(text.len());
    shuffle_into(text, rng, &mut out);
    out
}

/// As [`shuffled`], behind what `out` holds.
pub fn shuffle_into(text: &str, rng: &mut Rng, out: &mut String) {
    let Some(mut members) = members(text) else {
        out.push_str(text);
        return;
    };
    for last in (1..members.len()).rev() {
        members.swap(last, rng.index(last + 1));
    }
    out.push('{');
    for (index, Member { name, value }) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.extend(["\"", name, "\":"]);
        shuffle_into(value, rng, out);
    }
    out.push('}');
}

/// An object from values and where they go, as `/payload/paging/cursor`.
///
/// The places are plain: names that need no escape, none inside another's value.
pub fn assemble(entries: &[(&str, &str)]) -> String {
    let mut groups: Vec<(&str, Vec<(&str, &str)>)> = Vec::new();
    for (place, value) in entries {
        let place = place.strip_prefix('/').unwrap_or(place);
        let cut = place.find('/').unwrap_or(place.len());
        let (name, rest) = place.split_at(cut);
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, inside)) => inside.push((rest, value)),
            None => groups.push((name, vec![(rest, value)])),
        }
    }
    let values: Vec<(&str, String)> = groups
        .into_iter()
        .map(|(name, inside)| match inside[..] {
            [("", value)] => (name, value.to_owned()),
            _ => (name, assemble(&inside)),
        })
        .collect();
    object(values.iter().map(|(name, value)| Member { name, value }))
}

/// The one text that all equal JSON texts have: keys sorted at every level, strings by value,
/// numbers by their digits, no white space. None when the text is not JSON.
pub fn canonical(text: &str) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    Some(canonical_value(text.trim()))
}

/// The object without its last member, and that member's name; none when it is not an object or
/// has no members.
pub fn without_last(text: &str) -> Option<(String, &str)> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut members = members(text)?;
    let last = members.pop()?;
    Some((object(members), last.name))
}

fn canonical_value(text: &str) -> String {
    match text.as_bytes().first() {
        Some(b'{') => canonical_object(text),
        Some(b'[') => canonical_array(text),
        Some(b'"') => canonical_string(text),
        _ => text.to_owned(),
    }
}

fn canonical_object(text: &str) -> String {
    let members = members(text).expect("it begins like an object and is valid");
    let mut sorted: Vec<(String, String)> = members
        .iter()
        .map(|m| (canonical_string(&format!("\"{}\"", m.name)), canonical_value(m.value)))
        .collect();
    // By value too: an object may say a name twice, and those may come in any order.
    sorted.sort();
    let joined: Vec<String> = sorted.iter().map(|(n, v)| format!("{n}:{v}")).collect();
    format!("{{{}}}", joined.join(","))
}

fn canonical_array(text: &str) -> String {
    let inner = between(text, '[', ']').expect("it begins like an array and is valid");
    let elements: Vec<String> = pieces(inner).map(canonical_value).collect();
    format!("[{}]", elements.join(","))
}

fn canonical_string(text: &str) -> String {
    // Half a surrogate pair is valid JSON and no string; it stays as it was written.
    match serde_json::from_str::<String>(text) {
        Ok(value) => serde_json::to_string(&value).expect("a string is always JSON"),
        Err(_) => text.to_owned(),
    }
}

fn between(text: &str, open: char, close: char) -> Option<&str> {
    text.trim().strip_prefix(open)?.strip_suffix(close)
}

fn member(piece: &str) -> Member<'_> {
    let end = string_end(piece.as_bytes(), 0);
    let (_, value) = piece[end..].split_once(':').expect("a member has a colon");
    Member { name: &piece[1..end - 1], value: value.trim() }
}

/// What the commas of the outermost level divide.
fn pieces(inner: &str) -> impl Iterator<Item = &str> {
    let mut rest = inner.trim();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = piece_end(rest.as_bytes());
        let piece = rest[..end].trim();
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(piece)
    })
}

fn piece_end(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Behind the closing quote of the string that opens at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str =
        r#"{ "a" : 1.0 , "b\"}" : [1, {"y":2,"x":"],}"}], "c":"\u00e9\\", "a":{"q":1,"p":2} }"#;

    #[test]
    fn an_object_is_taken_apart_as_it_was_written() {
        let taken = members(NASTY).unwrap();

        let names: Vec<&str> = taken.iter().map(|m| m.name).collect();
        assert_eq!(names, ["a", r#"b\"}"#, "c", "a"]);
        assert_eq!(taken[1].value, r#"[1, {"y":2,"x":"],}"}]"#);
        assert_eq!(members("{}"), Some(Vec::new()));
        assert_eq!(members("[1]"), None);
    }

    #[test]
    fn a_shuffled_object_is_equal_to_the_first_and_seldom_the_same() {
        let mut rng = Rng::new(1);

        let served: Vec<String> = (0..20).map(|_| shuffled(NASTY, &mut rng)).collect();

        assert!(served.iter().all(|text| canonical(text) == canonical(NASTY)));
        assert!(served.iter().collect::<std::collections::HashSet<_>>().len() > 5);
    }

    #[test]
    fn equal_texts_have_one_canonical_form_and_a_changed_digit_another() {
        let one = r#"{"b":[1,{"d":0,"c":"\u00e9\/"}],"a":12345678901234567890123}"#;
        let same = r#"{ "a":12345678901234567890123, "b":[1, {"c":"é/","d":0}] }"#;
        let other = r#"{"b":[1,{"d":0,"c":"é/"}],"a":12345678901234567890124}"#;

        assert_eq!(canonical(one), canonical(same));
        assert_ne!(canonical(one), canonical(other));
        assert_eq!(canonical("{\"a\":}"), None);
    }

    #[test]
    fn values_are_put_where_their_places_say() {
        let text = assemble(&[("/p/n/c", "\"t\""), ("/v", "1"), ("/p/e", "[]")]);

        assert_eq!(text, r#"{"p":{"n":{"c":"t"},"e":[]},"v":1}"#);
    }

    #[test]
    fn the_last_member_is_taken_off_and_an_earlier_one_of_its_name_stays() {
        let (rest, name) = without_last(r#"{"siemferry":1,"a":2,"siemferry":{"x":3}}"#).unwrap();

        assert_eq!((rest.as_str(), name), (r#"{"siemferry":1,"a":2}"#, "siemferry"));
        assert_eq!(without_last("{\"a\":1"), None);
    }
}
