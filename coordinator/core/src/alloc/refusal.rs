//! Why an agent does not answer a demand: one enum for the allocator, `/v2/queue`, logs and
//! metrics. The order is Marathon's funnel (`mesos/NoOfferMatchReason.scala`): an agent counts at
//! the first thing it lacks.

use std::collections::BTreeMap;

/// What an agent lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its resources belong to another role.
    UnfulfilledRole,
    /// A constraint excludes it.
    UnfulfilledConstraint,
    /// No reservation of the app is there.
    NoCorrespondingReservationFound,
    /// It is in maintenance.
    AgentMaintenance,
    /// Not enough CPU is free.
    InsufficientCpus,
    /// Not enough memory is free.
    InsufficientMemory,
    /// Not enough disk is free.
    InsufficientDisk,
    /// Not enough GPUs are free.
    InsufficientGpus,
    /// A wanted port is taken or out of range, or too few are free.
    InsufficientPorts,
    /// It has GPUs and the app wants none.
    DeclinedScarceResources,
}

impl Refusal {
    /// All, in funnel order.
    pub const ALL: [Self; 10] = [
        Self::UnfulfilledRole,
        Self::UnfulfilledConstraint,
        Self::NoCorrespondingReservationFound,
        Self::AgentMaintenance,
        Self::InsufficientCpus,
        Self::InsufficientMemory,
        Self::InsufficientDisk,
        Self::InsufficientGpus,
        Self::InsufficientPorts,
        Self::DeclinedScarceResources,
    ];

    /// The name in the APIs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UnfulfilledRole => "UnfulfilledRole",
            Self::UnfulfilledConstraint => "UnfulfilledConstraint",
            Self::NoCorrespondingReservationFound => "NoCorrespondingReservationFound",
            Self::AgentMaintenance => "AgentMaintenance",
            Self::InsufficientCpus => "InsufficientCpus",
            Self::InsufficientMemory => "InsufficientMemory",
            Self::InsufficientDisk => "InsufficientDisk",
            Self::InsufficientGpus => "InsufficientGpus",
            Self::InsufficientPorts => "InsufficientPorts",
            Self::DeclinedScarceResources => "DeclinedScarceResources",
        }
    }
}

/// How many agents were asked, and how many refused for what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefusalCounts {
    /// Agents that were asked.
    pub asked: u64,
    /// Agents by the first thing they lack.
    pub refused: BTreeMap<Refusal, u64>,
}
