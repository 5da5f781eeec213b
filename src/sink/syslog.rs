//! The syslog sink: an event is one message, to a receiver over RELP, TLS, TCP, a local socket or UDP.
//!
//! Promises that nothing counts as delivered before there is proof of it: RELP's acknowledgement; over
//! TCP and TLS, which have none, that the receiver's kernel has it; over a local socket, that its
//! process has read it. What is not proven when a connection breaks is sent again. UDP promises
//! nothing, and has to be asked for.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tracing::warn;

use super::{Batch, DeliveryError, Receipt, Resumed, Sink, Unencodable, Upcoming};
use crate::encode::syslog::{Layout, encode};
use crate::event::Event;
use crate::position::Bookmark;
use crate::sys::socket;
use crate::tls;

mod address;
mod config;
mod connect;
mod datagram;
mod dial;
mod outcome;
mod probe;
mod relp;
mod stream;
mod wire;

pub use address::{Address, Addresses, Place, Transport};
pub use config::{Config, ENTERPRISE};

use connect::{Line, the_same, trouble};
use dial::{Dialer, Open};
use outcome::{Arrived, acknowledged, receipt, too_long, unsent};
use stream::Proof;

/// Sends to the first of its addresses that takes messages.
pub struct SyslogSink {
    config: Config,
    dialer: Dialer,
    layout: Layout,
    open: Mutex<Option<Open>>,
    /// How often a batch could not be sent to its end, and why the last time, if not for want of time:
    /// what was to be sent behind it waits for its turn.
    breaks: std::sync::Mutex<(u64, Option<DeliveryError>)>,
    /// How many batches were written in part and wait for its proof: their rest comes next.
    parts: AtomicUsize,
    /// The next batch goes over a new connection.
    is_over: AtomicBool,
    has_warned: bool,
}

impl SyslogSink {
    /// A sink that has opened nothing yet.
    pub fn new(config: &Config) -> Self {
        Self {
            dialer: Dialer::new(config),
            layout: config.layout(),
            config: config.clone(),
            open: Mutex::default(),
            breaks: std::sync::Mutex::default(),
            parts: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            has_warned: false,
        }
    }

