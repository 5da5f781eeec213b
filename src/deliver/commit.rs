//! The courier's commits: what has become of events, and what is about to be sent.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use tracing::warn;

use super::piece::Piece;
use super::{Courier, End};
use crate::sink::DeliveryError;
use crate::store::sinks::Settlement;
use crate::store::{self, wall_clock};

impl Courier {
    /// Commits what is known, and what is about to be sent. A full disk delays that, and with it the
    /// next delivery.
    pub(super) async fn commit(&mut self) -> Result<Option<End>, store::Error> {
        let Some(settlement) = self.settlement(false) else { return Ok(None) };
        let mut has_failed = false;
        loop {
            match self.settle(settlement.clone()).await {
                Ok(()) => {
                    self.ledger.committed(&settlement);
                    if has_failed {
                        self.works_again().await?;
                    }
                    if settlement.from < settlement.to || settlement.bookmark.is_some() {
                        let sink = Arc::clone(&self.sink);
                        self.beside(async move { sink.settled().await }).await;
                    }
                    self.end_agreement().await?;
                    return Ok(None);
                }
                Err(err) if err.is_full() => {
                    has_failed = true;
                    // Told to end, the sink finds out at the next start that it holds these events.
                    if let Some(end) = self.failed(DeliveryError::passing(err)).await? {
                        return Ok(Some(end));
                    }
                }
                Err(err) => return Err(err),
            }
        }
    }

    /// `always` when it is wanted even if the store knows all of it.
    fn settlement(&self, always: bool) -> Option<Settlement> {
        if self.delivery.is_exact {
            return self.ledger.settlement([], false);
        }
        let ready = self.ready.iter().map(|(piece, _)| piece);
        let mut on_their_way: Vec<&Piece> =
            self.away.iter().chain(ready).chain(self.fate.doubtful()).collect();
        on_their_way.sort_by_key(|piece| piece.first);
        self.ledger.settlement(on_their_way, always)
    }

    async fn settle(&mut self, settlement: Settlement) -> Result<(), store::Error> {
        let store = self.store.clone();
        self.beside(async move { store.settle(settlement).await.map(drop) }).await
    }

    /// Has the sink open its destination again.
    pub(super) async fn reopen(&mut self) {
        let sink = Arc::clone(&self.sink);
        self.beside(async move { sink.reopen().await }).await;
    }

    /// Does something while what is on its way goes on: a delivery may hold what this waits for.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(landed) = self.flights.next() => self.landed.push(landed),
            }
        }
    }

    /// Commits what became known last. What cannot be is found out about at the next start.
    pub(super) async fn leave(&mut self) {
        self.ready.clear();
        let Some(mut settlement) = self.settlement(true) else { return };
        settlement.sending.batches.iter_mut().for_each(|sent| sent.is_counted = true);
        let _ = self.settle(settlement).await;
    }

    /// Lets refused events become dead letters if somebody has agreed to that.
    pub(super) async fn look_for_agreement(&mut self) -> Result<(), store::Error> {
        let Some(until) = self.store.accepted_until(&self.name).await? else { return Ok(()) };
        if self.agreed_until.replace(until) == Some(until) {
            return Ok(());
        }
        warn!(until, "Events that are refused become dead letters, as agreed.");
        let rulings = self.fate.accept_until(until);
        self.obey(rulings).await
    }

    async fn end_agreement(&mut self) -> Result<(), store::Error> {
        let settled = self.ledger.settled();
        if self.agreed_until.take_if(|until| *until <= settled).is_none() {
            return Ok(());
        }
        match self.store.end_accept(&self.name, settled, wall_clock()).await {
            // It is looked for again at the next start, and means nothing any more.
            Err(err) if !err.is_full() => Err(err),
            _ => Ok(()),
        }
    }
}
