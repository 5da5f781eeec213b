//! An application's certificate and key, and what is signed with it.
//!
//! Promises that a key is used only with the certificate it belongs to, and only in its time.
//! <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::DateTime;
use reqwest::Url;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::{KeyPair as _, RSA_PSS_SHA256};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;

use crate::secret;
use crate::sink::DeliveryError;
use crate::sink::sentinel::auth;

mod parts;

use parts::Parts;

/// How long what is signed is good, in seconds.
const LASTS: i64 = 600;

/// A certificate in its time, and its key.
pub struct Credential {
    /// DER; each is followed by its issuer's, as far as they are there.
    chain: Vec<Vec<u8>>,
    key: KeyPair,
    /// When the certificate ends, in seconds since 1970.
    ends: i64,
}

/// Reads the file, and sees whether a token can be asked for with it.
///
/// # Errors
/// [`DeliveryError::Blocked`]: the file cannot be read, or what is in it does not fit together or
/// is out of its time.
pub fn read(config: &auth::Certificate, now: i64) -> Result<Credential, DeliveryError> {
    let bytes = bytes(&config.file)?;
    let password = config.password.as_ref().map(crate::sink::http::secret).transpose()?;
    let parts = Parts::of(&bytes, password.as_ref().map(secret::Secret::expose));
    let credential = parts.and_then(|parts| Credential::of(&parts, now));
    credential.map_err(|wrong| wrong.at(&config.file))
}

fn bytes(file: &Path) -> Result<Vec<u8>, DeliveryError> {
    let wrong = |err| match err {
        secret::Error::Exposed { mode, .. } => Wrong::new(
            format!("readable by others (mode {mode:04o})"),
            "it holds a key: have nobody else read it, with `chmod 600`",
        ),
        secret::Error::File { source, .. } => Wrong::new(
            source.to_string(),
            "put the certificate with its key there, for the daemon's user to read",
        ),
        secret::Error::NotASecret { why, .. } => Wrong::new(why, FORM),
        other => Wrong::new(other.to_string(), FORM),
    };
    secret::private_bytes(file).map_err(|err| wrong(err).at(file))
}

/// What is expected of a file.
const FORM: &str = "`file` must hold the certificate and its key, as PEM or PKCS#12 (PFX)";

/// What is wrong with a file, and what to do.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    text: String,
    hint: &'static str,
}

impl Wrong {
    fn new(text: impl Into<String>, hint: &'static str) -> Self {
        Self { text: text.into(), hint }
    }

    fn at(self, file: &Path) -> DeliveryError {
        let text = format!("read the certificate from `{}`: {}", file.display(), self.text);
        DeliveryError::blocked(text, self.hint.to_owned())
    }
}

impl Credential {
    fn of(parts: &Parts, now: i64) -> Result<Self, Wrong> {
        let key = key(parts)?;
        let found = parsed(&parts.certificates)?;
        let is_its = |certificate: &&X509Certificate| {
            *certificate.public_key().subject_public_key.data == *key.public_key().as_ref()
        };
        let own = found.iter().find(is_its).ok_or_else(|| {
            Wrong::new(
                "the key does not belong to the certificate",
                "put the certificate beside the key that it was made for",
            )
        })?;
        let (begins, ends) =
            (own.validity().not_before.timestamp(), own.validity().not_after.timestamp());
        if now > ends {
            let text = format!("the certificate has ended on {}", day(ends));
            return Err(Wrong::new(text, "make a new one, and upload it to the app registration"));
        }
        if now < begins {
            let text = format!("the certificate begins on {}", day(begins));
            return Err(Wrong::new(text, "set this machine's clock, or wait until it begins"));
        }
        let chain = chain(own, &found).iter().map(|one| one.as_raw().to_vec()).collect();
        Ok(Self { chain, key, ends })
    }

    /// The day on which the certificate ends.
    pub fn until(&self) -> String {
        day(self.ends)
    }

    /// RFC 7523, section 3: who we are, signed. `url` is where it will be sent.
    pub fn assertion(&self, client: &str, url: &Url, now: i64) -> Result<String, DeliveryError> {
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(&self.chain[0]));
        let chain: Vec<_> = self.chain.iter().map(|one| STANDARD.encode(one)).collect();
        // With the chain, an application may trust an issuer and a name instead of one certificate.
        let head = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint, "x5c": chain });
        let claims = json!({
            "aud": url.as_str(),
            "iss": client,
            "sub": client,
            "jti": Uuid::new_v4().to_string(),
            "nbf": now,
            "iat": now,
            "exp": now + LASTS,
        });
        let encode = |part: serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(head), encode(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| DeliveryError::passing("sign with the certificate's key: it failed"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn key(parts: &Parts) -> Result<KeyPair, Wrong> {
    let key = match parts.keys.as_slice() {
        [] => return Err(Wrong::new("it holds no key", FORM)),
        [key] => key,
        _ => return Err(Wrong::new("it holds more than one key", FORM)),
    };
    let read = match key {
        parts::Key::Pkcs8(der) => KeyPair::from_pkcs8(der),
        parts::Key::Pkcs1(der) => KeyPair::from_der(der),
        parts::Key::Ec => return Err(no_rsa()),
    };
    read.map_err(|err| match err.to_string().as_str() {
        "WrongAlgorithm" => no_rsa(),
        why => Wrong::new(
            format!("the key cannot be used ({why})"),
            "use an RSA key of 2048 to 4096 bits, such as `openssl req -newkey rsa:2048` makes",
        ),
    })
}

fn no_rsa() -> Wrong {
    Wrong::new(
        "the key is no RSA key",
        "make a certificate with an RSA key of 2048 bits or more: Microsoft Entra takes no other",
    )
}

fn parsed(certificates: &[Vec<u8>]) -> Result<Vec<X509Certificate<'_>>, Wrong> {
    let found = certificates.iter().map(|der| {
        let (_, found) = x509_parser::parse_x509_certificate(der)?;
        Ok(found)
    });
    let found: Result<Vec<_>, x509_parser::nom::Err<_>> = found.collect();
    let found = found.map_err(|_| Wrong::new("one of its certificates cannot be read", FORM))?;
    if found.is_empty() {
        return Err(Wrong::new("it holds no certificate", FORM));
    }
    Ok(found)
}

/// The certificate, its issuer's, and so on.
fn chain<'a, 'b>(
    own: &'a X509Certificate<'b>,
    found: &'a [X509Certificate<'b>],
) -> Vec<&'a X509Certificate<'b>> {
    let mut chain = vec![own];
    let mut last = own;
    while let Some(issuer) = found.iter().find(|one| {
        one.subject().as_raw() == last.issuer().as_raw()
            && chain.iter().all(|known| known.as_raw() != one.as_raw())
    }) {
        chain.push(issuer);
        last = issuer;
    }
    chain
}

fn day(seconds: i64) -> String {
    let time = DateTime::from_timestamp(seconds, 0);
    time.map_or_else(|| seconds.to_string(), |time| time.format("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests;
