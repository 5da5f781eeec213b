//! One reading of one window, from its first page to its last.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::plan::{Reader, Task};
use crate::event::{Millis, Page};
use crate::position::{PageToken, PassId, Second};
use crate::store::seen::Counts;
use crate::store::sources::{Committed, StoredPass};

/// What a poller knows of a pass that it makes.
#[derive(Debug)]
pub struct Pass {
    /// Who reads what.
    pub task: Task,
    /// The server's time when the window was planned.
    pub planned_at: Millis,
    /// The server's time when its first page was asked for; none before.
    pub begun_at: Option<Millis>,
    /// Its number; none before its first commit.
    pub id: Option<PassId>,
    /// The page to ask for next; none for the first.
    pub token: Option<PageToken>,
    /// The copies its committed pages have met.
    pub counts: Counts,
    /// New events, repeats, late events and pages so far.
    pub tally: Tally,
    /// What its tokens are bound to.
    pub scope: String,
    /// How often its token has expired.
    pub expired: u32,
    /// How often in a row its next page could not be had.
    pub strikes: u32,
    /// How often in a row its last page was as full as pages get.
    pub full_ends: u32,
    /// True while it has itself counted every copy from its first page on. What another has counted
    /// too low is left for a later sweep to read.
    pub is_whole: bool,
    tokens: HashSet<u64>,
    /// What its pages held that span two seconds or more: none of these may come twice.
    contents: HashSet<u128>,
    /// The same of the page that is being committed.
    pending: Option<u128>,
    /// What the page before it held, and how many before that held the same.
    previous: Option<u128>,
    equal: u32,
    /// How many pages in a row were empty.
    empty: u32,
}

/// What a pass has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// New events.
    pub events: u64,
    /// Records that were known.
    pub repeats: u64,
    /// New events that the head had missed.
    pub late: u64,
    /// Responses committed.
    pub pages: u64,
}

impl Pass {
    /// A pass that begins with the first page.
    pub fn new(task: Task, planned_at: Millis, scope: String) -> Self {
        Self {
            task,
            planned_at,
            begun_at: None,
            id: None,
            token: None,
            counts: Counts::default(),
            tally: Tally::default(),
            scope,
            expired: 0,
            strikes: 0,
            full_ends: 0,
            is_whole: true,
            tokens: HashSet::new(),
            contents: HashSet::new(),
            pending: None,
            previous: None,
            equal: 0,
            empty: 0,
        }
    }

    /// A pass that goes on where a stop has cut another off, with its own window. It has a number
    /// of its own all the same: what the other had counted in memory is gone.
    pub fn resumed(reader: Reader, stored: StoredPass, planned_at: Millis) -> Self {
        let task = Task { reader, window: stored.window };
        let begun_at = Some(stored.begun_at);
        let token = Some(stored.token);
        Self { begun_at, token, is_whole: false, ..Self::new(task, planned_at, stored.scope) }
    }

    /// The same window from its first page, with what tokens are bound to now.
    pub fn restarted(self, scope: String) -> Self {
        Self { expired: self.expired, ..Self::new(self.task, self.planned_at, scope) }
    }

    /// Takes over what a commit brought.
    pub fn absorb(&mut self, committed: Committed, next: Option<PageToken>) {
        self.id = Some(committed.pass);
        self.counts.merge(committed.delta);
        (self.strikes, self.full_ends) = (0, 0);
        // Only now: a page whose commit failed is asked for again, and gives its token again.
        self.tokens.extend(next.as_ref().map(hash));
        self.contents.extend(self.pending.take());
        self.token = next;
        self.tally.events += committed.events;
        self.tally.repeats += committed.repeats;
        self.tally.late += committed.late;
        self.tally.pages += 1;
    }

