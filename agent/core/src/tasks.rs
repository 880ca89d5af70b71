//! All tasks of an agent: routes events to them, remembers the ended ones, answers for unknown
//! ones. What happens to one task is decided in `task` and `recovery`; to those that share an
//! executor, in `groups`.

use std::collections::BTreeMap;

use gantry_wire::agent::{KnownTask, Launch};
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::task::{Reason, TaskState};

use crate::action::Action;
use crate::checkpoint::{Checkpoint, ExecutorCheckpoint, Saved};
use crate::custom::saved::CustomCheckpoint;
use crate::custom::{Custom, ExecutorTimes};
use crate::ending::{Exit, Verdict};
use crate::event::{Event, KeeperId, Seen};
use crate::executor::{Executor, ExecutorView};
use crate::gpus::{self, GpuName};
use crate::history::History;
use crate::moment::{Now, Turn};
use crate::recovery;
use crate::task::{Task, TaskView, Wanted};
use crate::timed::Timed;
use crate::unit::{ExecutorKey, Unit};

/// Most tasks at a time, ended ones without acknowledgement included. Registering all of them
/// fits into one frame ([`gantry_wire::agent::FRAME_MAX_BYTES`]).
pub const TASKS_MAX: usize = 10_000;

/// The tasks. Invariants: `containers` maps the container of every task in `tasks`, and only those;
/// `roots` that of every executor in `executors`; a task in `tasks` that has an executor with others
/// is among the tasks of one in `executors`, and those are in `tasks`.
#[derive(Debug, Default)]
pub struct Tasks {
    pub(crate) tasks: Timed<TaskId, Task>,
    pub(crate) containers: BTreeMap<ContainerId, TaskId>,
    pub(crate) executors: Timed<ExecutorKey, Executor>,
    pub(crate) roots: BTreeMap<ContainerId, ExecutorKey>,
    /// Executors of frameworks' own, by their tasks, and by the id that their process has as a task:
    /// that of its container.
    pub(crate) customs: Timed<ExecutorKey, Custom>,
    pub(crate) charges: BTreeMap<TaskId, ExecutorKey>,
    pub(crate) processes: BTreeMap<String, ExecutorKey>,
    pub(crate) times: ExecutorTimes,
    pub(crate) history: History,
    /// The node's, in the order in which they are given out.
    gpus: Vec<GpuName>,
    pub(crate) connected: bool,
    /// The one that listed last.
    pub(crate) keeper: Option<KeeperId>,
}

impl Tasks {
    /// As they were saved, with the ids of tasks that were over before. Nothing happens to them
    /// before the first [`Event::Listing`].
    #[must_use]
    pub fn restore(saved: Saved, over: impl IntoIterator<Item = TaskId>) -> Self {
        Self::restore_with(saved, over, ExecutorTimes::default())
    }

    /// As [`Self::restore`], where executors of frameworks' own have these times.
    #[must_use]
    pub fn restore_with(
        saved: Saved,
        over: impl IntoIterator<Item = TaskId>,
        times: ExecutorTimes,
    ) -> Self {
        let mut tasks = Self {
            times,
            ..Self::default()
        };
        for id in over {
            tasks.history.insert(id);
        }
        for checkpoint in saved.tasks {
            tasks.insert(Task::restore(checkpoint, None));
        }
        for checkpoint in saved.executors {
            let key = checkpoint.executor.clone();
            let (executor, members) = Executor::restore(checkpoint);
            for member in members {
                tasks.insert(Task::restore(member, Some(key.clone())));
            }
            tasks.insert_executor(key, executor);
        }
        for checkpoint in saved.customs {
            tasks.insert_custom(Custom::restore(checkpoint, times));
        }
        tasks.settle();
        tasks
    }

    /// On a node with these graphics processors.
    #[must_use]
    pub fn with_gpus(self, gpus: Vec<GpuName>) -> Self {
        Self { gpus, ..self }
    }

