//! Who may ask, what is taken, and how it is told.

use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::json;

use super::http::Kind;
use super::{AckMode, Balancer, Flavor, Seen, Shared, Upload, ack, objects};
use crate::plain_http::{Answer, value_of};

/// What the collector has to say, if it is not a plain success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: u16,
    pub text: String,
    /// `invalid-event-number`
    pub number: Option<usize>,
    pub ack_id: Option<u64>,
}

/// What the collector says with this code.
/// As far as 16 the texts are those of the lookup `splunkadmins_hec_reply_code_lookup.csv` of the
/// app `SplunkAdmins` or of clients; from 17 on they are unproven.
pub fn refusal(code: u16) -> Refusal {
    let (status, text) = match code {
        0 => (200, "Success"),
        1 => (403, "Token disabled"),
        2 => (401, "Token is required"),
        3 => (401, "Invalid authorization"),
        4 => (403, "Invalid token"),
        5 => (400, "No data"),
        6 => (400, "Invalid data format"),
        7 => (400, "Incorrect index"),
        10 => (400, "Data channel is missing"),
        11 => (400, "Invalid data channel"),
        12 => (400, "Event field is required"),
        13 => (400, "Event field cannot be blank"),
        14 => (400, "ACK is disabled"),
        15 => (400, "Error in handling indexed fields"),
        16 => (400, "Query string authorization is not enabled"),
        17 => (200, "HEC is healthy"),
        18 => (503, "HEC is unhealthy, queues are full"),
        19 => (503, "HEC is unhealthy, ack service unavailable"),
        20 => (503, "HEC is unhealthy, queues are full, ack service unavailable"),
        24 => (200, "Queue is approaching its capacity"),
        25 => (200, "ACK channel is approaching its capacity"),
        28 => (400, "Data channel is missing, and the load balancer is not sticky"),
        404 => (404, "The requested URL was not found on this server."),
        _ => panic!("nothing is told with code {code}"),
    };
    Refusal { status, code, text: text.to_owned(), number: None, ack_id: None }
}

impl Refusal {
    pub fn answer(&self) -> Answer {
        let mut body = json!({ "text": self.text, "code": self.code });
        if let Some(number) = self.number {
            body["invalid-event-number"] = number.into();
        }
        if let Some(id) = self.ack_id {
            body["ackId"] = id.into();
        }
        Answer { status: self.status, headers: Vec::new(), body: body.to_string() }
    }
}

pub fn answer(shared: &Shared, request: &Seen, near: Option<u16>) -> Answer {
    let indexer = indexer(shared, request);
    let mut answer = match request.kind {
        Kind::Event => events(shared, request, indexer, near),
        Kind::Ack => access(shared, request)
            .and_then(|()| ack::answer(shared, request, indexer))
            .unwrap_or_else(|refusal| refusal.answer()),
        Kind::Health => health(shared, request),
        // Measured with Splunk 10.4.2: another method has this status, and the body of the other.
        Kind::Other if request.is_collector() && request.method != "POST" => {
            Refusal { status: 405, ..refusal(404) }.answer()
        }
        Kind::Other => refusal(404).answer(),
    };
    if answer.headers.is_empty() {
        answer.headers.push(("content-type", "application/json; charset=UTF-8".into()));
    }
    if shared.options.balancer.is_some() && server(request).is_none() {
        answer.headers.push(("set-cookie", format!("SERVERID={indexer}; path=/")));
    }
    answer
}

/// A body that is too long, as the server below the collector tells it.
pub fn too_large(length: usize, most: usize) -> Answer {
    let text = format!("413 Content-Length of {length} too large (maximum is {most})");
    let body = format!("<!doctype html><html><head><title>{text}</title></head></html>");
    Answer { status: 413, headers: vec![("content-type", "text/html; charset=UTF-8".into())], body }
}

/// Whether the token is there, well-formed, known and enabled. That comes before the channel.
fn access(shared: &Shared, request: &Seen) -> Result<(), Refusal> {
    let options = &shared.options;
    let Some(given) = request.header("authorization") else {
        return Err(match request.query("token") {
            Some(token) if token == options.token => refusal(16),
            Some(_) => refusal(4),
            None => refusal(2),
        });
    };
    // Unproven: Splunk may take `Basic`, and LogScale may take `Splunk`.
    let scheme = match options.flavor {
        Flavor::Splunk => "Splunk ",
        Flavor::LogScale => "Bearer ",
    };
    let token = given.strip_prefix(scheme).ok_or_else(|| refusal(3))?;
    if token != options.token {
        return Err(refusal(4));
    }
    if shared.state.lock().unwrap().is_token_disabled {
        return Err(refusal(1));
    }
    Ok(())
}

/// The number of the indexer in the cookie.
fn server(request: &Seen) -> Option<u32> {
    let pairs = request.header("cookie")?.split(';');
    let pairs: Vec<_> = pairs.filter_map(|pair| pair.trim().split_once('=')).collect();
    let pairs: Vec<_> = pairs.iter().map(|(name, it)| ((*name).into(), (*it).into())).collect();
    value_of(&pairs, "SERVERID")?.parse().ok()
}

