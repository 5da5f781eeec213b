//! What happened at the simulated company, and what of it the API shows so far.
//!
//! Events lie sorted by time, and equal times by arrival, so a page costs what it holds.
//! A page begins behind a position, not after a number of events: what appears meanwhile shifts nothing.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::dialect::{Dialect, TimeFormat};
use super::json::{self, Member};
use crate::event::Millis;

/// One event: when it happened, when the API began to show it, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimEvent {
    /// When it happened; the API's windows go by this.
    pub time: Millis,
    /// When the API begins to show it; later than `time` for a late event.
    pub visible_at: Millis,
    /// What it says.
    pub record: Record,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A JSON object; in a [`SimEvent`] with Keeper's members, in a [`World`] as its dialect has it.
    Object(Box<str>),
    /// Bytes that are served as they are, be they JSON or not.
    Raw(Box<[u8]>),
}

impl SimEvent {
    /// An event of this type, on time, with nothing but `audit_event` and `timestamp`.
    pub fn new(time: Millis, audit_event: &str) -> Self {
        let timestamp = TimeFormat::Rfc3339.record(time);
        let kind = quoted(audit_event);
        let text = json::object([
            Member { name: "audit_event", value: &kind },
            Member { name: "timestamp", value: &timestamp },
        ]);
        Self::object(time, text)
    }

    /// An event whose record is this JSON object, with Keeper's members.
    pub fn object(time: Millis, text: impl Into<Box<str>>) -> Self {
        Self { time, visible_at: time, record: Record::Object(text.into()) }
    }

    /// An event whose record is served as these bytes, in every dialect and order of keys.
    pub fn raw(time: Millis, bytes: impl Into<Box<[u8]>>) -> Self {
        Self { time, visible_at: time, record: Record::Raw(bytes.into()) }
    }

    /// The event with one member more, its value given as JSON. Raw bytes stay as they are.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if let Record::Object(text) = &mut self.record {
            let member = Member { name, value };
            let members = json::members(text).unwrap_or_default();
            *text = json::object(members.into_iter().chain([member])).into();
        }
        self
    }

    /// The event as one that the API shows from this instant on.
    #[must_use]
    pub fn visible_at(mut self, instant: Millis) -> Self {
        self.visible_at = instant;
        self
    }
}

/// In which order an API lists events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The newest first.
    Newest,
    /// The oldest first.
    Oldest,
}

/// An event's place in the list: its time, then its number of arrival.
pub type Place = (Millis, u64);

/// Which page of which window is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The first millisecond wanted.
    pub first: Millis,
    /// The last millisecond wanted.
    pub last: Millis,
    /// The last event of the page before.
    pub after: Option<Place>,
    /// The order of the list.
    pub order: Order,
    /// How many records a page holds.
    pub most: usize,
    /// What is not visible at this instant is not there.
    pub now: Millis,
}

/// One page of a window.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// What it holds, in order.
    pub records: Vec<&'a Record>,
    /// The place of its last record.
    pub end: Option<Place>,
    /// True when a further record is visible.
    pub more: bool,
}

/// All events, in the words of one API.
#[derive(Debug)]
pub struct World {
    dialect: Dialect,
    events: BTreeMap<Place, Shown>,
    arrivals: u64,
}

#[derive(Debug)]
struct Shown {
    from: Millis,
    record: Record,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, events: BTreeMap::new(), arrivals: 0 }
    }

    /// Adds one event; equal ones are kept beside each other.
    pub fn add(&mut self, event: SimEvent) {
        let record = match event.record {
            Record::Object(text) => {
                Record::Object(self.dialect.record(event.time, text.into()).into())
            }
            raw @ Record::Raw(_) => raw,
        };
        let shown = Shown { from: event.visible_at.max(event.time), record };
        self.events.insert((event.time, self.arrivals), shown);
        self.arrivals += 1;
    }

    /// Adds many.
    pub fn add_all(&mut self, events: impl IntoIterator<Item = SimEvent>) {
        events.into_iter().for_each(|event| self.add(event));
    }

    /// How many events there are, visible or not.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True when nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// When the last event that is not visible yet will be; none when all are.
    pub fn settled_at(&self, now: Millis) -> Option<Millis> {
        self.events.values().map(|shown| shown.from).filter(|from| *from > now).max()
    }

    /// One page.
    pub fn page(&self, ask: &Ask) -> Page<'_> {
        let visible = |(_, shown): &(&Place, &Shown)| shown.from <= ask.now;
        let mut page = Page { records: Vec::new(), end: None, more: false };
        let Some(range) = range(ask) else { return page };
        let events = self.events.range(range);
        match ask.order {
            Order::Oldest => page.fill(events.filter(visible), ask.most),
            Order::Newest => page.fill(events.rev().filter(visible), ask.most),
        }
        page
    }

    /// Every event that happened in `[start, end)` and is visible at `now`, as canonical JSON,
    /// equal ones as often as they happened. What is not a JSON object is left out: it can be
    /// kept, but not delivered.
    pub fn truth(&self, start: Millis, end: Millis, now: Millis) -> Vec<String> {
        if start >= end {
            return Vec::new();
        }
        let events = self.events.range((start, 0)..(end, 0));
        let visible = events.filter(|(_, shown)| shown.from <= now);
        visible.filter_map(|(_, shown)| shown.record.canonical()).collect()
    }
}