    /// Takes in one event; appends what is to be done, in order.
    pub fn step(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        let turn = &mut Turn::new(now, actions);
        let keeper = self.keeper;
        match event {
            Event::Launch {
                task,
                launch,
                container,
                sandbox,
            } => {
                self.launch(task, *launch, container, sandbox, turn);
            }
            Event::LaunchGroup(group) => self.launch_group(*group, turn),
            Event::ShutdownExecutor { executor, grace_ms } => {
                self.shutdown_executor(&executor, grace_ms, turn);
            }
            Event::LaunchCustom(launch) => self.launch_custom(*launch, turn),
            Event::ExecutorCall { executor, call } => self.called(&executor, call, turn),
            Event::Resized { executor, result } => self.custom_resized(&executor, result, turn),
            Event::ExecutorAttached { executor, ip } => {
                self.with_executor(&executor, turn, |it, turn| it.attached(ip, keeper, turn));
            }
            Event::ExecutorAttachFailed { executor, cause } => {
                self.executor_failed(&executor, &cause, turn);
            }
            Event::Kill { task, grace_ms } => self.kill(&task, grace_ms, turn),
            Event::Acknowledge { task, uuid } => {
                self.with(&task, turn, |task, turn| task.acknowledged(&uuid, turn));
                self.acknowledge_charge(&task, &uuid, turn);
            }
            Event::Connected => self.connected(turn),
            Event::Disconnected => {
                self.connected = false;
                self.tasks.touch_all();
                self.customs.touch_all();
            }
            Event::Pulling { task, message } => {
                self.with(&task, turn, |task, turn| task.pulling(&message, turn));
            }
            Event::Pulled { task } => {
                self.with(&task, turn, |task, turn| task.pulled(Ok(()), turn));
            }
            Event::PullFailed { task, cause } => {
                self.with(&task, turn, |task, turn| task.pulled(Err(cause), turn));
            }
            Event::Attached { task, ip } => {
                self.with(&task, turn, |task, turn| {
                    task.attached(Ok(ip), keeper, turn);
                });
            }
            Event::AttachFailed { task, cause } => {
                self.with(&task, turn, |task, turn| {
                    task.attached(Err(cause), keeper, turn);
                });
            }
            Event::Started { container, pid } => self.started(&container, pid, turn),
            Event::StartFailed { container, cause } => {
                self.start_failed(&container, &cause, turn);
            }
            Event::Exited { container, exit } => self.exited(&container, exit, turn),
            Event::OverDisk { container, excess } => {
                let verdict = Verdict::Disk(excess);
                self.with_container(&container, turn, |task, turn| task.condemn(verdict, turn));
            }
            Event::Probed { task, check, found } => {
                self.with(&task, turn, |task, turn| task.probed(check, &found, turn));
            }
            Event::Listing { keeper, containers } => self.listing(keeper, containers, turn),
            Event::Tick => self.tick(turn),
        }
        self.settle();
    }

    fn settle(&mut self) {
        let connected = self.connected;
        self.tasks.settle(|task| task.deadline_ms(connected));
        self.executors.settle(Executor::deadline_ms);
        self.customs.settle(|custom| custom.deadline_ms(connected));
    }

