//! The courier of a destination without bookmarks: several batches on their way, outcomes that
//! nobody knows, refusals, and kills in the middle of all that.

use std::collections::{BTreeMap, BTreeSet};
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
    Upcoming, Verdict,
};
use siemferry::store::accept;
use siemferry::store::dead_letters::{Filter, Letters};
use siemferry::store::{self, Store};
use siemferry::units::{Bytes, Span};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::store::shelf::{STABLE, Shelf};

/// What the destination does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Accept,
    /// It takes the events and the answer is lost.
    Lost,
    /// It takes nothing, and nobody can know.
    Vanished,
    Busy,
    Refuse,
    TooLarge,
    Each(Vec<Verdict>),
    Forbidden,
    Unauthorized,
    /// It answers when the gate is opened.
    Later,
}

type Script = Box<dyn FnMut(usize, &[Seq]) -> Answer + Send>;

/// A destination that keeps what it was sent.
#[derive(Clone)]
struct Mailbox(Arc<Mutex<Inner>>);

struct Inner {
    script: Script,
    /// Every request: the batch's id and its events.
    requests: Vec<(String, Vec<Seq>)>,
    /// What it holds, by batch and event.
    held: Vec<(String, Seq)>,
    bytes_of: BTreeMap<String, Vec<u8>>,
    gate: watch::Sender<bool>,
    /// Events that make no message.
    unencodable: BTreeSet<Seq>,
}

fn refuse_if(is_bad: bool, refusal: Answer) -> Answer {
    if is_bad { refusal } else { Answer::Accept }
}

impl Mailbox {
    fn new(script: impl FnMut(usize, &[Seq]) -> Answer + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            script: Box::new(script),
            requests: Vec::new(),
            held: Vec::new(),
            bytes_of: BTreeMap::new(),
            gate: watch::Sender::new(false),
            unencodable: BTreeSet::new(),
        })))
    }

    fn accepting() -> Self {
        Self::new(|_, _| Answer::Accept)
    }

    fn requests(&self) -> Vec<(String, Vec<Seq>)> {
        self.0.lock().unwrap().requests.clone()
    }

    /// The events it holds, in the order in which it took them.
    fn held(&self) -> Vec<Seq> {
        self.0.lock().unwrap().held.iter().map(|(_, seq)| *seq).collect()
    }

    fn sorted(&self) -> Vec<Seq> {
        let mut held = self.held();
        held.sort_unstable();
        held
    }

    fn script(&self, script: impl FnMut(usize, &[Seq]) -> Answer + Send + 'static) {
        self.0.lock().unwrap().script = Box::new(script);
    }

    async fn until(&self, mut is_true: impl FnMut(&Inner) -> bool) {
        let waited = async {
            while !is_true(&self.0.lock().unwrap()) {
                // Of the paused clock: it runs on while nothing else is to be done.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(100_000), waited).await.expect("in vain");
    }
}

#[async_trait]
impl Sink for Mailbox {
    async fn probe(&self) -> Result<String, DeliveryError> {
        unreachable!("a courier delivers, and nothing else")
    }

    async fn resume(
        &mut self,
        _: Option<&Bookmark>,
        _: &mut dyn Upcoming,
    ) -> Result<Resumed, DeliveryError> {
        Ok(Resumed { adopted: 0, bookmark: None })
    }

    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        out.extend_from_slice(format!("{} ", event.seq).as_bytes());
        if self.0.lock().unwrap().unencodable.contains(&event.seq) {
            return Err(Unencodable { reason: "too deep".into() });
        }
        out.extend_from_slice(event.raw);
        out.push(b'\n');
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        let messages = batch.messages().map(|message| std::str::from_utf8(message).unwrap());
        let events: Vec<Seq> =
            messages.map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect();
        let id = batch.id.to_string();
        let (answer, mut gate) = {
            let mut inner = self.0.lock().unwrap();
            let number = inner.requests.len();
            inner.requests.push((id.clone(), events.clone()));
            let known = inner.bytes_of.entry(id.clone()).or_insert_with(|| batch.bytes.clone());
            assert_eq!(*known, batch.bytes, "the same id is the same bytes");
            ((inner.script)(number, &events), inner.gate.subscribe())
        };
        let take = |taken: &mut dyn FnMut(usize) -> bool| {
            let taken = events.iter().enumerate().filter(|(at, _)| taken(*at));
            let taken = taken.map(|(_, seq)| (id.clone(), *seq));
            self.0.lock().unwrap().held.extend(taken);
        };
        let retry = |is_ambiguous| {
            Err(DeliveryError::Retry { after: None, source: "reset".into(), is_ambiguous })
        };
        match answer {
            Answer::Later => {
                gate.wait_for(|open| *open).await.expect("the mailbox is there");
                take(&mut |_| true);
                Ok(Receipt::default())
            }
            Answer::Accept => {
                take(&mut |_| true);
                Ok(Receipt::default())
            }
            Answer::Lost => {
                take(&mut |_| true);
                retry(true)
            }
            Answer::Vanished => retry(true),
            Answer::Busy => retry(false),
            Answer::Refuse => {
                Err(DeliveryError::Refused { reason: "malformed".into(), is_size: false })
            }
            Answer::TooLarge => {
                Err(DeliveryError::Refused { reason: "too large".into(), is_size: true })
            }
            Answer::Each(verdicts) => {
                take(&mut |at| verdicts[at] == Verdict::Accepted);
                Ok(Receipt { verdicts: Some(verdicts), ..Receipt::default() })
            }
            Answer::Forbidden => Err(DeliveryError::Blocked {
                source: "403 Forbidden".into(),
                hint: None,
                may_be_content: true,
            }),
            Answer::Unauthorized => {
                Err(DeliveryError::blocked("401 Unauthorized", "renew the token".to_owned()))
            }
        }
    }
}

