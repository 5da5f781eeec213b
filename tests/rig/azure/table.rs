//! Streams, and what becomes of rows that do not fit them.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The longest value in bytes of UTF-8; the rest of a longer one is silently cut off.
/// <https://learn.microsoft.com/azure/azure-monitor/service-limits#logs-ingestion-api>
const LONGEST_VALUE: usize = 64 << 10;

/// The column that every table has.
pub const TIME: &str = "TimeGenerated";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    String,
    Int,
    Long,
    Real,
    Boolean,
    Datetime,
    Dynamic,
    Guid,
}

/// A stream as a data collection rule declares it.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Column)],
}

/// That of the Keeper Security solution in Microsoft's content hub.
pub const KEEPER: Stream = Stream {
    name: "Custom-KeeperSecurityEventNewLogs",
    columns: &[
        (TIME, Column::Datetime),
        ("audit_event", Column::String),
        ("remote_address", Column::String),
        ("category", Column::String),
        ("client_version", Column::String),
        ("enterprise_id", Column::Int),
        ("username", Column::String),
        ("timestamp", Column::Datetime),
        ("data", Column::Dynamic),
    ],
};

/// That of siemferry's own rule.
pub const SIEMFERRY: Stream = Stream {
    name: "Custom-SiemferryEvents",
    columns: &[
        (TIME, Column::Datetime),
        ("EventUid", Column::String),
        ("EventTime", Column::Datetime),
        ("Type", Column::String),
        ("Category", Column::String),
        ("Actor", Column::String),
        ("SourceIp", Column::String),
        ("Source", Column::String),
        ("Api", Column::String),
        ("Raw", Column::Dynamic),
    ],
};

/// What was silently changed, by column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Members that the stream does not declare.
    pub discarded: BTreeMap<String, u64>,
    /// Values that do not fit their column.
    pub nulled: BTreeMap<String, u64>,
    pub truncated: BTreeMap<String, u64>,
    /// Rows that got the time of their receipt.
    pub retimed: Vec<Retimed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retimed {
    pub given: Option<String>,
    pub received: String,
}

impl Stream {
    /// The row as the table holds it.
    pub fn hold(&self, row: &Map<String, Value>, now: DateTime<Utc>, tally: &mut Tally) -> Value {
        let mut held = Map::new();
        for (name, value) in row {
            let column = self.columns.iter().find(|(known, _)| known == name);
            let Some((_, column)) = column else {
                *tally.discarded.entry(name.clone()).or_default() += 1;
                continue;
            };
            let mut value = column.fit(value).unwrap_or_else(|| {
                *tally.nulled.entry(name.clone()).or_default() += 1;
                Value::Null
            });
            if cut(&mut value) {
                *tally.truncated.entry(name.clone()).or_default() += 1;
            }
            held.insert(name.clone(), value);
        }
        if self.columns.iter().any(|(name, _)| *name == TIME) {
            retime(&mut held, row, now, tally);
        }
        Value::Object(held)
    }
}

impl Column {
    /// The value in this column; none when it does not fit.
    fn fit(self, value: &Value) -> Option<Value> {
        if value.is_null() {
            return Some(Value::Null);
        }
        let text = value.as_str();
        match self {
            Self::Dynamic => Some(value.clone()),
            Self::String => {
                Some(Value::from(text.map_or_else(|| value.to_string(), str::to_owned)))
            }
            Self::Int => whole(value).and_then(|it| i32::try_from(it).ok()).map(Value::from),
            Self::Long => whole(value).map(Value::from),
            Self::Real => value.as_f64().or_else(|| text?.parse().ok()).map(Value::from),
            Self::Boolean => {
                value.as_bool().or_else(|| text?.to_ascii_lowercase().parse().ok()).map(Value::from)
            }
            Self::Datetime => text.filter(|text| time(text).is_some()).map(Value::from),
            Self::Guid => text.filter(|text| Uuid::try_parse(text).is_ok()).map(Value::from),
        }
    }
}

fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// A time as ISO 8601 has it; one without an offset is in UTC.
pub fn time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let local = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"));
    let midnight = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    local.ok().or_else(midnight).map(|time| time.and_utc())
}

/// Cuts a value that is too long; a dynamic one is measured and cut as text.
fn cut(value: &mut Value) -> bool {
    let text = match &*value {
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Array(_) => value.to_string(),
        _ => return false,
    };
    if text.len() <= LONGEST_VALUE {
        return false;
    }
    let end = (0..=LONGEST_VALUE).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    *value = Value::from(&text[..end]);
    true
}

/// What is older than two days, or more than one ahead, gets the time of its receipt.
/// <https://learn.microsoft.com/azure/azure-monitor/logs/log-standard-columns#timegenerated>
fn retime(
    held: &mut Map<String, Value>,
    row: &Map<String, Value>,
    now: DateTime<Utc>,
    tally: &mut Tally,
) {
    let good = now - TimeDelta::days(2)..=now + TimeDelta::days(1);
    let given = held.get(TIME).and_then(Value::as_str).and_then(time);
    if given.is_some_and(|given| good.contains(&given)) {
        return;
    }
    let received = now.to_rfc3339_opts(SecondsFormat::Millis, true);
    let given = row.get(TIME);
    let given = given.map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned));
    held.insert(TIME.to_owned(), Value::from(received.clone()));
    tally.retimed.push(Retimed { given, received });
}
