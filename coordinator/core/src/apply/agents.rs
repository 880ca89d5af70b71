//! Agents come, go quiet and are removed.
//!
//! A lost session changes no task: the agent may come back with all of them running. Only removal
//! ends them.

use gantry_wire::agent::Inventory;
use gantry_wire::resources::Resources;
use gantry_wire::task::{Reason, TaskState};

use super::{Apply, agent_id};
use crate::command::{OperateAgent, Operation, RegisterAgent};
use crate::outcome::{Change, Outcome, Rejection};
use crate::state::{AGENTS_MAX, Agent, Drain};

/// Attributes, lacks, roles and disks kept of an agent, each.
const NOTES_MAX: usize = 256;

fn bounded(mut inventory: Inventory) -> Inventory {
    inventory.attributes.truncate(NOTES_MAX);
    inventory.disks.truncate(NOTES_MAX);
    while inventory.reserved.len() > NOTES_MAX {
        inventory.reserved.pop_last();
    }
    inventory
}

impl Apply<'_> {
    pub(super) fn register_agent(&mut self, c: &RegisterAgent) -> Result<Outcome, Rejection> {
        let id = agent_id(&c.agent_id)?;
        if self.state.agents.is_gone(&id) {
            return Err(Rejection::AgentGone(id));
        }
        let known = self.state.agents.get(&id);
        if known.is_none() && self.state.agents.len() >= AGENTS_MAX {
            return Err(Rejection::TooMany(AGENTS_MAX));
        }
        let now = self.state.now;
        let attributes = c.attributes.iter().take(NOTES_MAX);
        let agent = Agent {
            id: id.clone(),
            hostname: c.hostname.clone(),
            http_address: c.http_address.clone(),
            resources: c
                .resources
                .as_ref()
                .map(Resources::from)
                .unwrap_or_default(),
            inventory: bounded(c.inventory.as_deref().cloned().unwrap_or_default()),
            attributes: attributes.map(|(k, v)| (k.clone(), v.clone())).collect(),
            version: c.version.clone(),
            lacks: c.lacks.iter().take(NOTES_MAX).cloned().collect(),
            active: true,
            deactivated: known.is_some_and(|a| a.deactivated),
            drain: known.and_then(|a| a.drain.clone()),
            registered_at: known.map_or(now, |a| a.registered_at),
            reregistered_at: now,
            disconnected_at: None,
        };
        self.state.agents.put(agent);
        self.changes.insert(Change::Agent(id));
        Ok(Outcome::Done)
    }

    pub(super) fn disconnect_agent(&mut self, id: &str) -> Result<Outcome, Rejection> {
        let id = agent_id(id)?;
        let agent = self
            .state
            .agents
            .get(&id)
            .ok_or(Rejection::AgentUnknown(id.clone()))?;
        if agent.active {
            let now = self.state.now;
            self.state.agents.change(&id, |agent| {
                agent.active = false;
                agent.disconnected_at = Some(now);
            });
            self.changes.insert(Change::Agent(id));
        }
        Ok(Outcome::Done)
    }

    /// A drain cannot be taken back while it goes on: its tasks have been told to end.
    pub(super) fn operate_agent(&mut self, c: &OperateAgent) -> Result<Outcome, Rejection> {
        let id = agent_id(&c.agent_id)?;
        if self.state.agents.is_gone(&id) {
            return Err(Rejection::AgentGone(id));
        }
        let agent = self.state.agents.get(&id);
        let agent = agent.ok_or(Rejection::AgentUnknown(id.clone()))?;
        let before = agent.drain.clone();
        let (deactivated, drain) = match Operation::try_from(c.operation) {
            Ok(Operation::Deactivate) => (true, before),
            Ok(Operation::Drain) => {
                let marked = before.as_ref().is_some_and(|drain| drain.mark_gone);
                let drain = Drain {
                    max_grace_ms: c.max_grace_ms,
                    mark_gone: c.mark_gone || marked,
                    since: before.map_or(self.state.now, |drain| drain.since),
                };
                (true, Some(drain))
            }
            Ok(Operation::Reactivate) => {
                if before.is_some() && !self.state.is_drained(&id) {
                    return Err(Rejection::AgentDraining(id));
                }
                (false, None)
            }
            Err(_) => return Err(Rejection::Malformed("an unknown operation".to_owned())),
        };
        self.state.agents.change(&id, |agent| {
            agent.deactivated = deactivated;
            agent.drain = drain;
        });
        self.changes.insert(Change::Agent(id));
        Ok(Outcome::Done)
    }

    pub(super) fn remove_agent(&mut self, id: &str) -> Result<Outcome, Rejection> {
        let id = agent_id(id)?;
        if self.state.agents.get(&id).is_none() {
            return Err(Rejection::AgentUnknown(id));
        }
        let tasks: Vec<_> = self
            .state
            .tasks
            .of_agent(&id)
            .map(|t| t.id.clone())
            .collect();
        let now = self.state.now;
        for task in tasks {
            self.state.tasks.change(&task, |t| {
                t.reason = Some(Reason::ReasonAgentRemoved);
                "The node was removed".clone_into(&mut t.message);
            });
            self.end_task(&task, TaskState::TaskGoneByOperator, now);
        }
        self.state.agents.remove(&id);
        self.state.agents.mark_gone(id.clone(), now);
        self.changes.insert(Change::Agent(id));
        Ok(Outcome::Done)
    }
}
