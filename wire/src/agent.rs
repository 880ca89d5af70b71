//! The protocol between an agent and the coordinator: length-delimited protobuf frames, both ways
//! over one connection.
//!
//! The agent opens, sends [`Register`], gets [`Registered`] and then [`ToAgent`] messages. It
//! answers with [`FromAgent`]. Invariants: a status update is repeated until its uuid is
//! acknowledged, and the next one of the same task is not sent before; a launch may arrive twice
//! and is carried out once, keyed by task id, also after the task has ended.
//!
//! Field numbers are never reused: an old agent speaks to a new coordinator.

mod custom;
mod group;
pub mod inventory;

pub use custom::{ExecutorEnded, ExecutorMessage, LaunchCustom};
pub use group::{ExecutorInfo, LaunchGroup, LimitsMessage, SharedVolume, ShutdownExecutor};
pub use inventory::Inventory;

use std::collections::BTreeMap;

use crate::check::{Check, CheckResult};
use crate::resources::{PortRange, PortRanges, Resources};
use crate::units::{Bytes, MilliCpu};

/// Largest frame in bytes; a longer one ends the connection.
pub const FRAME_MAX_BYTES: usize = 4 << 20;
/// How often each side sends at least something, in milliseconds.
pub const HEARTBEAT_MS: u64 = 1_000;
/// Silence after which a side takes the connection for dead, in milliseconds.
pub const SILENCE_MAX_MS: u64 = 10_000;

/// [`Resources`] on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourcesMessage {
    /// Thousandths of a CPU.
    #[prost(uint64, tag = "1")]
    pub cpus_milli: u64,
    /// Memory in bytes.
    #[prost(uint64, tag = "2")]
    pub mem_bytes: u64,
    /// Disk in bytes.
    #[prost(uint64, tag = "3")]
    pub disk_bytes: u64,
    /// Whole GPUs.
    #[prost(uint64, tag = "4")]
    pub gpus: u64,
    /// Port ranges as pairs: first, last, first, last …
    #[prost(uint32, repeated, tag = "5")]
    pub ports: Vec<u32>,
}

impl From<&Resources> for ResourcesMessage {
    fn from(r: &Resources) -> Self {
        let pair = |p: &PortRange| [u32::from(p.begin), u32::from(p.end)];
        Self {
            cpus_milli: r.cpus.0,
            mem_bytes: r.mem.0,
            disk_bytes: r.disk.0,
            gpus: r.gpus,
            ports: r.ports.ranges().iter().flat_map(pair).collect(),
        }
    }
}

impl From<&ResourcesMessage> for Resources {
    /// Total: ports outside 0–65535 are left out.
    fn from(m: &ResourcesMessage) -> Self {
        let range = |p: &[u32]| {
            Some(PortRange {
                begin: u16::try_from(p[0]).ok()?,
                end: u16::try_from(p[1]).ok()?,
            })
        };
        Self {
            cpus: MilliCpu(m.cpus_milli),
            mem: Bytes(m.mem_bytes),
            disk: Bytes(m.disk_bytes),
            gpus: m.gpus,
            ports: PortRanges::new(
                m.ports
                    .chunks_exact(2)
                    .filter_map(range)
                    .collect::<Vec<_>>(),
            ),
        }
    }
}

/// First message of an agent on a connection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Register {
    /// Empty on the very first start; the coordinator then mints one.
    #[prost(string, tag = "1")]
    pub agent_id: String,
    /// Name or address under which tasks of this node are reached.
    #[prost(string, tag = "2")]
    pub hostname: String,
    /// `host:port` of the agent's own HTTP listener, as the coordinator reaches it.
    #[prost(string, tag = "3")]
    pub http_address: String,
    /// What tasks of every role may use.
    #[prost(message, optional, tag = "4")]
    pub resources: Option<ResourcesMessage>,
    /// Attributes as text by name.
    #[prost(btree_map = "string, string", tag = "5")]
    pub attributes: BTreeMap<String, String>,
    /// Every task the agent knows, ended but not yet acknowledged ones too.
    #[prost(message, repeated, tag = "6")]
    pub tasks: Vec<KnownTask>,
    /// Version of the agent's binary.
    #[prost(string, tag = "7")]
    pub version: String,
    /// What this node cannot do (missing kernel features), each a short sentence.
    #[prost(string, repeated, tag = "8")]
    pub lacks: Vec<String>,
    /// The cluster that this agent belongs to; empty when it does not know one yet. Another one
    /// refuses it.
    #[prost(string, tag = "9")]
    pub cluster_id: String,
    /// What it has beside `resources`, which are those that every role may use.
    #[prost(message, optional, tag = "40")]
    pub inventory: Option<Inventory>,
    /// Whether it was told to drain and not to take tasks again.
    #[prost(bool, tag = "41")]
    pub draining: bool,
}

