//! Tasks that share an executor, and groups among them: what one's end means for the others.
//!
//! A group is accepted whole or refused whole, and started whole: a member waits, Ready, until every
//! other one is and the executor's container runs. One that cannot be made ready fails all of them
//! for its reason; one that fails or is killed later has the rest of its own group killed, each with
//! its own grace; one that finishes changes nothing (Mesos: `src/launcher/default_executor.cpp`).
//! When the executor's container ends, so do all tasks below it, whatever their group.
//!
//! A single task's life is `task`'s, the container's is `executor`'s.

use std::collections::{BTreeMap, BTreeSet};

use gantry_wire::agent::{NetworkMode, PortMapping, StatusUpdate};
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::task::{Reason, TaskState};

use crate::action::Action;
use crate::ending::{Ending, Verdict};
use crate::event::{GroupLaunch, Member, Seen};
use crate::executor::{Executor, Phase};
use crate::moment::Turn;
use crate::task::{Phase as TaskPhase, Task, Wanted};
use crate::tasks::{TASKS_MAX, Tasks};
use crate::unit::ExecutorKey;

/// Most tasks below one executor at a time: they are saved together.
pub const MEMBERS_MAX: usize = 256;

/// What is said of every task of a group that is not taken.
type Refusal = (TaskState, Reason, String);

impl Tasks {
    pub(crate) fn launch_group(&mut self, group: GroupLaunch, turn: &mut Turn<'_>) {
        let lives = |member: &Member| self.is_live(&member.task);
        if group.members.iter().any(lives) {
            return;
        }
        let known = |member: &&Member| self.history.contains(&member.task);
        let over = group.members.iter().filter(known).count();
        if over == group.members.len() {
            return self.answer_again(group.members.iter().map(|member| &member.task), turn);
        }
        let refusal = if over > 0 {
            let message = "A task of its group was killed before it was launched".to_owned();
            let reason = Reason::ReasonTaskKilledDuringLaunch;
            Err((TaskState::TaskKilled, reason, message))
        } else {
            self.admit(&group)
        };
        match refusal {
            Ok(()) => self.accept_group(group, turn),
            Err(refusal) => self.refuse_group(&group, &refusal, turn),
        }
    }

    fn refuse_group(&mut self, group: &GroupLaunch, refusal: &Refusal, turn: &mut Turn<'_>) {
        let (state, reason, message) = refusal;
        for member in &group.members {
            self.answer(&member.task, *state, *reason, message.clone(), turn);
        }
    }

    fn admit(&self, group: &GroupLaunch) -> Result<(), Refusal> {
        let invalid = |message: &str| {
            let reason = Reason::ReasonTaskGroupInvalid;
            Err((TaskState::TaskError, reason, message.to_owned()))
        };
        let full = |message: String| {
            let reason = Reason::ReasonContainerLaunchFailed;
            Err((TaskState::TaskDropped, reason, message))
        };
        let ids: BTreeSet<_> = group.members.iter().map(|member| &member.task).collect();
        if ids.len() < group.members.len() {
            return invalid("A task is twice in its group");
        }
        if self.is_custom(&group.executor) {
            return invalid("The executor runs already and is not what is asked for");
        }
        if self.tasks.len() + self.charges.len() + ids.len() > TASKS_MAX {
            return full(format!("The node already has {} tasks", self.tasks.len()));
        }
        let executor = self.executors.get(&group.executor);
        let before = executor.map_or(0, |executor| executor.tasks.len());
        if before + ids.len() > MEMBERS_MAX {
            return full(format!("An executor has {MEMBERS_MAX} tasks at most"));
        }
        let Some(executor) = executor else {
            return Ok(());
        };
        if executor.is_closing() {
            let message = format!("The executor {} is ending", group.executor);
            let reason = Reason::ReasonExecutorTerminated;
            return Err((TaskState::TaskDropped, reason, message));
        }
        if *executor.info() != group.info {
            return invalid("The executor runs already and is not what is asked for");
        }
        if group.info.network == NetworkMode::Bridge as i32 && !ports(group).is_empty() {
            return invalid("The network of the executor is there already, without these ports");
        }
        Ok(())
    }

