//! The fields of an event or a span, in the order in which they were set.

use std::error::Error;
use std::fmt;

use serde_json::{Number, Value};
use tracing::field::{Field, Visit};

/// Names and values; no name twice.
#[derive(Default)]
pub struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Every field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// Removes a field.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(at).1)
    }

    /// Takes over the fields whose names are new here.
    pub fn add_missing(&mut self, outer: &Self) {
        for (name, value) in &outer.0 {
            if !self.0.iter().any(|(known, _)| known == name) {
                self.0.push((name, value.clone()));
            }
        }
    }

    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.take(field.name());
        self.0.push((field.name(), value.into()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match Number::from_f64(value) {
            Some(number) => self.set(field, number),
            None => self.set(field, value.to_string()),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let causes = std::iter::successors(Some(value), |error| <dyn Error>::source(*error));
        let texts: Vec<_> = causes.map(ToString::to_string).collect();
        self.set(field, texts.join(": "));
    }
}
