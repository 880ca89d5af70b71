//! Everything that can happen to the agent: the closed set of events that its one loop takes in.
//! Decides nothing.

use std::os::fd::OwnedFd;

use gantry_agent_core::{ExecutorKey, ExecutorView, Found, GpuName, TaskView};
use gantry_image::Image;
use gantry_isolation::keeper;
use gantry_isolation::spec::{ContainerId, ExitStatus};
use gantry_net::Attachment;
use gantry_wire::agent::{ExecutorInfo, FromAgent, Launch, to_agent};
use gantry_wire::ids::{ContainerId as WireContainer, TaskId};
use gantry_wire::task::TaskState;
use tokio::sync::{mpsc, oneshot};

use crate::gauge::{Measured, Watched};
use crate::http::executor::ExecutorAsk;
use crate::launched::{End, LaunchReply};
use crate::provision::Attached;

/// Events that may wait for the loop.
pub(crate) const EVENTS_MAX: usize = 1_024;

/// One thing that happened.
#[expect(
    clippy::large_enum_variant,
    reason = "a launch is the largest, and what a coordinator mostly says"
)]
pub(crate) enum Event {
    /// A connection to the coordinator is there; the registration goes into it.
    SessionUp {
        generation: u64,
        outbound: mpsc::Sender<FromAgent>,
    },
    /// The coordinator said something.
    Session {
        generation: u64,
        message: to_agent::Kind,
    },
    /// The connection is gone.
    SessionDown { generation: u64 },
    /// The keeper said something.
    Keeper {
        generation: u64,
        event: keeper::Event,
    },
    /// The connection to the keeper is gone.
    KeeperGone { generation: u64 },
    /// How far a pull is.
    Pulling { task: TaskId, message: String },
    /// A pull is done, and what the task has fetched is in its sandbox.
    Pulled {
        task: TaskId,
        result: Result<Option<Image>, String>,
    },
    /// Volumes and network are there.
    Attached {
        task: TaskId,
        result: Result<Attached, String>,
    },
    /// A running task was looked at.
    Probed {
        task: TaskId,
        check: usize,
        found: Found,
    },
    /// The stream of an executor of a framework's own has no reader any more.
    ExecutorLost { executor: ExecutorKey, number: u64 },
    /// The network of an executor is there; None in host mode.
    ExecutorAttached {
        executor: ExecutorKey,
        result: Result<Option<Attachment>, String>,
    },
    /// A limited sandbox was looked at.
    Measured(Measured),
    /// Someone asks.
    Ask(Ask),
    /// End every task and take no new ones.
    StopTasks,
    /// Leave the loop; with `stop_keeper` nothing may be left. Answer: what could not be removed.
    Finish {
        stop_keeper: bool,
        reply: oneshot::Sender<Vec<String>>,
    },
    /// Look at the clock.
    Tick,
}

/// Questions and orders of the HTTP side.
pub(crate) enum Ask {
    /// What is going on.
    View(oneshot::Sender<View>),
    /// The limited sandboxes of running tasks.
    Sandboxes(oneshot::Sender<Vec<Watched>>),
    /// The task of a running container.
    Task {
        container: String,
        reply: oneshot::Sender<Option<Located>>,
    },
    /// Have the keeper hand out a task's terminal.
    Attach(Box<AttachOrder>),
    /// The end of a container; dropped when it has ended, or is not known.
    WaitEnd {
        container: String,
        reply: oneshot::Sender<()>,
    },
    /// An executor of a framework's own calls.
    Executor(Box<ExecutorAsk>),
    /// Launch a container that is no task's.
    LaunchContainer {
        order: Box<LaunchOrder>,
        reply: LaunchReply,
    },
    /// Wait for the end of one; the question is dropped when it is not known.
    WaitContainer {
        chain: Vec<String>,
        reply: oneshot::Sender<End>,
    },
    /// Signal one, or a process that was started inside a task's.
    KillContainer {
        chain: Vec<String>,
        signo: i32,
        reply: oneshot::Sender<Named>,
    },
    /// Forget one that has ended.
    RemoveContainer {
        chain: Vec<String>,
        reply: oneshot::Sender<Named>,
    },
    /// Run one more process in a container.
    Exec(Box<ExecOrder>),
    /// End the process of a session.
    KillExec { session: ContainerId, signo: i32 },
    /// Wait for the end of a session; None when it is not known.
    WaitExec {
        session: ContainerId,
        reply: oneshot::Sender<ExitStatus>,
    },
}

