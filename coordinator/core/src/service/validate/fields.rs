//! Reading fields of a JSON object with collected errors, by play-json's names for them.
//!
//! `null` is the same as absent, as in Marathon. A field that nobody took is reported at the end,
//! so none is dropped silently.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Invalid, Problem};

/// Said of known fields that mean nothing yet.
pub(super) const UNSUPPORTED: &str = "is not supported yet by this version of Gantry";
/// Said of fields that Marathon does not know either.
const UNKNOWN: &str = "unknown field";

/// What was found wrong, by path.
#[derive(Debug, Default)]
pub(super) struct Report {
    shape: BTreeMap<String, Vec<String>>,
    rules: BTreeMap<String, Vec<String>>,
}

impl Report {
    pub(super) fn shape(&mut self, path: &str, error: &str) {
        self.shape
            .entry(path.to_owned())
            .or_default()
            .push(error.to_owned());
    }

    pub(super) fn rule(&mut self, path: &str, error: impl Into<String>) {
        self.rules
            .entry(path.to_owned())
            .or_default()
            .push(error.into());
    }

    /// Checks a rule.
    pub(super) fn require(&mut self, holds: bool, path: &str, error: &str) {
        if !holds {
            self.rule(path, error);
        }
    }

    /// The value, unless something is wrong.
    pub(super) fn result<T>(self, value: Option<T>) -> Result<T, Invalid> {
        let list = |problems: BTreeMap<String, Vec<String>>| {
            problems
                .into_iter()
                .map(|(path, errors)| Problem { path, errors })
                .collect()
        };
        if !self.shape.is_empty() {
            return Err(Invalid::Shape(list(self.shape)));
        }
        match value {
            Some(value) if self.rules.is_empty() => Ok(value),
            _ => Err(Invalid::Rules(list(self.rules))),
        }
    }
}

/// An object that is being read.
pub(super) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    taken: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: impl Into<String>, map: &'a Map<String, Value>) -> Self {
        Self {
            path: path.into(),
            map,
            taken: BTreeSet::new(),
        }
    }

    /// An object, or a report that the value is none.
    pub(super) fn of(path: &str, value: &'a Value, report: &mut Report) -> Option<Self> {
        let map = value.as_object();
        if map.is_none() {
            report.shape(path, "error.expected.jsobject");
        }
        Some(Self::new(path, map?))
    }

    /// The path of a field.
    pub(super) fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// The path of the object itself.
    pub(super) fn here(&self) -> &str {
        if self.path.is_empty() {
            "/"
        } else {
            &self.path
        }
    }

    /// A field that is there and not null.
    pub(super) fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.taken.insert(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &mut self,
        name: &'static str,
        report: &mut Report,
        error: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(name)?;
        let read = read(value);
        if read.is_none() {
            report.shape(&self.at(name), error);
        }
        read
    }

    pub(super) fn text(&mut self, name: &'static str, report: &mut Report) -> Option<&'a str> {
        self.typed(name, report, "error.expected.jsstring", Value::as_str)
    }

    pub(super) fn flag(&mut self, name: &'static str, report: &mut Report) -> Option<bool> {
        self.typed(name, report, "error.expected.jsboolean", Value::as_bool)
    }

    pub(super) fn number(&mut self, name: &'static str, report: &mut Report) -> Option<f64> {
        self.typed(name, report, "error.expected.jsnumber", Value::as_f64)
    }

    pub(super) fn list(&mut self, name: &'static str, report: &mut Report) -> Option<&'a [Value]> {
        let list = |value: &'a Value| value.as_array().map(Vec::as_slice);
        self.typed(name, report, "error.expected.jsarray", list)
    }

    pub(super) fn object(&mut self, name: &'static str, report: &mut Report) -> Option<Self> {
        let path = self.at(name);
        self.take(name)
            .and_then(|value| Self::of(&path, value, report))
    }

    /// A whole number in the range; outside of it a rule is broken.
    pub(super) fn whole(
        &mut self,
        name: &'static str,
        (least, most): (u64, u64),
        report: &mut Report,
    ) -> Option<u64> {
        let value = self.number(name, report)?;
        let path = self.at(name);
        if value.fract() != 0.0 {
            report.shape(&path, "error.expected.int");
            return None;
        }
        let fits = (least as f64..=most as f64).contains(&value);
        if !fits {
            report.rule(
                &path,
                format!("got {value}, expected between {least} and {most}"),
            );
        }
        fits.then_some(value as u64)
    }

    /// A number in the range; outside of it a rule is broken.
    pub(super) fn between(
        &mut self,
        name: &'static str,
        (least, most): (f64, f64),
        report: &mut Report,
    ) -> Option<f64> {
        let value = self.number(name, report)?;
        let fits = (least..=most).contains(&value);
        if !fits {
            let error = format!("got {value:?}, expected between {least:?} and {most:?}");
            report.rule(&self.at(name), error);
        }
        fits.then_some(value)
    }

    /// One of the words, by its index.
    pub(super) fn word<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&str, T)],
        report: &mut Report,
    ) -> Option<T> {
        let text = self.text(name, report)?;
        let found = words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            report.shape(&self.at(name), "error.unknown.enum.literal");
        }
        found
    }

    /// Reports a required field that is not there.
    pub(super) fn required<T>(
        &self,
        name: &'static str,
        value: Option<T>,
        report: &mut Report,
    ) -> Option<T> {
        if value.is_none() && self.map.get(name).is_none_or(Value::is_null) {
            report.shape(&self.at(name), "error.path.missing");
        }
        value
    }

    /// Takes fields that mean nothing yet: they may be there when they ask for nothing.
    pub(super) fn unsupported(&mut self, names: &[&'static str], report: &mut Report) {
        for name in names {
            if self.take(name).is_some_and(|value| !asks_nothing(value)) {
                report.rule(&self.at(name), UNSUPPORTED);
            }
        }
    }

    /// Takes fields that are only ever printed: clients send back what they got.
    pub(super) fn printed(&mut self, names: &[&'static str]) {
        self.taken.extend(names);
    }

    /// Reports fields that nobody took.
    pub(super) fn finish(self, report: &mut Report) {
        for name in self
            .map
            .keys()
            .filter(|name| !self.taken.contains(name.as_str()))
        {
            report.rule(&format!("{}/{name}", self.path), UNKNOWN);
        }
    }
}

/// Whether a value is the same as leaving the field out.
fn asks_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}
