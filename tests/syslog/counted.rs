//! What a slow receiver has acknowledged is settled, and what may come twice is counted.

use std::time::Duration;

use super::once::{given_with, has_each_once, lines, number};
use crate::peer::{numbered, seq};
use crate::receiver::{Fault, Kind, Options, Receiver};
use crate::rig::eventually;

#[test]
fn what_a_slow_receiver_has_taken_of_a_batch_is_settled_and_survives_a_stop() {
    for kind in [Kind::Relp, Kind::Tcp, Kind::UnixStream] {
        let options = Options { kind, receive_buffer: Some(4096), ..Options::default() };
        let receiver = Receiver::start(options);
        receiver.fault_when_connected(|_| Some(Fault::Slow(Duration::from_millis(1))));
        let events = numbered(3000, |_| "x".repeat(300));
        let (_sim, home) = given_with(&receiver.address(), events, "");
        let mut daemon = home.spawn();

        receiver.received(1);
        // All of them are one batch, but for its first page.
        eventually("a part of a batch is settled", || {
            let settled = number(&home, "settled_seq");
            500 < settled && settled < 3000
        });
        daemon.signal("TERM");
        assert_eq!(daemon.wait().code(), Some(0));
        receiver.mend();
        home.run_once_well();

        receiver.received(3000);
        has_each_once(&receiver, 3000);
        let seqs: Vec<_> = lines(&receiver).iter().map(|line| seq(line)).collect();
        assert!(seqs.is_sorted(), "{kind:?}: in the order in which they were read");
        assert_eq!(number(&home, "ambiguous"), 0, "{kind:?}");
        assert_eq!(home.logged("Delivery failed"), 0, "{kind:?}");
    }
}

#[test]
fn parts_of_an_event_that_is_refused_are_counted_when_they_come_again() {
    let receiver = Receiver::start(Options { kind: Kind::Relp, ..Options::default() });
    let is_second_part = |message: &[u8]| String::from_utf8_lossy(message).contains(r#" part="2/"#);
    receiver.fault_when(move |seen| {
        is_second_part(&seen.content).then(|| Fault::RefuseMessage(500, "not this one".into()))
    });
    let keys = "max_message = \"1KiB\"\noversize = \"split\"";
    let long = |n: i64| if n == 20 { "x".repeat(3000) } else { "short".to_owned() };
    let (_sim, home) = given_with(&receiver.address(), numbered(40, long), keys);

    home.run_once_well();

    let messages = receiver.messages();
    let distinct: std::collections::BTreeSet<_> = messages.iter().collect();
    let repeats = messages.len() - distinct.len();
    assert_eq!(number(&home, "dead_letters"), 1);
    assert!(repeats > 0, "its other parts come again");
    assert!(number(&home, "ambiguous") > 0, "{repeats} repeats");
}
