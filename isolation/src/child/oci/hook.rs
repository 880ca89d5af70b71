//! Hooks that run in the container's namespaces, as children of its first process.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};

use super::super::Fault;
use super::link::{Link, MAX_WORDS_BYTES};
use crate::plan::OciHook;
use crate::sys::confine::load_filter;
use crate::sys::{self, Cloned, clone_flags};

/// What a hook said on stderr, as far as it is kept.
struct Said {
    bytes: [u8; MAX_WORDS_BYTES],
    length: usize,
}

impl Said {
    fn add(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(self.bytes.len() - self.length);
        self.bytes[self.length..self.length + kept].copy_from_slice(&bytes[..kept]);
        self.length += kept;
    }
}

/// Runs one hook to its end, in the root before that is the root. Of one that fails, the name and the words are told before the report.
pub(super) fn run(hook: &OciHook, link: &Link, root: Option<&OwnedFd>) -> Result<(), Fault> {
    let state = sys::oci::borrow(hook.state);
    rustix::fs::seek(state, rustix::fs::SeekFrom::Start(0))?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    match sys::clone3(clone_flags::PIDFD, None)? {
        Cloned::Child => {
            // Its stderr may block as any other.
            let ready = rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::empty())
                .and_then(|()| sys::dup_to(state, 0, false))
                .and_then(|()| sys::dup_to(write.as_fd(), 2, false))
                .and_then(|()| root.map_or(Ok(()), rustix::process::fchdir))
                .and_then(|()| sys::oci::close_on_exec_from(3));
            let ready = ready.and_then(|()| match &hook.filter {
                Some(program) => load_filter(program.instructions(), program.flags()),
                None => Ok(()),
            });
            if ready.is_ok() {
                sys::execve(&hook.path, &hook.argv, &hook.envp);
            }
            sys::exit_now(127)
        }
        Cloned::Parent(pid, Some(pidfd)) => {
            drop(write);
            let mut said = Said {
                bytes: [0; MAX_WORDS_BYTES],
                length: 0,
            };
            said.add(hook.name.to_bytes());
            said.add(b"\n");
            let ended = attend(&pidfd, &read, hook.timeout_ms, &mut said)?;
            if !ended {
                // It is ours and not yet waited for, so the number is its own.
                let _ = sys::kill(pid, libc::SIGKILL);
            }
            let raw = sys::oci::wait_for(pid)?;
            if ended && raw == 0 {
                return Ok(());
            }
            link.tell(&said.bytes[..said.length]);
            Err(if ended {
                Fault::Hook(raw)
            } else {
                Errno::TIMEDOUT.into()
            })
        }
        Cloned::Parent(_, None) => Err(Errno::BADF.into()),
    }
}

fn now_ms() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.saturating_mul(1000) + now.tv_nsec / 1_000_000
}

/// Listens until the hook ended, or its time is over: false.
fn attend(
    pidfd: impl AsFd,
    stderr: impl AsFd,
    timeout_ms: i32,
    said: &mut Said,
) -> Result<bool, Errno> {
    let deadline = (timeout_ms >= 0).then(|| now_ms().saturating_add(i64::from(timeout_ms)));
    let mut open = true;
    loop {
        let left = deadline.map(|deadline| (deadline - now_ms()).max(0));
        let timeout = left.map(|left| Timespec {
            tv_sec: left / 1000,
            tv_nsec: left % 1000 * 1_000_000,
        });
        let mut fds = [
            PollFd::new(&pidfd, PollFlags::IN),
            PollFd::new(&stderr, PollFlags::IN),
        ];
        let watched = if open { 2 } else { 1 };
        match poll(&mut fds[..watched], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
        let ended = !fds[0].revents().is_empty();
        let mut bytes = [0; 512];
        loop {
            match rustix::io::read(&stderr, &mut bytes) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(got) => said.add(&bytes[..got]),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        if ended {
            return Ok(true);
        }
    }
}
