//! Reads one TOML file that only the right users can write.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use figment::value::{Dict, Value};
use toml::de::{DeTable, DeValue};

use crate::problem::Problem;
use crate::sys;

/// A configuration file as read.
pub struct Contents {
    /// Its keys.
    pub keys: Dict,
    /// Its permission bits.
    pub mode: u32,
}

/// How a file is shown in an error.
pub fn place(path: &Path) -> String {
    format!("`{}`", path.display())
}

/// Reads and parses a file, after a look at who can write it.
pub fn file(path: &Path) -> Result<Contents, Problem> {
    let wrong = |text: String| Problem::of(place(path), text);
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => wrong("there is no such file".to_owned())
            .hint("name the configuration file with `--config`"),
        _ => wrong(format!("read configuration: {error}")),
    };
    let mut options = std::fs::OpenOptions::new();
    // Opening a pipe that nobody writes to would wait for ever.
    let mut file = sys::no_wait(options.read(true)).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(wrong("is not a regular file".to_owned()).hint("name a file, not a directory"));
    }
    let mode = sys::mode(&file).map_err(unreadable)?;
    check_writers(&file, path, mode)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| wrong("is not UTF-8".to_owned()).hint("save it as UTF-8"))?;
    let syntax = "mend the line; https://toml.io shows how each value is written";
    let keys = parse(&text).map_err(|text| wrong(text).hint(syntax))?;
    Ok(Contents { keys, mode })
}

fn check_writers(file: &File, path: &Path, mode: u32) -> Result<(), Problem> {
    let owner = sys::owner(file).map_err(|error| Problem::of(place(path), error.to_string()))?;
    let text = refusal(owner, mode, sys::effective_user());
    let hint = if mode & 0o022 == 0 { "chown root" } else { "chmod go-w" };
    let problem = |text| Problem::of(place(path), text).hint(format!("{hint} {}", path.display()));
    text.map_or(Ok(()), |text| Err(problem(text)))
}

/// Why a file of this owner and mode cannot be trusted by `user`, if it cannot.
pub fn refusal(owner: u32, mode: u32, user: u32) -> Option<String> {
    if mode & 0o022 != 0 {
        return Some(format!("is writable by others (mode {mode:04o})"));
    }
    let trusted = owner == 0 || owner == user;
    (!trusted).then(|| format!("belongs to user {owner}, neither root nor the running user"))
}

/// The keys of a TOML text. The error tells line and column, and never a part of the text.
fn parse(text: &str) -> Result<Dict, String> {
    match DeTable::parse(text) {
        Ok(table) => dict(table.get_ref(), text),
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            Err(format!("{}: {}", position(text, start), error.message()))
        }
    }
}

/// One value in the syntax of TOML, such as `["1m", "4m"]`.
pub fn value(text: &str) -> Option<Value> {
    let table = parse(&format!("value = {text}")).ok()?;
    // A line break could smuggle in other keys.
    if table.len() == 1 { table.into_values().next() } else { None }
}

fn dict(table: &DeTable<'_>, text: &str) -> Result<Dict, String> {
    let entry = |(key, item): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        Ok((key.clone().into_owned(), convert(item, text)?))
    };
    table.iter().map(entry).collect()
}

fn convert(item: &toml::Spanned<DeValue<'_>>, text: &str) -> Result<Value, String> {
    let number = |what| format!("{}: {what} out of range", position(text, item.span().start));
    Ok(match item.get_ref() {
        DeValue::String(value) => Value::from(value.as_ref()),
        DeValue::Boolean(value) => Value::from(*value),
        DeValue::Integer(value) => i64::from_str_radix(value.as_str(), value.radix())
            .map_err(|_| number("integer"))?
            .into(),
        DeValue::Float(value) => {
            value.as_str().parse::<f64>().map_err(|_| number("number"))?.into()
        }
        // Dates may stand without quotes; the units read them as text.
        DeValue::Datetime(value) => Value::from(value.to_string()),
        DeValue::Array(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(|item| convert(item, text)).collect();
            Value::from(items?)
        }
        DeValue::Table(table) => Value::from(dict(table, text)?),
    })
}

/// Line and column of a byte of the text, both counted from one.
fn position(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}
