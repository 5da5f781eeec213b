//! Which of the numbers behind the settled ones have met their fate already. Pure.

use std::collections::BTreeMap;

use crate::event::Seq;

/// Ranges of numbers; neither overlapping nor touching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<Seq, Seq>);

impl Ranges {
    /// Adds all from `first` to `last`, both included.
    pub fn insert(&mut self, first: Seq, last: Seq) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        // What it overlaps or touches becomes a part of it, from the last one on.
        while let Some((&begins, &ends)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if ends.saturating_add(1) < first {
                break;
            }
            self.0.remove(&begins);
            (first, last) = (first.min(begins), last.max(ends));
        }
        self.0.insert(first, last);
    }

    /// The end of the range that holds `seq`.
    pub fn end_of(&self, seq: Seq) -> Option<Seq> {
        let (_, &last) = self.0.range(..=seq).next_back()?;
        (last >= seq).then_some(last)
    }

    /// Takes out all up to the end of the range that begins with the number behind `settled`, and
    /// says how far that goes.
    pub fn settle(&mut self, settled: Seq) -> Seq {
        let settled = self.end_of(settled + 1).unwrap_or(settled);
        self.0.retain(|_, last| *last > settled);
        settled
    }

    /// All of them, in order.
    pub fn to_vec(&self) -> Vec<(Seq, Seq)> {
        self.0.iter().map(|(first, last)| (*first, *last)).collect()
    }
}

impl FromIterator<(Seq, Seq)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (Seq, Seq)>>(ranges: I) -> Self {
        let mut all = Self::default();
        for (first, last) in ranges {
            all.insert(first, last);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_what_a_set_would(added in prop::collection::vec((1..60_u64, 0..9_u64), 0..20)) {
            let ranges: Ranges = added.iter().map(|(first, more)| (*first, first + more)).collect();
            let set: BTreeSet<Seq> = added.iter().flat_map(|(first, more)| *first..=first + more).collect();

            for seq in 0..80 {
                prop_assert_eq!(ranges.end_of(seq).is_some(), set.contains(&seq));
            }
            for pair in ranges.to_vec().windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0, "{:?} touch", pair);
            }
        }

        #[test]
        fn settling_goes_as_far_as_there_is_no_gap(
            added in prop::collection::vec((1..30_u64, 0..9_u64), 0..12),
            settled in 0..40_u64,
        ) {
            let mut ranges: Ranges = added.iter().map(|(first, more)| (*first, first + more)).collect();
            let set: BTreeSet<Seq> = added.iter().flat_map(|(first, more)| *first..=first + more).collect();

            let to = ranges.settle(settled);

            let expected = (settled + 1..200).take_while(|seq| set.contains(seq)).last().unwrap_or(settled);
            prop_assert_eq!(to, expected);
            let left: BTreeSet<Seq> = (1..80).filter(|seq| ranges.end_of(*seq).is_some()).collect();
            prop_assert!(left.iter().all(|seq| *seq > 0 && set.contains(seq)));
            prop_assert!(set.iter().filter(|seq| **seq > to).all(|seq| left.contains(seq)));
        }
    }
}
