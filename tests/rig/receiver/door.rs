//! Where connections come in, or datagrams: a port or a path that stays the same.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{self, AddressFamily, SocketType, sockopt};
use tempfile::TempDir;

use super::link::{Link, Socket};
use super::{Kind, Shared};

/// An address that nobody else gets while the test runs.
pub struct Place {
    receive_buffer: Option<usize>,
    at: At,
    listener: Mutex<Option<Arc<Listener>>>,
}

enum At {
    Port {
        port: u16,
        /// Bound, and never listening: as long as it lives, nobody is given this port, and who
        /// connects to it is refused unless another socket listens there.
        _kept: Option<OwnedFd>,
    },
    Path {
        path: PathBuf,
        _dir: TempDir,
    },
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Place {
    pub fn new(kind: Kind, receive_buffer: Option<usize>) -> Self {
        let at = match kind {
            Kind::UnixDatagram | Kind::UnixStream => {
                let dir = tempfile::tempdir().unwrap();
                At::Path { path: dir.path().join("log"), _dir: dir }
            }
            Kind::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                At::Port { port: socket.local_addr().unwrap().port(), _kept: None }
            }
            _ => {
                let kept = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
                sockopt::set_socket_reuseaddr(&kept, true).unwrap();
                net::bind(&kept, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
                let address = SocketAddrV4::try_from(net::getsockname(&kept).unwrap()).unwrap();
                At::Port { port: address.port(), _kept: Some(kept) }
            }
        };
        Self { receive_buffer, at, listener: Mutex::default() }
    }

    /// A socket that takes datagrams here.
    pub fn udp(&self) -> io::Result<UdpSocket> {
        let At::Port { port, .. } = &self.at else { unreachable!("a port") };
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, *port))?;
        self.limit(socket.as_fd());
        Ok(socket)
    }

    /// The same with a path.
    pub fn unix_datagram(&self) -> io::Result<UnixDatagram> {
        let At::Path { path, .. } = &self.at else { unreachable!("a path") };
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path)?;
        self.limit(socket.as_fd());
        Ok(socket)
    }

    /// Has whoever waits for a connection here wait no longer.
    pub fn wake(&self) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            // Linux ends an `accept` so.
            let _ = net::shutdown(listener.as_fd(), net::Shutdown::Both);
        }
    }

    fn listen(&self) -> io::Result<Arc<Listener>> {
        let listener = match &self.at {
            At::Port { port, .. } => {
                Listener::Tcp(TcpListener::bind((Ipv4Addr::LOCALHOST, *port))?)
            }
            At::Path { path, .. } => {
                let _ = std::fs::remove_file(path);
                Listener::Unix(UnixListener::bind(path)?)
            }
        };
        // Connections have it from their listener.
        self.limit(listener.as_fd());
        let listener = Arc::new(listener);
        let shown = Arc::clone(&listener);
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(listener)
    }

    fn limit(&self, socket: BorrowedFd<'_>) {
        if let Some(bytes) = self.receive_buffer {
            sockopt::set_socket_recv_buffer_size(socket, bytes).unwrap();
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Port { port, .. } => write!(f, "127.0.0.1:{port}"),
            At::Path { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

impl Listener {
    fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| Socket::Tcp(stream)),
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Socket::Unix(stream)),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Serves connections, each in a thread of its own, until the test is over.
pub fn serve(shared: &Arc<Shared>) {
    while shared.may_listen() {
        let listener = shared.place.listen().unwrap();
        let mut state = shared.lock();
        // Who asks for it from now on finds the listener to wake.
        if !state.may_listen(std::time::Instant::now()) || state.is_over {
            continue;
        }
        state.is_listening = true;
        state.listens_since = state.restarts;
        let restarts = state.restarts;
        drop(state);
        shared.changed.notify_all();
        while let Ok(socket) = listener.accept() {
            let shared = Arc::clone(shared);
            let link = Link::new(&shared, socket, restarts);
            if link.is_soon_over() || shared.options.one_at_a_time {
                link.serve();
            } else {
                std::thread::spawn(move || link.serve());
            }
        }
    }
}
