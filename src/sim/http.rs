//! One request and its answer, as strict as the real service could be.

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Response};
use chrono::DateTime;

use super::fault::{Fault, Lie, spoil};
use super::rng::{Rng, mix};
use super::token::Ticket;
use super::wire::{Cut, Line, Plan};
use super::world::{Ask, Page, Record, quoted};
use super::{Api, RequestInfo, json};
use crate::event::Millis;

/// Stands in the envelope where the records go.
const RECORDS_GO_HERE: &str = "[\0]";

/// An answer, not yet sent.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which page of its reading it is, from 1; none when it is no page.
    pub page: Option<u32>,
    pub records: usize,
}

/// Why a request is not answered with a page.
struct Refusal {
    status: u16,
    error: &'static str,
    message: String,
}

/// What a request asks for, checked.
struct Wanted {
    window: (Millis, Millis),
    limit: u64,
    ticket: Option<Ticket>,
}

/// Answers one request; what a fault demands comes before everything else.
pub(super) async fn answer(
    State(api): State<Api>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
) -> Response<Body> {
    let credential = credential(&api, request.headers()).to_owned();
    let (info, fault, mut released) = api.arrive(&request, &credential);
    match &fault {
        Some(Fault::Stall) => std::future::pending().await,
        // Only a simulator that is gone closes this channel; then nobody reads the answer.
        Some(Fault::Hold) => drop(released.changed().await),
        _ => {}
    }
    let paging = match &fault {
        Some(Fault::Lie(how)) => Some(*how),
        _ => None,
    };
    let truth = reply(&api, &info, paging).unwrap_or_else(Refusal::into_reply);
    let cut = match &fault {
        Some(Fault::Reset) => Some(Cut::Answer),
        Some(Fault::Truncated) => Some(Cut::Body(truth.body.len() / 2)),
        _ => None,
    };
    line.plan(Plan { without_date: !api.options().sends_date, cut });
    let reply = match fault {
        Some(fault) => spoil(fault, truth, &credential),
        None => truth,
    };
    api.answered(info.number, &reply);
    response(reply, api.now())
}

/// What the request says about who asks.
fn credential<'a>(api: &Api, headers: &'a HeaderMap) -> &'a str {
    let header = headers.get(api.options().dialect.auth_header.as_str());
    header.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn reply(api: &Api, info: &RequestInfo, lie: Option<Lie>) -> Result<Reply, Refusal> {
    let mut wanted = admit(api, info)?;
    if lie == Some(Lie::FirstPage) {
        wanted.ticket = None;
    }
    let world = api.world();
    let most = usize::try_from(wanted.limit).expect("a limit fits");
    let cap = api.options().page_cap;
    let ask = Ask {
        first: wanted.window.0 + i64::from(!api.options().start_inclusive),
        last: wanted.window.1 - i64::from(!api.options().end_inclusive),
        after: wanted.ticket.map(|ticket| ticket.after),
        order: api.options().order,
        most: if most == 0 { cap } else { most.min(cap) },
        now: api.now(),
    };
    let page = world.page(&ask);
    let pages = wanted.ticket.map_or(0, |ticket| ticket.pages) + 1;
    let is_full = page.records.len() == ask.most;
    let goes_on = page.more || (api.options().trailing_empty_page && is_full);
    let next = page.end.filter(|_| goes_on).map(|after| {
        let (window, limit, issued) = (wanted.window, wanted.limit, ask.now);
        let generation = api.token_generation();
        Ticket { window, limit, after, pages, issued, generation }.seal(api.options().seed)
    });
    let asked_with = || info.parameter(&api.options().dialect.token).map(str::to_owned);
    let next = match lie {
        Some(Lie::CutShort | Lie::NoToken) => None,
        Some(Lie::SameToken) => asked_with().or(next),
        _ => next,
    };
    let mut body = render(api, info.number, &page, next.as_deref());
    if lie == Some(Lie::NoToken) {
        let text = String::from_utf8_lossy(&body);
        body = text.replace("\"has_more\":false", "\"has_more\":true").into_bytes();
    }
    Ok(Reply {
        status: 200,
        headers: vec![("content-type".into(), "application/json".into())],
        body,
        page: Some(pages),
        records: page.records.len(),
    })
}

