//! One task: from accepted to over.
//!
//! ```text
//!            Launch                 Pulled           Attached            Started
//! (nothing) ───────▶ Accepted ─▶ Pulling ─▶ Attaching ───────▶ Starting ───────▶ Running
//!                    STARTING is    │           │  saved before │                   │
//!                    saved, sent    │ failure   │ the keeper is │ StartFailed       │ Exited,
//!                                   │ or kill   │ asked         │ or Exited         │ lost
//!                                   ▼           ▼               ▼                   ▼
//!                                  Ended: FINISHED, FAILED or KILLED; saved, sent, released
//! ```
//! Pulling brings what a task has fetched into its sandbox too; a native task that has nothing
//! fetched skips it. One that is below an executor with others is Ready after Attaching,
//! until `groups` lets its whole group go to Starting. A kill while Accepted, Pulling or Ready ends
//! the task at once; while Attaching or Starting it takes effect with the answer; while Running it
//! is SIGTERM, then SIGKILL after the grace, repeated; more in the sandbox than it may use, or more
//! time than it has, is SIGKILL at once.
//!
//! It deliberately does not decide what becomes of a task after a restart: see `recovery`.

mod kill;
mod report;
mod saved;

pub use report::MESSAGE_MAX_BYTES;
pub(crate) use report::cut;

use gantry_wire::agent::{Launch, ResourcesMessage, StatusUpdate};
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::task::{Reason, TaskState};
use gantry_wire::time::Millis;

use crate::action::Action;
use crate::checks::Checks;
use crate::ending::{Ending, Exit};
use crate::event::KeeperId;
use crate::gpus::GpuName;
use crate::killing::Killing;
use crate::moment::Turn;
use crate::unit::{ExecutorKey, Unit};
use crate::updates::Updates;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Accepted,
    Pulling,
    Attaching,
    /// All is there; its group is waited for.
    Ready,
    Starting,
    Running,
    Ended,
}

/// What may be shown of a task.
#[derive(Debug, Clone, Copy)]
pub struct TaskView<'a> {
    /// What was asked for.
    pub launch: &'a Launch,
    /// Its container.
    pub container: &'a ContainerId,
    /// Its sandbox on the node.
    pub sandbox: &'a str,
    /// Its latest state.
    pub state: TaskState,
    /// Its own address, or empty.
    pub ip: &'a str,
    /// The processors that are its own.
    pub gpus: &'a [GpuName],
    /// Its first process, or 0.
    pub pid: u32,
}

#[derive(Debug)]
pub(crate) struct Task {
    id: TaskId,
    launch: Launch,
    /// None: one of its own, which it is itself.
    executor: Option<Box<ExecutorKey>>,
    container: ContainerId,
    sandbox: String,
    pub(crate) phase: Phase,
    state: TaskState,
    ip: String,
    gpus: Vec<GpuName>,
    pid: u32,
    keeper: Option<KeeperId>,
    started: Option<Millis>,
    /// When its time is over, on the clock of deadlines.
    overtime_ms: Option<u64>,
    killing: Killing,
    checks: Checks,
    /// Why it is killed, if its health is why.
    unhealthy: Option<Box<str>>,
    /// The member of its group that it is killed for.
    culprit: Option<Box<TaskId>>,
    updates: Updates,
    /// What it is instead of a task.
    pub(crate) process: Option<Box<Process>>,
}

/// The process of an executor of a framework's own: it is made, ended and found again as tasks are,
/// but nobody is told its states.
#[derive(Debug)]
pub(crate) struct Process {
    of: ExecutorKey,
    /// How it ended, in the life of this agent.
    pub(crate) ending: Option<Ending>,
    /// As wait(2) gives it, when its end was seen.
    pub(crate) status: Option<i32>,
}

impl Process {
    pub(crate) fn new(of: ExecutorKey) -> Self {
        Self {
            of,
            ending: None,
            status: None,
        }
    }
}

/// A task that is wanted.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) id: TaskId,
    pub(crate) launch: Launch,
    pub(crate) executor: Option<ExecutorKey>,
    pub(crate) container: ContainerId,
    pub(crate) sandbox: String,
    /// The executor that it is the process of.
    pub(crate) process: Option<ExecutorKey>,
}

impl Task {
    /// Accepts a launch: STARTING is saved and queued, then the first step is asked for. Without
    /// the processors that it needs it fails at once.
    pub(crate) fn accept(
        wanted: Wanted,
        gpus: Result<Vec<GpuName>, String>,
        turn: &mut Turn<'_>,
    ) -> Self {
        let (gpus, missing) = match gpus {
            Ok(gpus) => (gpus, None),
            Err(cause) => (Vec::new(), Some(cause)),
        };
        let mut task = Self {
            id: wanted.id,
            launch: wanted.launch,
            executor: wanted.executor.map(Box::new),
            container: wanted.container,
            sandbox: wanted.sandbox,
            phase: Phase::Accepted,
            state: TaskState::TaskStaging,
            ip: String::new(),
            gpus,
            pid: 0,
            keeper: None,
            started: None,
            overtime_ms: None,
            killing: Killing::default(),
            checks: Checks::default(),
            unhealthy: None,
            culprit: None,
            updates: Updates::default(),
            process: wanted.process.map(|of| Box::new(Process::new(of))),
        };
        task.report(TaskState::TaskStarting, None, "", None, turn);
        task.save(true, turn);
        match missing {
            None => task.begin(turn),
            Some(cause) => task.launch_failed(&cause, turn),
        }
        task
    }

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

