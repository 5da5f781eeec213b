//! Messages over a stream that acknowledges nothing: TCP, TLS, or a socket of this machine.
//!
//! Promises that an event counts as delivered only when the kernel has proof that its bytes have
//! arrived: in the other side's kernel over TCP, in the reading process on this machine. What that
//! kernel has and its process never reads is beyond any sender's knowledge.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::wire::{Answers, Meter, TURN, Wire};
use crate::sink::Batch;
use crate::sys::socket::Peer;

/// So many bytes at least are written between two looks at the other side: at first few, so that a
/// connection that is soon over has got somewhere, and twice as many each time.
const FIRST_CHUNK: usize = 1 << 10;
const LARGEST_CHUNK: usize = 16 << 10;

/// How long a receiver that takes a first message amiss has to say so, unless connections are shorter.
pub const TRIAL: Duration = Duration::from_millis(200);

/// The least of that: one look.
const LOOK: Duration = Duration::from_millis(20);

/// How a record of TLS begins that holds an alert (RFC 8446, section 5.1).
const ALERT: &[u8] = &[21, 3];

/// Syslog without TLS was sent to who expects TLS.
#[derive(Debug, thiserror::Error)]
#[error("the receiver speaks TLS")]
pub struct SpeaksTls;

/// A stream to a receiver.
pub struct Line {
    wire: Wire,
    chunk: usize,
    /// How long the first event must go unopposed; none when one has, or need not.
    trial: Option<Duration>,
}

/// Events that were written, and how it is found out whether they arrived.
pub struct Proof {
    meter: Arc<Meter>,
    /// Where the bytes of the first begin.
    begins: u64,
    /// Where the bytes of the last end that was written whole.
    ends: u64,
    /// Of how many events, from the first on, any byte may have been written.
    begun: usize,
    /// Where events end, if TLS does not have the bytes written as they are.
    marks: Option<Vec<Mark>>,
    /// What has arrived was not taken for what it is.
    is_void: bool,
}

/// So many events of the batch end before this position.
#[derive(Clone, Copy, Debug)]
struct Mark {
    events: usize,
    position: u64,
}

impl Line {
    pub fn new(wire: Wire, trial: Option<Duration>) -> Self {
        Self { wire, chunk: FIRST_CHUNK, trial }
    }

    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    pub fn into_wire(self) -> Wire {
        self.wire
    }

    /// That the other side is going or gone, and what it said about it.
    pub async fn ending(&mut self) -> Option<io::Error> {
        match self.wire.peer() {
            Peer::Quiet => None,
            Peer::Gone => Some(closed()),
            // TLS says in this way that it ends.
            Peer::Speaks => {
                let mut said = Vec::new();
                loop {
                    match self.wire.read_now(&mut said).await {
                        // A receiver of TLS that is told something else.
                        Ok(Some(1..)) if said.starts_with(ALERT) && self.wire.is_plain() => {
                            return Some(io::Error::new(io::ErrorKind::InvalidData, SpeaksTls));
                        }
                        Ok(Some(1..)) if self.trial.is_some() => {
                            return Some(Answers::error(&said));
                        }
                        Ok(Some(1..)) => said.clear(),
                        Ok(None) => return None,
                        Ok(Some(0)) => return Some(closed()),
                        Err(err) => return Some(err),
                    }
                }
            }
        }
    }

    /// What the other side has against a new connection, if it says so soon.
    pub async fn objection(&mut self) -> Option<io::Error> {
        let mut said = Vec::new();
        match timeout(TRIAL, self.wire.read(&mut said)).await.ok()? {
            Ok(0) => {
                let text = "the receiver closes the connection at once";
                Some(io::Error::new(io::ErrorKind::ConnectionAborted, text))
            }
            Ok(_) => Some(Answers::error(&said)),
            Err(err) => Some(err),
        }
    }

    /// Writes as much of the batch as there is time for; says what was written of it, and what was wrong.
    /// Over a new connection the first event goes alone, and counts only if it is not taken amiss.
    pub async fn write(&mut self, batch: &Batch, patience: Duration) -> (Proof, io::Result<()>) {
        let meter = Arc::clone(self.wire.meter());
        let begins = meter.written();
        let marks = (!self.wire.is_plain()).then(Vec::new);
        let mut proof = Proof { meter, begins, ends: begins, begun: 0, marks, is_void: false };
        let written = self.write_marked(batch, patience, &mut proof).await;
        (proof, written)
    }

    /// Waits for what a receiver of something else than syslog does with a first message: its kernel
    /// has taken that already.
    async fn stand_trial(&mut self, trial: Duration, patience: Duration) -> io::Result<()> {
        let position = self.wire.meter().written();
        self.wire.meter().arrived(position, patience).await?;
        let begun = Instant::now();
        loop {
            sleep(LOOK).await;
            if let Some(err) = self.ending().await {
                return Err(err);
            }
            if begun.elapsed() >= trial {
                return Ok(());
            }
        }
    }

    async fn write_marked(
        &mut self,
        batch: &Batch,
        patience: Duration,
        proof: &mut Proof,
    ) -> io::Result<()> {
        let turn = Instant::now() + TURN;
        let mut start = 0;
        for (at, end) in batch.ends.iter().enumerate() {
            let is_last = at + 1 == batch.ends.len();
            if end - start < self.chunk && !is_last && self.trial.is_none() {
                continue;
            }
            proof.is_void = self.trial.is_some();
            if let Some(err) = self.ending().await {
                return Err(err);
            }
            if start > 0 && Instant::now() >= turn {
                return Ok(());
            }
            proof.begun = at + 1;
            self.wire.write_all(&batch.bytes[start..*end], patience).await?;
            proof.ends = proof.meter.written();
            if let Some(marks) = &mut proof.marks {
                marks.push(Mark { events: at + 1, position: proof.ends });
            }
            proof.meter.look()?;
            start = *end;
            self.chunk = (2 * self.chunk).min(LARGEST_CHUNK);
            if let Some(trial) = self.trial {
                self.stand_trial(trial, patience).await?;
                proof.is_void = false;
                self.trial = None;
            }
        }
        Ok(())
    }
}

impl Proof {
    /// The meter of the connection.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Waits until everything written has arrived, or it is clear that it does not; says how many
    /// events of the batch, from the first on, have arrived, and what was wrong.
    pub async fn wait(&self, batch: &Batch, patience: Duration) -> (usize, io::Result<()>) {
        let arrived = self.meter.arrived(self.ends, patience).await;
        if self.is_void {
            return (0, arrived);
        }
        let known = self.meter.known();
        let events = match &self.marks {
            None => batch.ends.partition_point(|end| self.begins + *end as u64 <= known),
            Some(marks) => {
                let marks = marks.iter().take_while(|mark| mark.position <= known);
                marks.last().map_or(0, |mark| mark.events)
            }
        };
        (events, arrived)
    }

    /// Whether it was clear at the first event, or before it, that the receiver takes none.
    pub fn is_void(&self) -> bool {
        self.is_void
    }

    /// Of how many events, from the first on, anything may have been written.
    pub fn begun(&self) -> usize {
        self.begun
    }

    /// Whether anything was written, so that the receiver may have it.
    pub fn is_begun(&self) -> bool {
        self.meter.written() > self.begins
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the receiver has closed the connection")
}
