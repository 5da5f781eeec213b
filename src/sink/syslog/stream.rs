//! Messages over a stream that acknowledges nothing: TCP, TLS, or a socket of this machine.
//!
//! Promises that an event counts as delivered only when the kernel has proof that its bytes have
//! arrived: in the other side's kernel over TCP, in the reading process on this machine. What that
//! kernel has and its process never reads is beyond any sender's knowledge.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::wire::{Meter, Wire};
use crate::sink::Batch;
use crate::sys::socket::Peer;

/// So many bytes at least are written between two looks at the other side.
const CHUNK: usize = 64 << 10;

/// A stream to a receiver.
pub struct Line {
    wire: Wire,
}

/// Events that were written, and how it is found out whether they arrived.
pub struct Proof {
    meter: Arc<Meter>,
    marks: Vec<Mark>,
    /// Where the first of them begins.
    begins: u64,
}

/// So many events of the batch end before this position.
#[derive(Clone, Copy, Debug)]
struct Mark {
    events: usize,
    position: u64,
}

impl Line {
    pub fn new(wire: Wire) -> Self {
        Self { wire }
    }

    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    pub fn into_wire(self) -> Wire {
        self.wire
    }

    /// True when the other side has said that it is going, or is gone.
    pub async fn is_closed(&mut self) -> bool {
        match self.wire.peer() {
            Peer::Quiet => false,
            Peer::Gone => true,
            // Receivers have nothing to say but for TLS, which says in this way that it ends.
            Peer::Speaks => {
                let mut ignored = Vec::new();
                loop {
                    match self.wire.read_now(&mut ignored).await {
                        Ok(Some(1..)) => ignored.clear(),
                        Ok(None) => return false,
                        Ok(Some(0)) | Err(_) => return true,
                    }
                }
            }
        }
    }

    /// What the other side has against a new connection, if it says so soon.
    pub async fn objection(&mut self) -> Option<io::Error> {
        match self.wire.last_words().await {
            None if self.wire.peer() == Peer::Gone => {
                let text = "the receiver closes the connection at once";
                Some(io::Error::new(io::ErrorKind::ConnectionAborted, text))
            }
            found => found,
        }
    }

    /// Writes the batch; says what was written of it, and why that is not all.
    pub async fn write(&mut self, batch: &Batch, patience: Duration) -> (Proof, io::Result<()>) {
        let meter = Arc::clone(self.wire.meter());
        let begins = meter.written();
        let mut proof = Proof { meter, marks: Vec::new(), begins };
        let written = self.write_marked(batch, patience, &mut proof).await;
        (proof, written)
    }

    async fn write_marked(
        &mut self,
        batch: &Batch,
        patience: Duration,
        proof: &mut Proof,
    ) -> io::Result<()> {
        let mut start = 0;
        for (at, end) in batch.ends.iter().enumerate() {
            let is_last = at + 1 == batch.ends.len();
            if end - start < CHUNK && !is_last {
                continue;
            }
            if self.is_closed().await {
                let text = "the receiver has closed the connection";
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text));
            }
            self.wire.write_all(&batch.bytes[start..*end], patience).await?;
            proof.marks.push(Mark { events: at + 1, position: proof.meter.written() });
            proof.meter.look()?;
            start = *end;
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
    /// events have arrived, and what was wrong.
    pub async fn wait(&self, patience: Duration) -> (usize, io::Result<()>) {
        let end = self.marks.last().map_or(0, |mark| mark.position);
        let arrived = self.meter.arrived(end, patience).await;
        let known = self.meter.known();
        let marks = self.marks.iter().take_while(|mark| mark.position <= known);
        (marks.last().map_or(0, |mark| mark.events), arrived)
    }

    /// Whether anything was written, so that the receiver may have it.
    pub fn is_begun(&self) -> bool {
        self.meter.written() > self.begins
    }
}