/// A task in [`Register`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct KnownTask {
    /// Its id.
    #[prost(string, tag = "1")]
    pub task_id: String,
    /// Its latest state as a number of [`crate::task::TaskState`].
    #[prost(int32, tag = "2")]
    pub state: i32,
}

/// Answer to [`Register`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Registered {
    /// The agent's id from now on.
    #[prost(string, tag = "1")]
    pub agent_id: String,
    /// The cluster. An agent stays in the one it saw first; empty from coordinators before this
    /// field.
    #[prost(string, tag = "2")]
    pub cluster_id: String,
}

/// How a task reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NetworkMode {
    /// The node's own network.
    Host = 0,
    /// An address of its own on the node's bridge, host ports mapped to it.
    Bridge = 1,
}

/// One port of a task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PortMapping {
    /// Port on the node; 0 when none is mapped.
    #[prost(uint32, tag = "1")]
    pub host_port: u32,
    /// Port inside the container (bridge mode).
    #[prost(uint32, tag = "2")]
    pub container_port: u32,
    /// `tcp`, `udp` or `udp,tcp`.
    #[prost(string, tag = "3")]
    pub protocol: String,
    /// Name, may be empty.
    #[prost(string, tag = "4")]
    pub name: String,
}

/// A host directory or file seen inside the container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HostVolume {
    /// Absolute path on the node.
    #[prost(string, tag = "1")]
    pub host_path: String,
    /// Path inside; relative ones lie in the sandbox.
    #[prost(string, tag = "2")]
    pub container_path: String,
    /// Whether writes are refused.
    #[prost(bool, tag = "3")]
    pub read_only: bool,
}

/// Something to fetch into the sandbox before a task starts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Uri {
    /// From where: http, https, `file://`, or a path of the node.
    #[prost(string, tag = "1")]
    pub value: String,
    /// To be run: gets the permission and is never extracted.
    #[prost(bool, tag = "2")]
    pub executable: bool,
    /// Extracted if its name says that it is an archive.
    #[prost(bool, tag = "3")]
    pub extract: bool,
    /// May come from the node's cache.
    #[prost(bool, tag = "4")]
    pub cache: bool,
    /// Its path in the sandbox; empty: the last part of `value`.
    #[prost(string, tag = "5")]
    pub output_file: String,
    /// SHA-256 of what is downloaded, in hexadecimal digits with or without `sha256:`; empty: any
    /// content will do.
    #[prost(string, tag = "6")]
    pub sha256: String,
}

