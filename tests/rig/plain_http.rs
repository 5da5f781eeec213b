//! What the simulators know of HTTP/1.1: a request's head in, an answer out.

use std::io::{self, BufRead, Write};
use std::sync::{Condvar, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;

/// All of a request but its body.
#[derive(Clone, Debug)]
pub struct Head {
    pub method: String,
    /// Each part of it decoded.
    pub path: Vec<String>,
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

/// An answer, not yet sent.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// Holds requests until a test lets them go.
#[derive(Default)]
pub struct Gate {
    opened: Mutex<u64>,
    bell: Condvar,
}

impl Head {
    /// Reads one; none where the connection ends before it.
    pub fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(first) = line(input)? else { return Ok(None) };
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let mut headers = Vec::new();
        while let Some(line) = line(input)?.filter(|line| !line.is_empty()) {
            let (name, value) =
                line.split_once(':').ok_or_else(|| io::Error::other("no header"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        Ok(Some(Self { method: method.to_owned(), path, query: pairs(query), headers }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        value_of(&self.headers, name)
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        value_of(&self.query, name)
    }

    /// How long the body is.
    pub fn length(&self) -> io::Result<usize> {
        let length = self.header("content-length").map_or(Ok(0), str::parse::<usize>);
        length.map_err(io::Error::other)
    }
}

impl Answer {
    /// Sends it with these headers too; `is_cut` ends it in the middle of its body.
    pub fn send(
        &self,
        out: &mut impl Write,
        to: &Head,
        more: &[(String, String)],
        is_cut: bool,
    ) -> io::Result<()> {
        let mut body = self.body.clone().into_bytes();
        let mut head = format!("HTTP/1.1 {} As Simulated\r\n", self.status);
        for (name, value) in &self.headers {
            head.extend([*name, ": ", value, "\r\n"]);
        }
        for (name, value) in more {
            head.extend([name, ": ", value, "\r\n"]);
        }
        let is_asked = to.header("accept-encoding").is_some_and(|it| it.contains("gzip"));
        if is_asked && !body.is_empty() {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(3));
            encoder.write_all(&body)?;
            body = encoder.finish()?;
            head.push_str("content-encoding: gzip\r\n");
        }
        if self.status != 204 {
            head.extend(["content-length: ", &body.len().to_string(), "\r\n"]);
        }
        head.push_str("\r\n");
        if to.method == "HEAD" {
            body.clear();
        }
        let end = if is_cut { body.len() / 2 } else { body.len() };
        out.write_all(head.as_bytes())?;
        out.write_all(&body[..end])?;
        out.flush()
    }
}

impl Gate {
    /// Lets go of everything that is held.
    pub fn open(&self) {
        *self.opened.lock().unwrap() += 1;
        self.bell.notify_all();
    }

    /// How often it was opened so far.
    pub fn opened(&self) -> u64 {
        *self.opened.lock().unwrap()
    }

    /// Waits until it was opened more often than that.
    pub fn wait(&self, before: u64) {
        let opened = self.opened.lock().unwrap();
        drop(self.bell.wait_while(opened, |count| *count == before).unwrap());
    }
}

/// The first value of this name.
pub fn value_of<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// The decoded pairs of a query or a form.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = input.read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let code = behind.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match (byte, code.and_then(|code| u8::from_str_radix(code, 16).ok())) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &behind[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
