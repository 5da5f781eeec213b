//! The configuration: composes each module's own, loads and checks it.
//!
//! Defaults, then the file, then `conf.d/*.toml` beside it, then `SIEMFERRY_*` of the environment.
//! Whatever is not understood is refused with its place, its key and what to do; no refusal shows
//! the value of a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::problem::Problem;
use crate::units::Span;
use crate::{log, own, secret, sink, source, store};

mod explain;
mod layers;
mod read;
mod shape;

use layers::Layers;

/// All of the configuration. [`load`] gives only what passed [`Config::check`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the store is.
    pub state: store::Config,
    /// How much waits for the sinks.
    pub spool: store::SpoolConfig,
    /// How long events are remembered.
    pub seen: store::SeenConfig,
    /// What is logged, and how.
    pub log: log::Config,
    /// How the daemon stops.
    pub shutdown: Shutdown,
    /// Whether it tells of itself.
    pub own_events: own::Config,
    /// What events are read from, by name.
    pub sources: BTreeMap<String, source::Config>,
    /// Where events are delivered to, by name.
    pub sinks: BTreeMap<String, sink::Config>,
}

/// `[shutdown]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long deliveries in flight may take when the daemon is asked to stop.
    pub grace: Span,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: Span::seconds(20) }
    }
}

/// Loads and checks the configuration of `path`, of `conf.d` beside it and of the environment.
///
/// # Errors
/// Everything that is wrong with it, as far as one look can tell.
pub fn load(path: &Path) -> Result<Config, Error> {
    load_with(path, std::env::vars_os(), Utc::now())
}

fn load_with(
    path: &Path,
    environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    now: DateTime<Utc>,
) -> Result<Config, Error> {
    let layers = Layers::read(path, environment)?;
    layers.register_secrets();
    refuse(shape::problems(&layers))?;
    let config = layers.extract()?;
    let exposed = config.exposed_secrets(&layers);
    let problems = config.problems(now).into_iter().map(|problem| layers.place(problem));
    refuse(problems.chain(exposed).collect())?;
    Ok(config)
}

impl Config {
    /// Checks what no single value can tell.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(&self, now: DateTime<Utc>) -> Result<(), Error> {
        refuse(self.problems(now))
    }

    fn problems(&self, now: DateTime<Utc>) -> Vec<Problem> {
        let mut problems = self.own_problems();
        for (name, source) in &self.sources {
            let key = source_key(name, source);
            problems.extend(source.check(now).into_iter().map(|problem| problem.under(&key)));
        }
        for (name, sink) in &self.sinks {
            let key = sink_key(name, sink);
            let unknown = self.unknown_sources(sink.route());
            let sink = sink.check().into_iter().chain(unknown);
            problems.extend(sink.map(|problem| problem.under(&key)));
        }
        problems.extend(self.shared_secrets());
        problems.extend(self.shared_paths());
        problems
    }

    fn own_problems(&self) -> Vec<Problem> {
        let dir = self.state.dir.as_os_str().is_empty().then(|| {
            Problem::at("state.dir", "is empty").hint("name the directory that holds the store")
        });
        let spool = (self.spool.max_bytes.get() == 0)
            .then(|| Problem::at("spool.max_bytes", "must be more than `0B`"));
        let sources = self.sources.is_empty().then(|| {
            Problem::at("sources", "there is no source")
                .hint("add one, such as `[sources.acme.keeper]`")
        });
        let sinks = self.sinks.is_empty().then(|| {
            Problem::at("sinks", "there is no sink").hint("add one, such as `[sinks.archive.file]`")
        });
        [dir, spool, sources, sinks].into_iter().flatten().collect()
    }

    /// A sink that waits for the events of a misspelt source would wait in silence.
    fn unknown_sources(&self, route: &sink::Route) -> Option<Problem> {
        let is_known =
            |name: &str| name == crate::event::OWN_API || self.sources.contains_key(name);
        let unknown = route.sources.iter().flatten().find(|name| !is_known(name))?;
        let known: Vec<_> = self.sources.keys().map(String::as_str).collect();
        let text = format!("names `{}`, which is no source", log::escape(unknown));
        let hint = format!("the sources are `{}`", known.join("`, `"));
        Some(Problem::at("route.sources", text).hint(hint))
    }

    fn shared_secrets(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut known: Vec<(&secret::Config, String)> = Vec::new();
        for (name, source) in &self.sources {
            let Some(secret) = source.secret() else { continue };
            let key = source_key(name, source);
            match known.iter().find(|(other, _)| *other == secret) {
                Some((_, first)) => problems.push(
                    Problem::at(format!("{key}.token"), format!("the same secret as `{first}`"))
                        .hint("read every account by one source: two would double its events"),
                ),
                None => known.push((secret, key)),
            }
        }
        problems
    }

    fn shared_paths(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut known = BTreeMap::new();
        for (name, sink) in &self.sinks {
            // An empty path has no absolute form, and a refusal of its own.
            let Some(path) = sink.path().and_then(|path| std::path::absolute(path).ok()) else {
                continue;
            };
            let key = sink_key(name, sink);
            if let Some(first) = known.get(&path) {
                problems.push(
                    Problem::at(format!("{key}.path"), format!("the same file as `{first}`"))
                        .hint("give every sink a file of its own"),
                );
            } else {
                known.insert(path, key);
            }
        }
        problems
    }

    /// Secrets that stand in a file that others can open.
    fn exposed_secrets(&self, layers: &Layers) -> Vec<Problem> {
        let plain = |secret: Option<&secret::Config>| secret.is_some_and(secret::Config::is_plain);
        let sources = self.sources.iter().filter(|(_, source)| plain(source.secret()));
        let sources = sources.map(|(name, source)| format!("{}.token", source_key(name, source)));
        let sinks = self.sinks.iter().flat_map(|(name, sink)| {
            let secrets = sink.secrets().into_iter().filter(|(_, secret)| plain(Some(secret)));
            secrets.map(|(key, _)| format!("{}.{key}", sink_key(name, sink))).collect::<Vec<_>>()
        });
        let mut keys: Vec<_> = sources.chain(sinks).collect();
        // One key may name several secrets.
        keys.dedup();
        keys.iter().filter_map(|key| layers.refuse_exposed(key)).collect()
    }
}

fn source_key(name: &str, source: &source::Config) -> String {
    format!("sources.{name}.{}", source.kind())
}

fn sink_key(name: &str, sink: &sink::Config) -> String {
    format!("sinks.{name}.{}", sink.kind())
}

/// Why a configuration is refused: one problem at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Vec<Problem>);

fn refuse(problems: Vec<Problem>) -> Result<(), Error> {
    if problems.is_empty() { Ok(()) } else { Err(Error(problems)) }
}

impl Error {
    /// Everything that was found wrong; each with its own hint.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    /// What to do about the first problem.
    pub fn hint(&self) -> Option<&str> {
        self.0.first()?.hint.as_deref()
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// A line per problem.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            write!(f, "{line}{}", secret::redact(&problem.to_string()))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

// They are about owners and modes of files.
#[cfg(test)]
#[cfg(unix)]
mod tests;