/// Checks everything that the real service would, in the order in which it would.
fn admit(api: &Api, info: &RequestInfo) -> Result<Wanted, Refusal> {
    let dialect = &api.options().dialect;
    if info.path != dialect.path {
        return Err(Refusal::new(404, "not_found", "no such resource"));
    }
    if info.method != "GET" {
        return Err(Refusal::new(405, "method_not_allowed", "only GET is allowed"));
    }
    if !info.is_authorized {
        return Err(Refusal::new(401, "unauthorized", "Invalid or missing API token"));
    }
    let window = (bound(api, info, &dialect.start)?, bound(api, info, &dialect.end)?);
    if window.0 > window.1 {
        return Err(Refusal::bad(format!("{} must not be after {}", dialect.start, dialect.end)));
    }
    let limit = limit(api, info)?;
    let ticket = info.parameter(&dialect.token).map(|token| redeem(api, token, window, limit));
    Ok(Wanted { window, limit, ticket: ticket.transpose()? })
}

fn bound(api: &Api, info: &RequestInfo, name: &str) -> Result<Millis, Refusal> {
    let Some(text) = info.parameter(name) else {
        return Err(Refusal::bad(format!("{name} query parameter is missing")));
    };
    let time = api.options().dialect.bounds.read_bound(text);
    time.ok_or_else(|| Refusal::bad(format!("{name} is not a date: {text}")))
}

/// The limit asked for; 0 when none is.
fn limit(api: &Api, info: &RequestInfo) -> Result<u64, Refusal> {
    let name = &api.options().dialect.limit;
    let Some(text) = info.parameter(name) else { return Ok(0) };
    let most = api.options().limit_max.map_or(u32::MAX, |most| most);
    match text.parse::<u32>() {
        Ok(limit) if (1..=most).contains(&limit) => Ok(u64::from(limit)),
        _ => Err(Refusal::bad(format!("{name} must be from 1 to {most}"))),
    }
}

fn redeem(api: &Api, token: &str, window: (Millis, Millis), limit: u64) -> Result<Ticket, Refusal> {
    let options = api.options();
    let name = &options.dialect.token;
    let Some(ticket) = Ticket::open(token, options.seed) else {
        return Err(Refusal::bad(format!("{name} is unknown")));
    };
    if (ticket.window, ticket.limit) != (window, limit) {
        return Err(Refusal::bad(format!("{name} was made for another request")));
    }
    let lifetime = options.token_lifetime.map(|life| i64::try_from(life.as_millis()));
    let is_old = lifetime
        .is_some_and(|life| api.now() - ticket.issued > life.expect("a lifetime fits in millis"));
    let is_used_up = options.token_pages.is_some_and(|pages| ticket.pages >= pages);
    if is_old || is_used_up || ticket.generation != api.token_generation() {
        return Err(Refusal::bad(format!("{name} has expired")));
    }
    Ok(ticket)
}

/// The body of a page.
fn render(api: &Api, number: u64, page: &Page<'_>, next: Option<&str>) -> Vec<u8> {
    let options = api.options();
    let mut rng = Rng::new(mix(options.seed ^ number));
    let mut envelope = options.dialect.envelope(RECORDS_GO_HERE, next);
    if options.shuffle_keys {
        envelope = json::shuffled(&envelope, &mut rng);
    }
    let (before, behind) = envelope.split_once('\0').expect("the envelope holds the records");
    let mut body = before.as_bytes().to_vec();
    let mut shuffled = String::new();
    for (index, record) in page.records.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        match record {
            Record::Object(text) if options.shuffle_keys => {
                shuffled.clear();
                json::shuffle_into(text, &mut rng, &mut shuffled);
                body.extend_from_slice(shuffled.as_bytes());
            }
            Record::Object(text) => body.extend_from_slice(text.as_bytes()),
            Record::Raw(bytes) => body.extend_from_slice(bytes),
        }
    }
    body.extend_from_slice(behind.as_bytes());
    body
}

fn response(reply: Reply, now: Millis) -> Response<Body> {
    let mut builder = Response::builder().status(reply.status);
    // A fault may tell a time of its own.
    if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("date")) {
        builder = builder.header("date", http_date(now));
    }
    for (name, value) in reply.headers {
        builder = builder.header(name, value);
    }
    builder.body(Body::from(reply.body)).expect("a simulated answer has valid headers")
}

/// As RFC 7231 wants it, such as `Fri, 02 Jan 2026 03:04:05 GMT`.
fn http_date(now: Millis) -> String {
    let now = DateTime::from_timestamp_millis(now).expect("a simulated time is of our era");
    now.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

impl Refusal {
    fn new(status: u16, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into() }
    }

    fn bad(message: String) -> Self {
        Self::new(400, "bad_request", message)
    }

    fn into_reply(self) -> Reply {
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        if self.status == 405 {
            headers.push(("allow".to_owned(), "GET".to_owned()));
        }
        let body = format!(r#"{{"error":"{}","message":{}}}"#, self.error, quoted(&self.message));
        Reply { status: self.status, headers, body: body.into(), page: None, records: 0 }
    }
}
