//! The certificates that are trusted, and the one that is shown.

use std::path::Path;

use reqwest::{Certificate, Identity};

use super::error::{Error, innermost};
use crate::secret;

/// The certificates of a file, to be trusted.
pub fn trusted(path: &Path) -> Result<Vec<Certificate>, Error> {
    let refuse = |reason| Error::Certificates { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|err| refuse(err.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|err| refuse(innermost(&err)))?;
    if found.is_empty() {
        return Err(refuse("it holds no certificate".into()));
    }
    Ok(found)
}

/// The certificate that we show, with its chain and its key, of a file that others cannot read.
pub fn identity(path: &Path) -> Result<Identity, Error> {
    let pem = secret::private_file(path).map_err(|err| match err {
        secret::Error::Exposed { mode, .. } => Error::ClientCertificate {
            path: path.to_owned(),
            reason: format!("readable by others (mode {mode:04o})"),
            hint: "it holds a key: have nobody else read it, with `chmod 600`",
        },
        secret::Error::File { source, .. } => refuse_identity(path, source.to_string()),
        secret::Error::NotASecret { why, .. } => refuse_identity(path, why.to_owned()),
        other => refuse_identity(path, other.to_string()),
    })?;
    Identity::from_pem(pem.as_bytes()).map_err(|err| refuse_identity(path, innermost(&err)))
}

/// The refusal of a file that [`identity`] has read.
pub fn refuse_identity(path: &Path, reason: String) -> Error {
    let hint =
        "`client_certificate` must hold PEM: the certificate, its chain and its key, not encrypted";
    Error::ClientCertificate { path: path.to_owned(), reason, hint }
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

        assert!(matches!(&err, Error::Certificates { path: named, .. } if *named == path));
        assert_eq!(err.hint(), Some("`ca_file` must hold PEM certificates"));
    }
}
