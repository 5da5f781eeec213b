//! One connection: requests in, answers out, and every way in which that can break.

use std::io::{self, BufReader, Read as _};
use std::net::TcpStream;
use std::ops::Deref;
use std::sync::Arc;

use flate2::read::GzDecoder;

use super::api::{self, Refusal};
use super::{Fault, Product, Shared};
use crate::plain_http::Head;

pub use crate::plain_http::Answer;

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Bulk requests are numbered from 1 of their own, and so are all the others.
    pub number: u64,
    pub head: Head,
    /// As sent, compressed or not; empty where documents are not kept.
    pub body: Vec<u8>,
}

impl Deref for Seen {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl Seen {
    pub fn is_bulk(&self) -> bool {
        self.path.last().is_some_and(|part| part == "_bulk")
    }
}

/// Serves a connection to its end.
pub fn serve(shared: &Arc<Shared>, stream: TcpStream) {
    // Small answers must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::with_capacity(1 << 16, stream);
    // A client that goes away is the client's business.
    while let Ok(true) = one(shared, &mut input, &mut out) {}
}

/// Serves one request; false when the connection is to end.
fn one(
    shared: &Arc<Shared>,
    input: &mut BufReader<TcpStream>,
    out: &mut TcpStream,
) -> io::Result<bool> {
    let Some(head) = Head::read(input)? else { return Ok(false) };
    let mut request = Seen { number: 0, head, body: Vec::new() };
    let (fault, released) = arrive(shared, &mut request);
    let length = request.length()?;
    match &fault {
        Some(Fault::ResetBeforeBody) => return Ok(false),
        Some(Fault::ResetInBody) => {
            input.take(length as u64 / 2).read_to_end(&mut Vec::new())?;
            return Ok(false);
        }
        _ => {}
    }
    if length > shared.options.max_content_length {
        too_large().send(out, &request, &[], false)?;
        return Ok(false);
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    keep_body(shared, &request, &body);
    match &fault {
        Some(Fault::Stall) => {
            shared.gate.wait(released);
            return Ok(false);
        }
        Some(Fault::Hold) => shared.gate.wait(released),
        _ => {}
    }
    if let Some(Fault::Status { code, headers, body }) = &fault {
        let mut answer =
            Answer { status: *code, headers: vec![product(shared)], body: body.clone() };
        answer.headers.push(("content-type", "application/json".into()));
        answer.send(out, &request, headers, false)?;
        return Ok(true);
    }
    let items = if let Some(Fault::Items(items)) = &fault { Some(Arc::clone(items)) } else { None };
    let mut answer = match inflated(shared, &request, body) {
        Ok(body) => api::answer(shared, &request, &body, items.as_deref()),
        Err(answer) => answer,
    };
    answer.headers.push(product(shared));
    if matches!(fault, Some(Fault::LoseAnswer)) {
        return Ok(false);
    }
    let is_cut = matches!(fault, Some(Fault::CutAnswer));
    answer.send(out, &request, &[], is_cut)?;
    Ok(!is_cut)
}

fn too_large() -> Answer {
    Answer { status: 413, headers: Vec::new(), body: String::new() }
}

fn product(shared: &Shared) -> (&'static str, String) {
    match shared.options.product {
        Product::Elasticsearch => ("x-elastic-product", "Elasticsearch".into()),
        Product::OpenSearch => ("x-opensearch-version", "OpenSearch/2.19.1 (opensearch)".into()),
    }
}

/// Counts the request, and asks the script. Says too how often was let go before.
fn arrive(shared: &Shared, request: &mut Seen) -> (Option<Fault>, u64) {
    let mut state = shared.state.lock().unwrap();
    let alike = state.seen.iter().filter(|seen| seen.is_bulk() == request.is_bulk());
    request.number = alike.count() as u64 + 1;
    state.seen.push(request.clone());
    let fault = state.script.as_mut().and_then(|script| script(request));
    drop(state);
    let released = shared.gate.opened();
    if request.is_bulk() {
        shared.arrived.send_modify(|count| *count += 1);
    }
    (fault, released)
}

fn keep_body(shared: &Shared, request: &Seen, body: &[u8]) {
    if shared.options.keeps_documents {
        let mut state = shared.state.lock().unwrap();
        let alike =
            |seen: &&mut Seen| seen.is_bulk() == request.is_bulk() && seen.number == request.number;
        let kept = state.seen.iter_mut().rev().find(alike).expect("it was counted");
        body.clone_into(&mut kept.body);
    }
}

/// The body as it was before it was compressed. Of the ways to compress only gzip is known; another
/// is passed on as it is, and makes no sense to anybody.
fn inflated(shared: &Shared, request: &Seen, body: Vec<u8>) -> Result<Vec<u8>, Answer> {
    if request.header("content-encoding") != Some("gzip") {
        return Ok(body);
    }
    let most = shared.options.max_content_length;
    let mut plain = Vec::new();
    let read = GzDecoder::new(&*body).take(most as u64 + 1).read_to_end(&mut plain);
    if read.is_err() {
        return Err(Refusal::new(400, "illegal_argument_exception", "invalid gzip").answer());
    }
    if plain.len() > most { Err(too_large()) } else { Ok(plain) }
}
