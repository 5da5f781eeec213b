//! A syslog receiver as strict as the standards: over TCP, TLS, RELP, UDP and Unix sockets.
//!
//! What a strict receiver would refuse is refused, and remembered as a violation. Only what a test
//! scripts is out of the ordinary. No client of somebody else's proves this simulator.
//!
//! ```ignore
//! let receiver = Receiver::start(Options { kind: Kind::Relp, ..Options::default() });
//! receiver.fault_when(|seen| (seen.message == 10).then_some(Fault::LoseAck));
//! // … deliver to `receiver.address()` …
//! receiver.received(100);
//! assert_eq!(receiver.violations(), [""; 0]);
//! ```

#![allow(dead_code, reason = "not every test needs everything")]

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

mod datagram;
mod door;
mod fault;
mod link;
mod message;
pub mod peer;
mod relp;
mod stream;

use door::Place;

pub use crate::strict_syslog::Framing;
pub use fault::{Connection, Fault, How, Seen};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the receiver is like.
#[derive(Clone)]
pub struct Options {
    pub kind: Kind,
    /// Of the kinds that are streams without RELP. Of the others, how the messages were made: with
    /// `Newline` no message may have a control character.
    pub framing: Framing,
    /// `SO_RCVBUF` in bytes, of which the kernel makes the double; its default unless set.
    pub receive_buffer: Option<usize>,
    /// Who it says to be, and which clients it serves. The kinds with TLS need it.
    pub tls: Option<ServerConfig>,
    /// Serves a connection before it accepts the next, and in the same thread: what it has to say to a
    /// sender that waits but a moment, it says as soon as that thread gets its turn.
    pub one_at_a_time: bool,
    /// Bytes that a message may have: what librelp takes unless told otherwise.
    pub most_bytes: usize,
    /// RELP: messages that may wait for their acknowledgement.
    pub window: usize,
    /// RELP: acknowledges when so many wait, or when nothing more has come for 5 ms.
    pub ack_after: usize,
    /// RELP: what a `close` is answered with.
    pub close_answer: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kind: Kind::Tcp,
            framing: Framing::OctetCounted,
            receive_buffer: None,
            tls: None,
            one_at_a_time: false,
            most_bytes: 128 << 10,
            window: 128,
            ack_after: 1,
            close_answer: "200 OK",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Tls,
    Relp,
    Relps,
    Udp,
    UnixDatagram,
    UnixStream,
}

impl Kind {
    fn is_relp(self) -> bool {
        matches!(self, Self::Relp | Self::Relps)
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Relps)
    }
}

type Script = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;
type DoorScript = Box<dyn FnMut(usize) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    script: Option<Script>,
    door_script: Option<DoorScript>,
    arrived: usize,
    messages: Vec<Vec<u8>>,
    violations: Vec<String>,
    connections: Vec<Connection>,
    mends: u64,
    restarts: u64,
    frozen: usize,
    /// Whether a test wants it to listen.
    is_wanted: bool,
    /// Until when it is away because of a restart.
    away_until: Option<Instant>,
    is_listening: bool,
    /// How often it had restarted when it last began to listen.
    listens_since: u64,
    is_over: bool,
}

struct Shared {
    options: Options,
    place: Place,
    state: Mutex<State>,
    changed: Condvar,
}

/// A running receiver, until the last clone is dropped.
#[derive(Clone)]
pub struct Receiver {
    shared: Arc<Shared>,
    _life: Arc<Life>,
}

/// Ends the receiver's threads.
struct Life(Arc<Shared>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.place.wake();
        self.0.changed.notify_all();
    }
}

