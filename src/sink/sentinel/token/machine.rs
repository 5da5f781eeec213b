//! What of this machine the tokens depend on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{secret, sys};

/// What the variables of an environment say.
type Variables = dyn Fn(&str) -> Option<String> + Send + Sync;

/// This machine, or what a test has in its place.
#[derive(Clone)]
pub struct Machine {
    /// What a variable of the environment says.
    variable: Arc<Variables>,
    /// The program of the Azure Arc agent that gives tokens.
    pub agent: PathBuf,
    /// Where that program leaves its proofs.
    pub proofs: PathBuf,
    /// How long the first wait is when the service of a virtual machine has no token yet.
    pub wait: Duration,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let agent = sys::ARC_AGENT.map(|(variable, rest)| {
            let root = variable.and_then(secret::platform).map(PathBuf::from);
            root.unwrap_or_default().join(rest)
        });
        let [agent, proofs] = agent;
        let wait = Duration::from_millis(800);
        Self { variable: Arc::new(secret::platform), agent, proofs, wait }
    }

    /// What a variable of the environment says.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name)
    }

    /// A machine of a test's own, with these variables.
    #[cfg(test)]
    pub fn with(variables: &[(&str, &str)], proofs: PathBuf) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: std::collections::HashMap<_, _> = variables.iter().map(owned).collect();
        Self {
            variable: Arc::new(move |name| variables.get(name).cloned()),
            agent: proofs.join("himds"),
            proofs,
            wait: Duration::from_millis(1),
        }
    }
}
