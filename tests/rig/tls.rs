//! A certificate authority of the test's own, and servers that it vouches for.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Signs certificates, and has its own in a file.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// How a server proves who it is.
pub struct Server {
    pub config: ServerConfig,
    certificate: CertificateDer<'static>,
}

impl Server {
    /// One that nobody vouches for but itself.
    pub fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let asks = ConfigBuilder::<ServerConfig, _>::with_no_client_auth;
        Self::with(&key, certificate, asks)
    }

    /// Of its certificate, as `fingerprints` has it.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(&self.certificate);
        let digits: Vec<_> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{}", digits.concat())
    }

    fn with(
        key: &KeyPair,
        certificate: CertificateDer<'static>,
        asks: impl FnOnce(
            ConfigBuilder<ServerConfig, WantsVerifier>,
        ) -> ConfigBuilder<ServerConfig, WantsServerCert>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = asks(builder.with_safe_default_protocol_versions().unwrap())
            .with_single_cert(vec![certificate.clone()], key.into());
        Self { config: config.unwrap(), certificate }
    }
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate with its issuer's name for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let dir = tempfile::tempdir().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    /// Its certificate, as PEM.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate that it vouches for and its key, in a file that nobody else can read.
    pub fn client(&self, name: &str) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = self.dir.path().join(format!("{name}.pem"));
        std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A server of this name that serves only clients that it vouches for.
    pub fn server_for_clients(&self, name: &str) -> Server {
        let mut roots = RootCertStore::empty();
        let pem = CertificateDer::from_pem_file(self.file()).unwrap();
        roots.add(pem).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        self.server_that(name, 2100, |builder| {
            builder.with_client_cert_verifier(verifier.build().unwrap())
        })
    }

    /// A server of this name, whose certificate is good until that year.
    pub fn server(&self, name: &str, until: i32) -> Server {
        self.server_that(name, until, ConfigBuilder::<ServerConfig, _>::with_no_client_auth)
    }

    fn server_that(
        &self,
        name: &str,
        until: i32,
        asks: impl FnOnce(
            ConfigBuilder<ServerConfig, WantsVerifier>,
        ) -> ConfigBuilder<ServerConfig, WantsServerCert>,
    ) -> Server {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Server::with(&key, certificate.der().clone(), asks)
    }
}
