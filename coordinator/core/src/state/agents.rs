//! Agents and what their live tasks hold.
//!
//! It does not decide who gets what. Invariants: `used` never exceeds what the agent had when the
//! tasks were launched ([`Agents::take`] refuses); a host port is held by one task at most.
//! An agent that comes back with fewer resources may hold more than it has: nothing new fits then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_wire::agent::Inventory;
use gantry_wire::ids::AgentId;
use gantry_wire::resources::Resources;
use gantry_wire::time::Millis;
use imbl::OrdMap;

use crate::alloc::Refusal;

/// Agents that are remembered as gone (Mesos's `registry_max_agent_count`).
const GONE_MAX: usize = 102_400;

/// The scalar amounts of [`Resources`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpus_milli: u64,
    /// Bytes of memory.
    pub mem_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// Whole GPUs.
    pub gpus: u64,
}

impl Amounts {
    /// Of resources, leaving the ports out.
    #[must_use]
    pub fn of(resources: &Resources) -> Self {
        Self {
            cpus_milli: resources.cpus.0,
            mem_bytes: resources.mem.0,
            disk_bytes: resources.disk.0,
            gpus: resources.gpus,
        }
    }

    /// Sum, saturating.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            cpus_milli: self.cpus_milli.saturating_add(other.cpus_milli),
            mem_bytes: self.mem_bytes.saturating_add(other.mem_bytes),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }

    /// Difference, zero where there is not enough.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            cpus_milli: self.cpus_milli.saturating_sub(other.cpus_milli),
            mem_bytes: self.mem_bytes.saturating_sub(other.mem_bytes),
            disk_bytes: self.disk_bytes.saturating_sub(other.disk_bytes),
            gpus: self.gpus.saturating_sub(other.gpus),
        }
    }

    /// With these in use of `total`: the first thing, in funnel order, that is not there for
    /// `want`. Of what is not wanted, more may be in use than there is (an agent that came back
    /// smaller).
    #[must_use]
    pub fn lacking(&self, want: &Self, total: &Self) -> Option<Refusal> {
        let after = self.plus(want);
        let lacks = |want: u64, after: u64, total: u64| want > 0 && after > total;
        if lacks(want.cpus_milli, after.cpus_milli, total.cpus_milli) {
            Some(Refusal::InsufficientCpus)
        } else if lacks(want.mem_bytes, after.mem_bytes, total.mem_bytes) {
            Some(Refusal::InsufficientMemory)
        } else if lacks(want.disk_bytes, after.disk_bytes, total.disk_bytes) {
            Some(Refusal::InsufficientDisk)
        } else {
            lacks(want.gpus, after.gpus, total.gpus).then_some(Refusal::InsufficientGpus)
        }
    }
}

/// A node as it registered.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Name or address under which its tasks are reached.
    pub hostname: String,
    /// `host:port` of its HTTP listener.
    pub http_address: String,
    /// What tasks of every role may use.
    pub resources: Resources,
    /// What it has beside that.
    pub inventory: Inventory,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// Version of its binary.
    pub version: String,
    /// What it cannot do.
    pub lacks: Vec<String>,
    /// Whether it has a session.
    pub active: bool,
    /// Whether an operator has taken it out: it gets no new tasks.
    pub deactivated: bool,
    /// What else that operator wants; only of one that is deactivated.
    pub drain: Option<Drain>,
    /// First registration.
    pub registered_at: Millis,
    /// Latest registration.
    pub reregistered_at: Millis,
    /// When the session ended, while there is none.
    pub disconnected_at: Option<Millis>,
}

impl Agent {
    /// Whether new tasks may be launched there.
    #[must_use]
    pub fn takes_tasks(&self) -> bool {
        self.active && !self.deactivated
    }
}

/// A node's tasks are to end. It is drained once none of them lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Longest time from SIGTERM to SIGKILL; none: each task's own.
    pub max_grace_ms: Option<u64>,
    /// It is gone for good once it is drained.
    pub mark_gone: bool,
    /// When it was asked for.
    pub since: Millis,
}

