//! Kill decisions, of clients and of the scheduler: they mark tasks; the scheduler sends the kills
//! until the tasks have ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_wire::ids::{AppId, TaskId};
use gantry_wire::task::TaskState;

use super::apps::NewDefinition;
use super::{Apply, deployment_id};
use crate::command::{Kill, KillReason, KillTasks};
use crate::outcome::{Outcome, Rejection};
use crate::service::rolling::{self, Situation};
use crate::state::Killing;

impl Apply<'_> {
    /// Decisions of the scheduler, each checked again: instances may have failed meanwhile, so that
    /// one more would break the promised capacity.
    pub(super) fn kill(&mut self, c: &Kill) -> Outcome {
        let reason = KillReason::try_from(c.reason).unwrap_or(KillReason::Requested);
        let mut killing = Vec::new();
        for id in self.live_tasks(&c.task_ids) {
            if self.may_kill(&id, reason) {
                killing.extend(self.mark(&[id], reason));
            }
        }
        Outcome::Killing(killing)
    }

    fn may_kill(&self, id: &TaskId, reason: KillReason) -> bool {
        let Some(task) = self.state.tasks.live(id).filter(|t| t.killing.is_none()) else {
            return false;
        };
        let Some(record) = self.state.apps.get(&task.app_id) else {
            return true;
        };
        let moves = rolling::decide(&Situation::of(self.state, record));
        let old = task.config_version != record.config_version;
        match reason {
            KillReason::Requested => true,
            KillReason::Overdue => task.state == TaskState::TaskStaging,
            KillReason::ScaledDown => !old && moves.kill_surplus > 0,
            KillReason::Replaced | KillReason::AppDeleted => {
                let running = task.state == TaskState::TaskRunning;
                old && (!running || moves.kill_old_running > 0)
            }
        }
    }

    pub(super) fn kill_tasks(&mut self, c: &KillTasks) -> Result<Outcome, Rejection> {
        let tasks = self.live_tasks(&c.task_ids);
        if !c.scale {
            return Ok(Outcome::Killing(self.mark(&tasks, KillReason::Requested)));
        }
        let mut fewer: BTreeMap<AppId, u32> = BTreeMap::new();
        for id in &tasks {
            let Some(task) = self.state.tasks.live(id) else {
                continue;
            };
            // One that is being scaled away already does not count again.
            let counts = task
                .killing
                .is_none_or(|k| k.reason == KillReason::Requested);
            *fewer.entry(task.app_id.clone()).or_default() += u32::from(counts);
        }
        let mut definitions = Vec::new();
        for (app, count) in fewer {
            let Some(record) = self.state.apps.get(&app) else {
                continue;
            };
            let mut spec = (*record.spec).clone();
            spec.instances = spec.instances.saturating_sub(count);
            definitions.push(NewDefinition {
                spec: Arc::new(spec),
                restart: false,
            });
        }
        let outcome = if definitions.is_empty() {
            None
        } else {
            Some(self.define(definitions, c.force, deployment_id(&c.deployment_id)?)?)
        };
        let killing = self.mark(&tasks, KillReason::ScaledDown);
        Ok(outcome.unwrap_or(Outcome::Killing(killing)))
    }

    fn live_tasks(&self, ids: &[String]) -> Vec<TaskId> {
        let parsed = ids.iter().filter_map(|id| TaskId::parse(id.as_str()).ok());
        parsed
            .filter(|id| self.state.tasks.live(id).is_some())
            .collect()
    }

    /// Marks live tasks; the ids of all that are being killed now.
    fn mark(&mut self, tasks: &[TaskId], reason: KillReason) -> Vec<TaskId> {
        let now = self.state.now;
        for id in tasks {
            self.state.tasks.change(id, |task| {
                task.killing.get_or_insert(Killing { since: now, reason });
            });
            let Some(task) = self.state.tasks.live(id) else {
                continue;
            };
            let (app, agent) = (task.app_id.clone(), task.agent_id.clone());
            self.touch_task(id, &app, &agent);
        }
        tasks.to_vec()
    }
}
