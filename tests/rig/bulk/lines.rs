//! The lines of a bulk request.

use serde_json::Value;

use super::api::Refusal;

/// One action, with its document where it has one.
pub struct Operation<'a> {
    pub action: Action,
    pub index: String,
    pub id: Option<String>,
    pub source: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Create,
    Index,
}

impl Action {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Index => "index",
        }
    }
}

/// Takes the request apart; what is malformed refuses all of it.
pub fn operations<'a>(body: &'a [u8], index: Option<&str>) -> Result<Vec<Operation<'a>>, Refusal> {
    if body.is_empty() {
        return Err(Refusal::new(400, "parse_exception", "request body is required"));
    }
    let mut operations = Vec::new();
    let mut rest = body;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let line = next(&mut rest)?;
        // Empty lines between the actions are passed over.
        if line.is_empty() {
            continue;
        }
        let (action, metadata) = action(line, number)?;
        if rest.is_empty() {
            return Err(invalid("no requests added"));
        }
        number += 1;
        let source = next(&mut rest)?;
        let text = |name: &str| metadata.get(name).and_then(Value::as_str).map(str::to_owned);
        let index = text("_index").or_else(|| index.map(str::to_owned));
        let index = index.ok_or_else(|| invalid("index is missing"))?;
        let id = text("_id");
        if let Some(id) = id.as_ref().filter(|id| id.len() > 512) {
            return Err(invalid(&format!(
                "id [{id}] is too long, must be no longer than 512 bytes but was: {}",
                id.len()
            )));
        }
        if id.as_ref().is_some_and(String::is_empty) {
            let reason = "if _id is specified it must not be empty";
            return Err(Refusal::new(400, "illegal_argument_exception", reason));
        }
        operations.push(Operation { action, index, id, source });
    }
    if operations.is_empty() { Err(invalid("no requests added")) } else { Ok(operations) }
}

fn next<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Refusal> {
    let Some(end) = memchr::memchr(b'\n', rest) else {
        let reason = "The bulk request must be terminated by a newline [\\n]";
        return Err(Refusal::new(400, "illegal_argument_exception", reason));
    };
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Ok(line)
}

fn action(line: &[u8], number: usize) -> Result<(Action, Value), Refusal> {
    let malformed = |what: &str| {
        let reason = format!("Malformed action/metadata line [{number}], {what}");
        Refusal::new(400, "illegal_argument_exception", &reason)
    };
    let action: Value = serde_json::from_slice(line).map_err(|err| {
        Refusal::new(400, "x_content_parse_exception", &format!("[1:{}] {err}", err.column()))
    })?;
    let Value::Object(action) = action else {
        return Err(malformed("expected START_OBJECT but found [VALUE_STRING]"));
    };
    if action.len() != 1 {
        return Err(malformed("expected FIELD_NAME but found [END_OBJECT]"));
    }
    let (name, metadata) = action.into_iter().next().expect("there is one");
    let action = match name.as_str() {
        "create" => Action::Create,
        "index" => Action::Index,
        "delete" | "update" => return Err(malformed("which is not simulated")),
        other => {
            let known = "expected one of [create, delete, index, update]";
            return Err(malformed(&format!("{known} but found [{other}]")));
        }
    };
    let Some(members) = metadata.as_object() else {
        return Err(malformed("expected START_OBJECT or END_OBJECT but found [VALUE_STRING]"));
    };
    for name in members.keys() {
        if !["_index", "_id", "routing", "pipeline", "require_alias"].contains(&name.as_str()) {
            let reason =
                format!("Action/metadata line [{number}] contains an unknown parameter [{name}]");
            return Err(Refusal::new(400, "illegal_argument_exception", &reason));
        }
    }
    Ok((action, metadata))
}

fn invalid(what: &str) -> Refusal {
    let reason = format!("Validation Failed: 1: {what};");
    Refusal::new(400, "action_request_validation_exception", &reason)
}
