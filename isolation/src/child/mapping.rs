//! The container's own ids: mounts through which its files appear, and the user namespace in which
//! its processes end up.
//!
//! Until then the child is the host's root, so that every mount and namespace stays the host's.
//! What it makes meanwhile is made as the container's root. Invariant: mounts are mapped in this
//! mount namespace only, which ends up below the container's root, out of sight.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySets, Gid, Uid};

use super::{Fault, ROOT_VIEW_FD, USERS_FD, paths};
use crate::sys::{self, users};

const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Maps a detached mount by the container's user namespace.
pub(super) fn map(mount: BorrowedFd<'_>, recursive: bool) -> Result<(), Fault> {
    match users::map_mount_ids(mount, users::borrow_fd(USERS_FD), recursive) {
        // EINVAL: the file system does not know how. EPERM: it is mapped in another way already.
        Err(Errno::INVAL | Errno::PERM) => Err(Fault::Unmappable),
        done => Ok(done?),
    }
}

/// Covers a host directory by a mapped view of itself; `names` are in it and on its file system.
pub(super) fn tree(path: &CStr, names: &[CString]) -> Result<(), Fault> {
    let dir = rustix::fs::open(path, DIR, Mode::empty())?;
    for name in names {
        // What is mounted there would not be in the view.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        paths::open(dir.as_fd(), name, OFlags::PATH, resolve)?;
    }
    paths::attach(view(&dir)?, dir)?;
    Ok(())
}

/// Puts a mapped view of the host's root at [`ROOT_VIEW_FD`]. It is mounted on the working
/// directory, which the slot's own view covers next: on the root itself it would keep
/// `pivot_root(2)` from leaving that behind.
pub(super) fn host_root() -> Result<(), Fault> {
    let host = rustix::fs::open(c"/", DIR, Mode::empty())?;
    let view = view(&host)?;
    paths::attach(&view, rustix::fs::openat(CWD, c".", DIR, Mode::empty())?)?;
    Ok(sys::dup_to(view.as_fd(), ROOT_VIEW_FD, true)?)
}

/// Covers the working directory by a mapped view of itself, and goes to the view.
pub(super) fn working_directory() -> Result<(), Fault> {
    let dir = rustix::fs::openat(CWD, c".", DIR, Mode::empty())?;
    let view = view(&dir)?;
    paths::attach(&view, dir)?;
    Ok(rustix::process::fchdir(view)?)
}

fn view(dir: &OwnedFd) -> Result<OwnedFd, Fault> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let view = open_tree(dir, c"", flags)?;
    map(view.as_fd(), false)?;
    Ok(view)
}

/// Makes and reaches files as this user and group of the host, with all capabilities that root has.
pub(super) fn act_as(id: u32) -> Result<(), Fault> {
    users::set_file_ids(id, id)?;
    // The kernel takes those that concern files out of the effective set.
    let sets = rustix::thread::capabilities(None)?;
    let effective = sets.permitted;
    Ok(rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective, ..sets },
    )?)
}

/// Enters the user namespace as its root.
pub(super) fn enter() -> Result<(), Fault> {
    nix::sched::setns(users::borrow_fd(USERS_FD), CloneFlags::CLONE_NEWUSER)?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    // A change of user may have undone it (proc_sys_fs(5), suid_dumpable).
    let never = DumpableBehavior::NotDumpable;
    Ok(rustix::process::set_dumpable_behavior(never)?)
}