/// Launch a task. Idempotent by `task_id`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Launch {
    /// Task id.
    #[prost(string, tag = "1")]
    pub task_id: String,
    /// Task name, for people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The framework it belongs to.
    #[prost(string, tag = "3")]
    pub framework_id: String,
    /// What it may use; limits follow from this.
    #[prost(message, optional, tag = "4")]
    pub resources: Option<ResourcesMessage>,
    /// Run by `/bin/sh -c`; empty when `args` or the image say what to run.
    #[prost(string, tag = "5")]
    pub shell: String,
    /// Argument vector when there is no `shell`: all of it for a native task, appended to the
    /// image's entrypoint otherwise (Marathon's `args`).
    #[prost(string, repeated, tag = "6")]
    pub args: Vec<String>,
    /// Environment from the scheduler; the agent adds `MESOS_*` and `PATH`. The scheduler's wins.
    #[prost(btree_map = "string, string", tag = "7")]
    pub env: BTreeMap<String, String>,
    /// User name or `uid[:gid]`; empty: the image's, else root.
    #[prost(string, tag = "8")]
    pub user: String,
    /// Image reference; empty: native, on the host's files.
    #[prost(string, tag = "9")]
    pub image: String,
    /// Ask the registry even if the image is here.
    #[prost(bool, tag = "10")]
    pub force_pull: bool,
    /// A number of [`NetworkMode`].
    #[prost(enumeration = "NetworkMode", tag = "11")]
    pub network: i32,
    /// Its ports.
    #[prost(message, repeated, tag = "12")]
    pub ports: Vec<PortMapping>,
    /// From SIGTERM to SIGKILL, in milliseconds.
    #[prost(uint64, tag = "13")]
    pub kill_grace_ms: u64,
    /// Labels, shown in the APIs.
    #[prost(btree_map = "string, string", tag = "14")]
    pub labels: BTreeMap<String, String>,
    /// Host paths to bind.
    #[prost(message, repeated, tag = "15")]
    pub volumes: Vec<HostVolume>,
    /// What to fetch into its sandbox before it starts; later ones win over earlier ones.
    #[prost(message, repeated, tag = "16")]
    pub uris: Vec<Uri>,
    /// The executor that it runs below; empty: one of its own, which has the task's id.
    #[prost(string, tag = "20")]
    pub executor_id: String,
    /// Longest time from its start to its end, in milliseconds; 0: as long as it takes.
    #[prost(uint64, tag = "21")]
    pub max_completion_ms: u64,
    /// Limits that are not what `resources` says.
    #[prost(message, optional, tag = "22")]
    pub limits: Option<LimitsMessage>,
    /// Whether its framework wants to hear of TASK_KILLING.
    #[prost(bool, tag = "23")]
    pub killing_state: bool,
    /// Directories that it shares with the other tasks of its executor.
    #[prost(message, repeated, tag = "24")]
    pub shared_volumes: Vec<SharedVolume>,
    /// How it is looked at while it runs.
    #[prost(message, repeated, tag = "30")]
    pub checks: Vec<Check>,
    /// Whether it has a terminal as stdin, stdout and stderr, and how large that is at first.
    #[prost(message, optional, tag = "40")]
    pub tty: Option<Tty>,
}

/// The terminal of a task.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Tty {
    /// Characters from top to bottom; 0: as the kernel has it until somebody attaches.
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    /// Characters from left to right.
    #[prost(uint32, tag = "2")]
    pub columns: u32,
}

/// Coordinator to agent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToAgent {
    /// What is asked; none is a heartbeat.
    #[prost(
        oneof = "to_agent::Kind",
        tags = "1, 2, 3, 4, 5, 6, 7, 20, 21, 40, 41, 42, 43"
    )]
    pub kind: Option<to_agent::Kind>,
}

/// Kinds of [`ToAgent`].
pub mod to_agent {
    /// One of them.
    #[derive(Clone, PartialEq, prost::Oneof)]
    #[expect(
        clippy::large_enum_variant,
        reason = "prost makes the fields; most messages are Launch"
    )]
    pub enum Kind {
        /// Answer to the registration.
        #[prost(message, tag = "1")]
        Registered(super::Registered),
        /// Start a task.
        #[prost(message, tag = "2")]
        Launch(super::Launch),
        /// End a task.
        #[prost(message, tag = "3")]
        Kill(super::Kill),
        /// A status update is durable at the coordinator.
        #[prost(message, tag = "4")]
        Acknowledge(super::Acknowledge),
        /// The registration is refused; the connection ends after it.
        #[prost(string, tag = "5")]
        Refused(String),
        /// Start tasks together.
        #[prost(message, tag = "6")]
        LaunchGroup(super::LaunchGroup),
        /// End an executor with its tasks.
        #[prost(message, tag = "7")]
        ShutdownExecutor(super::ShutdownExecutor),
        /// Launch tasks below an executor of the framework's own.
        #[prost(message, tag = "20")]
        LaunchCustom(super::LaunchCustom),
        /// From a framework to its executor.
        #[prost(message, tag = "21")]
        ExecutorMessage(super::ExecutorMessage),
        /// This coordinator does not lead: `host:port` where agents reach the one that does. The
        /// connection ends after it.
        #[prost(string, tag = "40")]
        LeaderAt(String),
        /// End all tasks and take no new ones. Idempotent; holds across restarts of the agent.
        #[prost(message, tag = "41")]
        Drain(super::Drain),
        /// Take tasks again.
        #[prost(message, tag = "42")]
        Reactivate(super::Reactivate),
        /// An operator said that this node is gone for good: end all tasks and the agent itself. Its
        /// id never comes back.
        #[prost(message, tag = "43")]
        Gone(super::Gone),
    }
}

