//! The syslog sink: an event is one message, to a receiver over RELP, TLS, TCP, a local socket or UDP.
//!
//! Promises that nothing counts as delivered before there is proof of it: RELP's acknowledgement; over
//! TCP and TLS, which have none, that the receiver's kernel has it; over a local socket, that its
//! process has read it. What is not proven when a connection breaks is sent again. UDP promises
//! nothing, and has to be asked for.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use super::{Batch, DeliveryError, Receipt, Resumed, Sink, Unencodable, Upcoming, Verdict};
use crate::encode::syslog::{Layout, encode};
use crate::event::Event;
use crate::position::Bookmark;
use crate::sys::socket;
use crate::tls;

mod address;
mod config;
mod connect;
mod datagram;
mod probe;
mod relp;
mod stream;
mod wire;

pub use address::{Address, Addresses, Place, Transport};
pub use config::{Config, ENTERPRISE};

use connect::{How, Line, connect, the_same, trouble};
use stream::Proof;

/// Sends to the first of its addresses that takes messages.
pub struct SyslogSink {
    config: Config,
    addresses: Vec<Address>,
    layout: Layout,
    /// Read at the first use, and again after a block.
    tls: Mutex<Option<TlsConnector>>,
    open: Mutex<Option<Open>>,
    /// How often no batch could be sent, and why the last time: what was to be sent behind it waits
    /// for its turn.
    breaks: std::sync::Mutex<(u64, Option<DeliveryError>)>,
    /// The next batch goes over a new connection.
    is_over: AtomicBool,
    /// How long a new stream's first event must go unopposed: less while none lasts so long.
    trial: std::sync::Mutex<Duration>,
    /// The address that was told of.
    told: std::sync::Mutex<Option<Address>>,
    has_warned: bool,
}

/// A connection, and where it goes.
struct Open {
    line: Line,
    address: Address,
    since: Instant,
}

/// What became of a batch: how many of its events, from the first on, have arrived, and what was wrong.
struct Arrived {
    events: usize,
    wrong: Option<DeliveryError>,
}

impl SyslogSink {
    /// A sink that has opened nothing yet.
    pub fn new(config: &Config) -> Self {
        Self {
            addresses: config.address.sound(),
            layout: config.layout(),
            config: config.clone(),
            tls: Mutex::default(),
            open: Mutex::default(),
            breaks: std::sync::Mutex::default(),
            is_over: AtomicBool::new(false),
            trial: stream::TRIAL.into(),
            told: std::sync::Mutex::default(),
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
            let most = self.config.rebind_every;
            let is_old = most.is_some_and(|most| open.since.elapsed() >= most.duration());
            if let Some(err) = open.line.ending().await {
                if !open.line.is_proven() {
                    // What is sent again comes first.
                    return Err(trouble(&open.address, &err, false));
                }
            } else if is_over || is_old {
                open.line.end().await;
            } else {
                **held = Some(open);
            }
        }
        if held.is_none() {
            **held = Some(self.connect().await?);
        }
        Ok(held.as_mut().expect("there is one now"))
    }

    /// Connects to the first address that takes messages.
    async fn connect(&self) -> Result<Open, DeliveryError> {
        let mut failed = Vec::new();
        for address in &self.addresses {
            match self.connect_to(address).await {
                Ok(line) => {
                    self.tell(address);
                    return Ok(Open { line, address: address.clone(), since: Instant::now() });
                }
                Err(err) => {
                    if matches!(err, DeliveryError::Blocked { .. }) {
                        // Somebody may put another certificate there.
                        *self.tls.lock().await = None;
                    }
                    failed.push(err);
                }
            }
        }
        Err(together(failed))
    }

    async fn connect_to(&self, address: &Address) -> Result<Line, DeliveryError> {
        let tls = if address.transport.is_tls() { Some(self.tls().await?) } else { None };
        let server_name = self.config.server_name(address);
        let patience = self.config.patience();
        let trial = *self.trial();
        connect(address, &How { tls: tls.as_ref(), server_name, patience, trial }).await
    }

    async fn tls(&self) -> Result<TlsConnector, DeliveryError> {
        let mut held = self.tls.lock().await;
        if let Some(tls) = &*held {
            return Ok(tls.clone());
        }
        let config = self.config.clone();
        let read = tokio::task::spawn_blocking(move || config.tls()).await;
        let read = read.map_err(DeliveryError::passing)??;
        let unset = || DeliveryError::blocked("no address of this sink is within TLS", None);
        let tls = TlsConnector::from(Arc::new(read.ok_or_else(unset)?));
        Ok(held.insert(tls).clone())
    }

    /// Says where the messages go, when that is not where they went before.
    fn tell(&self, address: &Address) {
        let mut told = self.told.lock().expect("nobody panics with it");
        if told.as_ref() != Some(address) {
            info!(address = %address, "Connected.");
            *told = Some(address.clone());
        }
    }

