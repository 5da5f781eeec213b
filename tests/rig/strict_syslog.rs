//! A receiver of syslog that takes nothing but what the standards allow: RFC 5424 by the grammar of
//! its section 6, RFC 3164 as siemferry writes it, and the framings of RFC 6587. It knows nothing of
//! the code that it judges.

/// An element of the structured data: its id, and its parameters with what their values mean.
pub type Element = (String, Vec<(String, String)>);

/// A message of RFC 5424. Nil is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub pri: u8,
    pub time: Option<String>,
    pub hostname: Option<String>,
    pub app_name: Option<String>,
    pub procid: Option<String>,
    pub msgid: Option<String>,
    pub data: Vec<Element>,
    /// Behind the space; none when the message ends without one.
    pub msg: Option<Vec<u8>>,
}

impl Message {
    /// Reads a whole message, without its framing.
    pub fn parse(message: &[u8]) -> Result<Self, String> {
        let mut reader = Reader { rest: message };
        let pri = reader.priority()?;
        reader.expect(b"1 ", "VERSION and SP")?;
        let time = reader.field("TIMESTAMP", 64)?;
        if let Some(time) = &time {
            timestamp(time)?;
        }
        reader.expect(b" ", "SP")?;
        let hostname = reader.field("HOSTNAME", 255)?;
        reader.expect(b" ", "SP")?;
        let app_name = reader.field("APP-NAME", 48)?;
        reader.expect(b" ", "SP")?;
        let procid = reader.field("PROCID", 128)?;
        reader.expect(b" ", "SP")?;
        let msgid = reader.field("MSGID", 32)?;
        reader.expect(b" ", "SP")?;
        let data = reader.structured_data()?;
        let msg = match reader.rest {
            [] => None,
            [b' ', msg @ ..] => Some(msg.to_vec()),
            _ => return Err(reader.wrong("SP or the end behind STRUCTURED-DATA")),
        };
        if let Some(msg) = &msg {
            utf8(msg)?;
        }
        Ok(Self { pri, time, hostname, app_name, procid, msgid, data, msg })
    }

