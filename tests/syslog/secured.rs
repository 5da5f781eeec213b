//! TLS: whom the sink trusts, who it says it is, and what it tells of a mistake.

use std::path::Path;

use super::once::{given_with, has_each_once, plain};
use crate::receiver::{Kind, Options, Receiver};
use crate::rig::{Home, Sim, eventually, read};
use crate::tls::{Authority, Server};

fn receiver(kind: Kind, server: Server) -> Receiver {
    Receiver::start(Options { kind, tls: Some(server.config), ..Options::default() })
}

/// The keys that trust this authority.
fn trusting(authority: &Authority) -> String {
    format!("ca_file = \"{}\"\n", authority.file().display())
}

fn showing(certificate: &Path) -> String {
    format!("client_certificate = \"{}\"\n", certificate.display())
}

fn given(receiver: &Receiver, keys: &str) -> (Sim, Home) {
    given_with(&receiver.address(), plain(300), keys)
}

#[track_caller]
fn delivers(receiver: &Receiver, keys: &str) {
    let (_sim, home) = given(receiver, keys);
    home.run_once_well();
    receiver.received(300);
    has_each_once(receiver, 300);
}

/// Nothing is delivered, `check --online` and the log say why, and nothing is lost.
#[track_caller]
fn is_blocked(receiver: &Receiver, keys: &str, why: &str, hint: &str) {
    let (_sim, home) = given(receiver, keys);
    let checked = home.command(&["check", "--online"]).output().unwrap();
    let checked = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.contains(why) && checked.contains(hint), "{checked}");
    let mut daemon = home.spawn();
    eventually("it is told", || home.logged("Sink is blocked") == 1);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    let log = read(&home.log());
    assert!(log.contains(why), "{log}");
    let status = home.status();
    let sink = &status["sinks"]["peer"];
    assert_eq!((sink["state"].as_str(), sink["dead_letters"].as_u64()), (Some("blocked"), Some(0)));
    assert_eq!(receiver.count(), 0);
}

#[test]
fn who_an_authority_vouches_for_is_trusted() {
    let authority = Authority::new();
    for kind in [Kind::Tls, Kind::Relps] {
        let receiver = receiver(kind, authority.server("127.0.0.1", 2100));
        delivers(&receiver, &trusting(&authority));
    }
}

#[test]
fn who_nobody_vouches_for_is_not() {
    let (authority, other) = (Authority::new(), Authority::new());
    for kind in [Kind::Tls, Kind::Relps] {
        let receiver = receiver(kind, authority.server("127.0.0.1", 2100));
        is_blocked(&receiver, &trusting(&other), "invalid peer certificate", "`ca_file`");
    }
}

#[test]
fn the_name_must_be_the_receivers_own() {
    let authority = Authority::new();
    let receiver = receiver(Kind::Tls, authority.server("siem.example.com", 2100));

    is_blocked(&receiver, &trusting(&authority), "not valid for name", "`server_name`");

    delivers(&receiver, &(trusting(&authority) + "server_name = \"siem.example.com\"\n"));
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::new();
    let receiver = receiver(Kind::Tls, authority.server("127.0.0.1", 2001));

    is_blocked(&receiver, &trusting(&authority), "expired", "clock");
}

#[test]
fn a_pinned_certificate_is_trusted_whoever_signed_it_and_whatever_its_name() {
    let server = Server::self_signed("some.other.name");
    let (pin, other) = (server.fingerprint(), Server::self_signed("x").fingerprint());
    let receiver = receiver(Kind::Tls, server);

    delivers(&receiver, &format!("fingerprints = [\"{other}\", \"{pin}\"]\n"));
}

#[test]
fn a_certificate_that_is_not_pinned_is_refused_and_shown() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", 2100);
    let (pin, other) = (server.fingerprint(), Server::self_signed("x").fingerprint());
    let receiver = receiver(Kind::Tls, server);
    let keys = trusting(&authority) + &format!("fingerprints = [\"{other}\"]\n");

    is_blocked(&receiver, &keys, &format!("its certificate is {pin}"), "`fingerprints`");
}

#[test]
fn with_an_authority_a_pinned_certificate_must_be_vouched_for_too() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.server("127.0.0.1", 2100);
    let pin = server.fingerprint();
    let receiver = receiver(Kind::Tls, server);
    let keys = |trusted| trusting(trusted) + &format!("fingerprints = [\"{pin}\"]\n");

    is_blocked(&receiver, &keys(&other), "invalid peer certificate", "`ca_file`");
    delivers(&receiver, &keys(&authority));
}

#[test]
fn a_receiver_may_ask_who_we_are() {
    let (authority, other) = (Authority::new(), Authority::new());
    for kind in [Kind::Tls, Kind::Relps] {
        let receiver = receiver(kind, authority.server_for_clients("127.0.0.1"));
        let trusting = trusting(&authority);
        is_blocked(&receiver, &trusting, "CertificateRequired", "`client_certificate`");
        let foreign = trusting.clone() + &showing(&other.client("loghost"));
        is_blocked(&receiver, &foreign, "fatal alert", "`client_certificate`");
        delivers(&receiver, &(trusting + &showing(&authority.client("loghost"))));
    }
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let authority = Authority::new();
    let receiver = receiver(Kind::Tls, authority.server_for_clients("127.0.0.1"));
    let client = authority.client("loghost");
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o644)).unwrap();
    let keys = trusting(&authority) + &showing(&client);

    is_blocked(&receiver, &keys, "readable by others (mode 0644)", "chmod 600");
}

#[test]
fn what_listens_without_tls_is_told_from_what_does() {
    let authority = Authority::new();
    let plain = Receiver::start(Options::default());
    let address = plain.address().replace("tcp://", "tls://");
    let (_sim, home) =
        given_with(&address, super::once::plain(1), &(trusting(&authority) + "timeout = \"2s\""));

    let checked = home.command(&["check", "--online"]).output().unwrap();

    let checked = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.contains("failed  sink `peer`: deliver to `tls://127.0.0.1:"), "{checked}");
}

#[test]
fn what_is_sent_to_another_kind_of_server_is_not_delivered() {
    let authority = Authority::new();
    let secured = Some(authority.server("127.0.0.1", 2100).config);
    // They have 200 ms to object, and less each time.
    let soon = Options { one_at_a_time: true, ..Options::default() };
    let tls = Receiver::start(Options { kind: Kind::Tls, tls: secured, ..soon.clone() });
    let relp = Receiver::start(Options { kind: Kind::Relp, ..soon });

    for (other, told) in [(&tls, "the receiver speaks TLS"), (&relp, "has closed the connection")] {
        let (_sim, home) = given_with(&format!("tcp://{}", other.place()), plain(300), "");

        let tested = home.command(&["send-test", "peer"]).output().unwrap();
        let once = home.command(&["run", "--once", "--patience", "2s"]).output().unwrap();

        assert_eq!((tested.status.code(), once.status.code()), (Some(1), Some(1)));
        for output in [tested, once] {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(text.contains(told), "{text}");
        }
        assert_eq!(home.status()["sinks"]["peer"]["delivered"], 0);
        assert_eq!(other.count(), 0);
    }
}
