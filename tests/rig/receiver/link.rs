//! One connection: its bytes in and out, and all ways in which it can end.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConnection, StreamOwned};

use super::{Connection, Fault, How, Shared, relp, stream};

mod socket;
mod unread;

pub use socket::Socket;
use socket::Stream;

/// How long a receiver that ended its own sending waits for the sender.
const SILENCE: Duration = Duration::from_secs(2);
const CHUNK: usize = 64 << 10;
const SLOW_CHUNK: usize = 256;

/// What reading is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Usual,
    /// Only what the kernel has.
    Draining,
    /// All that still comes.
    Finishing,
}

/// A connection of this number, and what was read of it and not yet taken.
pub struct Link {
    pub shared: Arc<Shared>,
    pub number: usize,
    /// What befalls it before a byte of it is read.
    at_the_door: Option<Fault>,
    /// The text of an `open`'s refusal.
    pub refuses_open: Option<String>,
    stream: Stream,
    buffer: Vec<u8>,
    /// How many bytes at the buffer's beginning are done with.
    done: usize,
    /// How many bytes were handed over and are not yet taken.
    elsewhere: usize,
    mode: Mode,
    /// A pause before each reading, until the receiver is mended more often than that.
    slow: Option<(Duration, u64)>,
    /// How often the receiver had restarted when it began to listen for this connection.
    restarts: u64,
}

impl Link {
    pub fn new(shared: &Arc<Shared>, socket: Socket, restarts: u64) -> Self {
        let (number, at_the_door) = {
            let mut state = shared.lock();
            let number = state.connections.len();
            state.connections.push(Connection::default());
            (number, state.door_script.as_mut().and_then(|script| script(number)))
        };
        shared.changed.notify_all();
        let stream = match &shared.options.tls {
            None => Stream::Plain(socket),
            Some(tls) => {
                let connection = ServerConnection::new(Arc::new(tls.clone())).unwrap();
                Stream::Tls(Box::new(StreamOwned::new(connection, socket)))
            }
        };
        Self {
            shared: Arc::clone(shared),
            number,
            at_the_door,
            refuses_open: None,
            stream,
            buffer: Vec::new(),
            done: 0,
            elsewhere: 0,
            mode: Mode::Usual,
            slow: None,
            restarts,
        }
    }

    /// Whether it ends at once, and nothing has to be said: a thread of its own might get its turn only
    /// when a sender has waited long enough.
    pub fn is_soon_over(&self) -> bool {
        let ends = matches!(self.at_the_door, Some(Fault::Close | Fault::Reset));
        ends && matches!(self.stream, Stream::Plain(_))
    }

    /// Serves it to its end.
    pub fn serve(mut self) {
        let how = match self.talk() {
            Err(how) => how,
            Ok(never) => match never {},
        };
        match &how {
            How::WasReset => self.socket().reset_when_dropped(),
            How::WasClosed | How::Refused(_) | How::Orderly => self.say_goodbye(),
            _ => {}
        }
        if how == How::WasClosed {
            self.socket().refuse_what_comes();
        }
        if let How::Refused(text) = &how {
            self.shared.violation(self.number, text);
        }
        let (shared, number) = (Arc::clone(&self.shared), self.number);
        // Who is told of the end finds the connection closed.
        drop(self);
        shared.lock().connections[number].end = Some(how);
        shared.changed.notify_all();
    }

    fn talk(&mut self) -> Result<std::convert::Infallible, How> {
        self.socket().set_up().map_err(|_| How::Reset)?;
        match self.at_the_door.take() {
            Some(Fault::RefuseOpen(text)) => self.refuses_open = Some(text),
            Some(fault) => self.suffer(fault)?,
            None => {}
        }
        if self.shared.options.kind.is_relp() { relp::serve(self) } else { stream::serve(self) }
    }

