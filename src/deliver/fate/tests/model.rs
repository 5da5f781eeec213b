//! The courier's loop, and what it has come to.

use std::collections::BTreeSet;

use super::super::*;
use crate::deliver::ranges::Ranges;

/// What a destination does with the events of one request, at a time.
pub type Destination<'a> = Box<dyn FnMut(&[Seq], Duration) -> Heard + 'a>;

/// The courier's loop without its effects.
pub struct Model<'a> {
    pub fate: Fate,
    pub destination: Destination<'a>,
    /// How many events there are; more may come.
    pub events: Seq,
    pub batch: u64,
    pub now: Duration,
    pub done: Ranges,
    pub settled: Seq,
    pub accepted: Vec<Seq>,
    pub dead: Vec<(Seq, u64)>,
    pub requests: usize,
    pub blocks: usize,
    /// When somebody looks and agrees to what is refused.
    pub agrees_at: Option<Duration>,
}

const WEEK: Duration = Duration::from_secs(7 * 86_400);

impl<'a> Model<'a> {
    pub fn new(
        events: Seq,
        batch: u64,
        destination: impl FnMut(&[Seq], Duration) -> Heard + 'a,
    ) -> Self {
        Self {
            fate: Fate::new("soc"),
            destination: Box::new(destination),
            events,
            batch,
            now: Duration::ZERO,
            done: Ranges::default(),
            settled: 0,
            accepted: Vec::new(),
            dead: Vec::new(),
            requests: 0,
            blocks: 0,
            agrees_at: None,
        }
    }

    /// Goes on until nothing is left, or nothing more can be done, or a week has passed.
    pub fn run(mut self) -> Self {
        self.go_on();
        self
    }

    pub fn go_on(&mut self) {
        self.go_on_to(Seq::MAX);
    }

    /// The same, but no further than to this event.
    pub fn go_on_to(&mut self, last: Seq) {
        let until = self.now + WEEK;
        while self.now < until && self.settled < last {
            match self.fate.step() {
                Step::Send(piece) => self.send(piece),
                Step::Prove(otherwise) => match self.form(1).or(otherwise) {
                    Some(piece) => self.send(piece),
                    None => return,
                },
                Step::Blocked => self.probe(),
                Step::Clear => match self.form(self.batch) {
                    Some(piece) => self.send(piece),
                    None => return,
                },
            }
        }
    }

    pub fn probe(&mut self) {
        let wait = 30 << self.fate.probes.min(5);
        self.now += Duration::from_secs(wait.min(600));
        if self.agrees_at.is_some_and(|at| at <= self.now) {
            let rulings = self.fate.accept_until(self.events);
            self.obey(rulings);
            return;
        }
        let next = self.form(1);
        if let Some(piece) = self.fate.probe(next) {
            self.send(piece);
        }
    }

    pub fn form(&self, most: u64) -> Option<Piece> {
        let is_free =
            |seq: &Seq| self.done.end_of(*seq).is_none() && self.fate.holds(*seq).is_none();
        let first = (self.settled + 1..=self.events).find(is_free)?;
        let events: Vec<Seq> = (first..=self.events)
            .take_while(is_free)
            .take(usize::try_from(most).unwrap())
            .collect();
        Some(Piece::new(first, events[events.len() - 1], events))
    }

    pub fn send(&mut self, piece: Piece) {
        self.requests += 1;
        self.now += Duration::from_millis(100);
        let was_blocked = self.fate.block().is_some();
        let heard = (self.destination)(&piece.events, self.now);
        if matches!(heard, Heard::Accepted) && !self.fate.is_troubled() {
            self.fate.accepted(piece.events.len(), self.now);
            self.accept(&piece);
        } else {
            let rulings = self.fate.heard(piece, heard, self.now);
            self.obey(rulings);
        }
        self.blocks += usize::from(!was_blocked && self.fate.block().is_some());
    }

    pub fn obey(&mut self, rulings: Rulings) {
        for piece in rulings.accepted {
            self.accept(&piece);
        }
        for dead in rulings.dead {
            self.done.insert(dead.piece.first, dead.piece.last);
            self.dead.push((dead.piece.events[0], dead.attempts));
        }
        self.settled = self.done.settle(self.settled);
    }

    pub fn accept(&mut self, piece: &Piece) {
        self.accepted.extend(&piece.events);
        self.done.insert(piece.first, piece.last);
        self.settled = self.done.settle(self.settled);
    }

    /// Every event has met one fate, and these are the dead ones.
    #[track_caller]
    pub fn ends_with_dead(&self, dead: impl IntoIterator<Item = Seq>) {
        let dead: Vec<Seq> = dead.into_iter().collect();
        let found: BTreeSet<Seq> = self.dead.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(found, dead.iter().copied().collect(), "dead letters");
        assert_eq!(self.dead.len(), dead.len(), "each once");
        let mut accepted = self.accepted.clone();
        accepted.sort_unstable();
        let good: Vec<Seq> = (1..=self.events).filter(|seq| !found.contains(seq)).collect();
        assert_eq!(accepted, good, "every other event is accepted once");
        assert_eq!(self.settled, self.events);
        assert!(!self.fate.is_troubled());
    }
}
