//! Syslog as a stream of frames: RFC 6587, and RFC 5425 with TLS.

use std::convert::Infallible;

use super::link::Link;
use super::message::judge;
use super::{Framing, How};
use crate::strict_syslog::Deframer;

/// Bytes that the frame of a message may have besides it.
const FRAME: usize = 8;

/// Takes messages to the connection's end.
pub fn serve(link: &mut Link) -> Result<Infallible, How> {
    let mut deframer = Deframer::new(link.shared.options.framing);
    let ended = take_all(link, &mut deframer);
    if let Err(How::WasReset | How::WasClosed) = ended {
        deframer.push(&link.unread());
        while let Some(Ok(message)) = deframer.next() {
            link.lose(message);
        }
    }
    ended
}

fn take_all(link: &mut Link, deframer: &mut Deframer) -> Result<Infallible, How> {
    let (framing, most) = (link.shared.options.framing, link.shared.options.most_bytes);
    loop {
        let Some(message) = deframer.next().transpose().map_err(How::Refused)? else {
            if link.untaken() > most + FRAME {
                return Err(How::Refused(format!("{} bytes without an end", link.untaken())));
            }
            link.more(None)?;
            deframer.push(link.hand_over());
            continue;
        };
        judge(&message, framing, most).map_err(How::Refused)?;
        if let Some(fault) = link.fault(&message)
            && let Err(how) = link.suffer(fault)
        {
            link.lose(message);
            return Err(how);
        }
        let length = match framing {
            Framing::OctetCounted => message.len().to_string().len() + 1 + message.len(),
            Framing::Newline => message.len() + 1,
        };
        link.took(length);
        link.keep(message, length);
    }
}
