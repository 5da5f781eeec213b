//! How this daemon, as a client, knows whom it talks to over TLS, and shows who it is.
//!
//! Promises TLS 1.2 or 1.3, and that nobody is trusted whom neither an authority vouches for under the
//! right name nor the operator has pinned. There is no switch to turn that off.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::secret;

mod fingerprint;

pub use fingerprint::Fingerprint;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates could not be read.
    #[error("read certificates from `{}`: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The client's certificate or its key could not be read.
    #[error("read the client certificate from `{}`: {reason}", path.display())]
    ClientCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The settings make no client.
    #[error("set up TLS: {0}")]
    Setup(String),
}

impl Error {
    /// What the operator can do.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Certificates { .. } => "`ca_file` must hold PEM certificates",
            Self::ClientCertificate { hint, .. } => hint,
            Self::Setup(_) => "install the `ca-certificates` package, or name a `ca_file`",
        }
    }
}

/// Whom to trust, and who we are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// PEM certificates trusted besides the operating system's.
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate that we show, its chain and its key.
    pub client_certificate: Option<PathBuf>,
    /// Pinned certificates: with some, no other is trusted; and where no `ca_file` is named, one of
    /// them is trusted whoever issued it and whatever its name is (RFC 5425, section 5.2).
    pub fingerprints: Vec<Fingerprint>,
}

/// Sets up a client. Reads files, which may block.
///
/// # Errors
/// What is wrong with one of them.
pub fn client(settings: &Settings) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let setup = |err: rustls::Error| Error::Setup(err.to_string());
    let roots = settings.ca_file.as_deref().map(certificates).transpose()?;
    let is_pinned_alone = roots.is_none() && !settings.fingerprints.is_empty();
    let authorities = (!is_pinned_alone)
        .then(|| Verifier::new_with_extra_roots(roots.unwrap_or_default(), Arc::clone(&provider)))
        .transpose()
        .map_err(setup)?;
    let verifier: Arc<dyn ServerCertVerifier> = match authorities {
        Some(authorities) if settings.fingerprints.is_empty() => Arc::new(authorities),
        authorities => Arc::new(Pinned {
            pins: settings.fingerprints.clone(),
            authorities,
            provider: Arc::clone(&provider),
        }),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(path) = &settings.client_certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let (chain, key) = identity(path)?;
    builder.with_client_auth_cert(chain, key).map_err(|err| refuse_identity(path, err.to_string()))
}

/// The certificates of a file, to be trusted.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let refuse = |reason| Error::Certificates { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|err| refuse(err.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|err| refuse(err.to_string()))?;
    if found.is_empty() {
        return Err(refuse("it holds no certificate".into()));
    }
    Ok(found)
}

/// The text of a file with a certificate and its key, which others cannot read.
pub fn identity_pem(path: &Path) -> Result<String, Error> {
    secret::private_file(path).map_err(|err| match err {
        secret::Error::Exposed { mode, .. } => Error::ClientCertificate {
            path: path.to_owned(),
            reason: format!("readable by others (mode {mode:04o})"),
            hint: "it holds a key: have nobody else read it, with `chmod 600`",
        },
        secret::Error::File { source, .. } => refuse_identity(path, source.to_string()),
        secret::Error::NotASecret { why, .. } => refuse_identity(path, why.to_owned()),
        other => refuse_identity(path, other.to_string()),
    })
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(path: &Path) -> Result<Identity, Error> {
    let pem = identity_pem(path)?;
    let refuse = |err: rustls::pki_types::pem::Error| refuse_identity(path, err.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(refuse)?;
    if chain.is_empty() {
        return Err(refuse_identity(path, "it holds no certificate".into()));
    }
    Ok((chain, PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(refuse)?))
}

/// The refusal of a file that [`identity_pem`] has read.
pub fn refuse_identity(path: &Path, reason: String) -> Error {
    let hint =
        "`client_certificate` must hold PEM: the certificate, its chain and its key, not encrypted";
    Error::ClientCertificate { path: path.to_owned(), reason, hint }
}

/// What TLS itself found wrong, if that is what an error wraps. An I/O error does not name what it
/// wraps as its cause, and may wrap another one.
pub fn fault<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    cause.downcast_ref().or_else(|| fault(wrapped?))
}

/// Whether the server wants another certificate of ours. It may say so when the handshake is over for
/// us, and has read nothing of what was sent then.
pub fn refuses_certificate(err: &rustls::Error) -> bool {
    let rustls::Error::AlertReceived(alert) = err else { return false };
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

/// Trusts the certificates whose fingerprints are known, and of those, where authorities are asked
/// too, the ones that they vouch for.
#[derive(Debug)]
struct Pinned {
    pins: Vec<Fingerprint>,
    authorities: Option<Verifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(end_entity);
        if !self.pins.contains(&shown) {
            let text = format!("its certificate is {shown}, which is none of `fingerprints`");
            return Err(rustls::Error::General(text));
        }
        match &self.authorities {
            None => Ok(ServerCertVerified::assertion()),
            Some(asked) => {
                asked.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
