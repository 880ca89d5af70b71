//! Mounts that a spec asks for: made detached, given their attributes while nobody can reach them,
//! and only then put in their place, which is a descriptor that the root's own links cannot move.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, open_tree,
};

use super::{Fault, Progress, mapping, needed, paths};
use crate::plan::{Command, InRoot, MountStep, Source};
use crate::sys::{self, mount_attr};

/// What a clone of a mount always takes.
const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE
    .union(OpenTreeFlags::OPEN_TREE_CLOEXEC)
    .union(OpenTreeFlags::AT_EMPTY_PATH);
/// A directory of the slot, below the root's mount and out of sight after the change of root: some
/// mounts must be somewhere before a part of them can be put elsewhere (before Linux 6.15).
const STAGE: &CStr = c"work";

/// Mounts it; the mount's root is the volume for steps that follow.
pub(super) fn make(step: &MountStep, progress: &mut Progress) -> Result<(), Fault> {
    let tree = match &step.source {
        Source::New { kind, options } => new(kind, options)?,
        Source::Bind {
            path,
            recursive,
            links,
        } => bind(path, *recursive, *links)?,
        Source::Layers { lower, options } => layers(lower, options.as_deref())?,
    };
    if step.mapped {
        mapping::map(tree.as_fd(), true)?;
    }
    let all = &step.all;
    sys::mount_change(tree.as_fd(), all.set, all.clear, 0, true)?;
    let own = &step.own;
    if own.set | own.clear | step.propagation != 0 {
        sys::mount_change(tree.as_fd(), own.set, own.clear, step.propagation, false)?;
    }
    let is_dir = FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode).is_dir();
    let target = paths::mount_point(needed(&progress.root)?, &step.at, is_dir, step.links)?;
    paths::attach(&tree, target)?;
    progress.volume = Some(tree);
    Ok(())
}

fn new(kind: &CStr, options: &[(CString, Option<CString>)]) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, key)?,
        }
    }
    fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    fsmount(&context, flags, MountAttrFlags::empty())
}

/// Whoever asked has looked at where the source leads, so without `links` no symbolic link is
/// followed that may have come since.
fn bind(path: &CStr, recursive: bool, links: bool) -> Result<OwnedFd, Errno> {
    let resolve = if links {
        ResolveFlags::NO_MAGICLINKS
    } else {
        ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS
    };
    let source = paths::open(CWD, path, OFlags::PATH, resolve)?;
    let below = if recursive {
        OpenTreeFlags::AT_RECURSIVE
    } else {
        OpenTreeFlags::empty()
    };
    open_tree(&source, c"", CLONE | below)
}

fn layers(lower: &[CString], options: Option<&CStr>) -> Result<OwnedFd, Errno> {
    if let Some(options) = options {
        mount(c"overlay", STAGE, c"overlay", MountFlags::RDONLY, options)?;
        let staged = rustix::fs::open(STAGE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        return open_tree(&staged, c"", CLONE);
    }
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower {
        fsconfig_set_string(&context, c"lowerdir+", layer)?;
    }
    fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    fsmount(&context, flags, MountAttrFlags::empty())
}

/// Makes the memory for secrets; the container reaches none of it but the files that are mounted.
pub(super) fn secrets(size: &CStr, progress: &mut Progress) -> Result<(), Fault> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Linux 6.4; older ones may write secrets to swap, as they would any file of theirs.
    match fsconfig_set_flag(&context, c"noswap") {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    fsconfig_set_string(&context, c"size", size)?;
    fsconfig_set_string(&context, c"mode", c"0700")?;
    fsconfig_create(&context)?;
    let strictest = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let made = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, strictest)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let stage = rustix::fs::open(STAGE, flags, Mode::empty())?;
    paths::attach(&made, stage)?;
    progress.secrets = Some(made);
    Ok(())
}

/// Makes one secret and mounts it.
pub(super) fn secret(
    at: &InRoot,
    name: &CStr,
    content: &[u8],
    progress: &Progress,
) -> Result<(), Fault> {
    let (root, secrets) = (needed(&progress.root)?, needed(&progress.secrets)?);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(secrets, name, flags, Mode::from_raw_mode(0o400))?;
    paths::write_all(&file, content)?;
    drop(file);
    let whole = paths::open(secrets, name, OFlags::PATH, paths::STRICT)?;
    let tree = open_tree(&whole, c"", CLONE)?;
    sys::mount_setattr(tree.as_fd(), mount_attr::RDONLY, false)?;
    let target = paths::mount_point(root, at, false, true)?;
    Ok(paths::attach(tree, target)?)
}

/// Gives the secrets to the command's user. It is the last that happens to them: its name may have had
/// to be looked up in a file that was mounted after them.
pub(super) fn own_secrets(
    names: &[CString],
    command: &Command,
    progress: &mut Progress,
) -> Result<(), Fault> {
    progress.identity.settle(&command.who);
    let uid = Uid::from_raw(progress.host_id(progress.identity.uid().as_raw())?);
    let gid = Gid::from_raw(progress.host_id(progress.identity.gid().as_raw())?);
    let secrets = needed(&progress.secrets)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    for name in names {
        rustix::fs::chownat(secrets, name, Some(uid), Some(gid), flags)?;
    }
    Ok(())
}

/// Makes a mount read-only, and none below.
pub(super) fn read_only(mount: BorrowedFd<'_>) -> Result<(), Fault> {
    Ok(sys::mount_setattr(mount, mount_attr::RDONLY, false)?)
}

/// Makes a path read-only with everything below, if it is there: it is mounted over itself.
pub(super) fn protect(root: BorrowedFd<'_>, at: &InRoot) -> Result<(), Fault> {
    let Some(target) = present(root, at)? else {
        return Ok(());
    };
    let tree = open_tree(&target, c"", CLONE | OpenTreeFlags::AT_RECURSIVE)?;
    sys::mount_setattr(tree.as_fd(), mount_attr::RDONLY, true)?;
    Ok(paths::attach(tree, target)?)
}

/// A path of the root as a program inside would find it, links followed; None when there is none.
pub(super) fn present(root: BorrowedFd<'_>, at: &InRoot) -> Result<Option<OwnedFd>, Errno> {
    match paths::open(root, &at.path, OFlags::PATH, paths::WITHIN) {
        Ok(target) => Ok(Some(target)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
