//! JSON of Mesos's legacy master endpoints (`master/readonly_handler.cpp`), as tools read them.
//!
//! It decides nothing. The service scheduler is shown as the framework `marathon`.

use gantry_wire::agent::inventory::amounts_shown;
use gantry_wire::resources::Resources;
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;
use gantry_wire::units::{Bytes, MilliCpu};
use serde_json::{Value, json};

use crate::state::{Agent, Amounts, Cluster, State, Task};

/// What the state does not know about the process that answers.
#[derive(Debug, Clone)]
pub struct MasterInfo {
    /// Address of the API, IP.
    pub ip: String,
    /// Port of the API.
    pub port: u16,
    /// Hostname.
    pub hostname: String,
    /// Version of this binary.
    pub version: String,
    /// When the process started.
    pub start_time: Millis,
    /// When it became leader.
    pub elected_time: Millis,
}

impl MasterInfo {
    fn pid(&self) -> String {
        format!("master@{}:{}", self.ip, self.port)
    }
}

/// `/state` (also `/master/state`).
#[must_use]
pub fn state(state: &State, info: &MasterInfo) -> Value {
    let active = state
        .agents()
        .iter()
        .filter(|agent| agent.takes_tasks())
        .count();
    let cluster_id = state.cluster().map_or("", |cluster| cluster.id.as_str());
    let frameworks: Vec<Value> = state
        .cluster()
        .map(|c| framework(state, c))
        .into_iter()
        .collect();
    json!({
        "version": info.version,
        "id": cluster_id,
        "cluster": "gantry",
        "pid": info.pid(),
        "hostname": info.hostname,
        "start_time": info.start_time.seconds(),
        "elected_time": info.elected_time.seconds(),
        "leader": info.pid(),
        "leader_info": {
            "id": cluster_id, "pid": info.pid(), "port": info.port, "hostname": info.hostname,
        },
        "capabilities": [],
        "flags": {},
        "activated_slaves": active,
        "deactivated_slaves": state.agents().len() - active,
        "unreachable_slaves": 0,
        "slaves": agents(state),
        "recovered_slaves": [],
        "frameworks": frameworks,
        "completed_frameworks": [],
        "orphan_tasks": [],
        "unregistered_frameworks": [],
    })
}

/// `/slaves`.
#[must_use]
pub fn slaves(state: &State, _info: &MasterInfo) -> Value {
    json!({"slaves": agents(state), "recovered_slaves": []})
}

fn agents(state: &State) -> Vec<Value> {
    state
        .agents()
        .iter()
        .map(|agent| self::agent(state, agent))
        .collect()
}

fn agent(state: &State, agent: &Agent) -> Value {
    let usage = state.agents().usage(&agent.id);
    let port = agent
        .http_address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse::<u16>().ok());
    let mut shown = json!({
        "id": agent.id.as_str(),
        "hostname": agent.hostname,
        "port": port,
        "pid": format!("slave(1)@{}", agent.http_address),
        "registered_time": agent.registered_at.seconds(),
        "reregistered_time": agent.reregistered_at.seconds(),
        "used_resources": amounts(&usage.amounts, usage.ports.iter().copied()),
        "offered_resources": amounts(&Amounts::default(), []),
        "active": agent.takes_tasks(),
        "deactivated": agent.deactivated,
        "version": agent.version,
        "capabilities": [],
        "lacks": agent.lacks,
    });
    let mut has = agent.inventory.shown(&agent.resources);
    // Registered by an agent from before attributes had types.
    if agent.inventory.attributes.is_empty() {
        has.insert("attributes".to_owned(), json!(agent.attributes));
    }
    if let Some(drain) = &agent.drain {
        let drained = state.is_drained(&agent.id);
        let mut config = json!({"mark_gone": drain.mark_gone});
        if let Some(grace_ms) = drain.max_grace_ms {
            config["max_grace_period"] = json!({"nanoseconds": grace_ms.saturating_mul(1_000_000)});
        }
        let of = if drained { "DRAINED" } else { "DRAINING" };
        has.insert(
            "drain_info".to_owned(),
            json!({"state": of, "config": config}),
        );
        let since = drain.since.seconds();
        has.insert(
            "estimated_drain_start_time_seconds".to_owned(),
            json!(since),
        );
    }
    if let Some(shown) = shown.as_object_mut() {
        shown.append(&mut has);
    }
    shown
}

