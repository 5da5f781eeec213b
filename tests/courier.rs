//! The courier: every event, in order, whatever the sink answers.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use siemferry::deliver::{Courier, End, Orders};
use siemferry::event::{Event, Seq};
use siemferry::position::Bookmark;
use siemferry::sink::{
    Batch, BatchLimits, Delivery, DeliveryError, Receipt, Resumed, Route, Sink, Unencodable,
    Upcoming,
};
use siemferry::store::sinks::Settlement;
use siemferry::store::{self, Prune, Store};
use siemferry::units::{Bytes, Span};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::rig::{Home, Sim, eventually};
use crate::store::shelf::{STABLE, Shelf};

/// What the destination does with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accept,
    Fail,
    Block,
}

/// What it does when it is resumed.
#[derive(Clone, Copy, Debug)]
enum Holds {
    Events(u64),
    Fails,
}

/// A destination that does what it is told; what is not told is accepted.
#[derive(Clone, Default)]
struct Destination(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    answers: VecDeque<Answer>,
    resumes: VecDeque<Holds>,
    attempts: Vec<(Instant, Vec<u8>)>,
    accepted: Vec<u8>,
    /// What it was told besides.
    told: Vec<&'static str>,
    /// Deliveries wait until this becomes true.
    gate: Option<watch::Receiver<bool>>,
    /// Held by whoever writes, or opens.
    hand: Arc<tokio::sync::Mutex<()>>,
}

impl Destination {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let destination = Self::default();
        destination.0.lock().unwrap().answers.extend(answers);
        destination
    }

    fn holding(holds: impl IntoIterator<Item = Holds>) -> Self {
        let destination = Self::default();
        destination.0.lock().unwrap().resumes.extend(holds);
        destination
    }

    /// One that answers nothing before the sender says true.
    fn behind_a_gate() -> (Self, watch::Sender<bool>) {
        let (gate, destination) = (watch::Sender::new(false), Self::default());
        destination.0.lock().unwrap().gate = Some(gate.subscribe());
        (destination, gate)
    }

    /// The numbers of the events it has accepted, in their order.
    fn accepted(&self) -> Vec<Seq> {
        numbers(&self.0.lock().unwrap().accepted)
    }

    /// The numbers of each attempt.
    fn attempts(&self) -> Vec<Vec<Seq>> {
        self.0.lock().unwrap().attempts.iter().map(|(_, bytes)| numbers(bytes)).collect()
    }

    fn told(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().told.clone()
    }

    fn attempted_at(&self) -> Vec<Instant> {
        self.0.lock().unwrap().attempts.iter().map(|(at, _)| *at).collect()
    }
}

fn numbers(lines: &[u8]) -> Vec<Seq> {
    let text = std::str::from_utf8(lines).unwrap();
    text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[async_trait]
impl Sink for Destination {
    async fn probe(&self) -> Result<String, DeliveryError> {
        unreachable!("a courier delivers, and nothing else")
    }

    async fn resume(
        &mut self,
        _: Option<&Bookmark>,
        upcoming: &mut dyn Upcoming,
    ) -> Result<Resumed, DeliveryError> {
        let holds = self.0.lock().unwrap().resumes.pop_front();
        let adopted = match holds {
            Some(Holds::Fails) => return Err(failure()),
            Some(Holds::Events(count)) => count,
            None => 0,
        };
        // One more is looked at, and found not to be held.
        for _ in 0..=adopted {
            let format = siemferry::encode::Format::Raw;
            upcoming.next(format).await.expect("the spool can be read");
        }
        Ok(Resumed { adopted, bookmark: Some(Bookmark("resumed".into())) })
    }

    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        out.extend_from_slice(format!("{} ", event.seq).as_bytes());
        out.extend_from_slice(event.raw);
        out.push(b'\n');
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        let hand = Arc::clone(&self.0.lock().unwrap().hand);
        let _held = hand.lock().await;
        let (answer, gate) = {
            let mut inner = self.0.lock().unwrap();
            inner.attempts.push((Instant::now(), batch.bytes.clone()));
            (inner.answers.pop_front().unwrap_or(Answer::Accept), inner.gate.clone())
        };
        if let Some(mut gate) = gate {
            gate.wait_for(|open| *open).await.expect("the test holds the gate");
        }
        match answer {
            Answer::Accept => {
                let mut inner = self.0.lock().unwrap();
                inner.accepted.extend_from_slice(&batch.bytes);
                let bookmark = Some(Bookmark(inner.accepted.len().to_string()));
                Ok(Receipt { bookmark, ..Receipt::default() })
            }
            Answer::Fail => Err(failure()),
            Answer::Block => {
                Err(DeliveryError::blocked("forbidden", "give it the role".to_owned()))
            }
        }
    }

    async fn settled(&self) {
        self.0.lock().unwrap().told.push("settled");
    }

    async fn reopen(&self) {
        let hand = Arc::clone(&self.0.lock().unwrap().hand);
        let _held = hand.lock().await;
        self.0.lock().unwrap().told.push("reopened");
    }

    async fn close(&self, in_a_hurry: bool) {
        self.0.lock().unwrap().told.push(if in_a_hurry { "closed in a hurry" } else { "closed" });
    }
}

