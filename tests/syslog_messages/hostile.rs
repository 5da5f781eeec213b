//! Events that break whatever can be broken.

use siemferry::encode::Format;
use siemferry::event::{Event, Millis, Uid};
use siemferry::sim::Rng;

/// What the strings of a record are made of, as it stands in JSON.
const IN_JSON: [&str; 30] = [
    "a",
    "plain text",
    "user@example.com",
    "]",
    "}",
    "[x y=",
    "<165>1 ",
    "12 <",
    r"\n",
    r"\r\n",
    r#"\""#,
    r"\\",
    r"\\n",
    r"\/",
    r"\u0000",
    r"\u000A",
    r"\u0085",
    r"\u2028",
    r"\\u0085",
    r"\ud800",
    r"\udc00\ud83d",
    r"\ud83d\udd11",
    "\u{7f}",
    "\u{80}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}\u{2029}",
    "\u{202e}\u{2066}\u{200f}",
    "\u{feff}\u{fffe}",
    "é\u{e000}\u{1f511}\u{10ffff}",
];

/// What types are made of, as they are meant.
const IN_TYPES: [&str; 14] = [
    "login", "_", " ", "\n", "\r", "\0", "\t", "\"", "]", "\\", "\u{7f}", "\u{85}", "é", "\u{2028}",
];

const NUMBERS: [&str; 6] = ["0", "-1", "1e400", "123456789012345678901234567890", "0.10", "-0"];

const TIMES: [Millis; 9] = [
    0,
    -1,
    i64::MIN,
    i64::MAX,
    253_402_300_799_999,
    253_402_300_800_000,
    -62_135_596_800_000,
    -62_135_596_800_001,
    951_782_400_000,
];

/// An event with whatever may be in one.
pub struct Hostile {
    pub uid: Uid,
    pub time: Option<Millis>,
    pub received: Millis,
    pub event_type: Option<String>,
    pub source: &'static str,
    raw: String,
}

impl Hostile {
    pub fn draw(rng: &mut Rng, format: Format) -> Self {
        let mut uid = [0; 16];
        uid[..8].copy_from_slice(&rng.draw().to_le_bytes());
        uid[8..].copy_from_slice(&rng.draw().to_le_bytes());
        let time = match rng.below(8) {
            0 => None,
            1 => Some(*rng.pick(&TIMES)),
            _ => Some(rng.between(1_500_000_000_000, 1_900_000_000_000)),
        };
        // Of a name that no configuration allows, `json` makes no JSON.
        let source = match format {
            Format::Raw => *rng.pick(&["acme", "a\"b", "]", "\\", "\\\"]\\]", "é=\u{202e} x"]),
            Format::Json => "acme",
        };
        let mut raw = String::new();
        put_object(rng, 3, &mut raw);
        Self {
            uid: Uid(uid),
            time,
            received: rng.between(1_500_000_000_000, 1_900_000_000_000),
            event_type: event_type(rng),
            source,
            raw,
        }
    }

    pub fn event(&self) -> Event<'_> {
        Event {
            seq: 7,
            uid: self.uid,
            time: self.time,
            event_type: self.event_type.as_deref(),
            raw: self.raw.as_bytes(),
            source: self.source,
            api: "keeper",
            received: self.received,
        }
    }
}

fn event_type(rng: &mut Rng) -> Option<String> {
    match rng.below(10) {
        0 => None,
        1 => Some(String::new()),
        2 => Some("-".to_owned()),
        3..6 => Some((0..rng.below(12)).map(|_| *rng.pick(&IN_TYPES)).collect()),
        6 => Some("bw_record_high_risk".to_owned()),
        _ => Some("login_failure".to_owned()),
    }
}

fn put_object(rng: &mut Rng, depth: u64, out: &mut String) {
    out.push('{');
    for index in 0..rng.below(2 * depth) {
        if index > 0 {
            out.push(',');
        }
        put_string(rng, 2, out);
        out.push(':');
        put_value(rng, depth, out);
    }
    out.push('}');
}

fn put_value(rng: &mut Rng, depth: u64, out: &mut String) {
    match rng.below(12) {
        0 => out.push_str(rng.pick::<&str>(&["null", "true", "false", "[]", "{}", "[[],[{}]]"])),
        1 => out.push_str(rng.pick::<&str>(&NUMBERS)),
        2 if depth > 1 => put_object(rng, depth - 1, out),
        3 => {
            out.push('[');
            put_string(rng, 3, out);
            out.push(']');
        }
        4 if rng.chance(1, 30) => put_string(rng, 3000, out),
        _ => put_string(rng, 6, out),
    }
}

/// A string of up to so many pieces.
fn put_string(rng: &mut Rng, most: u64, out: &mut String) {
    out.push('"');
    for _ in 0..=rng.below(most) {
        out.push_str(rng.pick::<&str>(&IN_JSON));
    }
    out.push('"');
}

/// The same JSON text, with the escapes of control characters and separators of lines undone. (It is
/// no JSON then, but equal for equal meanings.)
pub fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let code = rest.get(2..6).filter(|_| rest.starts_with(r"\u"));
        let code = code.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let found = code.and_then(char::from_u32);
        let length = match found {
            Some(c) if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                out.push(c);
                6
            }
            _ => {
                // With what is escaped: a second backslash begins nothing.
                out.push_str(&rest[..2]);
                2
            }
        };
        rest = &rest[length..];
    }
    out + rest
}
