//! Executors of frameworks' own among the tasks: which launch is taken, what their calls come to,
//! what is drawn from whatever changed at one.
//!
//! Tasks are given to an executor when it has subscribed and its container may use what they need.
//! One that ends takes its tasks with it, each for the reason of that end; one whose tasks were all
//! killed before it heard of any is shut down. (Mesos: `src/slave/slave.cpp`.)
//!
//! A single executor's state is `custom`'s, a task's `charge`'s.

mod calls;
mod launch;

use std::collections::BTreeMap;

use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::mesos::v1;
use gantry_wire::mesos::v1::executor::{Event, event};
use gantry_wire::task::{Reason, TaskState};

pub use calls::{STATUS_MAX_BYTES, UpdateRefusal, WAITING_MAX_BYTES};

use crate::action::Action;
use crate::custom::charge::Charge;
use crate::custom::saved::{ChargeStage, Doom};
use crate::custom::{Custom, CustomView, Link, plain};
use crate::event::{KeeperId, Seen};
use crate::moment::Turn;
use crate::recovery;
use crate::task::{Phase, Task, TaskView};
use crate::tasks::Tasks;
use crate::unit::ExecutorKey;

impl Tasks {
    /// An executor of a framework's own.
    #[must_use]
    pub fn custom(&self, key: &ExecutorKey) -> Option<CustomView<'_>> {
        self.customs.get(key).map(Custom::view)
    }

    /// Every executor of a framework's own, by name.
    pub fn customs(&self) -> impl Iterator<Item = CustomView<'_>> {
        self.customs.values().map(Custom::view)
    }

    /// The executor that this is the process of.
    #[must_use]
    pub fn custom_of(&self, process: &TaskId) -> Option<CustomView<'_>> {
        self.custom(self.processes.get(process.as_str())?)
    }

    /// Everything that has a container of its own: tasks, and processes of executors.
    pub fn containers(&self) -> impl Iterator<Item = (&TaskId, TaskView<'_>)> {
        let processes = self.customs.values().map(|custom| &custom.process);
        let all = self.tasks.values().chain(processes);
        all.map(|task| (task.id(), task.view()))
    }

    pub(crate) fn insert_custom(&mut self, custom: Custom) {
        let key = custom.key.clone();
        self.processes
            .insert(custom.container().to_string(), key.clone());
        for id in custom.charges.keys() {
            self.charges.insert(id.clone(), key.clone());
        }
        self.customs.insert(key, custom);
    }

    pub(crate) fn charge(&self, id: &TaskId) -> Option<(&Custom, &Charge)> {
        let custom = self.customs.get(self.charges.get(id)?)?;
        Some((custom, custom.charges.get(id)?))
    }

    pub(crate) fn with_custom(
        &mut self,
        key: &ExecutorKey,
        turn: &mut Turn<'_>,
        change: impl FnOnce(&mut Custom, &mut Turn<'_>),
    ) {
        if let Some(custom) = self.customs.get_mut(key) {
            change(custom, turn);
            self.tend_custom(key, turn);
        }
    }

    /// Changes the process of an executor, if that is what `id` names; whether it does.
    pub(crate) fn with_process(
        &mut self,
        id: &str,
        turn: &mut Turn<'_>,
        change: impl FnOnce(&mut Task, &mut Turn<'_>),
    ) {
        if let Some(key) = self.processes.get(id).cloned() {
            self.with_custom(&key, turn, |custom, turn| change(&mut custom.process, turn));
        }
    }

    pub(crate) fn acknowledge_charge(&mut self, id: &TaskId, uuid: &[u8], turn: &mut Turn<'_>) {
        let Some(key) = self.charges.get(id).cloned() else {
            return;
        };
        self.with_custom(&key, turn, |custom, turn| {
            let charge = custom.charges.get_mut(id);
            if charge.is_some_and(|charge| charge.acknowledged(uuid)) {
                custom.save(false, turn);
            }
        });
    }

    pub(crate) fn kill_charge(&mut self, id: &TaskId, grace_ms: u64, turn: &mut Turn<'_>) {
        let Some(key) = self.charges.get(id).cloned() else {
            return;
        };
        self.with_custom(&key, turn, |custom, turn| {
            let Some(charge) = custom.charges.get_mut(id) else {
                return;
            };
            match charge.stage {
                ChargeStage::Queued => kill_queued(custom, id, turn),
                ChargeStage::Given => {
                    charge.kill_grace_ms = Some(grace_ms);
                    custom.save(false, turn);
                    custom.say(kill_event(id, grace_ms), turn);
                }
                ChargeStage::Ended => {}
            }
        });
    }

    pub(crate) fn tick_customs(&mut self, turn: &mut Turn<'_>) {
        for key in self.customs.due(turn.now.uptime_ms) {
            self.with_custom(&key, turn, Custom::tick);
        }
    }

    pub(crate) fn reconcile_customs(
        &mut self,
        keeper: KeeperId,
        containers: &mut BTreeMap<ContainerId, Seen>,
        turn: &mut Turn<'_>,
    ) {
        let keys: Vec<ExecutorKey> = self.customs.keys().cloned().collect();
        for key in keys {
            self.with_custom(&key, turn, |custom, turn| {
                recovery::reconcile(&mut custom.process, keeper, containers, turn);
                // As it came from the disk.
                let found = custom.link == (Link::Awaited { until_ms: None });
                let ran = custom.process.phase == Phase::Running;
                if found && ran && custom.subscribed && !custom.framework.checkpoint() {
                    custom.doom(Doom::NotKept, turn);
                }
            });
        }
    }

    /// Draws the conclusions from whatever changed at an executor or at one of its tasks.
    pub(crate) fn tend_custom(&mut self, key: &ExecutorKey, turn: &mut Turn<'_>) {
        let Some(custom) = self.customs.get_mut(key) else {
            return;
        };
        if custom.process.phase == Phase::Ended {
            conclude(custom, turn);
        } else {
            custom.await_link(turn.now.uptime_ms);
            give(custom, turn);
            let queue = custom.charges.values().any(Charge::lives);
            if !queue && !custom.entrusted && !custom.is_closing() {
                custom.close(None, turn);
            }
        }
        // It may have ended just now.
        if custom.process.phase == Phase::Ended {
            conclude(custom, turn);
        }
        if self.connected {
            for charge in custom.charges.values_mut() {
                charge.send_due(turn);
            }
        }
        let over = custom.charges.values().filter(|charge| charge.is_over());
        let over: Vec<TaskId> = over.map(|charge| charge.id.clone()).collect();
        for id in &over {
            custom.charges.remove(id);
            self.charges.remove(id);
            self.history.insert(id.clone());
        }
        if custom.process.phase == Phase::Ended && custom.charges.is_empty() {
            let container = custom.container().clone();
            self.processes.remove(container.as_str());
            self.customs.remove(key);
            turn.act(Action::DiscardExecutor {
                executor: key.clone(),
                container,
            });
        } else if !over.is_empty() {
            custom.save(false, turn);
        }
    }
}

/// Gives the executor what waits for it, once its container may use as much.
pub(crate) fn give(custom: &mut Custom, turn: &mut Turn<'_>) {
    let waits = |charge: &&Charge| charge.stage == ChargeStage::Queued;
    let any = custom.charges.values().any(|charge| waits(&charge));
    if !any || custom.link != Link::Up || custom.resizing || custom.is_closing() {
        return;
    }
    if resize(custom, turn) {
        custom.resizing = true;
        return;
    }
    custom.entrusted = true;
    let mut queue: Vec<&mut Charge> = custom.charges.values_mut().collect();
    queue.retain(|charge| charge.stage == ChargeStage::Queued);
    queue.sort_by_key(|charge| charge.order);
    let mut events: Vec<(Option<u64>, Vec<v1::TaskInfo>)> = Vec::new();
    for charge in queue {
        charge.stage = ChargeStage::Given;
        match events.last_mut() {
            Some((group, tasks)) if group.is_some() && *group == charge.group => {
                tasks.push(charge.info.clone());
            }
            _ => events.push((charge.group, vec![charge.info.clone()])),
        }
    }
    // Before the executor hears of them: it must not do so twice.
    custom.save(false, turn);
    for (group, tasks) in events {
        custom.say(launch_event(group.is_some(), tasks), turn);
    }
}

/// Asks for the container to be what its tasks need; whether it was something else.
fn resize(custom: &mut Custom, turn: &mut Turn<'_>) -> bool {
    let news = custom.process.resize(custom.resources());
    if news {
        turn.act(Action::Resize {
            executor: custom.key.clone(),
        });
    }
    news
}

/// After a task ended: the container needs less.
fn shrink(custom: &mut Custom, turn: &mut Turn<'_>) {
    let waits = custom
        .charges
        .values()
        .any(|it| it.stage == ChargeStage::Queued);
    if !waits && custom.process.phase == Phase::Running {
        resize(custom, turn);
    }
}

/// What was queued with a task that is killed does not go either.
fn kill_queued(custom: &mut Custom, id: &TaskId, turn: &mut Turn<'_>) {
    let process = custom.process.view();
    let group = custom.charges.get(id).and_then(|charge| charge.group);
    for charge in custom.charges.values_mut() {
        let same = group.is_some() && charge.group == group;
        if charge.stage == ChargeStage::Queued && (charge.id == *id || same) {
            let words = "Killed before it was given to its executor";
            let reason = Reason::ReasonTaskKilledDuringLaunch;
            charge.end((TaskState::TaskKilled, reason, words), process, turn);
        }
    }
    custom.save(true, turn);
}

/// The end of the process is that of its tasks; said once.
fn conclude(custom: &mut Custom, turn: &mut Turn<'_>) {
    if std::mem::replace(&mut custom.concluded, true) {
        return;
    }
    custom.link = Link::Down;
    let (state, reason, message) = custom.legacy();
    let process = custom.process.view();
    for charge in custom.charges.values_mut().filter(|charge| charge.lives()) {
        charge.end((state, reason, &message), process, turn);
    }
    custom.save(true, turn);
    let status = custom.process.process.as_ref().and_then(|it| it.status);
    turn.act(Action::TellEnded {
        executor: custom.key.clone(),
        status: status.unwrap_or(-1),
    });
}

fn launch_event(group: bool, mut tasks: Vec<v1::TaskInfo>) -> Event {
    if group {
        let task_group = v1::TaskGroupInfo { tasks };
        return Event {
            launch_group: Some(event::LaunchGroup { task_group }),
            ..plain(event::Type::LaunchGroup)
        };
    }
    let task = tasks.pop().unwrap_or_default();
    Event {
        launch: Some(event::Launch { task }.into()),
        ..plain(event::Type::Launch)
    }
}

pub(crate) fn kill_event(id: &TaskId, grace_ms: u64) -> Event {
    let nanoseconds = i64::try_from(grace_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    let kill_policy = v1::KillPolicy {
        grace_period: Some(v1::DurationInfo { nanoseconds }),
    };
    Event {
        kill: Some(event::Kill {
            task_id: id.into(),
            kill_policy: Some(kill_policy),
        }),
        ..plain(event::Type::Kill)
    }
}
