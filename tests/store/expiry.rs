use std::sync::Arc;

use siemferry::position::{Second, Window};
use siemferry::store::Error;
use siemferry::store::requests::ask_backfill;

use super::shelf::{DAY, HOUR, STABLE, Shelf, T0};

const OLDER: i64 = HOUR * 1000;
const A: (&str, Option<i64>) = ("{\"a\":1}", Some(T0 + 5));
const TIMELESS: (&str, Option<i64>) = ("{\"b\":1}", None);
/// The API filters by another clock than the record's own.
const STRAY: (&str, Option<i64>) = ("{\"c\":1}", Some(T0 - 400 * DAY));

/// Reads a window of ten seconds at some moment of the server's clock.
async fn read_at(
    shelf: &Shelf,
    age: i64,
    start: Second,
    now: Second,
    shown: &[(&str, Option<i64>)],
) -> u64 {
    let mut pass = shelf.reading(age, Window { start, end: start + 10 });
    pass.now = now * 1000;
    pass.last(shelf.store(), shown).await.unwrap()
}

async fn expire(shelf: &Shelf, now: Second) -> usize {
    shelf.store().expire(Arc::clone(&shelf.origin), now * 1000).await.unwrap()
}

#[tokio::test]
async fn what_a_sweep_is_still_to_read_is_remembered_however_late_it_comes() {
    let mut shelf = Shelf::new(STABLE).await;
    read_at(&shelf, 0, T0, T0 + 10, &[A, TIMELESS, STRAY]).await;
    let much_later = T0 + 30 * DAY;

    shelf.reopen().await;
    read_at(&shelf, 0, T0 + 10, much_later, &[]).await;
    assert_eq!(expire(&shelf, much_later).await, 0);

    let again = read_at(&shelf, OLDER, T0, much_later, &[STRAY, TIMELESS, A]).await;
    assert_eq!(again, 0, "the sweep meets what the head has read a month ago");
}

#[tokio::test]
async fn what_nothing_can_meet_again_is_forgotten() {
    let shelf = Shelf::new(STABLE).await;
    read_at(&shelf, 0, T0, T0 + 10, &[A, TIMELESS, STRAY]).await;
    read_at(&shelf, OLDER, T0, T0 + HOUR, &[A, TIMELESS, STRAY]).await;
    assert_eq!(expire(&shelf, T0 + 6 * DAY).await, 0);

    read_at(&shelf, 0, T0 + 10, T0 + 8 * DAY, &[]).await;
    assert_eq!(expire(&shelf, T0 + 8 * DAY).await, 0, "the older sweep stands before the window");
    read_at(&shelf, OLDER, T0 + 10, T0 + 8 * DAY, &[]).await;

    assert_eq!(expire(&shelf, T0 + 8 * DAY).await, 3);
    assert_eq!(shelf.ask("SELECT count(*) FROM passes"), 2);
}

#[tokio::test]
async fn records_outside_their_window_are_not_doubled_within_the_time_they_are_kept() {
    let shelf = Shelf::new(STABLE).await;
    assert_eq!(read_at(&shelf, 0, T0, T0 + 10, &[TIMELESS, STRAY]).await, 2);
    // The head goes on, and the sweep reads on behind it, with an expiry after each.
    for day in 1..7 {
        let now = T0 + day * DAY;
        for age in [0, OLDER] {
            let start = shelf.watermark(age);
            let again = read_at(&shelf, age, start, now, &[STRAY, TIMELESS]).await;
            assert_eq!(again, 0, "day {day}, age {age}");
            expire(&shelf, now).await;
        }
    }
}

#[tokio::test]
async fn an_interrupted_pass_keeps_what_it_has_raised() {
    let shelf = Shelf::new(STABLE).await;
    let mut cut_off = shelf.reading(0, Window { start: T0, end: T0 + 10 });
    cut_off.page(shelf.store(), &[A, TIMELESS], "next").await.unwrap();

    assert_eq!(expire(&shelf, T0 + 100 * DAY).await, 0);
    assert_eq!(read_at(&shelf, 0, T0, T0 + 100 * DAY, &[A, TIMELESS]).await, 0);
}

#[tokio::test]
async fn an_interrupted_pass_of_a_sweep_that_was_removed_holds_up_nothing() {
    let mut shelf = Shelf::new(STABLE).await;
    read_at(&shelf, 0, T0, T0 + 10, &[A]).await;
    let mut cut_off = shelf.reading(OLDER, Window { start: T0, end: T0 + 10 });
    cut_off.page(shelf.store(), &[A], "next").await.unwrap();

    shelf.reopen_with(&[0]).await;
    read_at(&shelf, 0, T0 + 10, T0 + 30 * DAY, &[]).await;

    assert_eq!(expire(&shelf, T0 + 30 * DAY).await, 1);
}

#[tokio::test]
async fn what_tells_no_time_of_its_window_is_not_doubled_by_a_backfill_of_that_window() {
    let shelf = Shelf::new(STABLE).await;
    read_at(&shelf, 0, T0, T0 + 10, &[A, TIMELESS, STRAY]).await;
    // The sweep comes so late that its pass is remembered when the head's is not.
    read_at(&shelf, OLDER, T0, T0 + 5 * DAY, &[A, TIMELESS, STRAY]).await;
    for age in [0, OLDER] {
        read_at(&shelf, age, T0 + 10, T0 + 8 * DAY, &[]).await;
    }
    let ask = |start: Second, again| {
        let window = Window { start, end: start + 10 };
        ask_backfill(&shelf.config(), "acme", window, again, 0)
    };
    assert!(ask(T0, false).is_ok(), "all is remembered");
    shelf.tell("DELETE FROM requests");

    assert_eq!(expire(&shelf, T0 + 8 * DAY).await, 2, "the timeless and the stray");

    let refused = ask(T0, false).unwrap_err();
    let Error::Forgotten { until } = refused else { panic!("{refused}") };
    assert!(ask(until, false).is_err() && ask(until + 1, false).is_ok());
    assert!(ask(T0, true).is_ok());
}
