//! Messages that are too long: cut, or split.

use std::borrow::Cow;

use super::header::{self, Mark};
use super::{Framing, Header, Layout, framing};
use crate::encode::Format;
use crate::encode::cut::{end_of_piece, put_members};
use crate::encode::json::{Marks, put_member};
use crate::encode::members::members;
use crate::event::Event;

/// What is left of a type in our own member, where that takes too much room: bytes.
const SHORT_TYPES: [usize; 3] = [usize::MAX, 64, 8];

/// Appends the message with its longest values cut, framed. False, and nothing is appended, when no
/// cut makes it fit.
pub(super) fn truncate(event: &Event<'_>, layout: &Layout, out: &mut Vec<u8>) -> bool {
    SHORT_TYPES.into_iter().any(|most| {
        let event_type = event.event_type.map(|event_type| beginning(event_type, most));
        truncate_values(event, &Event { event_type, ..*event }, layout, out)
    })
}

/// As much of a text as has at most so many bytes.
fn beginning(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
    &text[..ends.take_while(|end| *end <= most).last().unwrap_or(0)]
}

/// `short` is the same event, as our member tells of it.
fn truncate_values(
    event: &Event<'_>,
    short: &Event<'_>,
    layout: &Layout,
    out: &mut Vec<u8>,
) -> bool {
    let begin = out.len();
    header::put(event, layout, Mark::Truncated, out);
    let mut ours = Vec::new();
    match layout.format {
        Format::Json => put_member(short, Marks { truncated: true, ..Marks::default() }, &mut ours),
        Format::Raw => ours.extend_from_slice(br#""siemferry":{"truncated":true}"#),
    }
    framing::escape(layout.framing, 0, &mut ours);
    // Escaped before it is cut: no cut is within an escape.
    let record = match layout.framing {
        Framing::OctetCounted => Cow::Borrowed(event.raw),
        Framing::Newline => {
            let mut record = Vec::with_capacity(event.raw.len());
            framing::put_escaped(event.raw, &mut record);
            Cow::Owned(record)
        }
    };
    let object = out.len();
    // The comma before ours and a brace; the other takes the place of the comma before the first.
    let taken = object - begin + ours.len() + 2;
    let members: Vec<_> = members(&record).collect();
    put_members(&members, layout.max_message.saturating_sub(taken), out);
    out.push(b',');
    out[object] = b'{';
    out.extend_from_slice(&ours);
    // `{` is the comma where there is no member before ours.
    out.push(b'}');
    let fits = out.len() - begin <= layout.max_message;
    if fits {
        framing::close(layout.framing, begin, out);
    } else {
        out.truncate(begin);
    }
    fits
}

/// Appends the text in as few messages as can be, framed; joined, their texts are the text. False,
/// and nothing is appended, when the header leaves no room or cannot say which part is which.
pub(super) fn split(event: &Event<'_>, layout: &Layout, text: &[u8], out: &mut Vec<u8>) -> bool {
    if layout.header != Header::Rfc5424 {
        return false;
    }
    let mut header = Vec::new();
    // The numbers of the parts take room themselves.
    let mut most = 9;
    let ends = loop {
        header.clear();
        header::put(event, layout, Mark::Part(most, most), &mut header);
        let room = layout.max_message.saturating_sub(header.len());
        let Some(ends) = ends_of_pieces(text, room, layout.framing) else { return false };
        if ends.len() <= most {
            break ends;
        }
        most = most * 10 + 9;
    };
    let mut from = 0;
    for (index, end) in ends.iter().enumerate() {
        let begin = out.len();
        header::put(event, layout, Mark::Part(index + 1, ends.len()), out);
        out.extend_from_slice(&text[from..*end]);
        framing::close(layout.framing, begin, out);
        from = *end;
    }
    true
}

/// Where the pieces end that have at most `room` bytes; none when there is no room for anything.
fn ends_of_pieces(text: &[u8], room: usize, framing: Framing) -> Option<Vec<usize>> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let length = end_of_piece(&text[at..], room, framing == Framing::Newline);
        if length == 0 {
            return None;
        }
        at += length;
        ends.push(at);
    }
    Some(ends)
}
