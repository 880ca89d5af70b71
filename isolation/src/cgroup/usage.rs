//! What a container uses now, for reports. Not on any hot path.
//!
//! CPU time and process counts of v1 come through cgroups-rs, pointed at the trees that we found
//! ourselves (its own search parses mountinfo anew each time). Everything else is read here: its v2
//! layer is wrong on hybrid hosts, it knows no PSI, and its reader of v1 memory statistics panics on
//! lines that it does not know.

use std::path::{Path, PathBuf};

use cgroups_rs::fs::cpuacct::CpuAcctController;
use cgroups_rs::fs::pid::PidController;

use super::text::{self, IoUsage, Pressure, keyed};
use super::{CgroupPath, Hierarchies, hugetlb, memory};
use crate::spec::ContainerId;

/// v1 shows "no limit" as the largest page-aligned number.
const NO_LIMIT_FROM: u64 = 1 << 62;

/// What a container uses. What the kernel does not tell is 0, or None.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, user and system, in nanoseconds since the start.
    pub cpu_ns: u64,
    /// The part of it in user mode; the kernel estimates it.
    pub cpu_user_ns: u64,
    /// The part of it in the kernel.
    pub cpu_system_ns: u64,
    /// Periods of the quota that have passed.
    pub cpu_periods: u64,
    /// Those in which the quota was used up.
    pub cpu_throttled_periods: u64,
    /// How long it was held back, in nanoseconds.
    pub cpu_throttled_ns: u64,
    /// Memory in bytes, page cache included.
    pub memory_bytes: u64,
    /// The most that it ever was.
    pub memory_peak_bytes: Option<u64>,
    /// Resident anonymous memory in bytes.
    pub rss_bytes: u64,
    /// Page cache in bytes.
    pub file_bytes: u64,
    /// Swap in bytes.
    pub swap_bytes: u64,
    /// The limit on memory, if any.
    pub memory_limit_bytes: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// How often the limit on memory was reached.
    pub memory_refusals: u64,
    /// Processes and threads.
    pub pids: u64,
    /// The limit on them, if any.
    pub pids_max: Option<u64>,
    /// Block devices; on v1 only of a container with limits on them.
    pub io: Vec<IoUsage>,
    /// Bytes of huge pages by the size of one; on v1 only of a container with limits on them.
    pub huge_pages: Vec<(u64, u64)>,
    /// Waiting for CPUs.
    pub cpu_pressure: Option<Pressure>,
    /// Waiting for memory.
    pub memory_pressure: Option<Pressure>,
    /// Waiting for block devices.
    pub io_pressure: Option<Pressure>,
}

/// Usage of a container of the keeper whose groups are below `cgroup_parent`; None when it has no
/// groups (it was forgotten or never started).
pub fn usage(hosts: &Hierarchies, cgroup_parent: &str, id: &ContainerId) -> Option<Usage> {
    usage_at(
        hosts,
        &CgroupPath::new(cgroup_parent)
            .ok()?
            .join(id.as_str())
            .ok()?,
    )
}

/// Usage of the groups at `path`; None when there are none.
pub fn usage_at(hosts: &Hierarchies, path: &CgroupPath) -> Option<Usage> {
    let at = |tree: &Option<PathBuf>| {
        let dir = tree.as_ref().map(|tree| tree.join(path));
        dir.filter(|dir| dir.exists())
    };
    let unified = at(&hosts.unified);
    let mut usage = Usage::default();
    if hosts.pure_v2 {
        cpu_v2(unified.as_ref()?, &mut usage);
        memory_v2(unified.as_ref()?, &mut usage);
    } else {
        let memory = at(&hosts.memory).or_else(|| at(&hosts.cpu))?;
        memory_v1(&memory, &mut usage);
        cpu_v1(hosts, path, &mut usage);
        let blkio = at(&hosts.blkio);
        let blkio = |file: &str| {
            blkio
                .as_ref()
                .map(|dir| read(dir, file))
                .unwrap_or_default()
        };
        let bytes = blkio("blkio.throttle.io_service_bytes");
        usage.io = text::blkio(&bytes, &blkio("blkio.throttle.io_serviced"));
    }
    let huge = at(&hosts.hugetlb).map(|dir| (dir, "usage_in_bytes"));
    let huge = huge.or_else(|| unified.clone().map(|dir| (dir, "current")));
    if let Some((dir, suffix)) = huge {
        usage.huge_pages = huge_pages(hosts, &dir, suffix);
    }
    if let Some(dir) = &unified {
        let pressure = |file| text::pressure(&read(dir, file));
        usage.cpu_pressure = pressure("cpu.pressure");
        usage.memory_pressure = pressure("memory.pressure");
        usage.io_pressure = pressure("io.pressure");
    }
    Some(usage)
}

fn read(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap_or_default()
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    read(dir, file).trim().parse().ok()
}

