//! `auth = …`: what Microsoft Entra knows the daemon by.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess};

use crate::problem::Problem;
use crate::secret;
use crate::sink::http::{OneOf, one_of};

/// One of the five kinds of credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// An application and its secret.
    ClientSecret(ClientSecret),
    /// An application and its certificate.
    Certificate(Certificate),
    /// An application that trusts the tokens of another issuer, such as a Kubernetes cluster.
    WorkloadIdentity(WorkloadIdentity),
    /// The identity of an Azure virtual machine.
    ManagedIdentity(ManagedIdentity),
    /// The identity of a machine elsewhere that Azure Arc has connected.
    Arc(Arc),
}

/// `client_secret = { tenant, client, secret }`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSecret {
    /// The directory (tenant): its id or one of its domain names.
    pub tenant: String,
    /// The application's (client's) id.
    pub client: String,
    /// The secret's value.
    pub secret: secret::Config,
}

/// `certificate = { tenant, client, file, password }`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The directory (tenant): its id or one of its domain names.
    pub tenant: String,
    /// The application's (client's) id.
    pub client: String,
    /// PEM or PKCS#12 (PFX): the certificate, its chain and its key.
    pub file: PathBuf,
    /// What a PKCS#12 file is encrypted with.
    #[serde(default)]
    pub password: Option<secret::Config>,
}

/// `workload_identity = { tenant, client, file }`, each of them else from the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadIdentity {
    /// The directory (tenant); else `AZURE_TENANT_ID`.
    pub tenant: Option<String>,
    /// The application's (client's) id; else `AZURE_CLIENT_ID`.
    pub client: Option<String>,
    /// Where the other issuer's token is; else `AZURE_FEDERATED_TOKEN_FILE`.
    pub file: Option<PathBuf>,
}

/// `managed_identity = { client }`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManagedIdentity {
    /// Which of the identities that are assigned to the machine; its own, unless set.
    pub client: Option<String>,
}

/// `arc = {}`: the machine has one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arc {}

impl Auth {
    /// The kind, for a text.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ClientSecret(_) => "client secret",
            Self::Certificate(_) => "certificate",
            Self::WorkloadIdentity(_) => "workload identity",
            Self::ManagedIdentity(_) => "managed identity",
            Self::Arc(_) => "Azure Arc",
        }
    }

    /// The secrets it names, each under its key.
    pub fn secrets(&self) -> Vec<(String, &secret::Config)> {
        match self {
            Self::ClientSecret(config) => {
                vec![("auth.client_secret.secret".to_owned(), &config.secret)]
            }
            Self::Certificate(config) => {
                let password = config.password.iter();
                password
                    .map(|password| ("auth.certificate.password".to_owned(), password))
                    .collect()
            }
            Self::WorkloadIdentity(_) | Self::ManagedIdentity(_) | Self::Arc(_) => Vec::new(),
        }
    }

    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let names = match self {
            Self::ClientSecret(config) => {
                named("client_secret", Some(&config.tenant), Some(&config.client))
            }
            Self::Certificate(config) => {
                named("certificate", Some(&config.tenant), Some(&config.client))
            }
            Self::WorkloadIdentity(config) => {
                let (tenant, client) = (config.tenant.as_deref(), config.client.as_deref());
                named("workload_identity", tenant, client)
            }
            Self::ManagedIdentity(config) => {
                named("managed_identity", None, config.client.as_deref())
            }
            Self::Arc(_) => Vec::new(),
        };
        names.into_iter().chain(self.check_file()).chain(self.check_secrets()).collect()
    }

    fn check_file(&self) -> Option<Problem> {
        let (key, file) = match self {
            Self::Certificate(config) => ("auth.certificate.file", &config.file),
            Self::WorkloadIdentity(config) => {
                ("auth.workload_identity.file", config.file.as_ref()?)
            }
            _ => return None,
        };
        // What it holds, put in the place of its name, would be shown as the name.
        let text = file.to_string_lossy();
        if text.contains("-----BEGIN") || text.contains(char::is_control) {
            let hint = "put what stands there into a file with mode 0600, and name that file";
            return Some(Problem::at(key, "is no name of a file").hint(hint));
        }
        let is_empty = file.as_os_str().is_empty();
        is_empty.then(|| Problem::at(key, "is empty").hint("name the file, with its whole path"))
    }

    /// Others are read when they are needed: a daemon may wait for them, a check must not.
    fn check_secrets(&self) -> Option<Problem> {
        let (key, secret) = self.secrets().into_iter().find(|(_, secret)| secret.is_plain())?;
        let err = secret.read().err()?;
        let hint = err.hint();
        Some(Problem::at(key, err.to_string()).hint(hint))
    }
}