/// A container that the API is asked for.
pub(crate) struct LaunchOrder {
    /// Its name, after those of the containers around it, the outermost first.
    pub(crate) chain: Vec<String>,
    /// What a task with the same wishes would be launched by.
    pub(crate) launch: Launch,
    /// What to execute, whatever the image says.
    pub(crate) argv: Option<Vec<String>>,
    pub(crate) image: Option<Image>,
}

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// A container that the API was asked for, or a process inside one of a task, which lives.
    Live,
    /// One that has ended.
    Ended,
    /// A task's, or an executor's.
    Task,
    Unknown,
}

/// A container that the API was asked for, in a [`View`].
#[derive(Debug, Clone)]
pub(crate) struct LaunchedRow {
    pub(crate) container: WireContainer,
    pub(crate) chain: Vec<String>,
    pub(crate) nested: bool,
    pub(crate) framework: String,
    pub(crate) executor: String,
    pub(crate) pid: u32,
}

/// One more process in a container.
pub(crate) struct ExecOrder {
    pub(crate) spec: keeper::ExecSpec,
    /// stdin, stdout, stderr; or a socket for the master of its terminal.
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether its end can be asked for afterwards.
    pub(crate) kept: bool,
    pub(crate) started: oneshot::Sender<Result<(), String>>,
    pub(crate) exited: oneshot::Sender<ExitStatus>,
}

/// The terminal of a task's container is wanted.
pub(crate) struct AttachOrder {
    pub(crate) container: ContainerId,
    /// What clients call it: with that of its executor before it if it is a member of a group.
    pub(crate) called: ContainerId,
    /// A socket for the master, and a pipe for what comes out of it.
    pub(crate) fds: Vec<OwnedFd>,
    /// Hears of the container's end, of which it can also be asked a while afterwards.
    pub(crate) ended: oneshot::Sender<ExitStatus>,
}

/// The task of a container.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) task: TaskRow,
    /// The container around it.
    pub(crate) executor: Option<String>,
}

/// A snapshot for HTTP.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) agent_id: Option<String>,
    pub(crate) registered: bool,
    pub(crate) keeper_up: bool,
    pub(crate) tasks: Vec<TaskRow>,
    /// Those that tasks share.
    pub(crate) executors: Vec<ExecutorRow>,
    /// Those that the API was asked for.
    pub(crate) launched: Vec<LaunchedRow>,
    pub(crate) finished_sandboxes: usize,
    pub(crate) execs: usize,
    /// Of output: bytes written, files rotated, streams held up.
    pub(crate) output: [u64; 3],
}

/// An executor in a [`View`].
#[derive(Debug, Clone)]
pub(crate) struct ExecutorRow {
    pub(crate) info: ExecutorInfo,
    pub(crate) is_custom: bool,
    pub(crate) container: WireContainer,
    pub(crate) sandbox: String,
    pub(crate) ip: String,
    pub(crate) pid: u32,
}

impl From<ExecutorView<'_>> for ExecutorRow {
    fn from(view: ExecutorView<'_>) -> Self {
        Self {
            info: view.info.clone(),
            is_custom: view.is_custom,
            container: view.container.clone(),
            sandbox: view.sandbox.to_owned(),
            ip: view.ip.to_owned(),
            pid: view.pid,
        }
    }
}

/// A task in a [`View`].
#[derive(Debug, Clone)]
pub(crate) struct TaskRow {
    pub(crate) launch: Launch,
    pub(crate) container: WireContainer,
    pub(crate) sandbox: String,
    pub(crate) state: TaskState,
    pub(crate) ip: String,
    pub(crate) gpus: Vec<GpuName>,
    pub(crate) pid: u32,
    /// What its sandbox holds, where that was looked at.
    pub(crate) disk_used_bytes: Option<u64>,
}

impl From<TaskView<'_>> for TaskRow {
    fn from(view: TaskView<'_>) -> Self {
        Self {
            launch: view.launch.clone(),
            container: view.container.clone(),
            sandbox: view.sandbox.to_owned(),
            state: view.state,
            ip: view.ip.to_owned(),
            gpus: view.gpus.to_vec(),
            pid: view.pid,
            disk_used_bytes: None,
        }
    }
}

impl TaskRow {
    pub(crate) fn view(&self) -> TaskView<'_> {
        TaskView {
            launch: &self.launch,
            container: &self.container,
            sandbox: &self.sandbox,
            state: self.state,
            ip: &self.ip,
            gpus: &self.gpus,
            pid: self.pid,
        }
    }
}
