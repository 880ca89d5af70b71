//! One agent in the allocator: what it has, what is free, and whether a demand fits.

use std::collections::BTreeSet;

use gantry_wire::ids::AgentId;
use gantry_wire::resources::{PortRanges, Resources};

use super::ports::{self, Recent};
use super::refusal::Refusal;
use super::{ANY_ROLE, Demand};
use crate::state::Amounts;

/// Used share of an agent in millionths.
pub(super) type Share = u64;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: AgentId,
    pub(super) active: bool,
    total: Amounts,
    used: Amounts,
    ports: PortRanges,
    port_count: usize,
    used_ports: BTreeSet<u16>,
    recent: Recent,
}

impl Slot {
    pub(super) fn new(id: AgentId) -> Self {
        Self {
            id,
            active: false,
            total: Amounts::default(),
            used: Amounts::default(),
            ports: PortRanges::default(),
            port_count: 0,
            used_ports: BTreeSet::new(),
            recent: Recent::default(),
        }
    }

    pub(super) fn update(&mut self, resources: &Resources, active: bool) {
        self.total = Amounts::of(resources);
        self.ports = resources.ports.clone();
        self.port_count = self.ports.len();
        self.active = active;
    }

    pub(super) fn take(&mut self, amounts: &Amounts, ports: &[u16]) {
        self.used = self.used.plus(amounts);
        self.used_ports.extend(ports);
    }

    pub(super) fn give_back(&mut self, amounts: &Amounts, ports: &[u16]) {
        self.used = self.used.minus(amounts);
        for port in ports {
            self.used_ports.remove(port);
            self.recent.push(*port);
        }
    }

    /// The larger of the used CPU and memory shares.
    pub(super) fn share(&self) -> Share {
        let of = |used: u64, total: u64| {
            let millionths = u128::from(used) * 1_000_000 / u128::from(total.max(1));
            u64::try_from(millionths).unwrap_or(u64::MAX)
        };
        let cpus = of(self.used.cpus_milli, self.total.cpus_milli);
        cpus.max(of(self.used.mem_bytes, self.total.mem_bytes))
    }

    /// The first thing in funnel order that the demand lacks here.
    pub(super) fn refuses(&self, demand: &Demand) -> Option<Refusal> {
        if demand.role != ANY_ROLE {
            return Some(Refusal::UnfulfilledRole);
        }
        self.used
            .lacking(&demand.each, &self.total)
            .or_else(|| (!self.has_ports(&demand.ports)).then_some(Refusal::InsufficientPorts))
    }

    fn has_ports(&self, wanted: &[Option<u16>]) -> bool {
        let mut fixed = BTreeSet::new();
        let fits = wanted
            .iter()
            .flatten()
            .all(|p| self.ports.contains(*p) && !self.used_ports.contains(p) && fixed.insert(*p));
        // Ports outside the range cannot be in use, unless the agent came back with another range.
        fits && self.used_ports.len() + wanted.len() <= self.port_count
    }

    /// Ports for a demand that [`Slot::refuses`] did not refuse.
    pub(super) fn choose_ports(&self, wanted: &[Option<u16>], seed: u64) -> Vec<u16> {
        ports::choose(&self.ports, &self.used_ports, &self.recent, wanted, seed)
    }
}
