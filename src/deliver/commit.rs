//! The courier's commits: what has become of events, and what is about to be sent.

use std::pin::pin;

use futures_util::StreamExt as _;

use super::piece::Piece;
use super::{Courier, End};
use crate::sink::DeliveryError;
use crate::store;
use crate::store::sinks::Settlement;

impl Courier {
    /// Commits what is known, and what is about to be sent. A full disk delays that, and with it the
    /// next delivery.
    pub(super) async fn commit(&mut self) -> Result<Option<End>, store::Error> {
        let Some(settlement) = self.settlement() else { return Ok(None) };
        let mut has_failed = false;
        loop {
            match self.settle(settlement.clone()).await {
                Ok(_) => {
                    self.ledger.committed(&settlement);
                    if has_failed {
                        self.works_again().await?;
                    }
                    if settlement.from < settlement.to || settlement.bookmark.is_some() {
                        self.sink.settled().await;
                    }
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

    fn settlement(&self) -> Option<Settlement> {
        if self.delivery.is_exact {
            return self.ledger.settlement([]);
        }
        let ready = self.ready.iter().map(|(piece, _)| piece);
        let mut on_their_way: Vec<&Piece> =
            self.away.iter().chain(ready).chain(self.fate.doubtful()).collect();
        on_their_way.sort_by_key(|piece| piece.first);
        self.ledger.settlement(on_their_way)
    }

    /// What is on its way goes on meanwhile.
    async fn settle(&mut self, settlement: Settlement) -> Result<(), store::Error> {
        let store = self.store.clone();
        let mut write = pin!(store.settle(settlement));
        loop {
            tokio::select! {
                done = &mut write => return done.map(drop),
                Some(landed) = self.flights.next() => self.landed.push(landed),
            }
        }
    }

    /// Commits what became known last. What cannot be is found out about at the next start.
    pub(super) async fn leave(&mut self) {
        self.ready.clear();
        if let Some(settlement) = self.settlement() {
            let _ = self.settle(settlement).await;
        }
    }
}
