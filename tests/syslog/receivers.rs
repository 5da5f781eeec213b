//! What real receivers make of messages from a client that is written by hand.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::hostile;
use crate::receivers::{CLIENT, Kind, Receiver, rsyslog_accepts, syslog_ng_accepts};
use crate::rig::eventually;
use crate::tls::Authority;

const HEADER: &str = r#"<165>1 2026-01-02T03:04:05.678Z the-host siemferry - login [siemferry@32473 uid="a\"b\]c\\" source="acme"] "#;
const FIELDS: &str = r#"2026-01-02T03:04:05.678Z the-host siemferry - login 165 [siemferry@32473 uid="a\"b\]c\\" source="acme"]"#;

trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

fn connect(receiver: &Receiver, kind: Kind) -> Box<dyn Duplex> {
    let stream = TcpStream::connect(("127.0.0.1", receiver.port())).unwrap();
    if !kind.is_tls() {
        return Box::new(stream);
    }
    let name = ServerName::try_from("localhost").unwrap();
    let config = Arc::new(tls(receiver.authority()));
    let connection = ClientConnection::new(config, name).unwrap();
    Box::new(StreamOwned::new(connection, stream))
}

/// With a certificate for whoever asks.
fn tls(authority: &Authority) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let client = authority.client(CLIENT);
    let chain = vec![CertificateDer::from_pem_file(&client).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&client).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap()
}

fn messages() -> Vec<Vec<u8>> {
    let own = [
        r#"{"a":"\n\u0000\u001b]\"\\","b":"\ud800","c":"}"}"#,
        "{\"raw\":\"\u{2028} \u{2029} \u{85} \u{202e} \u{7f} \u{feff} Grüße 漢字 🦀\"}",
        " leading and trailing ",
        "#012 %MSG% $MSG \\n ' ; | & <165>1",
        "12 looks counted",
    ];
    let hostile = (0..20).map(|n| serde_json::to_string(&hostile(n)).unwrap());
    own.map(str::to_owned).into_iter().chain(hostile).map(String::into_bytes).collect()
}

/// What a receiver of this kind is sent: the messages, each with its header.
fn send(receiver: &Receiver, kind: Kind, messages: &[Vec<u8>]) {
    let whole = messages.iter().map(|message| [HEADER.as_bytes(), message].concat());
    if kind.is_udp() {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        for message in whole {
            socket.send_to(&message, ("127.0.0.1", receiver.port())).unwrap();
        }
        return;
    }
    let mut stream = connect(receiver, kind);
    if kind.is_relp() {
        return Relp::open(stream).send_all(whole);
    }
    for message in whole {
        if kind.is_newline() {
            stream.write_all(&[&message, &b"\n"[..]].concat()).unwrap();
        } else {
            let length = message.len().to_string();
            stream.write_all(&[length.as_bytes(), b" ", &message].concat()).unwrap();
        }
    }
    stream.flush().unwrap();
    // Some daemons forget what is still on its way when a connection ends at once.
    eventually("all has arrived", || receiver.count() >= messages.len());
}

/// As much of a RELP client as a test needs.
struct Relp {
    stream: BufReader<Box<dyn Duplex>>,
    number: u32,
}

impl Relp {
    fn open(stream: Box<dyn Duplex>) -> Self {
        let mut relp = Self { stream: BufReader::new(stream), number: 0 };
        let answer = relp.ask("open", b"relp_version=0\nrelp_software=by-hand\ncommands=syslog");
        assert!(answer.starts_with("200 OK") && answer.contains("commands=syslog"), "{answer}");
        relp
    }

    /// Waits for the answer to each, and says goodbye.
    fn send_all(mut self, messages: impl Iterator<Item = Vec<u8>>) {
        for message in messages {
            let answer = self.ask("syslog", &message);
            assert!(answer.starts_with("200"), "{answer}");
        }
        self.ask("close", b"");
    }

