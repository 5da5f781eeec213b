//! The SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` shows it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

use crate::units::Malformed;

/// Of the whole certificate in DER (RFC 5425, section 4.2.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

const EXPECTED: Malformed = Malformed {
    expected: "`sha256:` and 64 hexadecimal digits, with colons in between or without",
};

impl Fingerprint {
    /// Of this certificate.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl FromStr for Fingerprint {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let lower = text.to_ascii_lowercase();
        let digits = lower.strip_prefix("sha256:").or_else(|| lower.strip_prefix("sha-256:"));
        let digits = digits.ok_or(EXPECTED)?.replace(':', "");
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(EXPECTED);
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| EXPECTED)?;
        }
        Ok(Self(bytes))
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            serde::de::Error::invalid_value(serde::de::Unexpected::Str(&text), &EXPECTED.expected)
        })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_in_each_form_that_tools_show() {
        let plain = format!("sha256:{}", "0a".repeat(32));
        let colons = format!("SHA256:{}", ["0A"; 32].join(":"));
        let rsyslog = format!("SHA-256:{}", ["0a"; 32].join(":"));

        for text in [&plain, &colons, &rsyslog] {
            assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), plain);
        }
    }

    #[test]
    fn what_is_no_such_fingerprint_is_refused() {
        let digits = "0a".repeat(32);
        for text in [
            digits.clone(),
            format!("sha1:{digits}"),
            format!("sha256:{}", &digits[2..]),
            format!("sha256:{digits}00"),
            format!("sha256:{}zz", &digits[2..]),
            format!("sha256:{}é", &digits[2..]),
        ] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
