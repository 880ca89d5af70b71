//! The root and the mounts of an OCI configuration.
//!
//! Every mount is made detached and then attached to a directory or file that was opened below the
//! root's descriptor, so that no name is resolved twice.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree, unmount,
};

use super::super::root::new_mount;
use super::super::{Fault, cgroups, paths};
use super::{copy, reach};
use crate::plan::{CgroupTop, CgroupTree, InsideTree, OciMount, Shown};
use crate::sys;

/// Sets the propagation of the mount at `path`; `flags` are `MS_*`.
pub(super) fn propagation(path: &CStr, flags: u32) -> Result<(), Fault> {
    let flags = MountPropagationFlags::from_bits_retain(flags);
    Ok(mount_change(path, flags)?)
}

/// Attaches the root's tree where it came from, so that the runtime's and the container's hooks find
/// it there; a place that root of a user namespace may not reach is done without.
pub(super) fn root(tree: i32, at: &CStr, root: &mut Option<OwnedFd>) -> Result<(), Fault> {
    let tree = rustix::io::fcntl_dupfd_cloexec(sys::oci::borrow(tree), 0)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    match move_mount(&tree, c"", CWD, at, flags) {
        Err(Errno::ACCESS) => move_mount(&tree, c"", CWD, c"/", flags)?,
        done => done?,
    }
    *root = Some(tree);
    Ok(())
}

