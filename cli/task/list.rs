//! `gantry task list`.

use clap::Args;
use serde_json::{Value, json};

use super::record::{self, Record};
use crate::app::{app_path, full_id};
use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::output;
use crate::show::{moment, state, text};

/// Flags of `task list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only tasks of this service.
    #[arg(long, value_name = "ID")]
    app: Option<String>,
    /// Also those that ended, as far as the coordinator remembers them.
    #[arg(long)]
    all: bool,
}

impl ListArgs {
    /// Lists tasks.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        if self.all {
            return self.list_all(client, global).await;
        }
        let path = self
            .app
            .as_ref()
            .map(|id| format!("{}/tasks", app_path(id)));
        let body = client.get(path.as_deref().unwrap_or("/v2/tasks")).await?;
        if global.json {
            return output::print_json(&body["tasks"]);
        }
        let tasks = body["tasks"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if tasks.is_empty() {
            output::note("no tasks (ended ones: --all)");
            return Ok(());
        }
        output::print(&table_of(tasks))
    }

    async fn list_all(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        let mut tasks = record::all(client).await?;
        if let Some(app) = self.app.as_deref().map(full_id) {
            tasks.retain(|t| t.app == app);
        }
        if global.json {
            return output::print_json(&json!(tasks.iter().map(|t| &t.raw).collect::<Vec<_>>()));
        }
        let rows = tasks.iter().map(row_of_record).collect();
        output::print(&output::table(&["TASK", "STATE", "NODE"], rows))
    }
}

fn row_of_record(task: &Record) -> Vec<String> {
    vec![
        task.id.clone(),
        state(&task.raw["state"]),
        task.agent.clone(),
    ]
}

/// Tasks of Marathon's API as a table.
pub(crate) fn table_of(tasks: &[Value]) -> String {
    let rows = tasks.iter().map(row).collect();
    output::table(&["TASK", "STATE", "ADDRESS", "PORTS", "STARTED"], rows)
}

fn row(task: &Value) -> Vec<String> {
    let own = task["ipAddresses"][0]["ipAddress"].as_str();
    let host = text(&task["host"]);
    let address = match own {
        Some(own) if own != host => format!("{host} ({own})"),
        _ => host,
    };
    let ports = task["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect::<Vec<_>>();
    let state = match task["message"].as_str() {
        Some(message) => format!("{}: {message}", state(&task["state"])),
        None => state(&task["state"]),
    };
    vec![
        text(&task["id"]),
        state,
        address,
        ports.join(" "),
        moment(&task["startedAt"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridged_task_shows_both_addresses() {
        let task = json!({"id": "a.instance-1._app.1", "state": "TASK_RUNNING", "host": "10.0.0.1",
            "ports": [31000, 31001], "startedAt": "2026-01-01T00:00:00.123Z",
            "ipAddresses": [{"ipAddress": "10.0.0.7"}]});
        let want = [
            "a.instance-1._app.1",
            "running",
            "10.0.0.1 (10.0.0.7)",
            "31000 31001",
            "2026-01-01T00:00:00Z",
        ];
        assert_eq!(row(&task), want);
        assert_eq!(row(&json!({"id": "x", "state": "TASK_STAGING"}))[2], "");
    }
}