    /// The processors that no other task may have now.
    pub(crate) fn held_gpus(&self) -> &[GpuName] {
        if self.phase == Phase::Ended {
            &[]
        } else {
            &self.gpus
        }
    }

    pub(crate) fn id(&self) -> &TaskId {
        &self.id
    }

    /// The executor that it shares with others.
    pub(crate) fn executor(&self) -> Option<&ExecutorKey> {
        self.executor.as_deref()
    }

    /// What it is saved with.
    pub(crate) fn unit(&self) -> Unit {
        let process = self.process.as_ref().map(|process| &process.of);
        match process.or(self.executor()) {
            None => Unit::Task(self.id.clone()),
            Some(executor) => Unit::Executor(executor.clone()),
        }
    }

    pub(crate) fn container(&self) -> &ContainerId {
        &self.container
    }

    /// How it ended, while the coordinator does not know yet.
    pub(crate) fn ending(&self) -> Option<&StatusUpdate> {
        let last = self.updates.pending().last();
        last.filter(|_| self.phase == Phase::Ended)
    }

    /// Whether nothing is left to do: ended, and the coordinator knows.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Ended && self.updates.is_empty()
    }

    /// The keeper that may have been asked to start it.
    pub(crate) fn keeper(&self) -> Option<KeeperId> {
        self.keeper
    }

    /// The first step that this task needs.
    pub(crate) fn begin(&mut self, turn: &mut Turn<'_>) {
        let task = self.id.clone();
        if self.launch.image.is_empty() && self.launch.uris.is_empty() {
            self.phase = Phase::Attaching;
            turn.act(Action::Attach { task });
        } else {
            self.phase = Phase::Pulling;
            turn.act(Action::Pull { task });
        }
    }

    /// Says how far the pull is, unless something else still waits to be heard.
    pub(crate) fn pulling(&mut self, message: &str, turn: &mut Turn<'_>) {
        if self.phase == Phase::Pulling && self.updates.is_empty() {
            self.report(TaskState::TaskStarting, None, message, None, turn);
            self.save(false, turn);
        }
    }

    pub(crate) fn pulled(&mut self, result: Result<(), String>, turn: &mut Turn<'_>) {
        if self.phase != Phase::Pulling {
            return;
        }
        match result {
            Ok(()) => {
                self.phase = Phase::Attaching;
                turn.act(Action::Attach {
                    task: self.id.clone(),
                });
            }
            Err(cause) => self.launch_failed(&cause, turn),
        }
    }

    /// `keeper`: the one that is asked next.
    pub(crate) fn attached(
        &mut self,
        result: Result<String, String>,
        keeper: Option<KeeperId>,
        turn: &mut Turn<'_>,
    ) {
        if self.phase != Phase::Attaching {
            return;
        }
        match result {
            Ok(ip) => self.ip = ip,
            Err(cause) => return self.launch_failed(&cause, turn),
        }
        if self.killed() {
            return self.killed_before_start(turn);
        }
        if self.executor.is_some() {
            self.phase = Phase::Ready;
        } else {
            self.start(keeper, turn);
        }
    }

    /// Its group goes, in the network of its executor.
    pub(crate) fn start_in(&mut self, ip: &str, keeper: Option<KeeperId>, turn: &mut Turn<'_>) {
        assert!(
            self.phase == Phase::Ready,
            "a member is ready before its group goes"
        );
        ip.clone_into(&mut self.ip);
        self.start(keeper, turn);
    }

    fn start(&mut self, keeper: Option<KeeperId>, turn: &mut Turn<'_>) {
        self.phase = Phase::Starting;
        self.keeper = keeper;
        self.save(true, turn);
        turn.act(Action::Start {
            task: self.id.clone(),
        });
    }

    pub(crate) fn started(&mut self, pid: u32, turn: &mut Turn<'_>) {
        if self.phase != Phase::Starting {
            return;
        }
        self.phase = Phase::Running;
        self.pid = pid;
        self.started = Some(turn.now.wall);
        self.watch_time(turn);
        if self.killed() {
            self.save(false, turn);
            self.kill_again(turn);
        } else {
            self.report(TaskState::TaskRunning, None, "", None, turn);
            self.save(false, turn);
            self.checks.begin(&self.launch.checks, turn.now.uptime_ms);
            self.tick(turn);
        }
    }

    pub(crate) fn start_failed(&mut self, cause: &str, turn: &mut Turn<'_>) {
        if self.phase == Phase::Starting {
            self.launch_failed(cause, turn);
        }
    }

    pub(crate) fn exited(&mut self, exit: Exit, turn: &mut Turn<'_>) {
        if matches!(self.phase, Phase::Starting | Phase::Running) {
            if let Some(process) = &mut self.process {
                process.status = Some(exit.raw());
            }
            let limit = self.memory_limit_bytes();
            let ending = Ending::of(exit, self.killed(), self.killing.verdict(), limit);
            self.end(&ending, turn);
        }
    }

    /// What it may use is changed while it runs; whether that is news.
    pub(crate) fn resize(&mut self, resources: ResourcesMessage) -> bool {
        let news = self.launch.resources.as_ref() != Some(&resources);
        self.launch.resources = Some(resources);
        news
    }

    fn memory_limit_bytes(&self) -> u64 {
        let limit = self.launch.limits.and_then(|limits| limits.mem_bytes);
        let requested = self.launch.resources.as_ref().map(|r| r.mem_bytes);
        limit.or(requested).unwrap_or_default()
    }

    /// It runs under a process id that may be news.
    pub(crate) fn adopt(&mut self, pid: u32, turn: &Turn<'_>) {
        self.pid = pid;
        self.watch_time(turn);
        if !self.is_dying() {
            self.checks.begin(&self.launch.checks, turn.now.uptime_ms);
        }
    }

    /// Sends what is due. Call only while connected.
    pub(crate) fn send_due(&mut self, turn: &mut Turn<'_>) {
        if let Some(update) = self.updates.due(turn.now.uptime_ms) {
            turn.act(Action::Send(update));
        }
    }

    pub(crate) fn acknowledged(&mut self, uuid: &[u8], turn: &mut Turn<'_>) {
        if self.updates.acknowledge(uuid) && !self.is_over() {
            self.save(false, turn);
        }
    }

    /// A member of its group could not be started: neither is this one, for the same reason.
    pub(crate) fn fail_as(&mut self, culprit: &StatusUpdate, turn: &mut Turn<'_>) {
        if self.phase == Phase::Pulling {
            turn.act(Action::CancelPull {
                task: self.id.clone(),
            });
        }
        let ending = Ending {
            state: TaskState::try_from(culprit.state).unwrap_or(TaskState::TaskFailed),
            reason: culprit
                .reason
                .and_then(|reason| Reason::try_from(reason).ok()),
            message: culprit.message.clone(),
            exit_code: None,
        };
        self.end(&ending, turn);
    }

    /// Whether the keeper was not asked to start it yet.
    pub(crate) fn is_unstarted(&self) -> bool {
        !matches!(self.phase, Phase::Starting | Phase::Running | Phase::Ended)
    }

    pub(crate) fn connection_lost(&mut self) {
        self.updates.connection_lost();
    }

    /// When a tick is wanted, if one is.
    pub(crate) fn deadline_ms(&self, connected: bool) -> Option<u64> {
        let kill = self.killing.due_ms().into_iter().chain(self.overtime_ms);
        let kill = kill.chain(self.checks.due_ms()).min();
        let kill = kill.filter(|_| self.phase == Phase::Running);
        let retry = if connected {
            self.updates.deadline_ms()
        } else {
            None
        };
        kill.into_iter().chain(retry).min()
    }

    pub(crate) fn launch_failed(&mut self, cause: &str, turn: &mut Turn<'_>) {
        if self.killed() {
            return self.killed_before_start(turn);
        }
        let reason = Reason::ReasonContainerLaunchFailed;
        let message = format!("Failed to launch the task: {cause}");
        self.end(
            &Ending::without_exit(TaskState::TaskFailed, reason, message),
            turn,
        );
    }

    /// The one way to the end: saved for good before the keeper may forget the exit status.
    pub(crate) fn end(&mut self, ending: &Ending, turn: &mut Turn<'_>) {
        assert!(self.phase != Phase::Ended, "a task ends once");
        self.phase = Phase::Ended;
        if let Some(process) = &mut self.process {
            process.ending = Some(ending.clone());
        }
        let message = match (&self.unhealthy, &self.culprit) {
            (Some(words), _) => format!("{words}. {}", ending.message),
            (None, Some(culprit)) if ending.state == TaskState::TaskKilled => {
                format!("Ended with its group, after {culprit}. {}", ending.message)
            }
            (None, _) => ending.message.clone(),
        };
        let (state, reason) = (ending.state, ending.reason);
        self.report(state, reason, &message, ending.exit_code, turn);
        self.save(true, turn);
        self.release(turn);
    }

    pub(crate) fn release(&self, turn: &mut Turn<'_>) {
        turn.act(Action::Release {
            task: self.id.clone(),
            container: self.container.clone(),
        });
    }

    fn save(&self, sync: bool, turn: &mut Turn<'_>) {
        turn.act(Action::Save {
            unit: self.unit(),
            sync,
        });
    }
}