    /// The connection that is there, if it is still good; else a new one.
    async fn ready<'a>(
        &self,
        held: &'a mut MutexGuard<'_, Option<Open>>,
    ) -> Result<&'a mut Open, DeliveryError> {
        let is_over = self.is_over.swap(false, Ordering::SeqCst);
        if let Some(mut open) = held.take() {
            if let Some(err) = open.line.ending().await {
                if !open.line.is_proven() {
                    // What is sent again comes first. Of this batch, nothing was sent.
                    return Err(the_same(&trouble(&open.address, &err, true)));
                }
            } else if is_over || open.is_old(&self.config) {
                open.line.end().await;
            } else {
                if open.is_stale() {
                    match self.dialer.connect().await {
                        Ok(other) => open = other,
                        // Better than none.
                        Err(_) => open.keep(),
                    }
                }
                **held = Some(open);
            }
        }
        if held.is_none() {
            **held = Some(self.dialer.connect().await?);
        }
        Ok(held.as_mut().expect("there is one now"))
    }

    async fn send(&self, batch: &Batch) -> Result<Receipt, DeliveryError> {
        let breaks = self.breaks().0;
        let mut held = self.open.lock().await;
        match &*self.breaks() {
            // It does not overtake what was lost, nor what comes next.
            (now, Some(why)) if *now != breaks => return Err(the_same(why)),
            (now, None) if *now != breaks => return Ok(unsent(batch.ends.len())),
            _ if self.parts.load(Ordering::SeqCst) > 0 => return Ok(unsent(batch.ends.len())),
            _ => {}
        }
        let open = match self.ready(&mut held).await {
            Ok(open) => open,
            Err(err) => {
                // The others that wait would only find out the same.
                self.broke(&err);
                return Err(err);
            }
        };
        let (address, patience) = (open.address.clone(), self.config.patience());
        match &mut open.line {
            Line::Stream(line) => {
                let (proof, written) = line.write(batch, patience).await;
                self.dialer.judge(&address, &proof);
                let written = match written {
                    Ok(()) => Ok(()),
                    Err(err) => Err(self.broken(&mut held, err, &proof, &address, breaks).await),
                };
                let is_part = written.is_ok() && proof.begun() < batch.ends.len();
                if is_part {
                    self.turn_is_over();
                    self.parts.fetch_add(1, Ordering::SeqCst);
                }
                // Meanwhile the next batch is written.
                drop(held);
                let arrived = self.prove(batch, &proof, written, &address, breaks).await;
                self.parts.fetch_sub(usize::from(is_part), Ordering::SeqCst);
                receipt(batch, arrived)
            }
            Line::Relp(session) => {
                let outcome = session.send(batch, self.layout.framing, patience).await;
                let broken = outcome.broken.as_ref();
                let wrong = broken.map(|err| trouble(&address, err, outcome.is_ambiguous));
                if let (Some(err), Some(wrong)) = (broken, &wrong) {
                    self.dialer.learn(&address, err);
                    self.broke(wrong);
                    *held = None;
                } else if outcome.begun < batch.ends.len() {
                    self.turn_is_over();
                }
                acknowledged(outcome, wrong)
            }
            Line::Datagram(line) => {
                let sent = line.send(batch, self.layout.framing, patience).await;
                if sent.done.as_ref().is_err_and(|err| !socket::is_too_long(err)) {
                    *held = None;
                }
                self.datagrams(batch, sent, &address)
            }
        }
    }

    /// What has come of a batch in datagrams.
    fn datagrams(
        &self,
        batch: &Batch,
        sent: datagram::Sent,
        address: &Address,
    ) -> Result<Receipt, DeliveryError> {
        let datagram::Sent { arrived: events, begun, done } = sent;
        let wrong = match done {
            Err(err) if socket::is_too_long(&err) => {
                let reason = format!("deliver to `{address}`: {err}");
                self.turn_is_over();
                return Ok(too_long(batch.ends.len(), events, &reason));
            }
            done => done.err().map(|err| trouble(address, &err, true)),
        };
        if let Some(wrong) = &wrong {
            self.broke(wrong);
        } else if begun < batch.ends.len() {
            self.turn_is_over();
        }
        receipt(batch, Arrived { events, begun, wrong })
    }

    /// Waits for the proof that what was written has arrived.
    async fn prove(
        &self,
        batch: &Batch,
        proof: &Proof,
        written: Result<(), DeliveryError>,
        address: &Address,
        breaks: u64,
    ) -> Arrived {
        let (events, arrived) = proof.wait(batch, self.config.patience()).await;
        let wrong = match (written, arrived) {
            (Ok(()), Ok(())) => None,
            (Err(wrong), _) => Some(wrong),
            (Ok(()), Err(err)) => {
                let mut held = self.open.lock().await;
                Some(self.broken(&mut held, err, proof, address, breaks).await)
            }
        };
        Arrived { events, begun: proof.begun(), wrong }
    }

    /// Takes the connection out of use, unless another has taken its place, and says what is wrong
    /// with it; `breaks` is how many there were when the batch came.
    async fn broken(
        &self,
        held: &mut MutexGuard<'_, Option<Open>>,
        err: std::io::Error,
        proof: &Proof,
        address: &Address,
        breaks: u64,
    ) -> DeliveryError {
        let Some(open) = held.take_if(|open| open.line.is_of(proof.meter())) else {
            // Whoever has taken it away has heard what there was to hear.
            return match &*self.breaks() {
                (now, Some(why @ DeliveryError::Blocked { .. }))
                    if *now != breaks && !proof.is_begun() =>
                {
                    the_same(why)
                }
                _ => trouble(address, &err, proof.is_begun()),
            };
        };
        self.dialer.learn(address, &err);
        // What it said itself is told by that.
        let is_told = tls::fault(&err).is_some() || err.kind() == ErrorKind::InvalidData;
        let words = if is_told { None } else { open.line.last_words().await };
        let wrong = trouble(address, &words.unwrap_or(err), proof.is_begun());
        self.broke(&wrong);
        wrong
    }

    fn breaks(&self) -> std::sync::MutexGuard<'_, (u64, Option<DeliveryError>)> {
        self.breaks.lock().expect("nobody panics with it")
    }

    /// What was to be sent behind this batch waits for the rest of it.
    fn turn_is_over(&self) {
        let mut breaks = self.breaks();
        *breaks = (breaks.0 + 1, None);
    }

    fn broke(&self, why: &DeliveryError) {
        let mut breaks = self.breaks();
        *breaks = (breaks.0 + 1, Some(the_same(why)));
    }
}

#[async_trait]
impl Sink for SyslogSink {
    async fn probe(&self) -> Result<String, DeliveryError> {
        probe::probe(self).await
    }

    async fn resume(
        &mut self,
        _bookmark: Option<&Bookmark>,
        _upcoming: &mut dyn Upcoming,
    ) -> Result<Resumed, DeliveryError> {
        if self.config.lossy && !std::mem::replace(&mut self.has_warned, true) {
            warn!("Delivery over UDP is lossy: what is sent counts as delivered.");
        }
        if self.dialer.addresses().iter().any(|address| address.transport.is_tls()) {
            self.dialer.tls().await?;
        }
        Ok(Resumed { adopted: 0, bookmark: None })
    }

    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        encode(event, &self.layout, out).map_err(|err| Unencodable { reason: err.to_string() })
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        let delivered = self.send(batch).await;
        if let Err(DeliveryError::Blocked { .. }) = &delivered {
            self.dialer.forget_tls().await;
        }
        delivered
    }

    async fn reopen(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.dialer.forget_tls().await;
    }

    async fn close(&self, in_a_hurry: bool) {
        const HURRY: Duration = Duration::from_millis(500);
        // Whoever holds it is a delivery that was given up, and is not polled any more.
        let Ok(Some(open)) = self.open.try_lock().map(|mut open| open.take()) else { return };
        if in_a_hurry {
            let _ = timeout(HURRY, open.line.end()).await;
        } else {
            open.line.end().await;
        }
    }
}
