//! A webhook receiver as strict as a real one: what is not exactly as agreed is refused, and what is
//! accepted is kept.
//!
//! ```ignore
//! let collector = Collector::start(Options::default());          // an own port, an own thread
//! collector.fault_when(|arrival| (arrival.number < 3).then_some(Fault::LoseAnswer));
//! …                                                              // post to `collector.url()`
//! collector.wait_for(500);                                       // events accepted, repeats included
//! assert_eq!(collector.events().len(), 500);
//! ```

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a body holds events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    #[default]
    Ndjson,
    Array,
    Single,
}

/// What was agreed with the sender.
#[derive(Clone, Default)]
pub struct Options {
    pub shape: Shape,
    /// The bytes of the keys of which each must have signed; without one, nobody needs to.
    pub keys: Vec<Vec<u8>>,
    /// A header that every request must have; else 401.
    pub header: Option<(&'static str, &'static str)>,
    /// A body that has more bytes, once decompressed, is too large; none unless set.
    pub most_bytes: Option<usize>,
    pub tls: Option<ServerConfig>,
}

/// What is known of a request once its head is read.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Counts all requests, from 0.
    pub number: usize,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Arrival {
    /// The value of a header that must stand there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        value.filter(|_| values.next().is_none())
    }

    /// The batch's id.
    pub fn batch(&self) -> &str {
        self.header("webhook-id").unwrap_or_default()
    }
}

/// A request that was read to its end.
#[derive(Clone, Debug)]
pub struct Received {
    pub arrival: Arrival,
    /// Decompressed.
    pub body: Vec<u8>,
    /// How many bytes it had on its way.
    pub length: usize,
    /// How many events it holds; none when it was refused.
    pub count: usize,
    shape: Shape,
    /// What was answered, or would have been.
    pub status: u16,
    /// Why, when it was refused.
    pub reason: String,
}

impl Received {
    /// Each event's own bytes; none when it was refused.
    pub fn events(&self) -> Vec<String> {
        if self.count == 0 {
            return Vec::new();
        }
        let text = std::str::from_utf8(&self.body).unwrap();
        events(self.shape, text).unwrap().into_iter().map(str::to_owned).collect()
    }
}

/// What befalls a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is read, not kept, and answered so.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// It is kept, and the connection ends without an answer.
    LoseAnswer,
    /// The connection is reset while the body is still to be read.
    ResetBefore,
    /// The same in the middle of the body.
    ResetWithin,
    /// It is read, not kept, and never answered.
    Stall,
    /// It is judged as usual, but not before [`Collector::release`].
    Hold,
}

impl Fault {
    pub fn status(status: u16) -> Self {
        Self::answer(status, &[], "")
    }

    pub fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self::Answer { status, headers: headers.iter().map(owned).collect(), body: body.to_owned() }
    }
}

type Script = Box<dyn FnMut(&Arrival) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    arrivals: Vec<Arrival>,
    received: Vec<Received>,
    script: Option<Script>,
    refused: Vec<(String, u16)>,
    /// What each batch that was accepted holds, by its id.
    known: HashMap<String, [u8; 32]>,
    held: usize,
    releases: usize,
}

struct Shared {
    options: Options,
    state: Mutex<State>,
    changed: Condvar,
    is_closed: AtomicBool,
}

/// The receiver, until it is dropped.
pub struct Collector {
    shared: Arc<Shared>,
    port: u16,
}

