//! One reading of one window, from its first page to its last.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use tracing::error;

use super::plan::Task;
use crate::event::Millis;
use crate::position::{PageToken, PassId};
use crate::store::seen::Counts;
use crate::store::sources::{Committed, StoredPass};

/// What a poller knows of a pass that it makes.
#[derive(Debug)]
pub struct Pass {
    /// Which sweep reads what.
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
    /// True while it has itself counted every copy from its first page on. What another has counted
    /// too low is left for a later sweep to read.
    pub is_whole: bool,
    tokens: HashSet<u64>,
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
            is_whole: true,
            tokens: HashSet::new(),
        }
    }

    /// A pass that goes on where a stop has cut another off, with its own window. It has a number
    /// of its own all the same: what the other had counted in memory is gone.
    pub fn resumed(sweep: usize, stored: StoredPass, planned_at: Millis) -> Self {
        let task = Task { sweep, window: stored.window };
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
        if committed.bad > 0 {
            let hint = "`siemferry dead-letters list` shows them";
            error!(
                records = committed.bad,
                hint, "Records cannot be read; they are kept as dead letters."
            );
        }
        self.id = Some(committed.pass);
        self.counts.merge(committed.delta);
        // Only now: a page whose commit failed is asked for again, and gives its token again.
        self.tokens.extend(next.as_ref().map(hash));
        self.token = next;
        self.tally.events += committed.events;
        self.tally.repeats += committed.repeats;
        self.tally.late += committed.late;
        self.tally.pages += 1;
    }

    /// True when the API gives a token that this pass had before: it would go round for ever.
    pub fn is_repeated(&self, token: &PageToken) -> bool {
        self.token.as_ref() == Some(token) || self.tokens.contains(&hash(token))
    }
}

fn hash(token: &PageToken) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Window;

    #[test]
    fn a_page_whose_commit_failed_gives_its_token_again() {
        let window = Window { start: 0, end: 60 };
        let pass = Pass::new(Task { sweep: 0, window }, 60_000, "scope".into());
        let token = PageToken("next".into());
        assert!(!pass.is_repeated(&token));

        // Nothing is absorbed, for the disk was full: the same page is asked for again.

        assert!(!pass.is_repeated(&token));
    }
}
