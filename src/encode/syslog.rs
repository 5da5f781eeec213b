//! Messages of the syslog protocol: RFC 5424, the older RFC 3164, or the event alone; framed as TCP
//! carries them (RFC 6587).

use serde::Deserialize;

use super::Format;
use crate::event::Event;

mod framing;
mod header;
mod oversize;
#[cfg(test)]
mod tests;

pub use framing::{Messages, messages};
pub use header::sound_hostname;

/// What the messages of a sink have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the text of a message is.
    pub format: Format,
    /// What stands before the text.
    pub header: Header,
    /// Which part of the system it is said to come from.
    pub facility: Facility,
    /// The host it is said to come from, as [`sound_hostname`] makes it.
    pub hostname: String,
    /// The private enterprise number in the name of the structured data.
    pub enterprise_number: u32,
    /// How many bytes a whole message may have, header included, framing not.
    pub max_message: usize,
    /// What becomes of a longer one.
    pub oversize: Oversize,
    /// How one message is told from the next.
    pub framing: Framing,
}

/// `header = …`: what stands before the text of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Header {
    /// With the time in milliseconds, the type and structured data.
    #[default]
    Rfc5424,
    /// As BSD had it: without a year.
    Rfc3164,
    /// Nothing.
    None,
}

/// `framing = …`: how one message is told from the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// The number of its bytes stands before it (RFC 6587, section 3.4.1).
    #[default]
    OctetCounted,
    /// A line feed stands behind it (RFC 6587, section 3.4.2).
    Newline,
}

/// `oversize = …`: what becomes of a message that is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Oversize {
    /// Its longest values are cut.
    #[default]
    Truncate,
    /// It is sent in parts; with the header of RFC 5424 alone, which numbers them.
    Split,
    /// It is not sent.
    DeadLetter,
}

/// `facility = …`: which part of the system a message is said to come from; the names are those of
/// `syslog.conf`, in the order of RFC 5424, table 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are all there is to say")]
pub enum Facility {
    Kern,
    User,
    Mail,
    Daemon,
    Auth,
    Syslog,
    Lpr,
    News,
    Uucp,
    Cron,
    Authpriv,
    Ftp,
    Ntp,
    Audit,
    Alert,
    Clock,
    Local0,
    Local1,
    Local2,
    Local3,
    #[default]
    Local4,
    Local5,
    Local6,
    Local7,
}

/// Longer than `max_message`, and the sink is not to change it, or it cannot be made to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it makes a message of {length} bytes, more than the {most} of `max_message`")]
pub struct TooLong {
    /// How many bytes the whole message has.
    pub length: usize,
    /// How many it may have.
    pub most: usize,
}

/// Appends the event's messages, framed: one, or more where a message is split.
///
/// # Errors
/// When the message is too long and [`Layout::oversize`] is no help; then nothing is appended.
pub fn encode(event: &Event<'_>, layout: &Layout, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let begin = out.len();
    header::put(event, layout, header::Mark::None, out);
    let text = out.len();
    layout.format.encode(event, out);
    framing::escape(layout.framing, text, out);
    let length = out.len() - begin;
    if length <= layout.max_message {
        framing::close(layout.framing, begin, out);
        return Ok(());
    }
    let text = out.split_off(text);
    out.truncate(begin);
    let is_done = match layout.oversize {
        Oversize::Truncate => oversize::truncate(event, layout, out),
        Oversize::Split => oversize::split(event, layout, &text, out),
        Oversize::DeadLetter => false,
    };
    if is_done { Ok(()) } else { Err(TooLong { length, most: layout.max_message }) }
}