/// Where the request goes: by its cookie, or else where its channel is not known yet.
fn indexer(shared: &Shared, request: &Seen) -> u32 {
    if shared.options.balancer.is_none() {
        return 1;
    }
    server(request).unwrap_or_else(|| {
        let channel = request.channel().ok().flatten();
        let state = shared.state.lock().unwrap();
        let known = state.channels.keys().filter(|(_, known)| Some(known) == channel.as_ref());
        known.map(|(indexer, _)| *indexer).max().unwrap_or(0) + 1
    })
}

/// `GET /services/collector/health`: what is wrong with acks is told only to who asks for it.
fn health(shared: &Shared, request: &Seen) -> Answer {
    if shared.options.is_health_guarded
        && let Err(refusal) = access(shared, request)
    {
        return refusal.answer();
    }
    let with_acks = matches!(request.query("ack"), Some("true" | "1"));
    let code = match (shared.state.lock().unwrap().illness, with_acks) {
        (None, _) | (Some(19), false) => 17,
        (Some(20), false) => 18,
        (Some(code), _) => code,
    };
    refusal(code).answer()
}

/// A request with events: judged, kept and counted.
fn events(shared: &Shared, request: &Seen, indexer: u32, near: Option<u16>) -> Answer {
    let mut upload = Upload {
        number: request.number,
        status: 0,
        code: None,
        channel: request.channel().ok().flatten(),
        cookie: request.header("cookie").map(str::to_owned),
        ack_id: None,
        sent: request.body.len(),
        plain: 0,
        objects: 0,
        taken: 0,
    };
    let answer = match plain(shared, request) {
        // What is wrong with the sender goes before what is wrong with the body.
        Err(answer) => access(shared, request).err().map_or(answer, |refusal| refusal.answer()),
        Ok(text) => {
            upload.plain = text.len();
            upload.objects = objects::count(&text);
            let told = match take(shared, request, indexer, &text, &mut upload.taken) {
                Ok(told) => Refusal { ack_id: told.ack_id, ..refusal(near.unwrap_or(0)) },
                Err(told) => told,
            };
            upload.code = Some(told.code);
            upload.ack_id = told.ack_id;
            told.answer()
        }
    };
    upload.status = answer.status;
    let taken = upload.taken as u64;
    shared.state.lock().unwrap().uploads.push(upload);
    shared.indexed.send_modify(|count| *count += taken);
    answer
}

fn take(
    shared: &Shared,
    request: &Seen,
    indexer: u32,
    text: &str,
    taken: &mut usize,
) -> Result<Refusal, Refusal> {
    access(shared, request)?;
    let options = &shared.options;
    let channel = if options.ack == AckMode::On {
        Some(request.channel()?.ok_or_else(|| refusal(10))?)
    } else {
        None
    };
    let mut state = shared.state.lock().unwrap();
    if let Some(channel) = &channel {
        let mut known = state.channels.keys().filter(|(_, known)| known == channel);
        let is_stray = known.clone().next().is_some() && !known.any(|(at, _)| *at == indexer);
        if is_stray && options.balancer == Some(Balancer::Refuses) {
            return Err(refusal(28));
        }
        state.channels.entry((indexer, channel.clone())).or_default();
    }
    // Unproven: white space alone is no data.
    if text.trim().is_empty() {
        return Err(refusal(5));
    }
    let found = objects::read(text, options, &state.refused_texts, request.number);
    // Unproven: LogScale takes all or nothing, and does not tell which object is wrong.
    if let (Some((code, _)), Flavor::LogScale) = (found.wrong, options.flavor) {
        return Err(refusal(code));
    }
    *taken = found.events.len();
    state.indexed.extend(found.events);
    // Unproven: where nothing was taken, there is nothing to acknowledge.
    let is_told =
        *taken > 0 && (found.wrong.is_none() || options.partly == super::Partly::WithAckId);
    let channel = channel.filter(|_| is_told);
    let ack_id = channel.map(|channel| state.pend(indexer, &channel, request.number));
    match found.wrong {
        None => Ok(Refusal { ack_id, ..refusal(0) }),
        Some((code, number)) => Err(Refusal { number: Some(number), ack_id, ..refusal(code) }),
    }
}

/// The body as it was before it was compressed. Unproven: a body that is none in the encoding it
/// claims is no valid data, and the limit holds for what it was before too.
fn plain(shared: &Shared, request: &Seen) -> Result<String, Answer> {
    let most = shared.options.max_content_length;
    let mut plain = Vec::new();
    match request.header("content-encoding") {
        None | Some("identity") => plain.clone_from(&request.body),
        Some("gzip") => {
            let mut decoder = GzDecoder::new(&*request.body).take(most as u64 + 1);
            decoder.read_to_end(&mut plain).map_err(|_| refusal(6).answer())?;
        }
        Some(_) => return Err(refusal(6).answer()),
    }
    if plain.len() > most {
        return Err(too_large(plain.len(), most));
    }
    String::from_utf8(plain).map_err(|_| refusal(6).answer())
}
