//! One thing that is wrong with a configuration.

use std::fmt;

/// What is wrong, where, and what to do about it. Never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file or environment variable that says it, as shown; none when no place is to blame.
    pub place: Option<String>,
    /// The full key, such as `sources.acme.keeper.poll_every`; empty for a whole file.
    pub key: String,
    /// What was found or is missing.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with the value of `key`.
    pub fn at(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: None, key: key.into(), text: text.into(), hint: None }
    }

    /// A problem with all of a place, such as a file.
    pub fn of(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: Some(place.into()), ..Self::at("", text) }
    }

    /// With what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With its key as a part of the table `parent`.
    pub fn under(mut self, parent: &str) -> Self {
        let dot = if self.key.is_empty() { "" } else { "." };
        self.key = format!("{parent}{dot}{}", self.key);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}