/// Moves the new root over the old one, for hosts whose root is the first file system.
pub(super) fn move_root(root: BorrowedFd<'_>) -> Result<(), Fault> {
    // What else is mounted must not be reachable: /proc and /sys of the host would not be masked.
    rustix::process::fchdir(root)?;
    for path in [c"/proc", c"/sys"] {
        match unmount(path, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, c"", CWD, c"/", flags)?;
    rustix::process::chroot(c".")?;
    Ok(rustix::process::chdir(c"/")?)
}

/// Makes one mount.
pub(super) fn mount(root: BorrowedFd<'_>, mount: &OciMount) -> Result<(), Fault> {
    match &mount.shown {
        Shown::Inside(inside) => {
            let tree = own_tree(root, inside)?;
            let target = target(root, mount, is_dir(&tree)?)?;
            paths::attach(&tree, target)?;
            propagate(tree.as_fd(), &mount.propagation)
        }
        Shown::Tree { tree, is_dir } => {
            let tree = sys::oci::borrow(*tree);
            let target = target(root, mount, *is_dir)?;
            paths::attach(tree, target)?;
            propagate(tree, &mount.propagation)
        }
        Shown::New {
            kind,
            options,
            pids,
        } => {
            let there = paths::open(root, &mount.at.path, paths::DIR, paths::WITHIN).is_ok();
            let target = target(root, mount, true)?;
            let covered = (mount.keep_mode && there).then_some(&target);
            let made = new_file_system(kind, options, *pids, mount, covered)?;
            if mount.copy_up {
                copy::tree(&target, &made)?;
                let read_only = mount.attributes & sys::mount_attr::RDONLY;
                sys::mount_change(made.as_fd(), read_only, 0, 0, false)?;
            }
            paths::attach(&made, &target)?;
            propagate(made.as_fd(), &mount.propagation)
        }
        Shown::Cgroups { top, trees } => show_cgroups(root, mount, top, trees),
    }
}

fn target(root: BorrowedFd<'_>, mount: &OciMount, is_dir: bool) -> Result<OwnedFd, Fault> {
    if mount.strict {
        return Ok(paths::own_dir(root, &mount.at.path)?);
    }
    let made = if is_dir {
        paths::make_dirs(root, &mount.at)
    } else {
        paths::make_file(root, &mount.at)
    };
    match made {
        // A link to nothing may be in the way.
        Err(Errno::NOENT | Errno::EXIST) => Ok(reach::make(root, &mount.at.path, is_dir)?),
        done => Ok(done?),
    }
}

fn propagate(mount: BorrowedFd<'_>, flags: &[u32]) -> Result<(), Fault> {
    let recursive = MountPropagationFlags::REC.bits();
    for flag in flags {
        let kind = u64::from(*flag & !recursive);
        sys::mount_change(mount, 0, 0, kind, *flag & recursive != 0)?;
    }
    Ok(())
}

/// Clones what an earlier mount, or the image, shows in the container itself.
fn own_tree(root: BorrowedFd<'_>, inside: &InsideTree) -> Result<OwnedFd, Fault> {
    let found = paths::open(root, &inside.from.path, OFlags::PATH, paths::WITHIN)?;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if inside.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(&found, c"", flags)?;
    for (set, clear, below) in inside.changes {
        if set != 0 || clear != 0 {
            sys::mount_change(tree.as_fd(), set, clear, 0, below)?;
        }
    }
    if let Some((users, below)) = inside.users {
        sys::users::map_mount_ids(tree.as_fd(), sys::oci::borrow(users), below)?;
    }
    Ok(tree)
}

/// Makes a detached file system. A tmpfs without a mode of its own takes that of the directory it
/// covers, as runc has it.
fn new_file_system(
    kind: &CStr,
    options: &[(std::ffi::CString, Option<std::ffi::CString>)],
    pids: Option<i32>,
    mount: &OciMount,
    covered: Option<&OwnedFd>,
) -> Result<OwnedFd, Fault> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_c_str(), value.as_c_str())?,
            None => fsconfig_set_flag(&context, key.as_c_str())?,
        }
    }
    if let Some(pids) = pids {
        fsconfig_set_fd(&context, c"pidns", sys::oci::borrow(pids))?;
    }
    if let Some(covered) = covered {
        let mode = rustix::fs::fstat(covered)?.st_mode & 0o7777;
        let mut digits = [0; 5];
        for (place, digit) in digits[..4].iter_mut().enumerate() {
            *digit = b'0' + u8::try_from(mode >> (9 - 3 * place) & 7).unwrap_or(0);
        }
        let text = CStr::from_bytes_until_nul(&digits).map_err(|_| Errno::INVAL)?;
        fsconfig_set_string(&context, c"mode", text)?;
    }
    fsconfig_create(&context)?;
    let mut attributes = mount.attributes;
    if mount.copy_up {
        attributes &= !sys::mount_attr::RDONLY;
    }
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// A tmpfs with one directory for each tree.
fn show_cgroups(
    root: BorrowedFd<'_>,
    mount: &OciMount,
    names: &CgroupTop,
    trees: &[CgroupTree],
) -> Result<(), Fault> {
    let target = paths::make_dirs(root, &mount.at)?;
    let read_only = mount.attributes & sys::mount_attr::RDONLY;
    let attributes = u32::try_from(mount.attributes & !read_only).unwrap_or(0);
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    let top = cgroups::top(names, mount.attributes)?;
    paths::attach(&top, target)?;
    for tree in trees {
        if let Some(own) = tree.own {
            let own = sys::oci::borrow(own);
            cgroups::place(&top, &tree.name, own, mount.attributes)?;
        } else {
            let made = cgroup_tree(tree.controllers.as_deref(), attributes)?;
            cgroups::place(&top, &tree.name, made.as_fd(), read_only)?;
        }
    }
    sys::mount_change(top.as_fd(), read_only, 0, 0, false)?;
    propagate(top.as_fd(), &mount.propagation)
}

fn cgroup_tree(controllers: Option<&CStr>, attributes: MountAttrFlags) -> Result<OwnedFd, Fault> {
    let Some(controllers) = controllers else {
        return Ok(new_mount(c"cgroup2", &[], attributes)?);
    };
    let context = fsopen(c"cgroup", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if controllers.to_bytes().starts_with(b"name=") {
        fsconfig_set_flag(&context, c"none")?;
        let name = &controllers.to_bytes_with_nul()[b"name=".len()..];
        let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?;
        fsconfig_set_string(&context, c"name", name)?;
    } else {
        for controller in controllers.to_bytes().split(|byte| *byte == b',') {
            let mut name = [0; 32];
            let room = name.get_mut(..controller.len()).ok_or(Errno::NAMETOOLONG)?;
            room.copy_from_slice(controller);
            let name = CStr::from_bytes_until_nul(&name).map_err(|_| Errno::INVAL)?;
            fsconfig_set_flag(&context, name)?;
        }
    }
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Whether an open file is a directory.
pub(super) fn is_dir(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode).is_dir())
}
