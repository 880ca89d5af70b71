//! One container as the keeper holds it, and the steps of its life (drawn in [`super`]).
//!
//! It decides what an end means (failed start or exit) and gathers the status; it deliberately sends
//! nothing: the server does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::ids::Users;
use super::outlet::Streams;
use super::protocol::{Listed, ListedState};
use super::{slots, terminal};
use crate::cgroup::{Group, kill_group};
use crate::child::{Fault, REPORT_BYTES, read_report};
use crate::plan::{Inherited, Plan};
use crate::spec::{ContainerId, ExitStatus};

/// What could not be done, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) step: String,
    pub(super) error: String,
}

/// A child that has not yet exec'd: its failure pipe, and the plan that names the steps.
#[derive(Debug)]
pub(super) struct Setup {
    report: OwnedFd,
    plan: Box<Plan>,
}

/// What the failure pipe said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Pending,
    /// It closed: the command runs.
    Running,
    /// A step failed.
    Failed(Failure),
}

impl Setup {
    pub(super) fn new(report: OwnedFd, plan: Plan) -> Self {
        Self {
            report,
            plan: Box::new(plan),
        }
    }

    /// To wait on.
    pub(super) fn pipe(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Reads the failure pipe, which does not block.
    pub(super) fn verdict(&self) -> Verdict {
        let mut bytes = [0; REPORT_BYTES];
        loop {
            match rustix::io::read(&self.report, &mut bytes) {
                Ok(0) => return Verdict::Running,
                Ok(REPORT_BYTES) => {
                    let (index, code) = read_report(bytes);
                    let step = self.plan.steps.get(index).map(ToString::to_string);
                    return Verdict::Failed(Failure {
                        step: step.unwrap_or_else(|| "an unknown step".to_owned()),
                        error: Fault::words(code),
                    });
                }
                Err(Errno::INTR) => {}
                _ => return Verdict::Pending,
            }
        }
    }
}

/// Where a container is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    Starting(Setup),
    Running,
    Failing(Failure),
    /// It ended, and what it wrote last is on its way to the files.
    Draining {
        status: ExitStatus,
        oom_killed: bool,
    },
    Exited {
        status: ExitStatus,
        oom_killed: bool,
    },
    /// Being swept; with the failure to tell of when done, if its start failed.
    Removing(Option<Failure>),
}

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) phase: Phase,
    /// Where our PID 1 writes the command's end, if there is one.
    pub(super) status_pipe: Option<OwnedFd>,
    /// stdout and stderr, until the outlet has them.
    pub(super) streams: Option<Streams>,
    /// Where the master of its terminal will be once it runs.
    pub(super) arriving: Option<OwnedFd>,
    /// That master.
    pub(super) terminal: Option<OwnedFd>,
    /// Bytes of them that could not be written.
    pub(super) dropped_bytes: u64,
    pub(super) group: Group,
    /// Whether every process stands still.
    pub(super) frozen: bool,
    pub(super) slot: PathBuf,
    /// What later processes in it have in common with the first.
    pub(super) inherited: Inherited,
    /// Its ids, unless they are the host's.
    pub(super) users: Option<Rc<Users>>,
    /// Whether its end is not the end of everything in it: its processes are in the PID namespace
    /// of others.
    pub(super) shares_processes: bool,
}

/// Reaps the process of `pidfd`; None when it has not ended.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(pidfd), options).ok()??;
    let signal = || status.terminating_signal().map(ExitStatus::Signal);
    Some(
        status
            .exit_status()
            .map(ExitStatus::Code)
            .or_else(signal)
            .unwrap_or(ExitStatus::Code(0)),
    )
}

impl Container {
    /// The child ended: takes its status.
    pub(super) fn ended(&mut self, own: ExitStatus) {
        if let Phase::Starting(setup) = &self.phase
            && let Verdict::Failed(failure) = setup.verdict()
        {
            self.phase = Phase::Failing(failure);
        }
        if matches!(self.phase, Phase::Failing(_)) {
            return;
        }
        let status = self.command_status().unwrap_or(own);
        self.phase = Phase::Draining {
            status,
            oom_killed: self.group.oom_kills() > 0,
        };
    }

    /// What our PID 1 wrote before it ended; nothing when it was killed itself.
    fn command_status(&mut self) -> Option<ExitStatus> {
        let pipe = self.status_pipe.take()?;
        let mut raw = [0; 4];
        match rustix::io::read(&pipe, &mut raw) {
            Ok(4) => Some(ExitStatus::from_raw(i32::from_ne_bytes(raw))),
            _ => None,
        }
    }

    /// Kills whatever its first process left behind where no PID 1 of its own did.
    pub(super) fn kill_rest(&self) {
        if self.shares_processes
            && let Some(dir) = self.group.tracking()
            && let Err(error) = kill_group(dir, libc::SIGKILL)
        {
            eprintln!("kill what {} left behind: {error}", self.id);
        }
    }

    /// It runs: takes the master of its terminal, if it has one. Its streams, of which that is one
    /// from now on, are ready then.
    pub(super) fn take_terminal(&mut self) -> Option<Streams> {
        let socket = self.arriving.take()?;
        let mut streams = self.streams.take()?;
        let master = terminal::receive(socket.as_fd());
        let copied = master
            .map_err(|error| error.to_string())
            .and_then(|master| {
                let copy = master.try_clone().map_err(|error| error.to_string())?;
                Ok((master, copy))
            });
        match copied {
            Ok((master, copy)) => {
                streams.come_from(copy);
                self.terminal = Some(master);
            }
            // Without a master it hangs up, which ends what was to be interactive.
            Err(error) => eprintln!("the terminal of {}: {error}", self.id),
        }
        Some(streams)
    }

    /// Where its root's writable layer can be counted, when nothing bounds it.
    pub(super) fn layer(&self) -> Option<PathBuf> {
        (!slots::is_limited(&self.slot)).then(|| self.slot.clone())
    }

    /// As it appears in a listing; one that is being removed does not.
    pub(super) fn listed(&self) -> Option<Listed> {
        let state = match &self.phase {
            Phase::Starting(_) | Phase::Failing(_) => ListedState::Starting,
            Phase::Running | Phase::Draining { .. } => ListedState::Running { pid: self.pid },
            Phase::Exited { status, oom_killed } => ListedState::Exited {
                status: *status,
                oom_killed: *oom_killed,
            },
            Phase::Removing(_) => return None,
        };
        Some(Listed {
            id: self.id.clone(),
            state,
            frozen: self.frozen && matches!(self.phase, Phase::Running),
            dropped_output_bytes: self.dropped_bytes,
            layer: self.layer(),
        })
    }
}
