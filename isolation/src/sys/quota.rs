//! Project quotas (`quotactl_fd(2)`, Linux 5.14; `FS_IOC_FSSETXATTR`), as XFS and ext4 have them.
//!
//! Numbers and layouts of `linux/quota.h`, `linux/dqblk_xfs.h` and `linux/fs.h` only.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::check;

/// `PRJQUOTA`.
const PROJECT: u32 = 2;
const GET_QUOTA: u32 = 0x0080_0007;
const SET_QUOTA: u32 = 0x0080_0008;
/// `QIF_BLIMITS` and `QIF_ILIMITS`: the limits on space and on files are set.
const LIMITS: u32 = 1 | 4;
/// Limits are in blocks of this size (`QIF_DQBLKSIZE`).
const BLOCK_BYTES: u64 = 1024;
/// What is made in the directory belongs to its project (`FS_XFLAG_PROJINHERIT`).
const INHERIT: u32 = 0x200;
const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Debug, Default)]
struct QuotaBlock {
    hard_blocks: u64,
    soft_blocks: u64,
    space: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Debug, Default)]
struct FileAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

/// What a project uses and may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProjectUse {
    /// Bytes in use.
    pub(crate) bytes: u64,
    /// Files in use.
    pub(crate) inodes: u64,
    /// Bound in bytes, 0 for none.
    pub(crate) limit: u64,
}

fn quota_call(
    file: BorrowedFd<'_>,
    command: u32,
    project: u32,
    block: &mut QuotaBlock,
) -> Result<(), Errno> {
    // SAFETY: both commands take an if_dqblk, which `block` is, live and writable.
    let done = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd(),
            command << 8 | PROJECT,
            project,
            std::ptr::from_mut(block),
        )
    };
    check(done)
}

/// What a project uses on the file's file system.
pub(crate) fn project_use(file: BorrowedFd<'_>, project: u32) -> Result<ProjectUse, Errno> {
    let mut block = QuotaBlock::default();
    quota_call(file, GET_QUOTA, project, &mut block)?;
    Ok(ProjectUse {
        bytes: block.space,
        inodes: block.inodes,
        limit: block.hard_blocks.saturating_mul(BLOCK_BYTES),
    })
}

/// Bounds what a project may use, in bytes rounded up to 1024 and in files; None takes the bounds
/// away.
pub(crate) fn limit_project(
    file: BorrowedFd<'_>,
    project: u32,
    bounds: Option<(u64, u64)>,
) -> Result<(), Errno> {
    // 0 would mean no limit.
    let blocks = bounds.map_or(0, |(bytes, _)| bytes.div_ceil(BLOCK_BYTES).max(1));
    let files = bounds.map_or(0, |(_, files)| files.max(1));
    let mut block = QuotaBlock {
        hard_blocks: blocks,
        soft_blocks: blocks,
        hard_inodes: files,
        soft_inodes: files,
        valid: LIMITS,
        ..QuotaBlock::default()
    };
    quota_call(file, SET_QUOTA, project, &mut block)
}

fn attributes(
    file: BorrowedFd<'_>,
    number: u64,
    attributes: &mut FileAttributes,
) -> Result<(), Errno> {
    // SAFETY: both numbers take an fsxattr, which `attributes` is, live and writable.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), number, std::ptr::from_mut(attributes)) };
    check(libc::c_long::from(done))
}

/// The project that a directory belongs to; 0 is everything that was never given one.
pub(crate) fn project_of(dir: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut found = FileAttributes::default();
    attributes(dir, FS_IOC_FSGETXATTR, &mut found)?;
    Ok(found.project)
}

/// Gives an empty directory, and what will be made in it, to a project.
pub(crate) fn set_project(dir: BorrowedFd<'_>, project: u32) -> Result<(), Errno> {
    let mut found = FileAttributes::default();
    attributes(dir, FS_IOC_FSGETXATTR, &mut found)?;
    found.project = project;
    found.flags |= INHERIT;
    attributes(dir, FS_IOC_FSSETXATTR, &mut found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(std::mem::size_of::<FileAttributes>(), 28);
        assert_eq!(std::mem::size_of::<QuotaBlock>(), 72);
        assert_eq!(std::mem::offset_of!(QuotaBlock, space), 16);
        assert_eq!(std::mem::offset_of!(QuotaBlock, valid), 64);
        assert_eq!(std::mem::offset_of!(FileAttributes, project), 12);
        // QCMD(Q_SETQUOTA, PRJQUOTA).
        assert_eq!(SET_QUOTA << 8 | PROJECT, 0x8000_0802);
    }
}
