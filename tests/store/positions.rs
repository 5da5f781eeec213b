use siemferry::position::{Bookmark, Window};
use siemferry::store::Error;
use siemferry::store::sinks::Settlement;

use super::shelf::{DAY, HOUR, STABLE, Shelf, T0};

const WINDOW: Window = Window { start: T0, end: T0 + 10 };

#[tokio::test]
async fn a_watermark_never_falls() {
    let shelf = Shelf::new(STABLE).await;
    shelf.read(0, T0, 10, &[]).await;

    let mut pass = shelf.reading(0, WINDOW);
    let fallen = pass.last_to(shelf.store(), &[("{}", None)], T0 + 9).await;

    assert!(matches!(fallen, Err(Error::OutOfOrder { .. })), "{fallen:?}");
    assert_eq!(shelf.watermark(0), T0 + 10);
    assert_eq!(shelf.events().await, [], "nor is the page stored");
    pass.last_to(shelf.store(), &[], T0 + 10).await.expect("a watermark may stand");
}

#[tokio::test]
async fn a_settle_follows_from_the_one_before_or_is_refused() {
    let shelf = Shelf::new(STABLE).await;
    shelf.fill(0, 9, 5).await;
    let sink = shelf.store().register_sink("s", true).await.unwrap();
    let settle = async |from, to| {
        let bookmark = Some(Bookmark(format!("{to}")));
        {
            let settlement = Settlement::of(sink.id, from, to, to.saturating_sub(from));
            shelf.store().settle(Settlement { bookmark, ..settlement }).await
        }
    };

    settle(0, 5).await.unwrap();
    for (from, to) in [(0, 5), (4, 6), (6, 7), (5, 3)] {
        let refused = settle(from, to).await;
        assert!(matches!(refused, Err(Error::OutOfOrder { .. })), "{from}..{to}: {refused:?}");
    }
    settle(5, 5).await.expect("a bookmark may be settled alone");

    let known = shelf.store().register_sink("s", true).await.unwrap();
    assert_eq!(
        (known.settled, known.bookmark, known.is_new),
        (5, Some(Bookmark("5".into())), false)
    );
    assert_eq!(shelf.ask("SELECT delivered FROM sinks"), 5);
}

#[tokio::test]
async fn a_new_sink_begins_with_what_is_kept_or_with_what_comes() {
    let shelf = Shelf::new(STABLE).await;
    let empty = shelf.store().register_sink("first", true).await.unwrap();
    shelf.fill(0, 4, 5).await;

    let kept = shelf.store().register_sink("kept", true).await.unwrap();
    let now = shelf.store().register_sink("now", false).await.unwrap();

    assert_eq!((empty.settled, kept.settled, now.settled), (0, 0, 4));
    assert!(empty.is_new && kept.is_new && now.is_new);
}

#[tokio::test]
async fn a_new_sink_begins_with_the_oldest_page_that_is_left() {
    let shelf = Shelf::new(STABLE).await;
    let first = shelf.store().register_sink("first", true).await.unwrap();
    shelf.fill(0, 4, 5).await;
    shelf.fill(4, 3, 5).await;
    shelf.store().settle(Settlement::of(first.id, 0, 4, 4)).await.unwrap();
    shelf.store().prune(siemferry::store::Prune::Bytes(u64::MAX)).await.unwrap();

    assert_eq!(shelf.store().register_sink("kept", true).await.unwrap().settled, 4);
}

#[tokio::test]
async fn a_new_sweep_begins_where_the_next_older_one_stands() {
    let (minute, hour, day) = (60_000, HOUR * 1000, DAY * 1000);
    let mut shelf = Shelf::with_ages(STABLE, &[0, hour]).await;
    shelf.read(0, T0, 10, &[]).await;
    shelf.read(0, T0 + 10, 10, &[]).await;
    shelf.read(hour, T0, 10, &[]).await;

    shelf.reopen_with(&[0, minute, hour, day]).await;
    let standing = [0, minute, hour, day].map(|age| shelf.watermark(age) - T0);
    assert_eq!(standing, [20, 10, 10, 10]);

    shelf.reopen_with(&[0, day]).await;
    assert_eq!(shelf.ask("SELECT count(*) FROM sweeps"), 2);
    shelf.reopen_with(&[0, minute, day]).await;
    assert_eq!(shelf.watermark(minute), T0 + 10);
}

#[tokio::test]
async fn a_source_that_is_known_does_not_begin_again() {
    let shelf = Shelf::new(STABLE).await;
    shelf.read(0, T0, 10, &[]).await;

    let again = shelf.store().register_source("acme", &[0, HOUR * 1000], T0 - DAY).await.unwrap();

    let watermarks: Vec<_> = again.sweeps.iter().map(|sweep| sweep.watermark - T0).collect();
    assert_eq!(watermarks, [10, 0]);
}

#[tokio::test]
async fn an_interrupted_pass_is_told_of_with_its_token_until_the_next_begins() {
    let mut shelf = Shelf::new(STABLE).await;
    let mut pass = shelf.reading(0, WINDOW);
    pass.page(shelf.store(), &[("{}", None)], "second-page").await.unwrap();

    shelf.reopen().await;
    let ages = [0, HOUR * 1000];
    let unfinished = shelf.store().register_source("acme", &ages, T0).await.unwrap().unfinished;
    assert_eq!(unfinished.len(), 1);
    assert_eq!((unfinished[0].token.0.as_str(), unfinished[0].window), ("second-page", WINDOW));

    shelf.reading(0, WINDOW).last(shelf.store(), &[]).await.unwrap();
    let registered = shelf.store().register_source("acme", &ages, T0).await.unwrap();
    assert_eq!(registered.unfinished, []);
}

#[tokio::test]
async fn the_doorbells_ring_for_what_they_stand_for() {
    let shelf = Shelf::new(STABLE).await;
    let sink = shelf.store().register_sink("s", true).await.unwrap();
    let store = shelf.store();
    let (mut committed, mut moved, mut settled) =
        (store.committed(), store.moved(), store.settled());

    shelf.read(0, T0, 10, &[]).await;
    assert!(moved.has_changed().unwrap() && !committed.has_changed().unwrap());
    moved.borrow_and_update();
    shelf.read(0, T0 + 10, 10, &[("{}", None)]).await;
    assert!(moved.has_changed().unwrap() && *committed.borrow_and_update() == 1);
    assert!(!settled.has_changed().unwrap());
    store.settle(Settlement::of(sink.id, 0, 1, 1)).await.unwrap();
    assert!(settled.has_changed().unwrap());
    settled.borrow_and_update();
}