impl Receiver {
    pub fn start(options: Options) -> Self {
        let needs_tls = options.kind.has_tls();
        assert_eq!(options.tls.is_some(), needs_tls, "{:?} and a certificate", options.kind);
        let place = Place::new(options.kind, options.receive_buffer);
        let state = State { is_wanted: true, ..State::default() };
        let shared =
            Arc::new(Shared { options, place, state: state.into(), changed: Condvar::new() });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || match serving.options.kind {
            Kind::Udp | Kind::UnixDatagram => datagram::serve(&serving),
            _ => door::serve(&serving),
        });
        shared.wait_until("it listens", State::listens);
        Self { _life: Arc::new(Life(Arc::clone(&shared))), shared }
    }

    /// Where it is, as the configuration of a sink has it: `tcp://127.0.0.1:4711`.
    pub fn address(&self) -> String {
        let scheme = match self.shared.options.kind {
            Kind::Tcp => "tcp",
            Kind::Tls => "tls",
            Kind::Relp => "relp",
            Kind::Relps => "relps",
            Kind::Udp => "udp",
            Kind::UnixDatagram | Kind::UnixStream => "unix",
        };
        format!("{scheme}://{}", self.shared.place)
    }

    /// The same without its scheme: host and port, or a path.
    pub fn place(&self) -> String {
        self.shared.place.to_string()
    }

    /// From now on this decides what befalls each message before it is taken.
    pub fn fault_when(&self, script: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        self.shared.lock().script = Some(Box::new(script));
    }

    /// From now on this decides what befalls each connection when it comes, from its number; before
    /// a byte of it is read.
    pub fn fault_when_connected(
        &self,
        script: impl FnMut(usize) -> Option<Fault> + Send + 'static,
    ) {
        self.shared.lock().door_script = Some(Box::new(script));
    }

    /// From now on all is well: what is frozen or slow goes on, and a restart is over. A receiver
    /// that a test has stopped stays so.
    pub fn mend(&self) {
        let mut state = self.shared.lock();
        state.script = None;
        state.door_script = None;
        state.mends += 1;
        state.away_until = None;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Is not there any more for new connections, or for datagrams: they are refused.
    pub fn stop_listening(&self) {
        self.shared.lock().is_wanted = false;
        self.shared.leave();
        self.shared.wait_until("it is away", |state| !state.is_listening);
    }

    /// Is there again, at the same place.
    pub fn listen_again(&self) {
        let mut state = self.shared.lock();
        state.is_wanted = true;
        state.away_until = None;
        drop(state);
        self.shared.changed.notify_all();
        self.shared.wait_until("it listens", State::listens);
    }

    /// Resets every connection, and is away for so long, or until [`Receiver::mend`].
    pub fn restart(&self, away: Duration) {
        self.shared.restart(away);
    }

    /// The messages that were taken, in the order of their arrival, repeats included.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        self.shared.lock().messages.clone()
    }

    /// How many these are.
    pub fn count(&self) -> usize {
        self.shared.lock().messages.len()
    }

    /// How many connections came so far. Of a kind without connections: one.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// What is known of each of them, in the order of their coming.
    pub fn history(&self) -> Vec<Connection> {
        self.shared.lock().connections.clone()
    }

    /// How those ended that have, in the order of their coming.
    pub fn ends(&self) -> Vec<How> {
        self.shared.lock().ends()
    }

    /// Whatever a strict receiver refuses.
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// Waits until so many messages are taken, repeats included.
    #[track_caller]
    pub fn received(&self, messages: usize) {
        let what = format!("{messages} messages");
        self.shared.wait_until(&what, |state| state.messages.len() >= messages);
    }

    /// Waits until so many connections have come.
    #[track_caller]
    pub fn connected(&self, count: usize) {
        let what = format!("{count} connections");
        self.shared.wait_until(&what, |state| state.connections.len() >= count);
    }

    /// Waits until so many connections have ended.
    #[track_caller]
    pub fn ended(&self, count: usize) {
        let what = format!("{count} ends of connections");
        self.shared.wait_until(&what, |state| state.ends().len() >= count);
    }

    /// Waits until so many connections are frozen.
    #[track_caller]
    pub fn frozen(&self, count: usize) {
        let what = format!("{count} frozen connections");
        self.shared.wait_until(&what, |state| state.frozen >= count);
    }
}

impl State {
    /// What befalls a message that has come. Nothing does where the connection has its fault already.
    fn fault(&mut self, connection: usize, content: &[u8], is_usual: bool) -> Option<Fault> {
        let message = self.arrived;
        self.arrived += 1;
        let counts = &mut self.connections[connection];
        let on_connection = counts.arrived;
        counts.arrived += 1;
        let (taken, content) = (self.messages.len(), content.to_vec());
        let script = self.script.as_mut().filter(|_| is_usual)?;
        script(&Seen { connection, message, on_connection, taken, content })
    }

    /// Takes a message, of a frame that has so many bytes.
    fn keep(&mut self, connection: usize, message: Vec<u8>, frame: usize) {
        let counts = &mut self.connections[connection];
        counts.messages += 1;
        counts.taken += frame;
        self.messages.push(message);
    }

    fn ends(&self) -> Vec<How> {
        self.connections.iter().filter_map(|connection| connection.end.clone()).collect()
    }

    /// Whether it does since the last restart.
    fn listens(&self) -> bool {
        self.is_listening && self.listens_since == self.restarts
    }

    fn may_listen(&self, now: Instant) -> bool {
        self.is_wanted && self.away_until.is_none_or(|until| until <= now)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    #[track_caller]
    fn wait_until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut state = self.lock();
        while !is_so(&state) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{what} do not come: {} messages, connections {:?}, violations {:?}",
                state.messages.len(),
                state.connections,
                state.violations
            );
            state = self.wait(state, left);
        }
    }

    /// Waits for leave to listen; false when the test is over.
    fn may_listen(&self) -> bool {
        let mut state = self.lock();
        state.is_listening = false;
        self.changed.notify_all();
        loop {
            let now = Instant::now();
            if state.is_over {
                return false;
            }
            if state.may_listen(now) {
                return true;
            }
            let left = state.away_until.map(|until| until.saturating_duration_since(now));
            state = self.wait(state, left.filter(|left| !left.is_zero()).unwrap_or(PATIENCE));
        }
    }

    fn restart(&self, away: Duration) {
        let mut state = self.lock();
        state.restarts += 1;
        state.away_until = Some(Instant::now() + away);
        drop(state);
        self.leave();
    }

    /// Has whoever waits for something look again whether it still may.
    fn leave(&self) {
        self.place.wake();
        self.changed.notify_all();
    }

    fn violation(&self, connection: usize, text: &str) {
        self.lock().violations.push(format!("connection {connection}: {text}"));
        self.changed.notify_all();
    }
}
