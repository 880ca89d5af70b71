//! Reaching every process of a group: by `cgroup.kill` in the v2 tree, else one by one.

use std::path::Path;

use rustix::io::Errno;

use crate::sys;

/// Rounds of the loop where `cgroup.kill` does not exist: a fork bomb could outrun it for ever.
const MAX_ROUNDS: usize = 100;

/// Sends `signo` to every process in the group at `dir`.
///
/// # Errors
/// The list of processes cannot be read.
pub(crate) fn kill_group(dir: &Path, signo: i32) -> std::io::Result<()> {
    // cgroup.kill (Linux 5.14) reaches processes that are being forked, too.
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

fn signal_each(dir: &Path, signo: i32) -> std::io::Result<usize> {
    let procs = std::fs::read_to_string(dir.join("cgroup.procs"))?;
    let mut reached = 0;
    // Zombies are not listed, and a process id that ended meanwhile is free only once it was
    // reaped, which this process or its containers' PID 1 does: the window is that of kill(1).
    for pid in procs
        .lines()
        .filter_map(|line| line.parse::<i32>().ok())
        .filter(|pid| *pid > 1)
    {
        match sys::kill(pid, signo) {
            Ok(()) => reached += 1,
            Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(reached)
}