struct Run {
    task: JoinHandle<Result<End, store::Error>>,
    stop: watch::Sender<bool>,
    finish: watch::Sender<bool>,
    _reopen: watch::Sender<()>,
}

/// A courier that takes up what the store knows.
async fn start(store: &Store, sink: &Mailbox, events: u32, in_flight: usize) -> Run {
    start_with(store, sink, events, 1 << 20, in_flight, Route::default()).await
}

async fn start_with(
    store: &Store,
    sink: &Mailbox,
    events: u32,
    bytes: u64,
    in_flight: usize,
    route: Route,
) -> Run {
    let registered = store.register_sink("s", true).await.unwrap();
    let (stop, finish) = (watch::Sender::new(false), watch::Sender::new(false));
    let reopen = watch::Sender::new(());
    let orders =
        Orders { stop: stop.subscribe(), finish: finish.subscribe(), reopen: reopen.subscribe() };
    let events = NonZeroU32::new(events).unwrap();
    let batch = BatchLimits { events, bytes: Bytes::new(bytes), wait: Span::seconds(0) };
    let delivery = Delivery { batch, in_flight, route, is_exact: false, counts_events: false };
    let courier =
        Courier::new("s", Box::new(sink.clone()), delivery, store.clone(), &registered, orders);
    Run { task: tokio::spawn(courier.run(None)), stop, finish, _reopen: reopen }
}

impl Run {
    async fn finish(self) -> End {
        self.finish.send_replace(true);
        self.task.await.unwrap().unwrap()
    }

    async fn stop(self) -> End {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap()
    }

    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn of(shelf: &Shelf, column: &str) -> u64 {
    shelf.ask(&format!("SELECT {column} FROM sinks WHERE name = 's'")).cast_unsigned()
}

/// Lets a courier go on until it has settled so many.
async fn settles(shelf: &Shelf, count: u64) {
    let mut settles = shelf.store().settled();
    while of(shelf, "settled_seq") < count {
        settles.changed().await.expect("the store is open");
    }
}

fn letters(shelf: &Shelf) -> Vec<(String, u64)> {
    let letters = Letters::read(&shelf.config().dir).unwrap().list(&Filter::All).unwrap();
    letters.into_iter().map(|letter| (letter.reason, letter.attempts)).collect()
}

async fn filled(events: u64) -> Shelf {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, events, 10).await;
    shelf
}

