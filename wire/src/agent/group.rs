//! Task groups and what tasks of one executor share: the messages, and nothing about what they
//! come to.
//!
//! Field numbers are never reused, as in [`super`].

use std::collections::BTreeMap;

use super::{Launch, NetworkMode, ResourcesMessage};

/// Launch tasks together, below one executor: all of them or none. Idempotent by the task ids. An
/// executor that is there already takes them in if it is asked for in the same words.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LaunchGroup {
    /// The executor.
    #[prost(message, optional, tag = "1")]
    pub executor: Option<ExecutorInfo>,
    /// The tasks, at least one. Their framework, network and executor are the executor's, whatever
    /// they say; ports are theirs.
    #[prost(message, repeated, tag = "2")]
    pub tasks: Vec<Launch>,
}

/// What tasks below one executor have in common: one network, one IPC namespace, one sandbox
/// around theirs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecutorInfo {
    /// The framework it belongs to.
    #[prost(string, tag = "1")]
    pub framework_id: String,
    /// Its id, unique within the framework on this node.
    #[prost(string, tag = "2")]
    pub executor_id: String,
    /// Its name, for people.
    #[prost(string, tag = "3")]
    pub name: String,
    /// What it takes itself, besides its tasks.
    #[prost(message, optional, tag = "4")]
    pub resources: Option<ResourcesMessage>,
    /// Labels, shown in the APIs.
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
    /// A number of [`NetworkMode`]: the network that all its tasks are in.
    #[prost(enumeration = "NetworkMode", tag = "6")]
    pub network: i32,
    /// Whether its tasks see each other's processes.
    #[prost(bool, tag = "7")]
    pub share_pids: bool,
}

/// A directory in the executor's sandbox that its tasks share.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SharedVolume {
    /// One path segment; the directory is made when it is first needed.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Path inside; relative ones lie in the task's sandbox.
    #[prost(string, tag = "2")]
    pub container_path: String,
    /// Whether writes are refused.
    #[prost(bool, tag = "3")]
    pub read_only: bool,
}

/// Limits where they differ from what was requested; [`LimitsMessage::UNLIMITED`] lifts one.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LimitsMessage {
    /// Thousandths of a CPU.
    #[prost(uint64, optional, tag = "1")]
    pub cpus_milli: Option<u64>,
    /// Memory in bytes.
    #[prost(uint64, optional, tag = "2")]
    pub mem_bytes: Option<u64>,
}

impl LimitsMessage {
    /// No limit at all.
    pub const UNLIMITED: u64 = u64::MAX;
}

impl Launch {
    /// The executor that it runs below: one of its own, unless it names another.
    #[must_use]
    pub fn executor_id(&self) -> &str {
        if self.executor_id.is_empty() {
            &self.task_id
        } else {
            &self.executor_id
        }
    }
}

/// End an executor with all its tasks. Idempotent; a repeat may only shorten the grace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ShutdownExecutor {
    /// The framework it belongs to.
    #[prost(string, tag = "1")]
    pub framework_id: String,
    /// Its id.
    #[prost(string, tag = "2")]
    pub executor_id: String,
    /// From SIGTERM to SIGKILL of each task, in milliseconds; none: the tasks' own.
    #[prost(uint64, optional, tag = "3")]
    pub grace_ms: Option<u64>,
}
