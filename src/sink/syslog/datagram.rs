//! Messages in datagrams: UDP, or a socket such as `/dev/log`.
//!
//! UDP promises nothing, and is only used by who has asked for that. A local socket's datagram counts
//! as delivered when the process behind it has read it.

use std::io::{self, ErrorKind::ConnectionRefused};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use super::wire::{Meter, TURN, stalled};
use crate::encode::syslog::{Framing, messages};
use crate::sink::Batch;
use crate::sys;
use crate::sys::socket::{self, Datagrams, Probe};

/// A receiver's kernel keeps some two hundred datagrams, and throws away what comes while it is full:
/// after so many, its process gets time to read.
const BURST: usize = 50;
const PAUSE: Duration = Duration::from_millis(1);

/// A socket that sends to one receiver.
pub enum Line {
    /// Over the network.
    Udp(UdpSocket),
    /// To another process of this machine.
    Local(Local),
}

/// A socket to the process that has bound a path.
pub struct Local {
    socket: Datagrams,
    meter: Meter,
    path: PathBuf,
    bound: Bound,
}

/// What has come of a batch.
pub struct Sent {
    /// How many events, from the first on, have gone out whole or, on this machine, were read.
    pub arrived: usize,
    /// Of how many anything may have gone out.
    pub begun: usize,
    /// What was wrong.
    pub done: io::Result<()>,
}

/// What tells one binding of a path from another.
type Bound = ((u64, u64), Option<SystemTime>);

fn bound(path: &Path) -> io::Result<Bound> {
    let found = std::fs::metadata(path)?;
    Ok((sys::inode(&found), found.modified().ok()))
}

impl Local {
    /// Waits until its process has read all that was sent.
    async fn has_read(&self, patience: Duration) -> io::Result<()> {
        self.meter.arrived(self.meter.written(), patience).await?;
        self.is_still_there().await
    }

    /// When its process dies, the kernel throws away what that has not read, and says nothing of it:
    /// an empty queue is proof only while the same process is there.
    async fn is_still_there(&self) -> io::Result<()> {
        let gone = |_| io::Error::new(io::ErrorKind::ConnectionReset, "the receiver has ended");
        let found = bound(&self.path).map_err(gone)?;
        match socket::local(&self.path).await {
            Ok(socket::Local::Datagram(_)) if found == self.bound => Ok(()),
            _ => Err(gone(io::ErrorKind::NotFound.into())),
        }
    }
}

impl Line {
    /// To a receiver over the network.
    pub async fn udp(to: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr =
            if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(to).await?;
        Ok(Self::Udp(socket))
    }

    /// To a process of this machine.
    pub fn local(socket: Datagrams, path: &Path) -> io::Result<Self> {
        let meter = Meter::of(Probe::of(&socket)?);
        Ok(Self::Local(Local { socket, meter, path: path.to_owned(), bound: bound(path)? }))
    }

    /// Sends as many messages as there is time for.
    pub async fn send(&self, batch: &Batch, framing: Framing, patience: Duration) -> Sent {
        let (sent, done) = self.send_all(batch, framing, patience).await;
        let begun = if done.is_ok() { sent } else { batch.ends.len().min(sent + 1) };
        let (arrived, done) = match self {
            Self::Udp(_) => {
                // A refusal is of the datagram before.
                let is_late = done.as_ref().is_err_and(|err| err.kind() == ConnectionRefused);
                (sent.saturating_sub(usize::from(is_late)), done)
            }
            // Of what was not read, nobody knows which messages it is.
            Self::Local(_) if done.as_ref().is_err_and(|err| !socket::is_too_long(err)) => {
                (0, done)
            }
            Self::Local(local) => match local.has_read(patience).await {
                Ok(()) => (sent, done),
                Err(err) => (0, Err(err)),
            },
        };
        Sent { arrived, begun, done }
    }

    async fn send_all(
        &self,
        batch: &Batch,
        framing: Framing,
        patience: Duration,
    ) -> (usize, io::Result<()>) {
        let mut burst = 0;
        let turn = Instant::now() + TURN;
        for (sent, encoded) in batch.messages().enumerate() {
            if sent > 0 && Instant::now() >= turn {
                return (sent, Ok(()));
            }
            for message in messages(encoded, framing) {
                if let Err(err) = self.send_one(message, patience).await {
                    return (sent, Err(err));
                }
                burst += 1;
                if matches!(self, Self::Udp(_)) && burst % BURST == 0 {
                    sleep(PAUSE).await;
                }
            }
        }
        (batch.ends.len(), Ok(()))
    }

    async fn send_one(&self, message: &[u8], patience: Duration) -> io::Result<()> {
        let sent = async {
            match self {
                Self::Udp(socket) => socket.send(message).await,
                Self::Local(local) => {
                    let sent = local.socket.send(message).await?;
                    local.meter.count(sent);
                    Ok(sent)
                }
            }
        };
        timeout(patience, sent).await.unwrap_or_else(|_| Err(stalled(patience))).map(drop)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use rustix::net::sockopt;
    use tokio::net::UnixDatagram;

    use super::*;

    #[tokio::test]
    async fn what_goes_before_a_message_that_is_too_long_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        sockopt::set_socket_send_buffer_size(&socket, 2 << 10).unwrap();
        socket.connect(&path).unwrap();
        let line = Line::local(socket, &path).unwrap();
        let texts = ["short", "another", &"x".repeat(64 << 10), "behind it"];
        let mut batch = Batch { id: uuid::Uuid::nil(), bytes: Vec::new(), ends: Vec::new() };
        for text in texts {
            batch.bytes.extend_from_slice(format!("{} {text}", text.len()).as_bytes());
            batch.ends.push(batch.bytes.len());
        }
        let read = async {
            let mut read = Vec::new();
            for _ in 0..2 {
                let mut text = vec![0; 100];
                let length = receiver.recv(&mut text).await.unwrap();
                read.push(String::from_utf8(text[..length].to_vec()).unwrap());
            }
            read
        };

        let sent = line.send(&batch, Framing::OctetCounted, Duration::from_secs(60));
        let (sent, read) = tokio::join!(sent, read);

        assert!(socket::is_too_long(&sent.done.unwrap_err()));
        assert_eq!((sent.arrived, read), (2, vec!["short".to_owned(), "another".to_owned()]));
    }
}
