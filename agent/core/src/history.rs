//! Ids of tasks that are over, so that a launch which arrives again starts nothing; with those that
//! were never kept, the one word about them. Bounded: the oldest are forgotten first.

use std::collections::{BTreeMap, VecDeque};

use gantry_wire::agent::StatusUpdate;
use gantry_wire::ids::TaskId;

/// How many ended tasks are remembered.
pub const HISTORY_MAX: usize = 4_096;

/// Invariant: `known` holds exactly the ids of `order`.
#[derive(Debug, Default)]
pub(crate) struct History {
    order: VecDeque<TaskId>,
    known: BTreeMap<TaskId, Option<Box<StatusUpdate>>>,
}

impl History {
    pub(crate) fn insert(&mut self, task: TaskId) {
        self.add(task, None);
    }

    /// Of a task that is not kept; nothing changes when it is known already.
    pub(crate) fn refuse(&mut self, task: TaskId, word: StatusUpdate) {
        self.add(task, Some(Box::new(word)));
    }

    fn add(&mut self, task: TaskId, word: Option<Box<StatusUpdate>>) {
        if self.known.contains_key(&task) {
            return;
        }
        self.known.insert(task.clone(), word);
        self.order.push_back(task);
        if self.order.len() > HISTORY_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(crate) fn contains(&self, task: &TaskId) -> bool {
        self.known.contains_key(task)
    }

    /// What was said when it was not kept.
    pub(crate) fn word(&self, task: &TaskId) -> Option<&StatusUpdate> {
        self.known.get(task)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_youngest() {
        let id = |n: usize| TaskId::parse(format!("t{n}")).unwrap();
        let mut history = History::default();
        for n in 0..=HISTORY_MAX {
            history.insert(id(n));
            history.insert(id(n));
        }
        assert!(!history.contains(&id(0)) && history.contains(&id(1)));
        assert!(history.contains(&id(HISTORY_MAX)));
    }
}
