//! One connection: requests in, answers out, and every way in which that can break.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::api::{self, Refusal};
use super::{Fault, Product, Shared};

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Bulk requests are numbered from 1 of their own, and so are all the others.
    pub number: u64,
    pub method: String,
    /// Each part of it decoded.
    pub path: Vec<String>,
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As sent, compressed or not; empty where documents are not kept.
    pub body: Vec<u8>,
}

impl Seen {
    pub fn is_bulk(&self) -> bool {
        self.path.last().is_some_and(|part| part == "_bulk")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An answer, not yet sent.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
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
    let Some(mut request) = head(input)? else { return Ok(false) };
    let (fault, released) = arrive(shared, &mut request);
    let length = request.header("content-length").map_or(Ok(0), str::parse::<usize>);
    let length = length.map_err(io::Error::other)?;
    match &fault {
        Some(Fault::ResetBeforeBody) => return Ok(false),
        Some(Fault::ResetInBody) => {
            input.take(length as u64 / 2).read_to_end(&mut Vec::new())?;
            return Ok(false);
        }
        _ => {}
    }
    if length > shared.options.max_content_length {
        send(out, &request, &Answer::too_large(), None)?;
        return Ok(false);
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    keep_body(shared, &request, &body);
    match &fault {
        Some(Fault::Stall) => {
            wait_for_release(shared, released);
            return Ok(false);
        }
        Some(Fault::Hold) => wait_for_release(shared, released),
        _ => {}
    }
    if let Some(Fault::Status { code, headers, body }) = &fault {
        let mut answer =
            Answer { status: *code, headers: vec![product(shared)], body: body.clone() };
        answer.headers.push(("content-type", "application/json".into()));
        send_with(out, &request, &answer, None, headers)?;
        return Ok(true);
    }
    let items = if let Some(Fault::Items(items)) = &fault { Some(Arc::clone(items)) } else { None };
    let mut answer = match inflated(shared, &request, body) {
        Ok(body) => api::answer(shared, &request, &body, items.as_deref()),
        Err(answer) => answer,
    };
    answer.headers.push(product(shared));
    match &fault {
        Some(Fault::LoseAnswer) => Ok(false),
        Some(Fault::CutAnswer) => send(out, &request, &answer, Some(answer.body.len() / 2)),
        _ => send(out, &request, &answer, None),
    }
}

impl Answer {
    fn too_large() -> Self {
        Self { status: 413, headers: Vec::new(), body: String::new() }
    }
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
    let released = *shared.released.0.lock().unwrap();
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

fn wait_for_release(shared: &Shared, before: u64) {
    let (count, bell) = &shared.released;
    let count = count.lock().unwrap();
    drop(bell.wait_while(count, |count| *count == before).unwrap());
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
    if plain.len() > most { Err(Answer::too_large()) } else { Ok(plain) }
}

fn head(input: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
    let Some(first) = line(input)? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = Vec::new();
    while let Some(line) = line(input)?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other("no header"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = query.map(|(name, value)| (decoded(name), decoded(value))).collect();
    let method = method.to_owned();
    Ok(Some(Seen { number: 0, method, path, query, headers, body: Vec::new() }))
}

fn line(input: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
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

fn send(
    out: &mut TcpStream,
    request: &Seen,
    answer: &Answer,
    cut: Option<usize>,
) -> io::Result<bool> {
    send_with(out, request, answer, cut, &[])
}

fn send_with(
    out: &mut TcpStream,
    request: &Seen,
    answer: &Answer,
    cut: Option<usize>,
    more: &[(String, String)],
) -> io::Result<bool> {
    let mut body = answer.body.clone().into_bytes();
    let mut head = format!("HTTP/1.1 {} As Simulated\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.extend([*name, ": ", value, "\r\n"]);
    }
    for (name, value) in more {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let is_asked = request.header("accept-encoding").is_some_and(|it| it.contains("gzip"));
    if is_asked && !body.is_empty() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(3));
        encoder.write_all(&body)?;
        body = encoder.finish()?;
        head.push_str("content-encoding: gzip\r\n");
    }
    let length = body.len().to_string();
    head.extend(["content-length: ", &length, "\r\n\r\n"]);
    if request.method == "HEAD" {
        body.clear();
    }
    let end = cut.map_or(body.len(), |_| body.len() / 2);
    out.write_all(head.as_bytes())?;
    out.write_all(&body[..end])?;
    out.flush()?;
    Ok(cut.is_none())
}
