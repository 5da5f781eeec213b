//! What the receiver of RELP takes, refuses and answers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use super::{NONE, connect, refusal, to_the_end};
use crate::receiver::{Fault, How, Kind, Options, Receiver};

const OFFERS: &str = "relp_version=0\nrelp_software=a\ncommands=syslog";
const OPENED: &str = "1 rsp 55 200 OK\nrelp_version=0\nrelp_software=sim\ncommands=syslog\n";

fn relp() -> Receiver {
    Receiver::start(Options { kind: Kind::Relp, ..Options::default() })
}

/// To which this happens at the first message.
fn faulty(fault: Fault) -> Receiver {
    let receiver = relp();
    receiver.fault_when(move |seen| (seen.message == 0).then(|| fault.clone()));
    receiver
}

fn frame(transaction: u32, command: &str, data: &str) -> String {
    let gap = if data.is_empty() { "" } else { " " };
    format!("{transaction} {command} {}{gap}{data}\n", data.len())
}

fn open() -> String {
    frame(1, "open", OFFERS)
}

fn expect(client: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

/// A client whose session is open.
fn opened(receiver: &Receiver) -> TcpStream {
    let mut client = connect(receiver);
    client.write_all(open().as_bytes()).unwrap();
    expect(&mut client, OPENED);
    client
}

fn send(client: &mut TcpStream, transaction: u32, message: &str) {
    client.write_all(frame(transaction, "syslog", message).as_bytes()).unwrap();
}

#[test]
fn a_whole_session_is_answered() {
    let receiver = relp();

    let mut client = opened(&receiver);
    send(&mut client, 2, "a\nb");
    expect(&mut client, "2 rsp 6 200 OK\n");
    send(&mut client, 3, "c");
    client.write_all(b"4 close 0\n").unwrap();

    let told = "3 rsp 6 200 OK\n4 rsp 6 200 OK\n0 serverclose 0\n";
    assert_eq!(to_the_end(&mut client), (told.to_owned(), None));
    drop(client);
    receiver.ended(1);
    assert_eq!(receiver.ends(), [How::Orderly]);
    assert_eq!(receiver.messages(), [&b"a\nb"[..], b"c"]);
    assert_eq!(receiver.history()[0].acknowledged, 2);
    assert_eq!(receiver.violations(), NONE);
}

#[test]
fn messages_are_acknowledged_in_bursts() {
    let options = Options { kind: Kind::Relp, ack_after: 3, ..Options::default() };
    let receiver = Receiver::start(options);

    let mut client = opened(&receiver);
    for transaction in 2..=5 {
        send(&mut client, transaction, "a");
    }

    for transaction in 2..=5 {
        expect(&mut client, &format!("{transaction} rsp 6 200 OK\n"));
    }
    assert_eq!(receiver.violations(), NONE);
}

#[test]
fn who_has_more_messages_under_way_than_the_window_is_refused() {
    let options = Options { kind: Kind::Relp, ack_after: 1000, ..Options::default() };
    let receiver = Receiver::start(options);
    let burst = |count: u32| {
        let frames: Vec<_> = (2..2 + count).map(|number| frame(number, "syslog", "a")).collect();
        open() + &frames.concat()
    };

    connect(&receiver).write_all(burst(128).as_bytes()).unwrap();
    receiver.received(128);
    assert_eq!(receiver.violations(), NONE);

    let why = refusal(&receiver, burst(129).as_bytes());
    assert_eq!(why, "129 messages without an answer");
}

#[test]
fn what_is_not_as_the_specification_has_it_is_refused() {
    let receiver = relp();
    let before_open = [
        frame(1, "syslog", "a"),
        frame(2, "open", OFFERS),
        frame(0, "open", OFFERS),
        frame(1, "open", "relp_version=0"),
        frame(1, "open", "commands=syslog"),
        frame(1, "open", "relp_version=0\ncommands=eventlog"),
        frame(1, "open", ""),
        "x".to_owned(),
        "01 open 0\n".to_owned(),
        "1  open 0\n".to_owned(),
        "1234567890".to_owned(),
    ];
    let after_open = [
        frame(3, "syslog", "a"),
        frame(1, "syslog", "a"),
        frame(0, "syslog", "a"),
        frame(2, "open", OFFERS),
        frame(2, "eventlog", "a"),
        frame(2, "starttls", ""),
        frame(2, "syslog", ""),
        frame(2, "syslog", "1 <"),
        frame(2, "close", "a"),
        frame(2, "close", "") + "3",
        "2 syslog 0 \n".to_owned(),
        "2 syslog 1\na".to_owned(),
        "2 syslog 01 a\n".to_owned(),
        "2 syslog 1 ab\n".to_owned(),
        "2 syslog 3 a\n3 c".to_owned(),
        "2 syslog x".to_owned(),
        "2 syslog 131073 ".to_owned(),
        format!("2 {}", "s".repeat(33)),
        "2 sys-log".to_owned(),
    ];
    let wrong = before_open.iter().cloned().chain(after_open.iter().map(|text| open() + text));

    for (index, text) in wrong.enumerate() {
        refusal(&receiver, text.as_bytes());
        assert_eq!(receiver.violations().len(), index + 1, "{text}");
    }
    assert_eq!(receiver.count(), 0);
}

#[test]
fn an_end_without_a_close_is_abrupt() {
    let receiver = relp();

    drop(opened(&receiver));
    receiver.ended(1);
    opened(&receiver).write_all(b"2 sys").unwrap();
    receiver.ended(2);

    assert_eq!(receiver.ends(), [How::Abrupt, How::Torn(5)]);
}

#[test]
fn a_lost_acknowledgement_is_of_a_message_that_was_taken() {
    let receiver = faulty(Fault::LoseAck);

    let mut client = opened(&receiver);
    send(&mut client, 2, "a");

    assert_eq!(to_the_end(&mut client), (String::new(), None));
    receiver.ended(1);
    let told = &receiver.history()[0];
    assert_eq!((told.messages, told.acknowledged), (1, 0));
    assert_eq!(receiver.ends(), [How::WasClosed]);
}

#[test]
fn a_message_may_be_refused() {
    let receiver = faulty(Fault::RefuseMessage(500, "no".to_owned()));

    let mut client = opened(&receiver);
    send(&mut client, 2, "a");
    expect(&mut client, "2 rsp 6 500 no\n");
    send(&mut client, 3, "b");
    expect(&mut client, "3 rsp 6 200 OK\n");

    assert_eq!(receiver.messages(), [b"b"]);
    assert_eq!(receiver.history()[0].acknowledged, 1);
}

#[test]
fn the_server_may_end_the_session() {
    let receiver = faulty(Fault::ServerClose);

    let mut client = opened(&receiver);
    send(&mut client, 2, "a");

    assert_eq!(to_the_end(&mut client), ("0 serverclose 0\n".to_owned(), None));
    receiver.ended(1);
    assert_eq!(receiver.count(), 0);
}

#[test]
fn an_open_may_be_refused() {
    let receiver = relp();
    receiver
        .fault_when_connected(|number| (number == 0).then(|| Fault::RefuseOpen("no".to_owned())));

    let mut client = connect(&receiver);
    client.write_all(open().as_bytes()).unwrap();
    assert_eq!(to_the_end(&mut client), ("1 rsp 6 500 no\n".to_owned(), None));

    opened(&receiver);
    assert_eq!(receiver.violations(), NONE);
}

#[test]
fn an_answer_may_be_nonsense() {
    let receiver = faulty(Fault::Garbage(b"7 rsp".to_vec()));

    let mut client = opened(&receiver);
    send(&mut client, 2, "a");
    expect(&mut client, "7 rsp");
    send(&mut client, 3, "b");
    drop(client);

    receiver.ended(1);
    assert_eq!(receiver.count(), 0);
}

#[test]
fn who_finishes_reading_acknowledges_nothing() {
    let receiver = faulty(Fault::FinishReading);

    let mut client = opened(&receiver);
    send(&mut client, 2, "a");
    assert_eq!(to_the_end(&mut client), (String::new(), None));
    send(&mut client, 3, "b");
    client.shutdown(Shutdown::Write).unwrap();

    receiver.ended(1);
    assert_eq!(receiver.messages(), [b"a", b"b"]);
    assert_eq!(receiver.history()[0].acknowledged, 0);
}

#[test]
fn a_reset_is_one_for_relp_too() {
    let receiver = faulty(Fault::Reset);

    let mut client = opened(&receiver);
    send(&mut client, 2, "a");

    assert_eq!(to_the_end(&mut client).1, Some(ErrorKind::ConnectionReset));
    receiver.ended(1);
    assert_eq!(receiver.ends(), [How::WasReset]);
}
