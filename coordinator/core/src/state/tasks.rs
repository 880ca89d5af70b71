//! Tasks: live ones with their indexes, the last completed ones of each app, and the last failure
//! of each app.
//!
//! It does not decide what is launched or killed. Invariants: a task is live or completed, never
//! both; `by_app` and `by_agent` list exactly the live tasks; an instance has one task at most; at
//! most [`COMPLETED_PER_APP_MAX`] completed tasks of an app and [`COMPLETED_MAX`] in all are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_wire::ids::{AgentId, AppId, InstanceId, TaskId};
use gantry_wire::task::{Reason, TaskState};
use gantry_wire::time::Millis;
use imbl::{OrdMap, OrdSet};

use super::agents::Amounts;
use crate::command::KillReason;

/// Completed tasks kept of one app.
pub const COMPLETED_PER_APP_MAX: usize = 20;
/// Completed tasks kept in all (Mesos: `max_completed_tasks_per_framework` 1,000).
pub const COMPLETED_MAX: usize = 1_000;

/// A kill was decided; it is sent to the agent until the task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killing {
    /// When.
    pub since: Millis,
    /// Why.
    pub reason: KillReason,
}

/// One execution of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// The instance it executes.
    pub instance_id: InstanceId,
    /// The app; it may be deleted already.
    pub app_id: AppId,
    /// Where it runs.
    pub agent_id: AgentId,
    /// Hostname of the agent at launch: the task's `host`.
    pub host: String,
    /// Version of the definition it runs.
    pub app_version: Millis,
    /// Configuration of that version: it is up to date while the app has the same.
    pub config_version: Millis,
    /// What it holds.
    pub amounts: Amounts,
    /// The host ports it holds, in the order of the definition's ports that have one.
    pub host_ports: Vec<u16>,
    /// From SIGTERM to SIGKILL.
    pub kill_grace_ms: u64,
    /// Its state.
    pub state: TaskState,
    /// When it was launched.
    pub staged_at: Millis,
    /// When it reached `TaskRunning`.
    pub started_at: Option<Millis>,
    /// When its state changed last.
    pub changed_at: Millis,
    /// Whether it is being killed.
    pub killing: Option<Killing>,
    /// States it went through with the node's time, repeats collapsed.
    pub history: Vec<(TaskState, Millis)>,
    /// Why it is in its state.
    pub reason: Option<Reason>,
    /// The same for people.
    pub message: String,
    /// Its container.
    pub container_id: String,
    /// Its own address; empty in host mode.
    pub ip_address: String,
    /// Process on the node.
    pub pid: u32,
    /// Exit status as a shell counts it.
    pub exit_code: Option<i32>,
    /// Directory on the node, for `/files`.
    pub sandbox: String,
}

impl Task {
    /// Whether it holds resources.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.state.is_terminal()
    }
}

/// The last failure of an app (Marathon's `lastTaskFailure`).
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The app.
    pub app_id: AppId,
    /// Where.
    pub host: String,
    /// For people.
    pub message: String,
    /// The state it ended in.
    pub state: TaskState,
    /// The task.
    pub task_id: TaskId,
    /// When.
    pub timestamp: Millis,
    /// Version of the definition it ran.
    pub version: Millis,
    /// The agent.
    pub agent_id: AgentId,
}

/// How many live tasks of one app and configuration there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All live ones.
    pub live: u32,
    /// Those that are being killed.
    pub killing: u32,
    /// Those that run and are not being killed.
    pub running: u32,
}

impl Counts {
    fn of(task: &Task) -> Self {
        let killing = task.killing.is_some();
        let running = task.state == TaskState::TaskRunning && !killing;
        Self {
            live: 1,
            killing: u32::from(killing),
            running: u32::from(running),
        }
    }

    /// Those that are not being killed.
    #[must_use]
    pub fn kept(&self) -> u32 {
        self.live.saturating_sub(self.killing)
    }

    fn add(&mut self, other: &Self) {
        self.live += other.live;
        self.killing += other.killing;
        self.running += other.running;
    }

    fn subtract(&mut self, other: &Self) {
        self.live = self.live.saturating_sub(other.live);
        self.killing = self.killing.saturating_sub(other.killing);
        self.running = self.running.saturating_sub(other.running);
    }
}

