//! What runs between clone and exec: the steps of a plan, in order, each one's failure reported with
//! its index.
//!
//! It decides nothing that the plan did not; it deliberately allocates nothing and takes no lock.
//! Descriptors: 0 to 2 are the command's, [`REPORT_FD`] the failure pipe, [`NAMESPACE_FD`] the
//! network namespace or the container to enter, [`STATUS_FD`] where our PID 1 writes the command's
//! end, [`USERS_FD`] the user namespace, [`IPC_FD`] whose IPC namespace to enter, [`ROOT_VIEW_FD`] is
//! the steps' own, [`CGROUPS_FD`] has the directories of the view of cgroups, [`TERMINAL_FD`] takes
//! the master of its terminal; everything else is closed first, so nothing of the keeper's can leak (CVE-2024-21626).

pub(crate) mod cgroups;
mod credentials;
mod init;
mod kernel_fs;
mod landlock;
mod mapping;
mod mount;
mod namespaces;
pub(crate) mod oci;
mod paths;
mod root;
mod terminal;
pub(crate) mod user;

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::Rlimit;

use crate::plan::{Command, InRoot, Plan, Step, USERS};
use crate::spec::{ExitStatus, Resource};
use crate::sys::{self, confine, users};
use user::Identity;

/// Where the failure pipe is.
pub(crate) const REPORT_FD: RawFd = 3;
/// Where the namespace to enter is.
pub(crate) const NAMESPACE_FD: RawFd = 4;
/// Where the status pipe is.
pub(crate) const STATUS_FD: RawFd = 5;
/// Where the user namespace is.
pub(crate) const USERS_FD: RawFd = 6;
/// Where the container is whose IPC namespace is shared.
pub(crate) const IPC_FD: RawFd = 7;
/// Where steps leave the mapped view of the host's root.
pub(crate) const ROOT_VIEW_FD: RawFd = 8;
/// Where the directories are that all views of cgroups share.
pub(crate) const CGROUPS_FD: RawFd = 9;
/// Where the socket is that the master of its terminal is sent to.
pub(crate) const TERMINAL_FD: RawFd = 10;
/// The keeper keeps its own descriptors from here on.
pub(crate) const FIRST_FREE_FD: RawFd = 11;
/// Signals that the keeper ignores: it ends by request only, since its end is the end of every task.
/// A supervisor that signals the whole group of gantry's processes must not end them.
pub(crate) const KEEPER_IGNORES: [libc::c_int; 4] =
    [libc::SIGPIPE, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
/// Bytes of a report.
pub(crate) const REPORT_BYTES: usize = 8;

/// Codes from here downwards are ends of hooks.
const HOOK_CODES: i32 = -1000;

/// Why a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The kernel refused.
    Errno(Errno),
    /// The container's `/etc/passwd` has no such user.
    NoUser,
    /// The container's `/etc/group` has no such group.
    NoGroup,
    /// Ids cannot be mapped there.
    Unmappable,
    /// A number that the container's user namespace does not have.
    Beyond,
    /// A hook ended like this, by its raw wait status.
    Hook(i32),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<nix::Error> for Fault {
    fn from(errno: nix::Error) -> Self {
        Self::Errno(Errno::from_raw_os_error(errno as i32))
    }
}

impl Fault {
    fn code(self) -> i32 {
        match self {
            Self::Errno(errno) => errno.raw_os_error(),
            Self::NoUser => -1,
            Self::NoGroup => -2,
            Self::Unmappable => -3,
            Self::Beyond => -4,
            Self::Hook(raw) => HOOK_CODES.saturating_sub(raw),
        }
    }

    /// How a hook ended, by its raw wait status, if that is what the code says.
    pub(crate) fn hook_end(code: i32) -> Option<i32> {
        (code <= HOOK_CODES).then(|| HOOK_CODES.saturating_sub(code))
    }

    /// The words for a code that a child reported.
    pub(crate) fn words(code: i32) -> String {
        match code {
            -1 => "no such user in its /etc/passwd".to_owned(),
            -2 => "no such group in its /etc/group".to_owned(),
            -3 => "its file system cannot be id-mapped".to_owned(),
            -4 => "its number is not one of the container's 65536".to_owned(),
            code if code <= HOOK_CODES => {
                ExitStatus::from_raw(HOOK_CODES.saturating_sub(code)).to_string()
            }
            errno => {
                // libc's words, as every tool shows them, without Rust's number after them.
                let text = std::io::Error::from_raw_os_error(errno).to_string();
                let end = text.rfind(" (os error").unwrap_or(text.len());
                text[..end].to_owned()
            }
        }
    }
}

/// Encodes "step `index` failed with `code`".
fn report(index: usize, fault: Fault) -> [u8; REPORT_BYTES] {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let mut bytes = [0; REPORT_BYTES];
    bytes[..4].copy_from_slice(&index.to_ne_bytes());
    bytes[4..].copy_from_slice(&fault.code().to_ne_bytes());
    bytes
}

/// Decodes a report: index and code.
pub(crate) fn read_report(bytes: [u8; REPORT_BYTES]) -> (usize, i32) {
    let [a, b, c, d, e, f, g, h] = bytes;
    let index = u32::from_ne_bytes([a, b, c, d]);
    (
        usize::try_from(index).unwrap_or(usize::MAX),
        i32::from_ne_bytes([e, f, g, h]),
    )
}

/// What the child needs from the keeper besides the plan.
#[derive(Debug)]
pub(crate) struct Handed<'a> {
    /// stdin, stdout and stderr of the command.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Write end of the failure pipe.
    pub(crate) report: BorrowedFd<'a>,
    /// The network namespace, or the pidfd of the container to enter.
    pub(crate) namespace: Option<BorrowedFd<'a>>,
    /// Write end of the status pipe, for our PID 1.
    pub(crate) status: Option<BorrowedFd<'a>>,
    /// The user namespace that it ends up in.
    pub(crate) users: Option<BorrowedFd<'a>>,
    /// The container whose IPC namespace it shares.
    pub(crate) ipc: Option<BorrowedFd<'a>>,
    /// The directories that all views of cgroups share.
    pub(crate) cgroups: Option<BorrowedFd<'a>>,
    /// Where the master of its terminal is to go.
    pub(crate) terminal: Option<BorrowedFd<'a>>,
    /// The limit on descriptors that the keeper was started with.
    pub(crate) nofile: Rlimit,
}

