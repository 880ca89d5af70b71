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
//! A native task skips Pulling. A kill while Accepted or Pulling ends the task at once; while
//! Attaching or Starting it takes effect with the answer; while Running it is SIGTERM, then
//! SIGKILL after the grace, repeated; more in the sandbox than it may use is SIGKILL at once.
//!
//! It deliberately does not decide what becomes of a task after a restart: see `recovery`.

use gantry_wire::agent::{Launch, StatusUpdate};
use gantry_wire::check::Purpose;
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::task::{Reason, TaskState};

use crate::action::{Action, Signal};
use crate::checkpoint::{Checkpoint, Stage};
use crate::checks::{Checks, Found};
use crate::ending::{DiskExcess, Ending, Exit};
use crate::event::KeeperId;
use crate::gpus::GpuName;
use crate::killing::Killing;
use crate::moment::Turn;
use crate::updates::Updates;

/// Longest message of an update, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 2_048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Accepted,
    Pulling,
    Attaching,
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
    container: ContainerId,
    sandbox: String,
    pub(crate) phase: Phase,
    state: TaskState,
    ip: String,
    gpus: Vec<GpuName>,
    pid: u32,
    keeper: Option<KeeperId>,
    killing: Killing,
    checks: Checks,
    /// Why it is killed, if its health is why.
    unhealthy: Option<String>,
    updates: Updates,
}

impl Task {
    /// Accepts a launch: STARTING is saved and queued, then the first step is asked for. Without
    /// the processors that it needs it fails at once.
    pub(crate) fn accept(
        id: TaskId,
        launch: Launch,
        container: ContainerId,
        sandbox: String,
        gpus: Result<Vec<GpuName>, String>,
        turn: &mut Turn<'_>,
    ) -> Self {
        let (gpus, missing) = match gpus {
            Ok(gpus) => (gpus, None),
            Err(cause) => (Vec::new(), Some(cause)),
        };
        let mut task = Self {
            id,
            launch,
            container,
            sandbox,
            phase: Phase::Accepted,
            state: TaskState::TaskStaging,
            ip: String::new(),
            gpus,
            pid: 0,
            keeper: None,
            killing: Killing::default(),
            checks: Checks::default(),
            unhealthy: None,
            updates: Updates::default(),
        };
        task.report(TaskState::TaskStarting, None, "", None, turn);
        task.save(true, turn);
        match missing {
            None => task.begin(turn),
            Some(cause) => task.launch_failed(&cause, turn),
        }
        task
    }

    /// As it was saved. A restored task waits for the keeper's listing.
    pub(crate) fn restore(saved: Checkpoint) -> Self {
        Self {
            id: saved.task,
            launch: saved.launch,
            container: saved.container,
            sandbox: saved.sandbox,
            phase: match saved.stage {
                Stage::Accepted => Phase::Accepted,
                Stage::Starting => Phase::Starting,
                Stage::Running => Phase::Running,
                Stage::Ended => Phase::Ended,
            },
            state: saved.state,
            ip: saved.ip,
            gpus: saved.gpus,
            pid: saved.pid,
            keeper: saved.keeper,
            killing: Killing::restore(saved.kill_grace_ms, saved.excess),
            checks: Checks::restore(saved.passed),
            unhealthy: None,
            updates: Updates::restore(saved.pending),
        }
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            task: self.id.clone(),
            launch: self.launch.clone(),
            container: self.container.clone(),
            sandbox: self.sandbox.clone(),
            stage: match self.phase {
                Phase::Accepted | Phase::Pulling | Phase::Attaching => Stage::Accepted,
                Phase::Starting => Stage::Starting,
                Phase::Running => Stage::Running,
                Phase::Ended => Stage::Ended,
            },
            state: self.state,
            ip: self.ip.clone(),
            gpus: self.gpus.clone(),
            pid: self.pid,
            keeper: self.keeper,
            kill_grace_ms: self.killing.grace_ms(),
            excess: self.killing.excess(),
            passed: self.checks.passed(),
            pending: self.updates.pending().cloned().collect(),
        }
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