    /// What is wrong with the next page, if anything: following it would go round for ever.
    ///
    /// Two equal pages are legal when they lie within one second, for equal events happen; several
    /// seconds do not happen twice.
    pub fn objection(&mut self, page: &Page) -> Option<String> {
        let token = page.next.as_ref();
        if token.is_some_and(|token| self.is_repeated(token)) {
            return Some("it gives a page token a second time in one pass".into());
        }
        self.pending = content(page);
        if self.pending.is_some_and(|content| self.contents.contains(&content)) {
            return Some("it gives the same page a second time in one pass".into());
        }
        let sum = sum(page);
        self.equal = if self.previous == Some(sum) { self.equal + 1 } else { 0 };
        self.previous = Some(sum);
        if token.is_some() && !is_empty(page) && self.equal > MOST_EMPTY {
            return Some(format!("it gives the same page {MOST_EMPTY} times in a row"));
        }
        self.empty = if is_empty(page) { self.empty + 1 } else { 0 };
        (token.is_some() && self.empty > MOST_EMPTY)
            .then(|| format!("it gives {MOST_EMPTY} empty pages in a row, and a token for more"))
    }

    fn is_repeated(&self, token: &PageToken) -> bool {
        self.token.as_ref() == Some(token) || self.tokens.contains(&hash(token))
    }
}

/// More empty pages than this, one behind the other, lead nowhere.
const MOST_EMPTY: u32 = 1000;

fn is_empty(page: &Page) -> bool {
    page.records.is_empty() && page.bad.is_empty()
}

/// What stands for a page's records in any order; none when they span less than two seconds.
fn content(page: &Page) -> Option<u128> {
    let second = |time: Option<Millis>| time.map(|time| time.div_euclid(1000));
    let first: Option<Second> = second(page.records.first()?.time);
    let spans = page.records.iter().any(|record| second(record.time) != first);
    spans.then(|| sum(page))
}

fn sum(page: &Page) -> u128 {
    let digests = page.records.iter().map(|record| u128::from_be_bytes(record.digest.0));
    digests.fold(0, u128::wrapping_add)
}

fn hash(token: &PageToken) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Digest, Record};
    use crate::position::Window;

    fn pass() -> Pass {
        let window = Window { start: 0, end: 60 };
        Pass::new(Task { reader: Reader::Backfill, window }, 60_000, "scope".into())
    }

    fn page(records: &[(u8, Millis)], token: &str) -> Page {
        let record = |(digest, time): &(u8, Millis)| Record {
            span: 0..0,
            event_type: None,
            time: Some(*time),
            digest: Digest([*digest; 16]),
        };
        let records = records.iter().map(record).collect();
        Page { records, next: Some(PageToken(token.into())), ..Page::default() }
    }

    #[test]
    fn a_page_whose_commit_failed_may_come_again() {
        let mut pass = pass();
        let page = page(&[(1, 0), (2, 5000)], "next");
        assert_eq!(pass.objection(&page), None);

        // Nothing is absorbed, for the disk was full: the same page is asked for again.

        assert_eq!(pass.objection(&page), None);
    }

    #[test]
    fn several_seconds_do_not_happen_twice_and_one_may() {
        let mut pass = pass();
        for (records, token, may_come_again) in
            [(&[(1, 0), (1, 999)], "a", true), (&[(1, 0), (2, 1000)], "b", false)]
        {
            assert_eq!(pass.objection(&page(records, token)), None);
            pass.contents.extend(pass.pending.take());
            let mut swapped = page(records, "another token");
            swapped.records.reverse();

            assert_eq!(pass.objection(&swapped).is_none(), may_come_again, "{token}");
        }
    }

    #[test]
    fn equal_events_of_one_second_end_some_time() {
        let mut pass = pass();
        for at in 0..=MOST_EMPTY {
            let token = at.to_string();
            assert_eq!(
                pass.objection(&page(&[(1, 0)], &token)),
                None,
                "fifty equal events are legal"
            );
        }

        assert!(pass.objection(&page(&[(1, 0)], "one more")).is_some());
        assert_eq!(pass.objection(&page(&[(2, 0)], "another")), None);
    }

    #[test]
    fn empty_pages_lead_somewhere_or_nowhere() {
        let mut pass = pass();
        for at in 0..MOST_EMPTY {
            assert_eq!(pass.objection(&page(&[], &at.to_string())), None);
        }

        assert!(pass.objection(&page(&[], "one more")).is_some());
        assert_eq!(pass.objection(&page(&[(1, 0)], "more")), None, "records end the row");
    }
}
