//! The receiver with TLS: who is served, and how a connection ends.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{NONE, connect};
use crate::receiver::{Fault, How, Kind, Options, Receiver};
use crate::tls::{Authority, Server};

type Client = StreamOwned<ClientConnection, TcpStream>;

fn over_tls(kind: Kind, server: Server) -> Receiver {
    Receiver::start(Options { kind, tls: Some(server.config), ..Options::default() })
}

/// Who trusts this authority, and is who the file says.
fn client(receiver: &Receiver, authority: &Authority, who: Option<&Path>) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match who {
        None => builder.with_no_client_auth(),
        Some(file) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(file).unwrap()],
                PrivateKeyDer::from_pem_file(file).unwrap(),
            )
            .unwrap(),
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, connect(receiver))
}

fn shake_hands(client: &mut Client) -> io::Result<()> {
    let StreamOwned { conn, sock } = client;
    conn.complete_io(sock).map(drop)
}

fn say_goodbye(client: &mut Client) {
    client.conn.send_close_notify();
    client.flush().unwrap();
}

/// Ends the connection without ending TLS. What the receiver has sent is read first: who closes a
/// socket with something unread resets the connection, and TLS 1.3 always sends tickets.
fn leave(mut client: Client) {
    client.sock.shutdown(Shutdown::Write).unwrap();
    client.read(&mut [0]).unwrap_err();
}

#[test]
fn messages_over_tls_are_taken_and_an_orderly_end_is_told_from_an_abrupt_one() {
    let authority = Authority::new();
    let receiver = over_tls(Kind::Tls, authority.server("127.0.0.1", 2100));
    assert!(receiver.address().starts_with("tls://127.0.0.1:"));

    let mut first = client(&receiver, &authority, None);
    first.write_all(b"1 a1 b").unwrap();
    say_goodbye(&mut first);
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "the receiver says goodbye, too");
    receiver.ended(1);
    let mut second = client(&receiver, &authority, None);
    second.write_all(b"1 c").unwrap();
    leave(second);
    receiver.ended(2);
    let mut third = client(&receiver, &authority, None);
    third.write_all(b"9 d").unwrap();
    leave(third);
    receiver.ended(3);

    assert_eq!(receiver.ends(), [How::Orderly, How::Abrupt, How::Torn(3)]);
    assert_eq!(receiver.messages(), [b"a", b"b", b"c"]);
    assert_eq!(receiver.history()[0].read, 6);
    assert_eq!(receiver.violations(), NONE);
}

#[test]
fn a_server_that_is_not_as_it_should_be_is_not_trusted() {
    let authority = Authority::new();
    let wrong = [
        authority.server("elsewhere.example.com", 2100),
        authority.server("127.0.0.1", 2020),
        Authority::new().server("127.0.0.1", 2100),
        Server::self_signed("127.0.0.1"),
    ];
    for server in wrong {
        let receiver = over_tls(Kind::Tls, server);
        shake_hands(&mut client(&receiver, &authority, None)).unwrap_err();
        receiver.ended(1);
        let end = receiver.ends().remove(0);
        assert!(matches!(end, How::Tls(_)), "{end:?}");
        assert_eq!(receiver.violations(), NONE);
    }
}

#[test]
fn a_fingerprint_is_of_the_whole_certificate() {
    let server = Server::self_signed("127.0.0.1");
    let fingerprint = server.fingerprint();
    assert_eq!(fingerprint.len(), "sha256:".len() + 64);
    assert_ne!(fingerprint, Server::self_signed("127.0.0.1").fingerprint());
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_asked_for() {
    let authority = Authority::new();
    let receiver = over_tls(Kind::Tls, authority.server_for_clients("127.0.0.1"));

    let mut nobody = client(&receiver, &authority, None);
    let _ = nobody.write_all(b"1 a");
    nobody.read(&mut [0]).unwrap_err();
    receiver.ended(1);
    let known = authority.client("known");
    let mut known = client(&receiver, &authority, Some(&known));
    known.write_all(b"1 b").unwrap();

    receiver.received(1);
    assert_eq!(receiver.messages(), [b"b"]);
    assert!(matches!(&receiver.ends()[..], [How::Tls(_)]), "{:?}", receiver.ends());
}

#[test]
fn the_faults_are_the_same_with_tls() {
    let authority = Authority::new();
    let receiver = over_tls(Kind::Tls, authority.server("127.0.0.1", 2100));
    receiver.fault_when(|seen| match seen.message {
        0 => Some(Fault::Reset),
        1 => Some(Fault::Close),
        2 => Some(Fault::ResetAfterDraining),
        4 => Some(Fault::FinishReading),
        _ => None,
    });
    let send = |text: &[u8]| {
        let mut client = client(&receiver, &authority, None);
        client.write_all(text).unwrap();
        let end = client.read(&mut [0]).map_err(|err| err.kind());
        (client, end)
    };

    assert_eq!(send(b"1 a").1, Err(io::ErrorKind::ConnectionReset));
    assert_eq!(send(b"1 b").1, Ok(0));
    assert_eq!(send(b"1 c1 d").1, Err(io::ErrorKind::ConnectionReset));
    let (mut last, end) = send(b"1 e");
    assert_eq!(end, Ok(0));
    last.write_all(b"1 f").unwrap();
    say_goodbye(&mut last);

    receiver.ended(4);
    assert_eq!(receiver.messages(), [b"c", b"d", b"e", b"f"]);
    let ends = [How::WasReset, How::WasClosed, How::WasReset, How::Orderly];
    assert_eq!(receiver.ends(), ends);
}

#[test]
fn what_was_not_taken_within_tls_is_known_too() {
    let authority = Authority::new();
    let receiver = over_tls(Kind::Tls, authority.server("127.0.0.1", 2100));
    receiver.fault_when_connected(|_| Some(Fault::Slow(Duration::ZERO)));
    receiver.fault_when(|seen| (seen.message == 1).then_some(Fault::Reset));

    let mut client = client(&receiver, &authority, None);
    // More than two records hold; it may be reset before all is written.
    let _ = client.write_all(&b"1 a".repeat(12_000));
    receiver.ended(1);

    let told = &receiver.history()[0];
    assert_eq!(told.messages, 1);
    assert!(told.lost.len() > 16_384 / 3 - 2, "a record at least: {}", told.lost.len());
    assert!(told.lost.iter().all(|message| message == b"a"));
}

#[test]
fn relp_goes_over_tls() {
    let authority = Authority::new();
    let receiver = over_tls(Kind::Relps, authority.server("127.0.0.1", 2100));

    let mut client = client(&receiver, &authority, None);
    client.write_all(b"1 open 30 relp_version=0\ncommands=syslog\n2 syslog 1 a\n").unwrap();
    client.write_all(b"3 close 0\n").unwrap();
    let mut told = String::new();
    client.read_to_string(&mut told).unwrap();

    assert!(told.ends_with("2 rsp 6 200 OK\n3 rsp 6 200 OK\n0 serverclose 0\n"), "{told}");
    say_goodbye(&mut client);
    receiver.ended(1);
    assert_eq!(receiver.ends(), [How::Orderly]);
    assert_eq!(receiver.messages(), [b"a"]);
}
