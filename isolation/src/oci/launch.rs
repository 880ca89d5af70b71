//! Cloning a process with a plan, and the runtime's end of the talk with it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::error::{OciError, call};
use super::steps::{Kept, with_pid_namespace};
use crate::child::oci::{GO, HOOKS, OciHanded, READY, run};
use crate::child::{Fault, REPORT_BYTES, read_report};
use crate::plan::{OciStep, Plan, Step};
use crate::spec::ExitStatus;
use crate::sys::{self, Cloned, clone_flags};

/// How to clone.
pub(super) struct Wanted<'a> {
    pub(super) flags: u64,
    pub(super) unified: Option<BorrowedFd<'a>>,
    /// PID namespace to set for the clone.
    pub(super) pid_namespace: Option<i32>,
    /// Who clones.
    pub(super) between: Between,
    /// Text of `uid_map` and `gid_map` of a new one.
    pub(super) id_maps: Option<(String, String)>,
    pub(super) oom_score_adj: Option<i32>,
    /// Where the start is awaited.
    pub(super) start: Option<BorrowedFd<'a>>,
    /// The container's lock, which only the runtime may hold.
    pub(super) lock: Option<i32>,
}

/// Who makes the process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Between {
    /// The runtime.
    Nobody,
    /// A process that entered this user namespace, so that it owns the new namespaces.
    Users(i32),
    /// A process that runs the plan up to its [`OciStep::Birth`].
    Plan,
}

/// A process that was cloned; dropped before [`Launched::release`], it is killed.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    sync: OwnedFd,
    plan: Plan,
    armed: bool,
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.armed {
            // Errors mean that it is gone already.
            let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
            let _ = sys::oci::wait_for(self.pid);
        }
    }
}

/// What the process said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It wants the runtime's hooks.
    Hooks,
    /// It is ready to be started.
    Ready,
    /// It runs its program.
    Running,
}

/// Clones.
pub(super) fn launch(plan: Plan, kept: Kept, wanted: &Wanted<'_>) -> Result<Launched, OciError> {
    let words = "clone the container's process";
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(call("make a socket"))?;
    let handed = OciHanded {
        stdio: None,
        sync: theirs.as_fd(),
        start: wanted.start,
        number: None,
        parents: [Some(ours.as_raw_fd()), wanted.lock],
    };
    let cloned = with_pid_namespace(wanted.pid_namespace, || match wanted.between {
        Between::Users(users) => through_users(users, wanted, &plan, handed),
        Between::Plan => through(wanted.unified, |number| {
            let number = Some(number.as_fd());
            run(&plan, OciHanded { number, ..handed })
        }),
        Between::Nobody => {
            let cloned = sys::clone3(clone_flags::PIDFD | wanted.flags, wanted.unified);
            if matches!(cloned, Ok(Cloned::Child)) {
                run(&plan, handed);
            }
            match cloned {
                Ok(Cloned::Parent(pid, Some(pidfd))) => Ok(Some((pid, pidfd))),
                Ok(_) => Err(Errno::BADF),
                Err(errno) => Err(errno),
            }
        }
    })?;
    drop(theirs);
    drop(kept);
    let Some((pid, pidfd)) = cloned.map_err(call(words))? else {
        return Err(ended(&ours, &plan));
    };
    let launched = Launched {
        pid,
        pidfd,
        sync: ours,
        plan,
        armed: true,
    };
    if let Some((users, groups)) = &wanted.id_maps {
        for (file, text) in [("uid_map", users), ("gid_map", groups)] {
            std::fs::write(format!("/proc/{pid}/{file}"), text)
                .map_err(call(format!("write the {file} of the user namespace")))?;
        }
        launched.go()?;
    }
    if let Some(adjustment) = wanted.oom_score_adj {
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string())
            .map_err(call(format!("set oom_score_adj to {adjustment}")))?;
    }
    Ok(launched)
}

/// Why a process ended before it made its sibling.
fn ended(sync: &OwnedFd, plan: &Plan) -> OciError {
    match hear(sync) {
        Ok((REPORT_BYTES, bytes)) => OciError::Start(failure(plan, bytes)),
        Ok(_) => OciError::Start("the process ended while it was set up".to_owned()),
        Err(error) => error,
    }
}

/// Clones from a process that entered the user namespace first. That process only tells the number
/// of its sibling and ends.
fn through_users(
    users: i32,
    wanted: &Wanted<'_>,
    plan: &Plan,
    handed: OciHanded<'_>,
) -> Result<Option<(i32, OwnedFd)>, Errno> {
    through(None, |write| {
        let entered = nix::sched::setns(sys::oci::borrow(users), CloneFlags::CLONE_NEWUSER);
        let number = match entered {
            Err(errno) => -(errno as i32),
            Ok(()) => match sys::clone3(clone_flags::PARENT | wanted.flags, wanted.unified) {
                Ok(Cloned::Child) => run(plan, handed),
                Ok(Cloned::Parent(pid, _)) => pid,
                Err(errno) => -errno.raw_os_error(),
            },
        };
        // Four bytes fit a pipe.
        let _ = rustix::io::write(&write, &number.to_ne_bytes());
        sys::exit_now(0)
    })
}

