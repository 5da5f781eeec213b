//! What a connection's kernel knows, and how it is to watch over the connection.

use std::io;
use std::time::Duration;

pub use imp::{Datagrams, Local, Probe, is_too_long, local, watch_over};

/// What can be seen of the other side without reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It has sent nothing that was not read, and has not closed.
    Quiet,
    /// It has sent something.
    Speaks,
    /// It has closed its side.
    Gone,
}

/// How a connection is watched over.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Without any sign of life for so long, the kernel ends it: RFC 5482, and keepalive.
    pub patience: Duration,
    /// How much the kernel takes that it has not yet delivered.
    pub send_buffer: usize,
    /// How much of that may wait until the receiver has room for it. (tcp(7): `TCP_NOTSENT_LOWAT`)
    pub most_unsent: u32,
}

#[cfg(unix)]
mod imp {
    use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
    use std::path::Path;

    use rustix::net::{RecvFlags, recv, sockopt};
    use tokio::net::{UnixDatagram, UnixStream};

    use super::{Duration, Peer, Watch, io};

    /// A second handle of a socket, to ask its kernel.
    #[derive(Debug)]
    pub struct Probe(OwnedFd);

    impl Probe {
        /// Of this socket.
        pub fn of(socket: &impl AsFd) -> io::Result<Self> {
            socket.as_fd().try_clone_to_owned().map(Self)
        }

        /// How many of the bytes written are not confirmed: by the other side's kernel over TCP, by
        /// the reading process over a local socket, whose bytes count with their bookkeeping. None
        /// where the kernel cannot tell. (tcp(7) and unix(7): `SIOCOUTQ`)
        #[cfg(target_os = "linux")]
        pub fn unconfirmed(&self) -> io::Result<Option<u64>> {
            let mut bytes: libc::c_int = 0;
            // SAFETY: the descriptor is open as long as `self`, and this request writes one int.
            #[expect(unsafe_code)]
            let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
            if done < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Some(u64::try_from(bytes).unwrap_or(0)))
        }

        /// How many of the bytes written are not confirmed: not known here.
        #[cfg(not(target_os = "linux"))]
        pub fn unconfirmed(&self) -> io::Result<Option<u64>> {
            let _ = self.0.as_raw_fd();
            Ok(None)
        }

        /// Confirms at once what has come, not with what is sent next or after 40 ms: some servers send
        /// nothing more before. (tcp(7): `TCP_QUICKACK`, which does not last)
        pub fn confirm(&self) {
            // A kernel that does not know it is slower, and nothing worse.
            #[cfg(target_os = "linux")]
            let _ = sockopt::set_tcp_quickack(&self.0, true);
        }

        /// The error that has befallen the connection, if one has; a second question finds none. It may
        /// be one that the connection would outlive, such as a host that is out of reach for a while.
        pub fn fault(&self) -> io::Result<()> {
            Ok(sockopt::socket_error(&self.0)??)
        }

        /// What the other side does.
        ///
        /// # Errors
        /// The error that has befallen the connection: a second question does not find it.
        pub fn peer(&self) -> io::Result<Peer> {
            let mut byte = [0_u8; 1];
            match recv(&self.0, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((0, _)) => Ok(Peer::Gone),
                Ok(_) => Ok(Peer::Speaks),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Peer::Quiet),
                Err(err) => Err(err.into()),
            }
        }
    }

    /// Has the kernel watch over a TCP connection.
    pub fn watch_over(socket: &impl AsFd, watch: Watch) -> io::Result<()> {
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_socket_send_buffer_size(socket, watch.send_buffer)?;
        #[cfg(target_os = "linux")]
        {
            // Kernels take no more than this (tcp(7)).
            let longest = Duration::from_secs(32_767);
            let third = (watch.patience / 3).clamp(Duration::from_secs(1), longest);
            sockopt::set_tcp_keepidle(socket, third)?;
            sockopt::set_tcp_keepintvl(socket, third)?;
            sockopt::set_tcp_keepcnt(socket, 2)?;
            let patience = i32::try_from(watch.patience.as_millis()).unwrap_or(i32::MAX);
            let patience = patience.unsigned_abs();
            sockopt::set_tcp_user_timeout(socket, patience)?;
            // A kernel that does not know it has more to send again, and nothing worse.
            let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(watch.most_unsent);
        }
        Ok(())
    }

    /// True when an error says that no datagram can be so long.
    pub fn is_too_long(err: &io::Error) -> bool {
        err.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
    }

    /// A socket that keeps the borders of messages, as `/dev/log` does.
    pub type Datagrams = UnixDatagram;

    /// A socket of this machine.
    pub enum Local {
        /// It keeps the borders of messages.
        Datagram(Datagrams),
        /// It is a stream.
        Stream(UnixStream),
    }

    /// Connects to whatever kind of socket has this path.
    pub async fn local(path: &Path) -> io::Result<Local> {
        let socket = UnixDatagram::unbound()?;
        match socket.connect(path) {
            Ok(()) => Ok(Local::Datagram(socket)),
            Err(err) if is_other_kind(&err) => UnixStream::connect(path).await.map(Local::Stream),
            Err(err) => Err(err),
        }
    }

    fn is_other_kind(err: &io::Error) -> bool {
        err.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error())
    }
}

#[cfg(not(unix))]
mod imp {
    use std::path::Path;

    use tokio::net::{TcpStream, UdpSocket};

    use super::{Peer, Watch, io};

    /// A second handle of a socket, to ask its kernel: there is nothing to ask here.
    #[derive(Debug)]
    pub struct Probe;

    impl Probe {
        /// Of this socket.
        pub fn of<S>(_: &S) -> io::Result<Self> {
            Ok(Self)
        }

        /// Confirms at once what has come: not here.
        pub fn confirm(&self) {}

        /// How many of the bytes written are not confirmed: not known here.
        pub fn unconfirmed(&self) -> io::Result<Option<u64>> {
            Ok(None)
        }

        /// The error that has befallen the connection: not known here.
        pub fn fault(&self) -> io::Result<()> {
            Ok(())
        }

        /// What the other side does: not known here.
        pub fn peer(&self) -> io::Result<Peer> {
            Ok(Peer::Quiet)
        }
    }

    /// True when an error says that no datagram can be so long: not known here.
    pub fn is_too_long(_: &io::Error) -> bool {
        false
    }

    /// Does nothing here.
    pub fn watch_over<S>(_: &S, _: Watch) -> io::Result<()> {
        Ok(())
    }

    /// A socket that keeps the borders of messages.
    pub type Datagrams = UdpSocket;

    /// A socket of this machine: there is none here, and these are never made.
    pub enum Local {
        /// It keeps the borders of messages.
        Datagram(Datagrams),
        /// It is a stream.
        Stream(TcpStream),
    }

    /// Fails: there are no such sockets here.
    pub async fn local(_: &Path) -> io::Result<Local> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
