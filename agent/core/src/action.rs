//! What a step asks the shell to do. Actions are carried out in the order given; in particular
//! nothing after a [`Action::Save`] may happen before the save is on disk.

use gantry_wire::agent::StatusUpdate;
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::mesos::v1;

use crate::unit::{ExecutorKey, Unit};

/// A signal for every process of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write the unit's checkpoint ([`crate::Tasks::checkpoint`],
    /// [`crate::Tasks::executor_checkpoint`]).
    Save {
        /// What.
        unit: Unit,
        /// Whether it must survive a power cut before the next action; otherwise surviving the
        /// death of the process is enough.
        sync: bool,
    },
    /// The terminal update was acknowledged: forget the task, and remove the checkpoint if it had
    /// one of its own.
    Discard {
        /// Whose.
        task: TaskId,
    },
    /// Make the image present, if there is one, and what is to be fetched, in a sandbox that holds
    /// nothing else. Answer: `Pulled` or `PullFailed`.
    Pull {
        /// For this task.
        task: TaskId,
    },
    /// Image and fetched files are not wanted any more; an answer is not needed.
    CancelPull {
        /// For this task.
        task: TaskId,
    },
    /// Check that its host ports are free and give it its network, unless its executor has it; must
    /// be idempotent. Answer: `Attached` or `AttachFailed`.
    Attach {
        /// For this task.
        task: TaskId,
    },
    /// Hand the container to the keeper; idempotent by container id.
    /// Answer: `Started` or `StartFailed`, later `Exited`.
    Start {
        /// The task.
        task: TaskId,
    },
    /// Look at a running task. Answer, within the check's time: `Probed`.
    Probe {
        /// The task.
        task: TaskId,
        /// Which of its checks.
        check: usize,
    },
    /// Give an executor its network; must be idempotent. Answer: `ExecutorAttached` or
    /// `ExecutorAttachFailed`.
    AttachExecutor {
        /// The executor.
        executor: ExecutorKey,
    },
    /// Hand the container that its tasks share things of to the keeper; idempotent by container id.
    /// Answer: as `Start`.
    StartExecutor {
        /// The executor.
        executor: ExecutorKey,
    },
    /// As `Release`, of an executor.
    ReleaseExecutor {
        /// The executor.
        executor: ExecutorKey,
        /// Its container.
        container: ContainerId,
    },
    /// An executor is over with all its tasks: remove the checkpoint.
    DiscardExecutor {
        /// The executor.
        executor: ExecutorKey,
        /// Its container, by which its checkpoint is found.
        container: ContainerId,
    },
    /// Signal every process of a container.
    Signal {
        /// Which.
        container: ContainerId,
        /// What.
        signal: Signal,
    },
    /// The task ended and that is on disk: let the keeper forget the container, give its
    /// network back, remove its private directory. Must be idempotent.
    Release {
        /// The task.
        task: TaskId,
        /// Its container.
        container: ContainerId,
    },
    /// A container that belongs to no task runs: kill it. Its exit comes as an event.
    Destroy {
        /// Which.
        container: ContainerId,
    },
    /// A container that belongs to no task has ended: let the keeper forget it.
    Forget {
        /// Which.
        container: ContainerId,
    },
    /// Send to the coordinator.
    Send(StatusUpdate),
    /// What an executor of a framework's own is told from now on is for the connection that it made
    /// last; first of all that it has subscribed.
    Welcome {
        /// Which.
        executor: ExecutorKey,
        /// Whether it is told to end instead.
        closing: bool,
    },
    /// Tell it something else.
    Deliver {
        /// Which.
        executor: ExecutorKey,
        /// What.
        event: Box<v1::executor::Event>,
    },
    /// Let its container use what its process now says. Answer: `Resized`.
    Resize {
        /// Which.
        executor: ExecutorKey,
    },
    /// Pass on to its framework what it said; may be lost.
    TellMessage {
        /// Which.
        executor: ExecutorKey,
        /// What.
        data: Vec<u8>,
    },
    /// Tell its framework that it ended; may be lost.
    TellEnded {
        /// Which.
        executor: ExecutorKey,
        /// As wait(2) gives it; -1 when that is not known.
        status: i32,
    },
}
