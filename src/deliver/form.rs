//! Batches: which events they hold, and their bytes.

use std::sync::Arc;

use tracing::error;

use super::Courier;
use super::fate::{Dead, Heard, Rulings};
use super::piece::Piece;
use crate::event::Seq;
use crate::position::Sent;
use crate::sink::{Batch, Unencodable};
use crate::store;
use crate::store::dead_letters::Refused;

/// A batch that is ready to be sent.
pub(super) type Formed = (Piece, Arc<Batch>);

/// What comes next in the spool.
enum Next {
    /// An event for the sink.
    Event(Seq),
    /// Nothing for it up to this number.
    Nothing(Seq),
}

impl Courier {
    /// The next events that nobody has asked about yet, as a batch; none when there are none.
    pub(super) async fn form(
        &mut self,
        most_events: usize,
    ) -> Result<Option<Formed>, store::Error> {
        // Asked before the spool is read: what is committed later than this is not passed over.
        let committed = *self.store.committed().borrow();
        let most_bytes = self.most_bytes;
        let (mut first, mut last) = (self.next, self.next - 1);
        let (mut batch, mut events) = (Batch::default(), Vec::new());
        let mut bad = None;
        while events.len() < most_events {
            let seq = match self.next_event(last).await? {
                Some(Next::Event(seq)) => seq,
                Some(Next::Nothing(to)) => {
                    last = last.max(to);
                    continue;
                }
                None => {
                    // What was pruned while the sink was out of the configuration is not waited for.
                    last = last.max(committed);
                    break;
                }
            };
            if let Some((begins, ends)) = self.fate.holds(seq) {
                if !events.is_empty() {
                    last = begins - 1;
                    break;
                }
                self.ledger.pass(first, begins - 1);
                (first, last) = (ends + 1, ends);
                continue;
            }
            let before = batch.bytes.len();
            match self.encode_event(seq, &mut batch.bytes).await? {
                Ok(()) if batch.bytes.len() > most_bytes && before > 0 => {
                    batch.bytes.truncate(before);
                    break;
                }
                Ok(()) => {}
                Err(Unencodable { reason }) => {
                    batch.bytes.truncate(before);
                    bad = Some((seq, reason));
                    break;
                }
            }
            last = seq;
            events.push(seq);
            batch.ends.push(batch.bytes.len());
        }
        self.next = last + 1;
        if let (Some((seq, reason)), true) = (bad, events.is_empty()) {
            self.next = seq + 1;
            let alone = Piece::new(first, seq, vec![seq]);
            let rulings = self.fate.heard(alone, Heard::Unencodable { reason }, self.now());
            self.obey(rulings).await?;
        } else if events.is_empty() {
            self.ledger.pass(first, last);
        }
        if events.is_empty() {
            return Ok(None);
        }
        let piece = Piece::new(first, last, events);
        batch.id = piece.id;
        Ok(Some((piece, Arc::new(batch))))
    }

    /// What comes behind `last`; none when that was the end of the spool.
    async fn next_event(&mut self, last: Seq) -> Result<Option<Next>, store::Error> {
        if let Some(end) = self.ledger.done(last + 1) {
            return Ok(Some(Next::Nothing(end)));
        }
        let Some(page) = self.spool.page(last).await? else { return Ok(None) };
        if !page.is_for(self.id) {
            return Ok(Some(Next::Nothing(page.last_seq())));
        }
        let Some(event) = page.first_after(last) else { return Ok(None) };
        if let Some(end) = self.ledger.done(event.seq) {
            return Ok(Some(Next::Nothing(end)));
        }
        let is_ours = self.delivery.route.takes(&event);
        Ok(Some(if is_ours { Next::Event(event.seq) } else { Next::Nothing(event.seq) }))
    }

    /// Appends the message of an event that waits.
    async fn encode_event(
        &mut self,
        seq: Seq,
        out: &mut Vec<u8>,
    ) -> Result<Result<(), Unencodable>, store::Error> {
        let page = self.spool.page(seq - 1).await?;
        let event = page.and_then(|page| page.event(seq)).ok_or(store::Error::Damaged { seq })?;
        Ok(self.sink.encode(&event, out))
    }

    /// The same batch once more, from the same events.
    pub(super) async fn encode(
        &mut self,
        piece: &Piece,
    ) -> Result<Result<Arc<Batch>, Unencodable>, store::Error> {
        let mut batch = Batch { id: piece.id, ..Batch::default() };
        for seq in &piece.events {
            if let Err(err) = self.encode_event(*seq, &mut batch.bytes).await? {
                return Ok(Err(err));
            }
            batch.ends.push(batch.bytes.len());
        }
        Ok(Ok(Arc::new(batch)))
    }

    /// Finds out what may have been on its way when the last run ended, and sends it again first.
    pub(super) async fn take_up(&mut self, batches: Vec<Sent>) -> Result<(), store::Error> {
        for sent in batches {
            let (mut last, mut events) = (sent.first.saturating_sub(1), Vec::new());
            while last < sent.last {
                match self.next_event(last).await? {
                    Some(Next::Event(seq)) if seq <= sent.last => {
                        events.push(seq);
                        last = seq;
                    }
                    Some(Next::Nothing(to)) => last = to.max(last + 1),
                    _ => break,
                }
            }
            if events.is_empty() {
                self.ledger.pass(sent.first, sent.last);
                continue;
            }
            self.ledger.doubt(1);
            let Sent { id, first, last } = sent;
            self.fate.send_again(Piece { id, first, last, events, is_doubtful: true });
        }
        Ok(())
    }

    /// Enters what has become of events into the books.
    pub(super) async fn obey(&mut self, rulings: Rulings) -> Result<(), store::Error> {
        for piece in &rulings.accepted {
            self.ledger.deliver(piece);
        }
        for Dead { piece, reason, attempts } in &rulings.dead {
            let seq = piece.events[0];
            let page = self.spool.page(seq - 1).await?;
            let event =
                page.and_then(|page| page.event(seq)).ok_or(store::Error::Damaged { seq })?;
            error!(uid = %event.uid, event_type = event.event_type, attempts, reason, "Event is refused for good; it is a dead letter.");
            let letter = Refused::new(self.id, &event, reason, *attempts);
            self.ledger.bury(piece, letter);
        }
        if let Some(reason) = rulings.again {
            self.again.get_or_insert((reason, None));
        }
        self.ledger.suspect(self.fate.suspects());
        Ok(())
    }
}
