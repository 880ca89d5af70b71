//! JSON of Marathon's API, from snapshots of the state.
//!
//! It decides nothing and reads no clock. Shapes: spec/services-jobs.md §1.3–1.6 and §1.10a; golden
//! files in `testdata/` hold them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_wire::ids::AppId;
use gantry_wire::marathon::{App, ContainerType};
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;
use serde_json::{Map, Value, json};

use crate::outcome::Outcome;
use crate::service::scheduler::is_reached;
use crate::state::{AppRecord, Deployment, Failure, State, StepAction, StepKind, Task};

mod waiting;

pub use waiting::queue;

/// The parts of an app that are left out unless asked for (`embed=`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Embed {
    /// `tasks`.
    pub tasks: bool,
    /// `lastTaskFailure`.
    pub last_task_failure: bool,
    /// `tasksStats`.
    pub task_stats: bool,
}

/// An element of `apps` (counts and deployments are always in).
#[must_use]
pub fn app_info(state: &State, record: &AppRecord, embed: Embed, now: Millis) -> Value {
    let mut object = definition(&record.spec);
    versions(&mut object, record.version, Some(record));
    let id = &record.spec.id;
    let (current, old) = state.tasks().counts(id, record.config_version);
    let running = current.running + old.running;
    let staged = (current.kept() + old.kept()).saturating_sub(running);
    let deployments = state.deployments().of_app(id).into_iter();
    let deployments: Vec<Value> = deployments.map(|d| json!({"id": d.as_str()})).collect();
    counts(&mut object, staged, running, deployments);
    if embed.tasks {
        let tasks: Vec<Value> = state.tasks().of_app(id).map(|t| task(state, t)).collect();
        object.insert("tasks".to_owned(), tasks.into());
    }
    if embed.last_task_failure
        && let Some(failure) = state.tasks().last_failure(id)
    {
        object.insert("lastTaskFailure".to_owned(), last_failure(failure));
    }
    if embed.task_stats {
        object.insert("tasksStats".to_owned(), task_stats(state, record, now));
    }
    object.into()
}

/// Answer to POST of a new app, from its outcome.
#[must_use]
pub fn app_created(_state: &State, record: &AppRecord, outcome: &Outcome) -> Value {
    let mut object = definition(&record.spec);
    versions(&mut object, record.version, Some(record));
    let deployments = match outcome {
        Outcome::Deploying { deployment_id, .. } => vec![json!({"id": deployment_id.as_str()})],
        _ => Vec::new(),
    };
    counts(&mut object, 0, 0, deployments);
    object.insert("tasks".to_owned(), json!([]));
    object.into()
}

/// A definition alone (`/versions/{v}`).
#[must_use]
pub fn app(record: &AppRecord, version: Millis) -> Option<Value> {
    let mut object = definition(record.at(version)?);
    let current = (version == record.version).then_some(record);
    versions(&mut object, version, current);
    Some(object.into())
}

/// The definition as clients see it.
fn definition(app: &App) -> Map<String, Value> {
    // It cannot fail: text keys and finite floats only; an empty object would show it.
    let value = serde_json::to_value(app).unwrap_or_default();
    let Value::Object(mut object) = value else {
        return Map::new();
    };
    let docker = app
        .container
        .as_ref()
        .is_some_and(|c| c.kind == ContainerType::Docker);
    let container = object
        .get_mut("container")
        .and_then(|c| c.get_mut("docker"));
    if docker && let Some(Value::Object(docker)) = container {
        docker.insert("parameters".to_owned(), json!([]));
        docker.insert("privileged".to_owned(), json!(false));
    }
    object
}

fn versions(object: &mut Map<String, Value>, version: Millis, record: Option<&AppRecord>) {
    object.insert("version".to_owned(), version.to_string().into());
    let (scaling, config) = record.map_or((version, version), |r| {
        (r.last_scaling_at, r.config_version)
    });
    let info = json!({
        "lastScalingAt": scaling.to_string(),
        "lastConfigChangeAt": config.to_string(),
    });
    object.insert("versionInfo".to_owned(), info);
}

fn counts(object: &mut Map<String, Value>, staged: u32, running: u32, deployments: Vec<Value>) {
    object.insert("tasksStaged".to_owned(), staged.into());
    object.insert("tasksRunning".to_owned(), running.into());
    object.insert("tasksHealthy".to_owned(), 0.into());
    object.insert("tasksUnhealthy".to_owned(), 0.into());
    object.insert("deployments".to_owned(), deployments.into());
}

/// A live task.
#[must_use]
pub fn task(state: &State, task: &Task) -> Value {
    let app = state.app_version(&task.app_id, task.app_version);
    let app = app.or_else(|| state.app(&task.app_id).map(|record| &*record.spec));
    let mut object = json!({
        "appId": task.app_id.as_str(),
        "healthCheckResults": [],
        "host": task.host,
        "id": task.id.as_str(),
        "ipAddresses": addresses(task),
        "localVolumes": [],
        "ports": task.host_ports,
        "role": app.map_or("*", |app| app.role.as_str()),
        "servicePorts": app.map(App::service_ports).unwrap_or_default(),
        "slaveId": task.agent_id.as_str(),
        "stagedAt": task.staged_at.to_string(),
        "state": task.state.name(),
        "version": task.app_version.to_string(),
    });
    if let (Some(started), Value::Object(object)) = (task.started_at, &mut object) {
        object.insert("startedAt".to_owned(), started.to_string().into());
    }
    // Not Marathon's: how far a start is, such as the pull of its image.
    if let (TaskState::TaskStarting, false) = (task.state, task.message.is_empty()) {
        object["message"] = task.message.as_str().into();
    }
    object
}

