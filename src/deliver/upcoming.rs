//! The events behind the settled ones, read from the spool page by page.

use async_trait::async_trait;

use crate::encode::Format;
use crate::event::{Event, Seq};
use crate::sink::{BoxError, Encoded, Route, Upcoming};
use crate::store::{self, SinkId, SpooledPage, Store};

/// Reads the spool page by page.
pub struct Cursor {
    store: Store,
    sink: SinkId,
    route: Route,
    page: Option<SpooledPage>,
}

impl Cursor {
    /// For one sink; nothing is read yet.
    pub fn new(store: Store, sink: SinkId, route: Route) -> Self {
        Self { store, sink, route, page: None }
    }

    /// The sink's events after `seq`, for itself to compare with what it holds.
    pub fn after(&mut self, seq: Seq) -> Spooled<'_> {
        Spooled { cursor: self, next: seq + 1, given: Given::default() }
    }

    /// The page that holds the first event after `seq`, be it for the sink or not.
    pub async fn page(&mut self, seq: Seq) -> Result<Option<&SpooledPage>, store::Error> {
        if self.page.as_ref().is_none_or(|page| !page.holds(seq + 1)) {
            self.page = self.store.page_after(seq).await?;
        }
        Ok(self.page.as_ref())
    }
}

/// The events behind the settled ones, as a resuming sink asks for them.
pub struct Spooled<'a> {
    cursor: &'a mut Cursor,
    next: Seq,
    given: Given,
}

impl Spooled<'_> {
    /// The number of the `count`-th event given; none when that is before the first.
    pub fn number_of(&self, count: u64) -> Option<Seq> {
        self.given.number_of(count)
    }
}

/// The numbers of the events that were given, as runs without a gap: some events are gone when the
/// sink was out of the configuration, and some are for another sink alone.
#[derive(Default)]
struct Given {
    count: u64,
    /// How many were given before the run, and the number that it begins with.
    runs: Vec<(u64, Seq)>,
}

impl Given {
    fn push(&mut self, seq: Seq) {
        let follows =
            self.runs.last().is_some_and(|(before, first)| first + self.count - before == seq);
        if !follows {
            self.runs.push((self.count, seq));
        }
        self.count += 1;
    }

    fn number_of(&self, count: u64) -> Option<Seq> {
        let (before, first) = self.runs.iter().rfind(|(before, _)| *before < count)?;
        Some(first + count - before - 1)
    }
}

#[async_trait]
impl Upcoming for Spooled<'_> {
    async fn next(&mut self, format: Format) -> Result<Option<Encoded>, BoxError> {
        let (sink, route) = (self.cursor.sink, self.cursor.route.clone());
        loop {
            let Some(page) = self.cursor.page(self.next - 1).await? else { return Ok(None) };
            if page.is_for(sink) {
                let Some(event) = page.first_after(self.next - 1) else { return Ok(None) };
                self.next = event.seq + 1;
                if !route.takes(&event) {
                    continue;
                }
                self.given.push(event.seq);
                return Ok(Some(encoded(&event, format)));
            }
            self.next = page.last_seq() + 1;
        }
    }
}

fn encoded(event: &Event<'_>, format: Format) -> Encoded {
    let mut bytes = Vec::new();
    format.encode(event, &mut bytes);
    Encoded { seq: event.seq, uid: event.uid, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_keeps_its_number_over_gaps() {
        let mut given = Given::default();
        let numbers = [4, 5, 6, 9, 12, 13];
        for seq in numbers {
            given.push(seq);
        }

        let found: Vec<Option<Seq>> = (0..=6).map(|count| given.number_of(count)).collect();

        let expected = std::iter::once(None).chain(numbers.map(Some));
        assert_eq!(found, expected.collect::<Vec<_>>());
        assert_eq!(given.runs.len(), 3);
        assert_eq!(Given::default().number_of(1), None);
    }
}