fn failure() -> DeliveryError {
    DeliveryError::passing("connection reset")
}

/// A courier under way.
struct Run {
    task: JoinHandle<Result<End, store::Error>>,
    stop: watch::Sender<bool>,
    finish: watch::Sender<bool>,
    reopen: watch::Sender<()>,
}

async fn start(store: &Store, name: &str, sink: &Destination, limits: BatchLimits) -> Run {
    let mut registered = store.register_sink(name, true).await.unwrap();
    let (stop, finish) = (watch::Sender::new(false), watch::Sender::new(false));
    let reopen = watch::Sender::new(());
    let orders =
        Orders { stop: stop.subscribe(), finish: finish.subscribe(), reopen: reopen.subscribe() };
    let bookmark = registered.bookmark.take();
    let route = Route::default();
    let delivery =
        Delivery { batch: limits, in_flight: 1, route, is_exact: true, counts_events: false };
    let courier =
        Courier::new(name, Box::new(sink.clone()), delivery, store.clone(), &registered, orders);
    Run { task: tokio::spawn(courier.run(bookmark)), stop, finish, reopen }
}

impl Run {
    /// Waits until nothing waits any more.
    async fn finish(self) -> End {
        self.finish.send_replace(true);
        self.task.await.unwrap().unwrap()
    }

    async fn stop(self) -> End {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap()
    }
}

fn limits(events: u32, bytes: u64, wait: u64) -> BatchLimits {
    let events = NonZeroU32::new(events).unwrap();
    BatchLimits { events, bytes: Bytes::new(bytes), wait: Span::seconds(wait) }
}

fn settled(shelf: &Shelf) -> i64 {
    shelf.ask("SELECT settled_seq FROM sinks WHERE name = 's'")
}

/// Waits until the sink has settled so many; a blocked one would end when it is told to finish.
async fn all_settled(shelf: &Shelf, count: u64) {
    let mut settles = shelf.store().settled();
    while settled(shelf).cast_unsigned() < count {
        settles.changed().await.expect("the store is open");
    }
}

/// What takes longer than this never comes.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in vain")
}

/// Waits for what the store tells beside the courier, without the paused clock running on.
async fn until(mut is_true: impl FnMut() -> bool) {
    while !is_true() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_by_its_events() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 5, 10).await;
    shelf.fill(5, 3, 10).await;
    let sink = Destination::default();

    let ended = start(shelf.store(), "s", &sink, limits(3, 1 << 20, 0)).await.finish().await;

    assert_eq!(ended, End::Done);
    assert_eq!(sink.attempts(), [vec![1, 2, 3], vec![4, 5, 6], vec![7, 8]]);
    assert_eq!((settled(&shelf), shelf.ask("SELECT delivered FROM sinks")), (8, 8));
    assert_eq!(shelf.ask("SELECT bookmark > 0 FROM sinks"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_by_its_bytes_and_a_longer_event_goes_alone() {
    let shelf = Shelf::new(STABLE).await;
    for (from, count, bytes) in [(0, 2, 10), (2, 1, 5000), (3, 3, 10)] {
        shelf.fill(from, count, bytes).await;
    }
    let sink = Destination::default();

    start(shelf.store(), "s", &sink, limits(100, 80, 0)).await.finish().await;

    assert_eq!(sink.attempts(), [vec![1, 2], vec![3], vec![4, 5], vec![6]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_full_waits_for_more_but_not_longer() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 2, 10).await;
    let sink = Destination::default();
    let begun = Instant::now();

    let run = start(shelf.store(), "s", &sink, limits(5, 1 << 20, 30)).await;
    let mut settles = shelf.store().settled();
    // The first settle is that of the resume.
    settles.wait_for(|count| *count == 2).await.unwrap();

    assert_eq!(sink.attempts(), [[1, 2]]);
    let waited = sink.attempted_at()[0] - begun;
    assert!((Duration::from_secs(30)..Duration::from_secs(31)).contains(&waited), "{waited:?}");
    assert_eq!(run.stop().await, End::Stopped);
}

#[tokio::test]
async fn a_batch_that_becomes_full_while_it_waits_goes_at_once() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 2, 10).await;
    let sink = Destination::default();
    let an_hour = 3600;

    let run = start(shelf.store(), "s", &sink, limits(5, 1 << 20, an_hour)).await;
    let mut settles = shelf.store().settled();
    in_time(settles.wait_for(|count| *count == 1)).await.unwrap();
    shelf.fill(2, 3, 10).await;
    in_time(settles.wait_for(|count| *count == 2)).await.unwrap();

    assert_eq!(sink.attempts(), [[1, 2, 3, 4, 5]]);
    run.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_more_when_nothing_more_will_come() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 2, 10).await;
    let sink = Destination::default();

    let run = start(shelf.store(), "s", &sink, limits(5, 1 << 20, 3600)).await;
    let mut settles = shelf.store().settled();
    in_time(settles.wait_for(|count| *count == 1)).await.unwrap();
    // It waits already when it is told.
    tokio::task::yield_now().await;

    assert_eq!(in_time(run.finish()).await, End::Done);
    assert_eq!(sink.accepted(), [1, 2]);
}

