//! The courier: carries spooled events to one sink.
//!
//! Takes batches, has the sink encode and deliver them, and settles the result together with the
//! sink's bookmark. Never drops an event: each ends as delivered or as a dead letter, and until then
//! stays in the spool. Several batches may be on their way; they are settled in order, and the store
//! knows of each before it is sent.
//! Does not know what kind of sink it serves, and holds no queue of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use crate::event::Seq;
use crate::health::Health;
use crate::position::{Bookmark, Sending, Sent};
use crate::sink::{Delivery, DeliveryError, Receipt, Sink};
use crate::store::sinks::Registered;
use crate::store::{self, SinkId, Store, wall_clock};

mod commit;
mod fate;
mod form;
mod ledger;
mod piece;
mod ranges;
mod size;
mod told;
mod upcoming;
mod weather;

use fate::Fate;
use form::Formed;
use ledger::Ledger;
use piece::Piece;
use size::Size;
use told::Told;
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
    name: String,
    sink: Arc<dyn Sink>,
    delivery: Delivery,
    store: Store,
    orders: Orders,
    spool: Cursor,
    health: Health,
    told: Told,
    ledger: Ledger,
    fate: Fate,
    /// The number that the next batch begins with.
    next: Seq,
    size: Size,
    /// Batches that are to be sent as soon as the store knows of them.
    ready: Vec<Formed>,
    /// Those on their way.
    away: Vec<Piece>,
    flights: FuturesUnordered<Flight>,
    landed: Vec<Landed>,
    /// Why something is to be sent again, and what the destination asked us to wait.
    again: Option<(String, Option<Duration>)>,
    /// When events that wait have waited long enough.
    due: Option<Instant>,
    begun: Instant,
    /// What may have been on its way when the last run ended.
    left: Vec<Sent>,
    /// Rings when another process has committed something.
    requests: watch::Receiver<u64>,
    /// Up to this number somebody has agreed to dead letters.
    agreed_until: Option<Seq>,
}

type Landed = (Formed, Result<Receipt, DeliveryError>);
type Flight = Pin<Box<dyn Future<Output = Landed> + Send>>;

impl Courier {
    /// Takes up a sink where the store stands.
    pub fn new(
        name: &str,
        sink: Box<dyn Sink>,
        delivery: Delivery,
        store: Store,
        registered: &Registered,
        orders: Orders,
    ) -> Self {
        let seed = u64::from(std::process::id()) ^ wall_clock().cast_unsigned();
        let Registered { id, settled, ref sending, .. } = *registered;
        let sending = if delivery.is_exact { Sending::default() } else { sending.clone() };
        Self {
            id,
            name: name.to_owned(),
            spool: Cursor::new(store.clone(), id, delivery.route.clone()),
            health: Health::new(Duration::from_millis(500), Duration::from_secs(60), seed),
            told: Told::default(),
            fate: Fate::new(name),
            next: settled + 1,
            size: Size::new(delivery.batch.bytes.get()),
            left: sending.batches.clone(),
            ledger: Ledger::new(id, settled, sending),
            sink: Arc::from(sink),
            delivery,
            requests: store.requests(),
            agreed_until: None,
            store,
            orders,
            ready: Vec::new(),
            away: Vec::new(),
            flights: FuturesUnordered::new(),
            landed: Vec::new(),
            again: None,
            due: None,
            begun: Instant::now(),
        }
    }

    /// Delivers until told to stop.
    ///
    /// # Errors
    /// When the store fails in a way that waiting does not mend.
    pub async fn run(mut self, bookmark: Option<Bookmark>) -> Result<End, store::Error> {
        let ended = self.serve(bookmark).await;
        if ended.is_ok() {
            self.leave().await;
        }
        let in_a_hurry = !matches!(ended, Ok(End::Done | End::Blocked { .. }));
        self.sink.close(in_a_hurry).await;
        ended
    }

    async fn serve(&mut self, bookmark: Option<Bookmark>) -> Result<End, store::Error> {
        // What the last run left in the store says nothing about this one.
        self.remember().await?;
        // Before the first commit, which would make the store forget what was on its way.
        let left = std::mem::take(&mut self.left);
        self.take_up(left).await?;
        if let Some(end) = self.resume(bookmark).await? {
            return Ok(end);
        }
        self.look_for_agreement().await?;
        loop {
            if self.fate.is_troubled()
                && self.flights.is_empty()
                && let Some(end) = self.weather().await?
            {
                return Ok(end);
            }
            if self.away.is_empty() && self.fate.take_dropped() {
                self.next = self.ledger.settled() + 1;
            }
            self.load().await?;
            if let Some(end) = self.commit().await? {
                return Ok(end);
            }
            self.launch();
            if let Some(end) = self.wait().await? {
                return Ok(end);
            }
            self.land().await?;
        }
    }

    /// Lets the sink find out what it holds already; says how to end when it comes to that.
    async fn resume(&mut self, bookmark: Option<Bookmark>) -> Result<Option<End>, store::Error> {
        loop {
            let mut upcoming = self.spool.after(self.ledger.settled());
            let sink = Arc::get_mut(&mut self.sink).expect("nothing is on its way yet");
            match sink.resume(bookmark.as_ref(), &mut upcoming).await {
                Ok(resumed) => {
                    if let Some(to) = upcoming.number_of(resumed.adopted) {
                        self.ledger.adopt(to, resumed.adopted);
                        self.next = to + 1;
                    }
                    self.ledger.stand(resumed.bookmark);
                    self.works_again().await?;
                    return self.commit().await;
                }
                Err(err) => {
                    if let Some(end) = self.failed(err).await? {
                        return Ok(Some(end));
                    }
                }
            }
        }
    }

