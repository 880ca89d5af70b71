//! A partial update: fields of a request over a stored definition
//! (`raml/AppConversion.scala`, `AppUpdate`).
//!
//! Whole top-level fields replace each other, never parts of them. What a given field makes
//! meaningless in the stored definition goes: a new `cmd` takes the place of `args`, another
//! network mode takes the ports of the old one with it.

use gantry_wire::marathon::App;
use serde_json::{Map, Value};

pub(super) fn over(stored: &App, given: &Map<String, Value>) -> Map<String, Value> {
    let has = |name: &str| given.get(name).is_some_and(|value| !value.is_null());
    // It cannot fail: text keys and finite floats only.
    let stored = serde_json::to_value(stored).unwrap_or_default();
    let Value::Object(mut merged) = stored else {
        return given.clone();
    };
    for (one, other) in [("cmd", "args"), ("args", "cmd"), ("uris", "fetch")] {
        if has(one) && !has(other) {
            merged.remove(other);
        }
    }
    let docker = given.get("container").and_then(|c| c.get("docker"));
    let old_network = docker.and_then(|docker| docker.get("network")).is_some();
    if old_network && !has("networks") {
        merged.remove("networks");
    }
    let moved = has("networks") && given.get("networks") != merged.get("networks");
    if moved || old_network || has("ports") || has("portDefinitions") {
        merged.remove("portDefinitions");
    }
    if moved && !has("container") {
        forget_mappings(&mut merged);
    }
    let fields = given.iter().filter(|(_, value)| !value.is_null());
    merged.extend(fields.map(|(name, value)| (name.clone(), value.clone())));
    merged
}

/// The stored app moves to another network mode: its mappings mean nothing there.
fn forget_mappings(merged: &mut Map<String, Value>) {
    let Some(Value::Object(container)) = merged.get_mut("container") else {
        return;
    };
    container.remove("portMappings");
    let native = container.get("docker").is_none();
    let empty = container
        .get("volumes")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty);
    if native && empty {
        merged.remove("container");
    }
}
