//! `gantry node …`: the machines that run tasks.

use std::time::Duration;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::args::Global;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::show::{amount, mebibytes, text};

/// How often a drain is looked at.
const POLL: Duration = Duration::from_millis(500);

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes: what they have and what is in use.
    List,
    /// End all tasks of a node, and start no new ones there until it is reactivated.
    Drain {
        /// The node: its id or host name.
        node: String,
        /// Longest time from SIGTERM to SIGKILL [default: each task's own].
        #[arg(long, value_name = "SECONDS")]
        max_grace_period: Option<u64>,
        /// Take the node out for good once it is drained.
        #[arg(long)]
        decommission: bool,
        /// Wait until it is drained.
        #[arg(long)]
        wait: bool,
    },
    /// Start no new tasks on a node; those that run stay.
    Deactivate {
        /// The node: its id or host name.
        node: String,
    },
    /// Start tasks on a node again.
    Reactivate {
        /// The node: its id or host name.
        node: String,
    },
    /// Take a node out for good, whether it answers or not: its tasks are gone, its id never comes
    /// back.
    Gone {
        /// The node: its id or host name.
        node: String,
    },
}

impl NodeCommand {
    /// Runs it.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        match self {
            Self::List => list(client, global).await,
            Self::Drain {
                node,
                max_grace_period,
                decommission,
                wait,
            } => {
                let id = find(client, node).await?;
                let mut drain = json!({"agent_id": {"value": id}, "mark_gone": decommission});
                if let Some(seconds) = max_grace_period {
                    drain["max_grace_period"] = json!({"seconds": seconds});
                }
                let call = json!({"type": "DRAIN_AGENT", "drain_agent": drain});
                client.call(Method::POST, "/api/v1", Some(&call)).await?;
                if *wait {
                    drained(client, &id).await?;
                }
                Ok(())
            }
            Self::Deactivate { node } => operate(client, node, "deactivate_agent").await,
            Self::Reactivate { node } => operate(client, node, "reactivate_agent").await,
            Self::Gone { node } => operate(client, node, "mark_agent_gone").await,
        }
    }
}

/// A call that takes an agent's id and nothing else.
async fn operate(client: &Client, node: &str, call: &str) -> Result<(), Failure> {
    let id = find(client, node).await?;
    let body = json!({"type": call.to_uppercase(), call: {"agent_id": {"value": id}}});
    let called = client.call(Method::POST, "/api/v1", Some(&body)).await;
    called.map(|_| ())
}

/// The id of a node by that or by its host name.
async fn find(client: &Client, node: &str) -> Result<String, Failure> {
    let answer = client.get("/slaves").await?;
    let nodes = answer["slaves"].as_array().into_iter().flatten();
    let named: Vec<&str> = nodes
        .filter(|it| it["id"] == node || it["hostname"] == node)
        .filter_map(|it| it["id"].as_str())
        .collect();
    match named.as_slice() {
        [id] => Ok((*id).to_owned()),
        [] => Err(
            Failure::new(Exit::NotFound, format!("there is no node '{node}'"))
                .hint("`gantry node list` lists them"),
        ),
        _ => Err(
            Failure::new(Exit::Usage, format!("several nodes are called '{node}'"))
                .hint("name one by its id, see `gantry node list`"),
        ),
    }
}

/// Waits until a node is drained, or gone.
async fn drained(client: &Client, id: &str) -> Result<(), Failure> {
    loop {
        let answer = client.get("/slaves").await?;
        let mut nodes = answer["slaves"].as_array().into_iter().flatten();
        let node = nodes.find(|it| it["id"] == id);
        if node.is_none_or(|node| node["drain_info"]["state"] == "DRAINED") {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn list(client: &Client, global: &Global) -> Result<(), Failure> {
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

fn row(node: &Value, state: &Value) -> Vec<String> {
    let (used, total) = (&node["used_resources"], &node["resources"]);
    let drain = node["drain_info"]["state"].as_str();
    let status = match drain {
        Some("DRAINED") => "drained",
        Some(_) => "draining",
        None if node["deactivated"] == true => "deactivated",
        None if node["active"] == true => "active",
        None => "not connected",
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
