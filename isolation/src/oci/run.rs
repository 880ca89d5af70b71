//! `run` and `start`: the container's process goes on to its program.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::console::Console;
use super::create::{self, Create, Made, Start, state_text, undo, with_start_address};
use super::delete::destroy;
use super::error::{OciError, call};
use super::foreground::{self, Signals};
use super::launch::{Heard, exec_words, hear, hook_words, shell_status};
use super::state::{CONFIG, Place, START_SOCKET, Status, Stored, read_bounded};
use super::{Global, config, hooks, protect, relay};
use crate::child::oci::GO;
use crate::child::read_report;

/// What `run` is asked for besides what `create` is.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The container.
    pub create: Create,
    /// Whether to leave once it runs.
    pub detach: bool,
    /// Whether it is kept once it ended.
    pub keep: bool,
}

/// `run`: the status for the shell.
///
/// # Errors
/// Whatever stands in the way; nothing is left then.
pub fn run(global: &Global, run: &Run) -> Result<u8, OciError> {
    let loaded = create::load(&run.create.bundle)?;
    let relay = relay::file(&loaded.config);
    if relay.is_none() {
        // Starts over: nothing was done yet.
        protect();
    }
    let signals = if run.detach {
        None
    } else {
        Some(Signals::take()?)
    };
    let made = create::make(global, &run.create, loaded, Start::Here(relay), run.detach)?;
    let Made {
        mut place,
        stored,
        config,
        launched,
        console,
        ..
    } = made;
    // Before the first output.
    let master = console.map_or(Ok(None), Console::master);
    let started = master.and_then(|master| {
        launched.start()?;
        let text = state_text(&stored, Status::Running);
        hooks::run("poststart", &config.hooks.poststart, &text)?;
        Ok(master)
    });
    let master = match started {
        Ok(master) => master,
        Err(error) => {
            drop(launched);
            let error = undo(place, &stored.groups, error);
            poststop(global, &config, &stored);
            return Err(error);
        }
    };
    let Some(signals) = signals else {
        launched.release().1.map_err(call("keep the process"))?;
        return Ok(0);
    };
    // Others may look at it, stop it and add to it while we wait.
    place.unlock();
    let (pid, pidfd) = launched.release();
    let pidfd = pidfd.map_err(call("keep the process"))?;
    let raw = foreground::wait(&signals, pid, &pidfd, master.as_ref())?;
    if !run.keep {
        // Somebody else may have deleted it already.
        match Place::find_locked(&global.root, &run.create.id) {
            Ok(place) => destroy(global, place, &stored, &config)?,
            Err(OciError::Missing) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(shell_status(raw))
}

/// Runs the poststop hooks; a failure is told and changes nothing.
pub(super) fn poststop(global: &Global, config: &config::Config, stored: &Stored) {
    let text = state_text(stored, Status::Stopped);
    for hook in &config.hooks.poststop {
        if let Err(error) = hooks::run("poststop", std::slice::from_ref(hook), &text) {
            global.log.warn(&super::error::whole(&error));
        }
    }
}

/// `start`.
///
/// # Errors
/// It is not there, not waiting, or its program cannot be run.
pub fn start(global: &Global, id: &str) -> Result<(), OciError> {
    let place = Place::find_locked(&global.root, id)?;
    let stored = place.load()?;
    match place.status(&stored) {
        Status::Created => {}
        Status::Stopped => return Err(OciError::StartStopped),
        Status::Running => return Err(OciError::AlreadyStarted),
        other => {
            return Err(OciError::Refused(format!(
                "cannot start a container in the {} state",
                other.word()
            )));
        }
    }
    let path = place.dir.join(CONFIG);
    let text = read_bounded(&path, config::MAX_CONFIG_BYTES)?;
    let config = create::parse(&text, &path)?;
    let starter = knock(&place).map_err(|errno| match errno {
        Errno::CONNREFUSED | Errno::CONNRESET | Errno::PIPE => OciError::StartStopped,
        errno => call("start the container")(errno),
    })?;
    let told = match hear(starter)? {
        Heard::Report(report, words) => Some((report, words)),
        // Closed by exec.
        Heard::Byte(_) | Heard::End => None,
    };
    let socket = place.dir.join(START_SOCKET);
    std::fs::remove_file(&socket).map_err(call(format!("remove {}", socket.display())))?;
    if let Some((report, words)) = told {
        let (_, code) = read_report(report);
        let program = config
            .process
            .as_ref()
            .and_then(|process| process.args.first());
        return Err(OciError::Start(if words.is_empty() {
            exec_words(program.map_or("", String::as_str), code)
        } else {
            hook_words(&words, code)
        }));
    }
    let text = state_text(&stored, Status::Running);
    if let Err(error) = hooks::run("poststart", &config.hooks.poststart, &text) {
        // The specification: the container is stopped, and its stop runs poststop.
        stored.groups.signal(libc::SIGKILL)?;
        return Err(error);
    }
    Ok(())
}

/// Lets the process go on; where it tells how that went.
fn knock(place: &Place) -> Result<OwnedFd, Errno> {
    let kind = SocketType::SEQPACKET;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    with_start_address(&place.dir, |address| rustix::net::connect(&socket, address))?;
    rustix::net::send(&socket, &[GO], SendFlags::NOSIGNAL)?;
    Ok(socket)
}