/// All tasks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tasks {
    live: OrdMap<TaskId, Arc<Task>>,
    counts: OrdMap<AppId, Arc<BTreeMap<Millis, Counts>>>,
    by_app: OrdMap<AppId, OrdSet<TaskId>>,
    by_agent: OrdMap<AgentId, OrdSet<TaskId>>,
    instances: OrdSet<InstanceId>,
    completed: OrdMap<TaskId, (u64, Arc<Task>)>,
    completed_of: OrdMap<AppId, OrdMap<u64, TaskId>>,
    completed_order: OrdMap<u64, AppId>,
    next_completed: u64,
    failures: OrdMap<AppId, Arc<Failure>>,
}

impl Tasks {
    /// A task, live or completed.
    #[must_use]
    pub fn get(&self, id: &TaskId) -> Option<&Task> {
        self.live(id)
            .or_else(|| self.completed.get(id).map(|(_, t)| &**t))
    }

    /// A live task.
    #[must_use]
    pub fn live(&self, id: &TaskId) -> Option<&Task> {
        self.live.get(id).map(AsRef::as_ref)
    }

    /// All live tasks by id.
    pub fn iter_live(&self) -> impl Iterator<Item = &Task> {
        self.live.values().map(AsRef::as_ref)
    }

    /// How many tasks are live.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Live tasks of an app, by id.
    pub fn of_app(&self, app: &AppId) -> impl Iterator<Item = &Task> {
        self.by_app
            .get(app)
            .into_iter()
            .flatten()
            .filter_map(|id| self.live(id))
    }

    /// How many live tasks an app has.
    #[must_use]
    pub fn count_of_app(&self, app: &AppId) -> usize {
        self.by_app.get(app).map_or(0, OrdSet::len)
    }

    /// Live tasks of an app: those of the given configuration, and the sum of all others.
    #[must_use]
    pub fn counts(&self, app: &AppId, config_version: Millis) -> (Counts, Counts) {
        let (mut current, mut old) = (Counts::default(), Counts::default());
        for (version, counts) in self.counts.get(app).into_iter().flat_map(|c| c.iter()) {
            let side = if *version == config_version {
                &mut current
            } else {
                &mut old
            };
            side.add(counts);
        }
        (current, old)
    }

    /// Apps that have live tasks, deleted ones too.
    pub fn apps(&self) -> impl Iterator<Item = &AppId> {
        self.by_app.keys()
    }

    /// Live tasks on an agent, by id.
    pub fn of_agent(&self, agent: &AgentId) -> impl Iterator<Item = &Task> {
        self.by_agent
            .get(agent)
            .into_iter()
            .flatten()
            .filter_map(|id| self.live(id))
    }

    /// Completed tasks that are still kept, oldest first.
    pub fn iter_completed(&self) -> impl Iterator<Item = &Task> {
        self.completed_order.iter().filter_map(|(seq, app)| {
            let id = self.completed_of.get(app)?.get(seq)?;
            self.completed.get(id).map(|(_, task)| &**task)
        })
    }

    /// Completed tasks of an app that are still kept, oldest first.
    pub fn completed_of_app(&self, app: &AppId) -> impl Iterator<Item = &Task> {
        let ids = self
            .completed_of
            .get(app)
            .into_iter()
            .flat_map(OrdMap::values);
        ids.filter_map(|id| self.completed.get(id).map(|(_, task)| &**task))
    }

    /// The last failure of an app.
    #[must_use]
    pub fn last_failure(&self, app: &AppId) -> Option<&Failure> {
        self.failures.get(app).map(AsRef::as_ref)
    }

