//! Servers that are no receivers of syslog, and addresses behind others.

use super::once::{given_with, number, plain};
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
