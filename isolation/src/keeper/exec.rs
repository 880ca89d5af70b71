//! One more process in a running container.
//!
//! A PID namespace is entered only by children, so the keeper sets it for its next child, clones,
//! and goes back. Every clone of a container therefore first makes sure that it is back.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Rlimit;

use super::container::{Container, Failure, Setup};
use super::protocol::ExecSpec;
use super::start::message_pipe;
use crate::cgroup::kill_session;
use crate::child::{self, Fault, Handed};
use crate::plan::{self, HostFacts};
use crate::spec::ContainerId;
use crate::sys::{self, Cloned, clone_flags};

/// Sessions at once.
pub(super) const MAX_SESSIONS: usize = 512;

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) name: ContainerId,
    /// Who asked, and hears of it.
    pub(super) client: u64,
    /// The group of the container that it is in, to find what it started.
    pub(super) group: Option<PathBuf>,
    /// Whether it has a terminal.
    pub(super) tty: bool,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// None once the command runs or has failed.
    pub(super) setup: Option<Setup>,
    /// Why it could not be started.
    pub(super) failure: Option<Failure>,
}

impl Session {
    /// Ends what it started and left behind: all that is at its terminal, else its process group.
    /// Only as long as its own process is not reaped are the numbers surely its own.
    pub(super) fn end_rest(&self) {
        if self.tty {
            self.kill_all();
        } else {
            self.kill_process_group();
        }
    }

    /// Ends everything in its session (`setsid(2)`).
    pub(super) fn kill_all(&self) {
        self.kill_process_group();
        if let Some(group) = &self.group
            && let Err(error) = kill_session(group, self.pid)
        {
            eprintln!("end what session {} started: {error}", self.name);
        }
    }

    fn kill_process_group(&self) {
        let leader = nix::unistd::Pid::from_raw(self.pid);
        // Nobody left to signal is no failure.
        let _ = nix::sys::signal::killpg(leader, nix::sys::signal::Signal::SIGKILL);
    }
}

/// All sessions.
pub(super) type Sessions = BTreeMap<u64, Session>;

/// The keeper's own PID namespace.
#[derive(Debug)]
pub(super) struct PidNamespace {
    own: OwnedFd,
    away: bool,
}

impl PidNamespace {
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let own = rustix::fs::open(c"/proc/self/ns/pid", flags, Mode::empty())?;
        Ok(Self { own, away: false })
    }

    /// Makes sure that children are born in the keeper's own namespace.
    pub(super) fn home(&mut self) -> Result<(), Failure> {
        if self.away {
            setns(&self.own, CloneFlags::CLONE_NEWPID).map_err(refused("leave the container"))?;
            self.away = false;
        }
        Ok(())
    }

    /// After a clone. Should this fail, the next clone tries again and is refused until it works.
    pub(super) fn try_home(&mut self) {
        if let Err(failure) = self.home() {
            eprintln!("{}: {}", failure.step, failure.error);
        }
    }

    /// Children are born in the namespace of a container's process from now on.
    pub(super) fn enter(&mut self, container: BorrowedFd<'_>) -> Result<(), Failure> {
        setns(container, CloneFlags::CLONE_NEWPID).map_err(refused("enter the container"))?;
        self.away = true;
        Ok(())
    }
}

fn refused(step: &'static str) -> impl FnOnce(nix::Error) -> Failure {
    move |errno| Failure {
        step: step.to_owned(),
        error: Fault::words(errno as i32),
    }
}

fn failed(step: &'static str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure {
        step: step.to_owned(),
        error: Fault::words(errno.raw_os_error()),
    }
}

/// Clones the session's process.
pub(super) fn start(
    facts: &HostFacts,
    (nofile, null): (Rlimit, BorrowedFd<'_>),
    home: &mut PidNamespace,
    container: &Container,
    spec: &ExecSpec,
    fds: &[OwnedFd],
) -> Result<(i32, OwnedFd, Setup), Failure> {
    let refuse = |error: String| Failure {
        step: "check the request".to_owned(),
        error,
    };
    let wanted = if spec.tty { 1 } else { 3 };
    if fds.len() != wanted {
        let words = format!("{} descriptors came along, not {wanted}", fds.len());
        return Err(refuse(words));
    }
    let stream = |at: usize| match fds.get(at) {
        Some(fd) if !spec.tty => fd.as_fd(),
        // The terminal takes its place.
        _ => null,
    };
    let mut plan = plan::exec(facts, spec, &container.group, &container.inherited)
        .map_err(|e| refuse(e.to_string()))?;
    let (report, report_end) = message_pipe().map_err(failed("make a pipe"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let unified = match &container.group.unified {
        Some(dir) => {
            let opened = rustix::fs::open(dir, flags, Mode::empty());
            Some(opened.map_err(failed("open the container's cgroup"))?)
        }
        None => None,
    };
    let handed = Handed {
        stdio: [stream(0), stream(1), stream(2)],
        report: report_end.as_fd(),
        namespace: Some(container.pidfd.as_fd()),
        status: None,
        users: container.users.as_ref().map(|users| users.namespace()),
        ipc: None,
        cgroups: None,
        terminal: fds.first().filter(|_| spec.tty).map(AsFd::as_fd),
        nofile,
    };
    home.enter(container.pidfd.as_fd())?;
    let cloned = sys::clone3(clone_flags::PIDFD, unified.as_ref().map(AsFd::as_fd));
    if matches!(cloned, Ok(Cloned::Child)) {
        child::run(&mut plan, &handed);
    }
    home.try_home();
    match cloned.map_err(failed("clone the process"))? {
        Cloned::Parent(pid, Some(pidfd)) => Ok((pid, pidfd, Setup::new(report, plan))),
        _ => Err(failed("clone the process")(Errno::BADF)),
    }
}