/// Descriptors that steps hand to later steps.
#[derive(Debug, Default)]
struct Progress {
    root: Option<OwnedFd>,
    proc: Option<OwnedFd>,
    sys: Option<OwnedFd>,
    dev: Option<OwnedFd>,
    empty: Option<OwnedFd>,
    volume: Option<OwnedFd>,
    secrets: Option<OwnedFd>,
    cwd: Option<OwnedFd>,
    landlock: Option<OwnedFd>,
    identity: Identity,
    /// To the runtime, of a container made from an OCI configuration.
    link: Option<oci::Link>,
    /// Whether there are directories for the view of cgroups.
    cgroups: bool,
    /// First number of the host of the container's users.
    base: u32,
    /// Whether the plan says how many descriptors there may be.
    nofile: bool,
}

impl Progress {
    /// The host's number of a user or group of the container.
    fn host_id(&self, id: u32) -> Result<u32, Fault> {
        match self.base {
            0 => Ok(id),
            base if id < USERS => Ok(base + id),
            _ => Err(Fault::Beyond),
        }
    }
}

/// The descriptor that an earlier step must have left.
fn needed(fd: &Option<OwnedFd>) -> Result<BorrowedFd<'_>, Errno> {
    fd.as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
}

/// Runs the plan; never returns.
pub(crate) fn run(plan: &mut Plan, handed: &Handed<'_>) -> ! {
    if place_descriptors(handed).is_err() {
        sys::exit_now(125);
    }
    rustix::process::umask(Mode::empty());
    for signo in KEEPER_IGNORES {
        sys::ignore_signal(signo, false);
    }
    // A session of its own: no signal of a terminal or process group outside reaches it.
    let _ = rustix::process::setsid();
    let mut progress = Progress {
        cgroups: handed.cgroups.is_some(),
        ..Progress::default()
    };
    for (index, step) in plan.steps.iter_mut().enumerate() {
        if let Err(fault) = take(step, &plan.command, &mut progress, handed.nofile) {
            let pipe = sys::adopt_fd(REPORT_FD);
            // Eight bytes fit a pipe; if the keeper is gone there is nobody to tell.
            let _ = rustix::io::write(&pipe, &report(index, fault));
            sys::exit_now(127);
        }
        // Our PID 1 stays a copy of this memory.
        if let Step::Secret { content, .. } = step {
            content.wipe();
        }
    }
    sys::exit_now(126)
}

