//! The courier: carries spooled events to one sink.
//!
//! Takes a batch, has the sink encode and deliver it, and settles the result together with the
//! sink's bookmark. Never drops an event: what cannot be delivered stays in the spool.
//! Does not know what kind of sink it serves, and holds no queue of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::event::Seq;
use crate::health::{Health, State};
use crate::position::Bookmark;
use crate::sink::{Batch, Delivery, DeliveryError, Receipt, Sink};
use crate::store::sinks::Registered;
use crate::store::{self, SinkId, Store, wall_clock};

mod fate;
mod piece;
mod ranges;
mod upcoming;

use upcoming::Cursor;

/// What a courier is told from outside, besides the doorbell of the store.
#[derive(Clone)]
pub struct Orders {
    /// Becomes true when it is to end after the delivery in hand.
    pub stop: watch::Receiver<bool>,
    /// Becomes true when it is to end as soon as nothing waits.
    pub finish: watch::Receiver<bool>,
    /// Changes when its sink is to open its destination again.
    pub reopen: watch::Receiver<()>,
}

/// How a courier came to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stopped,
    /// Nothing waits any more.
    Done,
    /// It was to finish, and is blocked.
    Blocked {
        /// By what.
        error: String,
        /// What to do.
        hint: Option<String>,
        /// How many events wait.
        pending: u64,
    },
}

/// Serves one sink.
pub struct Courier {
    id: SinkId,
    sink: Box<dyn Sink>,
    delivery: Delivery,
    store: Store,
    orders: Orders,
    settled: Seq,
    spool: Cursor,
    health: Health,
}

impl Courier {
    /// Takes up a sink where the store stands.
    pub fn new(
        sink: Box<dyn Sink>,
        delivery: Delivery,
        store: Store,
        registered: &Registered,
        orders: Orders,
    ) -> Self {
        let seed = u64::from(std::process::id()) ^ wall_clock().cast_unsigned();
        Self {
            id: registered.id,
            settled: registered.settled,
            spool: Cursor::new(store.clone(), registered.id, delivery.route.clone()),
            health: Health::new(Duration::from_millis(500), Duration::from_secs(60), seed),
            sink,
            delivery,
            store,
            orders,
        }
    }

    /// Delivers until told to stop.
    ///
    /// # Errors
    /// When the store fails in a way that waiting does not mend.
    pub async fn run(mut self, bookmark: Option<Bookmark>) -> Result<End, store::Error> {
        let ended = self.serve(bookmark).await;
        let in_a_hurry = !matches!(ended, Ok(End::Done | End::Blocked { .. }));
        self.sink.close(in_a_hurry).await;
        ended
    }

    async fn serve(&mut self, bookmark: Option<Bookmark>) -> Result<End, store::Error> {
        // What the last run left in the store says nothing about this one.
        self.remember().await?;
        if let Some(end) = self.resume(bookmark).await? {
            return Ok(end);
        }
        loop {
            if let Some(end) = self.wait_for_events().await {
                return Ok(end);
            }
            let (batch, last) = self.batch().await?;
            let delivered = batch.ends.len() as u64;
            let receipt = match self.deliver(&Arc::new(batch)).await? {
                Ok(receipt) => receipt,
                Err(end) => return Ok(end),
            };
            if let Some(end) = self.settle(last, delivered, receipt).await? {
                return Ok(end);
            }
        }
    }

    /// Lets the sink find out what it holds already; says how to end when it comes to that.
    async fn resume(&mut self, bookmark: Option<Bookmark>) -> Result<Option<End>, store::Error> {
        loop {
            let mut upcoming = self.spool.after(self.settled);
            match self.sink.resume(bookmark.as_ref(), &mut upcoming).await {
                Ok(resumed) => {
                    let to = upcoming.number_of(resumed.adopted).unwrap_or(self.settled);
                    self.works_again().await?;
                    let receipt = Receipt { verdicts: None, bookmark: resumed.bookmark };
                    return self.settle(to, resumed.adopted, receipt).await;
                }
                Err(err) => {
                    if let Some(end) = self.failed(err).await? {
                        return Ok(Some(end));
                    }
                }
            }
        }
    }

    /// Waits until a batch is full or has waited long enough; says how to end when it is time.
    async fn wait_for_events(&mut self) -> Option<End> {
        let mut committed = self.store.committed();
        let mut due = None;
        loop {
            if *self.orders.stop.borrow() {
                return Some(End::Stopped);
            }
            // Asked before the doorbell is read: what is committed later than this is not missed.
            let finish = *self.orders.finish.borrow();
            let waiting = committed.borrow_and_update().saturating_sub(self.settled);
            if waiting > 0 {
                let now = Instant::now();
                let due = *due.get_or_insert(now + self.delivery.batch.wait.duration());
                if finish || now >= due || waiting >= Seq::from(self.delivery.batch.events.get()) {
                    return None;
                }
            } else if finish {
                return Some(End::Done);
            }
            let reopen = tokio::select! {
                _ = committed.changed() => false,
                _ = self.orders.stop.wait_for(|stop| *stop) => false,
                _ = self.orders.finish.wait_for(|finish| *finish) => false,
                Ok(()) = self.orders.reopen.changed() => true,
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => false,
            };
            if reopen {
                self.sink.reopen().await;
            }
        }
    }