    /// What a parameter of an element says; they are there once.
    pub fn parameter(&self, id: &str, name: &str) -> Option<&str> {
        let (_, parameters) = self.data.iter().find(|(known, _)| known == id)?;
        parameters.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// A message of RFC 3164, with the time and the tag that siemferry gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldMessage {
    pub pri: u8,
    /// `Mmm dd hh:mm:ss`.
    pub time: String,
    pub hostname: String,
    /// Before the colon.
    pub tag: String,
    /// Behind the colon and a space.
    pub msg: Vec<u8>,
}

impl OldMessage {
    /// Reads a whole message, without its framing.
    pub fn parse(message: &[u8]) -> Result<Self, String> {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let mut reader = Reader { rest: message };
        let pri = reader.priority()?;
        let time = reader.take(15, "TIMESTAMP")?;
        let time = std::str::from_utf8(time).map_err(|_| "TIMESTAMP is not ASCII")?.to_owned();
        let bytes = time.as_bytes();
        let day = match bytes[4] {
            b' ' => number(&bytes[5..6], 1..=9),
            _ => number(&bytes[4..6], 10..=31),
        };
        let sound = MONTHS.contains(&time.get(..3).unwrap_or_default())
            && (bytes[3], bytes[6], bytes[9], bytes[12]) == (b' ', b' ', b':', b':')
            && day.is_some()
            && number(&bytes[7..9], 0..=23).is_some()
            && number(&bytes[10..12], 0..=59).is_some()
            && number(&bytes[13..15], 0..=59).is_some();
        if !sound {
            return Err(format!("TIMESTAMP is `{time}`"));
        }
        reader.expect(b" ", "SP")?;
        let hostname = reader.printable("HOSTNAME", 255)?;
        reader.expect(b" ", "SP")?;
        let letters = reader.rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if !(1..=32).contains(&letters) {
            return Err(format!("TAG has {letters} characters"));
        }
        let tag = String::from_utf8_lossy(reader.take(letters, "TAG")?).into_owned();
        reader.expect(b": ", "a colon and SP")?;
        Ok(Self { pri, time, hostname, tag, msg: reader.rest.to_vec() })
    }
}

/// What is left of a message.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn wrong(&self, expected: &str) -> String {
        let rest = String::from_utf8_lossy(&self.rest[..self.rest.len().min(40)]);
        format!("expected {expected}, found `{rest}`")
    }

    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.wrong(what))?;
        self.rest = rest;
        Ok(taken)
    }

    fn expect(&mut self, bytes: &[u8], what: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(bytes).ok_or_else(|| self.wrong(what))?;
        Ok(())
    }

    /// `<`, 0 to 191 without a zero before it, `>`.
    fn priority(&mut self) -> Result<u8, String> {
        self.expect(b"<", "`<`")?;
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = self.take(digits, "PRIVAL")?;
        if digits.is_empty() || digits.len() > 3 || (digits.len() > 1 && digits[0] == b'0') {
            return Err(format!("PRIVAL is `{}`", String::from_utf8_lossy(digits)));
        }
        let pri = number(digits, 0..=191).ok_or("PRIVAL is over 191")?;
        self.expect(b">", "`>`")?;
        Ok(u8::try_from(pri).unwrap())
    }

    /// At least one of the characters from 33 to 126; a lone `-` is nil.
    fn field(&mut self, name: &str, most: usize) -> Result<Option<String>, String> {
        Ok(Some(self.printable(name, most)?).filter(|text| text != "-"))
    }

    fn printable(&mut self, name: &str, most: usize) -> Result<String, String> {
        let length = self.rest.iter().take_while(|byte| (33..=126).contains(*byte)).count();
        if length == 0 || length > most {
            return Err(format!("{name} has {length} characters, {}", self.wrong(name)));
        }
        Ok(String::from_utf8_lossy(self.take(length, name)?).into_owned())
    }

    fn structured_data(&mut self) -> Result<Vec<Element>, String> {
        let mut data: Vec<Element> = Vec::new();
        if let [b'-', rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(data);
        }
        loop {
            self.expect(b"[", "SD-ELEMENT")?;
            let id = self.name()?;
            // A name without `@` is reserved to IANA; the digits behind it are an enterprise's.
            let (name, enterprise) = id.split_once('@').ok_or("SD-ID has no `@`")?;
            let digits = enterprise.bytes().all(|byte| byte.is_ascii_digit());
            if name.is_empty() || enterprise.is_empty() || !digits {
                return Err(format!("SD-ID is `{id}`"));
            }
            if data.iter().any(|(known, _)| *known == id) {
                return Err(format!("SD-ID `{id}` is there twice"));
            }
            let mut parameters = Vec::new();
            while self.rest.first() == Some(&b' ') {
                self.rest = &self.rest[1..];
                let name = self.name()?;
                self.expect(b"=\"", "`=` and a quotation mark")?;
                parameters.push((name, self.value()?));
            }
            self.expect(b"]", "`]`")?;
            data.push((id, parameters));
            if self.rest.first() != Some(&b'[') {
                return Ok(data);
            }
        }
    }

    /// SD-NAME.
    fn name(&mut self) -> Result<String, String> {
        let is_of_it = |byte: &&u8| (33..=126).contains(*byte) && !b"=]\"".contains(*byte);
        let length = self.rest.iter().take_while(is_of_it).count();
        if !(1..=32).contains(&length) {
            return Err(format!("SD-NAME has {length} characters, {}", self.wrong("a name")));
        }
        Ok(String::from_utf8_lossy(self.take(length, "SD-NAME")?).into_owned())
    }

    /// PARAM-VALUE, and the quotation mark behind it.
    fn value(&mut self) -> Result<String, String> {
        let mut value = Vec::new();
        loop {
            match self.rest {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    break;
                }
                [b'\\', escaped @ (b'"' | b'\\' | b']'), rest @ ..] => {
                    value.push(*escaped);
                    self.rest = rest;
                }
                // Allowed to be read, but not to be written.
                [b'\\', ..] => return Err(self.wrong("an escape of PARAM-VALUE")),
                [b']', ..] => return Err(self.wrong("PARAM-VALUE without a bare `]`")),
                [byte, rest @ ..] => {
                    value.push(*byte);
                    self.rest = rest;
                }
                [] => return Err("PARAM-VALUE has no end".to_owned()),
            }
        }
        String::from_utf8(value).map_err(|_| "PARAM-VALUE is not UTF-8".to_owned())
    }
}

