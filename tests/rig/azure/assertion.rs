//! Assertions that an application signs with the key of a certificate.
//! <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use super::entra::Refusal;

/// How far a clock may be off.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// A certificate that the application is known by.
#[derive(PartialEq, Eq)]
pub struct Registered {
    sha1: String,
    sha256: String,
    /// As PKCS #1 has it.
    key: Vec<u8>,
}

/// What an assertion must say.
pub struct Expected<'a> {
    pub client: &'a str,
    pub audience: &'a str,
    pub now: DateTime<Utc>,
}

impl Registered {
    pub fn from_pem(pem: &str) -> Self {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate in PEM");
        let thumbprint =
            |algorithm| URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &der).as_ref());
        Self {
            sha1: thumbprint(&SHA1_FOR_LEGACY_USE_ONLY),
            sha256: thumbprint(&SHA256),
            key: public_key(&der).expect("a certificate with an RSA key"),
        }
    }
}

/// The key in a certificate (RFC 5280, section 4.1).
fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    // The version may be absent; then come number, algorithm, issuer, validity, subject.
    if fields.first() == Some(&0xA0) {
        fields = element(fields)?.2;
    }
    for _ in 0..5 {
        fields = element(fields)?.2;
    }
    let (_, key, _) = element(fields)?;
    let (_, _, bits) = element(key)?;
    let (_, bits, _) = element(bits)?;
    // The first byte counts unused bits.
    bits.strip_prefix(&[0]).map(<[u8]>::to_vec)
}

/// The tag and the contents of the first element of DER, and what is behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

fn malformed(why: &str) -> Refusal {
    Refusal::invalid_request(50_027, format!("JWT token is invalid or malformed. {why}"))
}

pub fn out_of_time(now: DateTime<Utc>, span: Option<(i64, i64)>) -> Refusal {
    let told = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let at = |second| DateTime::from_timestamp(second, 0).map(told).unwrap_or_default();
    let (from, until) = span.map(|(from, until)| (at(from), at(until))).unwrap_or_default();
    let text = format!(
        "Client assertion is not within its valid time range. Current time: {}, assertion valid \
         from {from}, expiry time of assertion {until}. Review the documentation at \
         https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
        told(now)
    );
    Refusal::invalid_client(700_024, text)
}

/// Checks an assertion, and gives its `jti`.
pub fn check(
    assertion: &str,
    certificates: &[Registered],
    expected: &Expected<'_>,
) -> Result<String, Refusal> {
    let [header, claims, signature] = assertion
        .split('.')
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| malformed("Three parts."))?;
    let (head, said) = (json_of(header)?, json_of(claims)?);
    let signature =
        URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed("The signature is no base64."))?;
    let signed = &assertion[..header.len() + 1 + claims.len()];
    check_signature(&head, &said, signed.as_bytes(), &signature, certificates)?;
    check_claims(&said, expected)?;
    let id = said["jti"].as_str().filter(|id| !id.is_empty());
    id.map(str::to_owned).ok_or_else(|| malformed("The claim 'jti' is missing."))
}

fn json_of(part: &str) -> Result<Value, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("A part is no base64."))?;
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|_| malformed("A part is no JSON."))?;
    if value.is_object() { Ok(value) } else { Err(malformed("A part is no object.")) }
}

fn check_signature(
    head: &Value,
    said: &Value,
    signed: &[u8],
    signature: &[u8],
    certificates: &[Registered],
) -> Result<(), Refusal> {
    // MSAL does not leave out the padding.
    let thumbprint = |name: &str| head[name].as_str().map(|it| it.trim_end_matches('='));
    let (sha256, sha1) = (thumbprint("x5t#S256"), thumbprint("x5t"));
    let Some(thumbprint) = sha256.or(sha1) else {
        // Not of the application's own making: that of another issuer.
        let told = |name: &str| said[name].as_str().unwrap_or_default();
        let text = format!(
            "No matching federated identity record found for presented assertion. Assertion \
             Issuer: '{}'. Assertion Subject: '{}'. Assertion Audience: '{}'. Check your federated \
             identity credential Subject, Audience and Issuer against the presented assertion.",
            told("iss"),
            told("sub"),
            told("aud")
        );
        return Err(Refusal::invalid_request(70_021, text));
    };
    let algorithm: &RsaParameters = match head["alg"].as_str() {
        Some("PS256") => &RSA_PSS_2048_8192_SHA256,
        Some("RS256") => &RSA_PKCS1_2048_8192_SHA256,
        _ => return Err(malformed("The algorithm is not supported.")),
    };
    let unregistered = |why: &str| {
        let text = format!(
            "The certificate with identifier used to sign the client assertion is not registered \
             on application. [Reason - {why}, Thumbprint of key used by client: '{thumbprint}', \
             Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see \
             configured keys for app Id.]"
        );
        Refusal::invalid_client(700_027, text)
    };
    let known = certificates.iter().find(|known| {
        sha256.is_none_or(|it| it == known.sha256) && sha1.is_none_or(|it| it == known.sha1)
    });
    let known = known.ok_or_else(|| unregistered("The key was not found."))?;
    UnparsedPublicKey::new(algorithm, &known.key).verify(signed, signature).map_err(|_| {
        unregistered("The key was found, but use of the key to verify the signature failed.")
    })
}

fn check_claims(said: &Value, expected: &Expected<'_>) -> Result<(), Refusal> {
    if said["aud"] != expected.audience {
        let text = "Client assertion audience claim does not match Realm issuer. Review the \
            documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .";
        return Err(Refusal::invalid_client(700_023, text));
    }
    if said["iss"] != expected.client || said["sub"] != expected.client {
        let text = "Client assertion application identifier doesn't match 'client_id' parameter.";
        return Err(Refusal::invalid_client(700_021, text));
    }
    // A fraction is allowed (RFC 7519, section 2), and MSAL sends one.
    #[allow(clippy::cast_possible_truncation, reason = "seconds of this century")]
    let second = |name: &str| said[name].as_f64().map(|it| it.floor() as i64);
    let Some(until) = second("exp") else {
        return Err(malformed("The claim 'exp' is missing."));
    };
    // MSAL leaves `nbf` out, and sends when the assertion was made.
    let Some(from) = second("nbf").or_else(|| second("iat")) else {
        return Err(malformed("The claim 'nbf' is missing."));
    };
    let (now, skew) = (expected.now.timestamp(), SKEW.num_seconds());
    if now + skew < from || now - skew >= until || until <= from {
        return Err(out_of_time(expected.now, Some((from, until))));
    }
    Ok(())
}
