//! The change from a process outside the container's PID namespace to the one inside.
//!
//! Who holds `CAP_SYS_PTRACE` inside reaches everything that a process there has open: its root, its
//! working directory, its descriptors. So a process that joins a PID namespace in which others run is
//! seen there only once all of these are the container's, and its rights too wherever the kernel
//! allows: an intermediate process outside does the steps before, closes what is the host's, and makes
//! the last one as its sibling, a child of the runtime.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;

use super::super::Fault;
use super::link::Link;
use crate::plan::MAX_KEPT;
use crate::sys::{self, Cloned, clone_flags};

/// Closes what is the host's. The root, the mounts and the cgroups are done with by now.
pub(super) fn settle(
    first: u32,
    keep: &[i32],
    link: &Link,
    cwd: Option<&OwnedFd>,
) -> Result<(), Fault> {
    let ([sync, start], number) = link.numbers();
    let sync = sync.ok_or(Errno::BADF)?;
    let fixed = [Some(sync), start, number, cwd.map(AsRawFd::as_raw_fd)];
    let mut all = [sync.unsigned_abs(); 4 + MAX_KEPT];
    let more = keep.iter().copied().filter(|one| *one >= 0).map(Some);
    for (place, one) in all.iter_mut().zip(fixed.into_iter().chain(more)) {
        // One that is not there is the same as one that is kept already.
        *place = one.unwrap_or(sync).unsigned_abs();
    }
    Ok(sys::oci::close_all_but(first, &mut all)?)
}

/// Returns in the new process only.
pub(super) fn birth(terminal: bool, link: &Link) -> Result<(), Fault> {
    let number = link.numbers().1.ok_or(Errno::BADF)?;
    match sys::clone3(clone_flags::PARENT, None)? {
        Cloned::Child => {
            sys::oci::close(number);
            let _ = rustix::process::setsid();
            if terminal {
                rustix::process::ioctl_tiocsctty(sys::oci::borrow(0))?;
            }
            Ok(())
        }
        Cloned::Parent(pid, _) => {
            // Four bytes fit a pipe; without the runtime there is nobody to tell.
            let _ = rustix::io::write(sys::oci::borrow(number), &pid.to_ne_bytes());
            sys::exit_now(0)
        }
    }
}
