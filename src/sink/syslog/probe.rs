//! `check --online`: each address is connected to, greeted where the protocol has it, and left again.

use super::SyslogSink;
use super::address::{Address, Transport};
use super::connect::{Line, not_connected};
use super::outcome::together;
use crate::sink::DeliveryError;

/// Says what the sink will do.
///
/// # Errors
/// What keeps it from all of its addresses, or from one that somebody must mend.
pub async fn probe(sink: &SyslogSink) -> Result<String, DeliveryError> {
    let (mut told, mut failed) = (Vec::new(), Vec::new());
    for address in sink.dialer.addresses() {
        let tried = match sink.dialer.connect_to(address).await {
            Ok(line) => shake_hands(address, line).await,
            Err(err) => Err(err),
        };
        match tried {
            Ok(text) => told.push(text),
            Err(err) => {
                told.push(format!("not in use now: {err}"));
                failed.push(err);
            }
        }
    }
    let hint = |err: &DeliveryError| match err {
        DeliveryError::Blocked { hint, .. } => Some(hint.clone()),
        _ => None,
    };
    if told.len() > failed.len()
        && let Some(hint) = failed.iter().find_map(hint)
    {
        return Err(DeliveryError::blocked(told.join("; "), hint));
    }
    if failed.len() == sink.dialer.addresses().len() {
        Err(together(failed))
    } else {
        Ok(told.join("; "))
    }
}

/// Says what a connection shows of its receiver, and ends it.
async fn shake_hands(address: &Address, mut line: Line) -> Result<String, DeliveryError> {
    let says = match (&mut line, address.transport) {
        (Line::Relp(_), _) => "opens a session and acknowledges every message",
        (Line::Datagram(_), Transport::Udp) => {
            "is sent datagrams, and nothing tells whether anybody takes them"
        }
        (Line::Datagram(_), _) => "takes datagrams",
        (Line::Stream(stream), transport) => {
            // Within TLS 1.3 a receiver refuses our certificate when the handshake is over for us; and
            // one that does not know this machine closes at once.
            if let Some(err) = stream.objection().await {
                return Err(not_connected(address, &err));
            }
            match transport {
                Transport::Tls => "takes a stream, and its certificate is good",
                _ => "takes a stream",
            }
        }
    };
    line.end().await;
    Ok(format!("{address} {says}"))
}
