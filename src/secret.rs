//! Secrets: where they are read from, and how they are kept out of every text.
//!
//! The only place that reads credentials and the environment variables that hold them. A value
//! that was read is never shown: not by `Debug`, not in an error; [`redact()`] takes it out of any
//! text that came from elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserializer, Error as _, MapAccess, Unexpected, Visitor};

mod command;
mod file;
mod redact;

pub use redact::{Held, hold, redact, register};

/// `{ file = } { env = } { credential = } { command = [..] }`, or the value itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Config {
    /// A file that others cannot read.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A file of that name in `$CREDENTIALS_DIRECTORY`, where systemd puts credentials.
    Credential(String),
    /// A program and its arguments; the value is what it prints.
    Command(Vec<String>),
    /// The value itself.
    Plain(Plain),
}

/// A value written where a reference to it could stand; `Debug` hides it.
#[derive(Clone)]
pub struct Plain(SecretString);

/// A secret value: not empty, ASCII without control characters, so fit for a header.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Config {
    /// Reads the value, and has [`redact()`] know it from now on. Blocks; a command for up to 30
    /// seconds.
    ///
    /// # Errors
    /// The value cannot be had, others can read it, or it does not fit a header. The text never
    /// contains the value.
    pub fn read(&self) -> Result<Secret, Error> {
        let value = match self {
            Self::File(path) => file::read(path)?,
            Self::Env(name) => variable(name)?,
            Self::Credential(name) => credential(name, credentials_directory().as_deref())?,
            Self::Command(words) => command::read(words, command::LIMIT)?,
            Self::Plain(value) => value.0.expose_secret().to_owned(),
        };
        self.accept(&value)
    }

    fn accept(&self, value: &str) -> Result<Secret, Error> {
        let value = value.trim_end_matches(['\r', '\n']);
        if let Some(why) = unfit(value) {
            return Err(Error::Unfit { place: self.place(), why });
        }
        register(value);
        Ok(Secret(value.into()))
    }

    /// A value that is written out; [`redact()`] knows it from now on.
    pub fn plain(value: &str) -> Self {
        register(value);
        Self::Plain(Plain(value.into()))
    }

    /// Whether only the service manager could hand the value over, and this process was not started
    /// by it.
    pub fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Credential(_)) && credentials_directory().is_none()
    }

    /// Whether the value stands in the configuration itself.
    pub const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Where the value is, for an error's text.
    fn place(&self) -> String {
        match self {
            Self::File(path) => format!("file `{}`", path.display()),
            Self::Env(name) => format!("environment variable `{name}`"),
            Self::Credential(name) => format!("credential `{name}`"),
            Self::Command(words) => format!("output of `{}`", command::program(words)),
            Self::Plain(_) => "configured value".to_owned(),
        }
    }
}

impl Secret {
    /// The value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for Plain {}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Env(name) => write!(f, "Env({name:?})"),
            Self::Credential(name) => write!(f, "Credential({name:?})"),
            // The arguments may hold a secret of their own.
            Self::Command(words) => write!(f, "Command({:?}, ..)", command::program(words)),
            Self::Plain(_) => f.write_str("***"),
        }
    }
}

/// Why a secret could not be read. No text of it contains the value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment lacks it, or holds something that is not text.
    #[error("read environment variable `{name}`: {why}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The service manager did not provide it.
    #[error("read credential `{name}`: {why}")]
    Credential {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The file cannot be read.
    #[error("read secret file `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What is there is not a file that holds a secret.
    #[error("read secret file `{}`: {why}", path.display())]
    NotASecret {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// Others than the daemon's user can read the file.
    #[error("read secret file `{}`: readable by others (mode {mode:04o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The command gave no value.
    #[error("run secret command `{program}`: {why}")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// What is wrong.
        why: String,
    },
    /// The value cannot be sent in a header.
    #[error("read secret from {place}: {why}")]
    Unfit {
        /// Where it was read from.
        place: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Variable { name, .. } => {
                format!("set `{name}` in the environment of the daemon")
            }
            Self::Credential { name, .. } => format!(
                "add `LoadCredential={name}:/path/to/the/secret` to the `[Service]` section of the \
                 unit"
            ),
            Self::File { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                format!(
                    "put the secret alone into `{}`, with mode 0600, or name another file",
                    path.display()
                )
            }
            Self::File { path, .. } => {
                format!("let the daemon's user read it: `ls -l {}` shows who can", path.display())
            }
            Self::NotASecret { .. } => "name the file that holds the secret alone".to_owned(),
            Self::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Command { .. } => {
                "run it by hand as the daemon's user: it must print the secret and exit 0"
                    .to_owned()
            }
            Self::Unfit { .. } => "store the secret alone, as one line of ASCII".to_owned(),
        }
    }
}

