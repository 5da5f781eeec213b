//! What the sinks' contract asks of a receiver.

use std::fs;

use super::{Fault, Kind, Options, Receiver};
use crate::peer::{Peer, Trouble};
use crate::rig::Home;
use crate::tls::Authority;

/// Over RELP, which acknowledges each message.
pub struct Relp(Receiver);

/// Over TLS, which acknowledges nothing.
pub struct Tls {
    receiver: Receiver,
    authority: Authority,
    /// What is in the file of the authority when all is well.
    pem: String,
}

/// The event of a message: what follows the header, which has no brace.
fn event(message: Vec<u8>) -> String {
    let message = String::from_utf8(message).unwrap();
    let at = message.find('{').unwrap_or_else(|| panic!("{message}"));
    message[at..].to_owned()
}

fn events(receiver: &Receiver) -> Vec<String> {
    assert_eq!(receiver.violations(), [""; 0]);
    receiver.messages().into_iter().map(event).collect()
}

/// Befalls messages so far apart that each connection gets somewhere.
fn now_and_then(receiver: &Receiver, fault: Fault) {
    receiver.fault_when(move |seen| (seen.message % 97 == 50).then(|| fault.clone()));
}

impl Peer for Relp {
    const TROUBLES: &'static [Trouble] =
        &[Trouble::ResetBefore, Trouble::ResetWithin, Trouble::LoseAnswer, Trouble::Stall];
    const IS_EXACT: bool = false;

    fn start(_: &Home) -> Self {
        Self(Receiver::start(Options { kind: Kind::Relp, ack_after: 20, ..Options::default() }))
    }

    fn config(&self, keys: &str) -> String {
        format!("[sinks.peer.syslog]\naddress = \"{}\"\n{keys}\n", self.0.address())
    }

    fn lines(&self) -> Vec<String> {
        events(&self.0)
    }

    fn count(&self) -> usize {
        self.0.count()
    }

    fn trouble(&self, trouble: Trouble) {
        let fault = match trouble {
            Trouble::ResetBefore => Fault::Reset,
            Trouble::ResetWithin => Fault::ServerClose,
            Trouble::LoseAnswer => Fault::LoseAck,
            Trouble::Stall => Fault::Freeze,
            Trouble::Busy | Trouble::Moved => panic!("no such trouble"),
        };
        now_and_then(&self.0, fault);
    }

    fn bar(&self) {
        self.0.fault_when_connected(|_| Some(Fault::RefuseOpen("who are you?".into())));
    }

    fn mend(&self) {
        self.0.mend();
    }
}

impl Peer for Tls {
    /// What a receiver's kernel has when the receiver resets or stands still, no sender can know of.
    const TROUBLES: &'static [Trouble] = &[Trouble::LoseAnswer];
    const IS_EXACT: bool = false;

    fn start(_: &Home) -> Self {
        let authority = Authority::new();
        let tls = Some(authority.server("127.0.0.1", 2100).config);
        let receiver = Receiver::start(Options { kind: Kind::Tls, tls, ..Options::default() });
        let pem = fs::read_to_string(authority.file()).unwrap();
        Self { receiver, authority, pem }
    }

    fn config(&self, keys: &str) -> String {
        let (address, ca_file) = (self.receiver.address(), self.authority.file());
        let ca_file = ca_file.display();
        format!("[sinks.peer.syslog]\naddress = \"{address}\"\nca_file = \"{ca_file}\"\n{keys}\n")
    }

    fn lines(&self) -> Vec<String> {
        events(&self.receiver)
    }

    fn count(&self) -> usize {
        self.receiver.count()
    }

    fn trouble(&self, trouble: Trouble) {
        assert_eq!(trouble, Trouble::LoseAnswer, "nothing else can be known of");
        now_and_then(&self.receiver, Fault::FinishReading);
    }

    /// Nobody vouches for it any more.
    fn bar(&self) {
        let other = fs::read_to_string(Authority::new().file()).unwrap();
        fs::write(self.authority.file(), other).unwrap();
    }

    fn mend(&self) {
        fs::write(self.authority.file(), &self.pem).unwrap();
        self.receiver.mend();
    }
}
