//! What the agent tells about itself: `/state` in the agent's shape of Mesos (the fields that have
//! a meaning here), `/health`, `/version`, `/flags`. Every number is true; a
//! field whose value is not known is left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use gantry_wire::agent::ResourcesMessage;
use gantry_wire::resources::Resources;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Server;
use super::problem::Problem;
use crate::inbox::{Ask, Event, ExecutorRow, TaskRow, View};
use crate::sandboxes;

/// Asks the loop for a snapshot.
pub(super) async fn view(server: &Server) -> Result<View, Problem> {
    let (reply, answer) = oneshot::channel();
    let sent = server.events.send(Event::Ask(Ask::View(reply))).await;
    sent.map_err(|_| Problem::Unavailable)?;
    answer.await.map_err(|_| Problem::Unavailable)
}

pub(super) async fn health() -> StatusCode {
    StatusCode::OK
}

pub(super) async fn version(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({"version": server.facts.version}))
}

pub(super) async fn flags(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({"flags": flags_of(&server)}))
}

/// Amounts as Mesos's flag writes them.
fn resources_text(resources: &Resources) -> String {
    let Resources {
        cpus,
        mem,
        disk,
        gpus,
        ports,
    } = resources;
    let (cpus, mem, disk) = (cpus.cpus(), mem.mib(), disk.mib());
    format!("cpus:{cpus};mem:{mem};disk:{disk};gpus:{gpus};ports:{ports}")
}

/// What this agent was told, or found out in its place, under the names of Mesos's flags.
pub(super) fn flags_of(server: &Server) -> BTreeMap<&'static str, String> {
    let facts = &server.facts;
    let pairs = facts.inventory.attributes_as_text();
    let pairs = pairs.iter();
    let attributes: Vec<String> = pairs
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    let work_dir = server.slaves.parent().unwrap_or(&server.slaves);
    BTreeMap::from([
        ("attributes", attributes.join(";")),
        ("hostname", facts.hostname.clone()),
        ("ip", facts.http_address.ip().to_string()),
        ("port", facts.http_address.port().to_string()),
        ("resources", resources_text(&facts.resources)),
        ("work_dir", work_dir.to_string_lossy().into_owned()),
    ])
}

pub(super) async fn state(State(server): State<Arc<Server>>) -> Result<Json<Value>, Problem> {
    let view = view(&server).await?;
    let facts = &server.facts;
    let mut frameworks: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let agent_id = view.agent_id.as_deref().unwrap_or_default();
    for row in &view.executors {
        let of = |task: &&TaskRow| {
            let launch = &task.launch;
            launch.executor_id == row.info.executor_id
                && launch.framework_id == row.info.framework_id
        };
        let below: Vec<&TaskRow> = view.tasks.iter().filter(of).collect();
        let framework = frameworks.entry(&row.info.framework_id).or_default();
        framework.push(shared_executor(row, &below, agent_id));
    }
    let alone = |task: &&TaskRow| task.launch.executor_id.is_empty();
    for task in view.tasks.iter().filter(alone) {
        let framework = frameworks.entry(&task.launch.framework_id).or_default();
        framework.push(executor(task, agent_id));
    }
    let framework = |(id, executors): (&str, Vec<Value>)| json!({"id": id, "name": id, "executors": executors, "completed_executors": []});
    let mut shown = json!({
        "version": facts.version,
        "start_time": facts.started.seconds(),
        "id": view.agent_id.clone().unwrap_or_default(),
        "pid": format!("slave(1)@{}", facts.http_address),
        "hostname": facts.hostname,
        "flags": flags_of(&server),
        "registered": view.registered,
        "lacks": facts.lacks,
        "frameworks": frameworks.into_iter().map(framework).collect::<Vec<_>>(),
        "completed_frameworks": [],
    });
    if let Some(shown) = shown.as_object_mut() {
        shown.append(&mut facts.inventory.shown(&facts.resources));
    }
    Ok(Json(shown))
}

/// A task that is its own executor.
fn executor(task: &TaskRow, agent_id: &str) -> Value {
    let launch = &task.launch;
    let mut shown = json!({
        "id": launch.task_id,
        "name": launch.name,
        "source": launch.task_id,
        "container": task.container.as_str(),
        "directory": task.sandbox,
        "resources": of_message(launch.resources.as_ref()),
    });
    below(&mut shown, &[task], agent_id);
    shown
}

fn shared_executor(row: &ExecutorRow, tasks: &[&TaskRow], agent_id: &str) -> Value {
    let mut shown = json!({
        "id": row.info.executor_id,
        "name": row.info.name,
        "source": "",
        "type": if row.is_custom { "CUSTOM" } else { "DEFAULT" },
        "container": row.container.as_str(),
        "directory": row.sandbox,
        "labels": labels(&row.info.labels),
        "resources": of_message(row.info.resources.as_ref()),
    });
    below(&mut shown, tasks, agent_id);
    shown
}

/// Adds the tasks of an executor to it.
fn below(executor: &mut Value, tasks: &[&TaskRow], agent_id: &str) {
    let of = |ended: bool| -> Vec<Value> {
        let tasks = tasks.iter();
        let tasks = tasks.filter(|task| task.state.is_terminal() == ended);
        tasks.map(|task| row(task, agent_id)).collect()
    };
    executor["tasks"] = of(false).into();
    executor["completed_tasks"] = of(true).into();
    executor["queued_tasks"] = json!([]);
}

fn labels(labels: &BTreeMap<String, String>) -> Vec<Value> {
    let label = |(key, value): (&String, &String)| json!({"key": key, "value": value});
    labels.iter().map(label).collect()
}

fn row(task: &TaskRow, agent_id: &str) -> Value {
    let launch = &task.launch;
    let network = if task.ip.is_empty() {
        json!([])
    } else {
        json!([{"ip_addresses": [{"ip_address": task.ip}]}])
    };
    let status = json!({
        "state": task.state.name(),
        "container_status": {
            "container_id": {"value": task.container.as_str()},
            "executor_pid": task.pid,
            "network_infos": network,
        },
    });
    let mut row = json!({
        "id": launch.task_id,
        "name": launch.name,
        "framework_id": launch.framework_id,
        "executor_id": launch.executor_id,
        "slave_id": agent_id,
        "state": task.state.name(),
        "resources": of_message(launch.resources.as_ref()),
        "labels": labels(&launch.labels),
        "statuses": [status],
    });
    if let Some(limit_bytes) = sandboxes::limit_bytes(launch) {
        let mut statistics = json!({"disk_limit_bytes": limit_bytes});
        if let Some(used_bytes) = task.disk_used_bytes {
            statistics["disk_used_bytes"] = json!(used_bytes);
        }
        row["statistics"] = statistics;
    }
    row
}

fn of_message(message: Option<&ResourcesMessage>) -> Value {
    resources(&message.map(Resources::from).unwrap_or_default())
}

/// Scalars as numbers, ranges as text.
fn resources(resources: &Resources) -> Value {
    json!({
        "cpus": resources.cpus.cpus(),
        "mem": resources.mem.mib(),
        "disk": resources.disk.mib(),
        "gpus": resources.gpus as f64,
        "ports": resources.ports.to_string(),
    })
}
