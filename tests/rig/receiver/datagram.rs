//! Syslog by datagrams: RFC 5426, and the local socket.

use std::io;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{judge, judge_unframed};
use super::{Connection, Fault, Kind, PATIENCE, Shared};

/// How often it is looked whether the socket shall still be there.
const TICK: Duration = Duration::from_millis(5);
/// Longer than any datagram.
const MOST: usize = 256 << 10;

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Socket {
    fn open(shared: &Shared) -> io::Result<Self> {
        if shared.options.kind == Kind::Udp {
            let socket = shared.place.udp()?;
            socket.set_read_timeout(Some(TICK))?;
            Ok(Self::Udp(socket))
        } else {
            let socket = shared.place.unix_datagram()?;
            socket.set_read_timeout(Some(TICK))?;
            Ok(Self::Unix(socket))
        }
    }

    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(bytes),
            Self::Unix(socket) => socket.recv(bytes),
        }
    }
}

/// Takes datagrams until the test is over. All of them are of one connection, as the history has it.
pub fn serve(shared: &Arc<Shared>) {
    shared.lock().connections.push(Connection::default());
    let mut bytes = vec![0; MOST];
    while shared.may_listen() {
        let socket = Socket::open(shared).unwrap();
        shared.lock().is_listening = true;
        shared.changed.notify_all();
        while may_go_on(shared) {
            // A datagram that never came is the sender's business.
            if let Ok(length) = socket.receive(&mut bytes) {
                take(shared, &bytes[..length]);
            }
        }
    }
}

fn may_go_on(shared: &Shared) -> bool {
    let state = shared.lock();
    state.may_listen(Instant::now()) && !state.is_over
}

fn take(shared: &Shared, message: &[u8]) {
    let options = &shared.options;
    shared.lock().connections[0].read += message.len();
    let judged =
        judge_unframed(message).and_then(|()| judge(message, options.framing, options.most_bytes));
    if let Err(text) = judged {
        return shared.violation(0, &text);
    }
    let fault = shared.lock().fault(0, message);
    match fault {
        None => {}
        Some(Fault::Freeze) => wait(shared, PATIENCE),
        Some(Fault::Slow(pause)) => wait(shared, pause),
        Some(Fault::Restart(away)) => return shared.restart(away),
        Some(other) => shared.violation(0, &format!("no such fault here: {other:?}")),
    }
    shared.lock().keep(0, message.to_vec(), message.len());
    shared.changed.notify_all();
}

/// Waits so long, or until all is well, or the socket shall not be there any more.
fn wait(shared: &Shared, most: Duration) {
    let end = Instant::now() + most;
    let mut state = shared.lock();
    let mends = state.mends;
    state.frozen += 1;
    shared.changed.notify_all();
    while state.mends == mends && state.may_listen(Instant::now()) && !state.is_over {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        state = shared.wait(state, left);
    }
    state.frozen -= 1;
}
