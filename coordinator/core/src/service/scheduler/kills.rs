//! Sends kills until the tasks have ended (Marathon: `core/task/termination/KillService.scala`).
//!
//! A kill is decided elsewhere and lies in the state; this only repeats it. Agents without a
//! session are left out: their registration asks again.

use std::collections::{BTreeMap, BTreeSet};

use gantry_wire::agent::Kill;
use gantry_wire::ids::TaskId;
use gantry_wire::time::Millis;

use super::Action;
use crate::state::{State, Task};

/// Pause between two sendings of the same kill.
const REPEAT_MS: u64 = 10_000;

/// Tasks that are being killed.
#[derive(Debug, Default)]
pub(super) struct Kills {
    next_of: BTreeMap<TaskId, Millis>,
    order: BTreeSet<(Millis, TaskId)>,
}

impl Kills {
    /// Takes a live task in, if it is to be killed.
    pub(super) fn note(&mut self, task: &Task) {
        if task.killing.is_some() && !self.next_of.contains_key(&task.id) {
            self.set(task.id.clone(), Millis(0));
        }
    }

    pub(super) fn forget(&mut self, id: &TaskId) {
        if let Some(at) = self.next_of.remove(id) {
            self.order.remove(&(at, id.clone()));
        }
    }

    fn set(&mut self, id: TaskId, at: Millis) {
        self.forget(&id);
        self.order.insert((at, id.clone()));
        self.next_of.insert(id, at);
    }

    /// Sends what is due.
    pub(super) fn send(&mut self, state: &State, now: Millis, actions: &mut Vec<Action>) {
        while let Some((at, id)) = self.order.first().cloned() {
            if at > now {
                return;
            }
            let Some(task) = state.tasks().live(&id) else {
                self.forget(&id);
                continue;
            };
            self.set(id, now.plus_ms(REPEAT_MS));
            if state
                .agent(&task.agent_id)
                .is_some_and(|agent| agent.active)
            {
                actions.push(message(task));
            }
        }
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Millis> {
        self.order.first().map(|(at, _)| *at)
    }
}

/// The kill of a task.
pub(super) fn message(task: &Task) -> Action {
    let kill = Kill {
        task_id: task.id.to_string(),
        grace_ms: task.kill_grace_ms,
    };
    Action::SendKill {
        agent_id: task.agent_id.clone(),
        kill,
    }
}