    /// All last failures.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.failures.values().map(AsRef::as_ref)
    }

    /// Whether the ids were never used, as far as is known.
    pub(crate) fn is_new(&self, task: &TaskId, instance: &InstanceId) -> bool {
        self.get(task).is_none() && !self.instances.contains(instance)
    }

    pub(crate) fn insert_live(&mut self, task: Task) {
        self.by_app
            .entry(task.app_id.clone())
            .or_default()
            .insert(task.id.clone());
        self.by_agent
            .entry(task.agent_id.clone())
            .or_default()
            .insert(task.id.clone());
        self.instances.insert(task.instance_id.clone());
        self.count(&task.app_id, task.config_version, |c| {
            c.add(&Counts::of(&task));
        });
        self.live.insert(task.id.clone(), Arc::new(task));
    }

    fn count(&mut self, app: &AppId, config: Millis, change: impl FnOnce(&mut Counts)) {
        let of_app = Arc::make_mut(self.counts.entry(app.clone()).or_default());
        let counts = of_app.entry(config).or_default();
        change(counts);
        if *counts == Counts::default() {
            of_app.remove(&config);
        }
        if of_app.is_empty() {
            self.counts.remove(app);
        }
    }

    /// Changes a live task; ids, app, agent and configuration stay.
    pub(crate) fn change(&mut self, id: &TaskId, change: impl FnOnce(&mut Task)) {
        let Some(task) = self.live.get_mut(id) else {
            return;
        };
        let task = Arc::make_mut(task);
        let before = Counts::of(task);
        change(task);
        let (after, app, config) = (Counts::of(task), task.app_id.clone(), task.config_version);
        if before != after {
            self.count(&app, config, |c| {
                c.subtract(&before);
                c.add(&after);
            });
        }
    }

    /// Moves a task that has ended to the completed ones.
    pub(crate) fn complete(&mut self, id: &TaskId) {
        let Some(task) = self.live.remove(id) else {
            return;
        };
        if let Some(ids) = self.by_app.get_mut(&task.app_id) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_app.remove(&task.app_id);
            }
        }
        if let Some(ids) = self.by_agent.get_mut(&task.agent_id) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_agent.remove(&task.agent_id);
            }
        }
        self.instances.remove(&task.instance_id);
        self.count(&task.app_id, task.config_version, |c| {
            c.subtract(&Counts::of(&task));
        });
        self.insert_completed(task);
    }

    fn insert_completed(&mut self, task: Arc<Task>) {
        self.restore_completed(self.next_completed, task);
    }

    /// How many tasks were ever completed.
    pub(crate) fn next_completed(&self) -> u64 {
        self.next_completed
    }

    /// For a snapshot: the number that the next completed task gets.
    pub(crate) fn restore_next_completed(&mut self, seq: u64) {
        self.next_completed = self.next_completed.max(seq);
    }

    /// Completed tasks with their numbers, oldest first.
    pub(crate) fn numbered_completed(&self) -> impl Iterator<Item = (u64, &Task)> {
        self.iter_completed()
            .filter_map(|t| Some((self.completed.get(&t.id)?.0, t)))
    }

    /// Puts a completed task in under its number, which is later than all before.
    pub(crate) fn restore_completed(&mut self, seq: u64, task: Arc<Task>) {
        self.next_completed = seq.saturating_add(1);
        let app = task.app_id.clone();
        let of_app = self.completed_of.entry(app.clone()).or_default();
        of_app.insert(seq, task.id.clone());
        let over = of_app.len() > COMPLETED_PER_APP_MAX;
        let oldest_of_app = of_app.get_min().map(|(seq, _)| *seq);
        self.completed_order.insert(seq, app);
        self.completed.insert(task.id.clone(), (seq, task));
        if over && let Some(seq) = oldest_of_app {
            self.drop_completed(seq);
        }
        if self.completed_order.len() > COMPLETED_MAX
            && let Some(seq) = self.completed_order.get_min().map(|(seq, _)| *seq)
        {
            self.drop_completed(seq);
        }
    }

    fn drop_completed(&mut self, seq: u64) {
        let Some(app) = self.completed_order.remove(&seq) else {
            return;
        };
        let Some(of_app) = self.completed_of.get_mut(&app) else {
            return;
        };
        if let Some(id) = of_app.remove(&seq) {
            self.completed.remove(&id);
        }
        if of_app.is_empty() {
            self.completed_of.remove(&app);
        }
    }

    pub(crate) fn set_failure(&mut self, failure: Failure) {
        self.failures
            .insert(failure.app_id.clone(), Arc::new(failure));
    }

    pub(crate) fn forget_failure(&mut self, app: &AppId) {
        self.failures.remove(app);
    }
}
