use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;

use proptest::prelude::*;
use siemferry::position::Window;
use siemferry::store::sinks::Settlement;
use siemferry::store::{Prune, Shortage};
use siemferry::units::Bytes;

use super::shelf::{STABLE, Shelf, T0};

const ALL: Prune = Prune::Bytes(u64::MAX);
const BODIES: &str = "SELECT coalesce(sum(length(body)), 0) FROM pages";

#[tokio::test]
async fn only_what_all_sinks_have_settled_goes() {
    let shelf = Shelf::new(STABLE).await;
    let store = shelf.store();
    let fast = store.register_sink("fast", true).await.unwrap().id;
    let slow = store.register_sink("slow", true).await.unwrap().id;
    for page in 0..4 {
        shelf.fill(page * 5, 5, 50).await;
    }

    store.settle(Settlement::of(fast, 0, 20, 20)).await.unwrap();
    assert_eq!(store.prune(ALL).await.unwrap(), 0);
    // In the middle of the second page: that one stays.
    store.settle(Settlement::of(slow, 0, 7, 7)).await.unwrap();
    assert!(store.prune(ALL).await.unwrap() > 0);

    assert_eq!(shelf.events().await[0].seq, 6);
    assert_eq!(shelf.ask("SELECT count(*) FROM pages"), 3);
}

#[tokio::test]
async fn without_a_sink_nothing_goes() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 5, 50).await;

    assert_eq!(shelf.store().prune(ALL).await.unwrap(), 0);
}

#[tokio::test]
async fn a_sink_that_was_removed_pins_nothing() {
    let mut shelf = Shelf::new(STABLE).await;
    shelf.store().register_sink("removed", true).await.unwrap();
    shelf.fill(0, 5, 50).await;
    shelf.reopen().await;
    let stays = shelf.store().register_sink("stays", true).await.unwrap().id;
    shelf.store().settle(Settlement::of(stays, 0, 5, 5)).await.unwrap();

    let fetched = (T0 + 1) * 1000;
    assert_eq!(shelf.store().prune(Prune::FetchedBefore(fetched)).await.unwrap(), 0, "kept");
    assert!(shelf.store().prune(Prune::FetchedBefore(fetched + 1)).await.unwrap() > 0);
    assert_eq!(shelf.events().await, []);
}

#[tokio::test]
async fn room_is_made_from_the_oldest_settled_pages_and_no_more_than_needed() {
    let shelf = Shelf::new(STABLE).await;
    let store = shelf.store();
    let sink = store.register_sink("s", true).await.unwrap().id;
    for page in 0..8 {
        shelf.fill(page, 1, 4000).await;
    }
    let whole = store.spool_bytes();
    let short = store.make_room(Bytes::new(whole)).await.unwrap();
    assert_eq!(short, Some(Shortage::Spool(Bytes::new(whole))), "nothing is settled");
    assert_eq!(store.make_room(Bytes::new(whole + 1)).await.unwrap(), None, "there is room");
    assert_eq!(store.spool_bytes(), whole);

    store.settle(Settlement::of(sink, 0, 5, 5)).await.unwrap();
    assert_eq!(store.make_room(Bytes::new(whole * 11 / 16)).await.unwrap(), None);
    assert_eq!(shelf.events().await[0].seq, 4, "three of eight pages went");
    let short = store.make_room(Bytes::new(whole / 8)).await.unwrap();
    assert!(short.is_some(), "three are not settled");
    assert_eq!(shelf.events().await[0].seq, 6);
}

#[tokio::test]
async fn numbers_are_not_used_again_when_the_spool_was_emptied() {
    let mut shelf = Shelf::new(STABLE).await;
    let sink = shelf.store().register_sink("s", true).await.unwrap().id;
    shelf.fill(0, 5, 50).await;
    shelf.store().settle(Settlement::of(sink, 0, 5, 5)).await.unwrap();
    shelf.store().prune(ALL).await.unwrap();

    shelf.reopen().await;
    assert_eq!(*shelf.store().committed().borrow(), 5);
    shelf.fill(5, 1, 50).await;

    assert_eq!(shelf.events().await[0].seq, 6);
}

#[tokio::test]
async fn the_file_shrinks_when_the_spool_does() {
    let shelf = Shelf::new(STABLE).await;
    let sink = shelf.store().register_sink("s", true).await.unwrap().id;
    for page in 0..20 {
        shelf.fill(page, 1, 100_000).await;
    }
    let before = shelf.ask("PRAGMA page_count");

    shelf.store().settle(Settlement::of(sink, 0, 20, 20)).await.unwrap();
    shelf.store().prune(ALL).await.unwrap();

    let after = shelf.ask("PRAGMA page_count");
    assert!(after * 4 < before, "{before} pages of the file became {after}");
}

#[tokio::test]
async fn a_page_that_goes_before_its_commit_was_noticed_is_not_counted_below_nothing() {
    let shelf = Shelf::new(STABLE).await;
    let store = shelf.store();
    let sink = store.register_sink("s", true).await.unwrap().id;
    let reading = shelf.reading(0, Window { start: T0, end: T0 + 1 });
    let commit = reading.commit(&[("{}", None)], Some("next"), Vec::new());

    // The poller is asked once and then left alone while the courier runs ahead of it.
    let mut commit = pin!(store.commit_page(commit));
    let answered = poll_fn(|cx| Poll::Ready(commit.as_mut().poll(cx).is_ready())).await;
    store.settle(Settlement::of(sink, 0, 1, 1)).await.unwrap();
    store.prune(ALL).await.unwrap();
    let between = store.spool_bytes();
    if !answered {
        commit.await.unwrap();
    }

    assert_eq!((between, store.spool_bytes()), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Fill { events: u64, bytes: usize },
    Settle { events: u64 },
    PruneBytes(u64),
    PruneAge(i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..6u64, 0..3000usize).prop_map(|(events, bytes)| Step::Fill { events, bytes }),
        4 => (0..20u64).prop_map(|events| Step::Settle { events }),
        2 => (0..20_000u64).prop_map(Step::PruneBytes),
        1 => (-1..3i64).prop_map(Step::PruneAge),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_bytes_counted_are_the_bytes_held_and_what_waits_stays(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut shelf = Shelf::new(STABLE).await;
            let sink = shelf.store().register_sink("s", true).await.unwrap().id;
            let (mut filled, mut settled) = (0, 0);
            for step in steps {
                match step {
                    Step::Fill { events, bytes } => {
                        shelf.fill(filled, events, bytes).await;
                        filled += events;
                    }
                    Step::Settle { events } => {
                        let to = (settled + events).min(filled);
                        shelf.store().settle(Settlement::of(sink, settled, to, to - settled)).await.unwrap();
                        settled = to;
                    }
                    Step::PruneBytes(bytes) => {
                        shelf.store().prune(Prune::Bytes(bytes)).await.unwrap();
                    }
                    Step::PruneAge(seconds) => {
                        let before = (T0 + seconds) * 1000;
                        shelf.store().prune(Prune::FetchedBefore(before)).await.unwrap();
                    }
                    Step::Reopen => {
                        shelf.reopen().await;
                        shelf.store().register_sink("s", true).await.unwrap();
                    }
                }
                assert_eq!(shelf.store().spool_bytes(), shelf.ask(BODIES).cast_unsigned());
                let held: Vec<_> = shelf.events().await.iter().map(|event| event.seq).collect();
                let waiting: Vec<_> = (settled + 1..=filled).collect();
                assert!(held.ends_with(&waiting), "{held:?} lacks some of {waiting:?}");
            }
        });
    }
}
