//! A process beside the agent that follows it, its keeper and all that these make by `ptrace(2)`, and
//! kills one of them just before it changes the world for the n-th time.
//!
//! It knows nothing of tasks. When it ends, what it followed goes on by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// `CLONE_THREAD`: what makes a thread changes nothing that outlives the process.
const CLONE_THREAD: u64 = 0x0001_0000;

/// Which process a followed one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Agent,
    /// What the agent starts so that there is a keeper, until that listens.
    Foreground,
    Keeper,
    Sweeper,
    Outlet,
    Errand,
    /// A container that is being made, and its PID 1.
    Setup,
}

impl Role {
    pub(crate) const ALL: [Self; 7] = [
        Self::Agent,
        Self::Foreground,
        Self::Keeper,
        Self::Sweeper,
        Self::Outlet,
        Self::Errand,
        Self::Setup,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Foreground => "foreground",
            Self::Keeper => "keeper",
            Self::Sweeper => "sweeper",
            Self::Outlet => "outlet",
            Self::Errand => "errand",
            Self::Setup => "setup",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

#[derive(Debug)]
struct Tracee {
    process: Pid,
    role: Role,
    /// False of the shell that becomes the agent.
    counts: bool,
}

struct Tracer {
    tracees: BTreeMap<Pid, Tracee>,
    /// New ones that were heard of before who made them.
    held: BTreeSet<Pid>,
    watched: Role,
    victim: Role,
    number: u64,
    seen: u64,
    report: File,
}

/// `trace PID WATCHED VICTIM NUMBER REPORT`: follows PID, and kills the victim when what is watched
/// is about to take its step of that number (0: never). Says "ready" once it follows. Each step goes
/// to the report as a line.
pub(crate) fn main(args: &[String]) -> ExitCode {
    let root = Pid::from_raw(args[0].parse().unwrap());
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::seize(root, options).unwrap();
    ptrace::interrupt(root).unwrap();
    let mut tracer = Tracer {
        tracees: BTreeMap::new(),
        held: BTreeSet::new(),
        watched: Role::parse(&args[1]).unwrap(),
        victim: Role::parse(&args[2]).unwrap(),
        number: args[3].parse().unwrap(),
        seen: 0,
        report: File::create(&args[4]).unwrap(),
    };
    let shell = Tracee {
        process: root,
        role: Role::Agent,
        counts: false,
    };
    tracer.tracees.insert(root, shell);
    println!("ready");
    tracer.follow();
    ExitCode::SUCCESS
}

impl Tracer {
    /// Until the victim is killed or all are gone.
    fn follow(&mut self) {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    if self.at_call(pid) {
                        return;
                    }
                    self.go_on(pid, None);
                }
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => self.at_event(pid, event),
                Ok(WaitStatus::Stopped(pid, signal)) => self.go_on(pid, Some(signal)),
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                    self.tracees.remove(&pid);
                }
                Ok(_) => {}
                Err(nix::errno::Errno::ECHILD) => return,
                Err(error) => panic!("waitpid: {error}"),
            }
        }
    }

    fn at_event(&mut self, pid: Pid, event: i32) {
        match event {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                if let Ok(new) = ptrace::getevent(pid) {
                    self.born(pid, Pid::from_raw(i32::try_from(new).unwrap()));
                }
            }
            libc::PTRACE_EVENT_EXEC => {
                let role = self.tracees.get_mut(&pid).map(|tracee| {
                    tracee.counts = true;
                    tracee.role
                });
                if matches!(role, Some(Role::Setup | Role::Errand)) {
                    // The container's own command: nobody's business here.
                    self.tracees.remove(&pid);
                    let _ = ptrace::detach(pid, None);
                    return;
                }
            }
            _ if !self.tracees.contains_key(&pid) => {
                self.held.insert(pid);
                return;
            }
            _ => {}
        }
        self.go_on(pid, None);
    }

    fn born(&mut self, parent: Pid, child: Pid) {
        let Some(maker) = self.tracees.get(&parent) else {
            return;
        };
        let thread = std::fs::exists(format!("/proc/{}/task/{child}", maker.process));
        let (process, role) = if thread.unwrap_or(false) {
            (maker.process, maker.role)
        } else {
            let role = match maker.role {
                Role::Agent => Role::Foreground,
                Role::Foreground => Role::Keeper,
                _ => Role::Setup,
            };
            (child, role)
        };
        let tracee = Tracee {
            process,
            role,
            counts: maker.counts,
        };
        if process == child {
            writeln!(self.report, "born {} {child}", role.name()).unwrap();
        }
        self.tracees.insert(child, tracee);
        if self.held.remove(&child) {
            self.go_on(child, None);
        }
    }

    /// Whether that was the end.
    fn at_call(&mut self, pid: Pid) -> bool {
        let Some(tracee) = self.tracees.get_mut(&pid) else {
            return false;
        };
        let entry = libc::PTRACE_SYSCALL_INFO_ENTRY;
        let enters = ptrace::syscall_info(pid).is_ok_and(|info| info.op == entry);
        if !enters || !tracee.counts {
            return false;
        }
        if tracee.role == Role::Setup {
            let comm = std::fs::read_to_string(format!("/proc/{}/comm", tracee.process));
            tracee.role = match comm.unwrap_or_default().trim() {
                "gantry-sweeper" => Role::Sweeper,
                "gantry-outlet" => Role::Outlet,
                "gantry-errand" => Role::Errand,
                _ => Role::Setup,
            };
        }
        if tracee.role != self.watched {
            return false;
        }
        let Some(what) = change(pid) else {
            return false;
        };
        self.seen += 1;
        writeln!(self.report, "step {} {what}", self.seen).unwrap();
        if self.seen != self.number {
            return false;
        }
        let own = (self.victim == self.watched).then_some(tracee.process);
        let mut others = self.tracees.values().filter(|it| it.role == self.victim);
        let victim = own.or_else(|| others.next().map(|it| it.process));
        let Some(victim) = victim else { return false };
        kill(victim, Signal::SIGKILL).unwrap();
        writeln!(self.report, "killed {victim}").unwrap();
        true
    }

    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        // Only what is watched stops at its calls, and what may turn out to be that.
        let watched = self.tracees.get(&pid).is_some_and(|it| {
            it.role == self.watched || (it.role == Role::Setup && self.watched > Role::Keeper)
        });
        // It may have been killed meanwhile.
        let _ = if watched {
            ptrace::syscall(pid, signal)
        } else {
            ptrace::cont(pid, signal)
        };
    }
}