/// All of a file that holds more than a secret alone, such as a key beside its certificate.
///
/// # Errors
/// It cannot be read, or others can read it.
pub fn private_file(path: &Path) -> Result<String, Error> {
    file::read(path)
}

/// The same of a file that need not be text.
///
/// # Errors
/// It cannot be read, or others can read it.
pub fn private_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    file::read_bytes(path)
}

/// All of a small text that the platform has put there, for whom it let read it: a token in a
/// container, or the proof that this process is on this machine.
///
/// # Errors
/// It cannot be read, is longer than `most` bytes, or is no text.
pub fn platform_file(path: &Path, most: u64) -> std::io::Result<String> {
    file::read_platform(path, most)
}

/// The variables by which a platform tells a program where its identity comes from.
const OF_PLATFORMS: [&str; 9] = [
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "AZURE_TENANT_ID",
    "IDENTITY_ENDPOINT",
    "IMDS_ENDPOINT",
    "ProgramData",
    "ProgramFiles",
];

/// What the platform says in one of the variables that are known here; none when it is unset or
/// empty.
pub fn platform(name: &str) -> Option<String> {
    debug_assert!(OF_PLATFORMS.contains(&name), "`{name}` is not known here");
    let known = OF_PLATFORMS.iter().find(|known| **known == name)?;
    std::env::var(known).ok().filter(|value| !value.is_empty())
}

/// What keeps a value from being a secret, if anything.
fn unfit(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        return Some("it is empty");
    }
    if value.chars().any(char::is_control) {
        return Some("it holds a line break or another control character");
    }
    (!value.is_ascii()).then_some("it holds a character that is not ASCII")
}

fn variable(name: &str) -> Result<String, Error> {
    let failed = |why| Error::Variable { name: name.to_owned(), why };
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => failed("it is not set"),
        // The standard text of this error shows the value.
        std::env::VarError::NotUnicode(_) => failed("it is not UTF-8"),
    })
}

fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

fn credential(name: &str, directory: Option<&Path>) -> Result<String, Error> {
    let failed = |why: &str| Error::Credential { name: name.to_owned(), why: why.to_owned() };
    let directory = directory.ok_or_else(|| failed("`$CREDENTIALS_DIRECTORY` is not set"))?;
    file::read(&directory.join(name)).map_err(|error| match error {
        Error::File { source, .. } => failed(&source.to_string()),
        other => other,
    })
}

/// Whether `name` names a file in a directory, and nothing outside of it.
fn is_file_name(name: &str) -> bool {
    let plain = |c: char| c != '/' && c != '\\' && !c.is_control();
    !name.is_empty() && name != "." && name != ".." && name.chars().all(plain)
}

const EXPECTED: &str = "a table with one of `file`, `env`, `credential` and `command`";

impl<'de> serde::Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reference)
    }
}

struct Reference;

impl<'de> Visitor<'de> for Reference {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Config, E> {
        Ok(Config::plain(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
        let mut config = None;
        while let Some(key) = map.next_key::<String>()? {
            let next = match key.as_str() {
                "file" => Config::File(map.next_value()?),
                "env" => Config::Env(map.next_value()?),
                "credential" => Config::Credential(map.next_value()?),
                "command" => Config::Command(map.next_value()?),
                // The key may be a part of the secret: it is not shown.
                _ => {
                    return Err(A::Error::custom(format_args!("unknown key, expected {EXPECTED}")));
                }
            };
            if config.replace(next).is_some() {
                let text = format_args!("more than one key, expected {EXPECTED}");
                return Err(A::Error::custom(text));
            }
        }
        check(config.ok_or_else(|| A::Error::custom(format_args!("expected {EXPECTED}")))?)
    }

    // The standard refusals of these show the value.
    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Config, E> {
        Err(E::invalid_type(Unexpected::Other("a boolean"), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Config, E> {
        Err(E::invalid_type(Unexpected::Other("a number"), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Config, E> {
        Err(E::invalid_type(Unexpected::Other("a number"), &self))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Config, E> {
        Err(E::invalid_type(Unexpected::Other("a number"), &self))
    }
}

fn check<E: serde::de::Error>(config: Config) -> Result<Config, E> {
    let wrong = match &config {
        Config::File(path) if path.as_os_str().is_empty() => "`file` is empty",
        Config::Env(name) if name.is_empty() || name.contains(['=', '\0']) => {
            "`env` is not the name of an environment variable"
        }
        Config::Credential(name) if !is_file_name(name) => "`credential` is not a plain file name",
        Config::Command(words) if words.first().is_none_or(String::is_empty) => {
            "`command` names no program"
        }
        _ => return Ok(config),
    };
    Err(E::custom(wrong))
}

#[cfg(test)]
mod tests;
