//! The one HTTP client: rustls, the operating system's roots, time-outs, size caps, no redirects.
//!
//! Promises that a secret header never reaches another host, for no redirect is followed, that no
//! proxy is used unless it is configured, and that a body is capped after decompression.
//! Decides nothing about what an answer means.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::DateTime;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Method, Proxy, Response, Url, tls};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::event::Millis;

mod certificates;
mod error;
mod said;
pub mod url;

pub use error::Error;
pub use said::{said, status_text};

use error::{classify, innermost, tls_error};

/// What a connection needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// PEM certificates trusted besides the operating system's.
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate that we show, its chain and its key.
    pub client_certificate: Option<PathBuf>,
    /// The only proxy used.
    pub proxy: Option<String>,
    /// How long one request may take in all.
    pub timeout: Duration,
}

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may be silent in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Of larger bodies than this so many are in memory at once, over all sources.
const LARGE: usize = 1 << 20;

/// One for the body that is split and one for the next.
static LARGE_BODIES: Semaphore = Semaphore::const_new(2);

/// The right to hold a large body, for as long as it is held.
pub type Memory = Option<SemaphorePermit<'static>>;

/// What is asked.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `HEAD` or `POST`.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// Secret values are marked as such.
    pub headers: HeaderMap<HeaderValue>,
    /// As it is sent; none at all when it is empty.
    pub body: Vec<u8>,
}

/// How much of an answer's body is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// All of it: an answer whose body is longer, or does not come whole, is none.
    Whole(usize),
    /// So much of it as comes, at most this: the status alone is an answer.
    Beginning(usize),
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, decompressed.
    pub body: Vec<u8>,
    /// Needed while the body is kept.
    pub memory: Memory,
    /// `Date`, if it can be read.
    pub date: Option<Millis>,
    /// `Retry-After`, as a span from `Date` or from now.
    pub retry_after: Option<Duration>,
    /// `Content-Type`, as sent.
    pub content_type: Option<String>,
    /// `Location`, as sent.
    pub location: Option<String>,
    /// `WWW-Authenticate`, as sent.
    pub www_authenticate: Option<String>,
    /// From the sending of the request to the end of the body.
    pub elapsed: Duration,
}

/// Builds a client. The TLS provider is installed once, by the first.
pub fn client(settings: &Settings) -> Result<Client, Error> {
    client_connecting(settings, connect_timeout(settings.timeout))
}

/// The same, where a connection may take no longer than this to be made.
pub fn client_connecting(settings: &Settings, within: Duration) -> Result<Client, Error> {
    build(settings, builder(settings, within)?)
}

/// The same as [`client`], with the cookies by which a load balancer knows whom to ask again.
pub fn client_keeping_cookies(settings: &Settings) -> Result<Client, Error> {
    build(settings, builder(settings, connect_timeout(settings.timeout))?.cookie_store(true))
}

fn builder(settings: &Settings, within: Duration) -> Result<ClientBuilder, Error> {
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("siemferry/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .tls_version_min(tls::Version::TLS_1_2)
        .connect_timeout(within)
        .read_timeout(READ_TIMEOUT.min(settings.timeout))
        .timeout(settings.timeout);
    if let Some(path) = &settings.ca_file {
        builder = builder.tls_certs_merge(certificates::trusted(path)?);
    }
    if let Some(path) = &settings.client_certificate {
        builder = builder.identity(certificates::identity(path)?);
    }
    if let Some(proxy) = &settings.proxy {
        builder = builder.proxy(Proxy::all(proxy).map_err(|err| Error::Setup(innermost(&err)))?);
    }
    Ok(builder)
}

fn build(settings: &Settings, builder: ClientBuilder) -> Result<Client, Error> {
    builder.build().map_err(|err| match (&settings.client_certificate, tls_error(&err)) {
        (Some(path), Some(cause)) if certificates::is_of_identity(cause) => {
            crate::tls::refuse_identity(path, cause.to_string()).into()
        }
        _ => Error::Setup(innermost(&err)),
    })
}

/// Less than the whole time, so that what was waited for is known when it is over.
fn connect_timeout(whole: Duration) -> Duration {
    CONNECT_TIMEOUT.min(whole / 2)
}

/// Asks for `url` and reads the whole answer, at most `cap` bytes of it after decompression.
pub async fn get(
    client: &Client,
    url: Url,
    headers: HeaderMap<HeaderValue>,
    cap: usize,
) -> Result<Answer, Error> {
    let request = Request { method: Method::GET, url, headers, body: Vec::new() };
    send(client, request, Wanted::Whole(cap)).await
}

/// Sends the request and reads the answer, so much of it as is wanted, after decompression.
pub async fn send(client: &Client, request: Request, wanted: Wanted) -> Result<Answer, Error> {
    let Request { method, url, headers, body: sends } = request;
    let host = url.host_str().unwrap_or_default().to_owned();
    let sent = Instant::now();
    let classify = |err: &reqwest::Error| classify(err, &host, sent.elapsed());
    let mut request = client.request(method, url).headers(headers);
    if !sends.is_empty() {
        request = request.body(sends);
    }
    let response = request.send().await.map_err(|err| classify(&err))?;
    let head = response.headers();
    let date = text(head, &DATE).and_then(|value| http_date(&value));
    let retry_after = text(head, &RETRY_AFTER).and_then(|value| retry_after(&value, date));
    let (content_type, location) = (text(head, &CONTENT_TYPE), text(head, &LOCATION));
    let www_authenticate = text(head, &WWW_AUTHENTICATE);
    let encoding = text(head, &CONTENT_ENCODING).filter(|value| value != "identity");
    let status = response.status().as_u16();
    let (body, memory) = match (wanted, encoding) {
        (Wanted::Whole(_), Some(encoding)) => return Err(Error::Encoding { host, encoding }),
        (Wanted::Whole(cap), None) => body(response, cap, &host, classify).await?,
        (Wanted::Beginning(_), Some(_)) => (Vec::new(), None),
        (Wanted::Beginning(cap), None) => (beginning(response, cap).await, None),
    };
    let elapsed = sent.elapsed();
    Ok(Answer {
        status,
        body,
        memory,
        date,
        retry_after,
        content_type,
        location,
        www_authenticate,
        elapsed,
    })
}

/// What comes of a body, if anything does.
async fn beginning(mut response: Response, cap: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = cap - body.len();
        body.extend_from_slice(&chunk[..room.min(chunk.len())]);
        if chunk.len() > room {
            break;
        }
    }
    body
}

