//! System calls that only containers made from an OCI configuration need.
//!
//! It decides nothing; numbers are those of `linux/prctl.h`, `linux/ioprio.h` and
//! `linux/sched/types.h`.

use std::ffi::{c_int, c_long};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::{check, last_errno};

/// Marks every descriptor from `first` on to be closed by exec.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: close_range(2) takes numbers and, with this flag (Linux 5.11), closes nothing.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    check(done)
}

/// Closes every descriptor from `first` on but those of `keep`, which is sorted here.
pub(crate) fn close_all_but(first: u32, keep: &mut [u32]) -> Result<(), Errno> {
    keep.sort_unstable();
    let mut from = first;
    for &number in keep.iter().filter(|number| **number >= first) {
        if number > from {
            close_range(from, number - 1)?;
        }
        from = number + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: the caller is a child that leaves by exec or _exit and uses only what it keeps, so
    // whatever owns a number in its copy of memory is never dropped.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// A descriptor that is named by its number in a plan and stays open until exec.
pub(crate) fn borrow(number: i32) -> BorrowedFd<'static> {
    // SAFETY: plans name descriptors that the runtime keeps open, in a process that runs one plan
    // and leaves by exec or _exit.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Closes one descriptor of a child that its parent goes on using.
pub(crate) fn close(number: i32) {
    // SAFETY: the caller is a child that leaves by exec or _exit, so whatever owns the number in its
    // copy of memory is never dropped.
    unsafe { libc::close(number) };
}

/// Sets the execution domain.
pub(crate) fn personality(domain: u64) -> Result<(), Errno> {
    // SAFETY: personality(2) takes a number.
    check(unsafe { libc::syscall(libc::SYS_personality, domain) })
}

/// Sets the block I/O priority of this process.
pub(crate) fn io_priority(value: i32) -> Result<(), Errno> {
    const WHO_PROCESS: c_int = 1;
    // SAFETY: ioprio_set(2) takes numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) })
}

/// Sets one resource limit, by the kernel's number.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = [soft, hard];
    let old: *mut u64 = std::ptr::null_mut();
    // SAFETY: two u64 are an rlimit64, and no old one is asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), old) })
}

/// `struct sched_attr`, version 0 (48 bytes).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SchedAttr {
    /// Bytes of this structure.
    pub(crate) size: u32,
    /// `SCHED_*`.
    pub(crate) policy: u32,
    /// `SCHED_FLAG_*`.
    pub(crate) flags: u64,
    /// Niceness.
    pub(crate) nice: i32,
    /// Static priority.
    pub(crate) priority: u32,
    /// Nanoseconds.
    pub(crate) runtime: u64,
    /// Nanoseconds.
    pub(crate) deadline: u64,
    /// Nanoseconds.
    pub(crate) period: u64,
}

/// Sets a process's scheduling policy.
pub(crate) fn schedule(pid: i32, attr: &SchedAttr) -> Result<(), Errno> {
    let attr = SchedAttr { size: 48, ..*attr };
    let pointer: *const SchedAttr = &raw const attr;
    // SAFETY: `attr` is a live sched_attr whose size field holds its size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, pointer, 0) })
}

/// Waits for one child to end; its raw status.
pub(crate) fn wait_for(pid: i32) -> Result<i32, Errno> {
    let mut raw: c_int = 0;
    loop {
        // SAFETY: `raw` is a live int.
        let done = unsafe { libc::waitpid(pid, &raw mut raw, 0) };
        if done >= 0 {
            return Ok(raw);
        }
        match last_errno() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
}

/// Waits until a child has ended without collecting it.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>, timeout_ms: i32) -> Result<bool, Errno> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::from(timeout_ms / 1000),
        tv_nsec: c_long::from(timeout_ms % 1000) * 1_000_000,
    };
    match poll(&mut fds, (timeout_ms >= 0).then_some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}
