//! Cloning a process with a plan, and the runtime's end of the talk with it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, sendmsg, socketpair,
};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::error::{OciError, call};
use super::relay;
use super::steps::{Kept, with_pid_namespace};
use crate::cgroup::Door;
use crate::child::oci::{
    GO, GROUPS, HOOKS, MAX_DOORS, MAX_WORDS_BYTES, OciHanded, READY, WORDS, run,
};
use crate::child::{Fault, REPORT_BYTES, read_report};
use crate::plan::{OciStep, Plan, Step};
use crate::spec::ExitStatus;
use crate::sys::oci::SchedAttr;
use crate::sys::{self, Cloned, clone_flags};

/// How to clone.
pub(super) struct Wanted<'a> {
    pub(super) flags: u64,
    pub(super) unified: Option<BorrowedFd<'a>>,
    /// PID namespace to set for the clone.
    pub(super) pid_namespace: Option<i32>,
    /// Who clones.
    pub(super) between: Between,
    /// Namespaces to enter before the user namespace of [`Between::Users`].
    pub(super) before_users: Vec<(i32, CloneFlags)>,
    /// Text of `uid_map` and `gid_map` of a new one.
    pub(super) id_maps: Option<(String, String)>,
    pub(super) oom_score_adj: Option<i32>,
    /// Where the start is awaited.
    pub(super) start: Option<BorrowedFd<'a>>,
    /// The container's lock, which only the runtime may hold.
    pub(super) lock: Option<i32>,
    /// The file of the small program that runs the container's.
    pub(super) relay: Option<BorrowedFd<'a>>,
}

/// Who makes the process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Between {
    /// The runtime.
    Nobody,
    /// A process that entered this user namespace, so that it owns the new namespaces, and others
    /// before it.
    Users(i32),
    /// A process that runs the plan up to its [`OciStep::Birth`].
    Plan,
}

/// A process that was cloned; dropped before [`Launched::release`], it is killed.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    sync: OwnedFd,
    plan: Plan,
    armed: bool,
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.armed {
            // Errors mean that it is gone already.
            let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
            let _ = sys::oci::wait_for(self.pid);
        }
    }
}

/// What the process said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It wants into the container's groups.
    Groups,
    /// It wants the runtime's hooks.
    Hooks,
    /// It is ready to be started.
    Ready,
    /// It runs its program.
    Running,
}

/// Clones. `hooks` are run when a process that makes another asks for them, with its number.
pub(super) fn launch(
    plan: Plan,
    kept: Kept,
    wanted: &Wanted<'_>,
    hooks: impl FnMut(i32) -> Result<(), OciError>,
) -> Result<Launched, OciError> {
    let words = "clone the container's process";
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(call("make a socket"))?;
    let relay = wanted
        .relay
        .map(|file| relay::fill(file, &theirs, &plan))
        .transpose()?;
    let handed = OciHanded {
        relay: relay.as_ref(),
        stdio: None,
        sync: theirs.as_fd(),
        start: wanted.start,
        number: None,
        parents: [Some(ours.as_raw_fd()), wanted.lock],
    };
    let cloned = with_pid_namespace(wanted.pid_namespace, || match wanted.between {
        Between::Users(users) => through_users(users, wanted, &plan, handed),
        Between::Plan => {
            let attend = |pid, told: &OwnedFd| attend(&ours, pid, told, hooks);
            through(wanted.flags, wanted.unified, attend, |number| {
                let number = Some(number.as_fd());
                run(&plan, OciHanded { number, ..handed })
            })
        }
        Between::Nobody => {
            let cloned = sys::clone3(clone_flags::PIDFD | wanted.flags, wanted.unified);
            if matches!(cloned, Ok(Cloned::Child)) {
                run(&plan, handed);
            }
            match cloned {
                Ok(Cloned::Parent(pid, Some(pidfd))) => Ok(Some((pid, pidfd))),
                Ok(_) => Err(call(words)(Errno::BADF)),
                Err(errno) => Err(call(words)(errno)),
            }
        }
    })?;
    drop(theirs);
    drop(kept);
    let Some((pid, pidfd)) = cloned? else {
        return Err(ended(&ours, &plan));
    };
    let launched = Launched {
        pid,
        pidfd,
        sync: ours,
        plan,
        armed: true,
    };
    if let Some((users, groups)) = &wanted.id_maps {
        for (file, text) in [("uid_map", users), ("gid_map", groups)] {
            std::fs::write(format!("/proc/{pid}/{file}"), text)
                .map_err(call(format!("write the {file} of the user namespace")))?;
        }
        launched.go()?;
    }
    if let Some(adjustment) = wanted.oom_score_adj {
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string())
            .map_err(call(format!("set oom_score_adj to {adjustment}")))?;
    }
    Ok(launched)
}

