//! Splits a body into records.
//!
//! Promises that every record of a body whose borders are sound comes out, good or bad, in order,
//! and that a good one stays what it was, byte for byte, except white space between tokens.
//! Does not decide what a page token and the flag for more pages mean together.

mod envelope;
mod time;

use std::fmt::Write as _;
use std::ops::Range;

use self::envelope::Outline;
pub use self::time::TimeFormat;
use crate::event::Record;
use crate::secret::redact;
use crate::source::BadRecord;
use crate::source::identity::Digester;
use crate::source::json::{self, Fault, Kind, Pointer, Tape};

/// Where a preset says that things are.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Where the array of records may be in the body; the first that is there counts.
    pub records: Vec<Pointer>,
    /// Whether the only array among the body's members will do instead.
    pub lone_array: bool,
    /// The page token, in the body.
    pub token: Pointer,
    /// The flag that there are more pages, in the body.
    pub has_more: Option<Pointer>,
    /// What kind of event it is, in a record.
    pub event_type: Pointer,
    /// When it happened, in a record.
    pub time: Pointer,
    /// How times are written.
    pub time_format: TimeFormat,
    /// What makes the identity of a record; nothing: all of it.
    pub identity: Vec<Pointer>,
}

/// What a body holds.
#[derive(Debug)]
pub struct Envelope {
    /// The good records' bytes, one behind the other.
    pub bytes: Vec<u8>,
    /// The good records, in order.
    pub records: Vec<Record>,
    /// The bad ones, in order.
    pub bad: Vec<BadRecord>,
    /// The page token; none also for `null` and `""`.
    pub token: Option<String>,
    /// The flag that there are more pages.
    pub has_more: Option<bool>,
}

/// How a body breaks the API's contract. Shows keys of the body, never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// There is nothing but white space.
    #[error("the body is empty")]
    Empty,
    /// It begins with `<`.
    #[error("the body is not JSON: it begins with `<`, as HTML does")]
    Html,
    /// It begins with a byte order mark.
    #[error("the body is not JSON: it begins with a byte order mark")]
    ByteOrderMark,
    /// It begins with anything but a bracket.
    #[error("the body is neither a JSON object nor a JSON array")]
    NotContainer,
    /// Its positions do not fit.
    #[error("the body is longer than 4 GiB")]
    TooLong,
    /// The borders of members or records cannot be found.
    #[error("the body is not sound JSON: {0}")]
    Unsound(Fault),
    /// Something follows the outermost value.
    #[error("the body goes on behind its end at byte {0}")]
    Trailing(usize),
    /// No array is where the records should be.
    #[error("the body has no array of records; its keys: {keys}")]
    NoRecords {
        /// The first keys of the body, made harmless.
        keys: String,
    },
    /// More than one array might be the records.
    #[error("the body has several arrays that may be the records; its keys: {keys}")]
    SeveralArrays {
        /// The first keys of the body, made harmless.
        keys: String,
    },
    /// The page token is of the wrong kind.
    #[error("the page token is neither a string nor a number")]
    TokenKind,
    /// The page token is no text that could be sent back.
    #[error("the page token is not valid text: {0}")]
    TokenText(&'static str),
    /// The page token is longer than any API's.
    #[error("the page token is longer than 64 KiB")]
    TokenLength,
    /// The flag is of the wrong kind.
    #[error("the flag for more pages is neither true nor false")]
    HasMore,
}

impl From<Fault> for Violation {
    fn from(fault: Fault) -> Self {
        Self::Unsound(fault)
    }
}

/// The longest page token.
const TOKEN: usize = 64 * 1024;

