//! What the courier does while a destination does not simply accept: one request at a time, in the
//! order that [`Fate`](super::fate::Fate) says.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::fate::{Heard, Step};
use super::form::Formed;
use super::piece::Piece;
use super::{Courier, End};
use crate::backoff::LONGEST_HINT;
use crate::health::State;
use crate::own;
use crate::sink::{Batch, DeliveryError, Receipt, Verdict};
use crate::store;

impl Courier {
    /// Goes on until no trouble is left, or nothing can be done before a later event comes; says how
    /// to end when it comes to that.
    pub(super) async fn weather(&mut self) -> Result<Option<End>, store::Error> {
        loop {
            if let Some((error, after)) = self.again.take() {
                if self.fate.restate(&error) {
                    // Until the next probe it waits anyway.
                    self.pause_for(after.unwrap_or_default().min(LONGEST_HINT)).await;
                } else {
                    self.retry(&error, after).await?;
                }
            }
            if *self.orders.stop.borrow() {
                return Ok(Some(End::Stopped));
            }
            let end = match self.fate.step() {
                Step::Clear => return Ok(None),
                Step::Send(piece) => self.send(piece).await?,
                Step::Prove(otherwise) => match (self.form(1).await?, otherwise) {
                    (Some(formed), _) => self.attempt(formed).await?,
                    (None, Some(piece)) => self.send(piece).await?,
                    (None, None) => return Ok(None),
                },
                Step::Blocked => self.sit_out().await?,
            };
            if end.is_some() {
                return Ok(end);
            }
        }
    }

    /// Sends what was sent before, or a part of it.
    async fn send(&mut self, piece: Piece) -> Result<Option<End>, store::Error> {
        match self.encode(&piece).await? {
            Ok(batch) => self.attempt((piece, batch)).await,
            Err(unencodable) => {
                let reason = unencodable.reason;
                let heard = match piece.events.len() {
                    1 => Heard::Unencodable { reason },
                    _ => Heard::Refused { reason },
                };
                let rulings = self.fate.heard(piece, heard, self.now());
                self.obey(rulings).await?;
                Ok(None)
            }
        }
    }

    async fn attempt(&mut self, formed: Formed) -> Result<Option<End>, store::Error> {
        let (piece, batch) = formed.clone();
        self.ready.push(formed);
        let end = self.commit().await?;
        self.ready.clear();
        if end.is_some() {
            self.fate.send_again(piece);
            return Ok(end);
        }
        // Never cancelled: half an effect would have to be found out about later.
        let answer = self.sink.deliver(&batch).await;
        self.hear(piece, &batch, answer).await?;
        Ok(None)
    }

    /// Draws the conclusions from an answer.
    pub(super) async fn hear(
        &mut self,
        mut piece: Piece,
        batch: &Arc<Batch>,
        answer: Result<Receipt, DeliveryError>,
    ) -> Result<(), store::Error> {
        self.told.batch = Some(batch.id);
        let heard = match complete(answer, piece.events.len()) {
            Ok(Receipt { verdicts, bookmark, is_ambiguous }) => {
                self.ledger.stand(bookmark);
                if is_ambiguous {
                    let not_taken = |verdict: &&Verdict| {
                        matches!(verdict, Verdict::Retry { .. } | Verdict::Refused { .. })
                    };
                    let verdicts = verdicts.iter().flatten();
                    self.doubt(verdicts.filter(not_taken).count());
                }
                piece.is_doubtful |= is_ambiguous;
                verdicts.map_or(Heard::Accepted, Heard::Each)
            }
            Err(DeliveryError::Retry { after, source, is_ambiguous }) => {
                if is_ambiguous {
                    self.doubt(piece.events.len());
                }
                piece.is_doubtful |= is_ambiguous || self.delivery.is_exact;
                self.fate.send_again(piece);
                let known = self.again.take().and_then(|(_, after)| after);
                self.again = Some((source.to_string(), after.max(known)));
                return Ok(());
            }
            Err(DeliveryError::Refused { reason, is_size }) => {
                if is_size && piece.events.len() > 1 {
                    self.size.refused(batch.bytes.len());
                }
                Heard::Refused { reason }
            }
            Err(DeliveryError::Blocked { source, hint, may_be_content }) => {
                piece.is_doubtful |= self.delivery.is_exact;
                Heard::Blocked { error: source.to_string(), hint, may_be_content }
            }
        };
        let suspects = self.fate.suspects();
        let rulings = self.fate.heard(piece, heard, self.now());
        let works = !rulings.accepted.is_empty() && self.fate.block().is_none();
        let is_whole = rulings.again.is_none();
        self.obey(rulings).await?;
        if self.fate.suspects() > suspects
            && let Some(reason) = self.fate.suspicion()
            && self.told.is_news(reason, self.now())
        {
            warn!(reason, batch = %batch.id, "An event is refused; it is asked about again when others are accepted.");
        }
        if works && is_whole {
            self.works_again().await?;
        } else if works {
            // A part at a time is no news each time, and no reason to wait longer.
            self.health.retries.reset();
        }
        Ok(())
    }

