//! Launches below executors of frameworks' own: which are taken, and into which executor.

use std::collections::BTreeSet;

use gantry_wire::ids::TaskId;
use gantry_wire::mesos::v1;
use gantry_wire::task::{Reason, TaskState};
use prost::Message as _;

use crate::custom::charge::Charge;
use crate::custom::{Custom, lost_or};
use crate::event::CustomLaunch;
use crate::groups::MEMBERS_MAX;
use crate::moment::Turn;
use crate::task::{Task, Wanted};
use crate::tasks::{TASKS_MAX, Tasks};
use crate::unit::ExecutorKey;

/// All that is saved of the tasks of one executor as its framework wrote it, in bytes.
const INFOS_MAX_BYTES: usize = 8 << 20;

type Refusal = (TaskState, Reason, String);

impl Tasks {
    pub(crate) fn launch_custom(&mut self, order: CustomLaunch, turn: &mut Turn<'_>) {
        if order.tasks.iter().any(|(id, _)| self.is_live(id)) {
            return;
        }
        let known = |(id, _): &&(TaskId, v1::TaskInfo)| self.history.contains(id);
        let over = order.tasks.iter().filter(known).count();
        if over == order.tasks.len() {
            return self.answer_again(order.tasks.iter().map(|(id, _)| id), turn);
        }
        let refusal = if over > 0 {
            let message = "A task launched with it was killed before it was launched".to_owned();
            let reason = Reason::ReasonTaskKilledDuringLaunch;
            Err((TaskState::TaskKilled, reason, message))
        } else {
            self.admit_custom(&order)
        };
        let Err((state, reason, message)) = refusal else {
            return self.accept_custom(order, turn);
        };
        for (id, _) in &order.tasks {
            self.answer(id, state, reason, message.clone(), turn);
        }
    }

    /// Whether the id is taken by something that is not over.
    pub(crate) fn is_live(&self, id: &TaskId) -> bool {
        self.tasks.contains_key(id)
            || self.charges.contains_key(id)
            || self.processes.contains_key(id.as_str())
    }

    fn admit_custom(&self, order: &CustomLaunch) -> Result<(), Refusal> {
        let invalid = |message: &str| {
            let reason = if order.group {
                Reason::ReasonTaskGroupInvalid
            } else {
                Reason::ReasonTaskInvalid
            };
            Err((TaskState::TaskError, reason, message.to_owned()))
        };
        let dropped = lost_or(&order.framework, TaskState::TaskDropped);
        let full = |message: String| {
            let reason = Reason::ReasonContainerLaunchFailed;
            Err((dropped, reason, message))
        };
        let ids: BTreeSet<_> = order.tasks.iter().map(|(id, _)| id).collect();
        if ids.len() < order.tasks.len() {
            return invalid("A task is there twice");
        }
        if self.tasks.len() + self.charges.len() + ids.len() > TASKS_MAX {
            return full(format!("The node already has {TASKS_MAX} tasks"));
        }
        if self.executors.contains_key(&order.executor) {
            return invalid("The executor runs already and is not what is asked for");
        }
        let custom = self.customs.get(&order.executor);
        let before = custom.map_or(0, |custom| custom.charges.len());
        if before + ids.len() > MEMBERS_MAX {
            return full(format!("An executor has {MEMBERS_MAX} tasks at most"));
        }
        let before = custom
            .into_iter()
            .flat_map(|custom| custom.charges.values());
        let infos = before.map(|charge: &Charge| &charge.info);
        let infos = infos.chain(order.tasks.iter().map(|(_, info)| info));
        if infos.map(v1::TaskInfo::encoded_len).sum::<usize>() > INFOS_MAX_BYTES {
            return full(format!(
                "The tasks of an executor are at most {INFOS_MAX_BYTES} bytes long together"
            ));
        }
        let Some(custom) = custom else {
            return Ok(());
        };
        if custom.is_closing() {
            let message = format!("The executor {} is ending", order.executor);
            return Err((dropped, Reason::ReasonExecutorTerminated, message));
        }
        if custom.info != order.info {
            return invalid("The executor runs already and is not what is asked for");
        }
        if order.tasks.iter().any(|(_, info)| wants_gpus(info)) {
            return invalid("An executor gets graphics processors when it is started, not later");
        }
        Ok(())
    }

    fn accept_custom(&mut self, order: CustomLaunch, turn: &mut Turn<'_>) {
        let key = order.executor.clone();
        let ids: Vec<TaskId> = order.tasks.iter().map(|(id, _)| id.clone()).collect();
        if let Some(custom) = self.customs.get_mut(&key) {
            custom.take(order.tasks, order.group);
            custom.save(true, turn);
        } else {
            let gpus = self.assign_gpus(&order.process, &[]);
            let Ok(id) = TaskId::parse(order.container.as_str()) else {
                return;
            };
            let wanted = Wanted {
                id,
                launch: order.process,
                executor: None,
                container: order.container,
                sandbox: order.sandbox,
                process: Some(key.clone()),
            };
            let process = Task::accept(wanted, gpus, turn);
            let infos = (order.framework, order.info);
            let mut custom = Custom::new(key.clone(), infos, process, self.times);
            custom.take(order.tasks, order.group);
            custom.process.resize(custom.resources());
            self.insert_custom(custom);
        }
        for id in ids {
            self.charges.insert(id, key.clone());
        }
        self.tend_custom(&key, turn);
    }

    /// Whether the place of an executor is taken by one of another kind.
    pub(crate) fn is_custom(&self, key: &ExecutorKey) -> bool {
        self.customs.contains_key(key)
    }
}

fn wants_gpus(info: &v1::TaskInfo) -> bool {
    let gpus = |resource: &&v1::Resource| resource.name == "gpus";
    info.resources.iter().any(|resource| gpus(&resource))
}