/// Splits a body into records and finds what the API says about further pages.
pub fn split(body: &[u8], shape: &Shape) -> Result<Envelope, Violation> {
    let start = find_start(body)?;
    let own = std::iter::once(&shape.token).chain(&shape.has_more);
    let outline = envelope::outline(body, start, own.chain(&shape.records))?;
    let rest = json::skip_blank(body, outline.end);
    if rest < body.len() {
        return Err(Violation::Trailing(rest));
    }
    let mut found = outline.found.iter().cloned();
    let token = found.next().flatten();
    let has_more = shape.has_more.as_ref().and_then(|_| found.next().flatten());
    let (array, is_named) = find_records(body, shape, &outline, found)?;

    let mut splitter = Splitter::new(body, shape, array);
    splitter.run()?;
    let token = token.map_or(Ok(None), |value| read_token(body, value))?;
    let has_more = has_more.map_or(Ok(None), |value| read_flag(&body[value]))?;
    let Splitter { bytes, records, bad, .. } = splitter;
    let is_event = |record: &Record| record.event_type.is_some() || record.time.is_some();
    let is_envelope = if records.is_empty() {
        token.is_some() || has_more.is_some()
    } else {
        records.iter().any(is_event)
    };
    // A lone array may as well hold what went wrong.
    if !is_named && bad.is_empty() && !is_envelope {
        return Err(Violation::NoRecords { keys: show_keys(body, &outline) });
    }
    Ok(Envelope { bytes, records, bad, token, has_more })
}

/// Splits one record that was kept alone, as if it came in an array.
pub fn split_one(record: &[u8], shape: &Shape) -> Result<Envelope, Violation> {
    let body = [b"[", record, b"]"].concat();
    let mut splitter = Splitter::new(&body, shape, 0..body.len());
    splitter.run()?;
    let Splitter { bytes, records, bad, .. } = splitter;
    Ok(Envelope { bytes, records, bad, token: None, has_more: None })
}

fn find_start(body: &[u8]) -> Result<usize, Violation> {
    let start = json::skip_blank(body, 0);
    if u32::try_from(body.len()).is_err() {
        return Err(Violation::TooLong);
    }
    match body[start..] {
        [] => Err(Violation::Empty),
        [b'{' | b'[', ..] => Ok(start),
        [b'<', ..] => Err(Violation::Html),
        [0xEF, 0xBB, 0xBF, ..] => Err(Violation::ByteOrderMark),
        _ => Err(Violation::NotContainer),
    }
}

fn find_records(
    body: &[u8],
    shape: &Shape,
    outline: &Outline,
    mut found: impl Iterator<Item = Option<Range<usize>>>,
) -> Result<(Range<usize>, bool), Violation> {
    let named = found.find_map(|value| value.filter(|value| body[value.start] == b'['));
    if let Some(array) = named {
        return Ok((array, true));
    }
    if !shape.lone_array {
        return Err(Violation::NoRecords { keys: show_keys(body, outline) });
    }
    let mut candidates =
        outline.arrays.iter().filter(|array| holds_objects(&body[(*array).clone()]));
    match (candidates.next(), candidates.next(), &outline.arrays[..]) {
        (Some(array), None, _) => Ok((array.clone(), false)),
        (None, _, [array]) if is_empty(&body[array.clone()]) => Ok((array.clone(), false)),
        (None, ..) => Err(Violation::NoRecords { keys: show_keys(body, outline) }),
        _ => Err(Violation::SeveralArrays { keys: show_keys(body, outline) }),
    }
}

fn is_empty(array: &[u8]) -> bool {
    array[json::skip_blank(array, 1)] == b']'
}

/// True for an array with elements, when all of them are objects.
fn holds_objects(array: &[u8]) -> bool {
    let mut at = 1;
    loop {
        at = json::skip_blank(array, at);
        if array[at] != b'{' {
            return false;
        }
        let Ok(end) = json::skip_value(array, at) else {
            return false;
        };
        at = json::skip_blank(array, end);
        match array[at] {
            b',' => at += 1,
            last => return last == b']',
        }
    }
}

/// The body's first keys, short and without anything that a terminal would obey.
fn show_keys(body: &[u8], outline: &Outline) -> String {
    const KEYS: usize = 20;
    const LENGTH: usize = 40;
    // No escape stands for more than twelve bytes a character.
    const SOURCE: usize = LENGTH * 12;
    let mut shown = String::new();
    for key in outline.keys.iter().take(KEYS) {
        let inner = &body[key.start + 1..key.end - 1];
        let text = json::decode_lossy(&inner[..inner.len().min(SOURCE)]);
        // Before it is shortened: a part of a secret is not known as one.
        let text = redact(&text);
        let comma = if shown.is_empty() { "" } else { ", " };
        let text = text.escape_debug().take(LENGTH).collect::<String>();
        write!(shown, "{comma}`{text}`").expect("a string takes all");
    }
    match outline.keys.len() {
        0 => "none".to_owned(),
        more if more > KEYS => shown + " and more",
        _ => shown,
    }
}

