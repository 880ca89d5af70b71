//! Which namespaces a container has of its own and which it shares.
//!
//! It decides names and offsets only; whether the container that one is shared with runs is the
//! keeper's business, at the start. Mount, UTS and cgroup namespaces are always the container's own.

use serde::{Deserialize, Serialize};

use super::{ContainerId, SpecError};

/// Network namespace of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The host's.
    Host,
    /// A fresh one with only loopback, up.
    New,
    /// The one whose descriptor travels with the `Start` request.
    Namespace,
    /// That of a running container of the same keeper.
    Of(ContainerId),
}

/// Whose namespace it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// The container's own.
    #[default]
    Own,
    /// The host's.
    Host,
    /// That of a running container of the same keeper.
    Of(ContainerId),
}

/// Namespaces that a container may share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Processes. In a namespace that is not its own the container has no init: the command is an
    /// ordinary process there, and the container ends with it.
    pub pid: Sharing,
    /// System V IPC and POSIX message queues.
    pub ipc: Sharing,
    /// Offsets of the clocks in a time namespace of the container's own; None: the host's clocks.
    pub time: Option<TimeOffsets>,
}

/// What `time_namespaces(7)` adds to the host's clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffsets {
    /// Nanoseconds added to `CLOCK_MONOTONIC`.
    pub monotonic_ns: i64,
    /// Nanoseconds added to `CLOCK_BOOTTIME`, which `/proc/uptime` shows.
    pub boottime_ns: i64,
}

/// Whether a container shares with itself.
pub(super) fn check(
    id: &ContainerId,
    namespaces: &Namespaces,
    network: &Network,
) -> Result<(), SpecError> {
    let itself = |sharing: &Sharing| matches!(sharing, Sharing::Of(other) if other == id);
    let network_itself = matches!(network, Network::Of(other) if other == id);
    if network_itself || itself(&namespaces.pid) || itself(&namespaces.ipc) {
        return Err(SpecError::SharesWithItself(id.clone()));
    }
    Ok(())
}
