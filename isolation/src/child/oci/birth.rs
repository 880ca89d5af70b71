//! The change from a process outside the container's PID namespace to the one inside.
//!
//! Who holds `CAP_SYS_PTRACE` inside reaches everything that a process there has open: its root, its
//! working directory, its descriptors. So a process that joins a running container is seen inside
//! only once all of these are the container's, and its rights too wherever the kernel allows: an
//! intermediate process outside does the steps before, closes what is the host's, and makes the last
//! one as its sibling, a child of the runtime.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;

use super::super::Fault;
use super::link::Link;
use crate::sys::{self, Cloned, clone_flags};

/// Returns in the new process only.
pub(super) fn birth(
    first: u32,
    terminal: bool,
    link: &Link,
    dirs: [Option<&OwnedFd>; 2],
) -> Result<(), Fault> {
    let (shared, number) = link.numbers();
    let number = number.ok_or(Errno::BADF)?;
    let [root, cwd] = dirs.map(|dir| dir.map(AsRawFd::as_raw_fd));
    let [sync, start] = shared;
    // One that is not there is the same as one that is kept already.
    let mut keep =
        [Some(number), root, cwd, sync, start].map(|one| one.unwrap_or(number).unsigned_abs());
    sys::oci::close_all_but(first, &mut keep)?;
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
