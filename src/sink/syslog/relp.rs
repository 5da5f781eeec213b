//! A session of RELP, which acknowledges every message: our own client.
//! (github.com/rsyslog/librelp, doc/relp.html)
//!
//! Promises that an event counts as delivered only when the receiver has acknowledged all of its
//! messages, and that at most [`WINDOW`] messages are on their way.

use std::collections::VecDeque;
use std::io;
use std::iter::Peekable;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::wire::{TURN, Wire};
use crate::encode::syslog::{Framing, messages};
use crate::sink::{Batch, Verdict};
use crate::sys::socket::Peer;
use crate::{secret, tls};

mod frame;

/// How many messages may be on their way: as librelp has it.
const WINDOW: usize = 128;

/// More are written only when so few are on their way: together, not one at each acknowledgement.
const REFILL: usize = WINDOW / 2;

/// How long a server may take to greet.
const GREETING: Duration = Duration::from_secs(10);

/// How long what was said before a session broke is listened for.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How long the end of a session may take.
const FAREWELL: Duration = Duration::from_secs(2);

const OFFERS: &str = concat!(
    "relp_version=0\nrelp_software=siemferry,",
    env!("CARGO_PKG_VERSION"),
    "\ncommands=syslog"
);

/// An open session.
pub struct Session {
    wire: Wire,
    number: u32,
    received: Vec<u8>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// The connection broke, or nobody answered.
    #[error("{0}")]
    Broken(#[from] io::Error),
    /// Who answered does not speak RELP.
    #[error("{0}")]
    Foreign(String),
    /// Who answered does not speak it with us.
    #[error("{0}")]
    Refused(String),
}

/// What became of a batch: of each event, as far as is known.
pub struct Outcome {
    /// Of each event; none for what has no answer.
    pub verdicts: Vec<Option<Verdict>>,
    /// Of how many events, from the first on, anything was sent.
    pub begun: usize,
    /// Whether a message was sent that has no answer.
    pub is_ambiguous: bool,
    /// Why the session is over, if it is.
    pub broken: Option<io::Error>,
}

/// Messages, each with the index of its event.
type Messages<'a> = Box<dyn Iterator<Item = (usize, &'a [u8])> + Send + 'a>;

/// The messages of a batch on their way.
struct Flight<'a> {
    pending: Peekable<Messages<'a>>,
    begun: usize,
    /// Nothing more is to be sent: it is all sent, or its turn is over.
    is_all_sent: bool,
    /// What waits for its answer: the transaction, and whose message it is.
    waiting: VecDeque<(u32, usize)>,
    out: Vec<u8>,
    written: usize,
    /// Of each event, how many messages there are, and how many of them have no answer.
    total: Vec<usize>,
    unanswered: Vec<usize>,
    /// Of each event, whether the receiver has taken one of its messages.
    is_taken: Vec<bool>,
    refused: Vec<Option<String>>,
}

impl Session {
    /// Opens a session.
    ///
    /// # Errors
    /// It is not opened.
    pub async fn open(wire: Wire, patience: Duration) -> Result<Self, NotOpened> {
        let mut session = Self { wire, number: 0, received: Vec::new() };
        let within = GREETING.min(patience);
        let greeted = timeout(within, session.greet()).await;
        greeted.unwrap_or_else(|_| {
            let seconds = within.as_secs_f32();
            let text = format!("no answer to `open` within {seconds} s");
            Err(io::Error::new(io::ErrorKind::TimedOut, text).into())
        })?;
        Ok(session)
    }

    async fn greet(&mut self) -> Result<(), NotOpened> {
        let mut out = Vec::new();
        let number = self.next_number();
        frame::put(number, "open", OFFERS.as_bytes(), &mut out);
        self.wire.write_all(&out, GREETING).await?;
        let (code, text) = self.answer_to(number).await.map_err(|err| match err.kind() {
            // What is wrong with TLS has this kind too, and hints of its own.
            io::ErrorKind::InvalidData if tls::fault(&err).is_none() => {
                NotOpened::Foreign(err.to_string())
            }
            _ => NotOpened::Broken(err),
        })?;
        if code != 200 {
            let text = shortened(text.as_bytes());
            let text = format!("the receiver refuses the session: {code} {text}");
            return Err(NotOpened::Refused(text));
        }
        let offer = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        if offer("relp_version=").is_none() {
            return Err(NotOpened::Refused("the receiver offers no version of RELP".into()));
        }
        let takes_syslog = |offered: &str| offered.split(',').any(|word| word.trim() == "syslog");
        if offer("commands=").is_some_and(|offered| !takes_syslog(offered)) {
            return Err(NotOpened::Refused("the receiver does not take syslog messages".into()));
        }
        Ok(())
    }

