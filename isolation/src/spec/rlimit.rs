//! Limits of `getrlimit(2)` for the container's processes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SpecError;

/// No limit.
pub const RLIM_INFINITY: u64 = u64::MAX;

/// One limit. A hard limit above the keeper's own needs `CAP_SYS_RESOURCE` of the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Of what.
    pub resource: Resource,
    /// What is enforced; [`RLIM_INFINITY`] for no limit.
    pub soft: u64,
    /// How far the process may raise the soft limit itself.
    pub hard: u64,
}

/// What is limited: the names of `getrlimit(2)` without `RLIMIT_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Bytes of address space.
    As,
    /// Bytes of a core file.
    Core,
    /// Seconds of CPU time.
    Cpu,
    /// Bytes of the data segment.
    Data,
    /// Bytes of a file that is written.
    Fsize,
    /// File locks.
    Locks,
    /// Bytes locked in memory.
    Memlock,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// Ceiling of the nice value: 20 less it.
    Nice,
    /// File descriptors.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Bytes of resident memory; the kernel ignores it.
    Rss,
    /// Ceiling of the real-time priority.
    Rtprio,
    /// Microseconds of real-time CPU without a blocking call.
    Rttime,
    /// Queued signals of the user.
    Sigpending,
    /// Bytes of the stack.
    Stack,
}

impl Resource {
    /// Every one.
    pub const ALL: [Self; 16] = [
        Self::As,
        Self::Core,
        Self::Cpu,
        Self::Data,
        Self::Fsize,
        Self::Locks,
        Self::Memlock,
        Self::Msgqueue,
        Self::Nice,
        Self::Nofile,
        Self::Nproc,
        Self::Rss,
        Self::Rtprio,
        Self::Rttime,
        Self::Sigpending,
        Self::Stack,
    ];

    /// As the OCI runtime specification and `getrlimit(2)` write it, such as `RLIMIT_NOFILE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::As => "RLIMIT_AS",
            Self::Core => "RLIMIT_CORE",
            Self::Cpu => "RLIMIT_CPU",
            Self::Data => "RLIMIT_DATA",
            Self::Fsize => "RLIMIT_FSIZE",
            Self::Locks => "RLIMIT_LOCKS",
            Self::Memlock => "RLIMIT_MEMLOCK",
            Self::Msgqueue => "RLIMIT_MSGQUEUE",
            Self::Nice => "RLIMIT_NICE",
            Self::Nofile => "RLIMIT_NOFILE",
            Self::Nproc => "RLIMIT_NPROC",
            Self::Rss => "RLIMIT_RSS",
            Self::Rtprio => "RLIMIT_RTPRIO",
            Self::Rttime => "RLIMIT_RTTIME",
            Self::Sigpending => "RLIMIT_SIGPENDING",
            Self::Stack => "RLIMIT_STACK",
        }
    }

    /// From such a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether every limit is one that the kernel can take, and named once.
pub(super) fn check_all(rlimits: &[Rlimit]) -> Result<(), SpecError> {
    for (index, limit) in rlimits.iter().enumerate() {
        if limit.soft > limit.hard {
            return Err(SpecError::SoftAboveHard(limit.resource));
        }
        if rlimits[..index]
            .iter()
            .any(|earlier| earlier.resource == limit.resource)
        {
            return Err(SpecError::Twice(limit.resource.name()));
        }
    }
    Ok(())
}
