//! What happens to an agent's tasks, as the shell reports it.

use std::collections::BTreeMap;

use gantry_wire::agent::{ExecutorInfo, Launch};
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::mesos::v1;

use crate::checks::Found;
use crate::ending::{DiskExcess, Exit};
use crate::unit::ExecutorKey;

/// One life of a keeper; minted by the shell when it starts one, and kept on disk beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct KeeperId(pub u64);

/// A container as the keeper lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It is being made; `Started` or `StartFailed` follows.
    Starting,
    /// Its first process lives.
    Running {
        /// Process id on the node.
        pid: u32,
    },
    /// It ended and waits to be forgotten.
    Exited(Exit),
}

/// A task of a group that is wanted.
#[derive(Debug, Clone)]
pub struct Member {
    /// The checked id of `launch`.
    pub task: TaskId,
    /// What to run.
    pub launch: Launch,
    /// Minted by the shell.
    pub container: ContainerId,
    /// Directory of the sandbox on the node.
    pub sandbox: String,
}

/// A group that is wanted.
#[derive(Debug, Clone)]
pub struct GroupLaunch {
    /// The checked name in `info`.
    pub executor: ExecutorKey,
    /// What the executor is to be.
    pub info: ExecutorInfo,
    /// Minted by the shell, used only if the executor is new.
    pub container: ContainerId,
    /// Directory of the executor's sandbox on the node, if it is new.
    pub sandbox: String,
    /// The tasks.
    pub members: Vec<Member>,
}

/// Tasks below an executor of their framework's own that are wanted.
#[derive(Debug, Clone)]
pub struct CustomLaunch {
    /// The checked name in `info`.
    pub executor: ExecutorKey,
    /// Its framework.
    pub framework: v1::FrameworkInfo,
    /// What the executor is to be.
    pub info: v1::ExecutorInfo,
    /// What runs it, with what it and these tasks need.
    pub process: Launch,
    /// Minted by the shell, used only if the executor is new.
    pub container: ContainerId,
    /// Directory of its sandbox on the node, if it is new.
    pub sandbox: String,
    /// The tasks with their checked ids.
    pub tasks: Vec<(TaskId, v1::TaskInfo)>,
    /// Whether they are a group.
    pub group: bool,
}

/// What an executor of a framework's own says, or is told.
#[derive(Debug, Clone)]
pub enum ExecutorCall {
    /// It listens from now on; the stream is there.
    Subscribe {
        /// The tasks that it knows and has not heard an acknowledgement about.
        tasks: Vec<TaskId>,
        /// What it said of tasks and has not heard an acknowledgement for.
        updates: Vec<v1::TaskStatus>,
    },
    /// Its stream is gone.
    Unsubscribe,
    /// A task changed; checked by [`crate::Tasks::check_update`].
    Update(Box<v1::TaskStatus>),
    /// To its framework.
    Message(Vec<u8>),
    /// From its framework.
    Told(Vec<u8>),
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The coordinator wants a task. A task id that was ever seen is left alone.
    Launch {
        /// The checked id of `launch`.
        task: TaskId,
        /// What to run.
        launch: Box<Launch>,
        /// Minted by the shell, used only if the launch is new.
        container: ContainerId,
        /// Directory of the sandbox on the node, for updates.
        sandbox: String,
    },
    /// The coordinator wants tasks below one executor, all or none. Those that were ever seen are
    /// left alone.
    LaunchGroup(Box<GroupLaunch>),
    /// The coordinator wants tasks below an executor of their framework's own. Those that were ever
    /// seen are left alone.
    LaunchCustom(Box<CustomLaunch>),
    /// Something between such an executor and its framework.
    ExecutorCall {
        /// Which.
        executor: ExecutorKey,
        /// What.
        call: ExecutorCall,
    },
    /// The container of such an executor may use what was asked for, or why not.
    Resized {
        /// Which.
        executor: ExecutorKey,
        /// For people.
        result: Result<(), String>,
    },
    /// The coordinator wants an executor to end, with all its tasks.
    ShutdownExecutor {
        /// Which.
        executor: ExecutorKey,
        /// From SIGTERM to SIGKILL of its tasks; None: their own.
        grace_ms: Option<u64>,
    },
    /// The coordinator wants a task to end.
    Kill {
        /// Which.
        task: TaskId,
        /// From SIGTERM to SIGKILL.
        grace_ms: u64,
    },
    /// An update is durable at the coordinator.
    Acknowledge {
        /// Whose.
        task: TaskId,
        /// The update's.
        uuid: Vec<u8>,
    },
    /// The agent is registered (again): every pending update is sent anew.
    Connected,
    /// The connection is gone: nothing is sent until the next `Connected`.
    Disconnected,
    /// Image or files are being fetched and this is how far it is; said now and then.
    Pulling {
        /// For this task.
        task: TaskId,
        /// For people.
        message: String,
    },
    /// The image is present, and what was to be fetched.
    Pulled {
        /// For this task.
        task: TaskId,
    },
    /// The image, or a file, cannot be had.
    PullFailed {
        /// For this task.
        task: TaskId,
        /// For people.
        cause: String,
    },
    /// The network is ready.
    Attached {
        /// For this task.
        task: TaskId,
        /// The container's own address; empty in host mode.
        ip: String,
    },
    /// The network cannot be had, or a port is taken.
    AttachFailed {
        /// For this task.
        task: TaskId,
        /// For people.
        cause: String,
    },
    /// The network of an executor is ready.
    ExecutorAttached {
        /// Which.
        executor: ExecutorKey,
        /// Its own address; empty in host mode.
        ip: String,
    },
    /// The network of an executor cannot be had.
    ExecutorAttachFailed {
        /// Which.
        executor: ExecutorKey,
        /// For people.
        cause: String,
    },
    /// The keeper runs the container.
    Started {
        /// Which.
        container: ContainerId,
        /// Its first process on the node.
        pid: u32,
    },
    /// The keeper could not start the container, or it could not be handed over.
    StartFailed {
        /// Which.
        container: ContainerId,
        /// For people.
        cause: String,
    },
    /// The container's first process ended.
    Exited {
        /// Which.
        container: ContainerId,
        /// How.
        exit: Exit,
    },
    /// A running container's sandbox holds more than its task may use.
    OverDisk {
        /// Which.
        container: ContainerId,
        /// How much more.
        excess: DiskExcess,
    },
    /// A probe that was asked for is over.
    Probed {
        /// Of this task.
        task: TaskId,
        /// Which of its checks.
        check: usize,
        /// What it found.
        found: Found,
    },
    /// All that the keeper has, after a (re)connect.
    Listing {
        /// Which keeper.
        keeper: KeeperId,
        /// Every container it holds.
        containers: BTreeMap<ContainerId, Seen>,
    },
    /// Time passed; see [`crate::Tasks::deadline_ms`].
    Tick,
}
