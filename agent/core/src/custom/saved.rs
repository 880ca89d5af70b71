//! An executor of a framework's own as it is saved, with its tasks, and how it came to an end that
//! the agent chose.

use gantry_wire::agent::StatusUpdate;
use gantry_wire::ids::TaskId;
use gantry_wire::mesos::v1;
use gantry_wire::task::TaskState;

use crate::checkpoint::Checkpoint;
use crate::unit::ExecutorKey;

/// How far a task has come on its way to the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeStage {
    /// The executor never heard of it.
    Queued,
    /// It may have.
    Given,
    /// It is over; only its updates remain.
    Ended,
}

/// Why the agent ends an executor that nobody asked it to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doom {
    /// It ran for so many milliseconds and did not subscribe.
    Unregistered(u64),
    /// It did not subscribe again within so many milliseconds of an agent's restart.
    NotBack(u64),
    /// Its framework does not want it to outlive the agent.
    NotKept,
}

/// One of its tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct ChargeCheckpoint {
    /// The checked id in `info`.
    pub task: TaskId,
    /// What the framework said.
    pub info: v1::TaskInfo,
    /// Its place among all tasks of the executor.
    pub order: u64,
    /// The place of the first of its group.
    pub group: Option<u64>,
    /// How far it came.
    pub stage: ChargeStage,
    /// Its latest state.
    pub state: TaskState,
    /// The grace of the kill that was asked for, in milliseconds.
    pub kill_grace_ms: Option<u64>,
    /// Updates without acknowledgement, oldest first.
    pub pending: Vec<StatusUpdate>,
    /// Uuids of updates that were taken from the executor, oldest first.
    pub heard: Vec<Vec<u8>>,
}

/// The executor.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomCheckpoint {
    /// Its name.
    pub executor: ExecutorKey,
    /// Its framework.
    pub framework: v1::FrameworkInfo,
    /// What was asked for.
    pub info: v1::ExecutorInfo,
    /// Its process.
    pub process: Checkpoint,
    /// Whether it ever subscribed.
    pub subscribed: bool,
    /// Whether it was ever given a task.
    pub entrusted: bool,
    /// The place of the next task.
    pub next_order: u64,
    /// The grace with which it is to end, in milliseconds, if it is.
    pub closing_ms: Option<u64>,
    /// Why the agent ends it.
    pub doom: Option<Doom>,
    /// Its tasks that are not over.
    pub charges: Vec<ChargeCheckpoint>,
}
