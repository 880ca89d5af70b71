//! Ids of tasks that are over, so that a launch which arrives again starts nothing. Bounded: the
//! oldest are forgotten first.

use std::collections::{BTreeSet, VecDeque};

use gantry_wire::ids::TaskId;

/// How many ended tasks are remembered.
pub const HISTORY_MAX: usize = 4_096;

/// Invariant: `known` holds exactly the ids of `order`.
#[derive(Debug, Default)]
pub(crate) struct History {
    order: VecDeque<TaskId>,
    known: BTreeSet<TaskId>,
}

impl History {
    pub(crate) fn insert(&mut self, task: TaskId) {
        if !self.known.insert(task.clone()) {
            return;
        }
        self.order.push_back(task);
        if self.order.len() > HISTORY_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(crate) fn contains(&self, task: &TaskId) -> bool {
        self.known.contains(task)
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