fn framework(state: &State, cluster: &Cluster) -> Value {
    let used = state
        .tasks()
        .iter_live()
        .fold(Amounts::default(), |sum, t| sum.plus(&t.amounts));
    let ports = state
        .tasks()
        .iter_live()
        .flat_map(|t| t.host_ports.iter().copied());
    let used = amounts(&used, ports);
    let tasks = |tasks: &mut dyn Iterator<Item = &Task>| {
        tasks.map(|t| task(state, cluster, t)).collect::<Vec<_>>()
    };
    json!({
        "id": cluster.framework_id.as_str(),
        "name": "marathon",
        "user": "root",
        "active": true,
        "connected": true,
        "recovered": false,
        "checkpoint": true,
        "failover_timeout": 604_800.0,
        "hostname": "",
        "webui_url": "",
        "principal": "",
        "role": "*",
        "capabilities": ["TASK_KILLING_STATE", "PARTITION_AWARE"],
        "registered_time": cluster.created_at.seconds(),
        "unregistered_time": 0.0,
        "used_resources": used,
        "offered_resources": amounts(&Amounts::default(), []),
        "resources": used,
        "tasks": tasks(&mut state.tasks().iter_live()),
        "unreachable_tasks": [],
        "completed_tasks": tasks(&mut state.tasks().iter_completed()),
        "offers": [],
        "executors": [],
    })
}

fn task(state: &State, cluster: &Cluster, task: &Task) -> Value {
    let app = state.app_version(&task.app_id, task.app_version);
    let labels = app.into_iter().flat_map(|app| &app.labels);
    let labels: Vec<Value> = labels.map(|(k, v)| json!({"key": k, "value": v})).collect();
    let mut statuses: Vec<Value> = task
        .history
        .iter()
        .map(|(s, at)| status(task, *s, *at))
        .collect();
    // As in the v1 API's TaskStatus; what is kept is the latest one's.
    if let (Some(latest), false) = (statuses.last_mut(), task.message.is_empty()) {
        latest["message"] = task.message.as_str().into();
    }
    json!({
        "id": task.id.as_str(),
        "name": task.app_id.task_name(),
        "framework_id": cluster.framework_id.as_str(),
        "executor_id": "",
        "slave_id": task.agent_id.as_str(),
        "state": task.state.name(),
        "resources": amounts(&task.amounts, task.host_ports.iter().copied()),
        "role": app.map_or("*", |app| app.role.as_str()),
        "statuses": statuses,
        "labels": labels,
    })
}

fn status(task: &Task, state: TaskState, at: Millis) -> Value {
    let mut status = json!({"state": state.name(), "timestamp": at.seconds()});
    if !task.container_id.is_empty() {
        let ip = if task.ip_address.is_empty() {
            &task.host
        } else {
            &task.ip_address
        };
        status["container_status"] = json!({
            "container_id": {"value": task.container_id},
            "executor_pid": task.pid,
            "network_infos": [{"ip_addresses": [{"ip_address": ip}]}],
        });
    }
    status
}

/// Amounts and host ports in the form of [`amounts_shown`].
pub(crate) fn amounts(amounts: &Amounts, ports: impl IntoIterator<Item = u16>) -> Value {
    let ranges = ports
        .into_iter()
        .map(|p| gantry_wire::resources::PortRange { begin: p, end: p });
    amounts_shown(&Resources {
        cpus: MilliCpu(amounts.cpus_milli),
        mem: Bytes(amounts.mem_bytes),
        disk: Bytes(amounts.disk_bytes),
        gpus: amounts.gpus,
        ports: gantry_wire::resources::PortRanges::new(ranges),
    })
}