#[tokio::test(start_paused = true)]
async fn several_batches_are_on_their_way_at_once_and_no_more_than_allowed() {
    let shelf = filled(20).await;
    let sink = Mailbox::new(|_, _| Answer::Later);

    let run = start(shelf.store(), &sink, 3, 4).await;
    sink.until(|inner| inner.requests.len() == 4).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }

    let batches: Vec<Vec<Seq>> = sink.requests().into_iter().map(|(_, events)| events).collect();
    assert_eq!(batches, [vec![1, 2, 3], vec![4, 5, 6], vec![7, 8, 9], vec![10, 11, 12]]);
    sink.0.lock().unwrap().gate.send_replace(true);
    assert_eq!(run.finish().await, End::Done);
    assert_eq!((sink.sorted(), of(&shelf, "settled_seq")), ((1..=20).collect(), 20));
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_out_of_turn_is_settled_in_turn_and_not_sent_again() {
    let mut shelf = filled(9).await;
    let sink = Mailbox::new(|number, _| if number == 0 { Answer::Later } else { Answer::Accept });

    let run = start(shelf.store(), &sink, 3, 3).await;
    sink.until(|inner| inner.held.len() == 6).await;
    while of(&shelf, "delivered") < 6 {
        tokio::task::yield_now().await;
    }
    assert_eq!(of(&shelf, "settled_seq"), 0, "the first three are not known to be there");
    run.kill().await;
    shelf.reopen().await;
    sink.script(|_, _| Answer::Accept);
    assert_eq!(start(shelf.store(), &sink, 3, 3).await.finish().await, End::Done);

    assert_eq!(sink.held(), [4, 5, 6, 7, 8, 9, 1, 2, 3]);
    let requests = sink.requests();
    assert_eq!(requests[0], requests[3], "the same batch, under the same id");
    assert_eq!((of(&shelf, "settled_seq"), of(&shelf, "ambiguous")), (9, 1));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_counted_and_the_same_batch_is_sent_again() {
    let shelf = filled(5).await;
    let sink = Mailbox::new(|number, _| match number {
        0 => Answer::Lost,
        1 => Answer::Vanished,
        2 => Answer::Busy,
        _ => Answer::Accept,
    });

    assert_eq!(start(shelf.store(), &sink, 5, 4).await.finish().await, End::Done);

    let requests = sink.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| *request == requests[0]), "{requests:?}");
    assert_eq!(of(&shelf, "ambiguous"), 2, "a refusal for being busy is none");
    assert_eq!(of(&shelf, "delivered"), 5);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_destination_is_busy_leaves_nothing_in_doubt() {
    let mut shelf = filled(5).await;
    let sink = Mailbox::new(|_, _| Answer::Busy);

    let run = start(shelf.store(), &sink, 2, 4).await;
    sink.until(|inner| inner.requests.len() > 5).await;
    assert_eq!(run.stop().await, End::Stopped);
    shelf.reopen().await;
    sink.script(|_, _| Answer::Accept);
    start(shelf.store(), &sink, 2, 4).await.finish().await;

    assert_eq!((sink.sorted(), of(&shelf, "ambiguous")), ((1..=5).collect(), 0));
}