    /// The next events for this sink, encoded, and the number up to which there are no others for
    /// it.
    async fn batch(&mut self) -> Result<(Batch, Seq), store::Error> {
        let mut batch = Batch::default();
        let mut last = self.settled;
        let committed = *self.store.committed().borrow();
        let most_events = self.delivery.batch.events.get() as usize;
        let most_bytes = usize::try_from(self.delivery.batch.bytes.get()).unwrap_or(usize::MAX);
        while batch.ends.len() < most_events {
            let Some(page) = self.spool.page(last).await? else {
                // What was pruned while the sink was out of the configuration is not waited for.
                last = last.max(committed);
                break;
            };
            if !page.is_for(self.id) {
                last = page.last_seq();
                continue;
            }
            let Some(event) = page.first_after(last) else { break };
            let before = batch.bytes.len();
            if !self.delivery.route.takes(&event) {
                last = event.seq;
                continue;
            }
            let _ = self.sink.encode(&event, &mut batch.bytes);
            if batch.bytes.len() > most_bytes && before > 0 {
                batch.bytes.truncate(before);
                break;
            }
            last = event.seq;
            batch.ends.push(batch.bytes.len());
        }
        Ok((batch, last))
    }

    /// Delivers one batch, however long it takes, unless it is time to end.
    async fn deliver(&mut self, batch: &Arc<Batch>) -> Result<Result<Receipt, End>, store::Error> {
        if batch.ends.is_empty() {
            return Ok(Ok(Receipt::default()));
        }
        let begun = Instant::now();
        loop {
            // Never cancelled: half an effect would have to be found out about later.
            match self.sink.deliver(batch).await {
                Ok(receipt) => {
                    self.works_again().await?;
                    let (events, bytes) = (batch.ends.len(), batch.bytes.len());
                    debug!(events, bytes, elapsed = ?begun.elapsed(), "Batch delivered.");
                    return Ok(Ok(receipt));
                }
                Err(err) => {
                    if let Some(end) = self.failed(err).await? {
                        return Ok(Err(end));
                    }
                }
            }
        }
    }

    /// Makes a delivery final. A full disk delays that, and with it the next delivery.
    async fn settle(
        &mut self,
        to: Seq,
        delivered: u64,
        receipt: Receipt,
    ) -> Result<Option<End>, store::Error> {
        loop {
            let bookmark = receipt.bookmark.clone();
            match self.store.settle(self.id, self.settled, to, delivered, bookmark).await {
                Ok(()) => {
                    self.settled = to;
                    self.works_again().await?;
                    self.sink.settled().await;
                    return Ok(None);
                }
                Err(err) if err.is_full() => {
                    let told = DeliveryError::passing(err);
                    // Told to end, the sink finds out at the next start that it holds these events.
                    if let Some(end) = self.failed(told).await? {
                        return Ok(Some(end));
                    }
                }
                Err(err) => return Err(err),
            }
        }
    }

    /// Tells once and waits; says how to end when it comes to that.
    async fn failed(&mut self, err: DeliveryError) -> Result<Option<End>, store::Error> {
        let error = err.to_string();
        let ends = match err {
            DeliveryError::Retry { after, .. } => {
                self.retry(&error, after).await?;
                None
            }
            DeliveryError::Refused { .. } => {
                self.retry(&error, None).await?;
                None
            }
            DeliveryError::Blocked { hint, .. } => {
                self.blocked(&error, hint.as_deref()).await?;
                let pending = self.store.pending(self.id).await?;
                self.orders.finish.borrow().then_some(End::Blocked { error, hint, pending })
            }
        };
        Ok(if *self.orders.stop.borrow() { Some(End::Stopped) } else { ends })
    }

    async fn retry(&mut self, error: &str, after: Option<Duration>) -> Result<(), store::Error> {
        let wait = self.health.retries.next(after);
        let attempt = self.health.retries.attempt();
        if self.health.state() == State::Ok {
            warn!(attempt, retry_in = ?wait, error, "Delivery failed; will retry.");
        } else {
            debug!(attempt, retry_in = ?wait, error, "Delivery failed again.");
        }
        self.health.turn_to(State::Retrying, Some(error));
        self.remember().await?;
        self.pause_for(wait).await;
        Ok(())
    }

    /// Waits for the next probe, or until there is nothing else to wait for.
    async fn blocked(&mut self, error: &str, hint: Option<&str>) -> Result<(), store::Error> {
        if self.health.state() != State::Blocked {
            error!(error, hint, "Sink is blocked; nothing is lost, and it goes on when mended.");
        }
        self.health.turn_to(State::Blocked, Some(error));
        self.remember().await?;
        let wait = self.health.probes.next(None);
        let mut finish = self.orders.finish.clone();
        tokio::select! {
            () = self.pause_for(wait) => {}
            _ = finish.wait_for(|finish| *finish) => {}
        }
        Ok(())
    }

    async fn works_again(&mut self) -> Result<(), store::Error> {
        if let Some((was, lasted)) = self.health.works() {
            info!(%was, ?lasted, "Sink works again.");
        }
        self.remember().await
    }

    /// Has `status` show how the sink is doing, if that is news.
    async fn remember(&mut self) -> Result<(), store::Error> {
        if !self.health.is_untold() {
            return Ok(());
        }
        let (state, error) = self.health.tell();
        match self.store.sink_state(self.id, state, error).await {
            Ok(()) => Ok(()),
            Err(err) if err.is_full() => {
                self.health.untell();
                Ok(())
            }
            Err(err) => Err(err),
        }
    }

    async fn pause_for(&mut self, wait: Duration) {
        let reopen = tokio::select! {
            () = tokio::time::sleep(wait) => false,
            _ = self.orders.stop.wait_for(|stop| *stop) => false,
            // Whoever asks for that may have mended what is wrong.
            Ok(()) = self.orders.reopen.changed() => true,
        };
        if reopen {
            self.sink.reopen().await;
        }
    }
}
