//! The layers of the configuration, and which of them a key comes from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Config, Error, explain, read};
use crate::log::escape;
use crate::problem::Problem;
use crate::{secret, sink};

/// What all files and the environment say together.
pub struct Layers {
    /// The files alone.
    pub files: Figment,
    /// The files, and the environment above them.
    pub all: Figment,
    /// The file that everything could stand in.
    main: String,
    /// Permission bits of the files, by their [`read::place`].
    modes: BTreeMap<String, u32>,
}

/// One file or environment variable.
struct Layer {
    place: String,
    keys: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.place.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.keys.clone()))
    }
}

impl Layers {
    /// Reads every layer.
    pub fn read(
        path: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let mut files = Figment::new();
        let mut modes = BTreeMap::new();
        for path in std::iter::once(path.to_owned()).chain(drop_ins(path)?) {
            let contents = read::file(&path)?;
            let place = read::place(&path);
            modes.insert(place.clone(), contents.mode);
            files = files.merge(Layer { place, keys: contents.keys });
        }
        let mut all = files.clone();
        for layer in variables(environment)? {
            all = all.merge(layer);
        }
        Ok(Self { files, all, main: read::place(path), modes })
    }

    /// Has every secret that is written out known, before a value of the configuration is shown:
    /// the same may stand under another key by mistake.
    pub fn register_secrets(&self) {
        let tables = |value: Value| value.into_dict().unwrap_or_default().into_values();
        for kind in self.value("sources").into_iter().flat_map(tables).flat_map(tables) {
            if let Some(token) = kind.find_ref("token").and_then(Value::as_str) {
                secret::register(token);
            }
        }
        for kind in self.value("sinks").into_iter().flat_map(tables).flat_map(tables) {
            let keys = kind.find_ref("signature.keys").and_then(Value::as_array);
            let keys = keys.into_iter().flatten();
            let headers = kind.find_ref("headers").and_then(Value::as_dict).into_iter().flatten();
            let headers = headers.filter(|(name, _)| sink::webhook::names_a_secret(name));
            let auth = [
                "auth.api_key",
                "auth.basic.password",
                "auth.bearer",
                "auth.certificate.password",
                "auth.client_secret.secret",
                "token",
            ];
            let auth = auth.iter().filter_map(|key| kind.find_ref(key));
            let values = keys.chain(headers.map(|(_, value)| value)).chain(auth);
            values.filter_map(Value::as_str).for_each(secret::register);
        }
    }

    /// The configuration they make.
    pub fn extract(&self) -> Result<Config, Error> {
        self.all.extract().map_err(|error| Error(error.into_iter().map(explain::problem).collect()))
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Value> {
        self.all.find_value(key).ok()
    }

    /// The file or environment variable that a value comes from.
    pub fn origin(&self, value: &Value) -> Option<String> {
        Some(self.all.get_metadata(value.tag())?.name.to_string())
    }

    /// Adds where a problem's key comes from; for a missing one, where its table does.
    pub fn place(&self, problem: Problem) -> Problem {
        let mut key = problem.key.as_str();
        loop {
            if let Some(value) = self.value(key) {
                let place = self.origin(&value);
                return Problem { place, ..problem };
            }
            let Some((table, _)) = key.rsplit_once('.') else {
                return Problem { place: Some(self.main.clone()), ..problem };
            };
            key = table;
        }
    }

    /// The problem with a secret at `key`, when others can open the file that holds it.
    pub fn refuse_exposed(&self, key: &str) -> Option<Problem> {
        let place = self.origin(&self.value(key)?)?;
        let mode = *self.modes.get(&place)?;
        (mode & 0o077 != 0).then(|| {
            let text = format!("a secret in a file that others can open (mode {mode:04o})");
            let hint = format!(
                "chmod 600 {}, or name a file: `{{ file = \"…\" }}`",
                place.trim_matches('`')
            );
            Problem { place: Some(place), ..Problem::at(key, text) }.hint(hint)
        })
    }
}

/// The files of `conf.d` beside the file, in the order of their names.
fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    let directory = path.with_file_name("conf.d");
    let failed = |error: std::io::Error| {
        Problem::of(read::place(&directory), format!("read directory: {error}"))
    };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        // Editors leave hidden copies beside the files they edit.
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

const PREFIX: &str = "SIEMFERRY_";
const SECTIONS: [&str; 7] = ["log", "seen", "shutdown", "sinks", "sources", "spool", "state"];

/// A layer for every variable that is meant as configuration, in the order of their names.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Layer>, Problem> {
    let mut variables = BTreeMap::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let key = name[PREFIX.len()..].to_lowercase();
        if is_meant(name, &key)? {
            let place = variable_place(name);
            let value = value.to_str().ok_or_else(|| Problem::of(&place, "is not UTF-8"))?;
            let value = typed(value).ok_or_else(|| {
                Problem::of(&place, "is not a value of TOML")
                    .hint("put text that begins with `[`, `{` or `\"` in quotes")
            })?;
            variables.insert(name.to_owned(), Layer { keys: nest(&key, value), place });
        }
    }
    Ok(variables.into_values().collect())
}

fn variable_place(name: &str) -> String {
    format!("environment variable `{}`", escape(name))
}

/// Whether a variable is configuration. Kubernetes sets others with our prefix for a service of our
/// name, and an operator may keep a token in one.
fn is_meant(name: &str, key: &str) -> Result<bool, Problem> {
    let parts: Vec<_> = key.split("__").collect();
    if parts.len() > 1 || SECTIONS.contains(&key) {
        let empty = parts.iter().any(|part| part.is_empty());
        let problem = || Problem::of(variable_place(name), "holds an empty part between `__`");
        return if empty { Err(problem()) } else { Ok(true) };
    }
    let section = SECTIONS
        .iter()
        .find_map(|section| Some((*section, key.strip_prefix(section)?.strip_prefix('_')?)));
    let Some((section, rest)) = section else { return Ok(false) };
    let meant = format!("{PREFIX}{}__{}", section.to_uppercase(), rest.to_uppercase());
    let problem = Problem::of(variable_place(name), "is not a key of the configuration");
    Err(problem
        .hint(format!("two underscores separate levels: did you mean `{}`?", escape(&meant))))
}

/// A number, `true`, `false`, an array, a table or a quoted string as TOML has them; else the text.
fn typed(text: &str) -> Option<Value> {
    if text.starts_with(['[', '{', '"']) {
        return read::value(text);
    }
    // A text such as `007` would not be the same as a number.
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    Some(match (text, number) {
        ("true" | "false", _) => Value::from(text == "true"),
        (_, Some(number)) => Value::from(number),
        _ => Value::from(text),
    })
}

/// The value below its key, whose parts `__` separates.
fn nest(key: &str, value: Value) -> Dict {
    match key.split_once("__") {
        None => Dict::from([(key.to_owned(), value)]),
        Some((first, rest)) => Dict::from([(first.to_owned(), Value::from(nest(rest, value)))]),
    }
}
