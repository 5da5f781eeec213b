//! Servers that are no receivers of syslog, and addresses behind others.

use super::once::{given_with, has_each_once, number, plain};
use crate::peer::numbered;
use crate::receiver::{Fault, Kind, Options, Receiver};
use crate::rig::Home;
use crate::tls::Authority;

const GREETING: &[u8] = b"220 mail.example.com ESMTP\r\n";

#[track_caller]
fn takes_nothing(home: &Home, told: &str) {
    for arguments in [&["send-test", "peer"][..], &["run", "--once", "--patience", "2s"]] {
        let output = home.command(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(told), "{text}");
        assert!(text.contains("is it syslog that listens there?"), "{text}");
    }
    assert_eq!(number(home, "delivered"), 0);
}

#[test]
fn a_server_that_greets_is_sent_nothing() {
    let authority = Authority::new();
    let ca = format!("ca_file = \"{}\"", authority.file().display());
    for (kind, keys) in [(Kind::Tcp, ""), (Kind::Tls, &*ca)] {
        let tls = (kind == Kind::Tls).then(|| authority.server("127.0.0.1", 2100).config);
        let other = Receiver::start(Options { kind, tls, ..Options::default() });
        other.fault_when_connected(|_| Some(Fault::Garbage(GREETING.to_vec())));
        let (_sim, home) = given_with(&other.address(), plain(300), keys);

        let checked = home.command(&["check", "--online"]).output().unwrap();

        let checked = String::from_utf8(checked.stdout).unwrap();
        let told = "the other side says `220 mail.example.com ESMTP`";
        assert!(checked.contains("failed  sink `peer`: deliver to `"), "{checked}");
        assert!(checked.contains(told), "{checked}");
        takes_nothing(&home, told);
    }
}

#[test]
fn a_server_that_answers_a_message_has_not_taken_it() {
    let other = Receiver::start(Options::default());
    other.fault_when(|_| Some(Fault::Garbage(b"500 5.5.1 what?\r\n".to_vec())));
    let (_sim, home) = given_with(&other.address(), plain(300), "");

    takes_nothing(&home, "the other side says `500 5.5.1 what?`");
}

#[test]
fn an_address_that_takes_connections_and_nothing_else_gives_way_to_the_next() {
    let (balancer, behind) = (
        Receiver::start(Options::default()),
        Receiver::start(Options { kind: Kind::Relp, ..Options::default() }),
    );
    balancer.fault_when_connected(|_| Some(Fault::Close));
    let addresses = format!("{}\", \"{}", balancer.address(), behind.address());
    let (_sim, home) = given_with(&addresses, plain(300), "");
    let config = crate::rig::read(&home.path("siemferry.toml"));
    let (before, rest) = config.split_once("address = ").unwrap();
    let (list, rest) = rest.split_once('\n').unwrap();
    home.write("siemferry.toml", &format!("{before}address = [{list}]\n{rest}"));

    home.run_once_well();

    has_each_once(&behind, 300);
    assert_eq!(balancer.count(), 0);
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
