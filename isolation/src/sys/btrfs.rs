//! btrfs's own calls (`linux/btrfs.h`, `linux/btrfs_tree.h`): subvolumes and quota groups.
//!
//! Numbers and layouts only; nothing here allocates.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::check;

/// Longest name of a subvolume: that of a file.
const MAX_NAME_BYTES: usize = 255;
/// The tree that holds quota groups (`BTRFS_QUOTA_TREE_OBJECTID`).
const QUOTA_TREE: u64 = 8;
/// The root directory of each subvolume (`BTRFS_FIRST_FREE_OBJECTID`).
const FIRST_FREE: u64 = 256;

const READ: u64 = 2;
const WRITE: u64 = 1;

/// `_IOC` of `asm-generic/ioctl.h` for btrfs's 0x94.
const fn number(direction: u64, number: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | 0x94 << 8 | number
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolumeArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InodeLookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_search_key`.
#[repr(C)]
struct SearchKey {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_generation: u64,
    max_generation: u64,
    min_type: u32,
    max_type: u32,
    items: u32,
    unused: [u32; 9],
}

/// `struct btrfs_ioctl_search_args`.
#[repr(C)]
struct SearchArgs {
    key: SearchKey,
    buffer: [u8; 3992],
}

/// `struct btrfs_ioctl_search_header`, in bytes.
const HEADER_BYTES: usize = 32;

/// What is asked of `BTRFS_IOC_QUOTA_CTL`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum QuotaControl {
    /// Full quota groups.
    Enable = 1,
    /// Simple ones: each extent counts for who wrote it first (Linux 6.7).
    EnableSimple = 4,
}

/// Items of the quota tree (`BTRFS_QGROUP_*_KEY`).
#[derive(Clone, Copy, Debug)]
pub(crate) enum QuotaItem {
    /// Whether and how quotas are kept.
    Status = 240,
    /// What one group uses.
    Info = 242,
}

fn call<T>(fd: BorrowedFd<'_>, number: u64, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: `number` names a btrfs ioctl whose argument is a `T` (both carry its size), which is
    // live and writable here; on another file system the kernel answers ENOTTY.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(argument)) };
    check(libc::c_long::from(done))
}

fn volume(fd: BorrowedFd<'_>, number_in_header: u64, name: &CStr) -> Result<(), Errno> {
    let bytes = name.to_bytes();
    if bytes.len() > MAX_NAME_BYTES {
        return Err(Errno::NAMETOOLONG);
    }
    let mut args = VolumeArgs {
        fd: 0,
        name: [0; 4088],
    };
    args.name[..bytes.len()].copy_from_slice(bytes);
    let size = std::mem::size_of::<VolumeArgs>();
    call(fd, number(WRITE, number_in_header, size), &mut args)
}

/// Makes the subvolume `name` in the directory.
pub(crate) fn subvolume_create(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    volume(parent, 14, name)
}

/// Deletes the subvolume `name` of the directory, with all that is in it but other subvolumes.
pub(crate) fn subvolume_delete(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    volume(parent, 15, name)
}

/// The number of the subvolume that the file is in.
pub(crate) fn subvolume_id(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut args = InodeLookup {
        tree: 0,
        object: FIRST_FREE,
        name: [0; 4080],
    };
    let size = std::mem::size_of::<InodeLookup>();
    call(file, number(READ | WRITE, 18, size), &mut args)?;
    Ok(args.tree)
}

/// Turns quotas on.
pub(crate) fn quota_control(fs: BorrowedFd<'_>, what: QuotaControl) -> Result<(), Errno> {
    let mut args = [what as u64, 0];
    call(fs, number(READ | WRITE, 40, 16), &mut args)
}

/// Makes or removes a quota group.
pub(crate) fn group_make(fs: BorrowedFd<'_>, group: u64, make: bool) -> Result<(), Errno> {
    let mut args = [u64::from(make), group];
    call(fs, number(WRITE, 42, 16), &mut args)
}

/// Puts quota group `member` into `group`.
pub(crate) fn group_assign(fs: BorrowedFd<'_>, member: u64, group: u64) -> Result<(), Errno> {
    let mut args = [1, member, group];
    call(fs, number(WRITE, 41, 24), &mut args)
}

/// Bounds what a group refers to, in bytes; None takes the bound away.
pub(crate) fn group_limit(fs: BorrowedFd<'_>, group: u64, bytes: Option<u64>) -> Result<(), Errno> {
    // BTRFS_QGROUP_LIMIT_MAX_RFER; -1 clears it.
    let mut args = [group, 1, bytes.unwrap_or(u64::MAX), 0, 0, 0];
    // The header says _IOR of 48 bytes, though the kernel reads them.
    call(fs, number(READ, 43, 48), &mut args)
}

/// Calls `each` with the group number and content of every item of this kind in `from..=to`.
pub(crate) fn quota_items(
    fs: BorrowedFd<'_>,
    kind: QuotaItem,
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, &[u8]),
) -> Result<(), Errno> {
    let mut next = from;
    loop {
        let mut args = SearchArgs {
            key: SearchKey {
                tree: QUOTA_TREE,
                min_object: 0,
                max_object: 0,
                min_offset: next,
                max_offset: to,
                min_generation: 0,
                max_generation: u64::MAX,
                min_type: kind as u32,
                max_type: kind as u32,
                items: 64,
                unused: [0; 9],
            },
            buffer: [0; 3992],
        };
        call(fs, number(READ | WRITE, 17, 4096), &mut args)?;
        let mut rest = &args.buffer[..];
        let mut last = None;
        for _ in 0..args.key.items {
            let Some((header, after)) = rest.split_at_checked(HEADER_BYTES) else {
                return Err(Errno::INVAL);
            };
            let offset = header.get(16..).and_then(|tail| tail.first_chunk::<8>());
            let offset = u64::from_ne_bytes(*offset.ok_or(Errno::INVAL)?);
            let size = header.get(28..).and_then(|tail| tail.first_chunk::<4>());
            let size = u32::from_ne_bytes(*size.ok_or(Errno::INVAL)?);
            let size = usize::try_from(size).map_err(|_| Errno::INVAL)?;
            let (content, after) = after.split_at_checked(size).ok_or(Errno::INVAL)?;
            each(offset, content);
            last = Some(offset);
            rest = after;
        }
        match last {
            Some(last) if last < to => next = last + 1,
            _ => return Ok(()),
        }
    }
}

/// The 64-bit number at `at` of an item's content: the file system stores them little-endian.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(std::mem::size_of::<VolumeArgs>(), 4096);
        assert_eq!(std::mem::size_of::<InodeLookup>(), 4096);
        assert_eq!(std::mem::size_of::<SearchKey>(), 104);
        assert_eq!(std::mem::size_of::<SearchArgs>(), 4096);
        // BTRFS_IOC_SUBVOL_CREATE, _TREE_SEARCH, _QUOTA_CTL and _QGROUP_LIMIT.
        assert_eq!(number(WRITE, 14, 4096), 0x5000_940e);
        assert_eq!(number(READ | WRITE, 17, 4096), 0xd000_9411);
        assert_eq!(number(READ | WRITE, 40, 16), 0xc010_9428);
        assert_eq!(number(READ, 43, 48), 0x8030_942b);
    }
}
