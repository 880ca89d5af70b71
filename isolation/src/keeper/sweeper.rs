//! Removing what ended containers leave (cgroups, files), in a process of its own, so that a busy
//! directory or a big tree never delays a start or an exit.
//!
//! It deliberately removes only what a job names. If the sweeper dies, a new one gets every unanswered
//! job again (removing twice is harmless). Invariant: a job is forgotten only when its answer came, or
//! when so many sweepers died at it that it is left to the next start of a keeper.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::packet::{self, PacketError};
use super::slots;
use crate::cgroup::remove_group;
use crate::child::{FIRST_FREE_FD, REPORT_FD};
use crate::disk::DiskError;
use crate::sys::{self, Cloned, clone_flags};

/// Jobs on their way at once; the rest wait in the map. A seqpacket socket holds at least as many.
const MAX_IN_FLIGHT: usize = 32;
/// Sweepers that may die at one job.
const MAX_TRIES: u32 = 3;

/// What to remove.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Job {
    /// Names the job in its answer.
    pub(super) serial: u64,
    /// Cgroup directories.
    pub(super) groups: Vec<PathBuf>,
    /// A slot to empty for its next container.
    pub(super) slot: Option<PathBuf>,
    /// A directory to remove with all that is in it.
    pub(super) remove: Option<PathBuf>,
}

/// The answer to a job.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Swept {
    /// Which job.
    pub(super) serial: u64,
    /// The slot, if it was emptied.
    pub(super) slot: Option<PathBuf>,
    /// What could not be removed.
    pub(super) failures: Vec<String>,
}

impl Swept {
    /// Of a job that no sweeper survives.
    pub(super) fn given_up(job: &Job) -> Self {
        let parts = job.groups.iter().chain(&job.slot).chain(&job.remove);
        let parts: Vec<_> = parts.map(|path| path.display().to_string()).collect();
        let what = parts.join(", ");
        Self {
            serial: job.serial,
            slot: None,
            failures: vec![format!(
                "{MAX_TRIES} sweepers ended while removing {what}: left to the next start"
            )],
        }
    }
}

/// The keeper's end.
#[derive(Debug)]
pub(super) struct Sweeper {
    socket: OwnedFd,
    pidfd: OwnedFd,
    /// Every job without an answer.
    jobs: BTreeMap<u64, Waiting>,
    /// Those that were sent, in order: the sweeper is at the first.
    in_flight: VecDeque<u64>,
    gone: bool,
}

#[derive(Debug)]
struct Waiting {
    job: Job,
    sent: bool,
    /// Sweepers that died at it.
    tries: u32,
}

impl Sweeper {
    /// Forks the sweeper.
    pub(super) fn start() -> Result<Self, Errno> {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // An event of a sweeper that was replaced meanwhile must not make the keeper wait.
        rustix::io::ioctl_fionbio(&socket, true)?;
        match sys::clone3(clone_flags::PIDFD, None)? {
            Cloned::Child => serve(&theirs),
            Cloned::Parent(_, pidfd) => Ok(Self {
                socket,
                pidfd: pidfd.ok_or(Errno::BADF)?,
                jobs: BTreeMap::new(),
                in_flight: VecDeque::new(),
                gone: false,
            }),
        }
    }

    /// Readable when an answer is there.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Readable when the sweeper ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Takes a job.
    pub(super) fn submit(&mut self, job: Job) {
        let waiting = Waiting {
            job,
            sent: false,
            tries: 0,
        };
        self.jobs.insert(waiting.job.serial, waiting);
        self.flush();
    }

    /// Whether every job has its answer.
    pub(super) fn idle(&self) -> bool {
        self.jobs.is_empty()
    }

    fn flush(&mut self) {
        let room = MAX_IN_FLIGHT.saturating_sub(self.in_flight.len());
        let waiting = self.jobs.values_mut().filter(|waiting| !waiting.sent);
        for waiting in waiting.take(room) {
            // A dead sweeper's jobs are sent again to its successor.
            if packet::send(self.socket.as_fd(), &waiting.job, &[]).is_ok() {
                waiting.sent = true;
                self.in_flight.push_back(waiting.job.serial);
            }
        }
    }

    /// Takes one answer; None when the sweeper is gone.
    pub(super) fn answer(&mut self) -> Result<Option<Swept>, PacketError> {
        let Some((swept, _)) = packet::receive::<Swept>(self.socket.as_fd())? else {
            return Ok(None);
        };
        self.jobs.remove(&swept.serial);
        self.in_flight.retain(|serial| *serial != swept.serial);
        self.flush();
        Ok(Some(swept))
    }

    /// It died. The job that it was at, if that has cost enough sweepers: it is forgotten.
    pub(super) fn lose(&mut self) -> Option<Job> {
        self.gone = true;
        let serial = self.in_flight.pop_front();
        self.in_flight.clear();
        let waiting = self.jobs.get_mut(&serial?)?;
        waiting.tries += 1;
        if waiting.tries < MAX_TRIES {
            return None;
        }
        self.jobs.remove(&serial?).map(|waiting| waiting.job)
    }

    /// Whether it died and no other one could be started.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Replaces a sweeper that died.
    pub(super) fn restart(&mut self) -> Result<(), Errno> {
        let mut successor = Self::start()?;
        successor.jobs = std::mem::take(&mut self.jobs);
        for waiting in successor.jobs.values_mut() {
            waiting.sent = false;
        }
        successor.flush();
        *self = successor;
        Ok(())
    }
}

/// The sweeper's process: one job after the other until the keeper closes its end.
fn serve(socket: &OwnedFd) -> ! {
    // stderr may still be the pipe that the starting client reads to its end.
    let ready = sys::dup_to(std::io::stdin().as_fd(), 2, false)
        .and_then(|()| sys::dup_to(socket.as_fd(), REPORT_FD, true))
        .and_then(|()| sys::close_from(FIRST_FREE_FD.unsigned_abs()));
    // Failing to set the name harms nothing.
    let _ = rustix::thread::set_name(c"gantry-sweeper");
    let socket = sys::adopt_fd(REPORT_FD);
    if ready.is_ok() {
        while let Ok(Some((job, _))) = packet::receive::<Job>(socket.as_fd()) {
            if packet::send(socket.as_fd(), &sweep(job), &[]).is_err() {
                break;
            }
        }
    }
    sys::exit_now(0)
}

/// An error with its reason.
fn words(error: &DiskError) -> String {
    let reason = std::error::Error::source(error);
    reason.map_or_else(|| error.to_string(), |why| format!("{error}: {why}"))
}

/// Goes on after a failure and tells all of them.
fn sweep(job: Job) -> Swept {
    let mut failures = Vec::new();
    for group in &job.groups {
        if let Err(error) = remove_group(group) {
            failures.push(format!("remove {}: {error}", group.display()));
        }
    }
    if let Some(dir) = &job.remove
        && let Err(error) = slots::remove_set(dir)
    {
        failures.push(words(&error));
    }
    let (limited, usual): (Vec<_>, Vec<_>) = job
        .slot
        .into_iter()
        .partition(|slot| slots::is_limited(slot));
    for slot in limited {
        if let Err(error) = slots::remove_limited(&slot) {
            failures.push(words(&error));
        }
    }
    let slot = usual
        .into_iter()
        .next()
        .filter(|slot| match slots::empty(slot) {
            Ok(()) => true,
            Err(error) => {
                failures.push(format!("empty {}: {error}", slot.display()));
                false
            }
        });
    Swept {
        serial: job.serial,
        slot,
        failures,
    }
}