impl Record {
    /// As canonical JSON; none when it is not a JSON object.
    pub fn canonical(&self) -> Option<String> {
        let text = match self {
            Self::Object(text) => text,
            Self::Raw(bytes) => str::from_utf8(bytes).ok()?,
        };
        json::canonical(text).filter(|text| text.starts_with('{'))
    }
}

impl<'a> Page<'a> {
    fn fill(&mut self, mut events: impl Iterator<Item = (&'a Place, &'a Shown)>, most: usize) {
        for (place, shown) in events.by_ref().take(most) {
            self.records.push(&shown.record);
            self.end = Some(*place);
        }
        self.more = events.next().is_some();
    }
}

type Range = (Bound<Place>, Bound<Place>);

/// The places to look at; none when the window is empty, which a map refuses.
fn range(ask: &Ask) -> Option<Range> {
    // Nothing that lies ahead of the clock is visible: there is no need to look at it.
    let last = ask.last.min(ask.now);
    let (low, high) = (Bound::Included((ask.first, 0)), Bound::Included((last, u64::MAX)));
    if ask.first > last {
        return None;
    }
    match (ask.order, ask.after) {
        (_, None) => Some((low, high)),
        (_, Some((time, _))) if !(ask.first..=last).contains(&time) => None,
        (Order::Oldest, Some(place)) => Some((Bound::Excluded(place), high)),
        (Order::Newest, Some(place)) => Some((low, Bound::Excluded(place))),
    }
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(times: &[Millis]) -> World {
        let mut world = World::new(Dialect::keeper());
        world.add_all(times.iter().enumerate().map(|(n, t)| SimEvent::new(*t, &format!("e{n}"))));
        world
    }

    fn ask(first: Millis, last: Millis) -> Ask {
        Ask { first, last, after: None, order: Order::Newest, most: 2, now: 1000 }
    }

    fn read(world: &World, mut ask: Ask) -> Vec<usize> {
        let mut sizes = Vec::new();
        loop {
            let page = world.page(&ask);
            sizes.push(page.records.len());
            if !page.more {
                return sizes;
            }
            ask.after = page.end;
        }
    }

    #[test]
    fn both_ends_of_a_window_belong_to_it() {
        let world = world(&[9, 10, 15, 20, 21]);

        assert_eq!(read(&world, ask(10, 20)), [2, 1]);
        assert_eq!(read(&world, Ask { order: Order::Oldest, ..ask(10, 20) }), [2, 1]);
        assert_eq!(read(&world, ask(20, 10)), [0]);
    }

    #[test]
    fn equal_times_are_paged_without_loss() {
        let world = world(&[10; 7]);

        assert_eq!(read(&world, ask(10, 10)), [2, 2, 2, 1]);
        assert_eq!(read(&world, Ask { order: Order::Oldest, ..ask(10, 10) }), [2, 2, 2, 1]);
    }

    #[test]
    fn what_appears_while_paging_shifts_nothing() {
        let mut world = world(&[10, 20, 30, 40]);
        let first = world.page(&ask(0, 100)).end;

        world.add_all([SimEvent::new(15, "ahead"), SimEvent::new(35, "behind")]);
        let rest = world.page(&Ask { after: first, most: 9, ..ask(0, 100) });

        let types: Vec<bool> =
            rest.records.iter().map(|r| r.canonical().unwrap().contains("ahead")).collect();
        assert_eq!(types, [false, true, false]);
    }

    #[test]
    fn a_late_event_is_there_only_when_it_becomes_visible() {
        let mut world = world(&[]);
        world.add(SimEvent::new(10, "late").visible_at(500));
        world.add(SimEvent::new(600, "ahead").visible_at(0));

        assert_eq!(read(&world, Ask { now: 499, ..ask(0, 700) }), [0]);
        assert_eq!(read(&world, Ask { now: 500, ..ask(0, 700) }), [1]);
        assert_eq!(world.truth(0, 700, 599).len(), 1);
        assert_eq!(world.truth(0, 700, 600).len(), 2);
        assert_eq!(world.settled_at(499), Some(600));
        assert_eq!(world.settled_at(600), None);
    }

    #[test]
    fn the_truth_holds_equal_events_as_often_as_they_happened_and_nothing_unreadable() {
        let mut world = world(&[]);
        let event = SimEvent::new(10, "login").with("a", "1");
        world.add_all([event.clone(), event]);
        world.add_all([SimEvent::raw(10, *b"\xff"), SimEvent::raw(10, *b"7")]);
        world.add(SimEvent::raw(10, *b"{ \"b\":1, \"a\":2 }"));

        let truth = world.truth(0, 11, 10);

        assert_eq!(truth.len(), 3);
        assert_eq!(truth[0], truth[1]);
        assert_eq!(truth[2], r#"{"a":2,"b":1}"#);
    }
}
