//! Reaching every process of a group: by `cgroup.kill` in the v2 tree (cgroups-rs has it for hosts
//! that are v2 alone), else one by one.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use super::Freezer;
use super::remove::MAX_DEPTH;
use crate::sys;

/// Rounds of the loop where `cgroup.kill` does not exist: a fork bomb could outrun it for ever.
const MAX_ROUNDS: usize = 100;
/// How often a list is read for processes of a session: for what was forked meanwhile.
const SESSION_ROUNDS: usize = 4;
/// Between the rounds of those that wait.
const PAUSE: Duration = Duration::from_millis(5);

/// Sends `signo` to every process in the group at `dir`. Returns without waiting for their ends.
///
/// # Errors
/// The list of processes cannot be read.
pub(crate) fn kill_group(dir: &Path, signo: i32) -> std::io::Result<()> {
    // cgroup.kill (Linux 5.14) reaches processes that are being forked, too, and frozen ones.
    if signo == libc::SIGKILL && std::fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    for _ in 0..MAX_ROUNDS {
        let reached = signal_each(dir, signo)?;
        if signo != libc::SIGKILL || reached == 0 {
            break;
        }
    }
    Ok(())
}

/// Ends every process in the group at `tracking` where `cgroup.kill` does not exist: each round they
/// are stopped, so that none can fork, signalled, and let go to their ends. It waits for these, so it
/// runs in an errand, never in the keeper's own process.
///
/// # Errors
/// The list cannot be read, or some are left after all rounds.
pub(crate) fn kill_stopped(tracking: &Path, freezer: &Freezer) -> std::io::Result<()> {
    for _ in 0..MAX_ROUNDS {
        // Those that could not be stopped are signalled where they run.
        let _ = freezer.freeze();
        let signalled = signal_each(tracking, libc::SIGKILL);
        freezer.thaw()?;
        match signalled {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // The group went with its last process.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    Err(ErrorKind::TimedOut.into())
}

/// Every process of the group at `dir` and of those below it, each once, in order.
///
/// # Errors
/// The group's own list cannot be read; a group below that cannot be read has ended.
pub(crate) fn members(dir: &Path) -> std::io::Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    list(dir, &mut found)?;
    list_below(dir, &mut found, MAX_DEPTH);
    Ok(found)
}

fn list(dir: &Path, found: &mut BTreeSet<i32>) -> std::io::Result<()> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs"))?;
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    Ok(())
}

fn list_below(dir: &Path, found: &mut BTreeSet<i32>, depth: usize) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = list(&entry.path(), found);
            list_below(&entry.path(), found, depth - 1);
        }
    }
}

/// Kills every process of the group at `dir` that is in the session of `leader`, a number of the
/// host's.
///
/// # Errors
/// The group's list cannot be read.
pub(crate) fn kill_session(dir: &Path, leader: i32) -> std::io::Result<()> {
    // Who was killed cannot fork any more, though it may take its time to end.
    for _ in 0..SESSION_ROUNDS {
        let mut reached = 0;
        for pid in members(dir)?.into_iter().filter(|pid| *pid > 1) {
            if pid != leader
                && session_of(pid) == Some(leader)
                && sys::kill(pid, libc::SIGKILL).is_ok()
            {
                reached += 1;
            }
        }
        if reached == 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// The session of a process that has not ended (proc(5), fields 3 and 6).
fn session_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field may hold anything but ends with the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(session)
}

fn signal_each(dir: &Path, signo: i32) -> std::io::Result<usize> {
    let mut reached = 0;
    // Zombies are not listed, and a process id that ended meanwhile is free only once it was
    // reaped, which this process or its containers' PID 1 does: the window is that of kill(1).
    for pid in members(dir)?.into_iter().filter(|pid| *pid > 1) {
        match sys::kill(pid, signo) {
            Ok(()) => reached += 1,
            Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(reached)
}

/// Moves every process of the group at `from` into the one at `to`, in another tree, until none is
/// left out: a process that forks meanwhile has its child where it is itself.
///
/// # Errors
/// A list cannot be read, a process cannot be moved, or new ones come for ever.
pub(super) fn gather(from: &Path, to: &Path) -> std::io::Result<()> {
    for _ in 0..MAX_ROUNDS {
        let there = members(to)?;
        let all = members(from)?;
        let mut moved = false;
        for pid in all.difference(&there) {
            match std::fs::write(to.join("cgroup.procs"), pid.to_string()) {
                Ok(()) => moved = true,
                // It ended.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
        if !moved {
            return Ok(());
        }
    }
    Err(ErrorKind::TimedOut.into())
}
