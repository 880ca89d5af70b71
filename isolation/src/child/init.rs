//! The tiny PID 1: reaps whatever is orphaned to it, forwards signals to every process in the
//! namespace, and tells the keeper how the command ended.
//!
//! It deliberately runs no program and reads no input. It stays a copy of the keeper that is not
//! dumpable, so nothing in the container can open `/proc/1/exe` or its memory (CVE-2019-5736), and
//! keeps one capability. When the command ends, it ends; the kernel then kills the rest. Without a
//! command it waits to be killed.

use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};

use super::{Fault, STATUS_FD};
use crate::caps::CapSet;
use crate::sys::{self, Cloned};

/// Forks: the parent becomes the init and never returns, the child goes on with the plan.
/// `mapped`: the init goes to the container's user namespace, too.
pub(super) fn split(mapped: bool) -> Result<(), Fault> {
    // Blocked before the fork, so that a signal that comes at once waits instead of being dropped.
    let all = SigSet::all();
    all.thread_block()?;
    match sys::clone3(0, None)? {
        Cloned::Child => {
            SigSet::empty().thread_set_mask()?;
            let _ = rustix::process::setsid();
            Ok(())
        }
        Cloned::Parent(command, _) => serve(Some(command), &all, mapped),
    }
}

/// Becomes the init of a container without a command, which ends when it is killed.
pub(super) fn hold(mapped: bool) -> Result<(), Fault> {
    let all = SigSet::all();
    all.thread_block()?;
    serve(None, &all, mapped)
}

fn serve(command: Option<i32>, all: &SigSet, mapped: bool) -> ! {
    if mapped && super::mapping::enter().is_err() {
        sys::exit_now(125);
    }
    // Nothing the container could use is left: not the root's descriptors, not the failure pipe.
    // Closed here, before everything else is: its owner must not close it a second time.
    let moved = {
        let status = sys::adopt_fd(STATUS_FD);
        sys::dup_to(status.as_fd(), 0, true)
    };
    let settled = moved
        .and_then(|()| sys::close_from(1))
        .and_then(|()| super::credentials::keep_only(CapSet::KILL))
        .and_then(|()| rustix::thread::set_no_new_privs(true))
        .and_then(|()| rustix::thread::set_name(c"gantry-init"));
    if settled.is_err() {
        sys::exit_now(125);
    }
    // They name paths of the host.
    sys::clear_arguments();
    sys::give_back_memory();
    let status_pipe = sys::adopt_fd(0);
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                while let Some((pid, raw)) = sys::wait_any() {
                    if Some(pid) == command {
                        // Four bytes fit a pipe; without a keeper there is nobody to tell.
                        let _ = rustix::io::write(&status_pipe, &raw.to_ne_bytes());
                        sys::exit_now(0);
                    }
                }
            }
            // Everyone but this process (kill(2): PID 1 is left out).
            Ok(signal) => {
                // Nobody left to signal is no failure.
                let _ = sys::kill(-1, signal as i32);
            }
            // A real-time signal that the library has no name for.
            Err(_) => {}
        }
    }
}
