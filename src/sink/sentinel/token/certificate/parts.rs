//! What a file with a certificate holds: PEM or PKCS#12, told apart by what is in it.

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;
use rustls::pki_types::pem::{PemObject as _, SectionKind};

use super::{FORM, Wrong};

/// Certificates and keys, in the order of the file.
#[derive(Default)]
pub struct Parts {
    /// DER.
    pub certificates: Vec<Vec<u8>>,
    /// Private keys.
    pub keys: Vec<Key>,
}

/// A private key, not encrypted.
pub enum Key {
    /// RFC 5958, of any algorithm.
    Pkcs8(Vec<u8>),
    /// RFC 8017, appendix A.1.2: RSA.
    Pkcs1(Vec<u8>),
    /// RFC 5915: an elliptic curve.
    Ec,
}

impl Parts {
    /// Takes a file apart.
    pub fn of(bytes: &[u8], password: Option<&str>) -> Result<Self, Wrong> {
        if contains(bytes, b"-----BEGIN ") {
            Self::of_pem(bytes)
        } else {
            Self::of_pfx(bytes, password)
        }
    }

    fn of_pem(bytes: &[u8]) -> Result<Self, Wrong> {
        // RFC 7468, section 11; and what OpenSSL wrote before.
        if contains(bytes, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(bytes, b"4,ENCRYPTED") {
            return Err(Wrong::new(
                "its key is encrypted",
                "decrypt it with `openssl pkey`, or use a PKCS#12 file and its `password`",
            ));
        }
        let mut parts = Self::default();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
            let (kind, der) = section.map_err(|err| Wrong::new(format!("its PEM: {err}"), FORM))?;
            match kind {
                SectionKind::Certificate => parts.certificates.push(der),
                SectionKind::PrivateKey => parts.keys.push(Key::Pkcs8(der)),
                SectionKind::RsaPrivateKey => parts.keys.push(Key::Pkcs1(der)),
                SectionKind::EcPrivateKey => parts.keys.push(Key::Ec),
                _ => {}
            }
        }
        Ok(parts)
    }

    fn of_pfx(bytes: &[u8], password: Option<&str>) -> Result<Self, Wrong> {
        let archive = Pkcs12Archive::from_pkcs12(bytes, password.unwrap_or_default());
        let archive = archive.map_err(|err| match (err, password) {
            (Error::MacError(_), None) => {
                Wrong::new("it is encrypted", "name its password in `password`")
            }
            (Error::MacError(_), Some(_)) => {
                Wrong::new("the password is wrong", "let `password` be what the file was made with")
            }
            (Error::DerError(_), _) => Wrong::new("it is neither PEM nor PKCS#12", FORM),
            (err, _) => Wrong::new(
                format!("its PKCS#12 cannot be read: {err}"),
                "make it anew with `openssl pkcs12 -export`, or use PEM",
            ),
        })?;
        let certificates = archive.certs.iter().map(|bag| bag.cert.as_der().to_vec()).collect();
        let keys = archive.keys.iter().map(|bag| Key::Pkcs8(bag.key.as_der().to_vec())).collect();
        Ok(Self { certificates, keys })
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}
