//! Giving up what the command must not have.

use rustix::fs::{FileType, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::Fault;
use super::user::Identity;
use crate::caps::{CapSet, LAST_CAP};
use crate::spec::{self, RLIM_INFINITY};
use crate::sys::users;

/// Bounding set, groups, ids, the other sets, in the order in which each is still
/// allowed. Nothing is inheritable (CVE-2022-29162). A user other than 0 keeps none: `setresuid(2)`
/// clears them.
pub(super) fn become_user(
    identity: &Identity,
    caps: CapSet,
    nofile: Option<Rlimit>,
) -> Result<(), Fault> {
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
    if let Some(nofile) = nofile {
        setrlimit(Resource::Nofile, nofile)?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

/// Sets one limit; raising a hard one takes `CAP_SYS_RESOURCE` in the host's user namespace.
pub(super) fn limit(limit: &spec::Rlimit) -> Result<(), Fault> {
    let bound = |value| Some(value).filter(|value| *value != RLIM_INFINITY);
    let new = Rlimit {
        current: bound(limit.soft),
        maximum: bound(limit.hard),
    };
    Ok(setrlimit(kernel_resource(limit.resource), new)?)
}

fn kernel_resource(resource: spec::Resource) -> Resource {
    match resource {
        spec::Resource::As => Resource::As,
        spec::Resource::Core => Resource::Core,
        spec::Resource::Cpu => Resource::Cpu,
        spec::Resource::Data => Resource::Data,
        spec::Resource::Fsize => Resource::Fsize,
        spec::Resource::Locks => Resource::Locks,
        spec::Resource::Memlock => Resource::Memlock,
        spec::Resource::Msgqueue => Resource::Msgqueue,
        spec::Resource::Nice => Resource::Nice,
        spec::Resource::Nofile => Resource::Nofile,
        spec::Resource::Nproc => Resource::Nproc,
        spec::Resource::Rss => Resource::Rss,
        spec::Resource::Rtprio => Resource::Rtprio,
        spec::Resource::Rttime => Resource::Rttime,
        spec::Resource::Sigpending => Resource::Sigpending,
        spec::Resource::Stack => Resource::Stack,
    }
}

/// Gives the pipes and terminals among the command's streams to its user: what `/dev/stdout` leads
/// to is opened with the owner's permissions, and an owner that the user namespace does not map has
/// none to give.
pub(super) fn own_streams(uid: u32) -> Result<(), Fault> {
    for number in 0..=2 {
        let stream = users::borrow_fd(number);
        let found = rustix::fs::fstat(stream)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        let terminal = || nix::unistd::isatty(stream) == Ok(true);
        if found.st_uid != uid && (kind.is_fifo() || kind.is_char_device() && terminal()) {
            rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None)?;
        }
    }
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