/// Runs `then` in a process that makes a sibling and tells its number by the pipe. None: it ended
/// without.
fn through(
    unified: Option<BorrowedFd<'_>>,
    then: impl FnOnce(OwnedFd),
) -> Result<Option<(i32, OwnedFd)>, Errno> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match sys::clone3(0, unified)? {
        Cloned::Child => {
            drop(read);
            then(write);
            // It has not come back.
            sys::exit_now(126)
        }
        Cloned::Parent(between, _) => {
            drop(write);
            let mut bytes = [0; 4];
            let got = rustix::io::read(&read, &mut bytes);
            sys::oci::wait_for(between)?;
            if got? != bytes.len() {
                return Ok(None);
            }
            match i32::from_ne_bytes(bytes) {
                pid if pid > 0 => {
                    // Its number stays its own until we wait for it, if it is our child; the number
                    // may have come from the new process, which the container can reach into.
                    let named = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
                    let look =
                        WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                    waitid(WaitId::Pid(named), look)?;
                    Ok(Some((pid, pidfd_open(named, PidfdFlags::empty())?)))
                }
                0 => Err(Errno::SRCH),
                errno => Err(Errno::from_raw_os_error(-errno)),
            }
        }
    }
}

/// The next message: how many bytes, and they.
fn hear(sync: &OwnedFd) -> Result<(usize, [u8; REPORT_BYTES]), OciError> {
    let mut bytes = [0; REPORT_BYTES];
    let got = loop {
        match rustix::net::recv(sync, &mut bytes, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => break 0,
            done => break done.map_err(call("listen to the container's process"))?.0,
        }
    };
    Ok((got, bytes))
}

impl Launched {
    /// Lets the process go on.
    pub(super) fn go(&self) -> Result<(), OciError> {
        match rustix::net::send(&self.sync, &[GO], SendFlags::NOSIGNAL) {
            // It is gone; listening tells why.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(call("talk to the container's process")(errno)),
        }
    }

    /// Hears the next word.
    pub(super) fn listen(&self) -> Result<Said, OciError> {
        let (got, bytes) = hear(&self.sync)?;
        match (got, bytes[0]) {
            (1, HOOKS) => Ok(Said::Hooks),
            (1, READY) => Ok(Said::Ready),
            (REPORT_BYTES, _) => Err(OciError::Start(failure(&self.plan, bytes))),
            _ => Ok(Said::Running),
        }
    }

    /// Expects that the process becomes ready, or says why not.
    pub(super) fn await_ready(
        &self,
        mut hooks: impl FnMut(i32) -> Result<(), OciError>,
    ) -> Result<(), OciError> {
        loop {
            match self.listen()? {
                Said::Ready => return Ok(()),
                Said::Hooks => {
                    hooks(self.pid)?;
                    self.go()?;
                }
                Said::Running => {
                    return Err(OciError::Start(
                        "the process ended while it was set up".to_owned(),
                    ));
                }
            }
        }
    }

    /// Starts a process that awaits it here, and expects that it runs its program.
    pub(super) fn start(&self) -> Result<(), OciError> {
        self.go()?;
        match self.listen()? {
            Said::Running => Ok(()),
            _ => Err(OciError::Start("it asked a second time".to_owned())),
        }
    }

    /// It lives on by itself.
    pub(super) fn release(mut self) -> (i32, std::io::Result<OwnedFd>) {
        self.armed = false;
        (self.pid, self.pidfd.try_clone())
    }
}

/// What a process reported.
fn failure(plan: &Plan, report: [u8; REPORT_BYTES]) -> String {
    let (index, code) = read_report(report);
    let program = match plan.steps.last() {
        Some(Step::Exec(program)) => program.as_str(),
        _ => "",
    };
    match plan.steps.get(index) {
        Some(Step::Oci(OciStep::FindProgram) | Step::Exec(_)) => program_words(program, code),
        Some(Step::Oci(step @ OciStep::WorkingDirectory { .. })) => {
            format!("{step} failed: {}", Fault::words(code))
        }
        Some(Step::Oci(OciStep::Limit { name, .. })) => {
            format!(
                "error setting rlimit type {name}: {}",
                Fault::words(code).to_lowercase()
            )
        }
        Some(step) => format!("{step}: {}", Fault::words(code)),
        None => Fault::words(code),
    }
}

/// Why a program cannot be run, as Go's os/exec says it.
pub(super) fn program_words(program: &str, code: i32) -> String {
    let why = Fault::words(code).to_lowercase();
    match Errno::from_raw_os_error(code.max(0)) {
        Errno::NOENT | Errno::NOTDIR if !program.contains('/') => {
            format!("exec: \"{program}\": executable file not found in $PATH")
        }
        Errno::NOENT | Errno::NOTDIR => format!("exec: \"{program}\": stat {program}: {why}"),
        _ => format!("exec: \"{program}\": {why}"),
    }
}

/// What a shell would show of how a process ended.
pub(super) fn shell_status(raw: i32) -> u8 {
    let code = match ExitStatus::from_raw(raw) {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128 + signal,
    };
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// The raw number of a descriptor, for a plan.
pub(super) fn number(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}
