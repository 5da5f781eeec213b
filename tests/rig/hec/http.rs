//! One connection: requests in, answers out, and every way in which that can break.

use std::io::{self, BufReader, Read as _};
use std::net::TcpStream;
use std::ops::Deref;

use uuid::Uuid;

use super::api::{self, Refusal, refusal};
use super::{Fault, Flavor, Shared};
use crate::plain_http::{Answer, Head};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It brings events.
    Event,
    /// It asks whether batches are safe.
    Ack,
    Health,
    Other,
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub kind: Kind,
    /// From 1, of this kind.
    pub number: u64,
    pub head: Head,
    /// As sent, compressed or not.
    pub body: Vec<u8>,
}

impl Deref for Seen {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl Seen {
    fn new(head: Head, flavor: Flavor) -> Self {
        let path: Vec<&str> = head.path.iter().map(String::as_str).collect();
        let kind = match (flavor, head.method.as_str(), path.as_slice()) {
            (
                _,
                "POST",
                ["services", "collector"]
                | ["services", "collector", "event"]
                | ["services", "collector", "event", "1.0"],
            )
            | (Flavor::LogScale, "POST", ["api", "v1", "ingest", "hec"]) => Kind::Event,
            // Unproven: LogScale has neither.
            (Flavor::Splunk, "POST", ["services", "collector", "ack"]) => Kind::Ack,
            (Flavor::Splunk, "GET", ["services", "collector", "health"]) => Kind::Health,
            _ => Kind::Other,
        };
        Self { kind, number: 0, head, body: Vec::new() }
    }

    /// Whether it is the one of this number of its kind.
    pub fn is(&self, kind: Kind, number: u64) -> bool {
        self.kind == kind && self.number == number
    }

    pub fn is_collector(&self) -> bool {
        self.path.starts_with(&["services".to_owned(), "collector".to_owned()])
    }

    /// The channel in the header or the query; refused when it is no GUID.
    pub fn channel(&self) -> Result<Option<String>, Refusal> {
        let given = self.header("x-splunk-request-channel").or_else(|| self.query("channel"));
        let Some(given) = given else { return Ok(None) };
        // The form with hyphens is the documented one.
        let is_guid = given.len() == 36 && Uuid::try_parse(given).is_ok();
        if is_guid { Ok(Some(given.to_ascii_lowercase())) } else { Err(refusal(11)) }
    }
}

/// Serves a connection to its end.
pub fn serve(shared: &Shared, stream: TcpStream) {
    // Small answers must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::with_capacity(1 << 16, stream);
    // A client that goes away is the client's business.
    while let Ok(true) = one(shared, &mut input, &mut out) {}
}

/// Serves one request; false when the connection is to end.
fn one(shared: &Shared, input: &mut BufReader<TcpStream>, out: &mut TcpStream) -> io::Result<bool> {
    let Some(head) = Head::read(input)? else { return Ok(false) };
    let mut request = Seen::new(head, shared.options.flavor);
    let (fault, opened) = arrive(shared, &mut request);
    let length = request.length()?;
    match &fault {
        Some(Fault::ResetBefore) => return Ok(false),
        Some(Fault::ResetWithin) => {
            input.take(length as u64 / 2).read_to_end(&mut Vec::new())?;
            return Ok(false);
        }
        _ => {}
    }
    let most = shared.options.max_content_length;
    if length > most {
        api::too_large(length, most).send(out, &request, &[], false)?;
        return Ok(false);
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    request.body.clone_from(&body);
    keep_body(shared, &request, body);
    match &fault {
        Some(Fault::Stall) => {
            shared.gate.wait(opened);
            return Ok(false);
        }
        Some(Fault::Hold) => shared.gate.wait(opened),
        Some(Fault::Status { code, headers, body }) => {
            let answer = Answer { status: *code, headers: Vec::new(), body: body.clone() };
            answer.send(out, &request, headers, false)?;
            return Ok(true);
        }
        Some(Fault::Code { status, code, text }) => {
            let (status, code, text) = (*status, *code, text.clone());
            let told = Refusal { status, code, text, number: None, ack_id: None };
            told.answer().send(out, &request, &[], false)?;
            return Ok(true);
        }
        _ => {}
    }
    let near = if let Some(Fault::Near(code)) = &fault { Some(*code) } else { None };
    let answer = api::answer(shared, &request, near);
    if matches!(fault, Some(Fault::LoseAnswer)) {
        return Ok(false);
    }
    answer.send(out, &request, &[], false)?;
    Ok(true)
}

/// Counts the request, and asks the script. Says too how often was let go before.
fn arrive(shared: &Shared, request: &mut Seen) -> (Option<Fault>, u64) {
    let mut state = shared.state.lock().unwrap();
    let alike = state.seen.iter().filter(|seen| seen.kind == request.kind);
    request.number = alike.count() as u64 + 1;
    state.seen.push(request.clone());
    let fault = state.script.as_mut().and_then(|script| script(request));
    drop(state);
    let opened = shared.gate.opened();
    if request.kind == Kind::Event {
        shared.arrived.send_modify(|count| *count += 1);
    }
    (fault, opened)
}

fn keep_body(shared: &Shared, request: &Seen, body: Vec<u8>) {
    let mut state = shared.state.lock().unwrap();
    let same = |seen: &&mut Seen| seen.is(request.kind, request.number);
    let kept = state.seen.iter_mut().rev().find(same).expect("it was counted");
    kept.body = body;
}
