//! What the agent tells about itself: `/state` in the agent's shape of Mesos (the fields that have
//! a meaning here), `/health`, `/version`, `/flags`, `/metrics/snapshot`. Every number is true; a
//! field whose value is not known is left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use gantry_wire::agent::ResourcesMessage;
use gantry_wire::resources::Resources;
use gantry_wire::task::TaskState;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::Server;
use super::problem::Problem;
use crate::inbox::{Ask, Event, TaskRow, View};
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

pub(super) async fn flags() -> Json<Value> {
    Json(json!({"flags": {}}))
}

pub(super) async fn state(State(server): State<Arc<Server>>) -> Result<Json<Value>, Problem> {
    let view = view(&server).await?;
    let facts = &server.facts;
    let mut frameworks: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for task in &view.tasks {
        let executor = executor(task, view.agent_id.as_deref());
        frameworks
            .entry(&task.launch.framework_id)
            .or_default()
            .push(executor);
    }
    let framework = |(id, executors): (&str, Vec<Value>)| json!({"id": id, "name": id, "executors": executors, "completed_executors": []});
    Ok(Json(json!({
        "version": facts.version,
        "start_time": facts.started.seconds(),
        "id": view.agent_id.clone().unwrap_or_default(),
        "pid": format!("slave(1)@{}", facts.http_address),
        "hostname": facts.hostname,
        "resources": resources(&facts.resources),
        "attributes": facts.attributes,
        "flags": {},
        "registered": view.registered,
        "lacks": facts.lacks,
        "frameworks": frameworks.into_iter().map(framework).collect::<Vec<_>>(),
        "completed_frameworks": [],
    })))
}

fn executor(task: &TaskRow, agent_id: Option<&str>) -> Value {
    let launch = &task.launch;
    let shown = launch
        .resources
        .as_ref()
        .map(Resources::from)
        .unwrap_or_default();
    let shown = resources(&shown);
    let labels: Vec<Value> = launch
        .labels
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect();
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
        "executor_id": "",
        "slave_id": agent_id.unwrap_or_default(),
        "state": task.state.name(),
        "resources": shown,
        "labels": labels,
        "statuses": [status],
    });
    if let Some(limit_bytes) = sandboxes::limit_bytes(launch) {
        let mut statistics = json!({"disk_limit_bytes": limit_bytes});
        if let Some(used_bytes) = task.disk_used_bytes {
            statistics["disk_used_bytes"] = json!(used_bytes);
        }
        row["statistics"] = statistics;
    }
    let ended = task.state.is_terminal();
    json!({
        "id": launch.task_id,
        "name": launch.name,
        "source": launch.task_id,
        "container": task.container.as_str(),
        "directory": task.sandbox,
        "resources": shown,
        "tasks": if ended { json!([]) } else { json!([row]) },
        "queued_tasks": [],
        "completed_tasks": if ended { json!([row]) } else { json!([]) },
    })
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

pub(super) async fn metrics(State(server): State<Arc<Server>>) -> Result<Json<Value>, Problem> {
    let view = view(&server).await?;
    let facts = &server.facts;
    let mut used = Resources::default();
    let mut count: BTreeMap<TaskState, u32> = BTreeMap::new();
    for task in &view.tasks {
        *count.entry(task.state).or_default() += 1;
        if !task.state.is_terminal() {
            let none = ResourcesMessage::default();
            used.add(&Resources::from(
                task.launch.resources.as_ref().unwrap_or(&none),
            ));
        }
    }
    let of = |state: TaskState| f64::from(count.get(&state).copied().unwrap_or_default());
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let yes = |yes: bool| if yes { 1.0 } else { 0.0 };
    let numbers = [
        ("slave/uptime_secs", now - facts.started.seconds()),
        ("slave/registered", yes(view.registered)),
        ("slave/keeper_connected", yes(view.keeper_up)),
        ("slave/tasks_starting", of(TaskState::TaskStarting)),
        ("slave/tasks_running", of(TaskState::TaskRunning)),
        ("slave/sandboxes_finished", view.finished_sandboxes as f64),
        ("slave/exec_sessions", view.execs as f64),
        ("slave/cpus_total", facts.resources.cpus.cpus()),
        ("slave/cpus_used", used.cpus.cpus()),
        ("slave/mem_total", facts.resources.mem.mib()),
        ("slave/mem_used", used.mem.mib()),
        ("slave/disk_total", facts.resources.disk.mib()),
        ("slave/disk_used", used.disk.mib()),
    ];
    let numbers: Map<String, Value> = numbers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    Ok(Json(Value::Object(numbers)))
}
