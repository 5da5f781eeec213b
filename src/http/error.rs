//! Why there is no answer, and whether what was asked may have been done all the same.

use std::time::Duration;

use crate::tls;

/// Why there is no answer, or no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
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
            Self::Tls(err) => Some(err.hint()),
            Self::Setup(_) => Some("install the `ca-certificates` package, or name a `ca_file`"),
            Self::Dns { .. } => Some("check the host name, and this machine's name servers"),
            Self::Connect { tls: true, reason, .. } if reason.contains("fatal alert") => Some(
                "the server refuses our certificate, or asks for one: name it in `client_certificate`",
            ),
            Self::Connect { tls: true, .. } => {
                Some("check this machine's clock; name a private CA in `ca_file`")
            }
            Self::Connect { .. } => Some("check the firewall, or name a `proxy`"),
            _ => None,
        }
    }

    /// Whether what was asked may have been done all the same: it may have reached the server.
    pub const fn is_ambiguous(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. }
                | Self::Interrupted { .. }
                | Self::TooLarge { .. }
                | Self::Encoding { .. }
        )
    }

    /// Whether it stays so until somebody changes a setting or a certificate.
    pub const fn is_lasting(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Setup(_) | Self::Connect { tls: true, .. })
    }
}

/// Names what happened to a request that was sent so long ago.
pub fn classify(err: &reqwest::Error, host: &str, waited: Duration) -> Error {
    let (host, reason) = (host.to_owned(), innermost(err));
    if err.is_builder() {
        return Error::Setup(reason);
    }
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
    let tls = tls_error(err);
    if err.is_connect() || tls.is_some_and(tls::refuses_certificate) {
        return Error::Connect { host, reason, tls: tls.is_some() };
    }
    Error::Interrupted { host, reason }
}

/// What TLS itself found wrong; not that a connection broke in the middle of a handshake.
pub fn tls_error(err: &reqwest::Error) -> Option<&rustls::Error> {
    causes(err).find_map(tls::fault)
}

fn causes<'a>(
    err: &'a reqwest::Error,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(err as &(dyn std::error::Error + 'static)), |err| err.source())
}

/// The outer texts only repeat the URL, whose query is nobody's business.
pub fn innermost(err: &reqwest::Error) -> String {
    causes(err).last().map_or_else(String::new, ToString::to_string)
}
