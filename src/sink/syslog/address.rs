//! `address`: where the messages go, and over what.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use reqwest::Url;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// One of the addresses that are tried in order.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// What carries the messages.
    pub transport: Transport,
    /// Where to.
    pub place: Place,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram a message (RFC 5426): lossy.
    Udp,
    /// A stream of frames (RFC 6587).
    Tcp,
    /// The same within TLS (RFC 5425).
    Tls,
    /// RELP, which acknowledges each message.
    Relp,
    /// The same within TLS.
    Relps,
    /// A socket of this machine, such as `/dev/log`.
    Unix,
}

/// Where a receiver is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// On the network.
    Host {
        /// Its name, or its IP address without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// On this machine.
    Path(PathBuf),
}

impl Transport {
    const ALL: [(&str, Self); 6] = [
        ("udp", Self::Udp),
        ("tcp", Self::Tcp),
        ("tls", Self::Tls),
        ("relp", Self::Relp),
        ("relps", Self::Relps),
        ("unix", Self::Unix),
    ];

    /// The scheme of its addresses.
    pub fn scheme(self) -> &'static str {
        let found = Self::ALL.into_iter().find(|(_, transport)| *transport == self);
        found.expect("each has a name").0
    }

    /// Whether TLS protects it.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Relps)
    }

    /// Whether `framing` says where its messages end.
    pub const fn has_framing(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Unix)
    }

    /// The port that a standard has given it; the others have none that receivers agree on.
    const fn default_port(self) -> Option<u16> {
        match self {
            Self::Udp => Some(514),
            Self::Tls => Some(6514),
            Self::Tcp | Self::Relp | Self::Relps | Self::Unix => None,
        }
    }
}

/// The longest name of a host (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;

/// Names of other scripts are looked up in the form that begins with `xn--`.
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':')
}

/// What fits into the address of a socket (unix(7)).
const LONGEST_PATH: usize = 107;

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        let (scheme, rest) = text.split_once("://").ok_or(format!("`{shown}` has no `://`"))?;
        let known = Transport::ALL.into_iter().find(|(name, _)| *name == scheme);
        let Some((_, transport)) = known else {
            return Err(format!("`{shown}` begins with no transport that there is"));
        };
        if transport == Transport::Unix {
            if !rest.starts_with('/') {
                return Err(format!("`{shown}` names no absolute path"));
            }
            if rest.len() > LONGEST_PATH {
                return Err(format!("`{shown}` names a path of more than {LONGEST_PATH} bytes"));
            }
            return Ok(Self { transport, place: Place::Path(rest.into()) });
        }
        let url = Url::parse(text).map_err(|err| format!("`{shown}`: {err}"))?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("`{shown}` has more than a host and a port"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an address holds a user name or a password".into());
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(format!("`{shown}` names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.len() > LONGEST_NAME || !host.bytes().all(is_of_a_name) {
            return Err(format!("`{shown}` names no host that can be looked up"));
        }
        let port = url.port().or(transport.default_port());
        let port = port.filter(|port| *port != 0).ok_or(format!("`{shown}` names no port"))?;
        Ok(Self { transport, place: Place::Host { host, port } })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.transport.scheme();
        match &self.place {
            Place::Path(path) => write!(f, "{scheme}://{}", path.display()),
            Place::Host { host, port } if host.contains(':') => {
                write!(f, "{scheme}://[{host}]:{port}")
            }
            Place::Host { host, port } => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `address = "…"` or `address = ["…", "…"]`, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(Vec<String>);

impl Addresses {
    /// Each of them, or what is wrong with it.
    pub fn parsed(&self) -> impl Iterator<Item = Result<Address, String>> {
        self.0.iter().map(|text| text.parse())
    }

    /// Those that are sound: all of them, where the configuration was checked.
    pub fn sound(&self) -> Vec<Address> {
        self.parsed().filter_map(Result::ok).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as `tls://siem.example.com:6514`, or a list of them")
            }

            fn visit_str<E>(self, text: &str) -> Result<Addresses, E> {
                Ok(Addresses(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Addresses, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = seq.next_element()? {
                    all.push(text);
                }
                Ok(Addresses(all))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        text.parse::<Address>().map(|address| address.to_string())
    }

    #[test]
    fn an_address_says_what_carries_the_messages_and_where_to() {
        for (text, meant) in [
            ("tls://siem.example.com", "tls://siem.example.com:6514"),
            ("udp://192.0.2.1", "udp://192.0.2.1:514"),
            ("tcp://[::1]:601/", "tcp://[::1]:601"),
            ("relps://siem.example.com:2514", "relps://siem.example.com:2514"),
            ("unix:///dev/log", "unix:///dev/log"),
        ] {
            assert_eq!(parsed(text).unwrap(), meant);
        }
    }

    #[test]
    fn what_is_no_address_is_told_why() {
        for (text, why) in [
            ("siem.example.com:514", "has no `://`"),
            ("syslog://siem.example.com:514", "begins with no transport"),
            ("tcp://siem.example.com", "names no port"),
            ("relp://siem.example.com:0", "names no port"),
            ("tcp://siem.example.com:99999", "invalid port number"),
            ("tls://siem.example.com:6514/path", "has more than a host and a port"),
            ("tls://:6514", "empty host"),
            ("tcp://h\u{f4}st:601", "names no host that can be looked up"),
            ("tcp://a%20b:601", "names no host that can be looked up"),
            ("unix://dev/log", "names no absolute path"),
        ] {
            let told = parsed(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
        let told = parsed("tls://me:secret@siem.example.com").unwrap_err();
        assert!(!told.contains("secret"), "{told}");
    }
}