impl Collector {
    pub fn start(options: Options) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            options,
            state: Mutex::default(),
            changed: Condvar::new(),
            is_closed: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if served.is_closed.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&served);
                // How a connection ends is the client's business, or the script's.
                std::thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { shared, port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it takes events; any other path is unknown to it.
    pub fn url(&self) -> String {
        let scheme = if self.shared.options.tls.is_some() { "https" } else { "http" };
        let host = if self.shared.options.tls.is_some() { "localhost" } else { "127.0.0.1" };
        format!("{scheme}://{host}:{}/in", self.port)
    }

    /// Has the script say what befalls each request from now on.
    pub fn fault_when(&self, script: impl FnMut(&Arrival) -> Option<Fault> + Send + 'static) {
        self.shared.lock().script = Some(Box::new(script));
    }

    /// Refuses every body that holds this text, whatever else is in it.
    pub fn refuse_content(&self, text: &str, status: u16) {
        self.shared.lock().refused.push((text.to_owned(), status));
    }

    /// Nothing befalls requests any more, and no content is refused; what is held is let go.
    pub fn mend(&self) {
        let mut state = self.shared.lock();
        state.script = None;
        state.refused.clear();
        drop(state);
        self.release();
    }

    /// Lets go what is held by now.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.held = 0;
        state.releases += 1;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// How many requests there were so far.
    pub fn asked(&self) -> usize {
        self.shared.lock().arrivals.len()
    }

    /// How many events were accepted so far, repeats included.
    pub fn taken(&self) -> usize {
        self.shared.lock().accepted()
    }

    /// All requests whose head was read so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.lock().arrivals.clone()
    }

    /// The requests that were judged, refused ones included, in the order of the judgement.
    pub fn received(&self) -> Vec<Received> {
        self.shared.lock().received.clone()
    }

    /// The requests that were accepted, repeats included.
    pub fn accepted(&self) -> Vec<Received> {
        self.received().into_iter().filter(|received| received.status == 200).collect()
    }

    /// The events that were accepted, repeats included.
    pub fn events(&self) -> Vec<String> {
        self.accepted().iter().flat_map(Received::events).collect()
    }

    /// Waits until so many events are accepted, repeats included.
    #[track_caller]
    pub fn wait_for(&self, events: usize) {
        self.wait_until(|state| state.accepted() >= events);
    }

    /// Waits until so many requests have arrived.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) {
        self.wait_until(|state| state.arrivals.len() >= count);
    }

    /// Waits until so many requests are held.
    #[track_caller]
    pub fn wait_for_held(&self, count: usize) {
        self.wait_until(|state| state.held >= count);
    }

    #[track_caller]
    fn wait_until(&self, is_so: impl Fn(&State) -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        while !is_so(&state) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} requests arrived", state.arrivals.len());
            state = self.shared.wait(state, left);
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.release();
        // Wakes the listener.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl State {
    fn accepted(&self) -> usize {
        self.received.iter().map(|received| received.count).sum()
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Serves one connection to its end.
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        // An answer is written in parts, and its end must not wait for an acknowledgement.
        stream.set_nodelay(true)?;
        let end = stream.try_clone()?;
        let mut stream: Box<dyn Stream> = match &self.options.tls {
            None => Box::new(stream),
            Some(tls) => {
                let connection =
                    ServerConnection::new(Arc::new(tls.clone())).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, stream))
            }
        };
        loop {
            match self.request(&mut *stream, &end) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // The client can read why, for what it has sent meanwhile does not have the
                // connection reset.
                Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                    end.shutdown(Shutdown::Write)?;
                    return io::copy(&mut (&end), &mut io::sink()).map(drop);
                }
                Err(err) => return Err(err),
            }
        }
    }

    /// Serves one request; says whether there may be another.
    fn request(&self, stream: &mut dyn Stream, end: &TcpStream) -> io::Result<bool> {
        let Some(mut arrival) = head(stream)? else { return Ok(false) };
        let fault = {
            let mut state = self.lock();
            arrival.number = state.arrivals.len();
            state.arrivals.push(arrival.clone());
            let fault = state.script.as_mut().and_then(|script| script(&arrival));
            self.changed.notify_all();
            fault
        };
        let length = arrival.header("content-length").and_then(|length| length.parse().ok());
        let length = match (length, arrival.method.as_str()) {
            (Some(length), _) => length,
            (None, "POST") => return answer(stream, 411, &[], "").map(|()| false),
            (None, _) => 0,
        };
        // What stays unread has the connection reset.
        let read = match fault {
            Some(Fault::ResetBefore) => return Ok(false),
            Some(Fault::ResetWithin) => length / 2,
            _ => length,
        };
        let mut sent = vec![0; read];
        stream.read_exact(&mut sent)?;
        match fault {
            Some(Fault::ResetWithin) => return Ok(false),
            Some(Fault::Answer { status, headers, body }) => {
                self.keep(self.received(arrival, Vec::new(), length, Err((status, "as scripted"))));
                return answer(stream, status, &headers, &body).map(|()| true);
            }
            Some(Fault::Stall) => {
                // Until the client gives up, or the test ends.
                let _ = stream.read(&mut [0]);
                return end.shutdown(Shutdown::Both).map(|()| false);
            }
            Some(Fault::Hold) => self.hold(),
            _ => {}
        }
        let judged = self.judge(arrival, &sent);
        let (status, reason) = (judged.status, judged.reason.clone());
        self.keep(judged);
        if matches!(fault, Some(Fault::LoseAnswer)) {
            return end.shutdown(Shutdown::Both).map(|()| false);
        }
        answer(stream, status, &[], &reason).map(|()| true)
    }

    fn keep(&self, received: Received) {
        self.lock().received.push(received);
        self.changed.notify_all();
    }

    fn hold(&self) {
        let mut state = self.lock();
        state.held += 1;
        let releases = state.releases;
        self.changed.notify_all();
        while state.releases == releases && !self.is_closed.load(Ordering::SeqCst) {
            state = self.wait(state, PATIENCE);
        }
    }

    fn judge(&self, arrival: Arrival, sent: &[u8]) -> Received {
        let length = sent.len();
        let body = match self.open(&arrival, sent) {
            Ok(body) => body,
            Err(refusal) => return self.received(arrival, Vec::new(), length, Err(refusal)),
        };
        let taken = self.take(&arrival, &body);
        self.received(arrival, body, length, taken)
    }

    fn received(
        &self,
        arrival: Arrival,
        body: Vec<u8>,
        length: usize,
        taken: Result<usize, (u16, &'static str)>,
    ) -> Received {
        let (status, reason) = taken.err().unwrap_or((200, ""));
        let (count, shape) = (taken.unwrap_or(0), self.options.shape);
        Received { arrival, body, length, count, shape, status, reason: reason.to_owned() }
    }

    /// What can be said before the body is looked at.
    fn open(&self, arrival: &Arrival, sent: &[u8]) -> Result<Vec<u8>, (u16, &'static str)> {
        let expected = match self.options.shape {
            Shape::Ndjson => "application/x-ndjson",
            Shape::Array | Shape::Single => "application/json",
        };
        if let Some((name, value)) = self.options.header
            && arrival.header(name) != Some(value)
        {
            return Err((401, "who are you?"));
        }
        if arrival.path != "/in" {
            return Err((404, "no such path"));
        }
        if arrival.method != "POST" {
            return Err((405, "events are posted"));
        }
        if arrival.header("content-type") != Some(expected) {
            return Err((415, "not the content type that was agreed"));
        }
        let body = match arrival.header("content-encoding") {
            None => Ok(sent.to_vec()),
            Some("gzip") => {
                let mut body = Vec::new();
                let mut decoder = flate2::read::MultiGzDecoder::new(sent);
                decoder.read_to_end(&mut body).map(|_| body)
            }
            Some("zstd") => zstd::decode_all(sent),
            Some(_) => return Err((415, "no such content encoding")),
        };
        let body = body.map_err(|_| (400, "not compressed as it says"))?;
        match self.options.most_bytes {
            Some(most) if body.len() > most => Err((413, "too large")),
            _ => Ok(body),
        }
    }

    /// How many events a body holds that is as agreed.
    fn take(&self, arrival: &Arrival, body: &[u8]) -> Result<usize, (u16, &'static str)> {
        let id = arrival.batch();
        if id.is_empty() || id.contains('.') || arrival.header("idempotency-key") != Some(id) {
            return Err((400, "no id"));
        }
        self.verify(arrival, id, body)?;
        let text = std::str::from_utf8(body).map_err(|_| (400, "not UTF-8"))?;
        let mut state = self.lock();
        if let Some((_, status)) = state.refused.iter().find(|(part, _)| text.contains(part)) {
            return Err((*status, "content is not welcome here"));
        }
        let count = events(self.options.shape, text)?.len();
        let digest = Sha256::digest(body).into();
        if *state.known.entry(id.to_owned()).or_insert(digest) != digest {
            return Err((422, "the same id was used for another body"));
        }
        Ok(count)
    }

    fn verify(&self, arrival: &Arrival, id: &str, body: &[u8]) -> Result<(), (u16, &'static str)> {
        let timestamp = arrival.header("webhook-timestamp").unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        match timestamp.parse::<u64>() {
            Ok(then) if then.abs_diff(now) < 300 => {}
            _ => return Err((400, "no timestamp of these minutes")),
        }
        let signatures = arrival.header("webhook-signature").unwrap_or_default();
        let signatures: Vec<_> = signatures.split(' ').filter(|text| !text.is_empty()).collect();
        let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        let expected = self.options.keys.iter().map(|key| hmac_sha256(key, &message));
        let expected: Vec<_> =
            expected.map(|code| format!("v1,{}", STANDARD.encode(code))).collect();
        if signatures == expected { Ok(()) } else { Err((401, "not signed by the keys agreed on")) }
    }
}

