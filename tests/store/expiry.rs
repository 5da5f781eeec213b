use std::sync::Arc;

use siemferry::position::{Second, Window};

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