fn place_descriptors(handed: &Handed<'_>) -> Result<(), Errno> {
    for (number, fd) in (0..).zip(handed.stdio) {
        sys::dup_to(fd, number, false)?;
    }
    sys::dup_to(handed.report, REPORT_FD, true)?;
    if let Some(namespace) = handed.namespace {
        sys::dup_to(namespace, NAMESPACE_FD, true)?;
    }
    if let Some(status) = handed.status {
        sys::dup_to(status, STATUS_FD, true)?;
    }
    if let Some(users) = handed.users {
        sys::dup_to(users, USERS_FD, true)?;
    }
    if let Some(ipc) = handed.ipc {
        sys::dup_to(ipc, IPC_FD, true)?;
    }
    if let Some(cgroups) = handed.cgroups {
        sys::dup_to(cgroups, CGROUPS_FD, true)?;
    }
    if let Some(terminal) = handed.terminal {
        sys::dup_to(terminal, TERMINAL_FD, true)?;
    }
    sys::close_from(FIRST_FREE_FD.unsigned_abs())
}

/// Runs one step.
fn take(
    step: &Step,
    command: &Command,
    progress: &mut Progress,
    nofile: Rlimit,
) -> Result<(), Fault> {
    match step {
        Step::CgroupMake(path) => Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?),
        Step::CgroupSet { file, value } => write_file(file, value.as_bytes()),
        // "0" in `tasks` moves the writer alone, for which the kernel (5.6) skips the lock that
        // `cgroup.procs` waits a grace period for: 20 ms at worst.
        Step::CgroupJoin(tasks) => write_file(tasks, b"0"),
        Step::CgroupView(view) => cgroups::view(needed(&progress.sys)?, view, progress.cgroups),
        Step::CgroupNamespace => Ok(nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP)?),
        Step::NetEnter => namespaces::enter(CloneFlags::CLONE_NEWNET),
        Step::NetLoopback => namespaces::loopback(),
        Step::NetOpen => namespaces::open_network(),
        Step::IpcEnter => namespaces::enter_ipc(),
        Step::Time(offsets) => namespaces::time(offsets),
        Step::DetachMounts => {
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            Ok(mount_change(c"/", private)?)
        }
        Step::Slot { dir, fresh } => root::slot(dir, *fresh),
        Step::LimitedSlot {
            parent,
            name,
            limit,
        } => root::limited_slot(parent, name, limit),
        Step::MapRoot => mapping::host_root(),
        Step::MapSlot => mapping::working_directory(),
        Step::MapTree { path, names } => mapping::tree(path, names),
        Step::Overlay { lower, options } => {
            root::overlay(lower, options.as_deref(), &mut progress.root)
        }
        Step::Hide(at) => root::hide(needed(&progress.root)?, at, &mut progress.empty),
        Step::EtcFile { name, content } => root::etc_file(needed(&progress.root)?, name, content),
        Step::Mount(step) => mount::make(step, progress),
        Step::Cover { within, .. } => {
            root::cover_below(needed(&progress.volume)?, within, &mut progress.empty)
        }
        Step::Secrets { size } => mount::secrets(size, progress),
        Step::Secret { at, name, content } => mount::secret(at, name, content.bytes(), progress),
        Step::SecretOwner(names) => mount::own_secrets(names, command, progress),
        Step::Proc => kernel_fs::proc(needed(&progress.root)?, &mut progress.proc),
        Step::Sys => kernel_fs::sys(needed(&progress.root)?, &mut progress.sys),
        Step::Dev { shm, tty } => kernel_fs::dev(progress, shm, tty),
        Step::Device { at, kind, numbers } => {
            kernel_fs::device(needed(&progress.dev)?, at, *kind, *numbers)
        }
        Step::Guard(guard) => kernel_fs::guard(guard, progress),
        Step::Protect(at) => mount::protect(needed(&progress.root)?, at),
        Step::Mask(at) => kernel_fs::mask(at, progress),
        Step::ReadOnlyRoot => mount::read_only(needed(&progress.root)?),
        Step::Cwd(path) => open_cwd(path, progress),
        Step::Pivot => root::pivot(needed(&progress.root)?),
        Step::Hostname(name) => Ok(rustix::system::sethostname(name.as_bytes())?),
        Step::Keyring => namespaces::own_keyring(),
        Step::MakeTerminal(size) => {
            let socket = users::borrow_fd(TERMINAL_FD);
            terminal::make(needed(&progress.root)?, socket, *size).map(drop)
        }
        Step::EnterContainer { time } => namespaces::enter_container(*time, progress),
        step => become_command(step, command, progress, nofile),
    }
}

