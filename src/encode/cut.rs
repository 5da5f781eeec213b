//! Objects made to fit: their longest values are cut, so that the others stay whole.

/// A member: its key with the quotation marks, and its value, both as they stand in a record.
pub type Member<'a> = (&'a [u8], &'a [u8]);

/// Appends the members, each with a comma before it, in at most `room` bytes. Where that takes
/// cutting, it is the longest values that are cut, all to one length; a value that is no string
/// becomes one, for a part of it would be no JSON. Returns whether anything was cut.
///
/// Keys that are too long by themselves leave no members: then there is one, `text`, with the
/// beginning of all of it.
pub fn put_members(members: &[Member<'_>], room: usize, out: &mut Vec<u8>) -> bool {
    // A comma, a colon and the key; and no value is cut to less than two quotation marks.
    let keys: usize = members.iter().map(|(key, _)| key.len() + 2).sum();
    let values: usize = members.iter().map(|(_, value)| value.len()).sum();
    if keys + values <= room {
        for (key, value) in members {
            put_key(key, out);
            out.extend_from_slice(value);
        }
        return false;
    }
    if keys + 2 * members.len() > room {
        let mut whole = Vec::new();
        for (key, value) in members {
            whole.extend_from_slice(&[key, &b":"[..], value, b","].concat());
        }
        put_key(br#""text""#, out);
        put_text(&whole, room.saturating_sub(br#","text":"#.len()), out);
        return true;
    }
    let longest = level(members.iter().map(|(_, value)| value.len()).collect(), room - keys);
    for (key, value) in members {
        put_key(key, out);
        put_value(value, longest, out);
    }
    true
}

/// Appends a value in at most `most` bytes.
pub fn put_value(value: &[u8], most: usize, out: &mut Vec<u8>) {
    if value.len() <= most {
        out.extend_from_slice(value);
    } else if value.first() == Some(&b'"') {
        out.extend_from_slice(&value[..end_of_part(value, most.saturating_sub(1))]);
        out.push(b'"');
    } else {
        put_text(value, most, out);
    }
}

fn put_key(key: &[u8], out: &mut Vec<u8>) {
    out.push(b',');
    out.extend_from_slice(key);
    out.push(b':');
}

/// The length to which the longest of these must be cut, so that all together are no longer than
/// `room`.
fn level(mut lengths: Vec<usize>, mut room: usize) -> usize {
    lengths.sort_unstable();
    for (at, length) in lengths.iter().enumerate() {
        let left = lengths.len() - at;
        if length * left > room {
            // An empty string takes as much.
            return (room / left).max(2);
        }
        room -= length;
    }
    usize::MAX
}

/// Where a string, which begins with its quotation mark, can be cut at or before `most`: between two
/// characters, and not within an escape or a pair of them.
fn end_of_part(quoted: &[u8], most: usize) -> usize {
    let mut at = 1;
    loop {
        let rest = quoted.get(at..).unwrap_or_default();
        let plain = memchr::memchr2(b'\\', b'"', rest).unwrap_or(rest.len());
        if at + plain >= most {
            return boundary(quoted, most.max(1)).max(at.min(most.max(1)));
        }
        at += plain;
        let next = at + escape_length(&quoted[at..]);
        if next > most || quoted[at] == b'"' {
            return at;
        }
        at = next;
    }
}

/// The end of the longest beginning of at most `most` bytes that ends between two characters; and,
/// where they are to stay whole, not within an escape.
pub fn end_of_piece(text: &[u8], most: usize, whole_escapes: bool) -> usize {
    if most >= text.len() {
        return text.len();
    }
    let end = boundary(text, most);
    let mut at = 0;
    while whole_escapes && let Some(found) = memchr::memchr(b'\\', &text[at.min(end)..end]) {
        let next = at + found + escape_length(&text[at + found..]);
        if next > end {
            return at + found;
        }
        at = next;
    }
    end
}

/// The end of the last whole character at or before `end`.
fn boundary(text: &[u8], mut end: usize) -> usize {
    // RFC 3629: every byte but the first of a character begins with the bits 10.
    while end > 0 && text.get(end).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {
        end -= 1;
    }
    end
}

/// How long the escape is that begins here; with its other half, where it is the first of a pair.
fn escape_length(text: &[u8]) -> usize {
    let is_unicode = |at: usize| text.get(at..at + 2) == Some(br"\u");
    let half = |at: usize, digits: &[u8]| {
        is_unicode(at)
            && text.get(at + 2).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'd'))
            && text.get(at + 3).is_some_and(|byte| digits.contains(&byte.to_ascii_lowercase()))
    };
    match is_unicode(0) {
        true if half(0, b"89ab") && half(6, b"cdef") => 12,
        true => 6,
        false => 2,
    }
}

/// Appends the beginning of a JSON text as a string, in at most `most` bytes.
fn put_text(text: &[u8], most: usize, out: &mut Vec<u8>) {
    let (begin, mut end) = (out.len(), boundary(text, most.min(text.len())));
    loop {
        out.truncate(begin);
        out.push(b'"');
        for byte in &text[..end] {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
        let excess = (out.len() - begin).saturating_sub(most);
        if excess == 0 || end == 0 {
            return;
        }
        // Each byte too many is at least half a byte of the text.
        end = boundary(text, end.saturating_sub(excess.div_ceil(2)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn cut(object: &str, room: usize) -> (Map<String, Value>, bool, usize) {
        let members: Vec<_> = crate::encode::members::members(object.as_bytes()).collect();
        let mut out = Vec::new();
        let was_cut = put_members(&members, room, &mut out);
        let length = out.len();
        let text = format!("{{{}}}", String::from_utf8(out).unwrap().trim_start_matches(','));
        (serde_json::from_str(&text).unwrap_or_else(|err| panic!("{err}: {text}")), was_cut, length)
    }

    fn value(text: &str, most: usize) -> String {
        let mut out = Vec::new();
        put_value(text.as_bytes(), most, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_fits_is_left_alone() {
        let (object, was_cut, length) = cut(r#"{"a":"x","b":[1]}"#, 17);

        assert_eq!(Value::Object(object), serde_json::json!({ "a": "x", "b": [1] }));
        assert!(!was_cut && length <= 17);
    }

    #[test]
    fn the_longest_values_are_cut_and_the_others_are_whole() {
        let object =
            format!(r#"{{"a":"{}","b":"short","c":"{}"}}"#, "x".repeat(90), "y".repeat(60));

        let (object, was_cut, length) = cut(&object, 100);

        assert!(was_cut && (98..=100).contains(&length));
        assert_eq!(object["b"], "short");
        assert_eq!(
            (object["a"].as_str().unwrap().len(), object["c"].as_str().unwrap().len()),
            (37, 37)
        );
    }

    #[test]
    fn what_is_no_string_becomes_one() {
        let (object, was_cut, length) = cut(r#"{"a":{"b":"cccccccccccccccccccccc"},"d":7}"#, 25);

        assert!(was_cut && length <= 25);
        assert!(object["a"].as_str().unwrap().starts_with(r#"{"b":"c"#), "{object:?}");
        assert_eq!(object["d"], 7);
    }

    #[test]
    fn keys_that_leave_no_room_are_cut_with_all_the_rest() {
        let object = format!(r#"{{"{}":1,"b":2}}"#, "k".repeat(100));

        let (object, was_cut, length) = cut(&object, 50);

        assert!(was_cut && length <= 50);
        assert!(object["text"].as_str().unwrap().starts_with(r#""kkkk"#), "{object:?}");
    }

    #[test]
    fn a_string_is_cut_between_characters_and_escapes() {
        assert_eq!(value(r#""abcdef""#, 5), r#""abc""#);
        assert_eq!(value("\"é\u{1f511}x\"", 4), "\"é\"");
        assert_eq!(value("\"é\u{1f511}x\"", 7), "\"é\"");
        assert_eq!(value("\"é\u{1f511}x\"", 8), "\"é\u{1f511}\"");
        assert_eq!(value(r#""a\n\u00e9b""#, 5), r#""a\n""#);
        assert_eq!(value(r#""a\n\u00e9b""#, 11), r#""a\n\u00e9""#);
        assert_eq!(value(r#""\ud83d\udd11abc""#, 13), r#""""#);
        assert_eq!(value(r#""\ud83d\udd11abc""#, 14), r#""\ud83d\udd11""#);
        assert_eq!(value(r#""\ud83dabcdefgh""#, 9), r#""\ud83da""#);
        assert_eq!(value(r#""abc""#, 2), r#""""#);
    }

    proptest! {
        #[test]
        fn a_cut_object_is_sound_and_fits(
            members in prop::collection::vec(("[a-d\u{e9}\"]{1,6}", "[a-c\"\\\\\u{e9}\u{1f511}\n]{0,40}", any::<bool>()), 0..8),
            room in 20_usize..200,
        ) {
            let text: Vec<String> = members.iter().map(|(key, text, is_list)| {
                let value = serde_json::to_string(text).unwrap();
                let value = if *is_list { format!("[{value}]") } else { value };
                format!("{}:{value}", serde_json::to_string(key).unwrap())
            }).collect();
            let object = format!("{{{}}}", text.join(","));

            let (found, was_cut, length) = cut(&object, room);

            prop_assert!(length <= room);
            prop_assert_eq!(was_cut, object.len() > room + 2 - usize::from(!members.is_empty()));
            if !was_cut {
                let whole: Map<String, Value> = serde_json::from_str(&object).unwrap();
                prop_assert_eq!(found, whole);
            } else if !found.contains_key("text") {
                for (key, value) in &found {
                    let Value::String(value) = value else { continue };
                    let is_of_it = members.iter().any(|(known, text, is_list)| {
                        let whole = if *is_list { format!("[{}]", serde_json::to_string(text).unwrap()) } else { text.clone() };
                        known == key && whole.starts_with(&**value)
                    });
                    prop_assert!(is_of_it, "{}: {}", key, value);
                }
            }
        }
    }
}
