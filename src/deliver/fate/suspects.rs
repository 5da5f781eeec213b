//! Who is suspected, and when that speaks against the destination instead. Pure.

use std::time::Duration;

use super::hour::Hour;
use super::words::{Dead, Rulings, Why};
use super::{Fate, MOST_LONE, REFUSALS, REFUSALS_OF_THE_WAVERING};
use crate::deliver::piece::Piece;

#[derive(Debug)]
pub(super) struct Suspect {
    pub piece: Piece,
    pub reason: String,
    pub refusals: u64,
    /// How often something had been accepted when it was last in need of a proof.
    pub since: u64,
}

/// An event was refused alone.
pub(super) struct Refusal {
    pub reason: String,
    /// True when the destination has refused the event in so many words.
    pub is_plain: bool,
    /// How often something had been accepted before.
    pub since: u64,
}

impl Fate {
    pub(super) fn refused(
        &mut self,
        piece: Piece,
        refusal: Refusal,
        now: Duration,
        rulings: &mut Rulings,
    ) {
        let seq = piece.events[0];
        let Refusal { reason, is_plain, since } = refusal;
        let is_new = !self.suspects.contains_key(&seq);
        let suspect = self.suspects.entry(seq).or_insert(Suspect {
            piece,
            reason: String::new(),
            refusals: 0,
            since,
        });
        suspect.reason = reason;
        suspect.refusals += 1;
        if suspect.refusals % 2 == 1 {
            suspect.since = since;
        }
        let before = self.acceptances_before.unwrap_or(suspect.since).min(suspect.since);
        let is_proven = before < self.acceptances;
        let is_agreed = is_plain && seq <= self.accepted_until;
        let needed = if self.wavered.is_some_and(|at| now < at + Hour::LENGTH) {
            REFUSALS_OF_THE_WAVERING
        } else {
            REFUSALS
        };
        let is_dead = is_proven && self.block.is_none() && suspect.refusals >= needed;
        if is_agreed || is_dead {
            let suspect = self.suspects.remove(&seq).expect("it was just looked at");
            rulings.dead.push(suspect.into_dead());
        } else if is_new {
            self.lone += 1;
            self.hour.suspected(now);
            self.judge_suspicions(now);
        }
    }

    pub(super) fn unencodable(
        &mut self,
        piece: Piece,
        reason: String,
        now: Duration,
        rulings: &mut Rulings,
    ) {
        let seq = piece.events[0];
        let is_agreed = seq <= self.accepted_until;
        let is_new = !self.suspects.contains_key(&seq);
        let suspect = Suspect { piece, reason, refusals: 0, since: self.acceptances };
        if is_new && !is_agreed {
            self.hour.suspected(now);
        }
        if is_agreed || self.block.is_none() && !self.hour.is_over(now) {
            self.suspects.remove(&seq);
            rulings.dead.push(suspect.into_dead());
        } else {
            self.suspects.insert(seq, suspect);
            self.judge_suspicions(now);
        }
    }

    /// Blocks the sink when its suspects speak against it rather than against the events.
    fn judge_suspicions(&mut self, now: Duration) {
        let ((suspects, events), is_over) = (self.hour.counts(now), self.hour.is_over(now));
        let (sink, reason) = (&self.sink, self.suspicion().unwrap_or_default());
        let accept = format!(
            "mend what the reason names; or, if such events are to become dead letters: \
             `siemferry dead-letters accept --sink {sink}`"
        );
        if is_over {
            let error = format!(
                "{suspects} of the {events} events of the last hour are refused, such as: {reason}"
            );
            self.block_for(Why::TooMany, error, Some(accept));
        } else if self.lone >= MOST_LONE {
            let error = format!("every event is refused, such as: {reason}");
            self.block_for(Why::Everything, error, Some(accept));
        }
    }
}

impl Suspect {
    pub fn into_dead(self) -> Dead {
        Dead { piece: self.piece, reason: self.reason, attempts: self.refusals }
    }
}