    async fn send(&self, batch: &Batch) -> Result<Receipt, DeliveryError> {
        let breaks = self.breaks().0;
        let mut held = self.open.lock().await;
        if let (now, Some(why)) = &*self.breaks()
            && *now != breaks
        {
            // It does not overtake what was lost.
            return Err(the_same(why));
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
                self.judge(&proof);
                let written = match written {
                    Ok(()) => Ok(()),
                    Err(err) => Err(self.broken(&mut held, err, &proof, &address, breaks).await),
                };
                // Meanwhile the next batch is written.
                drop(held);
                let arrived = self.prove(batch, &proof, written, &address, breaks).await;
                Self::receipt(batch, arrived)
            }
            Line::Relp(session) => {
                let outcome = session.send(batch, self.layout.framing, patience).await;
                let broken = outcome.broken.as_ref();
                let wrong = broken.map(|err| trouble(&address, err, outcome.is_ambiguous));
                if let Some(wrong) = &wrong {
                    self.broke(wrong);
                    *held = None;
                }
                acknowledged(outcome, wrong)
            }
            Line::Datagram(line) => {
                let (events, sent) = line.send(batch, self.layout.framing, patience).await;
                if let Err(err) = &sent
                    && socket::is_too_long(err)
                {
                    let reason = format!("deliver to `{address}`: {err}");
                    return Err(DeliveryError::Refused { reason, is_size: true });
                }
                let wrong = sent.err().map(|err| trouble(&address, &err, true));
                if wrong.is_some() {
                    *held = None;
                }
                Self::receipt(batch, Arrived { events, wrong })
            }
        }
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
        Arrived { events, wrong }
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
                (now, Some(why @ DeliveryError::Blocked { .. })) if *now != breaks => the_same(why),
                _ => trouble(address, &err, proof.is_begun()),
            };
        };
        // What it said itself is told by that.
        let is_told = tls::fault(&err).is_some() || err.kind() == ErrorKind::InvalidData;
        let words = if is_told { None } else { open.line.last_words().await };
        let wrong = trouble(address, &words.unwrap_or(err), proof.is_begun());
        self.broke(&wrong);
        wrong
    }

    fn trial(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.trial.lock().expect("nobody panics with it")
    }

    /// Where every connection is over before its trial is, that has to be shorter.
    fn judge(&self, proof: &Proof) {
        let mut trial = self.trial();
        *trial = if proof.is_void() { *trial / 2 } else { stream::TRIAL };
    }

    fn breaks(&self) -> std::sync::MutexGuard<'_, (u64, Option<DeliveryError>)> {
        self.breaks.lock().expect("nobody panics with it")
    }

    fn broke(&self, why: &DeliveryError) {
        let mut breaks = self.breaks();
        *breaks = (breaks.0 + 1, Some(the_same(why)));
    }

    fn receipt(batch: &Batch, arrived: Arrived) -> Result<Receipt, DeliveryError> {
        let Some(wrong) = arrived.wrong else { return Ok(Receipt::default()) };
        if arrived.events == 0 {
            return Err(wrong);
        }
        let reason = wrong.to_string();
        let is_ambiguous = wrong.is_ambiguous() && arrived.events < batch.ends.len();
        let retry = || Verdict::Retry { reason: reason.clone() };
        let verdict = |at| if at < arrived.events { Verdict::Accepted } else { retry() };
        let verdicts = (0..batch.ends.len()).map(verdict).collect();
        Ok(Receipt { verdicts: Some(verdicts), is_ambiguous, bookmark: None })
    }
}

/// What a session of RELP has come to.
fn acknowledged(
    outcome: relp::Outcome,
    wrong: Option<DeliveryError>,
) -> Result<Receipt, DeliveryError> {
    let is_accepted = |verdict: &Option<Verdict>| matches!(verdict, Some(Verdict::Accepted));
    let has_any = outcome.verdicts.iter().any(Option::is_some);
    match wrong {
        Some(wrong) if !has_any => Err(wrong),
        None if outcome.verdicts.iter().all(is_accepted) => Ok(Receipt::default()),
        wrong => {
            let reason = wrong.map_or_else(String::new, |wrong| wrong.to_string());
            let retry = || Verdict::Retry { reason: reason.clone() };
            let verdicts = outcome.verdicts.into_iter().map(|found| found.unwrap_or_else(retry));
            let is_ambiguous = outcome.is_ambiguous;
            Ok(Receipt { verdicts: Some(verdicts.collect()), is_ambiguous, bookmark: None })
        }
    }
}

/// The trouble with each address: where one passes by itself, all of it does.
fn together(mut failed: Vec<DeliveryError>) -> DeliveryError {
    if failed.len() == 1 {
        return failed.remove(0);
    }
    let told = |err: &DeliveryError| match err {
        DeliveryError::Blocked { source, hint: Some(hint), .. } => format!("{source} ({hint})"),
        other => other.to_string(),
    };
    let text = failed.iter().map(told).collect::<Vec<_>>().join("; ");
    if failed.iter().all(|err| matches!(err, DeliveryError::Blocked { .. })) {
        DeliveryError::blocked(text, None)
    } else {
        DeliveryError::passing(text)
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
        if self.addresses.iter().any(|address| address.transport.is_tls()) {
            self.tls().await?;
        }
        Ok(Resumed { adopted: 0, bookmark: None })
    }

    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        encode(event, &self.layout, out).map_err(|err| Unencodable { reason: err.to_string() })
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        self.send(batch).await
    }

    async fn reopen(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        *self.tls.lock().await = None;
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
