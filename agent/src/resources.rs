//! What this node has to offer. Detected as Mesos does it (`src/slave/containerizer/
//! containerizer.cpp`): a share of memory and disk stays with the system; told values win.

use std::io;
use std::path::Path;

use gantry_wire::resources::{PortRange, PortRanges, Resources};
use gantry_wire::units::{Bytes, MilliCpu};

use crate::offer::Overrides;

/// Ports offered unless told otherwise, Mesos's default.
const PORTS: PortRange = PortRange {
    begin: 31_000,
    end: 32_000,
};
/// Kept for the system; of a node with less than twice this, half is offered.
const MEM_RESERVE_BYTES: u64 = 1 << 30;
const DISK_RESERVE_BYTES: u64 = 5 << 30;

/// Detects what was not told; `gpus` are there.
pub(crate) fn detect(told: &Overrides, data_dir: &Path, gpus: u64) -> io::Result<Resources> {
    Ok(Resources {
        cpus: told.cpus.map_or_else(cpus, Ok)?,
        mem: match told.mem {
            Some(mem) => mem,
            None => Bytes(without_reserve(total_memory()?, MEM_RESERVE_BYTES)),
        },
        disk: match told.disk {
            Some(disk) => disk,
            None => Bytes(without_reserve(total_disk(data_dir)?, DISK_RESERVE_BYTES)),
        },
        gpus,
        ports: told
            .ports
            .clone()
            .unwrap_or_else(|| PortRanges::new([PORTS])),
    })
}

fn without_reserve(total: u64, reserve: u64) -> u64 {
    if total >= reserve.saturating_mul(2) {
        total - reserve
    } else {
        total / 2
    }
}

/// Processors this process may run on, by affinity and cgroup quota.
fn cpus() -> io::Result<MilliCpu> {
    let count = std::thread::available_parallelism()?.get();
    Ok(MilliCpu(count as u64 * 1_000))
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn total_memory() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    parse_meminfo(&text).ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn total_disk(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detects_or_takes_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let found = detect(&Overrides::default(), dir.path(), 0).unwrap();
        assert!(found.cpus.0 >= 1_000 && found.mem.0 > 0 && found.disk.0 > 0);
        assert_eq!(found.ports.to_string(), "[31000-32000]");
        let told = Overrides {
            cpus: Some(MilliCpu(5)),
            mem: Some(Bytes(6)),
            disk: Some(Bytes(7)),
            ports: Some(PortRanges::new([PortRange { begin: 1, end: 2 }])),
            ..Overrides::default()
        };
        let found = detect(&told, dir.path(), 3).unwrap();
        assert_eq!(
            (found.cpus.0, found.mem.0, found.disk.0, found.ports.len()),
            (5, 6, 7, 2)
        );
        assert_eq!(
            parse_meminfo("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16_384)
        );
        assert_eq!(parse_meminfo("MemTotal: x\n"), None);
        assert_eq!(without_reserve(3, 2), 1);
        assert_eq!(without_reserve(5, 2), 3);
    }
}