fn read_token(body: &[u8], value: Range<usize>) -> Result<Option<String>, Violation> {
    let text = &body[value];
    match text {
        b"null" | b"\"\"" => return Ok(None),
        [b'"' | b'-' | b'0'..=b'9', ..] => {}
        _ => return Err(Violation::TokenKind),
    }
    let (mut tape, mut bytes) = (Tape::default(), Vec::new());
    let end = tape.read(text, 0, &mut bytes).map_err(|fault| Violation::TokenText(fault.reason))?;
    if end < text.len() {
        return Err(Violation::TokenKind);
    }
    let value = tape.value(&bytes);
    let mut decoded = Vec::with_capacity(bytes.len());
    match value.kind() {
        Kind::String => json::decode(value.inner(), &mut decoded),
        _ => decoded.extend_from_slice(value.raw()),
    }
    if decoded.len() > TOKEN {
        return Err(Violation::TokenLength);
    }
    // A surrogate that was replaced would make another token of it.
    let token = String::from_utf8(decoded).map_err(|_| Violation::TokenText("a lone surrogate"));
    token.map(Some)
}

fn read_flag(text: &[u8]) -> Result<Option<bool>, Violation> {
    match text {
        b"null" => Ok(None),
        b"true" => Ok(Some(true)),
        b"false" => Ok(Some(false)),
        _ => Err(Violation::HasMore),
    }
}

/// Goes through the array of records.
struct Splitter<'a> {
    /// The body in front of the array's closing bracket.
    src: &'a [u8],
    at: usize,
    shape: &'a Shape,
    tape: Tape,
    digester: Digester<'a>,
    bytes: Vec<u8>,
    records: Vec<Record>,
    bad: Vec<BadRecord>,
}

