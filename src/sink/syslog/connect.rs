//! Makes a connection to one address, and says why there is none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::{Address, Place, Transport};
use super::datagram;
use super::relp::{NotOpened, Session};
use super::stream;
use super::wire::{Answers, Meter, Wire};
use crate::sink::DeliveryError;
use crate::sys::socket::{self, Local, Probe, Watch, watch_over};
use crate::{secret, tls};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// The kernel takes no more than about this that the receiver's has not: less to send again.
const SEND_BUFFER: usize = 256 << 10;

/// What a slow receiver has no room for waits with us, where a stop finds it unwritten.
const MOST_UNSENT: u32 = 32 << 10;

/// What messages are written to.
pub enum Line {
    /// What arrives is found out by asking the kernel.
    Stream(stream::Line),
    /// What arrives is acknowledged.
    Relp(Box<Session>),
    /// Message for message.
    Datagram(datagram::Line),
}

/// How a connection is made.
pub struct How<'a> {
    /// For the transports within TLS.
    pub tls: Option<&'a TlsConnector>,
    /// The name that the receiver must prove to have.
    pub server_name: Option<ServerName<'static>>,
    /// How long it may make no progress.
    pub patience: Duration,
    /// How long a stream's first event must go unopposed.
    pub trial: Duration,
}

impl Line {
    /// That the other side is going or gone, and what it said about it.
    pub async fn ending(&mut self) -> Option<io::Error> {
        match self {
            Self::Stream(line) => line.ending().await,
            Self::Relp(session) => session.ending().await,
            Self::Datagram(_) => None,
        }
    }

    /// Whether all that was written is known to have arrived.
    pub fn is_proven(&self) -> bool {
        match self {
            Self::Stream(line) => {
                let meter = line.wire().meter();
                // What is known counts where the connection is broken by now.
                let known = meter.look().unwrap_or_else(|_| meter.known());
                known >= meter.written()
            }
            Self::Relp(_) | Self::Datagram(_) => true,
        }
    }

    /// Whether this is what that meter counts.
    pub fn is_of(&self, meter: &Arc<Meter>) -> bool {
        matches!(self, Self::Stream(line) if Arc::ptr_eq(line.wire().meter(), meter))
    }

    /// Ends it in an orderly way, but does not wait for long.
    pub async fn end(self) {
        match self {
            Self::Stream(line) => line.into_wire().end().await,
            Self::Relp(session) => session.end().await,
            Self::Datagram(_) => {}
        }
    }

    /// What the other side said at the end.
    pub async fn last_words(self) -> Option<io::Error> {
        match self {
            Self::Stream(line) => line.into_wire().last_words().await,
            // What it says is read as it comes.
            Self::Relp(_) | Self::Datagram(_) => None,
        }
    }
}

/// Connects to one address, and greets where the protocol has it.
///
/// # Errors
/// [`DeliveryError::Blocked`] where somebody must act, else [`DeliveryError::Retry`].
pub async fn connect(address: &Address, how: &How<'_>) -> Result<Line, DeliveryError> {
    let failed = |err: io::Error| trouble(address, &err, false);
    match (&address.place, address.transport) {
        (Place::Path(path), _) => match socket::local(path).await.map_err(failed)? {
            Local::Datagram(socket) => {
                datagram::Line::local(socket, path).map(Line::Datagram).map_err(failed)
            }
            Local::Stream(socket) => {
                let probe = Probe::of(&socket).map_err(failed)?;
                Ok(Line::Stream(stream::Line::new(Wire::plain(socket, probe), None)))
            }
        },
        (Place::Host { host, port }, Transport::Udp) => {
            let to = look_up(host, *port).await.map_err(failed)?[0];
            datagram::Line::udp(to).await.map(Line::Datagram).map_err(failed)
        }
        (Place::Host { host, port }, transport) => {
            let socket = over_tcp(host, *port, how.patience).await.map_err(failed)?;
            let wire = wire(socket, transport, how).await;
            let wire = wire.map_err(|err| not_connected(address, &err))?;
            match transport {
                Transport::Relp | Transport::Relps => greet(address, wire, how.patience).await,
                _ => Ok(Line::Stream(stream::Line::new(wire, Some(how.trial)))),
            }
        }
    }
}

