//! System calls around user namespaces.
//!
//! It decides nothing; numbers are those of `linux/mount.h`.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::{MountAttr, set_attributes};

/// `MOUNT_ATTR_IDMAP`.
const IDMAP: u64 = 0x0010_0000;

/// Lets the ids of a detached mount appear as `users`, a user namespace, maps them (Linux 5.12).
pub(crate) fn map_mount_ids(
    mount: BorrowedFd<'_>,
    users: BorrowedFd<'_>,
    recursive: bool,
) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(users.as_raw_fd().unsigned_abs()),
    };
    set_attributes(mount, &attr, recursive)
}

/// Sets the ids that files are made and reached with (`setfsuid(2)`); all else stays.
pub(crate) fn set_file_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    // These calls return the previous number and never an error: asking again tells.
    const ASK: u32 = u32::MAX;
    // SAFETY: they take a number. By the system call itself, for this thread alone.
    let now = |call, id: u32| unsafe {
        libc::syscall(call, id);
        libc::syscall(call, ASK)
    };
    let (gid_now, uid_now) = (now(libc::SYS_setfsgid, gid), now(libc::SYS_setfsuid, uid));
    if gid_now == i64::from(gid) && uid_now == i64::from(uid) {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// A descriptor at a number where it stays until exec or the end.
pub(crate) fn borrow_fd(number: i32) -> BorrowedFd<'static> {
    // SAFETY: callers pass a number that was placed for this child and is closed by exec alone.
    unsafe { BorrowedFd::borrow_raw(number) }
}