/// The container's own address, else the node's when its name is one.
fn addresses(task: &Task) -> Vec<Value> {
    let own = task
        .ip_address
        .parse::<IpAddr>()
        .or_else(|_| task.host.parse());
    let protocol = |ip: &IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let entry = |ip: IpAddr| json!({"ipAddress": ip.to_string(), "protocol": protocol(&ip)});
    own.into_iter().map(entry).collect()
}

fn last_failure(failure: &Failure) -> Value {
    json!({
        "appId": failure.app_id.as_str(),
        "host": failure.host,
        "message": failure.message,
        "slaveId": failure.agent_id.as_str(),
        "state": failure.state.name(),
        "taskId": failure.task_id.as_str(),
        "timestamp": failure.timestamp.to_string(),
        "version": failure.version.to_string(),
    })
}

fn task_stats(state: &State, record: &AppRecord, now: Millis) -> Value {
    let tasks: Vec<&Task> = state.tasks().of_app(&record.spec.id).collect();
    let pick = |keep: &dyn Fn(&Task) -> bool| {
        let picked: Vec<&Task> = tasks.iter().copied().filter(|t| keep(t)).collect();
        (!picked.is_empty()).then(|| json!({"stats": stats(&picked, now)}))
    };
    let latest = |t: &Task| t.config_version == record.config_version;
    let sections = [
        (
            "startedAfterLastScaling",
            pick(&|t| t.app_version >= record.last_scaling_at),
        ),
        ("withLatestConfig", pick(&latest)),
        ("withOutdatedConfig", pick(&|t| !latest(t))),
        ("totalSummary", pick(&|_| true)),
    ];
    let present: BTreeMap<&str, Value> = sections
        .into_iter()
        .filter_map(|(name, section)| Some((name, section?)))
        .collect();
    json!(present)
}

fn stats(tasks: &[&Task], now: Millis) -> Value {
    let running = tasks
        .iter()
        .filter(|t| t.state == TaskState::TaskRunning)
        .count();
    let mut lives: Vec<f64> = tasks
        .iter()
        .filter_map(|t| Some(now.since_ms(t.started_at?) as f64 / 1000.0))
        .collect();
    lives.sort_by(f64::total_cmp);
    let counts =
        json!({"staged": tasks.len() - running, "running": running, "healthy": 0, "unhealthy": 0});
    if lives.is_empty() {
        return json!({"counts": counts});
    }
    let average = lives.iter().sum::<f64>() / lives.len() as f64;
    let median = lives[lives.len() / 2];
    json!({"counts": counts, "lifeTime": {"averageSeconds": average, "medianSeconds": median}})
}

/// An element of `/v2/deployments`.
#[must_use]
pub fn deployment(state: &State, deployment: &Deployment) -> Value {
    let done = |a: &StepAction| match a.kind {
        StepKind::StartApplication => true,
        StepKind::StopApplication => state.tasks().count_of_app(&a.app) == 0,
        StepKind::ScaleApplication | StepKind::RestartApplication => is_reached(state, &a.app),
    };
    let action = |a: &StepAction| json!({"action": a.kind.name(), "app": a.app.as_str()});
    let current = deployment
        .steps
        .iter()
        .position(|step| !step.actions.iter().all(done));
    let current = current.unwrap_or(deployment.steps.len().saturating_sub(1));
    let actions = deployment
        .steps
        .get(current)
        .map(|s| s.actions.as_slice())
        .unwrap_or_default();
    let now = actions.iter().map(
        |a| json!({"action": a.kind.name(), "app": a.app.as_str(), "readinessCheckResults": []}),
    );
    let steps = deployment.steps.iter();
    let steps = steps.map(|s| json!({"actions": s.actions.iter().map(action).collect::<Vec<_>>()}));
    json!({
        "id": deployment.id.as_str(),
        "version": deployment.version.to_string(),
        "affectedApps": deployment.affected().map(AppId::as_str).collect::<Vec<_>>(),
        "affectedPods": [],
        "steps": steps.collect::<Vec<_>>(),
        "currentActions": now.collect::<Vec<_>>(),
        "currentStep": current + 1,
        "totalSteps": deployment.steps.len(),
    })
}

/// `{version, deploymentId}`, or `None` when the outcome is of another kind.
#[must_use]
pub fn deploying(outcome: &Outcome) -> Option<Value> {
    let Outcome::Deploying {
        deployment_id,
        version,
    } = outcome
    else {
        return None;
    };
    Some(json!({"version": version.to_string(), "deploymentId": deployment_id.as_str()}))
}

#[cfg(test)]
mod tests;
