//! Keeping the containers that share the host's network away from ports of the node itself.
//!
//! Decides the table's name and what is refused before any work. Independent of the bridge: its
//! table is written before there is a [`crate::Network`] and stays when one cannot be opened. Calls
//! block for as long as the kernel takes; call them from a plain thread, in the namespace to
//! protect. Invariant: one table replaces the last in one step, so that a port which is in both is
//! never open in between. It outlives the process, as the containers do.

use crate::error::NetError;
use crate::names;
use crate::nftables::Nftables;
use crate::ruleset::Ruleset;

/// Most ports that can be protected: each costs every packet of the host a comparison.
const MAX_PORTS: usize = 16;

/// Refuses TCP connections to these ports of this host, by whatever address, from processes whose
/// sockets were made in the cgroup or below it. The cgroup is a child of the version 2 root and is
/// named by its id, the inode number of its directory. Replaces what was protected before.
///
/// # Errors
/// A bad tag, too many ports, or the kernel's refusal: a kernel without `nft_socket`, for one.
pub fn protect(tag: &str, ports: &[u16], cgroup: u64) -> Result<(), NetError> {
    names::check_tag(tag)?;
    if ports.len() > MAX_PORTS {
        let (count, limit) = (ports.len(), MAX_PORTS);
        return Err(NetError::TooManyProtected { count, limit });
    }
    let rules = Ruleset::protecting(&names::protection_table(tag), ports, cgroup);
    Nftables::open()?.replace(&rules, &[])
}

/// Takes the protection away; `Ok` if there is none.
///
/// # Errors
/// A bad tag, or the kernel's refusal.
pub fn unprotect(tag: &str) -> Result<(), NetError> {
    names::check_tag(tag)?;
    Nftables::open()?.delete(&names::protection_table(tag))
}
