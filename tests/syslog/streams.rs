//! Streams whose receivers are slow, finish, close, reset and restart, again and again.

use std::time::Duration;

use siemferry::sim::Rng;

use super::once::{given_with, lines, number, plain};
use crate::kills::kills;
use crate::peer::copies;
use crate::receiver::{Fault, How, Kind, Options, Receiver};
use crate::tls::Authority;

/// Of each connection that was reset, what its kernel had acknowledged and nobody read is missing, and
/// nothing else: its buffer, and within TLS a record besides, has room for `most` messages.
fn only_what_no_sender_can_know_is_missing(options: Options, keys: &str, most: usize) {
    const EVENTS: usize = 8000;
    let faults = kills();
    let receiver = Receiver::start(Options { receive_buffer: Some(4096), ..options });
    let mut random = Rng::new(7);
    let mut made = 0;
    receiver.fault_when(move |_| {
        if made >= faults || random.below(40) > 0 {
            return None;
        }
        made += 1;
        Some(match random.below(5) {
            0 => Fault::Slow(Duration::from_millis(1)),
            1 => Fault::FinishReading,
            2 => Fault::ResetAfterDraining,
            3 => Fault::Close,
            _ => Fault::Restart(Duration::from_millis(20)),
        })
    });
    let keys = format!("batch = {{ events = 100 }}\ntimeout = \"5s\"\n{keys}");
    let (_sim, home) = given_with(&receiver.address(), plain(8000), &keys);

    let told = home.command(&["run", "--once", "--patience", "2m"]).output().unwrap();

    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert_eq!(receiver.violations(), [""; 0]);
    let ends = receiver.ends();
    let resets = ends.iter().filter(|end| matches!(end, How::WasReset | How::WasClosed)).count();
    let missing = EVENTS - copies(&lines(&receiver)).len();
    assert!(resets > 0 && missing <= resets * most, "{missing} missing of {resets} resets");
    println!("{faults} faults, {resets} resets, {missing} missing, {} messages", receiver.count());
    assert_eq!(number(&home, "settled_seq"), EVENTS as u64);
}

#[test]
fn over_tcp_only_what_no_sender_can_know_is_missing() {
    only_what_no_sender_can_know_is_missing(Options::default(), "", 40);
}

#[test]
fn over_tls_only_what_no_sender_can_know_is_missing() {
    let authority = Authority::new();
    let tls = Some(authority.server("127.0.0.1", 2100).config);
    let options = Options { kind: Kind::Tls, tls, ..Options::default() };
    let keys = format!("ca_file = \"{}\"", authority.file().display());

    only_what_no_sender_can_know_is_missing(options, &keys, 80);
}
