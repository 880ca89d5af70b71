//! Limits on XFS and ext4: each limited directory is a project with a quota.
//!
//! Project numbers have no allocator in the kernel. The directory's inode number gives one, above
//! those that people use; one that is taken already is passed over.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{DiskError, max_files, open_dir, remove_files};
use crate::sys::quota::{limit_project, project_of, project_use, set_project};

/// Our project numbers have this bit.
const OURS: u32 = 1 << 31;
/// Numbers that are tried.
const MAX_TRIES: u32 = 64;

/// Whether project quotas are kept on the directory's file system.
pub(super) fn works(dir: &OwnedFd) -> bool {
    project_use(dir.as_fd(), 0).is_ok()
}

/// The number to try first for an inode.
fn number(inode: u64) -> u32 {
    let low = u32::try_from(inode & u64::from(!OURS)).unwrap_or(0);
    OURS | low
}

/// One that nothing uses.
fn free(dir: BorrowedFd<'_>, inode: u64) -> Result<u32, Errno> {
    for try_number in 0..MAX_TRIES {
        let project = OURS | number(inode).wrapping_add(try_number);
        match project_use(dir, project) {
            Ok(found) if found.bytes == 0 && found.inodes == 0 && found.limit == 0 => {
                return Ok(project);
            }
            Ok(_) => {}
            // It was never used (XFS).
            Err(Errno::NOENT) => return Ok(project),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::AGAIN)
}

/// Makes the directory `name` with a limit and permissions; allocates nothing.
pub(super) fn make(
    parent: &OwnedFd,
    name: &CStr,
    limit: Option<u64>,
    mode: u32,
) -> Result<(), Errno> {
    make_with(parent, name, mode, |dir| limit_new(dir, limit))
}

/// Makes the directory `name` within the limit of `with`, which [`make`] made; allocates nothing.
pub(super) fn make_sharing(
    parent: &OwnedFd,
    name: &CStr,
    with: &OwnedFd,
    mode: u32,
) -> Result<(), Errno> {
    let project = project(with)?;
    make_with(parent, name, mode, |dir| set_project(dir, project))
}

fn make_with(
    parent: &OwnedFd,
    name: &CStr,
    mode: u32,
    limit: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let done =
        rustix::fs::openat(parent, name, flags, Mode::empty()).and_then(|dir| limit(dir.as_fd()));
    if done.is_err() {
        // Empty, so nothing is lost; the first failure is the one to tell.
        let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
    }
    done
}

/// Gives an empty directory a project with a limit.
fn limit_new(dir: BorrowedFd<'_>, limit: Option<u64>) -> Result<(), Errno> {
    let project = free(dir, rustix::fs::fstat(dir)?.st_ino)?;
    bound(dir, project, limit)?;
    set_project(dir, project)
}

fn bound(dir: BorrowedFd<'_>, project: u32, limit: Option<u64>) -> Result<(), Errno> {
    limit_project(dir, project, limit.map(|bytes| (bytes, max_files(bytes))))
}

/// The directory's project, if it is one of ours.
fn project(dir: &OwnedFd) -> Result<u32, Errno> {
    let project = project_of(dir.as_fd())?;
    if project & OURS == 0 {
        return Err(Errno::NOENT);
    }
    Ok(project)
}

/// Changes the limit.
pub(super) fn set_limit(dir: &OwnedFd, limit: Option<u64>) -> Result<(), Errno> {
    bound(dir.as_fd(), project(dir)?, limit)
}

/// Bytes and files that the project uses.
pub(super) fn usage(dir: &OwnedFd) -> Result<(u64, u64), Errno> {
    let used = project_use(dir.as_fd(), project(dir)?)?;
    Ok((used.bytes, used.inodes))
}

/// Removes the directory and its limit.
pub(super) fn remove(dir: &Path) -> Result<(), DiskError> {
    let opened = open_dir(dir)?;
    let limited = project(&opened);
    remove_files(dir)?;
    if let Ok(project) = limited {
        // The number is free again once it has no limit; with one it is only passed over.
        let _ = bound(opened.as_fd(), project, None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_above_those_that_people_use() {
        assert_eq!(number(5), OURS | 5);
        assert_eq!(number(u64::MAX), u32::MAX);
        assert_eq!(number(1 << 40 | 7), OURS | 7);
    }
}