fn events(shape: Shape, text: &str) -> Result<Vec<&str>, (u16, &'static str)> {
    let is_json = |text: &str| serde_json::from_str::<IgnoredAny>(text).is_ok();
    match shape {
        Shape::Single if is_json(text) => Ok(vec![text]),
        Shape::Single => Err((400, "not JSON")),
        Shape::Array => {
            let events: Result<Vec<&RawValue>, _> = serde_json::from_str(text);
            let events = events.map_err(|_| (400, "not a JSON array"))?;
            Ok(events.into_iter().map(RawValue::get).collect())
        }
        Shape::Ndjson => {
            let Some(lines) = text.strip_suffix('\n') else {
                return Err((400, "the last line does not end"));
            };
            let lines: Vec<_> = lines.split('\n').collect();
            let all = lines.iter().all(|line| is_json(line));
            if all { Ok(lines) } else { Err((400, "a line is not JSON")) }
        }
    }
}

/// RFC 2104, written out: the code under test has it from a library.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    match key.len() {
        0..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::digest([&padded(0x36)[..], message].concat());
    Sha256::digest([&padded(0x5c)[..], &inner[..]].concat()).to_vec()
}

/// The next request's head; none when the connection ends before it.
fn head(stream: &mut dyn Stream) -> io::Result<Option<Arrival>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // One at a time: what belongs to the body must stay unread.
        match stream.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => head.push(byte[0]),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    Ok(Some(Arrival { number: 0, method, path, headers: headers.collect() }))
}

fn answer(
    stream: &mut dyn Stream,
    status: u16,
    headers: &[(String, String)],
    body: &str,
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} As Judged\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()
}
