//! What the simulated receiver takes and refuses, and what its faults do.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::receiver::{Framing, How, Kind, Options, Receiver};

mod faults;
mod relp;
mod tls;

const NONE: [&str; 0] = [];

fn of_kind(kind: Kind) -> Receiver {
    Receiver::start(Options { kind, ..Options::default() })
}

fn lines() -> Receiver {
    Receiver::start(Options { framing: Framing::Newline, ..Options::default() })
}

fn connect(receiver: &Receiver) -> TcpStream {
    TcpStream::connect(receiver.place()).unwrap()
}

/// All that comes until the end, and how that is.
fn to_the_end(client: &mut TcpStream) -> (String, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let end = client.read_to_end(&mut bytes).err().map(|err| err.kind());
    (String::from_utf8(bytes).unwrap(), end)
}

/// Sends this on a connection of its own, which the receiver must refuse; why.
fn refusal(receiver: &Receiver, bytes: &[u8]) -> String {
    let before = receiver.connections();
    let mut client = connect(receiver);
    client.write_all(bytes).unwrap();
    receiver.ended(before + 1);
    match receiver.ends().pop() {
        Some(How::Refused(why)) => why,
        other => panic!("{:?} ends it {other:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn counted_messages_are_taken_in_order() {
    let receiver = of_kind(Kind::Tcp);
    assert_eq!(receiver.address(), format!("tcp://{}", receiver.place()));

    let mut client = connect(&receiver);
    client.write_all(b"2 ab3 c\nd").unwrap();
    client.write_all("4 \u{20ac}e".as_bytes()).unwrap();
    drop(client);

    receiver.ended(1);
    assert_eq!(receiver.messages(), [&b"ab"[..], b"c\nd", "\u{20ac}e".as_bytes()]);
    assert_eq!(receiver.ends(), [How::Orderly]);
    assert_eq!(receiver.violations(), NONE);
    let told = &receiver.history()[0];
    assert_eq!((told.read, told.messages, told.taken), (15, 3, 15));
}

#[test]
fn lines_are_taken_however_they_come() {
    let receiver = lines();

    let mut client = connect(&receiver);
    for byte in "ab\n\u{20ac}\n".as_bytes() {
        client.write_all(&[*byte]).unwrap();
    }

    receiver.received(2);
    assert_eq!(receiver.messages(), [&b"ab"[..], "\u{20ac}".as_bytes()]);
    assert_eq!(receiver.violations(), NONE);
}

#[test]
fn what_is_not_counted_as_the_rfc_says_is_refused() {
    let receiver = of_kind(Kind::Tcp);
    let wrong: [(&[u8], &str); 9] = [
        (b"<13>1 -", "no length"),
        (b"0 ", "no length"),
        (b"02 ab", "no length"),
        (b"1234567890 ", "no length"),
        (b"2\nab", "no space"),
        (b"2ab", "no space"),
        (b"1 a\n1 b", "no length"),
        (b"131073 ", "131073 bytes"),
        (b"1 \xff", "utf-8"),
    ];
    for (bytes, expected) in wrong {
        let why = refusal(&receiver, bytes);
        assert!(why.contains(expected), "{why}");
    }
    assert_eq!(receiver.violations().len(), wrong.len());
    assert_eq!(receiver.messages(), [b"a"]);
}

#[test]
fn a_line_with_a_control_character_is_refused() {
    let receiver = lines();
    for text in ["\0", "\t", "\r", "\u{1b}", "\u{7f}", "\u{85}", "\u{9f}", "\u{2028}", "\u{2029}"] {
        let why = refusal(&receiver, format!("a{text}\n").as_bytes());
        assert!(why.ends_with("in a message"), "{why}");
    }
    assert_eq!(refusal(&receiver, b"\n"), "an empty message");
    assert!(refusal(&receiver, b"\xc3\x28\n").contains("utf-8"));
    let endless = vec![b'a'; (128 << 10) + 1];
    assert_eq!(refusal(&receiver, &endless), "131073 bytes without an end of line");
    assert_eq!(receiver.messages().len(), 0);
}

#[test]
fn an_end_within_a_message_is_told_from_a_reset() {
    let receiver = of_kind(Kind::Tcp);

    connect(&receiver).write_all(b"1 a9 bc").unwrap();
    receiver.ended(1);
    let client = connect(&receiver);
    receiver.connected(2);
    set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    receiver.ended(2);

    assert_eq!(receiver.ends(), [How::Torn(4), How::Reset]);
    assert_eq!(receiver.messages(), [b"a"]);
    assert_eq!(receiver.violations(), NONE);
}

#[test]
fn a_datagram_is_a_message() {
    let receiver = of_kind(Kind::Udp);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(receiver.place()).unwrap();

    client.send(b"<13>1 -").unwrap();
    client.send(b"7 <13>1 -").unwrap();
    client.send(b"a\n").unwrap();
    client.send(b"").unwrap();
    client.send(b"b").unwrap();

    receiver.received(2);
    assert_eq!(receiver.messages(), [&b"<13>1 -"[..], b"b"]);
    assert_eq!(receiver.violations().len(), 3, "{:?}", receiver.violations());
}

#[test]
fn a_local_socket_takes_datagrams_or_a_stream() {
    let receiver = of_kind(Kind::UnixDatagram);
    assert!(receiver.address().starts_with("unix:///"), "{}", receiver.address());
    let client = UnixDatagram::unbound().unwrap();
    client.send_to(b"a", receiver.place()).unwrap();
    client.send_to(b"1 <", receiver.place()).unwrap();
    client.send_to(b"b", receiver.place()).unwrap();
    receiver.received(2);
    assert_eq!(receiver.messages(), [b"a", b"b"]);
    assert_eq!(receiver.violations().len(), 1);

    let receiver = of_kind(Kind::UnixStream);
    let mut client = UnixStream::connect(receiver.place()).unwrap();
    client.write_all(b"1 a1 b").unwrap();
    drop(client);
    receiver.ended(1);
    assert_eq!(receiver.messages(), [b"a", b"b"]);
    assert_eq!(receiver.ends(), [How::Orderly]);
}

/// Whether a message gets there, over a connection where there is one.
fn is_there(receiver: &Receiver, kind: Kind) -> bool {
    let place = receiver.place();
    match kind {
        Kind::Udp => {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(place).unwrap();
            client.send(b"a").unwrap();
            // The refusal of the first comes with the second.
            client.send(b"b").is_ok()
        }
        Kind::UnixDatagram => UnixDatagram::unbound().unwrap().send_to(b"a", place).is_ok(),
        Kind::UnixStream => UnixStream::connect(place).is_ok(),
        _ => TcpStream::connect(place).is_ok(),
    }
}

#[test]
fn who_does_not_listen_refuses_and_then_is_at_the_same_place() {
    for kind in [Kind::Tcp, Kind::Udp, Kind::UnixDatagram, Kind::UnixStream] {
        let receiver = of_kind(kind);
        let place = receiver.place();
        assert!(is_there(&receiver, kind), "{kind:?}");

        receiver.stop_listening();
        assert!(!is_there(&receiver, kind), "{kind:?}");

        receiver.listen_again();
        assert!(is_there(&receiver, kind), "{kind:?}");
        assert_eq!(receiver.place(), place);
    }
}