    pub(crate) fn container(&self) -> &ContainerId {
        &self.container
    }

    /// Whether nothing is left to do: ended, and the coordinator knows.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Ended && self.updates.is_empty()
    }

    /// The keeper that may have been asked to start it.
    pub(crate) fn keeper(&self) -> Option<KeeperId> {
        self.keeper
    }

    pub(crate) fn killed(&self) -> bool {
        self.killing.is_asked()
    }

    /// The first step that this task needs.
    pub(crate) fn begin(&mut self, turn: &mut Turn<'_>) {
        let task = self.id.clone();
        if self.launch.image.is_empty() {
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

    /// A probe of one of its checks is over.
    pub(crate) fn probed(&mut self, check: usize, found: &Found, turn: &mut Turn<'_>) {
        if self.phase != Phase::Running {
            return;
        }
        let checks = &self.launch.checks;
        let now_ms = turn.now.uptime_ms;
        let Some(news) = self.checks.heard(check, found, checks, now_ms) else {
            return;
        };
        let words = news.words(&self.launch.checks);
        let reason = match news.purpose {
            Purpose::Health => Reason::ReasonTaskHealthCheckStatusUpdated,
            Purpose::Value | Purpose::Readiness => Reason::ReasonTaskCheckStatusUpdated,
        };
        let mut update = self.update(Some(reason), &words, None, turn);
        update.check = Some(Box::new(news.result));
        self.updates.push_result(update);
        if news.kill {
            self.unhealthy = Some(words);
            self.kill(self.launch.kill_grace_ms, turn);
        } else {
            self.save(false, turn);
        }
    }

    pub(crate) fn start_failed(&mut self, cause: &str, turn: &mut Turn<'_>) {
        if self.phase == Phase::Starting {
            self.launch_failed(cause, turn);
        }
    }

    pub(crate) fn exited(&mut self, exit: Exit, turn: &mut Turn<'_>) {
        if matches!(self.phase, Phase::Starting | Phase::Running) {
            let limit = self.launch.resources.as_ref().map_or(0, |r| r.mem_bytes);
            let ending = Ending::of(exit, self.killed(), self.killing.excess(), limit);
            self.end(&ending, turn);
        }
    }

    /// Its sandbox holds too much.
    pub(crate) fn over_disk(&mut self, excess: DiskExcess, turn: &mut Turn<'_>) {
        if self.phase != Phase::Running {
            return;
        }
        if self.killing.exceed(excess, turn.now.uptime_ms) {
            self.save(false, turn);
        }
        self.tick(turn);
    }

    pub(crate) fn kill(&mut self, grace_ms: u64, turn: &mut Turn<'_>) {
        self.checks.end();
        let first = self.killing.ask(grace_ms, turn.now.uptime_ms);
        match self.phase {
            Phase::Ended => {}
            Phase::Accepted => self.killed_before_start(turn),
            Phase::Pulling => {
                turn.act(Action::CancelPull {
                    task: self.id.clone(),
                });
                self.killed_before_start(turn);
            }
            Phase::Attaching | Phase::Starting if first => self.save(false, turn),
            Phase::Running if first => {
                self.save(false, turn);
                self.signal(Signal::Terminate, turn);
                self.tick(turn);
            }
            Phase::Attaching | Phase::Starting | Phase::Running => self.tick(turn),
        }
    }

    /// The process lives, as is known now, and there may be a reason to kill it from before.
    pub(crate) fn kill_again(&mut self, turn: &mut Turn<'_>) {
        if self.killing.again(turn.now.uptime_ms) {
            self.signal(Signal::Terminate, turn);
            self.tick(turn);
        }
    }

    /// It runs under a process id that may be news.
    pub(crate) fn adopt(&mut self, pid: u32, turn: &mut Turn<'_>) {
        self.pid = pid;
        if !self.killed() {
            self.checks.begin(&self.launch.checks, turn.now.uptime_ms);
        }
    }

    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        if self.phase != Phase::Running {
            return;
        }
        if self.killing.take_due(turn.now.uptime_ms) {
            self.signal(Signal::Kill, turn);
        }
        for check in self.checks.take_due(turn.now.uptime_ms) {
            let task = self.id.clone();
            turn.act(Action::Probe { task, check });
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

    pub(crate) fn connection_lost(&mut self) {
        self.updates.connection_lost();
    }

    /// When a tick is wanted, if one is.
    pub(crate) fn deadline_ms(&self, connected: bool) -> Option<u64> {
        let kill = self
            .killing
            .due_ms()
            .into_iter()
            .chain(self.checks.due_ms())
            .min()
            .filter(|_| self.phase == Phase::Running);
        let retry = if connected {
            self.updates.deadline_ms()
        } else {
            None
        };
        kill.into_iter().chain(retry).min()
    }

    fn launch_failed(&mut self, cause: &str, turn: &mut Turn<'_>) {
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

    pub(crate) fn killed_before_start(&mut self, turn: &mut Turn<'_>) {
        let reason = Reason::ReasonTaskKilledDuringLaunch;
        let message = "Killed before it was started".to_owned();
        self.end(
            &Ending::without_exit(TaskState::TaskKilled, reason, message),
            turn,
        );
    }

    /// The one way to the end: saved for good before the keeper may forget the exit status.
    pub(crate) fn end(&mut self, ending: &Ending, turn: &mut Turn<'_>) {
        assert!(self.phase != Phase::Ended, "a task ends once");
        self.phase = Phase::Ended;
        let message = match &self.unhealthy {
            Some(words) => format!("{words}. {}", ending.message),
            None => ending.message.clone(),
        };
        self.report(
            ending.state,
            ending.reason,
            &message,
            ending.exit_code,
            turn,
        );
        self.save(true, turn);
        self.release(turn);
    }

    pub(crate) fn release(&self, turn: &mut Turn<'_>) {
        turn.act(Action::Release {
            task: self.id.clone(),
            container: self.container.clone(),
        });
    }

    fn signal(&self, signal: Signal, turn: &mut Turn<'_>) {
        turn.act(Action::Signal {
            container: self.container.clone(),
            signal,
        });
    }

    fn save(&self, sync: bool, turn: &mut Turn<'_>) {
        turn.act(Action::Save {
            task: self.id.clone(),
            sync,
        });
    }

    fn report(
        &mut self,
        state: TaskState,
        reason: Option<Reason>,
        message: &str,
        exit_code: Option<i32>,
        turn: &mut Turn<'_>,
    ) {
        assert!(
            !self.state.is_terminal(),
            "nothing follows a terminal state"
        );
        self.state = state;
        let update = self.update(reason, message, exit_code, turn);
        self.updates.push(update);
    }

    /// An update that says how things are now.
    fn update(
        &self,
        reason: Option<Reason>,
        message: &str,
        exit_code: Option<i32>,
        turn: &mut Turn<'_>,
    ) -> StatusUpdate {
        StatusUpdate {
            task_id: self.id.to_string(),
            uuid: turn.uuid(),
            state: self.state as i32,
            reason: reason.map(|r| r as i32),
            message: cut(message),
            timestamp_ms: turn.now.wall.0,
            container_id: self.container.to_string(),
            ip_address: self.ip.clone(),
            pid: self.pid,
            exit_code,
            sandbox: self.sandbox.clone(),
            executor_id: executor_id(&self.launch).to_owned(),
            healthy: self.checks.healthy(&self.launch.checks),
            check: None,
        }
    }
}

/// The executor of a launch: one of its own, unless it names another.
fn executor_id(launch: &Launch) -> &str {
    if launch.executor_id.is_empty() {
        &launch.task_id
    } else {
        &launch.executor_id
    }
}

/// At most [`MESSAGE_MAX_BYTES`], on a character boundary.
fn cut(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_MAX_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}
