//! The one HTTP client: rustls, the operating system's roots, time-outs, size caps, no redirects.
//!
//! Promises that a secret header never reaches another host, for no redirect is followed, that no
//! proxy is used unless it is configured, and that a body is capped after decompression.
//! Decides nothing about what an answer means.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::DateTime;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Proxy, Response, Url, tls};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::event::Millis;

/// What a connection needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// PEM certificates trusted besides the operating system's.
    pub ca_file: Option<PathBuf>,
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
    /// From the sending of the request to the end of the body.
    pub elapsed: Duration,
}

/// Why there is no answer, or no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates could not be read.
    #[error("read certificates from `{}`: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS or proxy settings make no client.
    #[error("set up the HTTP client: {0}")]
    Setup(String),
    /// The host's name has no address.
    #[error("look up `{host}`: {reason}")]
    Dns {
        /// The host.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// No connection, or no trust in the one that was made.
    #[error("connect to `{host}`: {reason}")]
    Connect {
        /// The host.
        host: String,
        /// The innermost cause.
        reason: String,
        /// True when the certificate or the handshake is at fault.
        tls: bool,
    },
    /// The answer did not come, or not whole, in time.
    #[error("wait for `{host}`: no whole answer within {} s", after.as_secs())]
    Timeout {
        /// The host.
        host: String,
        /// How long we waited.
        after: Duration,
    },
    /// The connection ended before the answer did.
    #[error("read the answer of `{host}`: {reason}")]
    Interrupted {
        /// The host.
        host: String,
        /// The innermost cause.
        reason: String,
    },
    /// The body is larger than allowed, after decompression.
    #[error("read the answer of `{host}`: it is larger than {cap} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit.
        cap: usize,
    },
    /// The body is compressed in a way we did not offer.
    #[error("read the answer of `{host}`: content encoding {encoding} was not asked for")]
    Encoding {
        /// The host.
        host: String,
        /// What the header said.
        encoding: String,
    },
}

impl Error {
    /// What the operator can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Certificates { .. } => Some("`ca_file` must hold PEM certificates"),
            Self::Setup(_) => Some("install the `ca-certificates` package, or name a `ca_file`"),
            Self::Dns { .. } => Some("check the host name, and this machine's name servers"),
            Self::Connect { tls: true, .. } => {
                Some("check this machine's clock; name a private CA in `ca_file`")
            }
            Self::Connect { .. } => Some("check the firewall, or name a `proxy`"),
            _ => None,
        }
    }
}

/// Builds a client. The TLS provider is installed once, by the first.
pub fn client(settings: &Settings) -> Result<Client, Error> {
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("siemferry/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .tls_version_min(tls::Version::TLS_1_2)
        .connect_timeout(connect_timeout(settings.timeout))
        .read_timeout(READ_TIMEOUT.min(settings.timeout))
        .timeout(settings.timeout);
    if let Some(path) = &settings.ca_file {
        builder = builder.tls_certs_merge(certificates(path)?);
    }
    if let Some(proxy) = &settings.proxy {
        builder = builder.proxy(Proxy::all(proxy).map_err(|err| Error::Setup(innermost(&err)))?);
    }
    builder.build().map_err(|err| Error::Setup(innermost(&err)))
}

/// Less than the whole time, so that what was waited for is known when it is over.
fn connect_timeout(whole: Duration) -> Duration {
    CONNECT_TIMEOUT.min(whole / 2)
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, Error> {
    let refuse = |reason| Error::Certificates { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|err| refuse(err.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|err| refuse(innermost(&err)))?;
    if found.is_empty() {
        return Err(refuse("it holds no certificate".into()));
    }
    Ok(found)
}

/// Asks for `url` and reads the whole answer, at most `cap` bytes of it after decompression.
pub async fn get(
    client: &Client,
    url: Url,
    headers: HeaderMap<HeaderValue>,
    cap: usize,
) -> Result<Answer, Error> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let sent = Instant::now();
    let classify = |err: &reqwest::Error| classify(err, &host, sent.elapsed());
    let response = client.get(url).headers(headers).send().await.map_err(|err| classify(&err))?;
    let head = response.headers();
    let date = text(head, &DATE).and_then(|value| http_date(&value));
    let retry_after = text(head, &RETRY_AFTER).and_then(|value| retry_after(&value, date));
    let content_type = text(head, &CONTENT_TYPE);
    if let Some(encoding) = text(head, &CONTENT_ENCODING).filter(|value| value != "identity") {
        return Err(Error::Encoding { host, encoding });
    }
    let status = response.status().as_u16();
    let (body, memory) = body(response, cap, &host, classify).await?;
    let elapsed = sent.elapsed();
    Ok(Answer { status, body, memory, date, retry_after, content_type, elapsed })
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

fn text(headers: &HeaderMap, name: &reqwest::header::HeaderName) -> Option<String> {
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

fn classify(err: &reqwest::Error, host: &str, waited: Duration) -> Error {
    let (host, reason) = (host.to_owned(), innermost(err));
    // No connection says nothing about what was asked for on it.
    if err.is_timeout() && err.is_connect() {
        let reason = format!("no connection within {} s", waited.as_secs());
        return Error::Connect { host, reason, tls: false };
    }
    if err.is_timeout() {
        return Error::Timeout { host, after: waited };
    }
    if causes(err).any(|cause| cause.to_string().contains("dns error")) {
        return Error::Dns { host, reason };
    }
    if err.is_connect() {
        let tls = causes(err).any(<dyn std::error::Error>::is::<rustls::Error>)
            || ["certificate", "TLS", "tls", "handshake"].iter().any(|word| reason.contains(word));
        return Error::Connect { host, reason, tls };
    }
    Error::Interrupted { host, reason }
}

fn causes<'a>(
    err: &'a reqwest::Error,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(err as &(dyn std::error::Error + 'static)), |err| err.source())
}

/// The outer texts only repeat the URL, whose query is nobody's business.
fn innermost(err: &reqwest::Error) -> String {
    causes(err).last().map_or_else(String::new, ToString::to_string)
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

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "no certificate here").unwrap();
        let settings =
            Settings { ca_file: Some(path.clone()), proxy: None, timeout: CONNECT_TIMEOUT };

        let err = client(&settings).unwrap_err();

        assert!(matches!(&err, Error::Certificates { path: named, .. } if *named == path));
        assert_eq!(err.hint(), Some("`ca_file` must hold PEM certificates"));
    }
}
