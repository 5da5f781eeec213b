//! Syslog as a stream of frames: RFC 6587, and RFC 5425 with TLS.

use std::convert::Infallible;
use std::ops::Range;

use super::link::Link;
use super::message::judge;
use super::{Framing, How};

/// Digits that a length may have.
const MOST_DIGITS: usize = 9;

/// A whole frame at the beginning of what has come.
struct Frame {
    length: usize,
    message: Range<usize>,
}

/// Takes messages to the connection's end.
pub fn serve(link: &mut Link) -> Result<Infallible, How> {
    let (framing, most) = (link.shared.options.framing, link.shared.options.most_bytes);
    loop {
        let frame = frame(link.rest(), framing, most).map_err(How::Refused)?;
        let Some(Frame { length, message }) = frame else {
            link.more(None)?;
            continue;
        };
        let message = link.rest()[message].to_vec();
        judge(&message, framing, most).map_err(How::Refused)?;
        if let Some(fault) = link.fault(&message) {
            link.suffer(fault)?;
        }
        link.skip(length);
        link.keep(message, length);
    }
}

fn frame(bytes: &[u8], framing: Framing, most: usize) -> Result<Option<Frame>, String> {
    match framing {
        Framing::OctetCounted => counted(bytes, most),
        Framing::Newline => {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            if end.is_none() && bytes.len() > most {
                return Err(format!("{} bytes without an end of line", bytes.len()));
            }
            Ok(end.map(|end| Frame { length: end + 1, message: 0..end }))
        }
    }
}

/// `MSG-LEN SP SYSLOG-MSG`, where `MSG-LEN = NONZERO-DIGIT *DIGIT`.
fn counted(bytes: &[u8], most: usize) -> Result<Option<Frame>, String> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]);
    if bytes.first() == Some(&b'0') || digits > MOST_DIGITS || (digits == 0 && !bytes.is_empty()) {
        return Err(format!("no length at {shown:?}"));
    }
    match bytes.get(digits) {
        None => return Ok(None),
        Some(b' ') => {}
        Some(_) => return Err(format!("no space behind the length at {shown:?}")),
    }
    let text = std::str::from_utf8(&bytes[..digits]).expect("digits");
    let length: usize = text.parse().expect("a few digits");
    if length > most {
        return Err(format!("a message of {length} bytes"));
    }
    let end = digits + 1 + length;
    Ok((bytes.len() >= end).then_some(Frame { length: end, message: digits + 1..end }))
}