    /// That the other side is going or gone, while nothing waits for its answer.
    pub async fn ending(&mut self) -> Option<io::Error> {
        match self.wire.peer() {
            Peer::Quiet => None,
            Peer::Gone => Some(closed()),
            Peer::Speaks => match self.wire.read_now(&mut self.received).await {
                Ok(None) => None,
                Ok(Some(0)) => Some(closed()),
                Err(err) => Some(err),
                // Whatever it says while nothing is asked is said at the end.
                Ok(Some(_)) => (!matches!(frame::parse(&self.received), Ok(None))).then(closed),
            },
        }
    }

    /// Sends the batch and waits for the acknowledgements.
    pub async fn send(&mut self, batch: &Batch, framing: Framing, patience: Duration) -> Outcome {
        let begins = self.wire.meter().written();
        let mut flight = Flight::new(batch, framing);
        let broken = self.carry(&mut flight, patience).await.err();
        if broken.is_some() {
            // What it has acknowledged before it broke is there to be read.
            let received = &mut self.received;
            let heard = async { while let Ok(1..) = self.wire.read(received).await {} };
            let _ = timeout(LAST_WORDS, heard).await;
            let _ = self.take_answers(&mut flight);
        }
        let has_begun = self.wire.meter().written() > begins;
        flight.outcome(broken, has_begun)
    }

    async fn carry(&mut self, flight: &mut Flight<'_>, patience: Duration) -> io::Result<()> {
        let turn = Instant::now() + TURN;
        let mut deadline = Instant::now() + patience;
        loop {
            self.refill(flight, turn);
            if flight.is_all_sent && flight.waiting.is_empty() {
                return Ok(());
            }
            let out = &flight.out[flight.written..];
            let exchanged = timeout_at(deadline, self.wire.exchange(out, &mut self.received)).await;
            let (written, read) = exchanged.unwrap_or_else(|_| {
                let text = format!("no acknowledgement within {} s", patience.as_secs_f32());
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            })?;
            flight.written += written;
            if read == Some(0) {
                return Err(closed());
            }
            if read.is_some() && self.take_answers(flight)? {
                deadline = Instant::now() + patience;
            }
            if flight.is_all_sent || flight.waiting.len() > REFILL {
                // librelp writes each answer by itself, and Nagle's algorithm holds the next one back
                // until this one is confirmed: what is sent would do that, but nothing is sent now.
                self.wire.confirm();
            }
        }
    }

    /// Makes frames of the next messages, when there is room for some.
    fn refill(&mut self, flight: &mut Flight<'_>, turn: Instant) {
        if flight.written < flight.out.len() || flight.waiting.len() > REFILL {
            return;
        }
        flight.out.clear();
        flight.written = 0;
        let is_over = Instant::now() >= turn;
        while flight.waiting.len() < WINDOW {
            // All of an event's messages go, or none.
            let begun = flight.begun;
            let next = flight.pending.next_if(|(event, _)| !is_over || *event < begun);
            let Some((event, message)) = next else {
                flight.is_all_sent = true;
                return;
            };
            flight.begun = event + 1;
            let number = self.next_number();
            frame::put(number, "syslog", message, &mut flight.out);
            flight.waiting.push_back((number, event));
        }
    }

    /// Takes note of what the receiver has said; whether it has answered anything.
    fn take_answers(&mut self, flight: &mut Flight<'_>) -> io::Result<bool> {
        let mut taken = 0;
        let answered = self.note_answers(flight, &mut taken);
        self.received.drain(..taken);
        answered
    }

    fn note_answers(&self, flight: &mut Flight<'_>, taken: &mut usize) -> io::Result<bool> {
        let mut has_answered = false;
        while let Some((found, length)) = frame::parse(&self.received[*taken..])
            .map_err(|_| no_frame(&self.received[*taken..]))?
        {
            *taken += length;
            if found.number == 0 {
                if found.command == b"serverclose" {
                    return Err(closed());
                }
                continue;
            }
            let (code, text) = found.response().ok_or_else(|| no_frame(found.data))?;
            flight.answered(found.number, code, text)?;
            has_answered = true;
        }
        Ok(has_answered)
    }

