//! One connection: requests in, answers out, and every way in which that can break.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Fault, Shared, entra, identity, ingest, with_json};
use crate::plain_http::{Answer, Head};

/// A longer body is not even read.
const LONGEST_BODY: usize = 64 << 20;

/// Through which port a request came.
#[derive(Clone)]
pub enum Door {
    Plain,
    Tls(Arc<ServerConfig>),
    /// That of the agent of Azure Arc.
    Arc,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A token of Entra.
    Token,
    /// A token of the identity of a virtual machine.
    Imds,
    /// A token of the identity of an Arc server, or the challenge before it.
    Arc,
    Ingest,
    Other,
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub kind: Kind,
    /// From 1, of this kind.
    pub number: u64,
    pub head: Head,
    /// Whether it came through TLS.
    pub is_secure: bool,
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
    fn new(head: Head, door: &Door) -> Self {
        let path: Vec<&str> = head.path.iter().map(String::as_str).collect();
        let kind = match (door, path.as_slice()) {
            (Door::Arc, _) => Kind::Arc,
            (_, [_, "oauth2", "v2.0", "token"]) => Kind::Token,
            (_, ["metadata", "identity", "oauth2", "token"]) => Kind::Imds,
            (_, ["dataCollectionRules", ..]) => Kind::Ingest,
            _ => Kind::Other,
        };
        let is_secure = matches!(door, Door::Tls(_));
        Self { kind, number: 0, head, is_secure, body: Vec::new() }
    }

    /// Whether it is the one of this number of its kind.
    pub fn is(&self, kind: Kind, number: u64) -> bool {
        self.kind == kind && self.number == number
    }

    /// The address it was sent to, as far as the path.
    pub fn origin(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.header("host").unwrap_or_default())
    }
}

/// Serves a connection to its end.
pub fn serve(shared: &Shared, door: &Door, stream: TcpStream) {
    // Small answers must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    // A client that goes away is the client's business, and so is one that trusts nobody.
    if let Door::Tls(config) = door {
        let Ok(connection) = ServerConnection::new(Arc::clone(config)) else { return };
        let mut input = BufReader::new(StreamOwned::new(connection, stream));
        while let Ok(true) = one(shared, door, &mut input) {}
    } else {
        let mut input = BufReader::with_capacity(1 << 16, stream);
        while let Ok(true) = one(shared, door, &mut input) {}
    }
}

/// Serves one request; false when the connection is to end.
fn one<S: Read + Write>(
    shared: &Shared,
    door: &Door,
    input: &mut BufReader<S>,
) -> io::Result<bool> {
    let Some(head) = Head::read(input)? else { return Ok(false) };
    let mut request = Seen::new(head, door);
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
    if length > LONGEST_BODY {
        ingest::too_long().send(input.get_mut(), &request, &[], false)?;
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
            with_json(answer).send(input.get_mut(), &request, headers, false)?;
            return Ok(true);
        }
        _ => {}
    }
    let answer = match request.kind {
        Kind::Token => entra::token(shared, &request),
        Kind::Imds => identity::imds(shared, &request),
        Kind::Arc => identity::arc(shared, &request),
        Kind::Ingest => ingest::answer(shared, &request),
        Kind::Other => entra::about(shared, &request),
    };
    if matches!(fault, Some(Fault::LoseAnswer)) {
        return Ok(false);
    }
    answer.send(input.get_mut(), &request, &[], false)?;
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
    if request.kind == Kind::Ingest {
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
