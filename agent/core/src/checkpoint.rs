//! What must be known of a task after the agent died at any point. The shell writes it to disk;
//! the form there is the shell's business.

use gantry_wire::agent::{ExecutorInfo, Launch, PortMapping, StatusUpdate};
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;

use crate::custom::saved::CustomCheckpoint;
use crate::ending::Verdict;
use crate::event::KeeperId;
use crate::gpus::GpuName;
use crate::unit::ExecutorKey;

/// How far a task had come, as far as recovery must tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The keeper was never asked to start it.
    Accepted,
    /// The keeper may have been asked.
    Starting,
    /// It ran.
    Running,
    /// It is over; only its updates remain.
    Ended,
}

/// A task as it is saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its id.
    pub task: TaskId,
    /// What was asked for.
    pub launch: Launch,
    /// Its container.
    pub container: ContainerId,
    /// Its sandbox on the node.
    pub sandbox: String,
    /// How far it came.
    pub stage: Stage,
    /// Its latest state.
    pub state: TaskState,
    /// Its own address, or empty.
    pub ip: String,
    /// The processors that are its own until it is over.
    pub gpus: Vec<GpuName>,
    /// Its first process, or 0.
    pub pid: u32,
    /// The keeper that may have been asked to start it.
    pub keeper: Option<KeeperId>,
    /// When its process was started, once it was.
    pub started: Option<Millis>,
    /// Whether a kill was asked for, and with what grace in milliseconds.
    pub kill_grace_ms: Option<u64>,
    /// Why the agent kills it, if it does so by itself.
    pub verdict: Option<Verdict>,
    /// The member of its group whose end it is killed for.
    pub culprit: Option<TaskId>,
    /// Whether each of its checks passed when last told.
    pub passed: Vec<Option<bool>>,
    /// Updates without acknowledgement, oldest first.
    pub pending: Vec<StatusUpdate>,
}

/// An executor as it is saved, with its tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutorCheckpoint {
    /// Its name.
    pub executor: ExecutorKey,
    /// What was asked for.
    pub info: ExecutorInfo,
    /// The ports of its network.
    pub ports: Vec<PortMapping>,
    /// Its container.
    pub container: ContainerId,
    /// Its sandbox on the node.
    pub sandbox: String,
    /// How far it came.
    pub stage: Stage,
    /// Its own address, or empty.
    pub ip: String,
    /// Its first process, or 0.
    pub pid: u32,
    /// The keeper that may have been asked to start it.
    pub keeper: Option<KeeperId>,
    /// Its tasks that are not over, each with the number of its group.
    pub tasks: Vec<(u32, Checkpoint)>,
}

/// All that is on disk.
#[derive(Debug, Default)]
pub struct Saved {
    /// Tasks with an executor of their own.
    pub tasks: Vec<Checkpoint>,
    /// Executors.
    pub executors: Vec<ExecutorCheckpoint>,
    /// Executors of frameworks' own.
    pub customs: Vec<CustomCheckpoint>,
}
