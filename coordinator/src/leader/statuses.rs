//! Status updates of all agents, collected into one command at a time: while one command is on
//! its way through consensus the next one collects, so that many tasks share one sync.
//!
//! Invariant: at most one command is on its way and at most [`STATUSES_MAX_BYTES`] (and one more
//! update) are collected; then the loop stops taking events and agents wait.

use gantry_coordinator_core::command::{AgentStatus, TaskStatuses};
use gantry_wire::agent::StatusUpdate;
use gantry_wire::ids::AgentId;
use prost::Message;

/// Bytes of updates in one command.
const STATUSES_MAX_BYTES: usize = 1 << 20;

/// An acknowledgement that is due once the command is applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ToAcknowledge {
    pub(crate) agent_id: AgentId,
    pub(crate) task_id: String,
    pub(crate) uuid: Vec<u8>,
}

/// The collected updates.
#[derive(Debug, Default)]
pub(crate) struct Statuses {
    updates: Vec<AgentStatus>,
    to_acknowledge: Vec<ToAcknowledge>,
    bytes: usize,
    /// Whether a command is on its way; the loop resets it.
    pub(crate) in_flight: bool,
}

impl Statuses {
    pub(crate) fn add(&mut self, agent_id: &AgentId, update: StatusUpdate) {
        self.bytes += update.encoded_len();
        if !update.uuid.is_empty() {
            self.to_acknowledge.push(ToAcknowledge {
                agent_id: agent_id.clone(),
                task_id: update.task_id.clone(),
                uuid: update.uuid.clone(),
            });
        }
        self.updates.push(AgentStatus {
            agent_id: agent_id.to_string(),
            status: Some(update),
        });
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= STATUSES_MAX_BYTES
    }

    /// What is collected, when it may go.
    pub(crate) fn take(&mut self) -> Option<(TaskStatuses, Vec<ToAcknowledge>)> {
        if self.in_flight || self.updates.is_empty() {
            return None;
        }
        self.in_flight = true;
        self.bytes = 0;
        let updates = std::mem::take(&mut self.updates);
        Some((
            TaskStatuses { updates },
            std::mem::take(&mut self.to_acknowledge),
        ))
    }
}
