//! `[sinks.<name>.syslog]`

use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::{Deserialize, Deserializer};

use super::address::{Address, Addresses, Place, Transport};
use crate::encode::Format;
use crate::encode::syslog::{Facility, Framing, Header, Layout, Oversize, sound_hostname};
use crate::problem::Problem;
use crate::sink::{BatchLimits, Delivery, DeliveryError, From, Route};
use crate::tls::{self, Fingerprint};
use crate::units::{Bytes, Span, word};
use crate::{secret, sys};

/// `[sinks.<name>.syslog]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the messages go; several are tried in order.
    pub address: Addresses,
    /// What an event looks like.
    #[serde(deserialize_with = "word")]
    pub format: Format,
    /// What is before it.
    #[serde(deserialize_with = "word")]
    pub header: Header,
    /// Where a message ends in a stream; unless set, octet-counted.
    #[serde(deserialize_with = "some_word")]
    pub framing: Option<Framing>,
    /// What the messages are filed under; unless set, local4.
    #[serde(deserialize_with = "some_word")]
    pub facility: Option<Facility>,
    /// The host that the header names; unless set, this machine.
    pub hostname: Option<String>,
    /// The number in the name of our structured data; unless set, [`ENTERPRISE`].
    pub enterprise_number: Option<u32>,
    /// No message is longer, its header included.
    pub max_message: Bytes,
    /// What becomes of an event that would be.
    #[serde(deserialize_with = "word")]
    pub oversize: Oversize,
    /// PEM certificates trusted besides the operating system's.
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate that we show, its chain and its key.
    pub client_certificate: Option<PathBuf>,
    /// The name that the receiver's certificate must have; unless set, that of the address.
    pub server_name: Option<String>,
    /// The certificates that the receiver may have.
    pub fingerprints: Vec<Fingerprint>,
    /// How long a connection may make no progress.
    pub timeout: Span,
    /// How long a connection lasts before another is made in its place; unless set, for ever.
    pub rebind_every: Option<Span>,
    /// That events may be lost: UDP has no other way.
    pub lossy: bool,
    /// When a batch is full.
    pub batch: BatchLimits,
    /// Which events are for it.
    pub route: Route,
    /// Where the sink begins when it is new.
    #[serde(deserialize_with = "word")]
    pub from: From,
}

/// The number that IANA keeps for examples (RFC 5612): an organisation may have one of its own.
pub const ENTERPRISE: u32 = 32473;

/// Every receiver takes this much over IPv4 (RFC 5426, section 3.2), and a header of
/// usual names fits into it.
const SHORTEST_MESSAGE: u64 = 480;

/// What fits into a datagram over IPv4 (RFC 5426, section 3.1).
const LONGEST_DATAGRAM: u64 = 65_507;

/// librelp, which rsyslog receives with, takes 128 KiB, and other receivers less.
const LONGEST_MESSAGE: u64 = 128 << 10;

/// Streams are proven in the order in which they were written; RELP works on one batch while the next
/// is made.
const BATCHES_OF_A_STREAM: usize = 4;
const BATCHES_OF_RELP: usize = 2;

impl Default for Config {
    fn default() -> Self {
        Self {
            address: Addresses::default(),
            format: Format::default(),
            header: Header::default(),
            framing: None,
            facility: None,
            hostname: None,
            enterprise_number: None,
            max_message: Bytes::new(8 << 10),
            oversize: Oversize::default(),
            ca_file: None,
            client_certificate: None,
            server_name: None,
            fingerprints: Vec::new(),
            timeout: Span::seconds(90),
            rebind_every: None,
            lossy: false,
            batch: BatchLimits::default(),
            route: Route::default(),
            from: From::default(),
        }
    }
}

fn some_word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    word(deserializer).map(Some)
}

