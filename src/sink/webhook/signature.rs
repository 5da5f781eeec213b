//! Signatures by Standard Webhooks 1.0.0.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde::Deserialize;
use sha2::Sha256;

use crate::problem::Problem;
use crate::secret;
use crate::sink::{DeliveryError, http};

/// `signature = { keys }`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Each signs; several while one is replaced by another.
    pub keys: Vec<secret::Config>,
}

impl Signature {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let at = |text: String| Problem::at("signature.keys", text);
        if self.keys.is_empty() {
            return vec![at("names no key".to_owned()).hint(HINT)];
        }
        let plain = self.keys.iter().filter(|key| key.is_plain());
        let problems = plain.filter_map(|key| match key.read() {
            Ok(value) => decode(value.expose()).err().map(|why| at(why.to_owned()).hint(HINT)),
            Err(err) => Some(at(err.to_string()).hint(err.hint())),
        });
        problems.collect()
    }
}

const HINT: &str = "a key is `whsec_` and 24 to 64 bytes in base64: `echo whsec_$(openssl rand -base64 32)` makes one";

/// What a signature is made with.
pub struct Key(SecretSlice<u8>);

impl Key {
    /// Reads the key that stands at `index`. May block.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(index: usize, config: &secret::Config) -> Result<Self, DeliveryError> {
        let value = http::secret(config)?;
        let bytes = decode(value.expose()).map_err(|why| {
            let text = format!("read `signature.keys`, number {}: {why}", index + 1);
            DeliveryError::blocked(text, HINT.to_owned())
        })?;
        Ok(Self(bytes.into()))
    }

    fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret())
            .expect("a key may have any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The bytes of a key, or what is wrong with it. The text shows nothing of it.
fn decode(value: &str) -> Result<Vec<u8>, &'static str> {
    let encoded = value.strip_prefix("whsec_").ok_or("the key does not begin with `whsec_`")?;
    let bytes = STANDARD.decode(encoded).map_err(|_| "what follows `whsec_` is not base64")?;
    if !(24..=64).contains(&bytes.len()) {
        return Err("the key does not have 24 to 64 bytes");
    }
    // The same key, as another library may write it.
    secret::register(encoded);
    Ok(bytes)
}

/// The signatures by all keys, as the header has them; none without a key.
pub fn sign(keys: &[Key], id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let timestamp = timestamp.to_string();
    let signatures: Vec<_> = keys.iter().map(|key| key.sign(id, &timestamp, body)).collect();
    (!signatures.is_empty()).then(|| signatures.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // The example of the specification's own test suites.
        let key = decode("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();

        let signed = sign(
            &[Key(key.into())],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );

        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        let encoded = |len| format!("whsec_{}", STANDARD.encode(vec![7; len]));
        for (value, why) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(), "does not begin"),
            ("whsec_no base64!".to_owned(), "not base64"),
            ("whsec_".to_owned(), "24 to 64"),
            (encoded(23), "24 to 64"),
            (encoded(65), "24 to 64"),
        ] {
            let err = decode(&value).unwrap_err();
            assert!(err.contains(why), "{value}: {err}");
        }
        assert_eq!(decode(&encoded(24)).unwrap().len(), 24);
        assert_eq!(decode(&encoded(64)).unwrap().len(), 64);
    }
}
