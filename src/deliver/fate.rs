//! Each event's fate when a destination does not simply accept a batch. Pure.
//!
//! A refused batch is halved; an event refused alone is a *suspect*. It becomes a dead letter only
//! when it is refused again after others were accepted: twice in a row, for every second back-end of
//! a destination may be broken, and once more after a further proof, for it may come and go. When
//! nothing is accepted, or too much is refused, the destination
//! is at fault: the sink is blocked and nobody's event is lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::piece::Piece;
use crate::event::Seq;
use crate::sink::Verdict;

mod hour;
mod suspects;
mod words;

use hour::Hour;
use suspects::{Refusal, Suspect};
use words::Why;
pub use words::{Block, Dead, Heard, Rulings, Step};

/// So many lone refusals in a row without any acceptance say that the destination is at fault.
const MOST_LONE: u32 = 16;

/// So often an event is refused alone before it is a dead letter: once, twice in a row after a
/// proof, and once after another.
const REFUSALS: u64 = 4;

/// The same where the destination has refused events that it accepted later.
const REFUSALS_OF_THE_WAVERING: u64 = 8;

/// From this probe on, a 403 or 404 may be about what an event says.
const CONTENT_FROM_PROBE: u32 = 2;

/// What is known of the events that were not simply accepted.
#[derive(Debug)]
pub struct Fate {
    sink: String,
    /// What is to be sent: halves behind everything else.
    open: VecDeque<Piece>,
    goes_deep: bool,
    /// By their event's number.
    suspects: BTreeMap<Seq, Suspect>,
    /// How often something was accepted.
    acceptances: u64,
    /// The same when this trouble began; none while there is none.
    acceptances_before: Option<u64>,
    /// New suspects since the last acceptance.
    lone: u32,
    hour: Hour,
    block: Option<Block>,
    /// True when a block may have dropped what is to be formed anew.
    has_dropped: bool,
    /// How often it was probed since it was blocked.
    probes: u32,
    /// True from a 403 or 404 until batches are accepted again.
    is_forbidden: bool,
    /// What the sink refuses up to this number is a dead letter: somebody has agreed to it.
    accepted_until: Seq,
    /// When a suspect was last accepted after all.
    wavered: Option<Duration>,
}

impl Fate {
    /// Of the events of this sink.
    pub fn new(sink: &str) -> Self {
        Self {
            sink: sink.to_owned(),
            open: VecDeque::new(),
            goes_deep: false,
            suspects: BTreeMap::new(),
            acceptances: 0,
            acceptances_before: None,
            lone: 0,
            hour: Hour::default(),
            block: None,
            has_dropped: false,
            probes: 0,
            is_forbidden: false,
            accepted_until: 0,
            wavered: None,
        }
    }

    /// True while not every event is simply sent.
    pub fn is_troubled(&self) -> bool {
        self.block.is_some() || !self.open.is_empty() || !self.suspects.is_empty()
    }

    /// Why the sink is blocked, if it is.
    pub fn block(&self) -> Option<&Block> {
        self.block.as_ref()
    }

    /// A probe has found another reason than the one for which the destination blocks by itself: that
    /// is what somebody must know now. False where it does not block by itself.
    pub fn restate(&mut self, error: &str) -> bool {
        let Some(block) = self.block.as_mut().filter(|block| block.why == Why::Said) else {
            return false;
        };
        if block.error != error {
            error.clone_into(&mut block.error);
            block.hint = None;
        }
        true
    }

    /// True when a block is over that may have dropped batches: their events are to be sent in new
    /// ones. Says so once.
    pub fn take_dropped(&mut self) -> bool {
        self.block.is_none() && std::mem::take(&mut self.has_dropped)
    }

    /// How many events were refused alone and are not proven bad.
    pub fn suspects(&self) -> u64 {
        self.suspects.len() as u64
    }

    /// What the destination said of a suspect.
    pub fn suspicion(&self) -> Option<&str> {
        self.suspects.values().next().map(|suspect| &*suspect.reason)
    }

    /// The range that holds `seq` and is a suspect's, or waits to be sent again.
    pub fn holds(&self, seq: Seq) -> Option<(Seq, Seq)> {
        let behind = self.suspects.range(seq..).next();
        let before = self.suspects.range(..seq).next_back();
        let suspects = behind.into_iter().chain(before).map(|(_, suspect)| &suspect.piece);
        let mut pieces = suspects.chain(&self.open);
        let piece = pieces.find(|piece| piece.first <= seq && seq <= piece.last)?;
        Some((piece.first, piece.last))
    }