/// Why a process ended before it made its sibling.
fn ended(sync: &OwnedFd, plan: &Plan) -> OciError {
    match hear(sync) {
        Ok(Heard::Report(report, words)) => OciError::Start(failure(plan, report, &words)),
        Ok(_) => OciError::Start("the process ended while it was set up".to_owned()),
        Err(error) => error,
    }
}

/// Clones from a process that entered the user namespace first. That process only tells the number
/// of its sibling and ends.
fn through_users(
    users: i32,
    wanted: &Wanted<'_>,
    plan: &Plan,
    handed: OciHanded<'_>,
) -> Result<Option<(i32, OwnedFd)>, OciError> {
    through(
        0,
        None,
        |_, _| Ok(()),
        |write| {
            let last = (users, CloneFlags::CLONE_NEWUSER);
            let mut all = wanted.before_users.iter().copied().chain([last]);
            let entered =
                all.try_for_each(|(file, kind)| nix::sched::setns(sys::oci::borrow(file), kind));
            let number = match entered {
                Err(errno) => -(errno as i32),
                Ok(()) => match sys::clone3(clone_flags::PARENT | wanted.flags, wanted.unified) {
                    Ok(Cloned::Child) => run(plan, handed),
                    Ok(Cloned::Parent(pid, _)) => pid,
                    Err(errno) => -errno.raw_os_error(),
                },
            };
            // Four bytes fit a pipe.
            let _ = rustix::io::write(&write, &number.to_ne_bytes());
            sys::exit_now(0)
        },
    )
}

/// Serves the hooks that a process asks for until it tells a number, or is gone.
fn attend(
    sync: &OwnedFd,
    pid: i32,
    told: &OwnedFd,
    mut hooks: impl FnMut(i32) -> Result<(), OciError>,
) -> Result<(), OciError> {
    let words = "listen to the container's process";
    loop {
        let mut fds = [told, sync].map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            done => done.map_err(call(words))?,
        };
        let [number, message] = fds.map(|fd| !fd.revents().is_empty());
        if number || !message {
            return Ok(());
        }
        let mut byte = [0; 2];
        let got = rustix::net::recv(sync, &mut byte, RecvFlags::PEEK).map_err(call(words))?;
        if (got.0, byte[0]) != (1, HOOKS) {
            // A report, or the word of the next process: for later.
            return Ok(());
        }
        hear(sync)?;
        hooks(pid)?;
        rustix::net::send(sync, &[GO], SendFlags::NOSIGNAL).map_err(call(words))?;
    }
}

/// Runs `then` in a process that makes a sibling and tells its number by the pipe, while we do what
/// `meanwhile` says, with its own number. None: it ended without.
fn through(
    flags: u64,
    unified: Option<BorrowedFd<'_>>,
    meanwhile: impl FnOnce(i32, &OwnedFd) -> Result<(), OciError>,
    then: impl FnOnce(OwnedFd),
) -> Result<Option<(i32, OwnedFd)>, OciError> {
    let words = "clone the container's process";
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(call("make a pipe"))?;
    match sys::clone3(flags, unified).map_err(call(words))? {
        Cloned::Child => {
            drop(read);
            then(write);
            // It has not come back.
            sys::exit_now(126)
        }
        Cloned::Parent(between, _) => {
            drop(write);
            let mut bytes = [0; 4];
            let got = meanwhile(between, &read)
                .and_then(|()| rustix::io::read(&read, &mut bytes).map_err(call(words)));
            if got.is_err() {
                // It is ours and not yet waited for, so the number is its own.
                let _ = sys::kill(between, libc::SIGKILL);
            }
            sys::oci::wait_for(between).map_err(call(words))?;
            if got? != bytes.len() {
                return Ok(None);
            }
            sibling(i32::from_ne_bytes(bytes))
                .map(Some)
                .map_err(call(words))
        }
    }
}