    fn ask(&mut self, command: &str, data: &[u8]) -> String {
        self.number += 1;
        let head = format!("{} {command} {}", self.number, data.len());
        let space = if data.is_empty() { "" } else { " " };
        let frame = [head.as_bytes(), space.as_bytes(), data, b"\n"].concat();
        self.stream.get_mut().write_all(&frame).unwrap();
        self.stream.get_mut().flush().unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut word = || {
            let mut word = Vec::new();
            loop {
                let next = self.stream.fill_buf().unwrap()[0];
                if next == b'\n' && !word.is_empty() {
                    break;
                }
                self.stream.consume(1);
                if next == b' ' {
                    break;
                }
                word.push(next);
            }
            String::from_utf8(word).unwrap()
        };
        let (number, command, length) = (word(), word(), word());
        assert_eq!((number, command), (self.number.to_string(), "rsp".to_owned()));
        let mut data = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut data).unwrap();
        let mut end = [0];
        self.stream.read_exact(&mut end).unwrap();
        assert_eq!(end, *b"\n");
        String::from_utf8(data).unwrap()
    }
}

#[test]
fn each_receiver_writes_what_it_was_sent_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    for kind in Kind::ALL {
        let receiver = Receiver::start(&dir.path().join(format!("{kind:?}")), kind);
        let messages = messages();

        send(&receiver, kind, &messages);
        eventually("all has arrived", || receiver.headers().len() >= messages.len());
        eventually("all has arrived", || receiver.count() >= messages.len());

        assert_eq!(texts(&receiver.lines()), texts(&messages), "{kind:?}");
        for header in receiver.headers() {
            assert_eq!(header.replace("678+00:00", "678Z"), FIELDS, "{kind:?}");
        }
        if kind.is_rsyslog() {
            let whole = messages.iter().map(|message| [HEADER.as_bytes(), message].concat());
            assert_eq!(receiver.messages(), whole.collect::<Vec<_>>(), "{kind:?}");
        }
    }
}

fn texts(lines: &[Vec<u8>]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8(line.clone()).unwrap()).collect()
}

#[test]
fn a_receiver_that_wants_certificates_takes_nothing_from_others() {
    let dir = tempfile::tempdir().unwrap();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.wants_certificate()) {
        let receiver = Receiver::start(&dir.path().join(format!("{kind:?}")), kind);
        let stranger = Authority::new();
        let mut config = tls(receiver.authority());
        config.client_auth_cert_resolver = tls(&stranger).client_auth_cert_resolver;
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", receiver.port())).unwrap();
        let mut stream = StreamOwned::new(connection, stream);

        // It may say so only when it is sent something, or read from.
        let sent = stream.write_all(HEADER.as_bytes()).and_then(|()| stream.flush());
        let answer = sent.and_then(|()| stream.read(&mut [0]));

        assert!(!matches!(answer, Ok(1..)), "{kind:?}");
        assert_eq!(receiver.count(), 0, "{kind:?}");
    }
}

#[test]
fn what_is_acknowledged_over_relp_outlives_the_receiver() {
    let dir = tempfile::tempdir().unwrap();
    let kind = Kind::RsyslogRelp;
    let mut receiver = Receiver::start(&dir.path().join("r"), kind).behind_a_proxy();
    let port = receiver.port();
    for round in 1..=3 {
        send(&receiver, kind, &messages());
        receiver.kill();
        assert_eq!(receiver.count(), round * messages().len());
        receiver.start_again();
    }
    assert_eq!(receiver.port(), port);

    let mut relp = Relp::open(connect(&receiver, kind));
    receiver.freeze();
    relp.stream.get_mut().write_all(b"2 syslog 5 <165>\n").unwrap();
    receiver.disconnect();
    assert_eq!(relp.stream.read(&mut [0]).unwrap(), 0, "the connection has ended");
    receiver.thaw();
    send(&receiver, kind, &messages());

    receiver.terminate();
    let lines = receiver.lines();
    assert!(lines.ends_with(&messages()), "{}", lines.len());
}

#[test]
fn a_daemon_refuses_a_configuration_that_is_none() {
    assert_eq!(
        rsyslog_accepts(
            "module(load=\"imtcp\")\ninput(type=\"imtcp\" port=\"514\")\n*.* /dev/null\n"
        ),
        Ok(())
    );
    let said = rsyslog_accepts("module(load=\"imtcp\")\ninput(type=\"imtcp\" prot=\"514\")\n");
    assert!(said.as_ref().is_err_and(|said| said.contains("prot")), "{said:?}");
    let good = "@version: 3.38\nsource s { network(port(601)); };\nlog { source(s); };\n";
    assert_eq!(syslog_ng_accepts(good), Ok(()));
    let said = syslog_ng_accepts(&good.replace("port", "prot"));
    assert!(said.as_ref().is_err_and(|said| said.contains("prot")), "{said:?}");
}
