//! `delete` and `kill`: the end of a container.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::error::{OciError, call};
use super::run::poststop;
use super::state::{CONFIG, Place, Status, Stored, read_bounded};
use super::{Global, config, create};
use crate::sys;

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// A pidfd of the container's process, unless it is gone. The start time is looked at once more with
/// the descriptor open, so it names no other process.
pub(super) fn pidfd(place: &Place, stored: &Stored) -> Result<Option<OwnedFd>, OciError> {
    let Some(pid) = rustix::process::Pid::from_raw(stored.pid) else {
        return Ok(None);
    };
    match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(pidfd) if place.status(stored) != Status::Stopped => Ok(Some(pidfd)),
        Ok(_) | Err(Errno::SRCH) => Ok(None),
        Err(errno) => Err(call(format!("open process {}", stored.pid))(errno)),
    }
}

/// `kill`.
///
/// # Errors
/// It is not there or has no process.
pub fn kill(global: &Global, id: &str, signo: i32, all: bool) -> Result<(), OciError> {
    let place = Place::find(&global.root, id)?;
    let stored = place.load()?;
    let status = place.status(&stored);
    if all {
        // Also of a stopped one: processes that it left in a shared PID namespace.
        return stored.groups.signal(signo);
    }
    let Some(pidfd) = pidfd(&place, &stored)? else {
        // Without a PID namespace of its own its other processes live on.
        let left = signo == libc::SIGKILL && status == Status::Stopped && !own_pids(&place)?;
        if left && !stored.groups.processes().is_empty() {
            return stored.groups.signal(signo);
        }
        return Err(OciError::NotRunning);
    };
    // A process that waits for its start is nobody's program yet, and the first of a PID namespace
    // would not even get the signal: it has no handler.
    let ends = matches!(
        signo,
        libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT
    );
    let signo = if status == Status::Created && ends {
        libc::SIGKILL
    } else {
        signo
    };
    match sys::pidfd_send_signal(pidfd.as_fd(), signo) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Err(OciError::NotRunning),
        Err(errno) => return Err(call(format!("send signal {signo}"))(errno)),
    }
    if signo == libc::SIGKILL {
        // v1 leaves frozen processes waiting with their death.
        if status == Status::Paused {
            stored.groups.freeze(false)?;
        }
        // In a PID namespace of the host's nobody else ends the rest.
        if !own_pids(&place)? {
            stored.groups.signal(signo)?;
        }
    }
    Ok(())
}

fn own_pids(place: &Place) -> Result<bool, OciError> {
    let config = stored_config(place)?;
    let mut namespaces = config.linux.namespaces.iter();
    Ok(namespaces.any(|other| other.kind == config::NamespaceKind::Pid && other.path.is_empty()))
}

/// The configuration as it was at creation.
pub(super) fn stored_config(place: &Place) -> Result<config::Config, OciError> {
    let path = place.dir.join(CONFIG);
    let text = read_bounded(&path, config::MAX_CONFIG_BYTES)?;
    create::parse(&text, &path)
}

/// `delete`.
///
/// # Errors
/// It is not there (unless forced), or runs (unless forced).
pub fn delete(global: &Global, id: &str, force: bool) -> Result<(), OciError> {
    let place = match Place::find_locked(&global.root, id) {
        Err(OciError::Missing) if force => return Ok(()),
        done => done?,
    };
    let stored = match place.load() {
        // A creator was killed before it made anything.
        Err(OciError::Missing) => return place.remove(),
        done => done?,
    };
    let status = place.status(&stored);
    match status {
        Status::Stopped | Status::Creating => {}
        Status::Created => end(&place, &stored)?,
        Status::Running | Status::Paused if force => end(&place, &stored)?,
        Status::Running | Status::Paused => {
            return Err(OciError::NotStopped {
                id: id.to_owned(),
                status: status.word(),
            });
        }
    }
    let config = stored_config(&place).unwrap_or_default();
    destroy(global, place, &stored, &config)
}

/// Kills the container's process and waits until it is gone.
fn end(place: &Place, stored: &Stored) -> Result<(), OciError> {
    let Some(pidfd) = pidfd(place, stored)? else {
        return Ok(());
    };
    match sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(call("kill the container")(errno)),
    }
    if stored.groups.frozen() {
        stored.groups.freeze(false)?;
    }
    let patience = i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX);
    if sys::oci::has_ended(pidfd.as_fd(), patience).map_err(call("wait for the container"))? {
        Ok(())
    } else {
        Err(OciError::Refused("container init still running".to_owned()))
    }
}

/// Removes what is left of a container whose process is gone.
pub(super) fn destroy(
    global: &Global,
    place: Place,
    stored: &Stored,
    config: &config::Config,
) -> Result<(), OciError> {
    let deadline = Instant::now() + PATIENCE;
    // Without a PID namespace of its own, others may have outlived it.
    while !stored.groups.dissolve() && Instant::now() < deadline {
        stored.groups.signal(libc::SIGKILL)?;
        if stored.groups.frozen() {
            stored.groups.freeze(false)?;
        }
        std::thread::sleep(PAUSE);
    }
    stored.groups.remove()?;
    place.remove()?;
    poststop(global, config, stored);
    Ok(())
}
