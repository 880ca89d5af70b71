//! Paths that a container may not read or not write, and kernel settings made for it.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, major, minor};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::super::root::cover;
use super::super::{Fault, paths};
use super::mounts::is_dir;
use crate::plan::InRoot;
use crate::sys::{self, mount_attr};

/// `PROC_SUPER_MAGIC` of `linux/magic.h`.
const PROC_MAGIC: u64 = 0x9fa0;
const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE
    .union(OpenTreeFlags::OPEN_TREE_CLOEXEC)
    .union(OpenTreeFlags::AT_EMPTY_PATH);

/// Opens a path, if it is there.
fn find(root: BorrowedFd<'_>, at: &InRoot) -> Result<Option<OwnedFd>, Errno> {
    match paths::open(root, &at.path, OFlags::PATH, paths::WITHIN) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Covers a path, if it is there: a directory by an empty one, a file by the host's `/dev/null`,
/// which was looked at (CVE-2025-31133 replaced the container's by a link).
pub(super) fn mask(
    root: Option<&OwnedFd>,
    at: &InRoot,
    empty: &mut Option<OwnedFd>,
) -> Result<(), Fault> {
    let root = root.ok_or(Errno::BADF)?;
    let Some(target) = find(root.as_fd(), at)? else {
        return Ok(());
    };
    if is_dir(&target)? {
        return cover(&target, empty);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::open(c"/dev/null", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&null)?;
    let genuine = FileType::from_raw_mode(stat.st_mode).is_char_device()
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
    if !genuine {
        return Err(Errno::NODEV.into());
    }
    Ok(paths::attach(open_tree(&null, c"", CLONE)?, target)?)
}

/// Binds a path over itself, read-only, if it is there.
pub(super) fn read_only(root: BorrowedFd<'_>, at: &InRoot) -> Result<(), Fault> {
    let Some(target) = find(root, at)? else {
        return Ok(());
    };
    let tree = open_tree(&target, c"", CLONE | OpenTreeFlags::AT_RECURSIVE)?;
    sys::mount_change(tree.as_fd(), mount_attr::RDONLY, 0, 0, false)?;
    Ok(paths::attach(tree, target)?)
}

/// Makes the mount at a path read-only.
pub(super) fn read_only_mount(root: BorrowedFd<'_>, at: &InRoot) -> Result<(), Fault> {
    let target = paths::open(root, &at.path, OFlags::PATH, paths::WITHIN)?;
    Ok(sys::mount_change(
        target.as_fd(),
        mount_attr::RDONLY,
        0,
        0,
        false,
    )?)
}

/// Makes the root's own mount read-only.
pub(super) fn read_only_root(root: BorrowedFd<'_>) -> Result<(), Fault> {
    Ok(sys::mount_change(root, mount_attr::RDONLY, 0, 0, false)?)
}

/// Writes to a file of procfs. It is the host's, before the change of root, so that no image can
/// redirect the write (CVE-2019-16884, CVE-2025-52881); its content follows the namespaces of this
/// process.
pub(super) fn proc_write(path: &CStr, value: &CStr) -> Result<(), Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open(c"/proc", flags, Mode::empty())?;
    if u64::try_from(rustix::fs::fstatfs(&proc)?.f_type).unwrap_or(0) != PROC_MAGIC {
        return Err(Errno::NODEV.into());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let file = paths::open(proc.as_fd(), path, OFlags::WRONLY, resolve)?;
    rustix::io::write(&file, value.to_bytes())?;
    Ok(())
}

/// Writes a label for exec below the host's procfs, which was opened before the clone. The file must
/// be opened by the very credentials that write (Linux 5.13), so this comes late, and by openat(2),
/// which no filter of system calls can do without; what was opened must be procfs' own.
pub(super) fn label(proc: i32, path: &CStr, value: &CStr) -> Result<(), Fault> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(sys::oci::borrow(proc), path, flags, Mode::empty())?;
    if u64::try_from(rustix::fs::fstatfs(&file)?.f_type).unwrap_or(0) != PROC_MAGIC {
        return Err(Errno::NODEV.into());
    }
    rustix::io::write(&file, value.to_bytes())?;
    Ok(())
}
