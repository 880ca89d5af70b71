//! The messages of a snapshot, and the state's records to and from them.
//!
//! Only what cannot be computed again is stored: indexes, usage and counts are rebuilt. Field
//! numbers are never reused. Ids are checked on the way in, so a restored state holds only valid
//! ones.

mod agents;

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_wire::agent::ResourcesMessage;
use gantry_wire::ids::IdError;
use gantry_wire::marathon::App;
use gantry_wire::task::{Reason, TaskState};
use gantry_wire::time::Millis;
use prost::Message;

use super::deployments::{Deployment, Step, StepAction, StepKind};
use super::snapshot::SnapshotError;
use super::tasks::{Failure, Killing, Task};
use super::{Amounts, AppRecord};
use crate::command::KillReason;

pub(super) use agents::{AgentMessage, GoneMessage};

pub(super) fn invalid(what: &'static str, value: impl Into<String>) -> SnapshotError {
    let value = value.into();
    SnapshotError::Invalid { what, value }
}

/// Checks an id of any kind.
pub(super) fn id<T>(
    what: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, IdError>,
) -> Result<T, SnapshotError> {
    parse(text).map_err(|_| invalid(what, text))
}

macro_rules! parse_id {
    ($kind:ident, $text:expr) => {
        id(stringify!($kind), $text, |t| {
            gantry_wire::ids::$kind::parse(t)
        })
    };
}
pub(super) use parse_id;

#[derive(Clone, PartialEq, Message)]
pub(super) struct AppMessage {
    #[prost(uint64, tag = "1")]
    version_ms: u64,
    #[prost(uint64, tag = "2")]
    config_version_ms: u64,
    #[prost(uint64, tag = "3")]
    last_scaling_ms: u64,
    /// JSON of the definition by version.
    #[prost(btree_map = "uint64, bytes", tag = "4")]
    versions: BTreeMap<u64, Vec<u8>>,
    #[prost(bytes = "vec", tag = "5")]
    spec: Vec<u8>,
}

/// JSON of a definition. It cannot fail: the maps have text keys and the floats are finite.
fn definition_bytes(app: &App) -> Vec<u8> {
    serde_json::to_vec(app).unwrap_or_default()
}

fn definition(bytes: &[u8]) -> Result<App, SnapshotError> {
    serde_json::from_slice(bytes).map_err(|_| invalid("definition", String::from_utf8_lossy(bytes)))
}

impl From<&AppRecord> for AppMessage {
    fn from(r: &AppRecord) -> Self {
        let versions = r
            .versions
            .iter()
            .map(|(v, app)| (v.0, definition_bytes(app)));
        Self {
            version_ms: r.version.0,
            config_version_ms: r.config_version.0,
            last_scaling_ms: r.last_scaling_at.0,
            versions: versions.collect(),
            spec: definition_bytes(&r.spec),
        }
    }
}

