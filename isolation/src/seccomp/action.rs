//! What the kernel does with a call, as `seccomp(2)` numbers it.
//!
//! `SCMP_ACT_NOTIFY` is deliberately no action here: it needs a listening process, which nothing
//! of ours is yet, and a filter that waits for nobody hangs its container.

use std::fmt;

/// Largest error number that a system call can return (`MAX_ERRNO` of Linux).
pub(super) const MAX_ERRNO: u16 = 4095;

/// What the kernel does with a call. The order is from the strictest to the laxest, the order in
/// which the kernel prefers them too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Ends the process with SIGSYS.
    KillProcess,
    /// Ends the thread with SIGSYS.
    KillThread,
    /// Sends SIGSYS to the thread.
    Trap,
    /// Fails with this error number, at most 4095.
    Errno(u16),
    /// Asks a tracer, which sees this number; without one the call fails with ENOSYS.
    Trace(u16),
    /// Carries out and logs.
    Log,
    /// Carries out.
    Allow,
}

impl Action {
    /// The value that a filter returns.
    pub fn code(self) -> u32 {
        match self {
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Self::Trace(number) => libc::SECCOMP_RET_TRACE | u32::from(number),
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Allow => libc::SECCOMP_RET_ALLOW,
        }
    }

    /// What a filter's return value means; None for values that no filter of ours returns.
    pub(super) fn of_code(code: u32) -> Option<Self> {
        let number = u16::try_from(code & libc::SECCOMP_RET_DATA).unwrap_or(u16::MAX);
        match code & libc::SECCOMP_RET_ACTION_FULL {
            libc::SECCOMP_RET_KILL_PROCESS => Some(Self::KillProcess),
            libc::SECCOMP_RET_KILL_THREAD => Some(Self::KillThread),
            libc::SECCOMP_RET_TRAP => Some(Self::Trap),
            libc::SECCOMP_RET_ERRNO => Some(Self::Errno(number)),
            libc::SECCOMP_RET_TRACE => Some(Self::Trace(number)),
            libc::SECCOMP_RET_LOG => Some(Self::Log),
            libc::SECCOMP_RET_ALLOW => Some(Self::Allow),
            _ => None,
        }
    }

    /// Whether the call is carried out, or someone who knows it decides.
    pub(super) fn is_permissive(self) -> bool {
        matches!(self, Self::Trace(_) | Self::Log | Self::Allow)
    }

    /// The smaller, the more is refused. Two error numbers, or two for a tracer, are alike.
    pub(super) fn strictness(self) -> Self {
        match self {
            Self::Errno(_) => Self::Errno(0),
            Self::Trace(_) => Self::Trace(0),
            other => other,
        }
    }

    /// Whether this refuses more than `other`.
    pub(super) fn is_stricter_than(self, other: Self) -> bool {
        self.strictness() < other.strictness()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillProcess => f.write_str("kill process"),
            Self::KillThread => f.write_str("kill thread"),
            Self::Trap => f.write_str("trap"),
            Self::Errno(number) => write!(f, "errno {number}"),
            Self::Trace(number) => write!(f, "trace {number}"),
            Self::Log => f.write_str("log"),
            Self::Allow => f.write_str("allow"),
        }
    }
}
