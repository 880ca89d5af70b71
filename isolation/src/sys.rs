//! System calls that no safe library wraps: the only unsafe code of this crate, one function each.
//!
//! It decides nothing; numbers and layouts are those of `linux/sched.h` and `linux/mount.h`.
//! Invariant that callers keep: the process that calls [`clone3`] has one thread, so a child may
//! use whatever its parent could.
#![expect(
    unsafe_code,
    reason = "raw system calls; each block states why it holds"
)]

pub(crate) mod bpf;
pub(crate) mod btrfs;
pub(crate) mod confine;
pub(crate) mod early;
mod memory;
pub(crate) mod quota;
pub(crate) mod relay;
pub(crate) mod users;

pub(crate) use memory::{find_spare_memory, give_back_memory};
pub(crate) mod oci;

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// `clone3(2)` flags. libc's constant for the second is 0 on gnu (it overflows a `c_int`).
pub(crate) mod clone_flags {
    /// Return a pidfd.
    pub(crate) const PIDFD: u64 = 0x1000;
    /// Make a sibling, whose parent is the caller's.
    pub(crate) const PARENT: u64 = 0x8000;
    /// New mount namespace.
    pub(crate) const NEWNS: u64 = 0x0002_0000;
    /// New UTS namespace.
    pub(crate) const NEWUTS: u64 = 0x0400_0000;
    /// New IPC namespace.
    pub(crate) const NEWIPC: u64 = 0x0800_0000;
    /// New PID namespace.
    pub(crate) const NEWPID: u64 = 0x2000_0000;
    /// New user namespace.
    pub(crate) const NEWUSER: u64 = 0x1000_0000;
    /// New network namespace.
    pub(crate) const NEWNET: u64 = 0x4000_0000;
    /// Start in the cgroup v2 directory of `clone_args.cgroup` (Linux 5.7).
    pub(crate) const INTO_CGROUP: u64 = 0x2_0000_0000;
}

/// `struct clone_args`, version 2 (88 bytes, Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of [`clone3`] this is.
#[derive(Debug)]
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// The caller: the child's process id and, with `PIDFD`, its pidfd.
    Parent(i32, Option<OwnedFd>),
}

