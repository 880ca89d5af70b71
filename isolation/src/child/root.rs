//! The root file system: the overlay, what is mounted in it from the host, and the change of root.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
    open_tree, unmount,
};

use super::{Fault, paths};
use crate::disk;
use crate::plan::{InRoot, SlotLimit};

/// What every mount that holds data gets.
const PLAIN: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Makes a detached file system; `options` are its parameters.
pub(super) fn new_mount(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Goes to the slot, so that the overlay's option text stays short.
pub(super) fn slot(dir: &CStr, fresh: bool) -> Result<(), Fault> {
    if fresh {
        rustix::fs::mkdir(dir, Mode::from_raw_mode(0o700))?;
    }
    rustix::process::chdir(dir)?;
    if fresh { fill_slot() } else { Ok(()) }
}

/// Makes a slot with a limit, and goes there.
pub(super) fn limited_slot(parent: &CStr, name: &CStr, limit: &SlotLimit) -> Result<(), Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags, Mode::empty())?;
    let made = disk::make_limited(&parent, name, limit)?;
    rustix::process::fchdir(made)?;
    fill_slot()
}

fn fill_slot() -> Result<(), Fault> {
    rustix::fs::mkdir(c"upper", Mode::from_raw_mode(0o755))?;
    Ok(rustix::fs::mkdir(c"work", Mode::from_raw_mode(0o755))?)
}

/// Mounts the overlay on the slot itself, in this mount namespace only.
pub(super) fn overlay(
    lower: &[CString],
    options: Option<&CStr>,
    root: &mut Option<OwnedFd>,
) -> Result<(), Fault> {
    if let Some(options) = options {
        mount(c"overlay", c".", c"overlay", MountFlags::NODEV, options)?;
        // The working directory is still the one below the mount; by its own name we get on top.
        let mut path = [0; libc::PATH_MAX as usize];
        let here = working_directory(&mut path)?;
        *root = Some(rustix::fs::open(
            here,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        return Ok(());
    }
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower {
        fsconfig_set_string(&context, c"lowerdir+", layer)?;
    }
    fsconfig_set_string(&context, c"upperdir", c"upper")?;
    fsconfig_set_string(&context, c"workdir", c"work")?;
    fsconfig_create(&context)?;
    // nodev: devices are only those of our own /dev.
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    let made = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(
        &made,
        c"",
        CWD,
        c".",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    *root = Some(made);
    Ok(())
}

fn working_directory(buffer: &mut [u8; libc::PATH_MAX as usize]) -> Result<&CStr, Errno> {
    let length = rustix::fs::readlinkat_raw(CWD, c"/proc/self/cwd", &mut buffer[..])?;
    if length >= buffer.len() {
        return Err(Errno::NAMETOOLONG);
    }
    buffer[length] = 0;
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::INVAL)
}

/// Covers a directory, if it is there, by the one empty read-only tmpfs that all share.
pub(super) fn hide(
    root: BorrowedFd<'_>,
    at: &InRoot,
    empty: &mut Option<OwnedFd>,
) -> Result<(), Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match paths::open(root, &at.path, flags, paths::WITHIN) {
        Ok(target) => cover(&target, empty),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Covers an open directory; the first use mounts, later ones clone that mount.
pub(super) fn cover(target: &OwnedFd, empty: &mut Option<OwnedFd>) -> Result<(), Fault> {
    if let Some(empty) = empty {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        return Ok(paths::attach(open_tree(&*empty, c"", flags)?, target)?);
    }
    let attributes = PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let made = new_mount(
        c"tmpfs",
        &[(c"nr_inodes", c"1"), (c"mode", c"0555")],
        attributes,
    )?;
    paths::attach(&made, target)?;
    *empty = Some(made);
    Ok(())
}

/// Replaces `/etc/<name>`, whatever the image has there: a link to elsewhere is removed, not
/// followed.
pub(super) fn etc_file(root: BorrowedFd<'_>, name: &CStr, content: &[u8]) -> Result<(), Fault> {
    let etc = paths::own_dir(root, c"etc")?;
    match rustix::fs::unlinkat(&etc, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&etc, name, flags, Mode::from_raw_mode(0o644))?;
    Ok(paths::write_all(&file, content)?)
}

/// Covers a directory below a volume's root. One that is not there, or no longer by this way, is a
/// failure: nothing may show what was to be covered.
pub(super) fn cover_below(
    volume: BorrowedFd<'_>,
    within: &CStr,
    empty: &mut Option<OwnedFd>,
) -> Result<(), Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let target = paths::open(volume, within, flags, paths::STRICT)?;
    cover(&target, empty)
}

/// `pivot_root(".", ".")` stacks the old root on the new one (man page, NOTES), and the unmount
/// takes it away. Were more mounted there, whoever enters this namespace later would stand on that:
/// so it is looked at (`/..` is what is mounted on top).
pub(super) fn pivot(root: BorrowedFd<'_>) -> Result<(), Fault> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    if mount_id(root, c"")? != mount_id(CWD, c"/..")? {
        return Err(Errno::BUSY.into());
    }
    Ok(rustix::process::chdir(c"/")?)
}

fn mount_id(at: BorrowedFd<'_>, path: &CStr) -> Result<u64, Errno> {
    let found = rustix::fs::statx(at, path, AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok(found.stx_mnt_id)
}
