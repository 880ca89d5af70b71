//! App JSON as a person has it at hand: what `app show --json` printed may be given back.
//!
//! Decides only which fields the API adds to its answers; everything else is the coordinator's to
//! judge.

use serde_json::Value;

/// Fields of answers that are no part of a definition.
const OUTPUT_ONLY: [&str; 11] = [
    "deployments",
    "lastTaskFailure",
    "readinessCheckResults",
    "taskStats",
    "tasks",
    "tasksHealthy",
    "tasksRunning",
    "tasksStaged",
    "tasksUnhealthy",
    "version",
    "versionInfo",
];

/// The definition alone. A lone `version` stays: with it an update goes back to that version.
pub(super) fn of_output(mut app: Value) -> Value {
    if let Some(object) = app.as_object_mut() {
        if object.len() == 1 && object.contains_key("version") {
            return app;
        }
        object.retain(|field, _| !OUTPUT_ONLY.contains(&field.as_str()));
    }
    app
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_becomes_a_definition() {
        let shown = json!({"id": "/a", "cmd": "true", "version": "v", "versionInfo": {},
            "tasks": [], "tasksRunning": 1, "tasksStaged": 0, "tasksHealthy": 0,
            "tasksUnhealthy": 0, "deployments": [], "lastTaskFailure": {}, "taskStats": {},
            "unheardOf": 1});
        let want = json!({"id": "/a", "cmd": "true", "unheardOf": 1});
        assert_eq!(of_output(shown), want);
        assert_eq!(of_output(json!({"version": "v"})), json!({"version": "v"}));
    }
}