    /// Ends the session in an orderly way, but does not wait for long.
    pub async fn end(mut self) {
        let mut out = Vec::new();
        let number = self.next_number();
        frame::put(number, "close", b"", &mut out);
        let orderly = async {
            self.wire.write_all(&out, FAREWELL).await?;
            self.answer_to(number).await
        };
        let _ = timeout(FAREWELL, orderly).await;
        self.wire.end().await;
    }

    /// Waits for the answer to a transaction, while no other is on its way.
    async fn answer_to(&mut self, number: u32) -> io::Result<(u16, String)> {
        loop {
            let parsed = frame::parse(&self.received).map_err(|_| no_frame(&self.received))?;
            if let Some((found, length)) = parsed {
                let answer = match found.response() {
                    Some((code, text)) if found.number == number => {
                        Some((code, String::from_utf8_lossy(text).into_owned()))
                    }
                    _ if found.number == 0 => None,
                    _ => return Err(no_frame(&self.received)),
                };
                self.received.drain(..length);
                match answer {
                    Some(answer) => return Ok(answer),
                    None => continue,
                }
            }
            if self.wire.read(&mut self.received).await? == 0 {
                return Err(closed());
            }
        }
    }

    fn next_number(&mut self) -> u32 {
        self.number = frame::next(self.number);
        self.number
    }
}

impl<'a> Flight<'a> {
    fn new(batch: &'a Batch, framing: Framing) -> Self {
        let of_event = move |(at, encoded): (usize, &'a [u8])| {
            messages(encoded, framing).map(move |message| (at, message))
        };
        let events = batch.ends.len();
        let mut unanswered = vec![0; events];
        for (at, encoded) in batch.messages().enumerate() {
            unanswered[at] = messages(encoded, framing).count();
        }
        let pending: Messages<'_> = Box::new(batch.messages().enumerate().flat_map(of_event));
        Self {
            pending: pending.peekable(),
            begun: 0,
            is_all_sent: false,
            waiting: VecDeque::with_capacity(WINDOW),
            out: Vec::new(),
            written: 0,
            total: unanswered.clone(),
            is_taken: vec![false; events],
            unanswered,
            refused: vec![None; events],
        }
    }

    fn answered(&mut self, number: u32, code: u16, text: &[u8]) -> io::Result<()> {
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == number);
        let Some((_, event)) = at.and_then(|at| self.waiting.remove(at)) else {
            let text =
                format!("the receiver answers transaction {number}, which waits for no answer");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        self.unanswered[event] -= 1;
        if code == 200 {
            self.is_taken[event] = true;
        } else {
            let text = secret::redact(&shortened(text));
            self.refused[event].get_or_insert(format!("{code} {text}"));
        }
        Ok(())
    }

    fn outcome(self, broken: Option<io::Error>, has_begun: bool) -> Outcome {
        let verdict = |(unanswered, refused): (usize, Option<String>)| match (unanswered, refused) {
            (0, None) => Some(Verdict::Accepted),
            (0, Some(reason)) => Some(Verdict::Refused { reason }),
            _ => None,
        };
        // Of an event in several messages, all are sent again when one has no answer.
        let is_in_part =
            |(unanswered, total): (&usize, &usize)| 0 < *unanswered && unanswered < total;
        let begun = self.begun;
        // Of one that is refused as well, when it is asked about again.
        let is_both =
            |(refused, is_taken): (&Option<String>, &bool)| refused.is_some() && *is_taken;
        let is_ambiguous = has_begun && !self.waiting.is_empty()
            || self.unanswered.iter().zip(&self.total).any(is_in_part)
            || self.refused.iter().zip(&self.is_taken).any(is_both);
        let verdicts = self.unanswered.into_iter().zip(self.refused).map(verdict).collect();
        Outcome { verdicts, begun, is_ambiguous, broken }
    }
}

/// As much of what a receiver says as belongs into a line of a log.
fn shortened(text: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the receiver has closed the session")
}

fn no_frame(received: &[u8]) -> io::Error {
    let shown = String::from_utf8_lossy(&received[..received.len().min(60)]).into_owned();
    let text = format!(
        "what the receiver says is not RELP: `{}`",
        secret::redact(&shown.escape_debug().to_string())
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}