    /// The batches that the destination may hold already.
    pub fn doubtful(&self) -> impl Iterator<Item = &Piece> {
        let suspects = self.suspects.values().map(|suspect| &suspect.piece);
        self.open.iter().chain(suspects).filter(|piece| piece.is_doubtful)
    }

    /// Has a batch sent again, before anything else.
    pub fn send_again(&mut self, piece: Piece) {
        self.begin();
        if let [seq] = piece.events[..]
            && let Some(suspect) = self.suspects.get_mut(&seq)
        {
            // It is asked again in its turn.
            suspect.piece = piece;
            return;
        }
        if self.block.is_some() && !piece.is_doubtful {
            // Its events come in new batches when the sink works again.
            return;
        }
        let place = self.open.iter().position(|open| open.first > piece.first);
        self.open.insert(place.unwrap_or(self.open.len()), piece);
    }

    /// What is to be done next.
    pub fn step(&mut self) -> Step {
        if self.block.is_some() {
            return Step::Blocked;
        }
        // A destination that refuses everything is found out by going deep, one that refuses some by
        // going wide.
        let is_proven = self.acceptances_before.is_some_and(|before| before < self.acceptances);
        self.goes_deep = !self.goes_deep && !is_proven;
        let smallest = (0..self.open.len()).min_by_key(|at| self.open[*at].events.len());
        let next = smallest.filter(|_| self.goes_deep).unwrap_or(0);
        if let Some(piece) = self.open.remove(next) {
            return Step::Send(piece);
        }
        let proven =
            |acceptances| self.suspects.values().find(move |suspect| suspect.since < acceptances);
        if let Some(suspect) = proven(self.acceptances) {
            return Step::Send(suspect.piece.clone());
        }
        let Some(first) = self.suspects.values().next() else {
            self.acceptances_before = None;
            return Step::Clear;
        };
        // Others of its batch were accepted, only not since: good enough when nothing comes behind.
        Step::Prove(is_proven.then(|| first.piece.clone()))
    }

    /// What to send as the next probe; `next` is the first event that no one has asked about yet.
    pub fn probe(&mut self, next: Option<Piece>) -> Option<Piece> {
        self.probes += 1;
        if let Some(piece) = self.open.pop_front() {
            return Some(piece);
        }
        let turn = self.probes as usize / 2 % self.suspects.len().max(1);
        let suspect = self.suspects.values().nth(turn).map(|suspect| suspect.piece.clone());
        let is_too_many = self.block.as_ref().is_some_and(|block| block.why == Why::TooMany);
        let probe = if is_too_many || self.probes.is_multiple_of(2) {
            suspect.or(next)
        } else {
            next.or(suspect)
        };
        if probe.is_none() {
            self.block = None;
        }
        probe
    }

    /// Takes note of a batch that was accepted while there was no trouble with it.
    pub fn accepted(&mut self, events: usize, now: Duration) {
        self.hour.accepted(events as u64, now);
        self.acceptances += 1;
        self.lone = 0;
        if !self.is_troubled() {
            self.is_forbidden = false;
        }
    }

    /// Draws the conclusions from an answer; `now` is any clock that only rises.
    pub fn heard(&mut self, piece: Piece, heard: Heard, now: Duration) -> Rulings {
        self.begin();
        let mut rulings = Rulings::default();
        match heard {
            Heard::Accepted => self.take(piece, now, &mut rulings),
            Heard::Each(verdicts) => self.take_apart(&piece, verdicts, now, &mut rulings),
            Heard::Refused { reason } if piece.events.len() > 1 => self.halve(&piece, &reason),
            Heard::Refused { reason } => {
                let refusal = Refusal { reason, is_plain: true, since: self.acceptances };
                self.refused(piece, refusal, now, &mut rulings);
            }
            Heard::Blocked { error, may_be_content: true, .. } if self.may_be_content() => {
                if piece.events.len() > 1 {
                    self.halve(&piece, &error);
                } else {
                    let since = self.acceptances;
                    let refusal = Refusal { reason: error, is_plain: false, since };
                    self.refused(piece, refusal, now, &mut rulings);
                }
            }
            Heard::Blocked { error, hint, may_be_content } => {
                self.is_forbidden |= may_be_content;
                if piece.is_doubtful {
                    self.open.push_front(piece);
                }
                self.block_for(Why::Said, error, hint);
            }
            Heard::Unencodable { reason } => self.unencodable(piece, reason, now, &mut rulings),
        }
        rulings
    }