async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let failed = |reason: &str| {
        let text =
            format!("look up `{host}`: {reason} (check the name, and this machine's name servers)");
        io::Error::other(text)
    };
    let found = timeout(CONNECT, tokio::net::lookup_host((host, port))).await;
    let found = found.map_err(|_| failed("no answer of the name servers"))?;
    let found: Vec<_> = found.map_err(|err| failed(&err.to_string()))?.collect();
    if found.is_empty() { Err(failed("it has no address")) } else { Ok(found) }
}

async fn over_tcp(host: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    let within = CONNECT.min(patience);
    let mut last = None;
    for to in look_up(host, port).await? {
        match timeout(within, TcpStream::connect(to)).await {
            Ok(Ok(socket)) => {
                socket.set_nodelay(true)?;
                watch_over(
                    &socket,
                    Watch { patience, send_buffer: SEND_BUFFER, most_unsent: MOST_UNSENT },
                )?;
                return Ok(socket);
            }
            Ok(Err(err)) => last = Some(err),
            Err(_) => {
                let text = format!("no connection within {} s", within.as_secs_f32());
                last = Some(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
    }
    Err(last.expect("a name that is found has an address"))
}

async fn wire(socket: TcpStream, transport: Transport, how: &How<'_>) -> io::Result<Wire> {
    let probe = Probe::of(&socket)?;
    if !transport.is_tls() {
        return Ok(Wire::plain(socket, probe));
    }
    let setup = || io::Error::other("TLS is not set up for this address");
    let tls = how.tls.ok_or_else(setup)?;
    let name = how.server_name.clone().ok_or_else(setup)?;
    let within = CONNECT.min(how.patience);
    let secured = timeout(within, Wire::secured(socket, probe, tls, name)).await;
    secured.unwrap_or_else(|_| {
        let seconds = within.as_secs_f32();
        let text = format!("no TLS within {seconds} s (is it TLS that listens there?)");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

/// Some receivers say nothing when they miss a certificate of ours, or do not take the one they get.
pub fn not_connected(address: &Address, err: &io::Error) -> DeliveryError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let is_end =
        matches!(err.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe);
    let wrong = trouble(address, err, false);
    if is_end && address.transport.is_tls() && tls::fault(err).is_none() {
        let hint = "is it TLS that listens there, and does it want a certificate, or another?";
        return DeliveryError::passing(format!("{wrong} ({hint})"));
    }
    wrong
}

async fn greet(address: &Address, wire: Wire, patience: Duration) -> Result<Line, DeliveryError> {
    let opened = Session::open(wire, patience).await;
    opened.map(|session| Line::Relp(Box::new(session))).map_err(|err| match err {
        NotOpened::Foreign(text) => DeliveryError::blocked(
            format!("open a session at `{address}`: {}", secret::redact(&text)),
            "is it RELP that listens there, such as rsyslog's imrelp?".to_owned(),
        ),
        NotOpened::Refused(text) => DeliveryError::blocked(
            format!("open a session at `{address}`: {}", secret::redact(&text)),
            "the receiver's own log says why".to_owned(),
        ),
        NotOpened::Broken(err) if tls::fault(&err).is_some() => trouble(address, &err, false),
        NotOpened::Broken(err) => {
            let hint = if address.transport.is_tls() {
                "does the receiver ask for a certificate?"
            } else {
                "is it RELP that listens there, and without TLS?"
            };
            let source = format!("{} ({hint})", trouble(address, &err, false));
            DeliveryError::passing(source)
        }
    })
}

/// What the courier is to do when a connection fails.
pub fn trouble(address: &Address, err: &io::Error, is_ambiguous: bool) -> DeliveryError {
    let text = match (tls::fault(err), err.kind()) {
        // Our own words.
        (Some(rustls::Error::General(text)), _) => text.clone(),
        // The text of rustls is about attacks, and has a link in it.
        (None, io::ErrorKind::UnexpectedEof) => "the receiver has closed the connection".to_owned(),
        _ => secret::redact(&err.to_string()),
    };
    let text = format!("deliver to `{address}`: {text}");
    if let Some(fault) = tls::fault(err)
        && let Some(hint) = hint(fault)
    {
        // What goes wrong on a connection that was good passes by itself.
        if is_ambiguous && !tls::refuses_certificate(fault) {
            let source = format!("{text} ({hint})").into();
            return DeliveryError::Retry { after: None, source, is_ambiguous };
        }
        return DeliveryError::blocked(text, hint.to_owned());
    }
    if err.kind() == io::ErrorKind::PermissionDenied {
        let hint = match address.transport {
            Transport::Unix => "may this user write to it?",
            _ => "does a firewall, SELinux or `IPAddressDeny` of this machine forbid it?",
        };
        if is_ambiguous {
            // What was written before may have arrived: it is counted, and told again if it goes on.
            let source = format!("{text} ({hint})").into();
            return DeliveryError::Retry { after: None, source, is_ambiguous };
        }
        return DeliveryError::blocked(text, hint.to_owned());
    }
    if let Some(cause) = err.get_ref() {
        if cause.is::<stream::SpeaksTls>() {
            return DeliveryError::blocked(text, "say `tls://` in its address".to_owned());
        }
        if cause.is::<Answers>() {
            let hint = "is it syslog that listens there? its receivers say nothing unasked";
            return DeliveryError::blocked(text, hint.to_owned());
        }
    }
    let hint = match err.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            if address.transport == Transport::Unix =>
        {
            " (does the receiver run, and has it this path?)"
        }
        io::ErrorKind::ConnectionRefused => " (does the receiver run, and listen on this port?)",
        _ => "",
    };
    DeliveryError::Retry { after: None, source: format!("{text}{hint}").into(), is_ambiguous }
}

/// What to do about a fault of TLS that does not pass by itself.
fn hint(fault: &rustls::Error) -> Option<&'static str> {
    const CERTIFICATE: &str =
        "the receiver refuses our certificate, or asks for one: name it in `client_certificate`";
    use rustls::{AlertDescription as Alert, Error};
    match fault {
        Error::AlertReceived(
            Alert::CloseNotify
            | Alert::InternalError
            | Alert::UserCanceled
            | Alert::NoRenegotiation,
        ) => None,
        // OpenSSL says only that the handshake failed, where it misses a certificate.
        Error::AlertReceived(Alert::HandshakeFailure) => Some(CERTIFICATE),
        fault if tls::refuses_certificate(fault) => Some(CERTIFICATE),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            Some("is it TLS that listens there? else say `tcp://` or `relp://`")
        }
        Error::InvalidCertificate(_) => Some(
            "check this machine's clock; name a private CA in `ca_file`, and another name of the \
             receiver in `server_name`",
        ),
        Error::General(text) if text.contains("fingerprints") => {
            Some("if that is the receiver's new certificate, add it to `fingerprints`")
        }
        _ => Some("compare the TLS settings of both sides: this daemon speaks TLS 1.2 and 1.3"),
    }
}

/// The same trouble, for another batch that it keeps from being sent: nothing of that was.
pub fn the_same(trouble: &DeliveryError) -> DeliveryError {
    match trouble {
        DeliveryError::Blocked { source, hint, .. } => {
            DeliveryError::blocked(source.to_string(), hint.clone())
        }
        other => DeliveryError::passing(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_arrived_before_it_was_forbidden_is_in_doubt() {
        let address = "tcp://192.0.2.1:601".parse().unwrap();
        let forbidden = || io::Error::from(io::ErrorKind::PermissionDenied);

        let before = trouble(&address, &forbidden(), false);
        let behind = trouble(&address, &forbidden(), true);

        let DeliveryError::Blocked { hint: Some(hint), .. } = before else { panic!("{before:?}") };
        assert!(hint.contains("firewall"), "{hint}");
        assert!(behind.is_ambiguous(), "{behind:?}");
        assert!(behind.to_string().contains(&hint), "{behind}");
    }
}