    fn accept_group(&mut self, group: GroupLaunch, turn: &mut Turn<'_>) {
        let key = group.executor.clone();
        let mut taken = Vec::new();
        let mut assigned = Vec::new();
        for member in &group.members {
            let gpus = self.assign_gpus(&member.launch, &taken);
            taken.extend(gpus.iter().flatten().cloned());
            assigned.push(gpus);
        }
        if !self.executors.contains_key(&key) {
            let ports = ports(&group);
            let mut executor = Executor::new(
                key.clone(),
                group.info,
                ports,
                group.container,
                group.sandbox,
            );
            executor.save(true, turn);
            executor.begin(turn);
            self.insert_executor(key.clone(), executor);
        }
        let Some(executor) = self.executors.get_mut(&key) else {
            return;
        };
        let number = executor.next_group();
        for (member, gpus) in group.members.into_iter().zip(assigned) {
            let executor = self.executors.get_mut(&key);
            executor.map(|executor| executor.tasks.insert(member.task.clone(), number));
            let wanted = Wanted {
                id: member.task,
                launch: member.launch,
                executor: Some(key.clone()),
                container: member.container,
                sandbox: member.sandbox,
                process: None,
            };
            self.insert(Task::accept(wanted, gpus, turn));
        }
        self.tend(&key, turn);
    }

    pub(crate) fn insert_executor(&mut self, key: ExecutorKey, executor: Executor) {
        let container = executor.view().container.clone();
        self.roots.insert(container, key.clone());
        self.executors.insert(key, executor);
    }

    pub(crate) fn shutdown_executor(
        &mut self,
        key: &ExecutorKey,
        grace_ms: Option<u64>,
        turn: &mut Turn<'_>,
    ) {
        for id in self.members(key) {
            if let Some(task) = self.tasks.get_mut(&id) {
                let own_ms = task.view().launch.kill_grace_ms;
                task.kill(grace_ms.unwrap_or(own_ms), turn);
            }
        }
        self.tend(key, turn);
        self.with_custom(key, turn, |custom, turn| custom.close(grace_ms, turn));
    }

    /// Its network or its container could not be made.
    pub(crate) fn executor_failed(&mut self, key: &ExecutorKey, cause: &str, turn: &mut Turn<'_>) {
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        if !matches!(executor.phase, Phase::Attaching | Phase::Starting) {
            return;
        }
        executor.end(turn);
        for id in self.members(key) {
            if let Some(task) = self.tasks.get_mut(&id).filter(|task| task.is_unstarted()) {
                task.launch_failed(cause, turn);
            }
        }
        self.tend(key, turn);
    }

    pub(crate) fn with_executor(
        &mut self,
        key: &ExecutorKey,
        turn: &mut Turn<'_>,
        change: impl FnOnce(&mut Executor, &mut Turn<'_>),
    ) {
        if let Some(executor) = self.executors.get_mut(key) {
            change(executor, turn);
            self.tend(key, turn);
        }
    }

    pub(crate) fn tick_executors(&mut self, turn: &mut Turn<'_>) {
        for key in self.executors.due(turn.now.uptime_ms) {
            self.with_executor(&key, turn, Executor::tick);
        }
    }

    /// After every task became what the keeper says of it. What is an executor's is taken out of
    /// `containers`.
    pub(crate) fn reconcile_executors(
        &mut self,
        containers: &mut BTreeMap<ContainerId, Seen>,
        turn: &mut Turn<'_>,
    ) {
        let keys: Vec<ExecutorKey> = self.executors.keys().cloned().collect();
        for key in keys {
            self.break_groups(&key, turn);
            let members = self.members(&key);
            let tasks = || members.iter().filter_map(|id| self.tasks.get(id));
            // A container in place of one that was lost serves only tasks that were not in that.
            let runs = |task: &Task| matches!(task.phase, TaskPhase::Starting | TaskPhase::Running);
            let needed = tasks().any(Task::is_unstarted) && !tasks().any(runs);
            let Some(executor) = self.executors.get_mut(&key) else {
                continue;
            };
            let seen = containers.remove(executor.view().container);
            executor.reconcile(seen, needed, turn);
            self.tend(&key, turn);
        }
    }

    /// Draws the conclusions from whatever changed at an executor or at one of its tasks.
    pub(crate) fn tend(&mut self, key: &ExecutorKey, turn: &mut Turn<'_>) {
        self.break_groups(key, turn);
        match self.executors.get(key).map(|executor| executor.phase) {
            None => return,
            Some(Phase::Running) => self.start_groups(key, turn),
            Some(Phase::Ended) => self.end_with_executor(key, turn),
            Some(Phase::Accepted | Phase::Attaching | Phase::Starting) => {}
        }
        let members = self.members(key);
        if self.connected {
            for id in &members {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.send_due(turn);
                }
            }
        }
        let tasks = members.iter().filter_map(|id| self.tasks.get(id));
        let lives = tasks.into_iter().any(|task| task.phase != TaskPhase::Ended);
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        executor.look_after(lives, turn);
        if executor.phase == Phase::Ended && members.is_empty() {
            let container = executor.view().container.clone();
            self.roots.remove(&container);
            self.executors.remove(key);
            turn.act(Action::DiscardExecutor {
                executor: key.clone(),
                container,
            });
        }
    }

