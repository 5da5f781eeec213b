//! A batch as the courier thinks of it: numbers, not bytes. Pure.

use uuid::Uuid;

use crate::event::Seq;
use crate::position::Sent;

/// The events that one request carries, and the numbers that are done with them: between the events
/// are those that are not for the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Names the batch for the destination.
    pub id: Uuid,
    /// The first number that belongs to it.
    pub first: Seq,
    /// The last one.
    pub last: Seq,
    /// The events, in order.
    pub events: Vec<Seq>,
    /// True when the destination may hold it already: it is then sent again whole, under its id, and
    /// is not divided unless the destination refuses it.
    pub is_doubtful: bool,
}

impl Piece {
    /// A new batch.
    pub fn new(first: Seq, last: Seq, events: Vec<Seq>) -> Self {
        Self { id: Uuid::new_v4(), first, last, events, is_doubtful: false }
    }

    /// What the store is to remember of it while it is on its way.
    pub fn sent(&self) -> Sent {
        Sent { id: self.id, first: self.first, last: self.last, is_counted: false }
    }

    /// The part from the event at index `from` up to the one before index `to`, as a new batch. Each
    /// event comes with the numbers in front of it, and the last with those behind it.
    pub fn part(&self, from: usize, to: usize) -> Self {
        if (from, to) == (0, self.events.len()) {
            return self.clone();
        }
        let first = if from == 0 { self.first } else { self.events[from - 1] + 1 };
        let last = if to == self.events.len() { self.last } else { self.events[to - 1] };
        Self::new(first, last, self.events[from..to].to_vec())
    }

    /// The events at these indices, as a new batch; what lies between them has met its fate.
    pub fn of(&self, indices: &[usize]) -> Self {
        let ends = [indices[0], indices[indices.len() - 1]].map(|at| self.part(at, at + 1));
        let events = indices.iter().map(|at| self.events[*at]).collect();
        Self::new(ends[0].first, ends[1].last, events)
    }

    /// Its halves.
    pub fn halves(&self) -> [Self; 2] {
        let middle = self.events.len() / 2;
        [self.part(0, middle), self.part(middle, self.events.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_leave_no_number_out_and_share_none() {
        let whole = Piece::new(10, 30, vec![12, 13, 20, 25]);

        let [left, right] = whole.halves();
        let parts: Vec<Piece> = (0..4).map(|at| whole.part(at, at + 1)).collect();

        assert_eq!((left.first, left.last, &left.events[..]), (10, 13, &[12, 13][..]));
        assert_eq!((right.first, right.last, &right.events[..]), (14, 30, &[20, 25][..]));
        let ranges: Vec<_> = parts.iter().map(|part| (part.first, part.last)).collect();
        assert_eq!(ranges, [(10, 12), (13, 13), (14, 20), (21, 30)]);
        assert!(parts.iter().all(|part| part.id != whole.id), "a new batch has a new id");
        assert_eq!(whole.part(0, 4).id, whole.id);
    }
}
