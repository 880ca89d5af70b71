//! The kernel's own file systems inside a container: `/proc`, `/sys`, `/dev`, and what of them is
//! covered or protected.
//!
//! Each is mounted on a directory of the root that was reached without any symbolic link, so an
//! image whose `/proc` or `/dev` is a link fails to start (CVE-2026-41579) instead of having it
//! mounted elsewhere. Guards are opened below the very mount that was just made, so nothing in the
//! image can stand in for procfs (CVE-2019-16884, CVE-2025-52881).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, makedev, mkdirat, mknodat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use super::mount::present;
use super::root::{cover, new_mount};
use super::{Fault, Progress, needed, paths};
use crate::plan::{Guard, GuardBase, GuardHow, InRoot};
use crate::sys::{self, mount_attr};

const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NOEXEC: MountAttrFlags = NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
const STRICTEST: MountAttrFlags = NOEXEC.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Name, major and minor of `Documentation/admin-guide/devices.txt`.
const NODES: [(&CStr, u32, u32); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];
const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"pts/ptmx", c"ptmx"),
];
/// Bound of `/dev`; pages count against the container's memory limit.
const DEV_SIZE: &CStr = c"67108864";

/// Mounts `/proc` of this PID namespace.
pub(super) fn proc(root: BorrowedFd<'_>, made: &mut Option<OwnedFd>) -> Result<(), Fault> {
    let target = paths::own_dir(root, c"proc")?;
    let mount = new_mount(c"proc", &[], STRICTEST)?;
    paths::attach(&mount, target)?;
    *made = Some(mount);
    Ok(())
}

/// Mounts `/sys` of this network namespace. Read-only by the mount, not the superblock: that one is
/// shared with the host when the network is.
pub(super) fn sys(root: BorrowedFd<'_>, made: &mut Option<OwnedFd>) -> Result<(), Fault> {
    let target = paths::own_dir(root, c"sys")?;
    let mount = new_mount(c"sysfs", &[], STRICTEST | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    paths::attach(&mount, target)?;
    *made = Some(mount);
    Ok(())
}

/// Mounts and fills `/dev`.
pub(super) fn dev(progress: &mut Progress, shm_size: &CStr, tty: &CStr) -> Result<(), Fault> {
    let target = paths::own_dir(needed(&progress.root)?, c"dev")?;
    let dev = new_mount(c"tmpfs", &[(c"mode", c"0755"), (c"size", DEV_SIZE)], NOEXEC)?;
    paths::attach(&dev, target)?;
    for (name, major, minor) in NODES {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(
            &dev,
            name,
            FileType::CharacterDevice,
            mode,
            makedev(major, minor),
        )?;
    }
    for (to, name) in LINKS {
        symlinkat(to, &dev, name)?;
    }
    // ptmx must be usable by the container's own users.
    let pts: [(&CStr, &CStr); 3] = [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", tty)];
    let pts = fill(&dev, c"pts", c"devpts", &pts, NOEXEC)?;
    if progress.base != 0 {
        // devpts alone asks the mounting process's user namespace whose its root is.
        let root = Some(progress.base);
        let (uid, gid) = (root.map(Uid::from_raw), root.map(Gid::from_raw));
        rustix::fs::chownat(&pts, c"", uid, gid, AtFlags::EMPTY_PATH)?;
    }
    let shm: [(&CStr, &CStr); 2] = [(c"mode", c"1777"), (c"size", shm_size)];
    fill(&dev, c"shm", c"tmpfs", &shm, STRICTEST)?;
    fill(&dev, c"mqueue", c"mqueue", &[], STRICTEST)?;
    progress.dev = Some(dev);
    Ok(())
}

/// Makes a device in our own `/dev`, which nothing but this process has reached yet. Whoever is in
/// the container may use it: that it is there is the permission, and the device controller holds to
/// what was allowed.
pub(super) fn device(
    dev: BorrowedFd<'_>,
    at: &InRoot,
    kind: FileType,
    (major, minor): (u32, u32),
) -> Result<(), Fault> {
    let (name, parent) = paths::make_parent(dev, at)?;
    let mode = Mode::from_raw_mode(0o666);
    Ok(mknodat(parent, name, kind, mode, makedev(major, minor))?)
}

fn fill(
    dev: &OwnedFd,
    name: &CStr,
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Fault> {
    mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
    let target = paths::open(
        dev.as_fd(),
        name,
        OFlags::PATH | OFlags::DIRECTORY,
        paths::STRICT,
    )?;
    let made = new_mount(kind, options, attributes)?;
    paths::attach(&made, target)?;
    Ok(made)
}

/// Covers or protects one path; one that this instance does not have needs neither.
pub(super) fn guard(guard: &Guard, progress: &mut Progress) -> Result<(), Fault> {
    let base = match guard.base {
        GuardBase::Proc => needed(&progress.proc)?,
        GuardBase::Sys => needed(&progress.sys)?,
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let target = match paths::open(base, &guard.path, OFlags::PATH, resolve) {
        Ok(target) => target,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match guard.how {
        GuardHow::MaskDir => cover(&target, &mut progress.empty),
        GuardHow::MaskFile => mask_file(&target, progress),
        GuardHow::ReadOnly => {
            let tree = open_tree(&target, c"", clone | OpenTreeFlags::AT_EMPTY_PATH)?;
            sys::mount_setattr(tree.as_fd(), mount_attr::RDONLY, false)?;
            Ok(paths::attach(tree, target)?)
        }
    }
}

/// Covers a file or directory of the root, wherever the root's links lead, if it is there.
pub(super) fn mask(at: &InRoot, progress: &mut Progress) -> Result<(), Fault> {
    let Some(target) = present(needed(&progress.root)?, at)? else {
        return Ok(());
    };
    let found = FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode);
    if found.is_dir() {
        cover(&target, &mut progress.empty)
    } else {
        mask_file(&target, progress)
    }
}

/// Covers a file by the null device. The node is looked at by descriptor and then mounted by that
/// descriptor, so nothing can stand in for it (CVE-2025-31133 replaced it by a link).
fn mask_file(target: &OwnedFd, progress: &Progress) -> Result<(), Fault> {
    let dev = needed(&progress.dev)?;
    let null = paths::open(dev, c"null", OFlags::PATH, paths::STRICT)?;
    let found = rustix::fs::fstat(&null)?;
    let is_char = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
    if !is_char || found.st_rdev != makedev(1, 3) {
        return Err(Errno::NODEV.into());
    }
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(paths::attach(open_tree(&null, c"", clone)?, target)?)
}
