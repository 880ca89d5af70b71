//! What the kernel's controllers enforce, as numbers; the files are `cgroup`'s business.

use serde::{Deserialize, Serialize};

/// Limits; None leaves the kernel's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Relative weight as in cgroup v1: 1024 is one CPU's worth. The kernel's minimum is 2.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time per period; the kernel's minimum is 1000.
    pub cpu_quota_us: Option<u64>,
    /// Length of the period in microseconds, 1000 to 1,000,000; None: 100,000.
    pub cpu_period_us: Option<u64>,
    /// Bytes of memory, swap included.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
}
