//! The certificates that are trusted, and the one that is shown.

use std::path::Path;

use reqwest::{Certificate, Identity};

use super::error::{Error, innermost};
use crate::tls;

/// The certificates of a file, to be trusted.
pub fn trusted(path: &Path) -> Result<Vec<Certificate>, Error> {
    let refuse = |err: reqwest::Error| tls::Error::Certificates {
        path: path.to_owned(),
        reason: innermost(&err),
    };
    let certificates = tls::certificates(path)?;
    let known = certificates.iter().map(|certificate| Certificate::from_der(certificate));
    Ok(known.collect::<Result<_, _>>().map_err(refuse)?)
}

/// The certificate that we show, with its chain and its key, of a file that others cannot read.
pub fn identity(path: &Path) -> Result<Identity, Error> {
    let pem = tls::identity_pem(path)?;
    let refuse = |err: reqwest::Error| tls::refuse_identity(path, innermost(&err));
    Ok(Identity::from_pem(pem.as_bytes()).map_err(refuse)?)
}

/// Whether it is our certificate that makes no client.
pub fn is_of_identity(err: &rustls::Error) -> bool {
    match err {
        rustls::Error::InconsistentKeys(_) => true,
        rustls::Error::General(text) => text.contains("private key"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::{Settings, client};

    fn settings() -> Settings {
        let timeout = Duration::from_secs(10);
        Settings { ca_file: None, client_certificate: None, proxy: None, timeout }
    }

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "no certificate here").unwrap();
        let settings = Settings { ca_file: Some(path.clone()), ..settings() };

        let err = client(&settings).unwrap_err();

        assert!(
            matches!(&err, Error::Tls(tls::Error::Certificates { path: named, .. }) if *named == path)
        );
        assert_eq!(err.hint(), Some("`ca_file` must hold PEM certificates"));
    }
}