impl<'a> Splitter<'a> {
    fn new(body: &'a [u8], shape: &'a Shape, array: Range<usize>) -> Self {
        Self {
            src: &body[..array.end - 1],
            at: array.start + 1,
            shape,
            tape: Tape::default(),
            digester: Digester::new(&shape.identity),
            bytes: Vec::with_capacity(array.len()),
            records: Vec::new(),
            bad: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<(), Fault> {
        self.skip_blank();
        while self.at < self.src.len() {
            self.element()?;
            self.skip_blank();
            if self.at == self.src.len() {
                break;
            }
            if self.src[self.at] != b',' {
                return Err(Fault::new(self.src, self.at, "no comma between records"));
            }
            self.at += 1;
            self.skip_blank();
            if self.at == self.src.len() {
                return Err(Fault { at: self.at, reason: "no record behind a comma" });
            }
        }
        Ok(())
    }

    fn element(&mut self) -> Result<(), Fault> {
        if self.src[self.at] != b'{' {
            return self.push_bad("not an object");
        }
        let start = self.bytes.len();
        match self.tape.read(self.src, self.at, &mut self.bytes) {
            Ok(end) => {
                self.at = end;
                self.push_good(start..self.bytes.len());
                Ok(())
            }
            Err(fault) => self.push_bad(fault.reason),
        }
    }

    fn push_bad(&mut self, reason: &'static str) -> Result<(), Fault> {
        let end = json::skip_value(self.src, self.at)?;
        self.bad.push(BadRecord { raw: self.src[self.at..end].to_vec(), reason });
        self.at = end;
        Ok(())
    }

    fn push_good(&mut self, span: Range<usize>) {
        let shape = self.shape;
        let record = self.tape.value(&self.bytes[span.clone()]);
        let event_type = record.find(&shape.event_type).and_then(json::Value::text);
        let time = record.find(&shape.time).and_then(|value| shape.time_format.read(value));
        let digest = self.digester.digest(record);
        let event_type = event_type.map(Into::into);
        self.records.push(Record { span, event_type, time, digest });
    }

    fn skip_blank(&mut self) {
        self.at = json::skip_blank(self.src, self.at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::json::arbitrary::{self, Choices, Style};

    fn shape() -> Shape {
        let pointer = |text: &str| text.parse().unwrap();
        Shape {
            records: vec![pointer("/events"), pointer("/data/events"), pointer("")],
            lone_array: true,
            token: pointer("/next"),
            has_more: Some(pointer("/has_more")),
            event_type: pointer("/type"),
            time: pointer("/time"),
            time_format: TimeFormat::Rfc3339,
            identity: vec![],
        }
    }

    fn ours(body: impl AsRef<[u8]>) -> Result<Envelope, Violation> {
        split(body.as_ref(), &shape())
    }

    fn records(envelope: &Envelope) -> Vec<&str> {
        let spans = envelope.records.iter().map(|record| record.span.clone());
        spans.map(|span| std::str::from_utf8(&envelope.bytes[span]).unwrap()).collect()
    }

    fn violation(body: impl AsRef<[u8]>) -> String {
        ours(body).unwrap_err().to_string()
    }

    /// The reason for which `record` is bad, between two good ones.
    fn bad(record: &[u8]) -> &'static str {
        let body = [br#"{"events":[{"a":1}, "#, record, br#" ,{"b":2}],"next":"t"}"#].concat();

        let envelope = ours(body).unwrap();

        assert_eq!(records(&envelope), [r#"{"a":1}"#, r#"{"b":2}"#]);
        assert_eq!(envelope.token.as_deref(), Some("t"));
        assert_eq!(envelope.bad.len(), 1);
        assert_eq!(envelope.bad[0].raw, record);
        envelope.bad[0].reason
    }

    #[test]
    fn a_page_is_split_into_records() {
        let body = r#"
            { "events": [
                { "type": "login", "time": "1970-01-01T00:00:01Z", "x": [ 1, " a " ] },
                { "type": "logout" }
            ], "next": "abc", "has_more": true }
        "#;

        let envelope = ours(body).unwrap();

        let first = r#"{"type":"login","time":"1970-01-01T00:00:01Z","x":[1," a "]}"#;
        assert_eq!(records(&envelope), [first, r#"{"type":"logout"}"#]);
        assert_eq!(envelope.bytes.len(), envelope.records[1].span.end);
        let [one, two] = &envelope.records[..] else { panic!("two records") };
        assert_eq!((one.event_type.as_deref(), one.time), (Some("login"), Some(1000)));
        assert_eq!((two.event_type.as_deref(), two.time), (Some("logout"), None));
        assert_ne!(one.digest, two.digest);
        assert_eq!((envelope.token.as_deref(), envelope.has_more), (Some("abc"), Some(true)));
        assert_eq!(envelope.bad, []);
    }

    #[test]
    fn records_are_found_where_the_first_pointer_finds_an_array() {
        for body in [
            r#"{"events":[{"a":1}],"data":{"events":[{"b":2}]}}"#,
            r#"{"data":{"events":[{"b":2}]},"events":[{"a":1}]}"#,
            r#"{"events":{"no":"array"},"data":{"events":[{"a":1}]},"other":[{}]}"#,
            r#"{"events":null,"data":{"events":[{"a":1}]}}"#,
            r#"{"\u0065vents":[{"a":1}],"events":[{"b":2}]}"#,
            r#"[{"a":1}]"#,
        ] {
            assert_eq!(records(&ours(body).unwrap()), [r#"{"a":1}"#], "{body}");
        }
    }

    #[test]
    fn a_lone_array_of_events_is_the_records() {
        for body in [
            r#" { "rows" : [ {"type":"a"} ] } "#,
            r#"{"rows":[{"type":"a"}],"errors":[],"warnings":["x"],"o":{"p":[{}]}}"#,
            r#"{"events":null,"rows":[{"type":"a"}]}"#,
        ] {
            assert_eq!(records(&ours(body).unwrap()), [r#"{"type":"a"}"#], "{body}");
        }
        let empty = ours(r#"{"rows":[],"has_more":false}"#).unwrap();
        assert!(empty.records.is_empty());
    }

    #[test]
    fn an_empty_array_is_a_page_without_records() {
        for body in [r#"{"events":[ ]}"#, "[\n]", r#"{"events":[],"rows":[{}]}"#] {
            let envelope = ours(body).unwrap();

            assert!(envelope.records.is_empty() && envelope.bad.is_empty(), "{body}");
            assert_eq!((envelope.token, envelope.has_more), (None, None));
        }
    }

    #[test]
    fn without_one_array_of_records_the_keys_are_shown_and_no_value() {
        let none = "the body has no array of records; its keys: ";
        let several = "the body has several arrays that may be the records; its keys: ";
        for (body, text, keys) in [
            ("{}", none, "none"),
            (r#"{"error":"secret","code":1}"#, none, "`error`, `code`"),
            (r#"{"rows":[],"more":[]}"#, none, "`rows`, `more`"),
            (r#"{"rows":[],"more":[1]}"#, none, "`rows`, `more`"),
            (r#"{"rows":[{},1]}"#, none, "`rows`"),
            (r#"{"rows":[{}],"more":[{}]}"#, several, "`rows`, `more`"),
            (r#"{"rows":[{}],"rows":[{}]}"#, several, "`rows`, `rows`"),
            (r#"{"events":null}"#, none, "`events`"),
            (r#"{"\u001b[2J\u202e\n":1}"#, none, r"`\u{1b}[2J\u{202e}\n`"),
        ] {
            assert_eq!(violation(body), format!("{text}{keys}"), "{body}");
        }
    }

    #[test]
    fn a_preset_may_refuse_a_lone_array_and_a_bare_one() {
        let mut strict = shape();
        strict.lone_array = false;
        strict.records.truncate(1);

        for body in [r#"{"rows":[{}]}"#, "[{}]"] {
            let violation = split(body.as_bytes(), &strict).unwrap_err();

            assert!(matches!(violation, Violation::NoRecords { .. }), "{body}");
        }
    }

    #[test]
    fn only_so_many_keys_are_shown_and_only_so_much_of_each() {
        let members: Vec<_> =
            (0..30).map(|key| format!(r#""{key}{}":1"#, "\\u0007".repeat(99))).collect();

        let text = violation(format!("{{{}}}", members.join(",")));

        assert_eq!(text.matches("`, `").count(), 19);
        assert!(text.ends_with(" and more"));
        assert!(text.split('`').all(|part| part.chars().count() <= 50));
    }

    #[test]
    fn what_is_no_json_container_is_named() {
        for (body, text) in [
            (&b""[..], "the body is empty"),
            (b" \n", "the body is empty"),
            (b" <!DOCTYPE html>", "the body is not JSON: it begins with `<`, as HTML does"),
            (b"\xEF\xBB\xBF{}", "the body is not JSON: it begins with a byte order mark"),
            (b"null", "the body is neither a JSON object nor a JSON array"),
            (b"\"[]\"", "the body is neither a JSON object nor a JSON array"),
            (b"\xFF", "the body is neither a JSON object nor a JSON array"),
            (b"{\"events\":[{\"a\":1},", "the body is not sound JSON: cut short at byte 19"),
            (b"{\"events\":[{}]}\n\0", "the body goes on behind its end at byte 16"),
            (b"[] []", "the body goes on behind its end at byte 3"),
        ] {
            assert_eq!(violation(body), text);
        }
    }

    #[test]
    fn records_without_borders_are_a_violation() {
        for (array, text) in [
            (r#"[{"a":1} {"b":2}]"#, "no comma between records at byte 19"),
            (r#"[{"a":1}x,{"b":2}]"#, "no comma between records at byte 18"),
            (r#"[{"a":1},,{"b":2}]"#, "no value at byte 19"),
            (r#"[,{"a":1}]"#, "no value at byte 11"),
            (r#"[{"a":1},]"#, "no record behind a comma at byte 19"),
            (r#"[{"a":1},<b>,{"b":2}]"#, "no value at byte 19"),
            (r#"[{"a":[1},{"b":2}]"#, "brackets that do not match at byte 18"),
        ] {
            let text = format!("the body is not sound JSON: {text}");
            assert_eq!(violation(format!(r#"{{"events":{array}}}"#)), text);
        }
    }

    #[test]
    fn a_lone_array_of_something_else_is_not_the_records() {
        for body in [
            r#"{"errors":[{"message":"try later"}]}"#,
            r#"{"errors":[]}"#,
            r#"{"status":"ok","hints":[{"text":"none"}]}"#,
        ] {
            let refused = split(body.as_bytes(), &shape());

            assert!(matches!(refused, Err(Violation::NoRecords { .. })), "{body}");
        }
    }

    #[test]
    fn what_is_no_object_is_bad_alone() {
        for record in ["1", "\"x,{}\"", "null", "true", "[]", "[{}]", "nul", "NaN", "1.e", "[nul]"]
        {
            assert_eq!(bad(record.as_bytes()), "not an object", "{record}");
        }
    }

    #[test]
    fn what_is_unsound_inside_its_borders_is_bad_alone() {
        for (record, reason) in [
            (&b"{\"a\":\"\xFF\"}"[..], "not valid UTF-8"),
            (b"{\"a\":\"x\ny\"}", "a control character in a string"),
            (b"{\"a\":\"x\0y\"}", "a control character in a string"),
            (br#"{"a":"\x"}"#, "an escape that is none"),
            (br#"{"a":01}"#, "neither a comma nor the closing bracket"),
            (br#"{ "a" : [1, ] }"#, "no value"),
            (br#"{"a":1,}"#, "no key"),
            (br#"{"a":nul}"#, "no value"),
            (b"{'a':1}", "no key"),
            (b"{\"a\":\xC2\xA01}", "no value"),
        ] {
            assert_eq!(bad(record), reason, "{}", String::from_utf8_lossy(record));
        }
    }

    #[test]
    fn hostile_records_are_good_when_the_grammar_says_so() {
        let deep_arrays = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let deep_objects = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
        let keys: Vec<_> = (0..1_000_000).map(|key| format!("\"{key}\":0")).collect();
        let good = [
            r#"{"a":1,"a":2}"#.to_owned(),
            r#"{"a":18446744073709551616,"b":1e400}"#.to_owned(),
            r#"{"type":"\ud800","b":"\u0000"}"#.to_owned(),
            "{\"a\":\"\u{2028}\"}".to_owned(),
            format!(r#"{{"a":"{}"}}"#, "x".repeat(1 << 20)),
            deep_arrays,
            deep_objects,
            format!("{{{}}}", keys.join(",")),
        ];

        let envelope = ours(format!(r#"{{"events":[{}]}}"#, good.join(","))).unwrap();

        assert!(envelope.bad.is_empty());
        assert!(records(&envelope) == good);
        assert_eq!(envelope.records[2].event_type.as_deref(), Some("\u{FFFD}"));
    }

    #[test]
    fn an_event_type_is_a_string_or_the_text_of_a_scalar() {
        for (value, event_type) in [
            (r#""log\u0069n""#, Some("login")),
            (r#""""#, Some("")),
            (r#""\ud83d\ude00\udc00""#, Some("\u{1F600}\u{FFFD}")),
            ("1e400", Some("1e400")),
            ("true", Some("true")),
            ("null", None),
            ("[]", None),
            ("{}", None),
        ] {
            let envelope = ours(format!(r#"[{{"type":{value}}}]"#)).unwrap();

            assert_eq!(envelope.records[0].event_type.as_deref(), event_type, "{value}");
        }
    }

    fn token(value: &str) -> Result<Option<String>, Violation> {
        ours(format!(r#"{{"events":[],"next":{value}}}"#)).map(|envelope| envelope.token)
    }

    #[test]
    fn a_page_token_is_text_or_a_number() {
        for (value, text) in [
            ("null", None),
            (r#""""#, None),
            (r#""a\/b\u003d""#, Some("a/b=")),
            ("18446744073709551616", Some("18446744073709551616")),
            ("-1.50", Some("-1.50")),
        ] {
            assert_eq!(token(value).unwrap().as_deref(), text, "{value}");
        }
        let longest = "x".repeat(65536);
        assert_eq!(token(&format!("\"{longest}\"")).unwrap(), Some(longest));
    }

    #[test]
    fn any_other_page_token_is_a_violation() {
        for value in ["true", "[]", "{}", "nul", "1x"] {
            assert_eq!(token(value).unwrap_err(), Violation::TokenKind, "{value}");
        }
        let long = format!("\"{}\"", "x".repeat(65537));
        assert_eq!(token(&long).unwrap_err(), Violation::TokenLength);
        assert_eq!(token(&"1".repeat(65537)).unwrap_err(), Violation::TokenLength);
        assert_eq!(token(r#""\ud800""#).unwrap_err(), Violation::TokenText("a lone surrogate"));
        assert!(matches!(token("\"a\nb\"").unwrap_err(), Violation::TokenText(_)));
    }

    #[test]
    fn the_flag_for_more_pages_is_true_or_false() {
        let flag = |value: &str| {
            ours(format!(r#"{{"has_more":{value},"events":[]}}"#)).map(|envelope| envelope.has_more)
        };

        assert_eq!(flag("true"), Ok(Some(true)));
        assert_eq!(flag("false"), Ok(Some(false)));
        assert_eq!(flag("null"), Ok(None));
        for value in ["1", "\"true\"", "[]", "truer"] {
            assert_eq!(flag(value), Err(Violation::HasMore), "{value}");
        }
        assert_eq!(ours("[]").unwrap().has_more, None);
    }

    #[test]
    fn no_violation_shows_a_value() {
        for body in [
            r#"{"a":"canary"}"#,
            r#"{"events":[{"a":"canary"} "canary"]}"#,
            r#"{"events":[],"next":["canary"]}"#,
            r#"{"events":[],"next":"canary\ud800"}"#,
            r#"{"events":[],"has_more":"canary"}"#,
            r#"{"events":[]}canary"#,
            "canary",
        ] {
            let violation = ours(body).unwrap_err();

            assert!(!format!("{violation} {violation:?}").contains("canary"), "{body}");
        }
    }

    #[test]
    fn an_identity_makes_copies_of_records_that_differ_elsewhere() {
        let mut shape = shape();
        shape.identity = vec!["/id".parse().unwrap()];

        let envelope = split(br#"[{"id":1,"n":1},{"n":2,"id":1},{"id":2}]"#, &shape).unwrap();

        let digests: Vec<_> = envelope.records.iter().map(|record| record.digest).collect();
        assert_eq!(digests[0], digests[1]);
        assert_ne!(digests[0], digests[2]);
    }

    proptest! {
        #[test]
        fn every_record_comes_out_however_the_page_is_written(
            events in prop::collection::vec(arbitrary::object(), 0..6),
            seed: u64,
        ) {
            let page = serde_json::json!({ "events": events, "next": "t" });
            let body = arbitrary::write(&page, Style::Spaced, &mut Choices::new(seed));

            let envelope = ours(body).unwrap();

            let texts: Vec<_> = events.iter().map(ToString::to_string).collect();
            prop_assert_eq!(records(&envelope), texts);
        }

        #[test]
        fn no_bytes_make_the_splitter_panic(
            noise in prop::collection::vec(any::<u8>(), 0..200),
            likely in r#"[\[\]{}:,"\\ nulltrue0-9.eE\x00é]{0,60}"#,
        ) {
            drop(ours(&noise));
            drop(ours(&likely));
            drop(ours(format!(r#"{{"events":[{likely}]}}"#)));
            drop(ours(format!(r#"{{"rows":[{{{likely}}}],"next":{likely}}}"#)));
        }

        #[test]
        fn what_comes_out_of_a_spoilt_page_is_sound(
            events in prop::collection::vec(arbitrary::object(), 0..4),
            seed: u64,
        ) {
            let choices = &mut Choices::new(seed);
            let page = serde_json::json!({ "events": events, "next": "t", "has_more": true });
            let mut body = arbitrary::write(&page, Style::Any, choices).into_bytes();
            arbitrary::spoil(&mut body, choices);

            if let Ok(envelope) = ours(body) {
                for record in records(&envelope) {
                    prop_assert_eq!(&record[..1], "{");
                    serde_json::from_str::<&serde_json::value::RawValue>(record).unwrap();
                }
            }
        }
    }
}
