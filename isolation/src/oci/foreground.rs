//! Staying with a process to its end: its terminal's bytes pass through us, and so do the signals
//! that we get.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::console::{Raw, pass, resize};
use super::error::{OciError, call};
use crate::sys;

/// Signals of this process, taken from a descriptor instead of interrupting it.
pub(super) struct Signals(SignalFd);

fn failed(errno: nix::Error) -> OciError {
    call("take signals")(std::io::Error::from(errno))
}

impl Signals {
    /// From now on. Children unblock them again.
    pub(super) fn take() -> Result<Self, OciError> {
        let mut set = SigSet::all();
        for signal in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGABRT,
            Signal::SIGTRAP,
            Signal::SIGPIPE,
        ] {
            set.remove(signal);
        }
        set.thread_block().map_err(failed)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags).map_err(failed)?))
    }

    fn next(&self) -> Option<i32> {
        let found = self.0.read_signal().ok().flatten()?;
        i32::try_from(found.ssi_signo).ok()
    }
}

/// Waits for the end of the process; its raw status.
pub(super) fn wait(
    signals: &Signals,
    pid: i32,
    pidfd: &OwnedFd,
    master: Option<&OwnedFd>,
) -> Result<i32, OciError> {
    let raw = master.map(|master| {
        resize(master);
        Raw::enter()
    });
    let status = watch(signals, pid, pidfd, master);
    drop(raw);
    status
}

fn watch(
    signals: &Signals,
    pid: i32,
    pidfd: &OwnedFd,
    master: Option<&OwnedFd>,
) -> Result<i32, OciError> {
    let stdin = std::io::stdin();
    let (mut reading, mut writing) = (master.is_some(), master.is_some());
    loop {
        // What is at its end is left out: poll(2) would tell that again and again.
        let mut fds = vec![
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(&signals.0, PollFlags::IN),
        ];
        if let Some(master) = master.filter(|_| writing) {
            fds.push(PollFd::new(master, PollFlags::IN));
        }
        if reading {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            done => done.map_err(call("wait for the container"))?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[1] {
            while let Some(signo) = signals.next() {
                forward(signo, pidfd, master);
            }
        }
        if let Some(master) = master {
            let (output, input) = (writing && ready[2], reading && ready.last() == Some(&true));
            if output {
                writing = pass(master.as_fd(), std::io::stdout());
            }
            if input {
                reading = pass(stdin.as_fd(), master);
            }
        }
        if ready[0] {
            // What it wrote last is still in the terminal.
            while let Some(master) = master
                && writing
                && readable(master)
            {
                writing = pass(master.as_fd(), std::io::stdout());
            }
            return sys::oci::wait_for(pid).map_err(call("wait for the container"));
        }
    }
}

fn readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
        && fds[0].revents().contains(PollFlags::IN)
}

fn forward(signo: i32, pidfd: &OwnedFd, master: Option<&OwnedFd>) {
    match (signo, master) {
        (libc::SIGCHLD | libc::SIGURG, _) => {}
        (libc::SIGWINCH, Some(master)) => resize(master),
        // One that ended meanwhile needs no signal.
        _ => {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), signo);
        }
    }
}
