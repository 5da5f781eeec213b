//! The objects of a body, and what is wrong with them.

use std::collections::HashMap;

use serde_json::value::RawValue;
use serde_json::{Deserializer, Value};

use super::{Flavor, Indexed, Options};

/// The longest event that `LogScale` holds, in bytes: 1 MB, as library.humio.com has it.
const LONGEST_LOGSCALE: usize = 1_000_000;

type Members<'a> = HashMap<String, &'a RawValue>;

/// What a body says, up to the first object that is wrong.
#[derive(Default)]
pub struct Found {
    pub events: Vec<Indexed>,
    /// The code, and the `invalid-event-number`.
    pub wrong: Option<(u16, usize)>,
}

/// How many objects there are, good or bad, as far as they can be told apart.
pub fn count(text: &str) -> usize {
    let objects = Deserializer::from_str(text).into_iter::<&RawValue>();
    objects.take_while(Result::is_ok).count()
}

/// Reads as the collector does, one object after another: what is wrong behind the first that is
/// refused does not matter.
pub fn read(text: &str, options: &Options, refused: &[String], request: u64) -> Found {
    let mut found = Found::default();
    // An array is refused. Measured: Splunk 10.4.2 takes one as a batch, which is documented
    // nowhere.
    let mut objects = Deserializer::from_str(text).into_iter::<Members<'_>>();
    let mut begin = 0;
    while let Some(members) = objects.next() {
        let number = found.events.len();
        let raw = &text[begin..objects.byte_offset()];
        begin = objects.byte_offset();
        let event = match members {
            Ok(_) if refused.iter().any(|text| raw.contains(text)) => Err(6),
            Ok(members) => event(&members, options, request),
            Err(_) => Err(6),
        };
        match event {
            Ok(event) => found.events.push(event),
            // Measured with Splunk 10.4.2: the number counts from 0, and only with this code it is
            // one more.
            Err(7) => found.wrong = Some((7, number + 1)),
            Err(code) => found.wrong = Some((code, number)),
        }
        if found.wrong.is_some() {
            break;
        }
    }
    found
}

fn event(members: &Members<'_>, options: &Options, request: u64) -> Result<Indexed, u16> {
    let event = members.get("event").map(|event| event.get());
    // Unproven: `null` is no event, and an empty object is blank.
    let mut event = match event {
        None | Some("null") => return Err(12),
        Some("\"\"" | "{}") => return Err(13),
        Some(event) => event.to_owned(),
    };
    // Measured with Splunk 10.4.2: this code, and not 6.
    let time = members.get("time").map(|time| time.get().to_owned());
    if time.as_deref().is_some_and(|time| !is_time(time)) {
        return Err(15);
    }
    let mut fields = match members.get("fields") {
        Some(fields) => Some(flat(fields.get()).ok_or(15_u16)?),
        None => None,
    };
    let index = text(members, "index")?;
    let is_allowed = |index: &String| options.indexes.is_empty() || options.indexes.contains(index);
    if index.as_ref().is_some_and(|index| !is_allowed(index)) {
        return Err(7);
    }
    if options.flavor == Flavor::LogScale && event.len() > LONGEST_LOGSCALE {
        let end = (0..=LONGEST_LOGSCALE).rev().find(|end| event.is_char_boundary(*end));
        event.truncate(end.unwrap_or_default());
        fields = None;
    }
    Ok(Indexed {
        time,
        host: text(members, "host")?,
        source: text(members, "source")?,
        sourcetype: text(members, "sourcetype")?,
        index,
        event,
        fields,
        request,
        is_acknowledged: false,
    })
}

/// A plain decimal: users tell that Splunk 10 refuses an exponent with code 15. Unproven: a number in quotes is
/// refused, though Splunk's own examples have some.
fn is_time(text: &str) -> bool {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte));
    is_number && text.parse::<f64>().is_ok()
}

/// Indexed fields. Unproven: lists are refused, though some Splunk versions take those of texts.
fn flat(text: &str) -> Option<Value> {
    let fields: Value = serde_json::from_str(text).ok()?;
    let is_scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    fields.as_object()?.values().all(is_scalar).then_some(fields)
}

/// Unproven: metadata that is no text is no valid data.
fn text(members: &Members<'_>, name: &str) -> Result<Option<String>, u16> {
    let Some(value) = members.get(name) else { return Ok(None) };
    serde_json::from_str(value.get()).map(Some).map_err(|_| 6)
}
