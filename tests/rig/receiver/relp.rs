//! RELP, as the public project `rsyslog/librelp` tells it in `doc/relp.md`. Where its own server
//! offers `relp_version=0` although that page has 1, so does this one.

use std::convert::Infallible;
use std::ops::Range;
use std::time::Duration;

use super::link::Link;
use super::message::{judge, judge_unframed};
use super::{Fault, How};

const LAST_TRANSACTION: u32 = 999_999_999;
const MOST_DIGITS: usize = 9;
const LONGEST_COMMAND: usize = 32;
/// How long more messages are waited for before those that are there are acknowledged.
const BURST: Duration = Duration::from_millis(5);
const OFFERS: &str = "200 OK\nrelp_version=0\nrelp_software=sim\ncommands=syslog";
const SERVER_CLOSE: &[u8] = b"0 serverclose 0\n";

/// A whole frame at the beginning of what has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    length: usize,
    transaction: u32,
    command: String,
    data: Range<usize>,
}

/// What a session knows.
struct Session<'a> {
    link: &'a mut Link,
    is_open: bool,
    /// The transaction before the next one.
    last: u32,
    /// What waits to be answered, in its order.
    waiting: Vec<(u32, String)>,
}

/// Takes messages to the connection's end.
pub fn serve(link: &mut Link) -> Result<Infallible, How> {
    let mut session = Session { link, is_open: false, last: 0, waiting: Vec::new() };
    loop {
        let most = session.link.shared.options.most_bytes;
        match frame(session.link.rest(), most).map_err(How::Refused)? {
            Some(frame) => session.obey(frame)?,
            None if session.waiting.is_empty() => {
                session.link.more(None).map_err(unclosed)?;
            }
            None => {
                if !session.link.more(Some(BURST)).map_err(unclosed)? {
                    session.acknowledge()?;
                }
            }
        }
    }
}

impl Session<'_> {
    fn obey(&mut self, frame: Frame) -> Result<(), How> {
        let expected = next(self.last);
        if frame.transaction != expected {
            let text = format!("transaction {} instead of {expected}", frame.transaction);
            return Err(How::Refused(text));
        }
        self.last = expected;
        let data = self.link.rest()[frame.data].to_vec();
        match (frame.command.as_str(), self.is_open) {
            ("open", false) => {
                self.link.skip(frame.length);
                self.open(&data)
            }
            ("syslog", true) => self.take(data, frame.length),
            ("close", true) => {
                self.link.skip(frame.length);
                self.close(&data)
            }
            (command, is_open) => {
                let when = if is_open { "after" } else { "before" };
                Err(How::Refused(format!("`{command}` {when} `open`")))
            }
        }
    }

    fn open(&mut self, data: &[u8]) -> Result<(), How> {
        offers(data).map_err(How::Refused)?;
        if let Some(text) = self.link.refuses_open.take() {
            self.link.answer(&response(self.last, &format!("500 {text}")))?;
            return Err(How::WasClosed);
        }
        self.is_open = true;
        self.link.answer(&response(self.last, OFFERS))
    }

    fn take(&mut self, message: Vec<u8>, frame: usize) -> Result<(), How> {
        let options = &self.link.shared.options;
        let (most, framing, window) = (options.most_bytes, options.framing, options.window);
        let ack_after = options.ack_after;
        judge(&message, framing, most)
            .and_then(|()| judge_unframed(&message))
            .map_err(How::Refused)?;
        if self.waiting.len() >= window {
            let text = format!("{} messages without an answer", self.waiting.len() + 1);
            return Err(How::Refused(text));
        }
        let mut answer = "200 OK".to_owned();
        match self.link.fault(&message) {
            None => {}
            Some(Fault::LoseAck) => {
                self.link.keep(message, frame);
                return Err(How::WasClosed);
            }
            Some(Fault::ServerClose) => {
                self.acknowledge()?;
                self.link.answer(SERVER_CLOSE)?;
                return Err(How::WasClosed);
            }
            Some(Fault::RefuseMessage(code, text)) => answer = format!("{code} {text}"),
            Some(fault) => self.link.suffer(fault)?,
        }
        self.link.skip(frame);
        if answer.starts_with("200") {
            self.link.keep(message, frame);
        }
        self.waiting.push((self.last, answer));
        if self.waiting.len() >= ack_after { self.acknowledge() } else { Ok(()) }
    }

    /// Answers what waits, unless a fault forbids it.
    fn acknowledge(&mut self) -> Result<(), How> {
        let waiting = std::mem::take(&mut self.waiting);
        if !self.link.is_usual() {
            return Ok(());
        }
        let answers: Vec<_> =
            waiting.iter().map(|(transaction, text)| response(*transaction, text)).collect();
        let count = waiting.iter().filter(|(_, text)| text.starts_with("200")).count();
        // Counted before the sender can know of it.
        self.link.shared.lock().connections[self.link.number].acknowledged += count;
        self.link.answer(&answers.concat())
    }

    /// Answers a `close`; nothing may come after it.
    fn close(&mut self, data: &[u8]) -> Result<(), How> {
        if !data.is_empty() {
            return Err(How::Refused("data behind `close`".to_owned()));
        }
        self.acknowledge()?;
        if self.link.is_usual() {
            let answer = self.link.shared.options.close_answer;
            self.link.answer(&response(self.last, answer))?;
            self.link.answer(SERVER_CLOSE)?;
            self.link.say_goodbye();
        }
        while self.link.rest().is_empty() {
            // Any end is good: all was said.
            self.link.more(None).map_err(|how| match how {
                How::Abrupt | How::Reset => How::Orderly,
                how => how,
            })?;
        }
        Err(How::Refused("something after `close`".to_owned()))
    }
}

