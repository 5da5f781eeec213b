use siemferry::position::Window;
use siemferry::store::sources::StoredSweep;

use super::shelf::{HOUR, STABLE, Shelf, T0, UNIQUE, UNSTABLE};

const A: (&str, Option<i64>) = ("{\"a\":1}", Some(T0));
const B: (&str, Option<i64>) = ("{\"b\":1}", Some(T0));
const WINDOW: Window = Window { start: T0, end: T0 + 10 };

#[tokio::test]
async fn unstable_paging_takes_a_record_on_two_pages_for_one() {
    let shelf = Shelf::new(UNSTABLE).await;
    let mut pass = shelf.reading(0, WINDOW);

    let first = pass.page(shelf.store(), &[A, B], "2").await.unwrap();
    let second = pass.last(shelf.store(), &[B]).await.unwrap();

    assert_eq!((first, second), (2, 0));
}

#[tokio::test]
async fn unstable_paging_takes_two_copies_on_a_page_for_two() {
    let shelf = Shelf::new(UNSTABLE).await;

    assert_eq!(shelf.read(0, T0, 10, &[A, B, A]).await, 3);
    assert_eq!(shelf.read(HOUR * 1000, T0, 10, &[A, A, B]).await, 0, "and for no more later");
}

#[tokio::test]
async fn unstable_paging_believes_copies_on_two_pages_when_two_passes_agree() {
    let shelf = Shelf::new(UNSTABLE).await;
    let mut events = Vec::new();
    for age in [0, HOUR * 1000, HOUR * 1000] {
        let mut pass = shelf.reading(age, WINDOW);
        let first = pass.page(shelf.store(), &[A, B], "2").await.unwrap();
        let second = pass.last(shelf.store(), &[A]).await.unwrap();
        events.push((first, second));
    }

    assert_eq!(events, [(2, 0), (0, 1), (0, 0)]);
}

#[tokio::test]
async fn unstable_paging_does_not_believe_one_pass_twice() {
    let shelf = Shelf::new(UNSTABLE).await;
    let mut pass = shelf.reading(0, WINDOW);

    let mut events = Vec::new();
    for token in ["2", "3", "4", "5"] {
        events.push(pass.page(shelf.store(), &[A], token).await.unwrap());
    }

    assert_eq!(events, [1, 0, 0, 0]);
}

#[tokio::test]
async fn with_unique_ids_a_record_is_one_event_however_often_it_is_shown() {
    let shelf = Shelf::new(UNIQUE).await;

    assert_eq!(shelf.read(0, T0, 10, &[A, A, B]).await, 2);
    assert_eq!(shelf.read(HOUR * 1000, T0, 10, &[B, A, A]).await, 0);
}

#[tokio::test]
async fn a_commit_that_failed_leaves_no_count_behind() {
    for repeats in [STABLE, UNSTABLE] {
        let shelf = Shelf::new(repeats).await;
        let mut pass = shelf.reading(0, WINDOW);
        pass.page(shelf.store(), &[A], "2").await.unwrap();
        let fallen = StoredSweep { age: 0, watermark: T0 - 1, read_at: None };
        for _ in 0..3 {
            let commit = pass.commit(&[A, B, B], None, vec![fallen]);
            shelf.store().commit_page(commit).await.unwrap_err();
        }

        // Stable paging: the second copy of A is true; unstable: it waits for another pass.
        let expected = if repeats == STABLE { 3 } else { 2 };
        assert_eq!(pass.last(shelf.store(), &[A, B, B]).await.unwrap(), expected);
        assert_eq!(shelf.events().await.len() as u64, expected + 1);
        let numbers: Vec<_> = shelf.events().await.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=expected + 1).collect::<Vec<_>>(), "and no number is lost");
        assert_eq!(shelf.ask("SELECT count(*) FROM passes"), 1);
    }
}

#[tokio::test]
async fn a_bad_record_becomes_a_dead_letter_once() {
    let shelf = Shelf::new(STABLE).await;
    for age in [0, HOUR * 1000] {
        let pass = shelf.reading(age, WINDOW);
        let mut commit = pass.commit(&[A], None, Vec::new());
        let bad = siemferry::event::BadRecord { raw: b"17".to_vec(), reason: "not an object" };
        commit.page.bad.push(bad);
        shelf.store().commit_page(commit).await.unwrap();
    }

    assert_eq!(shelf.ask("SELECT count(*) FROM dead_letters WHERE sink IS NULL"), 1);
    assert_eq!(shelf.ask("SELECT repeats FROM sources"), 2);
}
