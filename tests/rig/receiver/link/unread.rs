//! What a kernel has of a connection when its process ends it.

use std::io::Read as _;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd as _;

use rustls::ServerConnection;

use super::{Link, Socket, Stream};

impl Link {
    /// The bytes that have come, decrypted, and that nobody has read. Nothing more comes after that: the
    /// kernel confirms nothing any more.
    pub fn unread(&mut self) -> Vec<u8> {
        self.socket().deafen();
        let Socket::Tcp(socket) = self.socket() else { return Vec::new() };
        let bytes = peek(socket);
        match &mut self.stream {
            Stream::Plain(_) => bytes,
            Stream::Tls(tls) => decrypted(&mut tls.conn, &bytes),
        }
    }
}

impl Socket {
    /// Has the kernel throw away what still comes, as if it had never come. Its sender is told so
    /// only at the connection's end.
    pub fn deafen(&self) {
        /// Takes no byte of anything. (`BPF_RET | BPF_K`, in the kernel's `networking/filter`)
        const NOTHING: libc::sock_filter = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
        let mut filter = [NOTHING];
        let program = libc::sock_fprog { len: 1, filter: filter.as_mut_ptr() };
        if let Self::Tcp(socket) = self {
            set_filter(socket, libc::SO_ATTACH_FILTER, &program);
        }
    }

    /// Whoever sends more is told that nobody takes it, also where the kernel was deaf before.
    pub fn refuse_what_comes(&self) {
        if let Self::Tcp(socket) = self {
            // A connection that is over already needs none of that.
            let _ = socket.shutdown(Shutdown::Both);
            hear(socket);
        }
    }
}

/// What has come; it stays there, for a close with something unread is another one than without.
fn peek(socket: &TcpStream) -> Vec<u8> {
    const MORE_THAN_A_BUFFER: usize = 1 << 20;
    let mut bytes = vec![0; MORE_THAN_A_BUFFER];
    let came = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut bytes));
    // The end of a sender that has gone meanwhile is no message.
    bytes.truncate(came.unwrap_or(0));
    bytes
}

/// What a process would have read of these bytes, and what it has decrypted and not read.
fn decrypted(connection: &mut ServerConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        // All that there is by now, then an error.
        let _ = connection.reader().read_to_end(&mut read);
        if bytes.is_empty() || connection.read_tls(&mut bytes).is_err() {
            return read;
        }
        if connection.process_new_packets().is_err() {
            return read;
        }
    }
}

/// Ends that; where it never was, nothing happens.
fn hear(socket: &TcpStream) {
    set_filter(socket, libc::SO_DETACH_FILTER, &0);
}

fn set_filter<T>(socket: &TcpStream, option: libc::c_int, value: &T) {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap();
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the descriptor is open, and the kernel reads the value and what it points to before it
    // returns.
    #[expect(unsafe_code, reason = "no crate here knows this option")]
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, length);
    }
}
