//! Whether a deployment that is done left its service running.
//!
//! Without health checks a task counts as soon as it has started, and one that crashes at once
//! ends just after. It does not wait for a crash that takes longer than [`LOOK`].

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::count;
use crate::app::app_path;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::escape;
use crate::show::text;

/// How long the tasks must run on after the deployment.
const LOOK: Duration = Duration::from_millis(600);
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// The app a moment later, or as soon as fewer tasks run than are wanted; nothing when it is gone.
pub(super) async fn look(client: &Client, app: &str) -> Result<Option<Value>, Failure> {
    let until = Instant::now() + LOOK;
    loop {
        let body = client.find(&app_path(app)).await?;
        let app = body.map(|mut body| body["app"].take());
        let steady = app.as_ref().is_some_and(|app| !is_short(app));
        if !steady || wanted(app.as_ref()) == 0 || Instant::now() >= until {
            return Ok(app);
        }
        sleep(POLL).await;
    }
}

fn wanted(app: Option<&Value>) -> u64 {
    app.and_then(|app| app["instances"].as_u64()).unwrap_or(0)
}

/// Whether fewer tasks run than are wanted.
pub(super) fn is_short(app: &Value) -> bool {
    app["tasksRunning"].as_u64().unwrap_or(0) < wanted(Some(app))
}

/// What to say of it. `since` is the version that the deployment made, a time: an older failure
/// has nothing to do with it.
pub(super) fn failure(app: &Value, done: &str, since: &Value) -> Failure {
    let id = escape(&text(&app["id"]));
    let begin = format!("{id} {done}, but only {} running", count(app));
    let last = &app["lastTaskFailure"];
    let (at, since) = (text(&last["timestamp"]), text(since));
    // Both are UTC with the same number of digits.
    if last.is_null() || at < since {
        return Failure::new(Exit::Failed, begin).hint(format!(
            "its command ended by itself, or is being started again; see `gantry app show {id}` \
             and `gantry task list --all --app {id}`"
        ));
    }
    let task = escape(&text(&last["taskId"]));
    let message = escape(&text(&last["message"]));
    Failure::new(Exit::Failed, format!("{begin}: {message} (task {task})")).hint(format!(
        "what it wrote: `gantry task log {task}`, with --stderr for its errors"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failure_of_this_deployment_is_told_with_its_log() {
        let mut app = json!({"id": "/a", "instances": 2, "tasksRunning": 1, "lastTaskFailure":
            {"message": "exit status 3", "taskId": "a.1", "timestamp": "2026-01-01T00:00:01.000Z"}});
        assert!(is_short(&app));
        let since = json!("2026-01-01T00:00:00.900Z");
        let told = failure(&app, "added", &since);
        assert_eq!(told.exit, Exit::Failed);
        let want = "/a added, but only 1 of 2 running: exit status 3 (task a.1)";
        assert_eq!(told.message, want);
        assert!(told.hint.unwrap().contains("gantry task log a.1"));
        let told = failure(&app, "scaled", &json!("2026-01-01T00:00:01.001Z"));
        assert_eq!(told.message, "/a scaled, but only 1 of 2 running");
        app["tasksRunning"] = json!(2);
        assert!(!is_short(&app));
    }
}