impl TryFrom<AppMessage> for AppRecord {
    type Error = SnapshotError;
    fn try_from(m: AppMessage) -> Result<Self, SnapshotError> {
        let versions = m.versions.iter();
        let versions: Result<_, SnapshotError> = versions
            .map(|(v, bytes)| Ok((Millis(*v), Arc::new(definition(bytes)?))))
            .collect();
        Ok(Self {
            spec: Arc::new(definition(&m.spec)?),
            version: Millis(m.version_ms),
            config_version: Millis(m.config_version_ms),
            last_scaling_at: Millis(m.last_scaling_ms),
            versions: versions?,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct HistoryMessage {
    #[prost(int32, tag = "1")]
    state: i32,
    #[prost(uint64, tag = "2")]
    at_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TaskMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    instance_id: String,
    #[prost(string, tag = "3")]
    app_id: String,
    #[prost(string, tag = "4")]
    agent_id: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(uint64, tag = "6")]
    app_version_ms: u64,
    #[prost(uint64, tag = "7")]
    config_version_ms: u64,
    #[prost(message, optional, tag = "8")]
    amounts: Option<ResourcesMessage>,
    #[prost(uint32, repeated, tag = "9")]
    host_ports: Vec<u32>,
    #[prost(uint64, tag = "10")]
    kill_grace_ms: u64,
    #[prost(int32, tag = "11")]
    state: i32,
    #[prost(uint64, tag = "12")]
    staged_ms: u64,
    #[prost(uint64, optional, tag = "13")]
    started_ms: Option<u64>,
    #[prost(uint64, tag = "14")]
    changed_ms: u64,
    #[prost(uint64, optional, tag = "15")]
    killing_ms: Option<u64>,
    #[prost(int32, tag = "16")]
    kill_reason: i32,
    #[prost(message, repeated, tag = "17")]
    history: Vec<HistoryMessage>,
    #[prost(int32, optional, tag = "18")]
    reason: Option<i32>,
    #[prost(string, tag = "19")]
    message: String,
    #[prost(string, tag = "20")]
    container_id: String,
    #[prost(string, tag = "21")]
    ip_address: String,
    #[prost(uint32, tag = "22")]
    pid: u32,
    #[prost(int32, optional, tag = "23")]
    exit_code: Option<i32>,
    #[prost(string, tag = "24")]
    sandbox: String,
    /// Order among the completed tasks; unused for live ones.
    #[prost(uint64, tag = "25")]
    pub(super) seq: u64,
}

impl From<&Task> for TaskMessage {
    fn from(t: &Task) -> Self {
        let history = t.history.iter();
        Self {
            id: t.id.to_string(),
            instance_id: t.instance_id.to_string(),
            app_id: t.app_id.to_string(),
            agent_id: t.agent_id.to_string(),
            host: t.host.clone(),
            app_version_ms: t.app_version.0,
            config_version_ms: t.config_version.0,
            amounts: Some(ResourcesMessage {
                cpus_milli: t.amounts.cpus_milli,
                mem_bytes: t.amounts.mem_bytes,
                disk_bytes: t.amounts.disk_bytes,
                gpus: t.amounts.gpus,
                ports: Vec::new(),
            }),
            host_ports: t.host_ports.iter().copied().map(u32::from).collect(),
            kill_grace_ms: t.kill_grace_ms,
            state: t.state as i32,
            staged_ms: t.staged_at.0,
            started_ms: t.started_at.map(|m| m.0),
            changed_ms: t.changed_at.0,
            killing_ms: t.killing.map(|k| k.since.0),
            kill_reason: t.killing.map_or(0, |k| k.reason as i32),
            history: history
                .map(|(state, at)| HistoryMessage {
                    state: *state as i32,
                    at_ms: at.0,
                })
                .collect(),
            reason: t.reason.map(|r| r as i32),
            message: t.message.clone(),
            container_id: t.container_id.clone(),
            ip_address: t.ip_address.clone(),
            pid: t.pid,
            exit_code: t.exit_code,
            sandbox: t.sandbox.clone(),
            seq: 0,
        }
    }
}

impl TaskMessage {
    pub(super) fn completed(task: &Task, seq: u64) -> Self {
        Self {
            seq,
            ..Self::from(task)
        }
    }
}

fn task_state(number: i32) -> Result<TaskState, SnapshotError> {
    TaskState::try_from(number).map_err(|_| invalid("task state", number.to_string()))
}

impl TryFrom<TaskMessage> for Task {
    type Error = SnapshotError;
    fn try_from(m: TaskMessage) -> Result<Self, SnapshotError> {
        let port = |p: &u32| u16::try_from(*p).map_err(|_| invalid("port", p.to_string()));
        let reason = KillReason::try_from(m.kill_reason);
        let reason = reason.map_err(|_| invalid("kill reason", m.kill_reason.to_string()))?;
        let entry = |h: &HistoryMessage| Ok((task_state(h.state)?, Millis(h.at_ms)));
        let history: Result<_, SnapshotError> = m.history.iter().map(entry).collect();
        Ok(Self {
            id: parse_id!(TaskId, &m.id)?,
            instance_id: parse_id!(InstanceId, &m.instance_id)?,
            app_id: parse_id!(AppId, &m.app_id)?,
            agent_id: parse_id!(AgentId, &m.agent_id)?,
            host: m.host,
            app_version: Millis(m.app_version_ms),
            config_version: Millis(m.config_version_ms),
            amounts: m
                .amounts
                .as_ref()
                .map(|a| Amounts::of(&a.into()))
                .unwrap_or_default(),
            host_ports: m.host_ports.iter().map(port).collect::<Result<_, _>>()?,
            kill_grace_ms: m.kill_grace_ms,
            state: task_state(m.state)?,
            staged_at: Millis(m.staged_ms),
            started_at: m.started_ms.map(Millis),
            changed_at: Millis(m.changed_ms),
            killing: m.killing_ms.map(|since| Killing {
                since: Millis(since),
                reason,
            }),
            history: history?,
            reason: m.reason.and_then(|r| Reason::try_from(r).ok()),
            message: m.message,
            container_id: m.container_id,
            ip_address: m.ip_address,
            pid: m.pid,
            exit_code: m.exit_code,
            sandbox: m.sandbox,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FailureMessage {
    #[prost(string, tag = "1")]
    app_id: String,
    #[prost(string, tag = "2")]
    host: String,
    #[prost(string, tag = "3")]
    message: String,
    #[prost(int32, tag = "4")]
    state: i32,
    #[prost(string, tag = "5")]
    task_id: String,
    #[prost(uint64, tag = "6")]
    at_ms: u64,
    #[prost(uint64, tag = "7")]
    version_ms: u64,
    #[prost(string, tag = "8")]
    agent_id: String,
}

impl From<&Failure> for FailureMessage {
    fn from(f: &Failure) -> Self {
        Self {
            app_id: f.app_id.to_string(),
            host: f.host.clone(),
            message: f.message.clone(),
            state: f.state as i32,
            task_id: f.task_id.to_string(),
            at_ms: f.timestamp.0,
            version_ms: f.version.0,
            agent_id: f.agent_id.to_string(),
        }
    }
}

impl TryFrom<FailureMessage> for Failure {
    type Error = SnapshotError;
    fn try_from(m: FailureMessage) -> Result<Self, SnapshotError> {
        Ok(Self {
            app_id: parse_id!(AppId, &m.app_id)?,
            host: m.host,
            message: m.message,
            state: task_state(m.state)?,
            task_id: parse_id!(TaskId, &m.task_id)?,
            timestamp: Millis(m.at_ms),
            version: Millis(m.version_ms),
            agent_id: parse_id!(AgentId, &m.agent_id)?,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct ActionMessage {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    app_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct StepMessage {
    #[prost(message, repeated, tag = "1")]
    actions: Vec<ActionMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct BeforeMessage {
    #[prost(message, optional, tag = "1")]
    app: Option<AppMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeploymentMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    version_ms: u64,
    #[prost(message, repeated, tag = "3")]
    steps: Vec<StepMessage>,
    #[prost(btree_map = "string, message", tag = "4")]
    before: BTreeMap<String, BeforeMessage>,
}

impl From<&Deployment> for DeploymentMessage {
    fn from(d: &Deployment) -> Self {
        let action = |a: &StepAction| ActionMessage {
            kind: a.kind as i32,
            app_id: a.app.to_string(),
        };
        let step = |s: &Step| StepMessage {
            actions: s.actions.iter().map(action).collect(),
        };
        let before = d.before.iter().map(|(app, record)| {
            (
                app.to_string(),
                BeforeMessage {
                    app: record.as_ref().map(|r| r.as_ref().into()),
                },
            )
        });
        Self {
            id: d.id.to_string(),
            version_ms: d.version.0,
            steps: d.steps.iter().map(step).collect(),
            before: before.collect(),
        }
    }
}

impl TryFrom<DeploymentMessage> for Deployment {
    type Error = SnapshotError;
    fn try_from(m: DeploymentMessage) -> Result<Self, SnapshotError> {
        let action = |a: &ActionMessage| {
            let kind =
                StepKind::try_from(a.kind).map_err(|_| invalid("step kind", a.kind.to_string()))?;
            Ok(StepAction {
                kind,
                app: parse_id!(AppId, &a.app_id)?,
            })
        };
        let step = |s: &StepMessage| {
            let actions: Result<_, SnapshotError> = s.actions.iter().map(action).collect();
            Ok(Step { actions: actions? })
        };
        let steps: Result<_, SnapshotError> = m.steps.iter().map(step).collect();
        let mut before = BTreeMap::new();
        for (app, record) in m.before {
            let record = record
                .app
                .map(AppRecord::try_from)
                .transpose()?
                .map(Arc::new);
            before.insert(parse_id!(AppId, &app)?, record);
        }
        Ok(Self {
            id: parse_id!(DeploymentId, &m.id)?,
            version: Millis(m.version_ms),
            steps: steps?,
            before,
        })
    }
}
