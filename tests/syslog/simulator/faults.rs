//! What the faults of every stream do.

use std::io::{ErrorKind, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::{NONE, connect, of_kind, to_the_end};
use crate::receiver::{Fault, How, Kind, Options, Receiver};

const LONG: Duration = Duration::from_secs(600);

/// A receiver of counted messages to which this happens at the message of this number.
fn faulty(number: usize, fault: Fault) -> Receiver {
    let receiver = of_kind(Kind::Tcp);
    receiver.fault_when(move |seen| (seen.message == number).then(|| fault.clone()));
    receiver
}

#[test]
fn a_reset_loses_what_was_not_taken() {
    let receiver = faulty(1, Fault::Reset);

    let mut client = connect(&receiver);
    client.write_all(b"1 a1 b1 c").unwrap();

    assert_eq!(to_the_end(&mut client).1, Some(ErrorKind::ConnectionReset));
    receiver.ended(1);
    assert_eq!(receiver.ends(), [How::WasReset]);
    assert_eq!(receiver.messages(), [b"a"]);
    let told = &receiver.history()[0];
    assert_eq!((told.read, told.taken, told.arrived, told.messages), (9, 3, 2, 1));

    // It happens once.
    connect(&receiver).write_all(b"1 b").unwrap();
    receiver.received(2);
    assert_eq!(receiver.violations(), NONE);
}

#[test]
fn a_draining_reset_loses_nothing_that_has_arrived() {
    let receiver = faulty(0, Fault::ResetAfterDraining);

    let mut client = connect(&receiver);
    client.write_all(b"1 a1 b1 c1").unwrap();

    assert_eq!(to_the_end(&mut client).1, Some(ErrorKind::ConnectionReset));
    receiver.ended(1);
    assert_eq!(receiver.ends(), [How::WasReset]);
    assert_eq!(receiver.messages(), [b"a", b"b", b"c"]);
}

#[test]
fn what_a_receiver_that_ends_at_once_had_and_did_not_take_is_known() {
    for fault in [Fault::Reset, Fault::Close, Fault::Restart(LONG)] {
        let receiver = faulty(1, fault.clone());
        // Reads less than it is sent: the rest is in its kernel.
        receiver.fault_when_connected(|_| Some(Fault::Slow(Duration::ZERO)));

        let mut client = connect(&receiver);
        let mut sent = b"1 a".repeat(400);
        sent.extend(b"9 torn");
        client.write_all(&sent).unwrap();
        receiver.ended(1);

        let told = &receiver.history()[0];
        assert!(told.read < sent.len());
        assert_eq!(receiver.messages(), [b"a"], "{fault:?}");
        assert_eq!(told.lost, vec![b"a"; 399], "{fault:?}");
        assert_eq!(told.suffered, [Fault::Slow(Duration::ZERO), fault]);
    }
}

#[test]
fn a_close_stops_before_the_message() {
    let receiver = faulty(1, Fault::Close);

    let mut client = connect(&receiver);
    client.write_all(b"1 a").unwrap();
    receiver.received(1);
    client.write_all(b"1 b").unwrap();

    assert_eq!(to_the_end(&mut client), (String::new(), None));
    receiver.ended(1);
    assert_eq!(receiver.ends(), [How::WasClosed]);
    assert_eq!(receiver.messages(), [b"a"]);
}

#[test]
fn who_finishes_reading_takes_what_is_sent_after_its_own_end() {
    let receiver = faulty(0, Fault::FinishReading);

    let mut client = connect(&receiver);
    client.write_all(b"1 a").unwrap();
    assert_eq!(to_the_end(&mut client), (String::new(), None));
    client.write_all(b"1 b").unwrap();
    client.shutdown(Shutdown::Write).unwrap();

    receiver.ended(1);
    assert_eq!(receiver.ends(), [How::Orderly]);
    assert_eq!(receiver.messages(), [b"a", b"b"]);
}

#[test]
fn who_finishes_reading_does_not_wait_for_ever() {
    let receiver = faulty(0, Fault::FinishReading);

    let mut client = connect(&receiver);
    client.write_all(b"1 a").unwrap();

    receiver.ended(1);
    assert_eq!(receiver.ends(), [How::WasClosed]);
}

#[test]
fn a_slow_receiver_is_quick_again_when_mended() {
    let receiver = faulty(0, Fault::Slow(LONG));

    let mut client = connect(&receiver);
    client.write_all(b"1 a").unwrap();
    receiver.received(1);
    client.write_all(b"1 b").unwrap();
    assert_eq!(receiver.history()[0].read, 3);
    receiver.mend();

    receiver.received(2);
    assert_eq!(receiver.violations(), NONE);
}

#[test]
fn a_slow_receiver_reads_little_at_a_time() {
    let receiver = faulty(0, Fault::Slow(Duration::from_millis(1)));

    let mut client = connect(&receiver);
    client.write_all(b"1 a").unwrap();
    receiver.received(1);
    let long = "x".repeat(2000);
    write!(client, "2000 {long}").unwrap();

    receiver.received(2);
    assert_eq!(receiver.messages()[1], long.as_bytes());
}

#[test]
fn what_is_frozen_goes_on_when_mended() {
    let receiver = faulty(1, Fault::Freeze);

    let mut client = connect(&receiver);
    client.write_all(b"1 a1 b").unwrap();
    receiver.frozen(1);
    assert_eq!(receiver.messages(), [b"a"]);
    receiver.mend();

    receiver.received(2);
    assert_eq!(receiver.messages(), [b"a", b"b"]);
}

#[test]
fn a_frozen_receiver_with_a_small_buffer_stops_its_sender() {
    let options = Options { receive_buffer: Some(4096), ..Options::default() };
    let receiver = Receiver::start(options);
    receiver.fault_when(|seen| (seen.message == 0).then_some(Fault::Freeze));

    let mut client = connect(&receiver);
    rustix::net::sockopt::set_socket_send_buffer_size(&client, 4096).unwrap();
    client.write_all(b"1 a").unwrap();
    receiver.frozen(1);
    client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let stopped = client.write_all(&vec![b'x'; 1 << 20]).unwrap_err();

    assert_eq!(stopped.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_restart_resets_every_connection_and_refuses_others() {
    let receiver = faulty(1, Fault::Restart(LONG));

    let mut idle = connect(&receiver);
    let mut client = connect(&receiver);
    receiver.connected(2);
    client.write_all(b"1 a1 b").unwrap();
    receiver.ended(2);

    assert_eq!(receiver.ends(), [How::WasReset, How::WasReset]);
    assert_eq!(to_the_end(&mut idle).1, Some(ErrorKind::ConnectionReset));
    assert_eq!(to_the_end(&mut client).1, Some(ErrorKind::ConnectionReset));
    let refused = TcpStream::connect(receiver.place()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    receiver.mend();
    receiver.listen_again();
    connect(&receiver).write_all(b"1 b").unwrap();
    receiver.received(2);
}

#[test]
fn a_restart_ends_by_itself() {
    let receiver = of_kind(Kind::Tcp);
    receiver.restart(Duration::from_millis(20));
    while TcpStream::connect(receiver.place()).is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn a_fault_may_come_with_the_connection() {
    let receiver = of_kind(Kind::Tcp);
    receiver.fault_when_connected(|number| (number == 0).then_some(Fault::Reset));

    let mut first = connect(&receiver);
    assert_eq!(to_the_end(&mut first).1, Some(ErrorKind::ConnectionReset));
    connect(&receiver).write_all(b"1 a").unwrap();

    receiver.received(1);
    receiver.ended(2);
    assert_eq!(receiver.ends(), [How::WasReset, How::Orderly]);
}

#[test]
fn a_frozen_local_socket_goes_on_when_mended() {
    let receiver = of_kind(Kind::UnixDatagram);
    receiver.fault_when(|seen| (seen.message == 0).then_some(Fault::Freeze));

    let client = UnixDatagram::unbound().unwrap();
    client.send_to(b"a", receiver.place()).unwrap();
    receiver.frozen(1);
    client.set_nonblocking(true).unwrap();
    let mut sent = 1;
    let full = loop {
        match client.send_to(b"b", receiver.place()) {
            Ok(_) => sent += 1,
            Err(err) => break err,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    receiver.mend();

    receiver.received(sent);
}
