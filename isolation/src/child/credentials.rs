//! Giving up what the command must not have.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::Fault;
use super::user::Identity;
use crate::caps::{CapSet, LAST_CAP};

/// Bounding set, groups, ids, the other sets, no_new_privs, in the order in which each is still
/// allowed. Nothing is inheritable (CVE-2022-29162). A user other than 0 keeps none: `setresuid(2)`
/// clears them.
pub(super) fn become_user(identity: &Identity, caps: CapSet, nofile: Rlimit) -> Result<(), Fault> {
    for number in (0..=LAST_CAP).filter(|number| !caps.contains(*number)) {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            // A kernel older than the capability does not have it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    set_thread_groups(identity.groups())?;
    set_thread_res_gid(identity.gid(), identity.gid(), identity.gid())?;
    set_thread_res_uid(identity.uid(), identity.uid(), identity.uid())?;
    let kept = if identity.uid().is_root() {
        caps
    } else {
        CapSet::EMPTY
    };
    keep_only(kept)?;
    setrlimit(Resource::Nofile, nofile)?;
    set_no_new_privs(true)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

/// Keeps these capabilities, effective and permitted; none inheritable or ambient.
pub(super) fn keep_only(caps: CapSet) -> Result<(), Errno> {
    let kept = CapabilitySet::from_bits_retain(caps.bits());
    clear_ambient_capability_set()?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}
