//! `exec`: one more process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::config::{Config, MAX_CONFIG_BYTES, Process};
use super::console::{Console, send_pidfd};
use super::create::{listen_fds, write_pid};
use super::delete::{pidfd, stored_config};
use super::error::{OciError, call};
use super::foreground::{self, Signals};
use super::launch::{Between, Launched, Wanted, launch, number, shell_status};
use super::state::{Place, Status, Stored, read_bounded};
use super::steps::{self, Entered, Kept, ProcessPlan};
use super::{Global, check};

/// What `exec` is asked for.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// Name of the container.
    pub id: String,
    /// The whole process as JSON, with the file it was read from, instead of the flags.
    pub process: Option<(PathBuf, Vec<u8>)>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// More variables.
    pub env: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// User id, and group id when given.
    pub user: Option<(u32, Option<u32>)>,
    /// More supplementary groups.
    pub additional_gids: Vec<u32>,
    /// More capabilities.
    pub capabilities: Vec<String>,
    /// Whether exec may never add rights.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub process_label: Option<String>,
    /// Whether to leave once it runs.
    pub detach: bool,
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// Where the terminal's master goes.
    pub console_socket: Option<PathBuf>,
    /// Where the pidfd of its process goes.
    pub pidfd_socket: Option<PathBuf>,
    /// Inherited descriptors that it gets.
    pub preserve_fds: u32,
    /// Whether it may join frozen processes.
    pub ignore_paused: bool,
    /// Groups below the container's to join: controllers (none: all) and path.
    pub cgroups: Vec<(Option<String>, String)>,
}

/// Reads a file for [`Exec::process`]. It may be an inherited descriptor, so before those are closed.
///
/// # Errors
/// It cannot be read.
pub fn read_process(path: PathBuf) -> Result<(PathBuf, Vec<u8>), OciError> {
    let text = read_bounded(&path, MAX_CONFIG_BYTES)?;
    Ok((path, text))
}

/// `exec`: the status for the shell.
///
/// # Errors
/// The container does not run, or the process cannot be made.
pub fn exec(global: &Global, exec: &Exec) -> Result<u8, OciError> {
    let place = Place::find(&global.root, &exec.id)?;
    let stored = place.load()?;
    match place.status(&stored) {
        Status::Stopped | Status::Creating => return Err(OciError::ExecStopped),
        Status::Paused if !exec.ignore_paused => return Err(OciError::ExecPaused),
        Status::Created | Status::Running | Status::Paused => {}
    }
    let config = stored_config(&place)?;
    let process = wanted(exec, &config)?;
    check::process(&process)?;
    for words in steps::capability_warnings(&process) {
        global.log.warn(&words);
    }
    let console = Console::open(&process, exec.console_socket.as_deref(), exec.detach)?;
    let signals = if exec.detach {
        None
    } else {
        Some(Signals::take()?)
    };
    let first = pidfd(&place, &stored)?.ok_or(OciError::ExecStopped)?;
    let launched =
        enter(exec, &config, &process, &stored, &first, console.as_ref()).map_err(in_exec)?;
    launched.await_ready(&[], |_| Ok(())).map_err(in_exec)?;
    if let Some(scheduler) = &process.scheduler {
        launched.schedule(&steps::schedule(scheduler)?)?;
    }
    if let Some(path) = &exec.pid_file {
        write_pid(path, launched.pid)?;
    }
    if let Some(path) = &exec.pidfd_socket {
        send_pidfd(path, &launched.pidfd)?;
    }
    // Before the first output.
    let master = console.map_or(Ok(None), Console::master)?;
    launched.start().map_err(in_exec)?;
    let Some(signals) = signals else {
        launched.release().1.map_err(call("keep the process"))?;
        return Ok(0);
    };
    let (pid, pidfd) = launched.release();
    let pidfd = pidfd.map_err(call("keep the process"))?;
    let raw = foreground::wait(&signals, pid, &pidfd, master.as_ref())?;
    Ok(shell_status(raw))
}

fn in_exec(error: OciError) -> OciError {
    match error {
        OciError::Start(words) => OciError::Exec(words),
        other => other,
    }
}

/// The process: from a file, or the container's own with what the flags change.
fn wanted(exec: &Exec, config: &Config) -> Result<Process, OciError> {
    if let Some((path, text)) = &exec.process {
        let mut process: Process =
            serde_json::from_slice(text).map_err(|source| OciError::Parse {
                path: path.clone(),
                source,
            })?;
        process.terminal |= exec.tty;
        return Ok(process);
    }
    let mut process = config.process.clone().unwrap_or_default();
    process.args.clone_from(&exec.args);
    process.terminal = exec.tty;
    process.console_size = None;
    if let Some(cwd) = &exec.cwd {
        process.cwd.clone_from(cwd);
    }
    for variable in &exec.env {
        let name = variable.split('=').next().unwrap_or_default();
        let same = |other: &String| other.split('=').next() == Some(name);
        process.env.retain(|other| !same(other));
        process.env.push(variable.clone());
    }
    if let Some((uid, gid)) = exec.user {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
        // Another user's home is not this one's.
        if !exec
            .env
            .iter()
            .any(|variable| variable.starts_with("HOME="))
        {
            process
                .env
                .retain(|variable| !variable.starts_with("HOME="));
        }
    }
    process.user.additional_gids.extend(&exec.additional_gids);
    process.no_new_privileges |= exec.no_new_privileges;
    if let Some(profile) = &exec.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &exec.process_label {
        process.selinux_label.clone_from(label);
    }
    if !exec.capabilities.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        for name in &exec.capabilities {
            if steps::parse_capability(name).is_none() {
                return Err(OciError::Refused(format!("unknown capability {name:?}")));
            }
            // As runc: not made inheritable (CVE-2022-29162), and ambient only if it is.
            if sets.inheritable.contains(name) {
                sets.ambient.push(name.clone());
            }
            for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
                set.push(name.clone());
            }
        }
    }
    Ok(process)
}

fn enter(
    exec: &Exec,
    config: &Config,
    process: &Process,
    stored: &Stored,
    first: &OwnedFd,
    console: Option<&Console>,
) -> Result<Launched, OciError> {
    let (doors, unified) = stored.groups.enter(&exec.cgroups)?;
    let mut kept = Kept::default();
    let entered = Entered::of(stored.pid);
    let listen_fds = listen_fds();
    let plan = ProcessPlan {
        process,
        new_keyring: true,
        first_closed: 3 + listen_fds + exec.preserve_fds,
        listen_fds,
        home: steps::home(std::path::Path::new(&stored.rootfs), config, process),
        seccomp: config.linux.seccomp.as_ref(),
        personality: config.linux.personality.as_ref(),
        kept: Vec::new(),
    };
    let plan = steps::exec(
        &plan,
        number(first),
        &entered,
        doors,
        console.map(Console::number),
        &mut kept,
    )?;
    launch(
        plan,
        kept,
        &Wanted {
            flags: 0,
            unified: unified.as_ref().map(AsFd::as_fd),
            pid_namespace: None,
            between: Between::Plan,
            before_users: Vec::new(),
            id_maps: None,
            oom_score_adj: process.oom_score_adj,
            start: None,
            lock: None,
            relay: None,
        },
        |_| Err(OciError::Exec("it asked for hooks".to_owned())),
    )
}
