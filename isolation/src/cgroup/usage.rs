//! What a container uses now, for reports. Not on any hot path.
//!
//! On v1 the numbers come through cgroups-rs, pointed at the trees that we found ourselves (its own
//! search parses mountinfo anew each time); the files of v2 are read here, since its v2 layer is
//! wrong on hybrid hosts.

use std::path::Path;

use cgroups_rs::fs::cpuacct::CpuAcctController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;

use super::Hierarchies;
use crate::spec::ContainerId;

/// v1 shows "no limit" as the largest page-aligned number.
const NO_LIMIT_FROM: u64 = 1 << 62;

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, user and system, in nanoseconds since the start.
    pub cpu_ns: u64,
    /// Memory in bytes, page cache included.
    pub memory_bytes: u64,
    /// Resident anonymous memory in bytes.
    pub rss_bytes: u64,
    /// The limit on memory, if any.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
}

/// Usage of a container of the keeper whose groups are below `cgroup_parent`; None when it has no
/// groups (it was forgotten or never started). Something that cannot be read counts 0.
pub fn usage(hosts: &Hierarchies, cgroup_parent: &str, id: &ContainerId) -> Option<Usage> {
    let below = |tree: &Path| tree.join(cgroup_parent).join(id.as_str());
    if hosts.pure_v2 {
        return hosts
            .unified
            .as_deref()
            .map(below)
            .filter(|dir| dir.exists())
            .map(|dir| v2(&dir));
    }
    let memory_dir = hosts
        .memory
        .as_deref()
        .map(below)
        .filter(|dir| dir.exists())?;
    let memory = MemController::new(memory_dir, hosts.memory.clone()?, false).memory_stat();
    let limit = u64::try_from(memory.limit_in_bytes)
        .ok()
        .filter(|limit| *limit < NO_LIMIT_FROM);
    let accounting = hosts.cpuacct.as_ref().or(hosts.cpu.as_ref());
    let cpu_ns = accounting.map_or(0, |tree| {
        CpuAcctController::new(below(tree), tree.clone())
            .cpuacct()
            .usage
    });
    let pids = hosts.pids.as_ref().map_or(0, |tree| {
        PidController::new(below(tree), tree.clone(), false)
            .get_pid_current()
            .unwrap_or(0)
    });
    Some(Usage {
        cpu_ns,
        memory_bytes: memory.usage_in_bytes,
        rss_bytes: memory.stat.rss,
        memory_limit_bytes: limit,
        pids,
    })
}

fn v2(dir: &Path) -> Usage {
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    let number = |file: &str| read(file).trim().parse::<u64>().ok();
    Usage {
        cpu_ns: keyed(&read("cpu.stat"), "usage_usec").saturating_mul(1000),
        memory_bytes: number("memory.current").unwrap_or(0),
        rss_bytes: keyed(&read("memory.stat"), "anon"),
        memory_limit_bytes: number("memory.max"),
        pids: number("pids.current").unwrap_or(0),
    }
}

/// The number after `key` in a flat keyed file.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_files_are_read_by_whole_names() {
        assert_eq!(keyed("anon_thp 5\nanon 7\n", "anon"), 7);
        assert_eq!(keyed("usage_usec x\n", "usage_usec"), 0);
    }
}
