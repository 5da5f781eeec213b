//! Servers that are no receivers of syslog, and addresses behind others.

use super::once::{given_with, has_each_once, number, plain};
use crate::receiver::{Fault, Kind, Options, Receiver};
use crate::rig::{Home, Sim, read};
use crate::tls::Authority;

const GREETING: &[u8] = b"220 mail.example.com ESMTP\r\n";

/// A home whose only sink has these two addresses.
fn given_list(first: &Receiver, second: &Receiver, keys: &str) -> (Sim, Home) {
    let (sim, home) = given_with("ADDRESS", plain(300), keys);
    let config = read(&home.path("siemferry.toml"));
    let list = format!("[\"{}\", \"{}\"]", first.address(), second.address());
    home.write("siemferry.toml", &config.replace("\"ADDRESS\"", &list));
    (sim, home)
}

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
    let (_sim, home) = given_list(&balancer, &behind, "");

    home.run_once_well();

    has_each_once(&behind, 300);
    assert_eq!(balancer.count(), 0);
}

#[test]
fn an_address_that_is_passed_over_is_told_of_with_the_reason() {
    let authority = Authority::new();
    let tls = Some(authority.server("127.0.0.1", 2100).config);
    let stranger = Receiver::start(Options { kind: Kind::Tls, tls, ..Options::default() });
    let second = Receiver::start(Options { kind: Kind::Relp, ..Options::default() });
    let (_sim, home) = given_list(&stranger, &second, "rebind_every = \"1ms\"");
    let mut daemon = home.spawn();
    second.received(300);
    daemon.signal("TERM");
    assert!(daemon.wait().success());

    let log = read(&home.log());
    let told: Vec<_> = log.lines().filter(|line| line.contains("Another address takes")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("invalid peer certificate") && told[0].contains("`ca_file`"), "{log}");
    assert!(told[0].contains(&stranger.place()), "{log}");
    let checked = home.command(&["check", "--online"]).output().unwrap();
    let checked = String::from_utf8(checked.stdout).unwrap();
    assert!(
        checked.contains("failed  sink `peer`: not in use now: deliver to `tls://"),
        "{checked}"
    );
    assert!(checked.contains("acknowledges every message"), "{checked}");
}
