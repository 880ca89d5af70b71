//! The allocator: frameworks state what they want, it answers with offers exactly as large as
//! needed, or says why nothing fits.
//!
//! It keeps what is free on every agent up to date from the changes of the state, in a dense
//! array, so that its work follows what changed and never the size of the cluster. Decisions that
//! are not in the state yet (a launch that was proposed) are held here under the task's id.
//! It does not know instances or versions, and it does not check anything for good: `apply` does.
//!
//! Order of choice: the agent with the smallest used share first (the larger of its CPU and memory
//! share), ties by age. Host ports are drawn by the seed.

mod ports;
pub mod refusal;
mod slots;

use std::collections::{BTreeMap, BTreeSet};

use gantry_wire::ids::{AgentId, TaskId};

pub use refusal::{Refusal, RefusalCounts};

use crate::outcome::Change;
use crate::state::{Amounts, State};
use slots::{Share, Slot};

/// The role whose resources every framework may use.
pub const ANY_ROLE: &str = "*";

/// What a framework wants of one agent, some number of times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The role that it is for.
    pub role: String,
    /// Amounts of each.
    pub each: Amounts,
    /// Host ports of each: `Some` is that one, `None` is any.
    pub ports: Vec<Option<u16>>,
}

/// A place for one of a demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Where.
    pub agent_id: AgentId,
    /// The host ports, one for each of the demand, in its order.
    pub host_ports: Vec<u16>,
}

/// What a task, or a decision about one, holds.
#[derive(Debug)]
struct Held {
    slot: usize,
    amounts: Amounts,
    ports: Vec<u16>,
}

/// The allocator. Soft state of the leader.
#[derive(Debug, Default)]
pub struct Allocator {
    slots: Vec<Slot>,
    by_id: BTreeMap<AgentId, usize>,
    /// Agents with a session by used share; what `answer` walks.
    by_share: BTreeSet<(Share, usize)>,
    held: BTreeMap<TaskId, Held>,
}

impl Allocator {
    /// With everything that the state holds.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let mut this = Self::default();
        for agent in state.agents().iter() {
            this.sync_agent(state, &agent.id);
        }
        for task in state.tasks().iter_live() {
            this.sync_task(state, &task.id, &task.agent_id);
        }
        this
    }

    /// Takes a change of the state in. Answers the agent that may have more free than before.
    pub fn note<'a>(&mut self, state: &State, change: &'a Change) -> Option<&'a AgentId> {
        match change {
            Change::Agent(id) => {
                self.sync_agent(state, id);
                Some(id)
            }
            Change::Task(task, _, agent) => self.sync_task(state, task, agent).then_some(agent),
            Change::App(_) | Change::Deployment(_) => None,
        }
    }

    /// Finds a place for one of the demand and holds it under the task's id. `None`: nothing fits.
    pub fn answer(&mut self, demand: &Demand, task: &TaskId, seed: u64) -> Option<Offer> {
        let places = self.by_share.iter().map(|(_, slot)| *slot);
        let found = places
            .into_iter()
            .find(|slot| self.slots[*slot].refuses(demand).is_none())?;
        let ports = self.slots[found].choose_ports(&demand.ports, seed);
        let agent_id = self.slots[found].id.clone();
        self.hold(task, found, demand.each, ports.clone());
        Some(Offer {
            agent_id,
            host_ports: ports,
        })
    }

    /// Whether a demand would fit on an agent now.
    #[must_use]
    pub fn fits_on(&self, demand: &Demand, agent: &AgentId) -> bool {
        let slot = self.slot_of(agent).map(|slot| &self.slots[slot]);
        slot.is_some_and(|slot| slot.active && slot.refuses(demand).is_none())
    }

    /// Why nothing fits: every agent with a session, by the first thing it lacks.
    #[must_use]
    pub fn explain(&self, demand: &Demand) -> RefusalCounts {
        let mut counts = RefusalCounts::default();
        for slot in self.slots.iter().filter(|slot| slot.active) {
            counts.asked += 1;
            if let Some(refusal) = slot.refuses(demand) {
                *counts.refused.entry(refusal).or_default() += 1;
            }
        }
        counts
    }

    /// Gives back what was held for a task; whether anything was.
    pub fn release(&mut self, task: &TaskId) -> bool {
        let Some(held) = self.held.remove(task) else {
            return false;
        };
        self.reorder(held.slot, |slot| slot.give_back(&held.amounts, &held.ports));
        true
    }

    fn slot_of(&self, agent: &AgentId) -> Option<usize> {
        self.by_id.get(agent).copied()
    }

    fn hold(&mut self, task: &TaskId, slot: usize, amounts: Amounts, ports: Vec<u16>) {
        self.reorder(slot, |slot| slot.take(&amounts, &ports));
        self.held.insert(
            task.clone(),
            Held {
                slot,
                amounts,
                ports,
            },
        );
    }

    /// Changes a slot and keeps the order by share.
    fn reorder(&mut self, at: usize, change: impl FnOnce(&mut Slot)) {
        let slot = &mut self.slots[at];
        self.by_share.remove(&(slot.share(), at));
        change(slot);
        if slot.active {
            self.by_share.insert((slot.share(), at));
        }
    }

    fn sync_agent(&mut self, state: &State, id: &AgentId) {
        let agent = state.agents().get(id);
        let slot = self.slot_of(id).or_else(|| {
            agent?;
            self.slots.push(Slot::new(id.clone()));
            self.by_id.insert(id.clone(), self.slots.len() - 1);
            Some(self.slots.len() - 1)
        });
        let Some(slot) = slot else { return };
        self.reorder(slot, |slot| match agent {
            Some(agent) => slot.update(&agent.resources, agent.takes_tasks()),
            // A removed agent keeps its slot: it may come back, and indexes must not move.
            None => slot.active = false,
        });
    }

    /// Whether the task's resources became free.
    fn sync_task(&mut self, state: &State, id: &TaskId, agent: &AgentId) -> bool {
        let Some(task) = state.tasks().live(id) else {
            return self.release(id);
        };
        if !self.held.contains_key(id)
            && let Some(slot) = self.slot_of(agent)
        {
            self.hold(id, slot, task.amounts, task.host_ports.clone());
        }
        false
    }
}

#[cfg(test)]
mod tests;
