//! Which containers are started through the small program of `sys::relay`, so that ours need not be
//! loaded twice.
//!
//! Until its program runs, a container's first process is a clone of ours, and whoever sees it there,
//! or makes it run itself, could reach our file (CVE-2019-5736). Nobody does when its PID namespace is
//! new and it is started at once; and what it runs last, by whatever name, is the small program, which
//! is the container's own file in memory. Everything else runs from a read-only view of our file, see
//! [`super::protect`]: what joins a PID namespace, what waits for its start, what runs hooks in the
//! container, what a filter or a security module watches from before its exec.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;

use super::config::{Config, NamespaceKind};
use super::error::{OciError, call};
use super::steps::selinux_enabled;
use crate::child::oci::Relay;
use crate::plan::Plan;
use crate::sys::{StringArray, relay};

/// `MFD_EXEC` of `linux/memfd.h` (Linux 6.3), which says that the file is to be run.
const EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);

/// The file for the small program, if this container may be started through it.
pub(super) fn file(config: &Config) -> Option<OwnedFd> {
    let linux = &config.linux;
    let namespaces = || linux.namespaces.iter();
    let new_pids = namespaces().any(|one| one.kind == NamespaceKind::Pid && one.path.is_empty());
    let plain_users = namespaces().all(|one| one.kind != NamespaceKind::User);
    let hooks = &config.hooks;
    let no_hooks = hooks.create_container.is_empty() && hooks.start_container.is_empty();
    let process = config.process.as_ref()?;
    let unlabelled = process.apparmor_profile.is_empty() && process.selinux_label.is_empty();
    let unfiltered = linux.seccomp.is_none();
    if !(new_pids && plain_users && no_hooks && unlabelled && unfiltered) || selinux_enabled() {
        return None;
    }
    relay::image(0, 0)?;
    let flags = MemfdFlags::CLOEXEC;
    let made = rustix::fs::memfd_create("gantry-relay", flags | EXEC);
    // An older kernel does not know the second flag; a newer one may forbid such files.
    made.or_else(|_| rustix::fs::memfd_create("gantry-relay", flags))
        .ok()
}

/// Writes the program for this plan, whose process talks to us at `talk`.
pub(super) fn fill<'f>(
    file: BorrowedFd<'f>,
    talk: &OwnedFd,
    plan: &Plan,
) -> Result<Relay<'f>, OciError> {
    let words = "write the program that starts the container's";
    // The last step is the exec.
    let step = u32::try_from(plan.steps.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let image = relay::image(talk.as_fd().as_raw_fd().unsigned_abs(), step).unwrap_or_default();
    rustix::io::pwrite(file, &image, 0).map_err(call(words))?;
    let candidates = plan.command.candidates.iter();
    let argvs = candidates.map(|path| plan.command.argv.behind(path));
    Ok(Relay {
        file,
        argvs: argvs.collect::<Vec<StringArray>>(),
    })
}