/// The process that another one made for us; a negative number is why it did not.
fn sibling(number: i32) -> Result<(i32, OwnedFd), Errno> {
    match number {
        pid if pid > 0 => {
            // Its number stays its own until we wait for it, if it is our child; the number
            // may have come from the new process, which the container can reach into.
            let named = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(named), look)?;
            Ok((pid, pidfd_open(named, PidfdFlags::empty())?))
        }
        0 => Err(Errno::SRCH),
        errno => Err(Errno::from_raw_os_error(-errno)),
    }
}

/// A message.
pub(super) enum Heard {
    Byte(u8),
    /// A failure, and what a hook said.
    Report([u8; REPORT_BYTES], Vec<u8>),
    End,
}

/// The next message, with the words before a report.
pub(super) fn hear(sync: impl AsFd) -> Result<Heard, OciError> {
    let mut words = Vec::new();
    let mut bytes = [0; MAX_WORDS_BYTES + 1];
    loop {
        let got = match rustix::net::recv(&sync, &mut bytes, RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            Err(Errno::CONNRESET) => 0,
            done => done.map_err(call("listen to the container's process"))?.0,
        };
        match (&bytes[..got], bytes[0]) {
            ([], _) => return Ok(Heard::End),
            ([_], byte) => return Ok(Heard::Byte(byte)),
            ([_, rest @ ..], WORDS) => words = rest.to_vec(),
            (report, _) => {
                return Ok(match report.try_into() {
                    Ok(report) => Heard::Report(report, words),
                    Err(_) => Heard::End,
                });
            }
        }
    }
}

impl Launched {
    /// Sets how the process is scheduled.
    pub(super) fn schedule(&self, attr: &SchedAttr) -> Result<(), OciError> {
        sys::oci::schedule(self.pid, attr).map_err(|errno| match errno {
            // sched_setattr(2) names this among the reasons.
            Errno::PERM => call("process scheduler can't be used together with AllowedCPUs")(errno),
            errno => call("set the scheduler")(errno),
        })
    }

    /// Lets the process go on.
    pub(super) fn go(&self) -> Result<(), OciError> {
        match rustix::net::send(&self.sync, &[GO], SendFlags::NOSIGNAL) {
            // It is gone; listening tells why.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(call("talk to the container's process")(errno)),
        }
    }

    /// Hears the next word.
    pub(super) fn listen(&self) -> Result<Said, OciError> {
        match hear(&self.sync)? {
            Heard::Byte(GROUPS) => Ok(Said::Groups),
            Heard::Byte(HOOKS) => Ok(Said::Hooks),
            Heard::Byte(READY) => Ok(Said::Ready),
            Heard::Report(report, words) => {
                Err(OciError::Start(failure(&self.plan, report, &words)))
            }
            _ => Ok(Said::Running),
        }
    }

    /// Hands the ways into the container's groups over.
    fn hand_over(&self, doors: &[Door]) -> Result<(), OciError> {
        let fds: Vec<_> = doors.iter().map(|(_, door)| door.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DOORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(OciError::Refused("too many cgroup trees".to_owned()));
        }
        let bytes = [IoSlice::new(&[GO])];
        match sendmsg(&self.sync, &bytes, &mut control, SendFlags::NOSIGNAL) {
            // It is gone; listening tells why.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(call("talk to the container's process")(errno)),
        }
    }

