//! `schema = …`: the declaration of the stream, compared with what the rows hold.
//!
//! Azure discards a member that the stream does not declare, and a value that does not fit its
//! column, and says nothing.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::encode::sentinel::{Profile, Type};
use crate::log::escape;
use crate::sink::DeliveryError;

/// One column of a stream's declaration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Reads the declaration of `stream` from a file: the rule, as `az monitor data-collection rule show`
/// or an ARM template has it, its `streamDeclarations`, or one declaration alone.
///
/// # Errors
/// [`DeliveryError::Blocked`] when it is none of these.
pub fn read(path: &Path, stream: &str) -> Result<Vec<Column>, DeliveryError> {
    let hint = "`schema` takes what `az monitor data-collection rule show --name …` prints, its `streamDeclarations`, or the declaration of the stream alone";
    let refuse = |why: &str| {
        let text = format!("read the stream's declaration from `{}`: {why}", path.display());
        DeliveryError::blocked(text, hint.to_owned())
    };
    let text = std::fs::read(path).map_err(|err| refuse(&err.to_string()))?;
    let document: Value = serde_json::from_slice(&text).map_err(|err| refuse(&err.to_string()))?;
    let columns = find(&document, stream).map_err(|why| refuse(&why))?;
    serde_json::from_value(columns.clone()).map_err(|err| refuse(&err.to_string()))
}

fn find<'a>(document: &'a Value, stream: &str) -> Result<&'a Value, String> {
    let rules = document.get("resources").and_then(Value::as_array).into_iter().flatten();
    let places = rules.chain([document]).flat_map(|rule| {
        [rule.pointer("/properties/streamDeclarations"), rule.get("streamDeclarations")]
    });
    let declarations = places.flatten().next().unwrap_or(document);
    if let Some(columns) = declarations.get("columns") {
        return Ok(columns);
    }
    if let Some(columns) = declarations.get(stream).and_then(|found| found.get("columns")) {
        return Ok(columns);
    }
    let names = declarations.as_object().into_iter().flat_map(serde_json::Map::keys);
    let names: Vec<String> =
        names.filter(|name| name.contains('-')).map(|name| format!("`{}`", escape(name))).collect();
    if names.is_empty() {
        return Err("it declares no stream".to_owned());
    }
    Err(format!("it declares no stream `{stream}`, but {}", names.join(", ")))
}

/// What the stream would lose of the profile's rows, as what blocks the sink; none when nothing.
///
/// # Errors
/// Those of [`read`].
pub fn compare(
    path: &Path,
    stream: &str,
    profile: Profile,
) -> Result<Option<DeliveryError>, DeliveryError> {
    let columns = read(path, stream)?;
    let mut found = Vec::new();
    for (name, kind) in profile.columns() {
        match columns.iter().find(|column| column.name == *name) {
            None => found.push(format!("`{name}` would vanish: the stream does not declare it")),
            Some(column) if !takes(&column.kind, *kind) => found.push(format!(
                "`{name}` does not fit: it is declared {}, and is {}",
                escape(&column.kind),
                kind.name()
            )),
            Some(_) => {}
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let text = format!(
        "`{stream}` of `{}` is not that of the profile: {}",
        path.display(),
        found.join("; ")
    );
    let hint = "deploy the template of the profile (packaging/sentinel), or change `profile`";
    Ok(Some(DeliveryError::blocked(text, hint.to_owned())))
}

/// Whether a column that is declared so keeps what we send.
fn takes(declared: &str, sent: Type) -> bool {
    let declared = declared.to_ascii_lowercase();
    match sent {
        Type::Datetime => matches!(&*declared, "datetime" | "string" | "dynamic"),
        Type::String => matches!(&*declared, "string" | "dynamic"),
        Type::Int => matches!(&*declared, "int" | "long" | "real" | "dynamic"),
        Type::Dynamic => declared == "dynamic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "Custom-KeeperSecurityEventNewLogs";

    fn declared(columns: &[(&str, &str)]) -> Value {
        let columns: Vec<Value> = columns
            .iter()
            .map(|(name, kind)| serde_json::json!({ "name": name, "type": kind }))
            .collect();
        serde_json::json!({ "columns": columns })
    }

    fn whole() -> Value {
        let columns = Profile::KeeperSolution.columns().iter();
        declared(&columns.map(|(name, kind)| (*name, kind.name())).collect::<Vec<_>>())
    }

    fn compared(document: &Value) -> Result<Option<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document.to_string()).unwrap();
        let found = compare(file.path(), STREAM, Profile::KeeperSolution);
        found.map(|found| found.map(|err| err.to_string())).map_err(|err| err.to_string())
    }

    #[test]
    fn a_declaration_is_found_in_each_form_that_there_is() {
        for document in [
            whole(),
            serde_json::json!({ STREAM: whole(), "Custom-Other": declared(&[]) }),
            serde_json::json!({ "immutableId": "dcr-1", "streamDeclarations": { STREAM: whole() } }),
            serde_json::json!({ "properties": { "streamDeclarations": { STREAM: whole() } } }),
            serde_json::json!({ "resources": [{ "type": "x" }, { "properties": { "streamDeclarations": { STREAM: whole() } } }] }),
        ] {
            assert_eq!(compared(&document), Ok(None), "{document}");
        }
    }

    #[test]
    fn what_would_vanish_and_what_does_not_fit_is_named() {
        let document = declared(&[
            ("TimeGenerated", "datetime"),
            ("audit_event", "string"),
            ("remote_address", "int"),
            ("category", "string"),
            ("enterprise_id", "long"),
            ("username", "string"),
            ("timestamp", "string"),
            ("data", "string"),
        ]);

        let found = compared(&document).unwrap().unwrap();

        assert!(found.contains("`client_version` would vanish"), "{found}");
        assert!(found.contains("`remote_address` does not fit: it is declared int, and is string"));
        assert!(found.contains("`data` does not fit: it is declared string, and is dynamic"));
        assert!(!found.contains("enterprise_id") && !found.contains("`timestamp`"), "{found}");
    }

    #[test]
    fn a_file_that_declares_something_else_is_refused_with_what_it_has() {
        let document =
            serde_json::json!({ "streamDeclarations": { "Custom-Other": declared(&[]) } });

        let found = compared(&document).unwrap_err();

        assert!(
            found.ends_with(&format!("it declares no stream `{STREAM}`, but `Custom-Other`")),
            "{found}"
        );
        assert!(compared(&serde_json::json!([])).unwrap_err().contains("it declares no stream"));
    }
}