    /// Lets what the sink refuses up to this number become dead letters at once.
    pub fn accept_until(&mut self, seq: Seq) -> Rulings {
        self.accepted_until = self.accepted_until.max(seq);
        let mut rulings = Rulings::default();
        let behind = self.suspects.split_off(&(self.accepted_until + 1));
        for suspect in std::mem::replace(&mut self.suspects, behind).into_values() {
            rulings.dead.push(suspect.into_dead());
        }
        if self.block.as_ref().is_some_and(|block| block.why != Why::Said) {
            self.unblock();
        }
        rulings
    }

    fn begin(&mut self) {
        self.acceptances_before.get_or_insert(self.acceptances);
    }

    /// True when a 403 or 404 is to be taken for a refusal of what was sent.
    fn may_be_content(&self) -> bool {
        self.is_forbidden && (self.block.is_none() || self.probes >= CONTENT_FROM_PROBE)
    }

    fn take(&mut self, piece: Piece, now: Duration, rulings: &mut Rulings) {
        let was_suspect = match piece.events[..] {
            [seq] => self.suspects.remove(&seq).is_some(),
            _ => false,
        };
        if was_suspect {
            self.wavered = Some(now);
        }
        self.proven(piece.events.len(), was_suspect, now);
        rulings.accepted.push(piece);
    }

    /// Something was accepted: the destination works.
    fn proven(&mut self, events: usize, was_suspect: bool, now: Duration) {
        self.hour.accepted(events as u64, now);
        self.acceptances += 1;
        self.lone = 0;
        // Where too much is refused, that others are accepted is no news.
        if self.block.as_ref().is_some_and(|block| was_suspect || block.why != Why::TooMany) {
            self.unblock();
        }
    }

    fn take_apart(
        &mut self,
        piece: &Piece,
        verdicts: Vec<Verdict>,
        now: Duration,
        rulings: &mut Rulings,
    ) {
        let (mut accepted, mut again) = (0, Vec::new());
        let (whole, before) = (verdicts.len(), self.acceptances);
        // What is sent again goes together, but for where a refused event stands in between.
        let (mut refused, mut is_divided) = (Vec::new(), true);
        let mut was_suspect = false;
        for (at, verdict) in verdicts.into_iter().enumerate() {
            match verdict {
                Verdict::Accepted => {
                    let part = piece.part(at, at + 1);
                    was_suspect |= self.suspects.remove(&part.events[0]).is_some();
                    accepted += 1;
                    rulings.accepted.push(part);
                }
                Verdict::Retry { .. } | Verdict::Unsent => {
                    if let Verdict::Retry { reason } = verdict {
                        rulings.again = Some(reason);
                    }
                    if std::mem::take(&mut is_divided) {
                        again.push(Vec::new());
                    }
                    again.last_mut().expect("there is one now").push(at);
                }
                Verdict::Refused { reason } => {
                    is_divided = true;
                    refused.push((piece.part(at, at + 1), reason));
                }
            }
        }
        if accepted > 0 {
            self.wavered = was_suspect.then_some(now).or(self.wavered);
            self.proven(accepted, was_suspect, now);
        }
        for (part, reason) in refused {
            let refusal = Refusal { reason, is_plain: true, since: before };
            self.refused(part, refusal, now, rulings);
        }
        for run in again {
            self.send_again(if run.len() == whole { piece.clone() } else { piece.of(&run) });
        }
    }

    fn halve(&mut self, piece: &Piece, reason: &str) {
        if let Some(block) = &mut self.block {
            // Its events come in new batches when the sink works again.
            reason.clone_into(&mut block.error);
        } else {
            self.open.extend(piece.halves());
        }
    }

    fn block_for(&mut self, why: Why, error: String, hint: Option<String>) {
        self.open.retain(|piece| piece.is_doubtful);
        self.has_dropped = true;
        if self.block.is_none() {
            self.probes = 0;
        }
        self.block = Some(Block { why, error, hint });
    }

    fn unblock(&mut self) {
        self.block = None;
        self.lone = 0;
        self.hour.forgive();
    }
}

#[cfg(test)]
mod tests;
