//! `gantry node …`: the machines that run tasks.

use clap::Subcommand;
use serde_json::Value;

use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::output;
use crate::show::{amount, mebibytes, text};

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes: what they have and what is in use.
    List,
}

impl NodeCommand {
    /// Runs it.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        let Self::List = self;
        let state = client.get("/state").await?;
        if global.json {
            return output::print_json(&state["slaves"]);
        }
        let nodes = state["slaves"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if nodes.is_empty() {
            output::note("no node has registered yet");
            return Ok(());
        }
        let header = ["NODE", "STATUS", "CPUS", "MEM", "DISK", "TASKS", "ID"];
        output::print(&output::table(
            &header,
            nodes.iter().map(|n| row(n, &state)).collect(),
        ))
    }
}

fn row(node: &Value, state: &Value) -> Vec<String> {
    let (used, total) = (&node["used_resources"], &node["resources"]);
    let status = if node["active"] == true {
        "active"
    } else {
        "not connected"
    };
    let of = |field: &str, show: fn(&Value) -> String| {
        format!("{} of {}", show(&used[field]), show(&total[field]))
    };
    vec![
        text(&node["hostname"]),
        status.to_owned(),
        of("cpus", amount),
        of("mem", mebibytes),
        of("disk", mebibytes),
        tasks_on(&node["id"], state).to_string(),
        text(&node["id"]),
    ]
}

fn tasks_on(node: &Value, state: &Value) -> usize {
    let frameworks = state["frameworks"].as_array().into_iter().flatten();
    let tasks = frameworks.filter_map(|f| f["tasks"].as_array()).flatten();
    tasks.filter(|t| t["slave_id"] == *node).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_shows_what_is_used() {
        let state = json!({
            "slaves": [{"id": "s1", "hostname": "h", "active": true,
                "used_resources": {"cpus": 0.3, "mem": 64.0, "disk": 0.0},
                "resources": {"cpus": 2.0, "mem": 2048.0, "disk": 10240.0}}],
            "frameworks": [{"tasks": [{"slave_id": "s1"}, {"slave_id": "s2"}]}],
        });
        let want = [
            "h",
            "active",
            "0.3 of 2",
            "64 MiB of 2 GiB",
            "0 MiB of 10 GiB",
            "1",
            "s1",
        ];
        assert_eq!(row(&state["slaves"][0], &state), want);
    }
}
