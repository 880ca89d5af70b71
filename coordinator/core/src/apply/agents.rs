//! Agents come, go quiet and are removed.
//!
//! A lost session changes no task: the agent may come back with all of them running. Only removal
//! ends them.

use gantry_wire::resources::Resources;
use gantry_wire::task::{Reason, TaskState};

use super::{Apply, agent_id};
use crate::command::RegisterAgent;
use crate::outcome::{Change, Outcome, Rejection};
use crate::state::{AGENTS_MAX, Agent};

/// Attributes and lacks kept of an agent, each.
const NOTES_MAX: usize = 256;

impl Apply<'_> {
    pub(super) fn register_agent(&mut self, c: &RegisterAgent) -> Result<Outcome, Rejection> {
        let id = agent_id(&c.agent_id)?;
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
            attributes: attributes.map(|(k, v)| (k.clone(), v.clone())).collect(),
            version: c.version.clone(),
            lacks: c.lacks.iter().take(NOTES_MAX).cloned().collect(),
            active: true,
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
        self.changes.insert(Change::Agent(id));
        Ok(Outcome::Done)
    }
}
