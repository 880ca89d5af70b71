//! What runs between clone and exec: the steps of a plan, in order, each one's failure reported with
//! its index.
//!
//! It decides nothing that the plan did not; it deliberately allocates nothing and takes no lock.
//! Descriptors: 0 to 2 are the command's, [`REPORT_FD`] the failure pipe, [`NAMESPACE_FD`] the
//! network namespace or the container to enter, [`STATUS_FD`] where our PID 1 writes the command's
//! end; everything else is closed first, so nothing of the keeper's can leak (CVE-2024-21626).

mod credentials;
mod init;
mod kernel_fs;
mod mount;
mod paths;
mod root;
mod user;

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::Rlimit;

use crate::plan::{Command, InRoot, Plan, Step};
use crate::sys::{self, mount_attr};
use user::Identity;

/// Where the failure pipe is.
pub(crate) const REPORT_FD: RawFd = 3;
/// Where the namespace to enter is.
pub(crate) const NAMESPACE_FD: RawFd = 4;
/// Where the status pipe is.
pub(crate) const STATUS_FD: RawFd = 5;
/// The keeper keeps its own descriptors from here on.
pub(crate) const FIRST_FREE_FD: RawFd = 6;
/// Signals that the keeper ignores: it ends by request only, since its end is the end of every task.
/// A supervisor that signals the whole group of gantry's processes must not end them.
pub(crate) const KEEPER_IGNORES: [libc::c_int; 4] =
    [libc::SIGPIPE, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
/// Bytes of a report.
pub(crate) const REPORT_BYTES: usize = 8;

/// Why a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The kernel refused.
    Errno(Errno),
    /// The container's `/etc/passwd` has no such user.
    NoUser,
    /// The container's `/etc/group` has no such group.
    NoGroup,
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
        }
    }

    /// The words for a code that a child reported.
    pub(crate) fn words(code: i32) -> String {
        match code {
            -1 => "no such user in its /etc/passwd".to_owned(),
            -2 => "no such group in its /etc/group".to_owned(),
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
    identity: Identity,
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
    let mut progress = Progress::default();
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
        Step::CgroupNamespace => Ok(nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP)?),
        Step::NetEnter => enter(CloneFlags::CLONE_NEWNET),
        Step::NetLoopback => loopback(),
        Step::NetPing => allow_ping(),
        Step::DetachMounts => {
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            Ok(mount_change(c"/", private)?)
        }
        Step::Slot { dir, fresh } => root::slot(dir, *fresh),
        Step::Overlay { lower, options } => {
            root::overlay(lower, options.as_deref(), &mut progress.root)
        }
        Step::Hide(at) => root::hide(needed(&progress.root)?, at, &mut progress.empty),
        Step::EtcFile { name, content } => root::etc_file(needed(&progress.root)?, name, content),
        Step::Mount(step) => {
            progress.volume = Some(mount::make(needed(&progress.root)?, step)?);
            Ok(())
        }
        Step::Cover { within, .. } => {
            root::cover_below(needed(&progress.volume)?, within, &mut progress.empty)
        }
        Step::Secrets { size } => {
            progress.secrets = Some(mount::secrets(size)?);
            Ok(())
        }
        Step::Secret { at, name, content } => {
            let (root, secrets) = (needed(&progress.root)?, needed(&progress.secrets)?);
            mount::secret(root, secrets, at, name, content.bytes())
        }
        Step::SecretOwner(names) => {
            progress.identity.settle(&command.who);
            let (uid, gid) = (progress.identity.uid(), progress.identity.gid());
            mount::own_secrets(needed(&progress.secrets)?, names, uid, gid)
        }
        Step::Proc => kernel_fs::proc(needed(&progress.root)?, &mut progress.proc),
        Step::Sys => kernel_fs::sys(needed(&progress.root)?, &mut progress.sys),
        Step::Dev { shm } => kernel_fs::dev(needed(&progress.root)?, shm, &mut progress.dev),
        Step::Device {
            at,
            kind,
            major,
            minor,
        } => kernel_fs::device(needed(&progress.dev)?, at, *kind, (*major, *minor)),
        Step::Guard(guard) => kernel_fs::guard(guard, progress),
        Step::Protect(at) => mount::protect(needed(&progress.root)?, at),
        Step::Mask(at) => kernel_fs::mask(at, progress),
        Step::ReadOnlyRoot => {
            let root = needed(&progress.root)?;
            Ok(sys::mount_setattr(root, mount_attr::RDONLY, false)?)
        }
        Step::Cwd(path) => open_cwd(path, progress),
        Step::LookUpUser(who) => {
            progress.identity = user::look_up(needed(&progress.root)?, who)?;
            Ok(())
        }
        Step::Pivot => root::pivot(needed(&progress.root)?),
        Step::Hostname(name) => Ok(rustix::system::sethostname(name.as_bytes())?),
        Step::Keyring => own_keyring(),
        Step::Init => init::split(),
        Step::EnterContainer => enter_container(progress),
        Step::Terminal => Ok(rustix::process::ioctl_tiocsctty(sys::stdin())?),
        Step::Credentials(caps) => {
            progress.identity.settle(&command.who);
            credentials::become_user(&progress.identity, *caps, nofile)?;
            Ok(rustix::process::fchdir(needed(&progress.cwd)?)?)
        }
        Step::Exec(_) => Err(exec(command)),
    }
}

fn write_file(path: &CStr, text: &[u8]) -> Result<(), Fault> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text)?;
    Ok(())
}

fn enter(kinds: CloneFlags) -> Result<(), Fault> {
    let namespace = sys::adopt_fd(NAMESPACE_FD);
    Ok(nix::sched::setns(namespace, kinds)?)
}

fn loopback() -> Result<(), Fault> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(sys::loopback_up(socket.as_fd())?)
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

/// Echo sockets instead of raw ones (icmp(7)). Only a convenience: where the kernel has no such
/// knob, or a container around us made it read-only, ping is what does without.
fn allow_ping() -> Result<(), Fault> {
    match write_proc(c"/proc/sys/net/ipv4/ping_group_range", b"0 2147483647") {
        Err(Fault::Errno(Errno::NOENT | Errno::ROFS | Errno::ACCESS)) => Ok(()),
        done => done,
    }
}

/// Keyrings have no namespace: what the host or another container keeps in its session's must not
/// be this one's (keyrings(7)). A kernel without keys has nothing to share.
fn own_keyring() -> Result<(), Fault> {
    match sys::join_new_session_keyring() {
        Err(Errno::NOSYS) => Ok(()),
        done => Ok(done?),
    }
}

/// The PID namespace was set by the keeper before the clone, since it only holds for children.
fn enter_container(progress: &mut Progress) -> Result<(), Fault> {
    enter(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP,
    )?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    progress.root = Some(rustix::fs::openat(CWD, c"/", flags, Mode::empty())?);
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