fn next(transaction: u32) -> u32 {
    if transaction == LAST_TRANSACTION { 1 } else { transaction + 1 }
}

/// An end of the connection without a `close`.
fn unclosed(how: How) -> How {
    if how == How::Orderly { How::Abrupt } else { how }
}

fn response(transaction: u32, text: &str) -> Vec<u8> {
    let gap = if text.is_empty() { "" } else { " " };
    format!("{transaction} rsp {}{gap}{text}\n", text.len()).into_bytes()
}

/// What an `open` must offer.
fn offers(data: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(data).map_err(|err| format!("offers that are {err}"))?;
    let value = |name: &str| {
        let mut offers = text.lines().filter_map(|line| line.split_once('='));
        offers.find(|(known, _)| *known == name).map(|(_, value)| value)
    };
    match (value("relp_version"), value("commands")) {
        (Some("0" | "1"), Some(commands)) if commands.split(',').any(|it| it == "syslog") => Ok(()),
        _ => Err(format!("an `open` that offers {text:?}")),
    }
}

/// `TXNR SP COMMAND SP DATALEN [SP DATA] LF`. What cannot become a frame is refused at once.
fn frame(bytes: &[u8], most: usize) -> Result<Option<Frame>, String> {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
    let Some((transaction, at)) = number(bytes, 0, b" ").map_err(|why| why + &shown)? else {
        return Ok(None);
    };
    let letters = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let command = String::from_utf8_lossy(&bytes[at..at + letters]).into_owned();
    if letters > LONGEST_COMMAND {
        return Err(format!("a command that is too long: {shown}"));
    }
    let at = at + letters;
    match bytes.get(at) {
        None => return Ok(None),
        Some(b' ') if letters > 0 => {}
        Some(_) => return Err(format!("no command: {shown}")),
    }
    let Some((length, at)) = number(bytes, at + 1, b" \n").map_err(|why| why + &shown)? else {
        return Ok(None);
    };
    let length = usize::try_from(length).expect("a few digits");
    if length > most {
        return Err(format!("{length} bytes of data"));
    }
    // Without data there is no space before them.
    if (bytes[at - 1] == b'\n') != (length == 0) {
        return Err(format!("another length of data than it says: {shown}"));
    }
    let end = if length == 0 { at - 1 } else { at + length };
    match bytes.get(end) {
        None => Ok(None),
        Some(b'\n') => {
            let data = if length == 0 { at..at } else { at..end };
            Ok(Some(Frame { length: end + 1, transaction, command, data }))
        }
        Some(_) => Err(format!("no end of line where the frame ends: {shown}")),
    }
}

/// The number from there on that one of these bytes ends, and what stands behind that.
fn number(bytes: &[u8], from: usize, ends: &[u8]) -> Result<Option<(u32, usize)>, String> {
    let digits = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = from + digits;
    let has_zeros = digits > 1 && bytes[from] == b'0';
    match bytes.get(end) {
        _ if digits > MOST_DIGITS || has_zeros => Err("no number as it should be: ".to_owned()),
        None => Ok(None),
        Some(byte) if digits > 0 && ends.contains(byte) => {
            let text = std::str::from_utf8(&bytes[from..end]).expect("digits");
            Ok(Some((text.parse().expect("a few digits"), end + 1)))
        }
        Some(_) => Err("no number: ".to_owned()),
    }
}

#[test]
fn behind_the_last_transaction_comes_the_first() {
    assert_eq!(next(0), 1);
    assert_eq!(next(999_999_998), 999_999_999);
    assert_eq!(next(999_999_999), 1);
}