async fn body(
    mut response: Response,
    cap: usize,
    host: &str,
    classify: impl Fn(&reqwest::Error) -> Error,
) -> Result<(Vec<u8>, Memory), Error> {
    let too_large = || Error::TooLarge { host: host.to_owned(), cap };
    let promised = response.content_length().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    if promised > cap {
        return Err(too_large());
    }
    let mut memory = if promised > LARGE { Some(large().await) } else { None };
    let mut body = Vec::with_capacity(promised);
    // Time spent in waiting for memory says nothing about what was asked for.
    let classify = |err: reqwest::Error| match classify(&err) {
        Error::Timeout { host, .. } if body_waits() => {
            Error::Interrupted { host, reason: "too many large answers at once".into() }
        }
        err => err,
    };
    while let Some(chunk) = response.chunk().await.map_err(classify)? {
        if body.len() + chunk.len() > cap {
            return Err(too_large());
        }
        if memory.is_none() && body.len() + chunk.len() > LARGE {
            memory = Some(large().await);
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, memory))
}

/// True while no further large body may be read.
fn body_waits() -> bool {
    LARGE_BODIES.available_permits() == 0
}

async fn large() -> SemaphorePermit<'static> {
    LARGE_BODIES.acquire().await.expect("it is never closed")
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// RFC 9110, section 5.6.7: the one form that senders may use.
fn http_date(value: &str) -> Option<Millis> {
    DateTime::parse_from_rfc2822(value).ok().map(|time| time.timestamp_millis())
}

/// RFC 9110, section 10.2.3: seconds, or a date.
fn retry_after(value: &str, date: Option<Millis>) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = http_date(value)?;
    let from = date.unwrap_or_else(|| chrono::Utc::now().timestamp_millis());
    Some(Duration::from_millis(u64::try_from(until - from).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = http_date("Fri, 20 Nov 2026 10:00:00 GMT");
        assert_eq!(date, Some(1_795_168_800_000));

        assert_eq!(retry_after("17", date), Some(Duration::from_secs(17)));
        let minute = retry_after("Fri, 20 Nov 2026 10:01:00 GMT", date);
        assert_eq!(minute, Some(Duration::from_secs(60)));
        let past = retry_after("Fri, 20 Nov 2026 09:00:00 GMT", date);
        assert_eq!(past, Some(Duration::ZERO));
        let ages = retry_after("99999999999999999999", date);
        assert_eq!(ages, Some(Duration::from_secs(u64::MAX)));
        assert_eq!(retry_after("soon", date), None);
        assert_eq!(retry_after("-5", date), None);
    }

    #[tokio::test]
    async fn a_third_large_body_waits_until_there_is_memory_again() {
        let first = large().await;
        let _second = large().await;
        let mut third = Box::pin(large());
        let waits =
            std::future::poll_fn(|cx| std::task::Poll::Ready(third.as_mut().poll(cx).is_pending()));
        assert!(waits.await && body_waits());

        drop(first);

        drop(third.await);
    }
}