    fn members(&self, key: &ExecutorKey) -> Vec<TaskId> {
        let executor = self.executors.get(key);
        let tasks = executor
            .into_iter()
            .flat_map(|executor| executor.tasks.keys());
        tasks.cloned().collect()
    }

    /// By the number of the group.
    fn groups(&self, key: &ExecutorKey) -> BTreeMap<u32, Vec<TaskId>> {
        let mut groups: BTreeMap<u32, Vec<TaskId>> = BTreeMap::new();
        let executor = self.executors.get(key);
        for (id, number) in executor.into_iter().flat_map(|executor| &executor.tasks) {
            groups.entry(*number).or_default().push(id.clone());
        }
        groups
    }

    /// Ends the rest of each group of which a task ended badly. That ending still waits to be
    /// acknowledged: what followed from it was decided in the same step, and saved with it.
    fn break_groups(&mut self, key: &ExecutorKey, turn: &mut Turn<'_>) {
        for members in self.groups(key).into_values() {
            let bad = |id: &TaskId| {
                let ending = self.tasks.get(id)?.ending()?;
                (ending.state != TaskState::TaskFinished as i32)
                    .then(|| (id.clone(), ending.clone()))
            };
            let Some((culprit, ending)) = members.iter().find_map(bad) else {
                continue;
            };
            for id in &members {
                if let Some(task) = self.tasks.get_mut(id) {
                    end_after(task, &culprit, &ending, turn);
                }
            }
        }
    }

    fn start_groups(&mut self, key: &ExecutorKey, turn: &mut Turn<'_>) {
        let Some(executor) = self.executors.get(key) else {
            return;
        };
        let ip = executor.view().ip.to_owned();
        for members in self.groups(key).into_values() {
            let waits = |task: &Task| task.is_unstarted() && task.phase != TaskPhase::Ready;
            if members
                .iter()
                .filter_map(|id| self.tasks.get(id))
                .any(waits)
            {
                continue;
            }
            for id in &members {
                if let Some(task) = self.tasks.get_mut(id)
                    && task.phase == TaskPhase::Ready
                {
                    task.start_in(&ip, self.keeper, turn);
                }
            }
        }
    }

    fn end_with_executor(&mut self, key: &ExecutorKey, turn: &mut Turn<'_>) {
        for id in self.members(key) {
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            if task.is_unstarted() {
                let reason = Reason::ReasonExecutorTerminated;
                let message = "Its executor ended before it was started".to_owned();
                task.end(
                    &Ending::without_exit(TaskState::TaskFailed, reason, message),
                    turn,
                );
            } else {
                task.condemn(Verdict::ExecutorGone, turn);
            }
        }
    }
}

/// What becomes of a task whose group has come to a bad end by `culprit`.
fn end_after(task: &mut Task, culprit: &TaskId, ending: &StatusUpdate, turn: &mut Turn<'_>) {
    if task.phase == TaskPhase::Ended || task.is_dying() {
        return;
    }
    let never_ran = ending.pid == 0 && ending.state != TaskState::TaskKilled as i32;
    if never_ran && task.is_unstarted() {
        task.fail_as(ending, turn);
    } else {
        task.kill_for(culprit, turn);
    }
}

/// What the network of a group's executor has to map.
fn ports(group: &GroupLaunch) -> Vec<PortMapping> {
    let all = group.members.iter().flat_map(|member| &member.launch.ports);
    all.filter(|port| port.host_port != 0).cloned().collect()
}