/// FULL-DATE "T" FULL-TIME, of a day and a time that there are.
fn timestamp(text: &str) -> Result<(), String> {
    let wrong = || format!("TIMESTAMP is `{text}`");
    let bytes = text.as_bytes();
    if bytes.len() < 20 {
        return Err(wrong());
    }
    let separators = [bytes[4], bytes[7], bytes[10], bytes[13], bytes[16]] == *b"--T::";
    let year = number(&bytes[..4], 0..=9999).ok_or_else(wrong)?;
    let month = number(&bytes[5..7], 1..=12).ok_or_else(wrong)?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let rest = &bytes[19..];
    let (fraction, zone) = match rest.strip_prefix(b".") {
        Some(rest) => rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count()),
        None => (&b"0"[..], rest),
    };
    let zone_is_sound = match zone {
        b"Z" => true,
        [b'+' | b'-', hour @ .., b':', minute_1, minute_2] => {
            number(hour, 0..=23).is_some()
                && hour.len() == 2
                && number(&[*minute_1, *minute_2], 0..=59).is_some()
        }
        _ => false,
    };
    let sound = separators
        && number(&bytes[8..10], 1..=days).is_some()
        && number(&bytes[11..13], 0..=23).is_some()
        && number(&bytes[14..16], 0..=59).is_some()
        && number(&bytes[17..19], 0..=59).is_some()
        && (1..=6).contains(&fraction.len())
        && zone_is_sound;
    if sound { Ok(()) } else { Err(wrong()) }
}

/// The number that these digits, and nothing else, are.
fn number(digits: &[u8], range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| range.contains(number))
}

/// MSG may be any bytes by the grammar; ours promises UTF-8.
fn utf8(msg: &[u8]) -> Result<(), String> {
    std::str::from_utf8(msg).map(drop).map_err(|err| format!("MSG is not UTF-8: {err}"))
}

/// How one message is told from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// RFC 6587, section 3.4.1.
    OctetCounted,
    /// RFC 6587, section 3.4.2: a line feed ends each.
    Newline,
}

/// Takes the messages out of a stream that comes in any pieces.
pub struct Deframer {
    framing: Framing,
    bytes: Vec<u8>,
    /// Where the next message begins.
    at: usize,
    /// Up to where there is no line feed.
    seen: usize,
    is_broken: bool,
}

/// No message may be longer.
const MOST_MESSAGE: usize = 16 << 20;

impl Deframer {
    /// Begins with a message.
    pub fn new(framing: Framing) -> Self {
        Self { framing, bytes: Vec::new(), at: 0, seen: 0, is_broken: false }
    }

    /// Adds what was received.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.seen = self.seen.saturating_sub(self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message. Behind an error there is nothing more: nobody knows where the next
    /// message begins.
    pub fn next(&mut self) -> Option<Result<Vec<u8>, String>> {
        if self.is_broken {
            return None;
        }
        let found = match self.framing {
            Framing::OctetCounted => self.counted(),
            Framing::Newline => self.line(),
        };
        let message = found.transpose()?;
        self.is_broken = message.is_err();
        Some(message)
    }

    /// Whether the stream may end here: between two messages.
    pub fn is_at_boundary(&self) -> bool {
        self.at == self.bytes.len() && !self.is_broken
    }

    /// MSG-LEN SP SYSLOG-MSG.
    fn counted(&mut self) -> Result<Option<Vec<u8>>, String> {
        let rest = &self.bytes[self.at..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 10 {
            return Err(format!("MSG-LEN has {digits} digits"));
        }
        if rest.first() == Some(&b'0') {
            return Err("MSG-LEN begins with 0".to_owned());
        }
        match rest.get(digits) {
            None => return Ok(None),
            Some(b' ') if digits > 0 => {}
            Some(byte) => return Err(format!("MSG-LEN has a byte {byte}")),
        }
        let length = number(&rest[..digits], 1..=u32::MAX).ok_or("MSG-LEN is too large")? as usize;
        if length > MOST_MESSAGE {
            return Err(format!("MSG-LEN is {length}"));
        }
        let Some(message) = rest[digits + 1..].get(..length) else { return Ok(None) };
        self.at += digits + 1 + length;
        Ok(Some(message.to_vec()))
    }

    /// SYSLOG-MSG LF.
    fn line(&mut self) -> Result<Option<Vec<u8>>, String> {
        let from = self.seen.max(self.at);
        let Some(end) = memchr::memchr(b'\n', &self.bytes[from..]) else {
            self.seen = self.bytes.len();
            let is_long = self.seen - self.at > MOST_MESSAGE;
            return if is_long { Err("a line has no end".into()) } else { Ok(None) };
        };
        let line = self.bytes[self.at..from + end].to_vec();
        self.at = from + end + 1;
        if line.is_empty() { Err("a line is empty".into()) } else { Ok(Some(line)) }
    }
}