#[tokio::test]
async fn a_stop_ends_the_wait_for_more_and_begins_no_delivery() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 2, 10).await;
    let sink = Destination::default();

    let run = start(shelf.store(), "s", &sink, limits(5, 1 << 20, 3600)).await;
    in_time(shelf.store().settled().wait_for(|count| *count == 1)).await.unwrap();
    tokio::task::yield_now().await;

    assert_eq!(run.stop().await, End::Stopped);
    assert_eq!(sink.attempts().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_fails_is_tried_again_with_the_same_bytes() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 3, 10).await;
    let sink = Destination::answering([Answer::Fail, Answer::Fail, Answer::Fail]);

    let run = start(shelf.store(), "s", &sink, limits(3, 1 << 20, 0)).await;
    until(|| !sink.attempts().is_empty()).await;
    // What comes meanwhile does not change the batch.
    shelf.fill(3, 2, 10).await;
    run.finish().await;

    assert_eq!(sink.accepted(), [1, 2, 3, 4, 5]);
    let inner = sink.0.lock().unwrap();
    assert!(inner.attempts[1..4].iter().all(|(_, bytes)| *bytes == inner.attempts[0].1));
}

#[tokio::test(start_paused = true)]
async fn a_blocked_sink_is_shown_as_such_until_it_works_again() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 3, 10).await;
    let sink = Destination::answering([Answer::Block, Answer::Block, Answer::Block]);
    let state =
        |name: &str| shelf.ask(&format!("SELECT count(*) FROM sinks WHERE state = '{name}'"));

    let run = start(shelf.store(), "s", &sink, limits(3, 1 << 20, 0)).await;
    until(|| state("blocked") == 1).await;
    assert_eq!(settled(&shelf), 0, "nothing is settled meanwhile");
    all_settled(&shelf, 3).await;
    run.finish().await;

    assert_eq!(state("ok"), 1);
    assert_eq!(shelf.ask("SELECT last_error = 'forbidden' FROM sinks"), 1, "it can be read later");
    assert_eq!((sink.attempts().len(), sink.accepted().len()), (4, 3));
    let at = sink.attempted_at();
    let apart = at.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(apart.into_iter().all(|apart| apart >= Duration::from_secs(15)), "it is probed");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_answers_nothing_holds_up_no_other() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 6, 10).await;
    let (slow, gate) = Destination::behind_a_gate();
    let fast = Destination::default();

    let hanging = start(shelf.store(), "slow", &slow, limits(2, 1 << 20, 0)).await;
    let run = start(shelf.store(), "s", &fast, limits(2, 1 << 20, 0)).await;

    assert_eq!(run.finish().await, End::Done);
    assert_eq!(fast.accepted().len(), 6);
    assert_eq!(shelf.store().prune(Prune::Bytes(1)).await.unwrap(), 0, "what it needs is kept");
    gate.send_replace(true);
    hanging.finish().await;
    assert_eq!(slow.accepted(), fast.accepted());
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_delivery_in_hand_and_settles_it() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 6, 10).await;
    let (sink, gate) = Destination::behind_a_gate();

    let run = start(shelf.store(), "s", &sink, limits(2, 1 << 20, 0)).await;
    until(|| sink.attempts().len() == 1).await;
    run.stop.send_replace(true);
    tokio::task::yield_now().await;
    assert!(!run.task.is_finished());
    gate.send_replace(true);

    assert_eq!(run.task.await.unwrap().unwrap(), End::Stopped);
    assert_eq!((sink.accepted(), settled(&shelf)), (vec![1, 2], 2));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_sink_that_fails() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 2, 10).await;
    let sink = Destination::answering([Answer::Block; 1000]);

    let run = start(shelf.store(), "s", &sink, limits(2, 1 << 20, 0)).await;
    until(|| sink.attempts().len() == 1).await;

    assert_eq!(run.stop().await, End::Stopped);
    assert_eq!((sink.attempts().len(), settled(&shelf)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_sink_holds_already_is_settled_and_not_delivered() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 3, 10).await;
    shelf.fill(3, 3, 10).await;
    let sink = Destination::holding([Holds::Fails, Holds::Fails, Holds::Events(4)]);

    start(shelf.store(), "s", &sink, limits(9, 1 << 20, 0)).await.finish().await;

    assert_eq!((sink.accepted(), settled(&shelf)), (vec![5, 6], 6));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_comes_back_after_its_events_were_pruned_goes_on_with_those_kept() {
    let mut shelf = Shelf::new(STABLE).await;
    shelf.store().register_sink("s", true).await.unwrap();
    shelf.fill(0, 3, 10).await;
    shelf.fill(3, 4, 10).await;
    // It is out of the configuration for a while.
    shelf.reopen().await;
    let other = shelf.store().register_sink("other", true).await.unwrap().id;
    shelf.store().settle(Settlement::of(other, 0, 7, 7)).await.unwrap();
    shelf.store().prune(Prune::Bytes(1)).await.unwrap();
    assert_eq!(shelf.events().await[0].seq, 4);
    // It holds the first two of those that are kept.
    shelf.reopen().await;
    let sink = Destination::holding([Holds::Events(2)]);

    start(shelf.store(), "s", &sink, limits(9, 1 << 20, 0)).await.finish().await;

    assert_eq!((sink.accepted(), settled(&shelf)), (vec![6, 7], 7));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_to_be_opened_again_in_the_middle_of_a_delivery_goes_on() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 5, 10).await;
    let (sink, gate) = Destination::behind_a_gate();
    let run = start(shelf.store(), "s", &sink, limits(3, 1 << 20, 0)).await;
    until(|| sink.attempts().len() == 1).await;

    run.reopen.send_replace(());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.send_replace(true);

    assert_eq!(run.finish().await, End::Done);
    assert_eq!(sink.accepted(), [1, 2, 3, 4, 5]);
    assert!(sink.told().contains(&"reopened"));
}