    /// What was read and not yet taken.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.done..]
    }

    /// So many bytes of the rest are done with.
    pub fn skip(&mut self, bytes: usize) {
        self.done += bytes;
    }

    /// The rest, for somebody else to keep until it [`took`](Self::took) it.
    pub fn hand_over(&mut self) -> &[u8] {
        let from = std::mem::replace(&mut self.done, self.buffer.len());
        self.elsewhere += self.buffer.len() - from;
        &self.buffer[from..]
    }

    /// So many of the bytes that were handed over are done with.
    pub fn took(&mut self, bytes: usize) {
        self.elsewhere -= bytes;
    }

    /// How many bytes were read and are not done with.
    pub fn untaken(&self) -> usize {
        self.rest().len() + self.elsewhere
    }

    /// Whether answers still can be given.
    pub fn is_usual(&self) -> bool {
        self.mode == Mode::Usual
    }

    /// Reads more; false when nothing has come for so long.
    pub fn more(&mut self, patience: Option<Duration>) -> Result<bool, How> {
        self.buffer.drain(..self.done);
        self.done = 0;
        let since = Instant::now();
        loop {
            self.still_lives()?;
            let most = self.pause()?;
            let is_handshaking =
                matches!(&self.stream, Stream::Tls(tls) if tls.conn.is_handshaking());
            let mut chunk = vec![0; most];
            match self.stream.read(&mut chunk) {
                Ok(0) if self.mode == Mode::Draining => return Err(How::WasReset),
                Ok(0) => return Err(self.end(How::Orderly)),
                Ok(read) => {
                    self.buffer.extend_from_slice(&chunk[..read]);
                    self.shared.lock().connections[self.number].read += read;
                    return Ok(true);
                }
                Err(err) if is_timeout(&err) => match self.mode {
                    Mode::Draining => return Err(How::WasReset),
                    Mode::Finishing if since.elapsed() >= SILENCE => return Err(How::WasClosed),
                    Mode::Usual if patience.is_some_and(|most| since.elapsed() >= most) => {
                        return Ok(false);
                    }
                    _ => {}
                },
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(self.broken(&err, is_handshaking)),
            }
        }
    }

    /// Sends this to the sender.
    pub fn answer(&mut self, bytes: &[u8]) -> Result<(), How> {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).map_err(|_| How::Reset)
    }

    /// What befalls the message that comes next.
    pub fn fault(&mut self, content: &[u8]) -> Option<Fault> {
        let is_usual = self.is_usual();
        self.shared.lock().fault(self.number, content, is_usual)
    }

    /// What every kind of stream makes of a fault; when it returns, the message is taken.
    pub fn suffer(&mut self, fault: Fault) -> Result<(), How> {
        self.shared.lock().connections[self.number].suffered.push(fault.clone());
        match fault {
            Fault::Reset => return Err(How::WasReset),
            Fault::Close => return Err(How::WasClosed),
            Fault::Restart(away) => {
                self.shared.restart(away);
                return Err(How::WasReset);
            }
            Fault::ResetAfterDraining => {
                self.mode = Mode::Draining;
                self.socket().deafen();
                self.socket().do_not_wait().map_err(|_| How::Reset)?;
            }
            Fault::FinishReading => {
                self.say_goodbye();
                self.mode = Mode::Finishing;
            }
            Fault::Slow(pause) => self.slow = Some((pause, self.shared.lock().mends)),
            Fault::Freeze => self.freeze()?,
            Fault::Garbage(bytes) => {
                self.answer(&bytes)?;
                loop {
                    self.skip(self.rest().len());
                    self.more(None)?;
                }
            }
            other => self.shared.violation(self.number, &format!("no such fault here: {other:?}")),
        }
        Ok(())
    }

    /// Keeps a message, of a frame that has so many bytes.
    pub fn keep(&mut self, message: Vec<u8>, frame: usize) {
        self.shared.lock().keep(self.number, message, frame);
        self.shared.changed.notify_all();
    }

    /// Lets go of a whole message that has come and is not taken.
    pub fn lose(&self, message: Vec<u8>) {
        self.shared.lock().connections[self.number].lost.push(message);
    }

    fn freeze(&mut self) -> Result<(), How> {
        let mut state = self.shared.lock();
        let mends = state.mends;
        state.frozen += 1;
        self.shared.changed.notify_all();
        while state.mends == mends && state.restarts == self.restarts && !state.is_over {
            state = self.shared.wait(state, super::PATIENCE);
        }
        state.frozen -= 1;
        drop(state);
        self.still_lives()
    }

    /// Waits where the connection is slow; says how much may be read then.
    fn pause(&mut self) -> Result<usize, How> {
        let Some((pause, mends)) = self.slow else { return Ok(CHUNK) };
        let end = Instant::now() + pause;
        let mut state = self.shared.lock();
        while state.mends == mends && state.restarts == self.restarts && !state.is_over {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(SLOW_CHUNK);
            }
            state = self.shared.wait(state, left);
        }
        drop(state);
        self.slow = None;
        self.still_lives().map(|()| CHUNK)
    }

    fn still_lives(&self) -> Result<(), How> {
        let state = self.shared.lock();
        match () {
            () if state.is_over => Err(How::Over),
            () if state.restarts != self.restarts => Err(How::WasReset),
            () => Ok(()),
        }
    }

    /// The sender's end, which is this one between two messages.
    fn end(&self, between: How) -> How {
        if self.untaken() == 0 { between } else { How::Torn(self.untaken()) }
    }

    fn broken(&self, err: &io::Error, is_handshaking: bool) -> How {
        match err.kind() {
            _ if is_handshaking => How::Tls(err.to_string()),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => How::Reset,
            // An end of TCP without the end of TLS.
            io::ErrorKind::UnexpectedEof => self.end(How::Abrupt),
            _ => How::Tls(err.to_string()),
        }
    }

    /// Ends the sending.
    pub fn say_goodbye(&mut self) {
        if let Stream::Tls(tls) = &mut self.stream {
            tls.conn.send_close_notify();
            // Who is gone already does not hear it.
            let _ = tls.flush();
        }
        let _ = self.socket().shut();
    }

    fn socket(&self) -> &Socket {
        match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &tls.sock,
        }
    }
}

fn is_timeout(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
