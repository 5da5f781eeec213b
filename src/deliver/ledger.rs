//! What has become of which number, and what of it the store knows. Pure.

use super::piece::Piece;
use super::ranges::Ranges;
use crate::event::Seq;
use crate::position::{Bookmark, Sending};
use crate::store::SinkId;
use crate::store::dead_letters::Refused;
use crate::store::sinks::Settlement;

/// The books of one courier.
#[derive(Debug)]
pub struct Ledger {
    sink: SinkId,
    /// Every number up to this one has met its fate, and the store knows it.
    settled: Seq,
    /// Those behind it that have met theirs.
    done: Ranges,
    /// What the store believes to be on its way.
    known: Sending,
    /// What it does not know yet.
    news: News,
}

#[derive(Clone, Debug, Default)]
struct News {
    delivered: u64,
    ambiguous: u64,
    bookmark: Option<Bookmark>,
    buried: Vec<Refused>,
    /// As last told, and as they are.
    suspects: (u64, u64),
}

impl Ledger {
    /// Where the store stands.
    pub fn new(sink: SinkId, settled: Seq, known: Sending) -> Self {
        let done = known.done.iter().copied().collect();
        Self { sink, settled, done, known, news: News::default() }
    }

    /// Every number up to this one has met its fate.
    pub fn settled(&self) -> Seq {
        self.settled
    }

    /// The end of the range that holds `seq` and has met its fate.
    pub fn done(&self, seq: Seq) -> Option<Seq> {
        if seq <= self.settled { Some(self.settled) } else { self.done.end_of(seq) }
    }

    /// These numbers need nothing more.
    pub fn pass(&mut self, first: Seq, last: Seq) {
        self.done.insert(first, last);
    }

    /// The destination holds this.
    pub fn deliver(&mut self, piece: &Piece) {
        self.news.delivered += piece.events.len() as u64;
        self.pass(piece.first, piece.last);
    }

    /// The sink holds so many events up to `to`, and this is where it stands.
    pub fn adopt(&mut self, to: Seq, events: u64) {
        self.news.delivered += events;
        self.pass(self.settled + 1, to);
    }

    /// What the sink needs to resume behind what was delivered last.
    pub fn stand(&mut self, bookmark: Option<Bookmark>) {
        self.news.bookmark = bookmark.or(self.news.bookmark.take());
    }

    /// An event is a dead letter.
    pub fn bury(&mut self, piece: &Piece, letter: Refused) {
        self.news.buried.push(letter);
        self.pass(piece.first, piece.last);
    }

    /// So many sends, or events, have an outcome that cannot be known.
    pub fn doubt(&mut self, count: u64) {
        self.news.ambiguous += count;
    }

    /// So many events are suspects.
    pub fn suspect(&mut self, suspects: u64) {
        self.news.suspects.1 = suspects;
    }

    /// What is to be committed before these batches may be on their way; none when the store knows
    /// all of it, unless it is wanted always.
    pub fn settlement<'a>(
        &self,
        on_their_way: impl IntoIterator<Item = &'a Piece>,
        always: bool,
    ) -> Option<Settlement> {
        let mut done = self.done.clone();
        let to = done.settle(self.settled);
        let batches: Vec<_> = on_their_way.into_iter().map(Piece::sent).collect();
        let News { delivered, ambiguous, bookmark, buried, suspects } = self.news.clone();
        let is_news = always
            || to > self.settled
            || batches != self.known.batches
            || (delivered, ambiguous) != (0, 0)
            || bookmark.is_some()
            || !buried.is_empty()
            || suspects.0 != suspects.1;
        let sending = Sending { batches, done: done.to_vec() };
        is_news.then_some(Settlement {
            sink: self.sink,
            from: self.settled,
            to,
            delivered,
            ambiguous,
            suspects: suspects.1,
            bookmark,
            sending,
            buried,
        })
    }

    /// The store knows this now.
    pub fn committed(&mut self, settlement: &Settlement) {
        self.settled = settlement.to;
        self.done = settlement.sending.done.iter().copied().collect();
        self.known = settlement.sending.clone();
        let suspects = (settlement.suspects, settlement.suspects);
        self.news = News { suspects, ..News::default() };
    }
}
