//! The one validator of app definitions: JSON of a client → normalised definition, or a list of
//! what is wrong in Marathon's form.
//!
//! Wrong types, missing and misspelt values come first (`Invalid JSON`), broken rules only when
//! the shape is right (`Object is not valid`), as Marathon does (`api/v2/Validation.scala`,
//! `api/v2/validation/*.scala`). Old forms are normalised here. It knows no state: ids that are
//! taken, service ports and locks are checked when the command is applied.
//! Invariants: nothing a client sent is dropped silently; every number and length of an accepted
//! definition is bounded, so that no sum of them overflows.

mod app;
mod bounds;
mod container;
mod fetch;
mod fields;
mod keys;
mod merge;
mod paths;
mod ports;
mod user;

use std::fmt;

use gantry_wire::ids::AppId;
use gantry_wire::marathon::App;
use serde_json::{Map, Value};

pub use bounds::INSTANCES_MAX;

use fields::Report;

/// One wrong place in a request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where, such as `/container/portMappings(0)/name`.
    pub path: String,
    /// What is wrong there.
    pub errors: Vec<String>,
}

/// Why a request body is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// Not JSON at all; the parser's words.
    NotJson(String),
    /// JSON with wrong types or missing fields.
    Shape(Vec<Problem>),
    /// A rule is broken, or a field is unknown or not supported.
    Rules(Vec<Problem>),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJson(_) | Self::Shape(_) => "Invalid JSON",
            Self::Rules(_) => "Object is not valid",
        })
    }
}

impl std::error::Error for Invalid {}

/// Any JSON without a key twice in one object. Errors: `NotJson`.
pub fn json(body: &[u8]) -> Result<Value, Invalid> {
    let not_json = |error: serde_json::Error| Invalid::NotJson(error.to_string());
    keys::check(body).map_err(not_json)?;
    serde_json::from_slice(body).map_err(not_json)
}

/// The object that a value is; `path` names it in the error.
pub fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, Invalid> {
    value
        .as_object()
        .ok_or_else(|| shape(path, "error.expected.jsobject"))
}

/// One wrong shape.
pub(super) fn shape(path: &str, error: &str) -> Invalid {
    Invalid::Shape(vec![Problem {
        path: path.to_owned(),
        errors: vec![error.to_owned()],
    }])
}

/// One broken rule.
pub(super) fn rule(path: &str, error: &str) -> Invalid {
    Invalid::Rules(vec![Problem {
        path: path.to_owned(),
        errors: vec![error.to_owned()],
    }])
}

/// A whole definition. `at` is the path of the object (empty for the root), `id` the id given by
/// the URL, which wins over none in the body and must not differ from one. Errors: see [`Invalid`].
pub fn definition(
    object: &Map<String, Value>,
    at: &str,
    id: Option<&AppId>,
) -> Result<App, Invalid> {
    let mut report = Report::default();
    let app = app::read(object, at, id, &mut report);
    report.result(app)
}

/// A stored definition with the given fields put over it. Errors: see [`Invalid`].
pub fn update(stored: &App, object: &Map<String, Value>, at: &str) -> Result<App, Invalid> {
    let merged = merge::over(stored, object);
    definition(&merged, at, Some(&stored.id))
}

#[cfg(test)]
mod tests;
