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

/// A batch covers no more numbers than this, however many of them are for other sinks: in between
/// somebody may want the courier to stop.
const MOST_NUMBERS: Seq = 100_000;

/// A batch that is ready to be sent.
pub(super) type Formed = (Piece, Arc<Batch>);

/// What comes next in the spool.
enum Next {
    /// An event for the sink.
    Event(Seq),
    /// Nothing for it up to this number.
    Nothing(Seq),
}

/// A batch that is being formed.
#[derive(Default)]
struct Draft {
    first: Seq,
    last: Seq,
    events: Vec<Seq>,
    batch: Batch,
    /// What makes no message, and comes next.
    bad: Option<(Seq, Unencodable)>,
}

impl Courier {
    /// The next events that nobody has asked about yet, as a batch; none when there are none.
    pub(super) async fn form(
        &mut self,
        most_events: usize,
    ) -> Result<Option<Formed>, store::Error> {
        // Asked before the spool is read: what is committed later than this is not passed over.
        let committed = *self.store.committed().borrow();
        let mut draft = Draft { first: self.next, last: self.next - 1, ..Draft::default() };
        let enough = |draft: &Draft| {
            draft.events.len() >= most_events || draft.last >= draft.first + MOST_NUMBERS
        };
        while !enough(&draft) && self.add_to(&mut draft, committed).await? {}
        let Draft { first, last, events, mut batch, bad } = draft;
        self.next = last + 1;
        if !events.is_empty() {
            let piece = Piece::new(first, last, events);
            batch.id = piece.id;
            return Ok(Some((piece, Arc::new(batch))));
        }
        if let Some((seq, Unencodable { reason })) = bad {
            self.next = seq + 1;
            let alone = Piece::new(first, seq, vec![seq]);
            let rulings = self.fate.heard(alone, Heard::Unencodable { reason }, self.now());
            self.obey(rulings).await?;
        } else {
            self.ledger.pass(first, last);
        }
        Ok(None)
    }

    /// Adds what comes next; false when the draft ends here.
    async fn add_to(&mut self, draft: &mut Draft, committed: Seq) -> Result<bool, store::Error> {
        let seq = match self.next_event(draft.last).await? {
            Some(Next::Event(seq)) => seq,
            Some(Next::Nothing(to)) => {
                draft.last = draft.last.max(to);
                return Ok(true);
            }
            None => {
                // What was pruned while the sink was out of the configuration is not waited for.
                draft.last = draft.last.max(committed);
                return Ok(false);
            }
        };
        if let Some((begins, ends)) = self.fate.holds(seq) {
            if !draft.events.is_empty() {
                draft.last = begins - 1;
                return Ok(false);
            }
            self.ledger.pass(draft.first, begins - 1);
            (draft.first, draft.last) = (ends + 1, ends);
            return Ok(true);
        }
        let before = draft.batch.bytes.len();
        let encoded = self.encode_event(seq, &mut draft.batch.bytes).await?;
        let is_too_much = before > 0 && draft.batch.bytes.len() > self.size.most();
        if encoded.is_err() || is_too_much {
            draft.batch.bytes.truncate(before);
            draft.bad = encoded.err().map(|unencodable| (seq, unencodable));
            return Ok(false);
        }
        draft.last = seq;
        draft.events.push(seq);
        draft.batch.ends.push(draft.batch.bytes.len());
        Ok(true)
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
            let Sent { id, first, last, is_counted } = sent;
            if !is_counted {
                self.doubt(events.len());
            }
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