#[tokio::test(start_paused = true)]
async fn a_sink_is_told_what_is_settled_and_when_it_is_over() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 5, 10).await;
    let sink = Destination::answering([Answer::Fail]);

    start(shelf.store(), "s", &sink, limits(3, 1 << 20, 0)).await.finish().await;

    // Of the resume, and of two batches.
    assert_eq!(sink.told(), ["settled", "settled", "settled", "closed"]);
    let sink = Destination::default();
    let run = start(shelf.store(), "s", &sink, limits(3, 1 << 20, 0)).await;
    until(|| !sink.told().is_empty()).await;
    run.stop().await;
    assert_eq!(sink.told(), ["settled", "closed in a hurry"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_sink_is_opened_again_as_soon_as_that_is_asked() {
    let shelf = Shelf::new(STABLE).await;
    let sink = Destination::default();
    let run = start(shelf.store(), "s", &sink, limits(3, 1 << 20, 0)).await;

    for count in 1..=2 {
        run.reopen.send_replace(());
        let reopened = || sink.told().iter().filter(|told| **told == "reopened").count();
        until(|| reopened() == count).await;
    }

    run.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_waits_to_be_tried_again_is_opened_and_tried_when_that_is_asked() {
    for answer in [Answer::Fail, Answer::Block] {
        let shelf = Shelf::new(STABLE).await;
        shelf.fill(0, 3, 10).await;
        let sink = Destination::answering([answer]);
        let run = start(shelf.store(), "s", &sink, limits(3, 1 << 20, 0)).await;
        until(|| shelf.ask("SELECT count(*) FROM sinks WHERE state != 'ok'") == 1).await;

        run.reopen.send_replace(());

        until(|| sink.attempts().len() == 2).await;
        let at = sink.attempted_at();
        assert_eq!(at[0], at[1], "no time has passed");
        run.finish().await;
        assert_eq!(sink.told(), ["settled", "reopened", "settled", "closed"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_comes_back_after_all_its_events_were_pruned_waits_for_the_next() {
    let mut shelf = Shelf::new(STABLE).await;
    shelf.store().register_sink("s", true).await.unwrap();
    shelf.fill(0, 3, 10).await;
    // It is out of the configuration for a while.
    shelf.reopen().await;
    let other = shelf.store().register_sink("other", true).await.unwrap().id;
    shelf.store().settle(Settlement::of(other, 0, 3, 3)).await.unwrap();
    assert!(shelf.store().prune(Prune::Bytes(u64::MAX)).await.unwrap() > 0);
    shelf.reopen().await;
    let sink = Destination::default();

    let run = start(shelf.store(), "s", &sink, limits(9, 1 << 20, 0)).await;
    all_settled(&shelf, 3).await;
    assert_eq!(shelf.ask("SELECT delivered FROM sinks WHERE name = 's'"), 0);
    shelf.fill(3, 2, 10).await;

    assert_eq!(run.finish().await, End::Done);
    assert_eq!((sink.accepted(), settled(&shelf)), (vec![4, 5], 5));
}

#[tokio::test(start_paused = true)]
async fn events_for_another_sink_are_passed_over_and_not_counted() {
    let shelf = Shelf::new(STABLE).await;
    let other = shelf.store().register_sink("other", true).await.unwrap().id;
    let ours = shelf.store().register_sink("s", true).await.unwrap().id;
    let mut expected = Vec::new();
    for round in 0..4 {
        shelf.fill(round * 2, 2, 10).await;
        let last = shelf.send_again(other).await;
        expected.extend([last - 2, last - 1, shelf.send_again(ours).await]);
    }
    let last = shelf.send_again(other).await;
    shelf.store().look_beside().await.unwrap();
    let sink = Destination::holding([Holds::Fails, Holds::Events(5)]);

    start(shelf.store(), "s", &sink, limits(4, 1 << 20, 0)).await.finish().await;

    assert_eq!(sink.attempts(), [expected[5..9].to_vec(), expected[9..].to_vec()]);
    assert_eq!(settled(&shelf).cast_unsigned(), last);
    let delivered = shelf.ask("SELECT delivered FROM sinks WHERE name = 's'");
    assert_eq!(delivered.cast_unsigned(), expected.len() as u64);
}

/// What happens to a sink whose courier is killed now and then.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Events(u64),
    Again,
    ForAnother,
    Waits(u32),
    Killed,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whenever_it_is_killed_a_sink_gets_its_own_events_once_and_in_order(
        turns in proptest::collection::vec(
            prop_oneof![
                3 => (1..6u64).prop_map(Turn::Events),
                2 => Just(Turn::Again),
                3 => Just(Turn::ForAnother),
                4 => (1..200u32).prop_map(Turn::Waits),
                3 => Just(Turn::Killed),
            ],
            1..24),
        answers in proptest::collection::vec(
            prop_oneof![4 => Just(Answer::Accept), 1 => Just(Answer::Fail)], 0..20),
        batch in 1..5u32,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let mut shelf = Shelf::new(STABLE).await;
            let other = shelf.store().register_sink("other", true).await.unwrap().id;
            let ours = shelf.store().register_sink("s", true).await.unwrap().id;
            let sink = Destination::answering(answers);
            let limits = limits(batch, 1 << 20, 0);
            let mut run = start(shelf.store(), "s", &sink, limits).await;
            let (mut filled, mut last, mut expected) = (0, 0, Vec::new());
            for turn in turns {
                match turn {
                    Turn::Events(count) => {
                        shelf.fill(filled, count, 10).await;
                        filled += count;
                        expected.extend(last + 1..=last + count);
                        last += count;
                    }
                    Turn::Again => {
                        last = shelf.send_again(ours).await;
                        expected.push(last);
                        shelf.store().look_beside().await.unwrap();
                    }
                    Turn::ForAnother => {
                        last = shelf.send_again(other).await;
                        shelf.store().look_beside().await.unwrap();
                    }
                    Turn::Waits(times) => {
                        for _ in 0..times {
                            tokio::task::yield_now().await;
                        }
                    }
                    Turn::Killed => {
                        run.task.abort();
                        let _ = run.task.await;
                        shelf.reopen().await;
                        let delivered = "SELECT delivered FROM sinks WHERE name = 's'";
                        let unsettled = sink.accepted().len() as u64 - shelf.ask(delivered).cast_unsigned();
                        sink.0.lock().unwrap().resumes = [Holds::Events(unsettled)].into();
                        run = start(shelf.store(), "s", &sink, limits).await;
                    }
                }
            }
            all_settled(&shelf, last).await;
            assert_eq!(run.finish().await, End::Done);
            assert_eq!(sink.accepted(), expected);
            let delivered = shelf.ask("SELECT delivered FROM sinks WHERE name = 's'");
            assert_eq!(delivered.cast_unsigned(), expected.len() as u64);
        });
    }
}

#[derive(Clone, Debug)]
enum Step {
    Events(u64),
    Restart,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_sink_answers_every_event_is_accepted_once_and_in_order(
        steps in proptest::collection::vec(
            prop_oneof![5 => (1..8u64).prop_map(Step::Events), 1 => Just(Step::Restart)], 1..12),
        answers in proptest::collection::vec(
            prop_oneof![3 => Just(Answer::Accept), 2 => Just(Answer::Fail), 1 => Just(Answer::Block)],
            0..40),
        batch in 1..6u32,
        bytes in 30..200u64,
        wait in 0..2u64,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let mut shelf = Shelf::new(STABLE).await;
            let sink = Destination::answering(answers);
            let limits = limits(batch, bytes, wait);
            let mut run = start(shelf.store(), "s", &sink, limits).await;
            let mut filled = 0;
            for step in steps {
                match step {
                    Step::Events(count) => {
                        shelf.fill(filled, count, 10).await;
                        filled += count;
                    }
                    Step::Restart => {
                        run.stop().await;
                        shelf.reopen().await;
                        run = start(shelf.store(), "s", &sink, limits).await;
                    }
                }
            }
            all_settled(&shelf, filled).await;
            assert_eq!(run.finish().await, End::Done);
            assert_eq!(sink.accepted(), (1..=filled).collect::<Vec<_>>());
            assert_eq!(settled(&shelf).cast_unsigned(), filled);
        });
    }
}

#[test]
fn a_full_spool_pauses_polling_until_the_sink_is_mended_and_all_is_delivered_once() {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use siemferry::sim::{self, Clock, Options};

    const END: i64 = 1_790_000_000_000;
    const EVENTS: usize = 3000;
    let sim = Sim::start(Options { clock: Clock::Manual(END), ..Options::default() });
    sim.api.add_all(sim::week(7, END, EVENTS));
    let all_visible = sim.api.world().settled_at(END).unwrap_or(END);
    sim.api.set_now(all_visible + 1000);
    let start = chrono::DateTime::from_timestamp_millis(END - 7 * 86_400_000).unwrap().to_rfc3339();
    let source = format!("start = \"{start}\"\npoll_every = \"10ms\"");
    let home = Home::new(&sim.api.url(), &source, "[spool]\nmax_bytes = \"16KiB\"");
    let dir = home.file().parent().unwrap().to_owned();
    std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();

    let mut daemon = home.spawn();
    eventually("polling pauses", || {
        home.logged("There is no room for new events; polling pauses.") > 0
            && home.status()["sources"]["acme"]["state"] == "paused"
    });
    let status = home.status();
    assert_eq!(status["sinks"]["archive"]["state"], "blocked");
    let bytes = status["spool"]["bytes"].as_u64().unwrap();
    assert!((16 << 10..64 << 10).contains(&bytes), "{bytes}");
    let asked = sim.api.requests();
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    assert!(sim.api.requests() <= asked + 1, "it asks for nothing while it is paused");
    assert_eq!(home.logged("Sink is blocked"), 1);
    assert_eq!(home.logged("There is no room for new events; polling pauses."), 1);

    let output = home.command(&["run", "--once", "--patience", "1s"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("`archive` is blocked") && told.contains("`acme` is paused"), "{told}");

    std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    home.run_once_well();
    let report = home.compare(&sim.api);
    assert!(report.is_exact(), "{report}");
    assert_eq!(report.held, EVENTS);
}
