//! What agents report about tasks.
//!
//! Updates may come twice, late, or for tasks that are long forgotten; such are ignored, and
//! acknowledged all the same. A state never goes back: STAGING → STARTING → RUNNING → KILLING →
//! an end; steps may be left out.

use gantry_wire::agent::StatusUpdate;
use gantry_wire::ids::TaskId;
use gantry_wire::task::{Reason, TaskState};
use gantry_wire::time::Millis;

use super::Apply;
use crate::command::{AgentStatus, TaskStatuses};
use crate::outcome::{Change, Outcome};
use crate::state::{Failure, Task};

/// Longest text kept of an update, in bytes.
const TEXT_MAX_BYTES: usize = 4096;
/// States kept in a task's history; a task has six at most unless its agent misbehaves.
const HISTORY_MAX: usize = 16;

impl Apply<'_> {
    pub(super) fn task_statuses(&mut self, c: &TaskStatuses) -> Outcome {
        for update in &c.updates {
            self.task_status(update);
        }
        Outcome::Noted
    }

    fn task_status(&mut self, update: &AgentStatus) {
        let Some(status) = &update.status else { return };
        let Ok(id) = TaskId::parse(status.task_id.as_str()) else {
            return;
        };
        let Some(task) = self.state.tasks.live(&id) else {
            return;
        };
        let Ok(next) = TaskState::try_from(status.state) else {
            return;
        };
        if task.agent_id.as_str() != update.agent_id || !follows(task.state, next) {
            return;
        }
        let moved = task.state != next;
        let (app, agent, config) = (
            task.app_id.clone(),
            task.agent_id.clone(),
            task.config_version,
        );
        let now = self.state.now;
        let at = if status.timestamp_ms == 0 {
            now
        } else {
            Millis(status.timestamp_ms)
        };
        self.state.tasks.change(&id, |task| absorb(task, status));
        if next.is_terminal() {
            self.end_task(&id, next, at);
            return;
        }
        self.state
            .tasks
            .change(&id, |task| enter(task, next, at, now));
        if moved && matches!(next, TaskState::TaskStarting | TaskState::TaskRunning) {
            self.state.backoffs.advanced(&app, config, now);
        }
        self.touch_task(&id, &app, &agent);
    }

    /// Ends a live task: its resources are free, and its app may have to wait.
    pub(super) fn end_task(&mut self, id: &TaskId, end: TaskState, at: Millis) {
        let now = self.state.now;
        self.state
            .tasks
            .change(id, |task| enter(task, end, at, now));
        let Some(task) = self.state.tasks.live(id).cloned() else {
            return;
        };
        self.state
            .agents
            .give_back(&task.agent_id, &task.amounts, &task.host_ports);
        self.state.tasks.complete(id);
        self.touch_task(id, &task.app_id, &task.agent_id);
        let Some(record) = self.state.apps.get(&task.app_id) else {
            return;
        };
        if end == TaskState::TaskKilled || task.killing.is_some() {
            return;
        }
        if record.config_version == task.config_version {
            self.state
                .backoffs
                .failed(&record.spec, task.config_version, now);
            self.changes.insert(Change::App(task.app_id.clone()));
        }
        if end != TaskState::TaskFinished {
            self.state.tasks.set_failure(failure(&task, end, at));
        }
    }
}

fn failure(task: &Task, state: TaskState, timestamp: Millis) -> Failure {
    Failure {
        app_id: task.app_id.clone(),
        host: task.host.clone(),
        message: task.message.clone(),
        state,
        task_id: task.id.clone(),
        timestamp,
        version: task.app_version,
        agent_id: task.agent_id.clone(),
    }
}

/// Whether a report may follow a state; the same state again may bring new details.
fn follows(from: TaskState, to: TaskState) -> bool {
    let rank = |state| match state {
        TaskState::TaskStaging => 0,
        TaskState::TaskStarting => 1,
        TaskState::TaskRunning => 2,
        TaskState::TaskKilling => 3,
        _ => 4,
    };
    // An agent cannot say these about its own task.
    let impossible = matches!(
        to,
        TaskState::TaskUnreachable | TaskState::TaskUnknown | TaskState::TaskStaging
    );
    !impossible && rank(to) >= rank(from)
}

fn enter(task: &mut Task, next: TaskState, at: Millis, now: Millis) {
    if task.state != next {
        task.changed_at = now;
    }
    task.state = next;
    if next == TaskState::TaskRunning && task.started_at.is_none() {
        task.started_at = Some(now);
    }
    if task.history.last().is_none_or(|(state, _)| *state != next)
        && task.history.len() < HISTORY_MAX
    {
        task.history.push((next, at));
    }
}

/// Takes over details; an update that says nothing about one leaves it as it was.
fn absorb(task: &mut Task, status: &StatusUpdate) {
    task.reason = status.reason.and_then(|r| Reason::try_from(r).ok());
    task.message = bounded(&status.message);
    let keep = |old: &mut String, new: &str| {
        if !new.is_empty() {
            *old = bounded(new);
        }
    };
    keep(&mut task.container_id, &status.container_id);
    keep(&mut task.ip_address, &status.ip_address);
    keep(&mut task.sandbox, &status.sandbox);
    if status.pid != 0 {
        task.pid = status.pid;
    }
    task.exit_code = status.exit_code.or(task.exit_code);
}

fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX_BYTES)].to_owned()
}
