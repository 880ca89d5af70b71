//! Limits on btrfs: each limited directory is a subvolume in a quota group of its own, of a level
//! that is ours.
//!
//! The limit is on the group above the subvolume's own, since with simple quotas a subvolume made
//! inside another one counts for the groups that the outer one is in: whoever may write to a
//! directory may make subvolumes there. What is made here and in the child that starts a container
//! is the same; [`make`] therefore allocates nothing.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, StatFs};
use rustix::io::Errno;

use super::{DiskError, failed, open_dir, remove_files, split};
use crate::sys::btrfs::{
    QuotaControl, QuotaItem, group_assign, group_limit, group_make, quota_control, quota_items,
    subvolume_create, subvolume_delete, subvolume_id, word,
};

/// `BTRFS_SUPER_MAGIC` of `linux/magic.h`.
const MAGIC: u64 = 0x9123_683e;
/// The level of our groups; people and tools use 0 and 1.
const LEVEL: u64 = 71;
/// A group's number is its level here and above, and the subvolume's below.
const LEVEL_SHIFT: u32 = 48;
/// `BTRFS_QGROUP_STATUS_FLAG_ON` and `_SIMPLE_MODE`.
const ON: u64 = 1;
const SIMPLE: u64 = 8;
/// The inode of each subvolume's root (`BTRFS_FIRST_FREE_OBJECTID`), and of nothing else.
const ROOT_INODE: u64 = 256;
/// How often a group is made that someone sweeping up took for an abandoned one.
const MAX_TRIES: usize = 8;

/// How btrfs keeps quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotas {
    /// By who wrote an extent first (Linux 6.7).
    Simple,
    /// By who refers to an extent.
    Full,
}

/// Whether this is btrfs.
pub(crate) fn is(found: &StatFs) -> bool {
    u64::try_from(found.f_type) == Ok(MAGIC)
}

/// How quotas are kept; None when they are off, or not ours to see.
pub(super) fn quotas(dir: &OwnedFd) -> Option<Quotas> {
    let mut flags = 0;
    // struct btrfs_qgroup_status_item: version, generation, flags.
    quota_items(dir.as_fd(), QuotaItem::Status, 0, 0, |_, item| {
        flags = word(item, 16).unwrap_or(0);
    })
    .ok()?;
    match flags & (ON | SIMPLE) {
        ON => Some(Quotas::Full),
        both if both & ON != 0 => Some(Quotas::Simple),
        _ => None,
    }
}

/// Turns simple quotas on, or full ones where the kernel has no others.
pub(super) fn enable(dir: &OwnedFd) -> Result<(), Errno> {
    match quota_control(dir.as_fd(), QuotaControl::EnableSimple) {
        Err(Errno::INVAL | Errno::OPNOTSUPP) => quota_control(dir.as_fd(), QuotaControl::Enable),
        done => done,
    }
}

fn group_of(subvolume: u64) -> u64 {
    LEVEL << LEVEL_SHIFT | subvolume
}

/// Makes the subvolume `name` with a limit and permissions.
pub(crate) fn make(
    parent: impl AsFd,
    name: &CStr,
    limit: Option<u64>,
    mode: u32,
) -> Result<(), Errno> {
    let parent = parent.as_fd();
    subvolume_create(parent, name)?;
    let done = limit_new(parent, name, limit, mode);
    if done.is_err() {
        // Empty, so nothing else is lost; the first failure is the one to tell.
        let _ = subvolume_delete(parent, name);
    }
    done
}

/// Makes the subvolume `name` within the limit of `with`, which [`make`] made.
pub(crate) fn make_sharing(
    parent: impl AsFd,
    name: &CStr,
    with: &OwnedFd,
    mode: u32,
) -> Result<(), Errno> {
    let parent = parent.as_fd();
    let group = group_of(subvolume_id(with.as_fd())?);
    subvolume_create(parent, name)?;
    let join = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
        group_assign(made.as_fd(), subvolume_id(made.as_fd())?, group)
    };
    let done = join();
    if done.is_err() {
        // As above.
        let _ = subvolume_delete(parent, name);
    }
    done
}

fn limit_new(
    parent: BorrowedFd<'_>,
    name: &CStr,
    limit: Option<u64>,
    mode: u32,
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
    let made = made.as_fd();
    let subvolume = subvolume_id(made)?;
    let group = group_of(subvolume);
    for _ in 0..MAX_TRIES {
        match group_make(made, group, true) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        // Before it is in use, so that it never is without.
        let used =
            group_limit(made, group, limit).and_then(|()| group_assign(made, subvolume, group));
        match used {
            // Another process that sweeps up found it empty.
            Err(Errno::NOENT | Errno::INVAL) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

/// Changes the limit.
pub(super) fn set_limit(dir: &OwnedFd, limit: Option<u64>) -> Result<(), Errno> {
    let dir = dir.as_fd();
    group_limit(dir, group_of(subvolume_id(dir)?), limit)
}

/// What the subvolume, with those made in it, refers to as of the last commit.
pub(super) fn usage(dir: &OwnedFd) -> Result<u64, Errno> {
    let dir = dir.as_fd();
    let group = group_of(subvolume_id(dir)?);
    let mut bytes = None;
    // struct btrfs_qgroup_info_item: generation, referenced.
    quota_items(dir, QuotaItem::Info, group, group, |_, item| {
        bytes = word(item, 8);
    })?;
    bytes.ok_or(Errno::NOENT)
}

/// Deletes a subvolume and its groups; a plain directory is removed like any other.
pub(super) fn remove(dir: &Path) -> Result<(), DiskError> {
    let (parent, name) = split(dir)?;
    let opened = open_dir(dir)?;
    let found = rustix::fs::fstat(&opened).map_err(failed("look at", dir))?;
    if found.st_ino != ROOT_INODE {
        return remove_files(dir);
    }
    let subvolume = subvolume_id(opened.as_fd()).map_err(failed("look at", dir))?;
    drop(opened);
    match subvolume_delete(parent.as_fd(), &name) {
        Ok(()) => {}
        // With others inside, which go when their directories are removed.
        Err(Errno::NOTEMPTY) => remove_files(dir)?,
        Err(errno) => return Err(failed("delete the subvolume", dir)(errno)),
    }
    forget_groups(&parent, subvolume);
    Ok(())
}

/// Removes the groups of a deleted subvolume. The kernel says "busy" while it still frees what was
/// in it; then our group stays until the next one is removed.
fn forget_groups(parent: &OwnedFd, subvolume: u64) {
    let fs = parent.as_fd();
    // Whatever of this fails leaves an empty group, which limits nothing: newer kernels remove the
    // subvolume's own themselves. It is not taken out of ours first: with full quotas that may cost
    // a rescan of the whole file system.
    let _ = group_make(fs, subvolume, false);
    let mut found = [0; 64];
    let mut count = 0;
    let (first, last) = (LEVEL << LEVEL_SHIFT, ((LEVEL + 1) << LEVEL_SHIFT) - 1);
    let listed = quota_items(fs, QuotaItem::Info, first, last, |group, _| {
        if let Some(place) = found.get_mut(count) {
            *place = group;
            count += 1;
        }
    });
    if listed.is_ok() {
        for group in &found[..count] {
            // Refused while a subvolume is in it.
            let _ = group_make(fs, *group, false);
        }
    }
}