    /// What failed is not a batch.
    async fn failed(&mut self, err: DeliveryError) -> Result<Option<End>, store::Error> {
        let error = err.to_string();
        match err {
            DeliveryError::Blocked { hint, .. } => self.blocked(error, hint).await,
            DeliveryError::Retry { .. } | DeliveryError::Refused { .. } => {
                let after = if let DeliveryError::Retry { after, .. } = err { after } else { None };
                self.retry(&error, after).await?;
                Ok(self.orders.stop.borrow().then_some(End::Stopped))
            }
        }
    }

    /// Forms as many batches as may be on their way.
    async fn load(&mut self) -> Result<(), store::Error> {
        let most_events = self.delivery.batch.events.get() as usize;
        while self.has_room() && self.is_ripe() {
            self.due = None;
            let Some(formed) = self.form(most_events).await? else { break };
            self.ready.push(formed);
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        !self.fate.is_troubled()
            && self.landed.is_empty()
            && self.ready.len() + self.away.len() < self.delivery.in_flight
    }

    /// How many numbers nobody has asked about yet.
    fn waiting(&self) -> Seq {
        self.store.committed().borrow().saturating_sub(self.next - 1)
    }

    /// True when there is enough for a batch, or it has waited long enough.
    fn is_ripe(&mut self) -> bool {
        let waiting = self.waiting();
        if waiting == 0 {
            self.due = None;
            return false;
        }
        let now = Instant::now();
        let due = *self.due.get_or_insert(now + self.delivery.batch.wait.duration());
        let is_full = waiting >= Seq::from(self.delivery.batch.events.get());
        is_full || now >= due || *self.orders.finish.borrow()
    }

    fn launch(&mut self) {
        for (piece, batch) in self.ready.drain(..) {
            let sink = Arc::clone(&self.sink);
            self.away.push(piece.clone());
            self.flights.push(Box::pin(async move {
                // Never cancelled: half an effect would have to be found out about later.
                let answer = sink.deliver(&batch).await;
                ((piece, batch), answer)
            }));
        }
    }

    /// Waits until there is something to do; says how to end when it is time.
    async fn wait(&mut self) -> Result<Option<End>, store::Error> {
        let mut committed = self.store.committed();
        while self.landed.is_empty() {
            if *self.orders.stop.borrow() {
                self.land_all().await?;
                return Ok(Some(End::Stopped));
            }
            // Asked before the doorbell is read: what is committed later than this is not missed.
            let finish = *self.orders.finish.borrow();
            committed.borrow_and_update();
            let is_idle = self.flights.is_empty();
            if self.has_room() && self.is_ripe() {
                return Ok(None);
            }
            if is_idle && self.fate.is_troubled() {
                if self.waiting() > 0 || self.fate.block().is_some() {
                    return Ok(None);
                }
                if finish {
                    return self.gives_up().await.map(Some);
                }
            } else if is_idle && finish && self.waiting() == 0 {
                return Ok(Some(End::Done));
            }
            let due = self.due.filter(|_| self.has_room());
            let mut asks = false;
            let reopen = tokio::select! {
                Some(landed) = self.flights.next() => {
                    self.landed.push(landed);
                    false
                }
                _ = committed.changed() => false,
                _ = self.orders.stop.wait_for(|stop| *stop) => false,
                _ = self.orders.finish.wait_for(|finish| *finish), if !finish => false,
                Ok(()) = self.orders.reopen.changed() => true,
                Ok(()) = self.requests.changed() => {
                    asks = true;
                    false
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => false,
            };
            if reopen {
                self.reopen().await;
            } else if asks {
                self.look_for_agreement().await?;
            }
        }
        Ok(None)
    }

    /// Told to finish while refused events wait for a later one, which will not come.
    async fn gives_up(&mut self) -> Result<End, store::Error> {
        let reason = self.fate.suspicion().unwrap_or_default();
        let error =
            format!("an event is refused, and no other shows whether it is to blame: {reason}");
        let hint = Some("it is asked about again with the next events".to_owned());
        let pending = self.store.pending(self.id).await?;
        Ok(End::Blocked { error, hint, pending })
    }

    /// Takes note of what has come back.
    async fn land(&mut self) -> Result<(), store::Error> {
        for ((piece, batch), answer) in std::mem::take(&mut self.landed) {
            self.away.retain(|away| away.id != piece.id);
            match answer {
                Ok(Receipt { verdicts: None, bookmark, .. }) => {
                    self.size.accepted();
                    self.fate.accepted(piece.events.len(), self.now());
                    self.ledger.deliver(&piece);
                    self.ledger.stand(bookmark);
                    let (events, bytes) = (piece.events.len(), batch.bytes.len());
                    debug!(batch = %batch.id, events, bytes, "Batch delivered.");
                    if !self.fate.is_troubled() {
                        self.works_again().await?;
                    }
                }
                answer => self.hear(piece, &batch, answer).await?,
            }
        }
        Ok(())
    }

    async fn land_all(&mut self) -> Result<(), store::Error> {
        while let Some(landed) = self.flights.next().await {
            self.landed.push(landed);
        }
        self.land().await
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}
