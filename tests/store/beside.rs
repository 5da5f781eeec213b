use siemferry::store::Prune;
use siemferry::store::sinks::Settlement;
use siemferry::units::Bytes;

use super::shelf::{STABLE, Shelf};

#[tokio::test]
async fn what_another_process_commits_rings_and_what_we_commit_does_not() {
    let shelf = Shelf::new(STABLE).await;
    let store = shelf.store();
    let sink = store.register_sink("s", true).await.unwrap().id;
    let (mut committed, mut requests) = (store.committed(), store.requests());
    shelf.fill(0, 3, 10).await;
    committed.mark_unchanged();

    store.look_beside().await.unwrap();
    assert!(!committed.has_changed().unwrap() && !requests.has_changed().unwrap());
    let seq = shelf.send_again(sink).await;
    assert!(!committed.has_changed().unwrap(), "nobody has looked yet");
    store.look_beside().await.unwrap();

    assert_eq!((seq, *committed.borrow_and_update()), (4, 4));
    assert!(requests.has_changed().unwrap());
    requests.mark_unchanged();
    store.look_beside().await.unwrap();
    assert!(!committed.has_changed().unwrap() && !requests.has_changed().unwrap());
}

#[tokio::test]
async fn what_another_process_asks_rings_only_for_requests() {
    let shelf = Shelf::new(STABLE).await;
    let (committed, requests) = (shelf.store().committed(), shelf.store().requests());
    shelf.tell("INSERT INTO requests (verb, target, asked_at) VALUES ('replay', 's', 0)");

    shelf.store().look_beside().await.unwrap();

    assert!(requests.has_changed().unwrap() && !committed.has_changed().unwrap());
}

#[tokio::test]
async fn the_bytes_counted_are_the_bytes_held_whoever_has_added_them() {
    let mut shelf = Shelf::new(STABLE).await;
    let sink = shelf.store().register_sink("s", true).await.unwrap().id;
    let held = |shelf: &Shelf| shelf.ask("SELECT coalesce(sum(length(body)), 0) FROM pages");
    let counted = |shelf: &Shelf| shelf.store().spool_bytes().cast_signed();

    shelf.fill(0, 3, 10).await;
    shelf.send_again(sink).await;
    shelf.fill(3, 3, 10).await;
    shelf.store().look_beside().await.unwrap();
    assert_eq!(counted(&shelf), held(&shelf));

    shelf.send_again(sink).await;
    shelf.reopen().await;
    assert_eq!(counted(&shelf), held(&shelf), "what was added before the start");
    shelf.store().look_beside().await.unwrap();
    assert_eq!(counted(&shelf), held(&shelf), "is not added once more");

    let sink = shelf.store().register_sink("s", true).await.unwrap();
    shelf.store().settle(Settlement::of(sink.id, 0, 8, 8)).await.unwrap();
    assert_eq!(shelf.store().make_room(Bytes::new(1)).await.unwrap(), None);
    assert_eq!((counted(&shelf), held(&shelf)), (0, 0));
}

#[tokio::test]
async fn what_is_for_one_sink_waits_for_that_sink_and_is_pruned_when_all_have_passed_it() {
    let shelf = Shelf::new(STABLE).await;
    let store = shelf.store();
    let one = store.register_sink("one", true).await.unwrap().id;
    let other = store.register_sink("other", true).await.unwrap().id;
    shelf.fill(0, 2, 10).await;
    let seq = shelf.send_again(one).await;

    let pending = [store.pending(one).await.unwrap(), store.pending(other).await.unwrap()];
    assert_eq!(pending, [3, 2]);
    let status = store.status().await.unwrap();
    assert_eq!([status.sinks["one"].pending, status.sinks["other"].pending], pending);
    let page = store.page_after(2).await.unwrap().unwrap();
    assert_eq!((page.last_seq(), page.is_for(one), page.is_for(other)), (seq, true, false));

    store.settle(Settlement::of(one, 0, 3, 3)).await.unwrap();
    assert!(store.prune(Prune::Bytes(u64::MAX)).await.unwrap() == 0, "the other is still to pass");
    store.settle(Settlement::of(other, 0, 3, 2)).await.unwrap();
    assert!(store.prune(Prune::Bytes(u64::MAX)).await.unwrap() > 0);
    assert_eq!(shelf.events().await, []);
    assert_eq!(shelf.ask("SELECT delivered FROM sinks WHERE name = 'other'"), 2);
}