/// An operator takes a node out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Drain {
    /// Longest time from SIGTERM to SIGKILL, in milliseconds; none: each task's own.
    #[prost(uint64, optional, tag = "1")]
    pub max_grace_ms: Option<u64>,
    /// The node is gone afterwards, so its tasks end as gone.
    #[prost(bool, tag = "2")]
    pub mark_gone: bool,
}

/// The end of a [`Drain`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reactivate {}

/// See [`to_agent::Kind::Gone`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Gone {}

/// End a task. Idempotent; a repeat may only shorten the grace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Kill {
    /// Task id.
    #[prost(string, tag = "1")]
    pub task_id: String,
    /// From SIGTERM to SIGKILL, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub grace_ms: u64,
}

/// A status update is durable at the coordinator.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Acknowledge {
    /// Task id.
    #[prost(string, tag = "1")]
    pub task_id: String,
    /// The update's uuid, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub uuid: Vec<u8>,
}

/// Agent to coordinator.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FromAgent {
    /// What is said; none is a heartbeat.
    #[prost(oneof = "from_agent::Kind", tags = "1, 2, 20, 21")]
    pub kind: Option<from_agent::Kind>,
}

/// Kinds of [`FromAgent`].
pub mod from_agent {
    /// One of them.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// Opens the connection.
        #[prost(message, tag = "1")]
        Register(super::Register),
        /// A task changed.
        #[prost(message, tag = "2")]
        Status(super::StatusUpdate),
        /// From an executor to its framework.
        #[prost(message, tag = "20")]
        ExecutorMessage(super::ExecutorMessage),
        /// An executor of a framework's own has ended.
        #[prost(message, tag = "21")]
        ExecutorEnded(super::ExecutorEnded),
    }
}

/// A task changed. Repeated until acknowledged.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusUpdate {
    /// Task id.
    #[prost(string, tag = "1")]
    pub task_id: String,
    /// 16 bytes, new for each update.
    #[prost(bytes = "vec", tag = "2")]
    pub uuid: Vec<u8>,
    /// The state.
    #[prost(enumeration = "crate::task::TaskState", tag = "3")]
    pub state: i32,
    /// Why, where there is a why.
    #[prost(enumeration = "crate::task::Reason", optional, tag = "4")]
    pub reason: Option<i32>,
    /// For people; bounded by the agent.
    #[prost(string, tag = "5")]
    pub message: String,
    /// When it happened on the node, milliseconds since the epoch.
    #[prost(uint64, tag = "6")]
    pub timestamp_ms: u64,
    /// The container, once there is one.
    #[prost(string, tag = "7")]
    pub container_id: String,
    /// The container's own address in bridge mode, else empty.
    #[prost(string, tag = "8")]
    pub ip_address: String,
    /// Process id of the container's first process on the node; 0 when there is none.
    #[prost(uint32, tag = "9")]
    pub pid: u32,
    /// Exit status as the shell counts it (128 + signal), once it ended by itself.
    #[prost(int32, optional, tag = "10")]
    pub exit_code: Option<i32>,
    /// The sandbox on the node, for `/files`.
    #[prost(string, tag = "11")]
    pub sandbox: String,
    /// The executor that the task runs below; the task's id where it has one of its own.
    #[prost(string, tag = "20")]
    pub executor_id: String,
    /// Whether all its checks of health pass, once each has said so.
    #[prost(bool, optional, tag = "30")]
    pub healthy: Option<bool>,
    /// What was found, when that is why this update is sent.
    #[prost(message, optional, boxed, tag = "31")]
    pub check: Option<Box<CheckResult>>,
    /// What the executor said, where that is one of the framework's own: with the uuid above, and
    /// with what the agent knows of the container.
    #[prost(message, optional, boxed, tag = "40")]
    pub status: Option<Box<crate::mesos::v1::TaskStatus>>,
}
