//! `gantry app list`.

use serde_json::Value;

use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::output;
use crate::show::{amount, text};

/// Lists the apps.
pub(crate) async fn run(client: &Client, global: &Global) -> Result<(), Failure> {
    let body = client.get("/v2/apps").await?;
    if global.json {
        return output::print_json(&body["apps"]);
    }
    let apps = body["apps"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if apps.is_empty() {
        output::note("no services yet: add one with `gantry app add`");
        return Ok(());
    }
    output::print(&output::table(
        &["ID", "RUNNING", "CPUS", "MEM", "STATUS", "COMMAND"],
        apps.iter().map(row).collect(),
    ))
}

fn row(app: &Value) -> Vec<String> {
    vec![
        text(&app["id"]),
        format!("{}/{}", text(&app["tasksRunning"]), text(&app["instances"])),
        amount(&app["cpus"]),
        amount(&app["mem"]),
        status(app).to_owned(),
        output::shorten(&what_runs(app), 50),
    ]
}

/// One word for how the app is.
pub(super) fn status(app: &Value) -> &'static str {
    let count = |field: &str| app[field].as_u64().unwrap_or(0);
    let deploying = app["deployments"].as_array().is_some_and(|d| !d.is_empty());
    if deploying {
        "deploying"
    } else if count("instances") == 0 && count("tasksRunning") == 0 {
        "suspended"
    } else if count("tasksRunning") < count("instances") {
        "waiting"
    } else {
        "running"
    }
}

/// What an instance executes, in one line.
pub(super) fn what_runs(app: &Value) -> String {
    let image = app["container"]["docker"]["image"].as_str();
    let arguments = || {
        let words = app["args"].as_array().into_iter().flatten().map(text);
        words.collect::<Vec<_>>().join(" ")
    };
    let command = app["cmd"].as_str().map_or_else(arguments, str::to_owned);
    match image {
        Some(image) if command.is_empty() => format!("[{image}]"),
        Some(image) => format!("[{image}] {command}"),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_say_how_an_app_is() {
        let mut app = json!({"id": "/a", "cmd": "sleep 1", "instances": 2, "tasksRunning": 2,
                             "cpus": 0.1, "mem": 32.0, "deployments": []});
        assert_eq!(row(&app), ["/a", "2/2", "0.1", "32", "running", "sleep 1"]);
        app["tasksRunning"] = json!(1);
        assert_eq!(status(&app), "waiting");
        app["deployments"] = json!([{"id": "d"}]);
        assert_eq!(status(&app), "deploying");
        assert_eq!(status(&json!({"instances": 0})), "suspended");
    }

    #[test]
    fn images_are_shown_in_brackets() {
        let app = json!({"container": {"docker": {"image": "web"}}, "args": ["-p", "80"]});
        assert_eq!(what_runs(&app), "[web] -p 80");
    }
}