impl Config {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let timeout = Problem::at("timeout", "must be more than `0s`");
        let rebind = Problem::at("rebind_every", "must be more than `0s`");
        let server_name = Problem::at("server_name", "is not the name of a host")
            .hint("such as \"siem.example.com\"");
        let split = Problem::at("oversize", "`split` needs `header = \"rfc5424\"`")
            .hint("the structured data of that header tells the parts of an event");
        let found = [
            self.timeout.is_zero().then_some(timeout),
            self.rebind_every.is_some_and(Span::is_zero).then_some(rebind),
            self.server_name
                .as_deref()
                .is_some_and(|name| host(name).is_none())
                .then_some(server_name),
            self.check_hostname(),
            (self.enterprise_number == Some(0)).then(|| {
                Problem::at("enterprise_number", "is no number that IANA gives away")
                    .hint("your organisation's own, or leave it out")
            }),
            (self.oversize == Oversize::Split && self.header != Header::Rfc5424).then_some(split),
            self.batch.check(),
        ];
        let mut problems = self.check_addresses();
        problems.extend(found.into_iter().flatten());
        problems.extend(self.check_length());
        problems.extend(self.check_unused());
        problems
    }

    fn check_hostname(&self) -> Option<Problem> {
        let name = self.hostname.as_deref()?;
        (name.is_empty() || sound_hostname(name) != name).then(|| {
            Problem::at("hostname", "is not 1 to 255 characters of ASCII without spaces")
                .hint("name it as RFC 5424 has it, or leave it out")
        })
    }

    fn check_addresses(&self) -> Vec<Problem> {
        const HINT: &str = "such as \"tls://siem.example.com:6514\"; also `udp://`, `tcp://`, \
                            `relp://` and `relps://` with a port, and `unix:///dev/log`";
        if self.address.is_empty() {
            return vec![Problem::at("address", "is missing").hint(HINT)];
        }
        let wrong = self.address.parsed().filter_map(Result::err);
        let wrong = wrong.map(|text| Problem::at("address", text).hint(HINT));
        let unnamed = self.address.sound().into_iter().filter(|address| {
            let is_unnamed = self.server_name.is_none() && self.server_name(address).is_none();
            address.transport.is_tls() && is_unnamed
        });
        let unnamed = unnamed.map(|address| {
            Problem::at("address", format!("no certificate can be for the host of `{address}`"))
                .hint("name the one that the receiver's is for in `server_name`")
        });
        wrong.chain(unnamed).chain(self.check_order()).collect()
    }

    /// UDP takes whatever it is given.
    fn check_order(&self) -> Option<Problem> {
        let addresses = self.address.sound();
        let udp = addresses.iter().position(|address| address.transport == Transport::Udp)?;
        let behind = addresses.get(udp + 1)?;
        let text = format!("`{}` never fails, so `{behind}` is never tried", addresses[udp]);
        Some(Problem::at("address", text).hint("name `udp://` last, and once"))
    }

    fn check_length(&self) -> Option<Problem> {
        let has_datagrams = self.has_udp();
        let longest = if has_datagrams { LONGEST_DATAGRAM } else { LONGEST_MESSAGE };
        let length = self.max_message.get();
        if length < SHORTEST_MESSAGE {
            let text = format!("less than {SHORTEST_MESSAGE} bytes, which every receiver takes");
            return Some(Problem::at("max_message", text));
        }
        (length > longest).then(|| {
            let over = if has_datagrams { "a datagram" } else { "any receiver" };
            Problem::at("max_message", format!("more than the {longest} bytes that {over} takes"))
        })
    }

    /// A setting that would do nothing is one that somebody relies on in vain.
    fn check_unused(&self) -> Vec<Problem> {
        let is_without = |is_set: bool, key: &str, needs: &str| {
            is_set.then(|| {
                Problem::at(key, format!("does nothing without {needs}")).hint("leave it out")
            })
        };
        let mut found = Vec::new();
        if !self.any(Transport::is_tls) {
            let needs = "a `tls://` or `relps://` address";
            found.extend([
                is_without(self.ca_file.is_some(), "ca_file", needs),
                is_without(self.client_certificate.is_some(), "client_certificate", needs),
                is_without(self.server_name.is_some(), "server_name", needs),
                is_without(!self.fingerprints.is_empty(), "fingerprints", needs),
            ]);
        }
        if !self.any(Transport::has_framing) {
            let needs = "a `tcp://`, `tls://` or `unix://` address";
            found.push(is_without(self.framing.is_some(), "framing", needs));
        }
        if self.header == Header::None {
            let needs = "a header";
            found.push(is_without(self.facility.is_some(), "facility", needs));
            found.push(is_without(self.hostname.is_some(), "hostname", needs));
        }
        if self.header != Header::Rfc5424 {
            let needs = "`header = \"rfc5424\"`";
            found.push(is_without(self.enterprise_number.is_some(), "enterprise_number", needs));
        }
        match (self.has_udp(), self.lossy) {
            (true, false) => found.push(Some(
                Problem::at(
                    "lossy",
                    "must be true for `udp://`, which loses messages and never tells",
                )
                .hint("`relp://` loses none, `tcp://` few; or say `lossy = true`"),
            )),
            (false, true) if !self.any(|transport| transport == Transport::Udp) => {
                found.push(is_without(true, "lossy", "a `udp://` address"));
            }
            _ => {}
        }
        found.into_iter().flatten().collect()
    }

    fn has_udp(&self) -> bool {
        self.address.sound().iter().any(|address| address.transport == Transport::Udp)
    }

    /// Whether this may be so of an address.
    fn any(&self, is_so: impl Fn(Transport) -> bool) -> bool {
        // What cannot be read is told of elsewhere, and may have been any.
        self.address.parsed().any(|address| address.map_or(true, |known| is_so(known.transport)))
    }

    /// The secrets it names: none, for keys are in files of their own.
    pub fn secrets(&self) -> Vec<(String, &secret::Config)> {
        Vec::new()
    }

    /// How the courier is to deliver.
    pub fn delivery(&self) -> Delivery {
        let over = |wanted: &[Transport]| self.any(|transport| wanted.contains(&transport));
        let in_flight = match () {
            () if over(&[Transport::Tcp, Transport::Tls]) => BATCHES_OF_A_STREAM,
            () if over(&[Transport::Relp, Transport::Relps]) => BATCHES_OF_RELP,
            () => 1,
        };
        let route = self.route.clone();
        Delivery { batch: self.batch, in_flight, route, is_exact: false, counts_events: true }
    }

    /// Looks for what would block the sink, on this machine alone.
    pub fn examine(&self) -> Result<String, DeliveryError> {
        self.tls()?;
        let places: Vec<_> = self.address.sound().iter().map(Address::to_string).collect();
        let lossy = if self.lossy { "; over UDP, so that events may be lost" } else { "" };
        Ok(format!("delivers to {}{lossy}", places.join(", else ")))
    }

    /// What TLS is set up with, if any address needs it. Reads files.
    pub(super) fn tls(&self) -> Result<Option<rustls::ClientConfig>, DeliveryError> {
        if !self.any(Transport::is_tls) {
            return Ok(None);
        }
        let settings = tls::Settings {
            ca_file: self.ca_file.clone(),
            client_certificate: self.client_certificate.clone(),
            fingerprints: self.fingerprints.clone(),
        };
        tls::client(&settings).map(Some).map_err(|err| {
            let hint = err.hint().to_owned();
            DeliveryError::blocked(secret::redact(&err.to_string()), hint)
        })
    }

    /// The name that the receiver at this address must prove to have.
    pub(super) fn server_name(&self, address: &Address) -> Option<ServerName<'static>> {
        match (&self.server_name, &address.place) {
            (Some(name), _) | (None, Place::Host { host: name, .. }) => host(name),
            (None, Place::Path(_)) => None,
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.timeout.duration()
    }

    pub(super) fn layout(&self) -> Layout {
        let own = || sys::host_name();
        Layout {
            format: self.format,
            header: self.header,
            facility: self.facility.unwrap_or_default(),
            hostname: sound_hostname(&self.hostname.clone().unwrap_or_else(own)),
            enterprise_number: self.enterprise_number.unwrap_or(ENTERPRISE),
            max_message: usize::try_from(self.max_message.get()).unwrap_or(usize::MAX),
            oversize: self.oversize,
            framing: self.framing.unwrap_or_default(),
        }
    }
}

fn host(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).ok()
}