    /// Expects that the process becomes ready, or says why not; `doors` are its groups.
    pub(super) fn await_ready(
        &self,
        doors: &[Door],
        mut hooks: impl FnMut(i32) -> Result<(), OciError>,
    ) -> Result<(), OciError> {
        loop {
            match self.listen()? {
                Said::Ready => return Ok(()),
                Said::Groups => self.hand_over(doors)?,
                Said::Hooks => {
                    hooks(self.pid)?;
                    self.go()?;
                }
                Said::Running => {
                    return Err(OciError::Start(
                        "the process ended while it was set up".to_owned(),
                    ));
                }
            }
        }
    }

    /// Starts a process that awaits it here, and expects that it runs its program.
    pub(super) fn start(&self) -> Result<(), OciError> {
        self.go()?;
        match self.listen()? {
            Said::Running => Ok(()),
            _ => Err(OciError::Start("it asked a second time".to_owned())),
        }
    }

    /// It lives on by itself.
    pub(super) fn release(mut self) -> (i32, std::io::Result<OwnedFd>) {
        self.armed = false;
        (self.pid, self.pidfd.try_clone())
    }
}

/// What a process reported.
fn failure(plan: &Plan, report: [u8; REPORT_BYTES], words: &[u8]) -> String {
    let (index, code) = read_report(report);
    let program = match plan.steps.last() {
        Some(Step::Exec(program)) => program.as_str(),
        _ => "",
    };
    let why = Fault::words(code);
    match plan.steps.get(index) {
        Some(Step::Oci(OciStep::FindProgram)) => program_words(program, code),
        Some(Step::Exec(_)) => exec_words(program, code),
        Some(Step::Oci(OciStep::Hook(_))) => hook_words(words, code),
        Some(Step::Oci(step @ OciStep::WorkingDirectory { .. })) => format!("{step} failed: {why}"),
        Some(Step::Oci(OciStep::Limit { name, .. })) => {
            let why = why.to_lowercase();
            format!("error setting rlimit type {name}: {why}")
        }
        Some(Step::Oci(OciStep::Mount(mount)))
            if mount.strict && (code == libc::ELOOP || code == libc::ENOTDIR) =>
        {
            let what = &mount.source;
            format!("filesystem {what:?} must be mounted on ordinary directory")
        }
        Some(step) => format!("{step}: {why}"),
        None => why,
    }
}

/// Why a hook in the container failed: the words begin with its name on a line.
pub(super) fn hook_words(words: &[u8], code: i32) -> String {
    let text = String::from_utf8_lossy(words);
    let (name, said) = text.split_once('\n').unwrap_or(("hook", ""));
    let why = match Fault::hook_end(code) {
        Some(raw) => super::hooks::how_ended(ExitStatus::from_raw(raw)),
        None => Fault::words(code).to_lowercase(),
    };
    format!(
        "error running {name}: {why}, stdout: , stderr: {}",
        said.trim()
    )
}

/// Why a program that was found did not run: its interpreter is missing, its format is unknown.
pub(super) fn exec_words(program: &str, code: i32) -> String {
    format!("exec {program}: {}", Fault::words(code).to_lowercase())
}

/// Why a program cannot be run, as Go's os/exec says it.
pub(super) fn program_words(program: &str, code: i32) -> String {
    let why = Fault::words(code).to_lowercase();
    match Errno::from_raw_os_error(code.max(0)) {
        Errno::NOENT | Errno::NOTDIR if !program.contains('/') => {
            format!("exec: \"{program}\": executable file not found in $PATH")
        }
        Errno::NOENT | Errno::NOTDIR => format!("exec: \"{program}\": stat {program}: {why}"),
        _ => format!("exec: \"{program}\": {why}"),
    }
}

/// What a shell would show of how a process ended.
pub(super) fn shell_status(raw: i32) -> u8 {
    let code = match ExitStatus::from_raw(raw) {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128 + signal,
    };
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// The raw number of a descriptor, for a plan.
pub(super) fn number(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}
