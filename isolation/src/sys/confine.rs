//! System calls by which a process confines itself: filters and Landlock.
//!
//! It decides nothing; numbers and layouts are those of `linux/seccomp.h` and `linux/landlock.h`.

use std::ffi::c_long;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{sock_filter, sock_fprog};
use rustix::io::Errno;

use super::{check, last_errno};

/// Loads a filter of system calls for this thread (`seccomp(2)`), with `SECCOMP_FILTER_FLAG_*`.
pub(crate) fn load_filter(instructions: &[sock_filter], flags: u32) -> Result<(), Errno> {
    let program = sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| Errno::INVAL)?,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: `program` names `len` live instructions, which the kernel copies and does not change.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })
}

const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
const LANDLOCK_RULE_PATH_BENEATH: u32 = 1;

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// Which version of Landlock the kernel has; an error when none, or when it is switched off.
pub(crate) fn landlock_version() -> Result<u32, Errno> {
    let attr: *const u64 = std::ptr::null();
    // SAFETY: with this flag the call reads no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            attr,
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    check(version)?;
    u32::try_from(version).map_err(|_| Errno::OVERFLOW)
}

/// Makes a set of rules that denies these accesses to files wherever no rule allows them.
pub(crate) fn landlock_ruleset(denied: u64) -> Result<OwnedFd, Errno> {
    // SAFETY: the first version of landlock_ruleset_attr is this one number, of the size passed.
    let made = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const denied,
            std::mem::size_of::<u64>(),
            0,
        )
    };
    check(made)?;
    let made = i32::try_from(made).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Allows these accesses to a file or to all below a directory.
pub(crate) fn landlock_allow(
    rules: BorrowedFd<'_>,
    path: BorrowedFd<'_>,
    allowed: u64,
) -> Result<(), Errno> {
    let attr = PathBeneath {
        allowed_access: allowed,
        parent_fd: path.as_raw_fd(),
    };
    // SAFETY: `attr` is a live landlock_path_beneath_attr.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const attr,
            0,
        )
    })
}

/// Confines this thread, and what it starts, to the rules.
pub(crate) fn landlock_confine(rules: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the call takes numbers.
    let done: c_long =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}