#[tokio::test(start_paused = true)]
async fn one_poison_among_five_hundred_is_one_dead_letter_and_all_else_is_there_once() {
    let shelf = filled(500).await;
    let poison = 321;
    let sink = Mailbox::new(move |_, events| refuse_if(events.contains(&poison), Answer::Refuse));

    assert_eq!(start(shelf.store(), &sink, 500, 4).await.finish().await, End::Done);

    assert_eq!(sink.sorted(), (1..=500).filter(|seq| *seq != poison).collect::<Vec<_>>());
    assert_eq!(letters(&shelf), [("malformed".to_owned(), 4)]);
    assert_eq!((of(&shelf, "settled_seq"), of(&shelf, "delivered")), (500, 499));
    assert_eq!(of(&shelf, "suspects"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_item_by_item_costs_its_neighbours_nothing() {
    let shelf = filled(10).await;
    let sink = Mailbox::new(|number, events| {
        let verdict = |seq: &Seq| match seq {
            4 => Verdict::Refused { reason: "mapping".into() },
            7 if number == 0 => Verdict::Retry { reason: "busy".into() },
            _ => Verdict::Accepted,
        };
        Answer::Each(events.iter().map(verdict).collect())
    });

    assert_eq!(start(shelf.store(), &sink, 10, 4).await.finish().await, End::Done);

    assert_eq!(sink.held(), [1, 2, 3, 5, 6, 8, 9, 10, 7]);
    assert_eq!(letters(&shelf), [("mapping".to_owned(), 4)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_comes_next_and_in_order() {
    let shelf = filled(20).await;
    let sink = Mailbox::new(|_, events| {
        let sent = |at| if at < 3 { Verdict::Accepted } else { Verdict::Unsent };
        Answer::Each((0..events.len()).map(sent).collect())
    });
    let begun = tokio::time::Instant::now();

    assert_eq!(start(shelf.store(), &sink, 20, 1).await.finish().await, End::Done);

    assert_eq!(sink.held(), (1..=20).collect::<Vec<_>>());
    assert_eq!((of(&shelf, "settled_seq"), of(&shelf, "ambiguous")), (20, 0));
    assert_eq!(begun.elapsed(), Duration::ZERO, "nothing has failed");
}

#[tokio::test(start_paused = true)]
async fn a_poison_alone_is_a_suspect_until_a_later_event_is_accepted() {
    let shelf = filled(1).await;
    let sink = Mailbox::new(|_, events| refuse_if(events.contains(&1), Answer::Refuse));

    let run = start(shelf.store(), &sink, 500, 4).await;
    while of(&shelf, "suspects") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((of(&shelf, "settled_seq"), letters(&shelf).len()), (0, 0));
    shelf.fill(1, 1, 10).await;
    settles(&shelf, 2).await;

    assert_eq!(run.finish().await, End::Done);
    assert_eq!((sink.held(), letters(&shelf).len(), of(&shelf, "suspects")), (vec![2], 1, 0));
}

#[tokio::test(start_paused = true)]
async fn told_to_finish_a_suspect_is_said_to_wait() {
    let shelf = filled(1).await;
    let sink = Mailbox::new(|_, _| Answer::Refuse);

    let ended = start(shelf.store(), &sink, 500, 4).await.finish().await;

    let End::Blocked { error, pending: 1, .. } = ended else { panic!("{ended:?}") };
    assert!(error.contains("malformed"), "{error}");
    assert!(letters(&shelf).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_is_divided_and_later_ones_are_smaller() {
    let shelf = filled(64).await;
    let sink = Mailbox::new(|_, events| match events.len() {
        ..=8 => Answer::Accept,
        _ => Answer::TooLarge,
    });

    let run = start(shelf.store(), &sink, 32, 1).await;
    assert_eq!(run.finish().await, End::Done);

    assert_eq!(sink.sorted(), (1..=64).collect::<Vec<_>>());
    assert!(letters(&shelf).is_empty());
    let refused = sink.requests().iter().filter(|(_, events)| events.len() > 8).count();
    assert_eq!(refused, 3, "the second batch is of a size that is taken");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_by_its_bytes_as_encoded() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 9, 1000).await;
    let sink = Mailbox::accepting();

    let route = Route::default();
    let run = start_with(shelf.store(), &sink, 500, 2100, 4, route).await;
    assert_eq!(run.finish().await, End::Done);

    let sizes: Vec<usize> = sink.requests().iter().map(|(_, events)| events.len()).collect();
    assert_eq!(sizes, [2, 2, 2, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_blocked_sink_keeps_everything_and_goes_on_by_itself() {
    let mut shelf = filled(1000).await;
    let sink = Mailbox::new(|_, _| Answer::Unauthorized);
    let run = start(shelf.store(), &sink, 100, 4).await;
    sink.until(|inner| inner.requests.len() > 12).await;
    assert_eq!(shelf.ask("SELECT count(*) FROM sinks WHERE state = 'blocked'"), 1);
    let probes: Vec<_> = sink.requests().into_iter().skip(4).collect();
    assert!(probes.iter().all(|(_, events)| *events == [1]), "one event a probe: {probes:?}");
    assert_eq!((of(&shelf, "settled_seq"), letters(&shelf).len()), (0, 0));
    run.kill().await;
    shelf.reopen().await;

    let run = start(shelf.store(), &sink, 100, 4).await;
    sink.until(|inner| inner.requests.len() > 20).await;
    sink.script(|_, _| Answer::Accept);
    settles(&shelf, 1000).await;

    assert_eq!(run.finish().await, End::Done);
    assert_eq!(sink.sorted(), (1..=1000).collect::<Vec<_>>());
    assert_eq!(shelf.ask("SELECT count(*) FROM sinks WHERE state = 'ok'"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_firewall_forbids_is_found_out_and_the_rest_is_delivered() {
    let shelf = filled(300).await;
    let sink = Mailbox::new(|_, events| refuse_if(events.contains(&150), Answer::Forbidden));

    let run = start(shelf.store(), &sink, 100, 4).await;
    settles(&shelf, 300).await;

    assert_eq!(run.finish().await, End::Done);
    assert_eq!(sink.sorted(), (1..=300).filter(|seq| *seq != 150).collect::<Vec<_>>());
    assert_eq!(letters(&shelf).len(), 1);
}

/// One answer blocks the sink and another ends that at once, while both were on their way.
#[tokio::test(start_paused = true)]
async fn what_a_short_block_has_dropped_is_sent_all_the_same() {
    let shelf = filled(12).await;
    let sink = Mailbox::new(|number, events| match number {
        0 => Answer::Unauthorized,
        1..=3 => Answer::Each(vec![Verdict::Accepted; events.len()]),
        _ => Answer::Accept,
    });

    let run = start(shelf.store(), &sink, 3, 4).await;
    settles(&shelf, 12).await;

    assert_eq!(run.finish().await, End::Done);
    assert_eq!(sink.sorted(), (1..=12).collect::<Vec<_>>());
}

/// Somebody agrees beside the courier, while it is blocked.
async fn agreed(shelf: &Shelf, sink: &Mailbox) {
    let is_blocked = "SELECT count(*) FROM sinks WHERE name = 's' AND state = 'blocked'";
    while shelf.ask(is_blocked) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!sink.requests().is_empty());
    accept::ask(&shelf.config().dir, "s", 1).unwrap();
    shelf.store().look_beside().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_somebody_agrees_to_becomes_dead_letters_and_the_rest_is_delivered() {
    let shelf = filled(600).await;
    let is_bad = |seq: &Seq| *seq > 100 && seq.is_multiple_of(4);
    let sink = Mailbox::new(move |_, events| refuse_if(events.iter().any(is_bad), Answer::Refuse));

    let run = start(shelf.store(), &sink, 100, 4).await;
    agreed(&shelf, &sink).await;
    settles(&shelf, 600).await;

    assert_eq!(run.finish().await, End::Done);
    assert_eq!(sink.sorted(), (1..=600).filter(|seq| !is_bad(seq)).collect::<Vec<_>>());
    assert_eq!((letters(&shelf).len(), of(&shelf, "suspects")), (125, 0));
}

#[tokio::test(start_paused = true)]
async fn somebody_may_agree_that_everything_becomes_dead_letters() {
    let shelf = filled(300).await;
    let sink = Mailbox::new(|_, _| Answer::Refuse);

    let run = start(shelf.store(), &sink, 100, 4).await;
    agreed(&shelf, &sink).await;
    settles(&shelf, 300).await;

    assert_eq!(run.finish().await, End::Done);
    assert_eq!((sink.held().len(), letters(&shelf).len()), (0, 300));
    let open = shelf.ask("SELECT count(*) FROM requests WHERE state = 'waiting'");
    assert_eq!(open, 0, "what was agreed to is done");
}

#[tokio::test(start_paused = true)]
async fn a_doubt_is_counted_once_however_often_it_is_stopped_in_order() {
    let mut shelf = filled(5).await;
    let sink = Mailbox::new(|number, _| match number {
        0 => Answer::Lost,
        _ => Answer::Busy,
    });

    for round in 0..4 {
        let requests = sink.requests().len();
        let run = start(shelf.store(), &sink, 5, 4).await;
        sink.until(|inner| inner.requests.len() > requests + 1).await;
        assert_eq!(run.stop().await, End::Stopped, "round {round}");
        shelf.reopen().await;
    }
    sink.script(|_, _| Answer::Accept);
    start(shelf.store(), &sink, 5, 4).await.finish().await;

    assert_eq!(of(&shelf, "ambiguous"), 1);
    let ids: BTreeSet<String> = sink.requests().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 1, "under one id");
}

#[tokio::test(start_paused = true)]
async fn what_has_met_its_fate_ahead_of_others_does_not_wait() {
    let shelf = filled(9).await;
    let sink = Mailbox::new(|number, _| if number == 0 { Answer::Later } else { Answer::Accept });

    let run = start(shelf.store(), &sink, 3, 3).await;
    let id = shelf.ask("SELECT id FROM sinks WHERE name = 's'");
    while of(&shelf, "delivered") < 6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    assert_eq!(shelf.store().pending(id).await.unwrap(), 3);
    sink.0.lock().unwrap().gate.send_replace(true);
    assert_eq!(run.finish().await, End::Done);
    assert_eq!(shelf.store().pending(id).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_makes_no_message_is_a_dead_letter() {
    let shelf = filled(10).await;
    let sink = Mailbox::accepting();
    sink.0.lock().unwrap().unencodable = [1, 5, 10].into();

    assert_eq!(start(shelf.store(), &sink, 4, 2).await.finish().await, End::Done);

    assert_eq!(sink.sorted(), [2, 3, 4, 6, 7, 8, 9]);
    assert_eq!(letters(&shelf), vec![("too deep".to_owned(), 0); 3]);
    assert_eq!(of(&shelf, "settled_seq"), 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_for_the_sink_is_passed_over() {
    let shelf = filled(10).await;
    let sink = Mailbox::accepting();
    let route = Route { sources: Some(vec!["other".into()]), ..Route::default() };

    let run = start_with(shelf.store(), &sink, 4, 1 << 20, 2, route).await;
    assert_eq!(run.finish().await, End::Done);

    assert!(sink.requests().is_empty());
    assert_eq!((of(&shelf, "settled_seq"), of(&shelf, "delivered")), (10, 0));
}

/// What happens to a courier.
#[derive(Clone, Debug)]
enum Turn {
    Events(u64),
    Waits(u32),
    Killed,
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        8 => Just(Answer::Accept),
        2 => Just(Answer::Lost),
        1 => Just(Answer::Vanished),
        1 => Just(Answer::Busy),
        1 => Just(Answer::Unauthorized),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Repeats are whole batches, under the same id, and no more than were counted.
    #[test]
    fn whatever_happens_nothing_is_lost_and_each_repeat_is_counted(
        turns in prop::collection::vec(
            prop_oneof![
                4 => (1..9_u64).prop_map(Turn::Events),
                4 => (1..200_u32).prop_map(Turn::Waits),
                3 => Just(Turn::Killed),
            ],
            1..20),
        script in prop::collection::vec(answers(), 0..40),
        batch in 1..5_u32,
        in_flight in 1..5_usize,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let mut shelf = Shelf::new(STABLE).await;
            let sink = Mailbox::new(move |number, _| {
                script.get(number).cloned().unwrap_or(Answer::Accept)
            });
            let mut run = start(shelf.store(), &sink, batch, in_flight).await;
            let mut filled = 0;
            for turn in turns {
                match turn {
                    Turn::Events(count) => {
                        shelf.fill(filled, count, 10).await;
                        filled += count;
                    }
                    Turn::Waits(times) => {
                        for _ in 0..times {
                            tokio::task::yield_now().await;
                        }
                    }
                    Turn::Killed => {
                        run.kill().await;
                        shelf.reopen().await;
                        run = start(shelf.store(), &sink, batch, in_flight).await;
                    }
                }
            }
            settles(&shelf, filled).await;
            assert_eq!(run.finish().await, End::Done);

            let held = sink.0.lock().unwrap().held.clone();
            let distinct: BTreeSet<Seq> = held.iter().map(|(_, seq)| *seq).collect();
            assert_eq!(distinct, (1..=filled).collect(), "nothing is lost");
            let mut batches_of: BTreeMap<Seq, BTreeSet<&str>> = BTreeMap::new();
            let mut times: BTreeMap<(&str, Seq), u64> = BTreeMap::new();
            for (id, seq) in &held {
                batches_of.entry(*seq).or_default().insert(id);
                *times.entry((id, *seq)).or_default() += 1;
            }
            assert!(
                batches_of.values().all(|ids| ids.len() == 1),
                "under the same id: {:?}",
                sink.requests()
            );
            let repeats: BTreeMap<&str, u64> =
                times.iter().map(|((id, _), times)| (*id, times - 1)).collect();
            let repeated: u64 = repeats.values().sum();
            assert!(repeated <= of(&shelf, "ambiguous"), "{repeated} repeats are not counted");
            let delivered = of(&shelf, "delivered");
            assert_eq!(delivered, filled, "each is counted as delivered once");
            assert!(letters(&shelf).is_empty());
        });
    }
}