fn cpu_v1(hosts: &Hierarchies, path: &CgroupPath, usage: &mut Usage) {
    let accounting = hosts.cpuacct.as_ref().or(hosts.cpu.as_ref());
    if let Some(tree) = accounting {
        let found = CpuAcctController::new(tree.join(path), tree.clone()).cpuacct();
        usage.cpu_ns = found.usage;
        usage.cpu_user_ns = found.usage_user;
        usage.cpu_system_ns = found.usage_sys;
    }
    if let Some(tree) = &hosts.cpu {
        let stat = read(&tree.join(path), "cpu.stat");
        usage.cpu_periods = keyed(&stat, "nr_periods").unwrap_or(0);
        usage.cpu_throttled_periods = keyed(&stat, "nr_throttled").unwrap_or(0);
        usage.cpu_throttled_ns = keyed(&stat, "throttled_time").unwrap_or(0);
    }
    if let Some(tree) = &hosts.pids {
        let pids = PidController::new(tree.join(path), tree.clone(), false);
        usage.pids = pids.get_pid_current().unwrap_or(0);
        usage.pids_max = number(&tree.join(path), "pids.max");
    }
}

fn memory_v1(dir: &Path, usage: &mut Usage) {
    let stat = read(dir, "memory.stat");
    usage.memory_bytes = number(dir, "memory.usage_in_bytes").unwrap_or(0);
    usage.memory_peak_bytes = number(dir, "memory.max_usage_in_bytes");
    usage.rss_bytes = keyed(&stat, "total_rss").unwrap_or(0);
    usage.file_bytes = keyed(&stat, "total_cache").unwrap_or(0);
    usage.swap_bytes = keyed(&stat, "total_swap").unwrap_or(0);
    let limit = number(dir, "memory.limit_in_bytes");
    usage.memory_limit_bytes = limit.filter(|limit| *limit < NO_LIMIT_FROM);
    usage.oom_kills = memory::oom_kills(&read(dir, memory::V1_OOM));
    usage.memory_refusals = number(dir, "memory.failcnt").unwrap_or(0);
}

fn cpu_v2(dir: &Path, usage: &mut Usage) {
    let stat = read(dir, "cpu.stat");
    let of = |key: &str| keyed(&stat, key).unwrap_or(0);
    let ns = |key: &str| of(key).saturating_mul(1000);
    usage.cpu_ns = ns("usage_usec");
    usage.cpu_user_ns = ns("user_usec");
    usage.cpu_system_ns = ns("system_usec");
    usage.cpu_periods = of("nr_periods");
    usage.cpu_throttled_periods = of("nr_throttled");
    usage.cpu_throttled_ns = ns("throttled_usec");
    usage.pids = number(dir, "pids.current").unwrap_or(0);
    usage.pids_max = number(dir, "pids.max");
    usage.io = text::io_stat(&read(dir, "io.stat"));
}

fn memory_v2(dir: &Path, usage: &mut Usage) {
    let stat = read(dir, "memory.stat");
    usage.memory_bytes = number(dir, "memory.current").unwrap_or(0);
    usage.memory_peak_bytes = number(dir, "memory.peak");
    usage.rss_bytes = keyed(&stat, "anon").unwrap_or(0);
    usage.file_bytes = keyed(&stat, "file").unwrap_or(0);
    usage.swap_bytes = number(dir, "memory.swap.current").unwrap_or(0);
    usage.memory_limit_bytes = number(dir, "memory.max");
    let events = read(dir, memory::V2_EVENTS);
    usage.oom_kills = memory::oom_kills(&events);
    usage.memory_refusals = keyed(&events, "max").unwrap_or(0);
}

fn huge_pages(hosts: &Hierarchies, dir: &Path, suffix: &str) -> Vec<(u64, u64)> {
    let one = |size: &u64| {
        let file = format!("hugetlb.{}.{suffix}", hugetlb::name(*size));
        Some((*size, number(dir, &file)?))
    };
    hosts.huge_pages.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_group_is_read_as_far_as_it_goes() {
        let tree = tempfile::tempdir().unwrap();
        let dir = tree.path().join("p/c");
        std::fs::create_dir_all(&dir).unwrap();
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/cgroup");
        for file in ["cpu.stat", "memory.stat", "io.stat", "memory.pressure"] {
            std::fs::copy(corpus.join(file), dir.join(file)).unwrap();
        }
        std::fs::write(dir.join("memory.max"), "max\n").unwrap();
        std::fs::write(dir.join("memory.current"), "4096\n").unwrap();
        std::fs::write(dir.join("hugetlb.2MB.current"), "2097152\n").unwrap();
        let hosts = Hierarchies {
            unified: Some(tree.path().to_owned()),
            pure_v2: true,
            huge_pages: [2 << 20, 1 << 30].into(),
            ..Hierarchies::default()
        };
        let id = ContainerId::try_from("c").unwrap();
        let found = usage(&hosts, "p", &id).unwrap();
        assert_eq!(found.cpu_ns, 2_055_432_000);
        assert_eq!((found.cpu_periods, found.cpu_throttled_periods), (20, 18));
        assert_eq!((found.memory_bytes, found.rss_bytes), (4096, 1_437_696));
        assert_eq!(
            (found.memory_limit_bytes, found.memory_peak_bytes),
            (None, None)
        );
        assert_eq!(found.huge_pages, [(2 << 20, 2 << 20)]);
        assert_eq!(found.io.len(), 2);
        assert!(found.memory_pressure.is_some() && found.cpu_pressure.is_none());
        let id = ContainerId::try_from("none").unwrap();
        assert_eq!(usage(&hosts, "p", &id), None);
    }
}