/// What is wrong with the names of a kind.
fn named(kind: &str, tenant: Option<&str>, client: Option<&str>) -> Vec<Problem> {
    let tenant_hint = "the directory (tenant) id that the overview of the app registration shows";
    let client_hint = "the application (client) id that the overview of the app registration shows";
    let wrong = |key: &str, value: Option<&str>, hint: &str| {
        let text = unfit_name(value?)?;
        Some(Problem::at(format!("auth.{kind}.{key}"), text).hint(hint))
    };
    [wrong("tenant", tenant, tenant_hint), wrong("client", client, client_hint)]
        .into_iter()
        .flatten()
        .collect()
}

/// What keeps a value from being the name of a tenant or of an application. A tenant is a part of a
/// path: it must be one part, and stay one.
pub fn unfit_name(value: &str) -> Option<&'static str> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match value {
        "" => Some("is empty"),
        "." | ".." => Some("is no name"),
        _ if value.chars().all(is_fit) => None,
        _ => Some("holds something else than letters, digits, `-`, `.` and `_`"),
    }
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of(deserializer)
    }
}

impl OneOf for Auth {
    const EXPECTED: &'static str = "a table with one of `client_secret`, `certificate`, `workload_identity`, \
                        `managed_identity` and `arc`";

    fn read<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Option<Self>, A::Error> {
        Ok(Some(match key {
            "client_secret" => Self::ClientSecret(map.next_value()?),
            "certificate" => Self::Certificate(map.next_value()?),
            "workload_identity" => Self::WorkloadIdentity(map.next_value()?),
            "managed_identity" => Self::ManagedIdentity(map.next_value()?),
            "arc" => Self::Arc(map.next_value()?),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(text: &str) -> Result<Auth, String> {
        toml::from_str(text).map_err(|err| toml::de::Error::message(&err).to_owned())
    }

    fn problems(text: &str) -> Vec<String> {
        auth(text).unwrap().check().iter().map(ToString::to_string).collect()
    }

    const GOOD: [(&str, &str); 5] = [
        ("client_secret = { tenant = 't', client = 'c', secret = { env = 'A' } }", "client secret"),
        ("certificate = { tenant = 'example.com', client = 'c', file = '/a.pem' }", "certificate"),
        ("workload_identity = {}", "workload identity"),
        ("managed_identity = { client = 'c' }", "managed identity"),
        ("arc = {}", "Azure Arc"),
    ];

    #[test]
    fn each_kind_is_read_and_has_a_name() {
        for (text, name) in GOOD {
            let auth = auth(text).unwrap();

            assert_eq!(auth.name(), name);
            assert_eq!(auth.check(), []);
        }
    }

    #[test]
    fn a_key_that_is_not_known_is_not_shown() {
        for text in ["auth-canary = 1", "auth-canary = {}"] {
            let message = auth(text).unwrap_err();
            assert!(message.starts_with("unknown key, expected a table with one of"), "{message}");
        }
        assert!(auth("arc = {}\nmanaged_identity = {}").unwrap_err().starts_with("more than one"));
        assert!(auth("").unwrap_err().starts_with("expected a table"));
        assert!(auth("arc = { a = 1 }").is_err());
        assert!(auth("client_secret = { tenant = 't', client = 'c' }").is_err());
    }

    #[test]
    fn secrets_are_told_with_their_keys() {
        let keys = |text: &str| {
            let auth = auth(text).unwrap();
            auth.secrets().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys(GOOD[0].0), ["auth.client_secret.secret"]);
        assert_eq!(keys(GOOD[1].0), [""; 0]);
        let text =
            "certificate = { tenant = 't', client = 'c', file = 'f', password = 'pfx-canary' }";
        assert_eq!(keys(text), ["auth.certificate.password"]);
        assert!(!format!("{:?}", auth(text).unwrap()).contains("canary"));
    }

    #[test]
    fn what_cannot_be_a_name_is_told() {
        let found =
            problems("client_secret = { tenant = 'a/b', client = '', secret = 'plain-canary' }");
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("`auth.client_secret.tenant`: holds something else"));
        assert_eq!(found[1], "`auth.client_secret.client`: is empty");

        let found = problems("workload_identity = { tenant = '..', file = '' }");
        assert_eq!(found[0], "`auth.workload_identity.tenant`: is no name");
        assert_eq!(found[1], "`auth.workload_identity.file`: is empty");

        let found = problems("client_secret = { tenant = 't', client = 'c', secret = '' }");
        assert!(found[0].starts_with("`auth.client_secret.secret`: "), "{}", found[0]);
    }
}
