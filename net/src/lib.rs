//! Virtual networking of one node over rtnetlink and nftables netlink: one bridge, one nftables
//! table, a network namespace with one veth pair for each attached container, and host ports mapped
//! to container ports.
//!
//! Decides: which links, addresses and rules should exist (`names`, `subnet`, `addresses`, `ports`,
//! `ruleset` are pure) and makes the kernel hold exactly that (`links`, `nftables`, `worker`).
//! Deliberately does not: run helper programs, remember anything on disk (the agent checkpoints,
//! [`Network::adopt`] is told), or change what it did not create, but for `net.ipv4.ip_forward`,
//! which it switches on.
//!
//! Invariants: everything of ours in the kernel carries the tag in its name; a process killed at
//! any moment leaves only things that [`Network::open`] and [`Network::adopt`] find again and keep
//! or remove; an address is never handed out while a link that had it still exists. IPv4 only for
//! now: public types say `IpAddr`.

mod addresses;
mod conntrack;
mod error;
mod host_port;
mod links;
mod names;
mod namespace;
mod netlink;
mod network;
mod nftables;
mod ports;
mod preflight;
mod protection;
mod reaper;
mod ruleset;
mod subnet;
mod sysctl;
mod worker;

pub use error::{KernelError, NetError, PortHolder};
pub use host_port::host_port_free;
pub use network::{Adoption, Attachment, Known, Network, NetworkConfig};
pub use ports::{PortMap, Protocol};
pub use preflight::{Finding, Severity, preflight};
pub use protection::{protect, unprotect};
pub use ruleset::Ruleset;
pub use subnet::Subnet;