/// Makes a child as `fork(2)` does, with `flags`, started in `cgroup` when given.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        ..CloneArgs::default()
    };
    if flags & clone_flags::PARENT != 0 {
        // It takes the caller's own; the kernel refuses another word.
        args.exit_signal = 0;
    }
    if flags & clone_flags::PIDFD != 0 {
        args.pidfd = (&raw mut pidfd) as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= clone_flags::INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` is a live clone_args of the size passed, `pidfd` outlives the call. No
    // CLONE_VM: the child has its own copy of memory, and the process has one thread (the module's
    // invariant), so no lock can be held by a thread that the child lacks.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            std::mem::size_of::<CloneArgs>(),
        )
    };
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel stored a new descriptor there that nobody else owns.
            let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
            Ok(Cloned::Parent(
                i32::try_from(pid).unwrap_or(i32::MAX),
                pidfd,
            ))
        }
        _ => Err(last_errno()),
    }
}

/// Strings in the form that `execve(2)` takes, made before the clone so that the child allocates
/// nothing.
pub(crate) struct StringArray {
    /// Owns what `pointers` point to; never changed after construction.
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl StringArray {
    /// Takes the strings.
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<*const c_char> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { strings, pointers }
    }

    /// The same strings behind another one.
    pub(crate) fn behind(&self, first: &CStr) -> Self {
        let first = std::iter::once(first.to_owned());
        Self::new(first.chain(self.strings.iter().cloned()).collect())
    }
}

impl fmt::Debug for StringArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.strings.fmt(f)
    }
}

/// Replaces the program; returns only on failure.
pub(crate) fn execve(path: &CStr, argv: &StringArray, envp: &StringArray) -> Errno {
    // SAFETY: `path` ends in NUL; both arrays end in a null pointer and their strings are owned by
    // the arrays, which outlive the call (CString buffers do not move with the Vec).
    unsafe {
        libc::execve(
            path.as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
        )
    };
    last_errno()
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: descriptors that safe code still owns are in a child that leaves by exec or _exit and
    // uses only those below `first`; close_range(2) touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    check(done)
}

/// `struct mount_attr`, version 0 (32 bytes, Linux 5.12).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Mount attributes of `mount_setattr(2)`.
pub(crate) mod mount_attr {
    /// Read-only.
    pub(crate) const RDONLY: u64 = 0x1;
    /// No set-user-id programs.
    pub(crate) const NOSUID: u64 = 0x2;
    /// No device nodes.
    pub(crate) const NODEV: u64 = 0x4;
    /// No programs are run from it.
    pub(crate) const NOEXEC: u64 = 0x8;
}

/// Adds attributes to the mount that `mount` is the root of, and to those below when `recursive`.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<(), Errno> {
    mount_change(mount, set, 0, 0, recursive)
}

/// Adds and takes away attributes, and sets how mounts made below propagate unless that is 0.
pub(crate) fn mount_change(
    mount: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    propagation: u64,
    recursive: bool,
) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: set,
        attr_clr: clear,
        propagation,
        userns_fd: 0,
    };
    set_attributes(mount, &attr, recursive)
}

/// The one call of `mount_setattr(2)`.
fn set_attributes(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> Result<(), Errno> {
    let recurse = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `attr` a live mount_attr of the size passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recurse,
            std::ptr::from_ref(attr),
            std::mem::size_of::<MountAttr>(),
        )
    };
    check(done)
}

/// `struct sigaction` as the kernel has it, big enough for every architecture's.
#[repr(C)]
struct KernelSigaction([u64; 4]);

/// Sets the default action of every signal and unblocks all. By the system call itself: libc keeps
/// two signals back, which whoever started us may have set to be ignored.
pub(crate) fn default_signals() {
    let default = KernelSigaction([0; 4]);
    for signo in 1..=64 {
        // SAFETY: all zeroes is SIG_DFL with no flags, which installs no code; 8 is the size of the
        // kernel's signal set. KILL and STOP are refused, which is right.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signo,
                &raw const default,
                std::ptr::null_mut::<c_void>(),
                8,
            );
        }
    }
    // Setting an empty mask cannot fail: the pointer is valid and `how` is known.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Sets `signo` to be ignored or to its default action.
pub(crate) fn ignore_signal(signo: c_int, ignore: bool) {
    let action = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither action installs code of ours.
    unsafe { libc::signal(signo, action) };
}

/// Brings the loopback interface of the current network namespace up. `socket` is any inet socket.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: ifreq is plain data; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(up).unwrap_or(i16::MAX);
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which `request` is.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(c_long::from(done))
}

/// Sends `signo` to the process of `pidfd`; any number, also real-time ones.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signo: c_int) -> Result<(), Errno> {
    let info: *const c_void = std::ptr::null();
    // SAFETY: a null siginfo asks the kernel to fill it in, as kill(2) does.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signo,
            info,
            0,
        )
    };
    check(done)
}

/// Sends `signo` to one process, or with -1 to every process this one may signal.
pub(crate) fn kill(pid: i32, signo: c_int) -> Result<(), Errno> {
    // SAFETY: kill(2) takes two numbers.
    check(c_long::from(unsafe { libc::kill(pid, signo) }))
}

/// Waits for any child; its process id and raw status. None when there is no child.
pub(crate) fn wait_any() -> Option<(i32, i32)> {
    let mut raw: c_int = 0;
    // SAFETY: `raw` is a live int.
    let pid = unsafe { libc::waitpid(-1, &raw mut raw, libc::WNOHANG) };
    (pid > 0).then_some((pid, raw))
}

/// Takes a descriptor number that was placed there for this process.
pub(crate) fn adopt_fd(number: RawFd) -> OwnedFd {
    // SAFETY: callers pass a number that they have just placed with dup3 in a fresh child, where
    // nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Descriptor 0.
pub(crate) fn stdin() -> BorrowedFd<'static> {
    // SAFETY: descriptor 0 is open from the start of every process of ours to its end.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Puts a copy of `fd` at `number`, over whatever was there.
pub(crate) fn dup_to(fd: BorrowedFd<'_>, number: RawFd, cloexec: bool) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        let flags = if cloexec { libc::FD_CLOEXEC } else { 0 };
        // SAFETY: F_SETFD takes a number.
        return check(c_long::from(unsafe {
            libc::fcntl(number, libc::F_SETFD, flags)
        }));
    }
    let flags = if cloexec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: dup3(2) takes numbers; callers are children that own their descriptor table and know
    // what they overwrite.
    check(c_long::from(unsafe {
        libc::dup3(fd.as_raw_fd(), number, flags)
    }))
}

/// Where this process's arguments are in its memory: start and length.
static ARGUMENTS: std::sync::OnceLock<(usize, usize)> = std::sync::OnceLock::new();

/// Finds this process's arguments in `/proc/self/stat` (proc(5), fields 48 and 49), for
/// [`clear_arguments`] in a child.
pub(crate) fn find_arguments() {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field may hold anything but ends with the last parenthesis; the third is next.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut numbers = fields.split_whitespace().skip(45).map(str::parse::<usize>);
    if let (Some(Ok(start)), Some(Ok(end))) = (numbers.next(), numbers.next())
        && let Some(length) = end.checked_sub(start)
    {
        // Set once, by the daemon.
        let _ = ARGUMENTS.set((start, length));
    }
}

/// Wipes the arguments, which anyone may read in `/proc/<pid>/cmdline`. Only for a process that
/// never looks at them again.
pub(crate) fn clear_arguments() {
    if let Some((start, length)) = ARGUMENTS.get() {
        // SAFETY: the kernel put the argument strings there, on the stack above every frame of ours,
        // writable and this long; nothing in this process reads them any more.
        unsafe { std::ptr::write_bytes(*start as *mut u8, 0, *length) };
    }
}

/// `linux/keyctl.h`.
const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;

/// Gives this thread a session keyring that is new, empty and nameless.
pub(crate) fn join_new_session_keyring() -> Result<(), Errno> {
    let name: *const c_char = std::ptr::null();
    // SAFETY: this operation takes a name or, as here, null for none; it touches no memory.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) })
}

/// Puts a seccomp filter on this thread, for good; `flags` are `SECCOMP_FILTER_FLAG_*` but those
/// for listeners. Needs `no_new_privs`, or CAP_SYS_ADMIN in the thread's user namespace.
#[expect(dead_code, reason = "the child's step that loads a filter comes next")]
pub(crate) fn seccomp_load(filter: &[libc::sock_filter], flags: u32) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` holds the address and length of a live slice; the kernel copies it and
    // writes nothing there.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    // With FLAG_TSYNC a positive answer is a thread that could not follow.
    if done > 0 {
        Err(Errno::SRCH)
    } else {
        check(done)
    }
}

/// `linux/kcmp.h`.
const KCMP_FILES: c_long = 2;

/// Whether two threads have one table of open files, kcmp(2).
pub(crate) fn share_files(one: i32, other: i32) -> Result<bool, Errno> {
    let (one, other, none) = (c_long::from(one), c_long::from(other), c_long::from(0));
    // SAFETY: for this type the call takes numbers only and touches no memory of ours.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, none, none) };
    check(order).map(|()| order == 0)
}

/// Leaves at once, running nothing.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and runs no handlers.
    unsafe { libc::_exit(code) }
}

pub(in crate::sys) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

pub(in crate::sys) fn check(done: c_long) -> Result<(), Errno> {
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}
