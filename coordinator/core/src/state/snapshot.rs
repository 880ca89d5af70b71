//! The state as bytes, for Raft snapshots and for comparing members.
//!
//! Equal states give equal bytes: everything is written in key order.

use std::sync::Arc;

use gantry_wire::time::Millis;
use prost::Message;

use super::backoff::Delay;
use super::codec::{
    AgentMessage, AppMessage, DeploymentMessage, FailureMessage, GoneMessage, TaskMessage, id,
    parse_id,
};
use super::tasks::Task;
use super::{AppRecord, Cluster, State};

/// Version of the snapshots that this binary writes; it reads all versions up to it.
const SNAPSHOT_VERSION: u32 = 1;

/// Why bytes are not a snapshot for this binary.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not protobuf at all.
    #[error("the snapshot cannot be read")]
    Malformed(#[source] prost::DecodeError),
    /// Written by a newer Gantry.
    #[error("the snapshot has version {0}, this binary knows up to {SNAPSHOT_VERSION}")]
    Newer(u32),
    /// A value that cannot be: a corrupt snapshot.
    #[error("the snapshot holds an invalid {what}: {value}")]
    Invalid {
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: String,
    },
}

#[derive(Clone, PartialEq, Message)]
struct ClusterMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    created_ms: u64,
    #[prost(string, tag = "3")]
    framework_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct DelayMessage {
    #[prost(string, tag = "1")]
    app_id: String,
    #[prost(uint64, tag = "2")]
    config_version_ms: u64,
    #[prost(uint64, tag = "3")]
    delay_ms: u64,
    #[prost(uint64, tag = "4")]
    until_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    applied_index: u64,
    #[prost(uint64, tag = "3")]
    now_ms: u64,
    #[prost(uint64, tag = "4")]
    last_version_ms: u64,
    #[prost(message, optional, tag = "5")]
    cluster: Option<ClusterMessage>,
    #[prost(message, repeated, tag = "6")]
    agents: Vec<AgentMessage>,
    #[prost(message, repeated, tag = "7")]
    apps: Vec<AppMessage>,
    #[prost(message, repeated, tag = "8")]
    live: Vec<TaskMessage>,
    #[prost(message, repeated, tag = "9")]
    completed: Vec<TaskMessage>,
    #[prost(uint64, tag = "10")]
    next_completed: u64,
    #[prost(message, repeated, tag = "11")]
    failures: Vec<FailureMessage>,
    #[prost(message, repeated, tag = "12")]
    deployments: Vec<DeploymentMessage>,
    #[prost(message, repeated, tag = "13")]
    delays: Vec<DelayMessage>,
    #[prost(message, repeated, tag = "14")]
    gone: Vec<GoneMessage>,
}

impl State {
    /// The whole state as bytes; equal states give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let completed = self.tasks.numbered_completed();
        let delays = self.backoffs.iter();
        let snapshot = Snapshot {
            version: SNAPSHOT_VERSION,
            applied_index: self.applied_index,
            now_ms: self.now.0,
            last_version_ms: self.last_version.0,
            cluster: self.cluster.as_ref().map(|c| ClusterMessage {
                id: c.id.clone(),
                created_ms: c.created_at.0,
                framework_id: c.framework_id.to_string(),
            }),
            agents: self.agents.iter().map(Into::into).collect(),
            gone: self
                .agents
                .gone()
                .map(|(id, since)| GoneMessage {
                    id: id.to_string(),
                    since_ms: since.0,
                })
                .collect(),
            apps: self.apps.iter().map(Into::into).collect(),
            live: self.tasks.iter_live().map(Into::into).collect(),
            completed: completed
                .map(|(seq, task)| TaskMessage::completed(task, seq))
                .collect(),
            next_completed: self.tasks.next_completed(),
            failures: self.tasks.failures().map(Into::into).collect(),
            deployments: self.deployments.iter().map(Into::into).collect(),
            delays: delays
                .map(|(app, d)| DelayMessage {
                    app_id: app.to_string(),
                    config_version_ms: d.config_version.0,
                    delay_ms: d.delay_ms,
                    until_ms: d.until.0,
                })
                .collect(),
        };
        snapshot.encode_to_vec()
    }

    /// Back from [`State::encode`]. Errors: see [`SnapshotError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let snapshot = Snapshot::decode(bytes).map_err(SnapshotError::Malformed)?;
        if snapshot.version > SNAPSHOT_VERSION {
            return Err(SnapshotError::Newer(snapshot.version));
        }
        let mut state = Self {
            applied_index: snapshot.applied_index,
            now: Millis(snapshot.now_ms),
            last_version: Millis(snapshot.last_version_ms),
            ..Self::default()
        };
        if let Some(c) = snapshot.cluster {
            let framework_id = parse_id!(FrameworkId, &c.framework_id)?;
            state.cluster = Some(Cluster {
                id: c.id,
                created_at: Millis(c.created_ms),
                framework_id,
            });
        }
        for agent in snapshot.agents {
            state.agents.put(agent.try_into()?);
        }
        for gone in snapshot.gone {
            let id = parse_id!(AgentId, &gone.id)?;
            state.agents.mark_gone(id, Millis(gone.since_ms));
        }
        for app in snapshot.apps {
            state.apps.put(AppRecord::try_from(app)?);
        }
        for message in snapshot.live {
            let task = Task::try_from(message)?;
            state
                .agents
                .take(&task.agent_id, &task.amounts, &task.host_ports);
            state.tasks.insert_live(task);
        }
        for message in snapshot.completed {
            state
                .tasks
                .restore_completed(message.seq, Arc::new(Task::try_from(message)?));
        }
        state.tasks.restore_next_completed(snapshot.next_completed);
        for failure in snapshot.failures {
            state.tasks.set_failure(failure.try_into()?);
        }
        for deployment in snapshot.deployments {
            state.deployments.put(deployment.try_into()?);
        }
        for d in snapshot.delays {
            let delay = Delay {
                config_version: Millis(d.config_version_ms),
                delay_ms: d.delay_ms,
                until: Millis(d.until_ms),
            };
            state.backoffs.restore(parse_id!(AppId, &d.app_id)?, delay);
        }
        Ok(state)
    }
}
