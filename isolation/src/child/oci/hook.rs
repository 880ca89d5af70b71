//! Hooks that run in the container's namespaces, as children of its first process.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::super::Fault;
use crate::plan::OciHook;
use crate::sys::{self, Cloned, clone_flags};

/// Runs one hook to its end.
pub(super) fn run(hook: &OciHook) -> Result<(), Fault> {
    let state = sys::oci::borrow(hook.state);
    rustix::fs::seek(state, rustix::fs::SeekFrom::Start(0))?;
    match sys::clone3(clone_flags::PIDFD, None)? {
        Cloned::Child => {
            let ready = sys::dup_to(state, 0, false).and_then(|()| sys::oci::close_on_exec_from(3));
            if ready.is_ok() {
                sys::execve(&hook.path, &hook.argv, &hook.envp);
            }
            sys::exit_now(127)
        }
        Cloned::Parent(pid, Some(pidfd)) => {
            if !sys::oci::has_ended(pidfd.as_fd(), hook.timeout_ms)? {
                // It is ours and not yet waited for, so the number is its own.
                let _ = sys::kill(pid, libc::SIGKILL);
                sys::oci::wait_for(pid)?;
                return Err(Errno::TIMEDOUT.into());
            }
            match sys::oci::wait_for(pid)? {
                0 => Ok(()),
                raw => Err(Fault::Hook(raw)),
            }
        }
        Cloned::Parent(_, None) => Err(Errno::BADF.into()),
    }
}