    /// The outcome of a send of so many events cannot be known.
    pub(super) fn doubt(&mut self, events: usize) {
        self.ledger.doubt(if self.delivery.counts_events { events as u64 } else { 1 });
    }

    /// Tells once that the sink is blocked, waits for the next probe, and makes it.
    async fn sit_out(&mut self) -> Result<Option<End>, store::Error> {
        let Some(block) = self.fate.block().cloned() else { return Ok(None) };
        if let Some(end) = self.commit().await? {
            return Ok(Some(end));
        }
        if let Some(end) = self.blocked(block.error, block.hint).await? {
            return Ok(Some(end));
        }
        // Batches are formed anew after this, however it ends.
        self.next = self.ledger.settled() + 1;
        self.look_for_agreement().await?;
        if self.fate.block().is_none() {
            return Ok(None);
        }
        let next = self.form(1).await?;
        let probe = self.fate.probe(next.as_ref().map(|(piece, _)| piece.clone()));
        self.next = self.ledger.settled() + 1;
        match (probe, next) {
            (Some(piece), Some(formed)) if formed.0 == piece => self.attempt(formed).await,
            (Some(piece), _) => self.send(piece).await,
            (None, _) => Ok(None),
        }
    }

    /// Tells once, and waits for the next attempt or until there is nothing else to wait for; says
    /// how to end when it comes to that.
    pub(super) async fn blocked(
        &mut self,
        error: String,
        hint: Option<String>,
    ) -> Result<Option<End>, store::Error> {
        let is_news = self.told.is_news(&error, self.now());
        let is_first = self.health.state() != State::Blocked;
        if is_first || is_news {
            let batch = self.told.batch.map(tracing::field::display);
            error!(
                error,
                hint, batch, "Sink is blocked; nothing is lost, and it goes on when mended."
            );
        }
        if is_first {
            self.store.announce(own::sink_blocked(&self.name, &error, hint.as_deref())).await;
        }
        self.health.turn_to(State::Blocked, Some(&error));
        self.remember().await?;
        let wait = self.health.probes.next(None);
        let mut finish = self.orders.finish.clone();
        tokio::select! {
            () = self.pause_for(wait) => {}
            _ = finish.wait_for(|finish| *finish) => {}
        }
        if *self.orders.stop.borrow() {
            return Ok(Some(End::Stopped));
        }
        if *self.orders.finish.borrow() {
            let pending = self.store.pending(self.id).await?;
            return Ok(Some(End::Blocked { error, hint, pending }));
        }
        Ok(None)
    }

    /// Tells once and waits.
    pub(super) async fn retry(
        &mut self,
        error: &str,
        after: Option<Duration>,
    ) -> Result<(), store::Error> {
        let wait = self.health.retries.next(after);
        let attempt = self.health.retries.attempt();
        if self.told.is_news(error, self.now()) {
            let batch = self.told.batch.map(tracing::field::display);
            warn!(attempt, retry_in = ?wait, error, batch, "Delivery failed; will retry.");
        } else {
            debug!(attempt, retry_in = ?wait, error, "Delivery failed again.");
        }
        // What is blocked stays so until something is delivered.
        if self.fate.block().is_none() {
            self.health.turn_to(State::Retrying, Some(error));
        }
        self.remember().await?;
        self.pause_for(wait).await;
        Ok(())
    }

    pub(super) async fn works_again(&mut self) -> Result<(), store::Error> {
        self.told.forget();
        if let Some((was, lasted)) = self.health.works() {
            info!(%was, ?lasted, "Sink works again.");
            if was == State::Blocked {
                self.store.announce(own::sink_unblocked(&self.name, lasted)).await;
            }
        }
        self.remember().await
    }

    /// Has `status` show how the sink is doing, if that is news.
    pub(super) async fn remember(&mut self) -> Result<(), store::Error> {
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

    pub(super) async fn pause_for(&mut self, wait: Duration) {
        let reopen = tokio::select! {
            () = tokio::time::sleep(wait) => false,
            _ = self.orders.stop.wait_for(|stop| *stop) => false,
            // Whoever asks for that may have mended what is wrong.
            Ok(()) = self.orders.reopen.changed() => true,
            Ok(()) = self.requests.changed() => false,
        };
        if reopen {
            self.reopen().await;
        }
    }
}

/// The answer, if it judges each of so many events or all of them at once.
fn complete(
    answer: Result<Receipt, DeliveryError>,
    events: usize,
) -> Result<Receipt, DeliveryError> {
    match answer {
        Ok(Receipt { verdicts: Some(verdicts), .. }) if verdicts.len() != events => {
            let source = "the destination has not judged each event".into();
            Err(DeliveryError::Retry { after: None, source, is_ambiguous: true })
        }
        answer => answer,
    }
}
