//! The shape of the whole, which no single value shows: tables, names and kinds.

use figment::value::{Dict, Value};

use super::explain::type_of;
use super::layers::Layers;
use crate::log::escape;
use crate::problem::Problem;

/// What is wrong with tables and names.
pub fn problems(layers: &Layers) -> Vec<Problem> {
    let mut problems = Vec::new();
    for section in ["sources", "sinks"] {
        for (name, value) in dict(layers.value(section)) {
            let key = format!("{section}.{}", escape(&name));
            let place = layers.origin(&value);
            let problem = entry(layers, section, &name, &value);
            problems.extend(problem.map(|problem| Problem { place, key, ..problem }));
        }
    }
    problems
}

fn dict(value: Option<Value>) -> Dict {
    value.and_then(Value::into_dict).unwrap_or_default()
}

/// The problem with one source or sink, if there is one.
fn entry(layers: &Layers, section: &str, name: &str, value: &Value) -> Option<Problem> {
    let one = section.trim_end_matches('s');
    let wrong = |text, hint| Some(Problem::at("", text).hint(hint));
    if let Some(text) = bad_name(section, name) {
        return wrong(
            text.to_owned(),
            "names are at most 64 of `a-z`, `0-9`, `_` and `-`".to_owned(),
        );
    }
    if !dict(layers.files.find_value(section).ok()).contains_key(name) {
        let hint = format!("name every {one} in a file: a misspelt variable would add one");
        return wrong(format!("a {one} that no file names"), hint);
    }
    if let Some(text) = no_kind(one, value) {
        return wrong(text, format!("write `[{section}.{name}.<kind>]`"));
    }
    let kinds: Vec<_> = dict(Some(value.clone())).into_iter().collect();
    let [first, second, ..] = kinds.as_slice() else { return None };
    let (first, second) = (named(layers, first), named(layers, second));
    wrong(
        format!("two kinds under one name: {first} and {second}"),
        format!("give every {one} a name of its own"),
    )
}

/// What stands where the table of a kind should.
fn no_kind(one: &str, value: &Value) -> Option<String> {
    let Some(kinds) = value.as_dict() else {
        return Some(format!("found {}, expected a table", type_of(value)));
    };
    if kinds.is_empty() {
        return Some(format!("the {one} has no kind"));
    }
    let (kind, value) = kinds.iter().find(|(_, value)| value.as_dict().is_none())?;
    Some(format!("found {} at `{}`, expected a table", type_of(value), escape(kind)))
}

fn named(layers: &Layers, (kind, value): &(String, Value)) -> String {
    let origin = layers.origin(value).unwrap_or_default();
    format!("`{}` ({origin})", escape(kind))
}

fn bad_name(section: &str, name: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        return Some("not a name");
    }
    // Our own events come from a source of this name.
    (section == "sources" && name == "siemferry").then_some("the name is reserved")
}