/// In words what the call that a thread is about to make changes, if that outlives the thread.
fn change(pid: Pid) -> Option<String> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let mut words = line.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let args: Vec<u64> = words
        .filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
        .collect();
    let target = |index: usize| {
        let fd = args.get(index)?;
        let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
        Some(link.to_string_lossy().into_owned())
    };
    let (_, name) = CALLS.iter().find(|(call, _)| *call == number)?;
    match number {
        libc::SYS_openat => {
            let made = libc::O_CREAT | libc::O_TRUNC;
            let flags = i32::try_from(args.get(2)? & 0xffff_ffff).ok()?;
            (flags & made != 0).then(|| (*name).to_owned())
        }
        libc::SYS_clone => (args.first()? & CLONE_THREAD == 0).then(|| (*name).to_owned()),
        libc::SYS_clone3 => {
            let flags = ptrace::read(pid, *args.first()? as *mut c_void).ok()?;
            (flags.cast_unsigned() & CLONE_THREAD == 0).then(|| (*name).to_owned())
        }
        libc::SYS_write | libc::SYS_writev | libc::SYS_pwrite64 => {
            let target = target(0)?;
            // What is said in a log, and what wakes another thread, changes nothing.
            let quiet = *args.first()? <= 2 || target.starts_with("anon_inode");
            (!quiet).then(|| format!("{name} {target}"))
        }
        libc::SYS_sendmsg | libc::SYS_sendto | libc::SYS_fsync | libc::SYS_fdatasync => {
            Some(format!("{name} {}", target(0).unwrap_or_default()))
        }
        _ => Some((*name).to_owned()),
    }
}

macro_rules! calls {
    ($($name:ident),* $(,)?) => {
        &[$((libc::$name, stringify!($name))),*]
    };
}

/// Calls that change something outside of the process that makes them.
const CALLS: &[(i64, &str)] = calls![
    SYS_openat,
    SYS_write,
    SYS_writev,
    SYS_pwrite64,
    SYS_splice,
    SYS_sendmsg,
    SYS_sendto,
    SYS_fsync,
    SYS_fdatasync,
    SYS_flock,
    SYS_ftruncate,
    SYS_mkdir,
    SYS_mkdirat,
    SYS_rmdir,
    SYS_unlink,
    SYS_unlinkat,
    SYS_rename,
    SYS_renameat,
    SYS_renameat2,
    SYS_link,
    SYS_linkat,
    SYS_symlink,
    SYS_symlinkat,
    SYS_mknodat,
    SYS_chmod,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_chown,
    SYS_fchown,
    SYS_fchownat,
    SYS_setxattr,
    SYS_fsetxattr,
    SYS_clone,
    SYS_clone3,
    SYS_vfork,
    SYS_execve,
    SYS_unshare,
    SYS_setns,
    SYS_mount,
    SYS_umount2,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsmount,
    SYS_fsconfig,
    SYS_mount_setattr,
    SYS_pivot_root,
    SYS_kill,
    SYS_tgkill,
    SYS_pidfd_send_signal,
    SYS_waitid,
    SYS_bpf,
    SYS_bind,
    SYS_listen,
    SYS_connect,
    SYS_accept4,
    SYS_setsid,
    SYS_exit_group,
];