    /// When the next [`Event::Tick`] is wanted, on the clock of [`Now::uptime_ms`].
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let (tasks, executors) = (self.tasks.deadline_ms(), self.executors.deadline_ms());
        let all = tasks.into_iter().chain(executors);
        all.chain(self.customs.deadline_ms()).min()
    }

    /// What to save of a task.
    #[must_use]
    pub fn checkpoint(&self, task: &TaskId) -> Option<Checkpoint> {
        self.tasks.get(task).map(Task::checkpoint)
    }

    /// What to save of an executor and its tasks.
    #[must_use]
    pub fn executor_checkpoint(&self, key: &ExecutorKey) -> Option<ExecutorCheckpoint> {
        let executor = self.executors.get(key)?;
        let saved = |(id, group): (&TaskId, &u32)| Some((*group, self.checkpoint(id)?));
        Some(ExecutorCheckpoint {
            tasks: executor.tasks.iter().filter_map(saved).collect(),
            ..executor.checkpoint()
        })
    }

    /// What to save of an executor of a framework's own, and its tasks.
    #[must_use]
    pub fn custom_checkpoint(&self, key: &ExecutorKey) -> Option<CustomCheckpoint> {
        self.customs.get(key).map(Custom::checkpoint)
    }

    /// What a task is saved with, if it is not over.
    #[must_use]
    pub fn unit(&self, task: &TaskId) -> Option<Unit> {
        let custom = self.charges.get(task);
        let custom = custom.or_else(|| self.processes.get(task.as_str()));
        let custom = custom.map(|key| Unit::Executor(key.clone()));
        custom.or_else(|| self.tasks.get(task).map(Task::unit))
    }

    /// An executor that is shared.
    #[must_use]
    pub fn executor(&self, key: &ExecutorKey) -> Option<ExecutorView<'_>> {
        self.executors.get(key).map(Executor::view)
    }

    /// The executor that a task shares with others; None when it has one of its own.
    #[must_use]
    pub fn executor_of(&self, task: &TaskId) -> Option<ExecutorView<'_>> {
        self.executor(self.tasks.get(task)?.executor()?)
    }

    /// As [`Self::executor_of`], by the task's container.
    #[must_use]
    pub fn executor_of_container(&self, container: &ContainerId) -> Option<ExecutorView<'_>> {
        self.executor_of(self.containers.get(container)?)
    }

    /// Every executor that is shared, by name; first the built-in ones.
    pub fn executors(&self) -> impl Iterator<Item = ExecutorView<'_>> {
        let customs = self.customs.values().map(Custom::shared_view);
        self.executors.values().map(Executor::view).chain(customs)
    }

    /// A task that is not over, or the process of an executor by its id.
    #[must_use]
    pub fn get(&self, task: &TaskId) -> Option<TaskView<'_>> {
        if let Some(task) = self.tasks.get(task) {
            return Some(task.view());
        }
        if let Some((custom, charge)) = self.charge(task) {
            return Some(charge.view(custom.process.view()));
        }
        self.custom_of(task).map(|custom| custom.process)
    }

    /// Every task that is not over; by id, those of frameworks' own executors last.
    pub fn iter(&self) -> impl Iterator<Item = (&TaskId, TaskView<'_>)> {
        let charges = self.charges.keys().filter_map(|id| {
            let (custom, charge) = self.charge(id)?;
            Some((id, charge.view(custom.process.view())))
        });
        let own = self.tasks.iter().map(|(id, task)| (id, task.view()));
        own.chain(charges)
    }

    /// The tasks as a registration lists them.
    #[must_use]
    pub fn known(&self) -> Vec<KnownTask> {
        let known = |(id, view): (&TaskId, TaskView<'_>)| KnownTask {
            task_id: id.to_string(),
            state: view.state as i32,
        };
        self.iter().map(known).collect()
    }

    fn launch(
        &mut self,
        id: TaskId,
        launch: Launch,
        container: ContainerId,
        sandbox: String,
        turn: &mut Turn<'_>,
    ) {
        if self.is_live(&id) || self.history.contains(&id) {
            return self.answer_again([&id], turn);
        }
        if self.tasks.len() + self.charges.len() >= TASKS_MAX {
            let message = format!("The node already has {TASKS_MAX} tasks");
            let reason = Reason::ReasonContainerLaunchFailed;
            self.answer(&id, TaskState::TaskDropped, reason, message, turn);
            return;
        }
        let gpus = self.assign_gpus(&launch, &[]);
        let wanted = Wanted {
            id,
            launch,
            executor: None,
            container,
            sandbox,
            process: None,
        };
        let mut task = Task::accept(wanted, gpus, turn);
        if self.connected {
            task.send_due(turn);
        }
        self.insert(task);
    }

    /// Processors for a launch, besides those in `taken`.
    pub(crate) fn assign_gpus(
        &self,
        launch: &Launch,
        taken: &[GpuName],
    ) -> Result<Vec<GpuName>, String> {
        let count = launch.resources.as_ref().map_or(0, |wanted| wanted.gpus);
        if count == 0 {
            return Ok(Vec::new());
        }
        let processes = self.customs.values().map(|custom| &custom.process);
        let all = self.tasks.values().chain(processes);
        let held = all.flat_map(Task::held_gpus).chain(taken);
        gpus::assign(&self.gpus, &held.collect(), count)
    }

    pub(crate) fn insert(&mut self, task: Task) {
        self.containers
            .insert(task.container().clone(), task.id().clone());
        self.tasks.insert(task.id().clone(), task);
    }

    fn kill(&mut self, id: &TaskId, grace_ms: u64, turn: &mut Turn<'_>) {
        if self.tasks.contains_key(id) {
            self.with(id, turn, |task, turn| task.kill(grace_ms, turn));
        } else if self.charges.contains_key(id) {
            self.kill_charge(id, grace_ms, turn);
        } else if !self.history.contains(id) {
            // Its launch never arrived, and must not be carried out if it still does.
            let message = "The task never reached its node".to_owned();
            let reason = Reason::ReasonTaskKilledDuringLaunch;
            self.answer(id, TaskState::TaskKilled, reason, message, turn);
        }
    }

    fn connected(&mut self, turn: &mut Turn<'_>) {
        self.connected = true;
        for task in self.tasks.values_mut() {
            task.connection_lost();
            task.send_due(turn);
        }
        for custom in self.customs.values_mut() {
            for charge in custom.charges.values_mut() {
                charge.connection_lost();
                charge.send_due(turn);
            }
        }
    }

    fn started(&mut self, container: &ContainerId, pid: u32, turn: &mut Turn<'_>) {
        match self.roots.get(container).cloned() {
            Some(key) => self.with_executor(&key, turn, |it, turn| it.started(pid, turn)),
            None => self.with_container(container, turn, |task, turn| task.started(pid, turn)),
        }
    }

    fn start_failed(&mut self, container: &ContainerId, cause: &str, turn: &mut Turn<'_>) {
        match self.roots.get(container).cloned() {
            Some(key) => self.executor_failed(&key, cause, turn),
            None => self.with_container(container, turn, |task, turn| {
                task.start_failed(cause, turn);
            }),
        }
    }

    fn exited(&mut self, container: &ContainerId, exit: Exit, turn: &mut Turn<'_>) {
        if let Some(key) = self.roots.get(container).cloned() {
            self.with_executor(&key, turn, Executor::end);
        } else if self.containers.contains_key(container)
            || self.processes.contains_key(container.as_str())
        {
            self.with_container(container, turn, |task, turn| task.exited(exit, turn));
        } else {
            turn.act(Action::Forget {
                container: container.clone(),
            });
        }
    }

    fn listing(
        &mut self,
        keeper: KeeperId,
        mut containers: BTreeMap<ContainerId, Seen>,
        turn: &mut Turn<'_>,
    ) {
        self.keeper = Some(keeper);
        for task in self.tasks.values_mut() {
            recovery::reconcile(task, keeper, &mut containers, turn);
            if self.connected {
                task.send_due(turn);
            }
        }
        self.sweep(turn);
        self.reconcile_executors(&mut containers, turn);
        self.reconcile_customs(keeper, &mut containers, turn);
        for (container, seen) in containers {
            turn.act(match seen {
                Seen::Starting | Seen::Running { .. } => Action::Destroy { container },
                Seen::Exited(_) => Action::Forget { container },
            });
        }
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        for id in self.tasks.due(turn.now.uptime_ms) {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.tick(turn);
                if self.connected {
                    task.send_due(turn);
                }
            }
        }
        self.tick_executors(turn);
        self.tick_customs(turn);
    }

    /// Removes what was over when it was restored: its checkpoint outlived its acknowledgement.
    fn sweep(&mut self, turn: &mut Turn<'_>) {
        let over = self.tasks.iter().filter(|(_, task)| task.is_over());
        let over: Vec<TaskId> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            self.discard(&id, turn);
        }
    }

    fn discard(&mut self, id: &TaskId, turn: &mut Turn<'_>) {
        let Some(task) = self.tasks.remove(id) else {
            return;
        };
        self.containers.remove(task.container());
        self.history.insert(id.clone());
        turn.act(Action::Discard { task: id.clone() });
        let executor = task.executor().and_then(|key| self.executors.get_mut(key));
        if let Some(executor) = executor {
            executor.tasks.remove(id);
            executor.save(false, turn);
        }
    }

    pub(crate) fn with_container(
        &mut self,
        container: &ContainerId,
        turn: &mut Turn<'_>,
        change: impl FnOnce(&mut Task, &mut Turn<'_>),
    ) {
        if let Some(id) = self.containers.get(container).cloned() {
            self.with(&id, turn, change);
        } else {
            self.with_process(container.as_str(), turn, change);
        }
    }

    /// Changes one task, sends what became due, lets go of it when it is over.
    fn with(
        &mut self,
        id: &TaskId,
        turn: &mut Turn<'_>,
        change: impl FnOnce(&mut Task, &mut Turn<'_>),
    ) {
        let Some(task) = self.tasks.get_mut(id) else {
            return self.with_process(id.as_str(), turn, change);
        };
        change(task, turn);
        if self.connected {
            task.send_due(turn);
        }
        let executor = task.executor().cloned();
        if task.is_over() {
            self.discard(id, turn);
        }
        if let Some(executor) = executor {
            self.tend(&executor, turn);
        }
    }
}
