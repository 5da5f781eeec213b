//! Says in our words what the configuration reader could not understand.

use figment::error::{Actual, Kind};
use figment::value::Value;

use crate::log::escape;
use crate::problem::Problem;

/// The problem behind an error of the reader. Shows no value of a type that was not expected: it
/// may be a secret in the wrong place.
pub fn problem(error: figment::Error) -> Problem {
    let place = error.metadata.map(|metadata| metadata.name.to_string());
    let key = escape(&error.path.join("."));
    let is_kind = error.path.len() == 3 && ["sources", "sinks"].contains(&error.path[0].as_str());
    let (text, hint) = match error.kind {
        Kind::UnknownField(name, known) => ("unknown key".to_owned(), suggestion(&name, known)),
        Kind::UnknownVariant(name, known) if is_kind => {
            (format!("unknown kind `{}`", escape(&name)), suggestion(&name, known))
        }
        Kind::UnknownVariant(name, known) => {
            (format!("unknown value `{}`", escape(&name)), suggestion(&name, known))
        }
        Kind::InvalidType(found, expected) => wrong_type(&found, &expected, place.as_deref()),
        Kind::InvalidValue(found, expected) => {
            let text = format!("found {}, expected {}", shown(&found), form(&expected));
            (text, unit(&expected).map(str::to_owned))
        }
        Kind::Message(text) => (text, None),
        Kind::MissingField(name) => (format!("`{name}` is missing"), None),
        Kind::InvalidLength(_, expected) => (format!("expected {}", form(&expected)), None),
        _ => ("cannot be understood".to_owned(), None),
    };
    Problem { place, key, text, hint }
}

/// What a value is, without the value.
pub fn type_of(value: &Value) -> String {
    kind_of(&value.to_actual()).to_owned()
}

fn wrong_type(found: &Actual, expected: &str, place: Option<&str>) -> (String, Option<String>) {
    let text = format!("found {}, expected {}", kind_of(found), form(expected));
    let from_variable = place.is_some_and(|place| place.starts_with("environment"));
    let is_scalar = matches!(found, Actual::Bool(_) | Actual::Unsigned(_) | Actual::Signed(_));
    let quotes = || "quotes within the variable's value make it a string".to_owned();
    (text, (from_variable && is_scalar).then(quotes))
}

fn kind_of(found: &Actual) -> &str {
    match found {
        // Only our own visitors say this, and they name the type.
        Actual::Other(text) => text,
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) => "a number",
        Actual::Float(_) => "a fraction",
        Actual::Char(_) | Actual::Str(_) => "a string",
        Actual::Seq => "an array",
        Actual::Map => "a table",
        _ => "something else",
    }
}

fn shown(found: &Actual) -> String {
    match found {
        Actual::Str(text) => format!("`{}`", escape(text)),
        Actual::Unsigned(number) => format!("`{number}`"),
        Actual::Signed(number) => format!("`{number}`"),
        other => kind_of(other).to_owned(),
    }
}

/// What a value with a unit looks like.
fn unit(expected: &str) -> Option<&'static str> {
    let has_unit = ["a duration", "a size"].iter().any(|form| expected.starts_with(form));
    has_unit.then_some("a whole number with its unit right behind it, in quotes")
}

/// What was expected, in the words of the configuration instead of the program's.
fn form(expected: &str) -> &str {
    match expected {
        "a nonzero u32" | "u32" => "a whole number from 1 to 4294967295",
        "u16" => "a whole number from 0 to 65535",
        "path string" => "a path",
        "a sequence" => "an array",
        "a map" => "a table",
        text if text.starts_with("struct ") || text.starts_with("enum ") => "a table",
        text => text,
    }
}

/// The known word that was probably meant, or all of them.
fn suggestion(name: &str, known: &[&str]) -> Option<String> {
    let nearest = known.iter().map(|word| (distance(name, word), word)).min()?;
    // A third of the letters may be wrong: `paht`, but not every short word.
    Some(if nearest.0 <= name.chars().count().div_ceil(3).min(3) {
        format!("did you mean `{}`?", nearest.1)
    } else {
        format!("known here: `{}`", known.join("`, `"))
    })
}

/// How many letters must be added, removed, replaced or swapped with a neighbour.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(a != b);
            let swapped = (i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b)
                .then(|| rows[i - 1][j - 1] + 1);
            let steps = [replaced, rows[i][j + 1] + 1, row[j] + 1];
            row.push(steps.into_iter().chain(swapped).min().expect("three steps at least"));
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_suggested_only_when_it_is_near() {
        let known = ["path", "format", "batch", "from"];

        assert_eq!(suggestion("paht", &known).unwrap(), "did you mean `path`?");
        assert_eq!(suggestion("fromat", &known).unwrap(), "did you mean `format`?");
        assert_eq!(
            suggestion("rotate", &known).unwrap(),
            "known here: `path`, `format`, `batch`, `from`"
        );
        assert_eq!(suggestion("x", &[]), None);
    }

    #[test]
    fn distance_counts_the_smallest_number_of_steps() {
        for (from, to, steps) in
            [("", "abc", 3), ("abc", "abc", 0), ("acb", "abc", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(from, to), steps, "{from} {to}");
        }
    }
}