/// What the live tasks of an agent hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Scalars.
    pub amounts: Amounts,
    /// Host ports.
    pub ports: BTreeSet<u16>,
}

/// All agents.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Agents {
    known: OrdMap<AgentId, Arc<Agent>>,
    usage: OrdMap<AgentId, Arc<Usage>>,
    /// Those that an operator said are gone for good, and when.
    gone: OrdMap<AgentId, Millis>,
}

impl Agents {
    /// One agent.
    #[must_use]
    pub fn get(&self, id: &AgentId) -> Option<&Agent> {
        self.known.get(id).map(AsRef::as_ref)
    }

    /// All agents by id.
    pub fn iter(&self) -> impl Iterator<Item = &Agent> {
        self.known.values().map(AsRef::as_ref)
    }

    /// Whether it is gone for good: its id never comes back.
    #[must_use]
    pub fn is_gone(&self, id: &AgentId) -> bool {
        self.gone.contains_key(id)
    }

    pub(crate) fn gone(&self) -> impl Iterator<Item = (&AgentId, Millis)> {
        self.gone.iter().map(|(id, since)| (id, *since))
    }

    /// The oldest is forgotten when there are more than [`GONE_MAX`].
    pub(crate) fn mark_gone(&mut self, id: AgentId, since: Millis) {
        self.gone.insert(id, since);
        if self.gone.len() > GONE_MAX {
            let oldest = self.gone.iter().min_by_key(|(_, since)| **since);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.gone.remove(&oldest);
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What live tasks of the agent hold.
    #[must_use]
    pub fn usage(&self, id: &AgentId) -> Usage {
        self.usage
            .get(id)
            .map(|u| (**u).clone())
            .unwrap_or_default()
    }

    pub(crate) fn put(&mut self, agent: Agent) {
        self.known.insert(agent.id.clone(), Arc::new(agent));
    }

    pub(crate) fn change(&mut self, id: &AgentId, change: impl FnOnce(&mut Agent)) {
        if let Some(agent) = self.known.get_mut(id) {
            change(Arc::make_mut(agent));
        }
    }

    pub(crate) fn remove(&mut self, id: &AgentId) {
        self.known.remove(id);
        self.usage.remove(id);
    }

    /// Whether amounts and ports are free on the agent.
    pub(crate) fn has_room(&self, id: &AgentId, amounts: &Amounts, ports: &[u16]) -> bool {
        let Some(agent) = self.known.get(id) else {
            return false;
        };
        let total = Amounts::of(&agent.resources);
        let none = Usage::default();
        let usage = self.usage.get(id).map_or(&none, AsRef::as_ref);
        let mut seen = BTreeSet::new();
        usage.amounts.lacking(amounts, &total).is_none()
            && ports.iter().all(|p| {
                agent.resources.ports.contains(*p) && !usage.ports.contains(p) && seen.insert(*p)
            })
    }

    /// Takes what [`Agents::has_room`] said is free. Snapshots of an older, larger agent are
    /// restored with it too, so it does not check again.
    pub(crate) fn take(&mut self, id: &AgentId, amounts: &Amounts, ports: &[u16]) {
        let usage = Arc::make_mut(self.usage.entry(id.clone()).or_default());
        usage.amounts = usage.amounts.plus(amounts);
        usage.ports.extend(ports);
    }

    /// Gives back what a task held.
    pub(crate) fn give_back(&mut self, id: &AgentId, amounts: &Amounts, ports: &[u16]) {
        let Some(usage) = self.usage.get_mut(id) else {
            return;
        };
        let usage = Arc::make_mut(usage);
        usage.amounts = usage.amounts.minus(amounts);
        for port in ports {
            usage.ports.remove(port);
        }
        if *usage == Usage::default() {
            self.usage.remove(id);
        }
    }
}
