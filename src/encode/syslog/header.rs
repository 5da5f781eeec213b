//! What stands before the text of a message.

use chrono::{Datelike, Timelike};

use super::{Facility, Header, Layout};
use crate::encode::digits::{put_decimal, put_number};
use crate::encode::json::{civil, put_civil, put_uid};
use crate::encode::mapping;
use crate::event::Event;

/// As what the messages name their application.
const APP_NAME: &[u8] = b"siemferry";

/// The longest MSGID. (RFC 5424, section 6)
const MOST_MSGID: usize = 32;

/// What the structured data says of a message that is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is whole.
    None,
    /// Its longest values were cut.
    Truncated,
    /// It is this of so many parts; both from 1.
    Part(usize, usize),
}

/// Appends the header, with whatever separates it from the text.
pub(super) fn put(event: &Event<'_>, layout: &Layout, mark: Mark, out: &mut Vec<u8>) {
    match layout.header {
        Header::Rfc5424 => put_5424(event, layout, mark, out),
        Header::Rfc3164 => put_3164(event, layout, out),
        Header::None => {}
    }
}

/// RFC 5424, section 6. The process id is left out: a repeat after a restart has the same bytes.
fn put_5424(event: &Event<'_>, layout: &Layout, mark: Mark, out: &mut Vec<u8>) {
    put_priority(event, layout.facility, out);
    out.extend_from_slice(b"1 ");
    match when(event) {
        Some(time) => put_civil(time, out),
        None => out.push(b'-'),
    }
    out.push(b' ');
    out.extend_from_slice(layout.hostname.as_bytes());
    out.push(b' ');
    out.extend_from_slice(APP_NAME);
    out.extend_from_slice(b" - ");
    put_msgid(event.event_type.unwrap_or_default(), out);
    out.extend_from_slice(b" [siemferry@");
    put_decimal(layout.enterprise_number.into(), out);
    out.extend_from_slice(br#" uid=""#);
    put_uid(event.uid, out);
    out.extend_from_slice(br#"" source=""#);
    put_value(event.source, out);
    out.push(b'"');
    match mark {
        Mark::None => {}
        Mark::Truncated => out.extend_from_slice(br#" truncated="true""#),
        Mark::Part(part, of) => {
            out.extend_from_slice(br#" part=""#);
            put_decimal(part as u64, out);
            out.push(b'/');
            put_decimal(of as u64, out);
            out.push(b'"');
        }
    }
    out.extend_from_slice(b"] ");
}

/// RFC 3164, section 4.1, in UTC.
fn put_3164(event: &Event<'_>, layout: &Layout, out: &mut Vec<u8>) {
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    put_priority(event, layout.facility, out);
    // Its format has nothing for a time that is not known.
    let time = when(event).unwrap_or_default();
    out.extend_from_slice(MONTHS[time.month0() as usize]);
    out.extend_from_slice(if time.day() < 10 { b"  " } else { b" " });
    put_decimal(time.day().into(), out);
    for (before, number) in [(b' ', time.hour()), (b':', time.minute()), (b':', time.second())] {
        out.push(before);
        put_number(number, 2, out);
    }
    out.push(b' ');
    out.extend_from_slice(layout.hostname.as_bytes());
    out.push(b' ');
    out.extend_from_slice(APP_NAME);
    out.extend_from_slice(b": ");
}

fn put_priority(event: &Event<'_>, facility: Facility, out: &mut Vec<u8>) {
    let severity = mapping::severity(event.api, event.event_type);
    out.push(b'<');
    put_decimal(facility as u64 * 8 + severity as u64, out);
    out.push(b'>');
}

/// The time of the event; that of its receipt where it has none of four digits.
fn when(event: &Event<'_>) -> Option<chrono::DateTime<chrono::Utc>> {
    event.time.and_then(civil).or_else(|| civil(event.received))
}

fn put_msgid(event_type: &str, out: &mut Vec<u8>) {
    if event_type.is_empty() {
        out.push(b'-');
    }
    out.extend(event_type.bytes().take(MOST_MSGID).map(sound));
}

/// The value of a parameter. (RFC 5424, section 6.3.3)
fn put_value(value: &str, out: &mut Vec<u8>) {
    for byte in value.bytes() {
        if matches!(byte, b'"' | b'\\' | b']') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// The byte itself where the fields of a header may have it.
fn sound(byte: u8) -> u8 {
    if byte.is_ascii_graphic() { byte } else { b'_' }
}

/// A host name as RFC 5424 wants it: bytes outside of 33 to 126 become `_`, at most 255 of them; `-`
/// for an empty one.
pub fn sound_hostname(name: &str) -> String {
    if name.is_empty() {
        return "-".to_owned();
    }
    name.bytes().take(255).map(|byte| char::from(sound(byte))).collect()
}