/// Runs one step of those that turn this process into the command.
fn become_command(
    step: &Step,
    command: &Command,
    progress: &mut Progress,
    nofile: Rlimit,
) -> Result<(), Fault> {
    match step {
        Step::ActAs(base) => {
            progress.base = *base;
            mapping::act_as(*base)
        }
        Step::ActAsRoot => mapping::act_as(0),
        Step::LookUpUser(who) => {
            progress.identity = user::look_up(needed(&progress.root)?, who)?;
            Ok(())
        }
        Step::Groups(groups) => {
            progress.identity.add_groups(groups);
            Ok(())
        }
        Step::OomScore(score) => write_proc(c"/proc/self/oom_score_adj", score.as_bytes()),
        Step::OwnStreams => {
            progress.identity.settle(&command.who);
            credentials::own_streams(progress.host_id(progress.identity.uid().as_raw())?)
        }
        Step::Init { mapped } => init::split(*mapped),
        Step::Hold { mapped } => init::hold(*mapped),
        Step::Terminal => Ok(rustix::process::ioctl_tiocsctty(sys::stdin())?),
        Step::Rlimit(limit) => {
            progress.nofile |= limit.resource == Resource::Nofile;
            credentials::limit(limit)
        }
        Step::EnterUsers => mapping::enter(),
        Step::Credentials(caps) => {
            progress.identity.settle(&command.who);
            let nofile = Some(nofile).filter(|_| !progress.nofile);
            credentials::become_user(&progress.identity, *caps, nofile)?;
            Ok(rustix::process::fchdir(needed(&progress.cwd)?)?)
        }
        Step::LandlockRules { version, rules } => {
            let root = needed(&progress.root)?;
            progress.landlock = Some(landlock::rules(root, *version, rules)?);
            Ok(())
        }
        Step::Confine => Ok(confine::landlock_confine(needed(&progress.landlock)?)?),
        Step::Filter(program) => Ok(confine::load_filter(
            program.instructions(),
            program.flags(),
        )?),
        Step::NoNewPrivileges => Ok(rustix::thread::set_no_new_privs(true)?),
        Step::Oci(step) => oci::take(step, command, progress),
        Step::Exec(_) => Err(exec(command)),
        // Every other step is one of `take`'s.
        _ => Err(Errno::NOSYS.into()),
    }
}

fn write_file(path: &CStr, text: &[u8]) -> Result<(), Fault> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text)?;
    Ok(())
}

/// Writes a file of procfs, and of nothing that was put in its place (CVE-2025-52881).
fn write_proc(path: &CStr, text: &[u8]) -> Result<(), Fault> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatfs(&file)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Err(Errno::XDEV.into());
    }
    rustix::io::write(&file, text)?;
    Ok(())
}

fn open_cwd(path: &InRoot, progress: &mut Progress) -> Result<(), Fault> {
    progress.cwd = Some(paths::make_dirs(needed(&progress.root)?, path)?);
    Ok(())
}

/// As execvp(3): the first that exists and may be run; "permission denied" wins over "not found".
fn exec(command: &Command) -> Fault {
    let mut denied = false;
    let mut last = Errno::NOENT;
    for candidate in &command.candidates {
        last = try_exec(candidate, command);
        match last {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => denied = true,
            _ => return last.into(),
        }
    }
    if denied {
        Errno::ACCESS.into()
    } else {
        last.into()
    }
}

fn try_exec(path: &CString, command: &Command) -> Errno {
    sys::execve(path, &command.argv, &command.envp)
}
