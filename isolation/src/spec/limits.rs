//! What the kernel's controllers enforce, as numbers; the files are `cgroup`'s business.
//!
//! It decides which numbers make sense on any host ([`Limits::check`]); whether this host can keep
//! them is `cgroup`'s to say. Invariant: a checked set names no file outside its own group and
//! every list is bounded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SpecError;

/// Devices with I/O limits of their own.
const MAX_IO_DEVICES: usize = 64;
/// Sizes of huge pages: no architecture has as many.
const MAX_HUGE_PAGE_SIZES: usize = 16;
/// Raw v2 files.
const MAX_RAW_FILES: usize = 64;
/// Length of a raw value or a list of CPUs: a page, as the kernel takes at once.
const MAX_VALUE_BYTES: usize = 4096;
/// The largest number of a device's major (12 bits) and minor (20 bits).
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;
/// The kernel's bounds of a quota's period (`kernel/sched/core.c`).
const PERIOD_US: std::ops::RangeInclusive<u64> = 1000..=1_000_000;
/// The range of v2 weights; v1's is mapped from it.
const WEIGHTS: std::ops::RangeInclusive<u16> = 1..=10_000;

/// Limits; None leaves the kernel's default or, in an update, what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Relative weight as in cgroup v1: 1024 is one CPU's worth. The kernel's minimum is 2.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time per period; the kernel's minimum is 1000. [`Limits::UNLIMITED`]
    /// lifts it.
    pub cpu_quota_us: Option<u64>,
    /// Length of the period in microseconds, 1000 to 1,000,000; None: 100,000.
    pub cpu_period_us: Option<u64>,
    /// Unused microseconds of earlier periods that may be used beyond the quota, at most the quota
    /// (Linux 5.14).
    pub cpu_burst_us: Option<u64>,
    /// Whether it runs only when nothing else wants the CPU (Linux 5.15).
    pub cpu_idle: Option<bool>,
    /// CPUs it may run on, such as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use, such as `0`.
    pub cpuset_mems: Option<String>,
    /// Bytes of memory; swap is on top only as far as `swap_bytes` says. [`Limits::UNLIMITED`]
    /// lifts it.
    pub memory_bytes: Option<u64>,
    /// Bytes that are spared while others can be reclaimed from: v1's soft limit, v2's `low`.
    pub memory_low_bytes: Option<u64>,
    /// Bytes above which it is slowed down and reclaimed from; only on cgroup v2.
    pub memory_high_bytes: Option<u64>,
    /// Bytes of swap beside the memory; None with a memory limit: none.
    pub swap_bytes: Option<u64>,
    /// Processes and threads. [`Limits::UNLIMITED`] lifts it.
    pub pids_max: Option<u64>,
    /// Relative weight of block I/O, 1 to 10,000; 100 is usual.
    pub io_weight: Option<u16>,
    /// Limits of single block devices.
    pub io_devices: Vec<IoLimit>,
    /// Limits on huge pages, one per size.
    pub huge_pages: Vec<HugePageLimit>,
    /// Raw cgroup v2 files and their values, written after everything else (`unified` of OCI).
    pub raw: BTreeMap<String, String>,
    /// Raw cgroup v1 files of `cpu` and `memory` and their values: what v2 has nothing like.
    pub raw_v1: BTreeMap<String, String>,
}

/// What one block device may be asked for per second; [`Limits::UNLIMITED`] lifts a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoLimit {
    /// Number of its driver.
    pub major: u32,
    /// Number within the driver.
    pub minor: u32,
    /// Relative weight on this device, 1 to 10,000.
    pub weight: Option<u16>,
    /// Bytes read per second.
    pub read_bytes: Option<u64>,
    /// Bytes written per second.
    pub write_bytes: Option<u64>,
    /// Reads per second.
    pub read_ops: Option<u64>,
    /// Writes per second.
    pub write_ops: Option<u64>,
}

/// How much of one size of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePageLimit {
    /// Bytes of one page, such as 2,097,152.
    pub page_bytes: u64,
    /// Bytes of all pages together; [`Limits::UNLIMITED`] lifts it.
    pub bytes: u64,
}

impl Limits {
    /// A number that lifts a limit.
    pub const UNLIMITED: u64 = u64::MAX;

    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), SpecError> {
        if let Some(period) = self.cpu_period_us
            && !PERIOD_US.contains(&period)
        {
            return Err(refuse("cpu_period_us", &period, "1000 to 1000000"));
        }
        if let (Some(burst), quota) = (self.cpu_burst_us, self.cpu_quota_us)
            && burst > quota.unwrap_or(0)
        {
            return Err(refuse("cpu_burst_us", &burst, "at most cpu_quota_us"));
        }
        for (limit, list) in [
            ("cpuset_cpus", &self.cpuset_cpus),
            ("cpuset_mems", &self.cpuset_mems),
        ] {
            if let Some(list) = list
                && !is_list(list)
            {
                return Err(refuse(limit, list, "a list of numbers such as 0-2,7"));
            }
        }
        if let Some(swap) = self.swap_bytes
            && self.memory_bytes.is_none()
        {
            return Err(refuse("swap_bytes", &swap, "given only with memory_bytes"));
        }
        self.check_io()?;
        super::bound(
            "sizes of huge pages",
            self.huge_pages.len(),
            MAX_HUGE_PAGE_SIZES,
        )?;
        for limit in &self.huge_pages {
            if limit.page_bytes < 1024 || !limit.page_bytes.is_power_of_two() {
                let size = limit.page_bytes;
                return Err(refuse("huge_pages", &size, "a power of two from 1024 on"));
            }
        }
        self.check_raw()
    }

    fn check_io(&self) -> Result<(), SpecError> {
        super::bound("I/O devices", self.io_devices.len(), MAX_IO_DEVICES)?;
        let weights = self.io_devices.iter().map(|device| device.weight);
        for weight in weights.chain([self.io_weight]).flatten() {
            if !WEIGHTS.contains(&weight) {
                return Err(refuse("io_weight", &weight, "1 to 10000"));
            }
        }
        for device in &self.io_devices {
            if device.major > MAX_MAJOR || device.minor > MAX_MINOR {
                let number = format!("{}:{}", device.major, device.minor);
                return Err(refuse("io_devices", &number, "the number of a device"));
            }
        }
        Ok(())
    }

    /// Whether block I/O is weighed, as a whole or of any device.
    pub(crate) fn weighs_io(&self) -> bool {
        let mut devices = self.io_devices.iter();
        self.io_weight.is_some() || devices.any(|device| device.weight.is_some())
    }

    fn check_raw(&self) -> Result<(), SpecError> {
        let count = self.raw.len() + self.raw_v1.len();
        super::bound("raw cgroup files", count, MAX_RAW_FILES)?;
        for (file, value) in self.raw.iter().chain(&self.raw_v1) {
            // A name such as `cgroup.procs` would move the container: those are not limits.
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || b == b'-';
            let shaped = !file.starts_with('.') && file.contains('.') && file.bytes().all(plain);
            if !shaped || file.starts_with("cgroup.") || file.len() > 255 {
                return Err(refuse("raw", &file, "a controller's file"));
            }
            if value.len() > MAX_VALUE_BYTES || value.contains('\0') {
                return Err(refuse("raw", &file, "given one page without NUL at most"));
            }
        }
        Ok(())
    }

    /// These limits with everything that `change` says in place of what was there. Lists are
    /// merged by device, page size and file name.
    #[must_use]
    pub fn changed(&self, change: &Self) -> Self {
        let mut io_devices = self.io_devices.clone();
        for device in &change.io_devices {
            let same = |old: &&mut IoLimit| (old.major, old.minor) == (device.major, device.minor);
            match io_devices.iter_mut().find(same) {
                Some(old) => *old = old.changed(device),
                None => io_devices.push(*device),
            }
        }
        let mut huge_pages = self.huge_pages.clone();
        for limit in &change.huge_pages {
            huge_pages.retain(|old| old.page_bytes != limit.page_bytes);
            huge_pages.push(*limit);
        }
        let mut raw = self.raw.clone();
        raw.extend(change.raw.clone());
        let mut raw_v1 = self.raw_v1.clone();
        raw_v1.extend(change.raw_v1.clone());
        let text = |new: &Option<String>, old: &Option<String>| new.clone().or_else(|| old.clone());
        Self {
            cpu_shares: change.cpu_shares.or(self.cpu_shares),
            cpu_quota_us: change.cpu_quota_us.or(self.cpu_quota_us),
            cpu_period_us: change.cpu_period_us.or(self.cpu_period_us),
            cpu_burst_us: change.cpu_burst_us.or(self.cpu_burst_us),
            cpu_idle: change.cpu_idle.or(self.cpu_idle),
            cpuset_cpus: text(&change.cpuset_cpus, &self.cpuset_cpus),
            cpuset_mems: text(&change.cpuset_mems, &self.cpuset_mems),
            memory_bytes: change.memory_bytes.or(self.memory_bytes),
            memory_low_bytes: change.memory_low_bytes.or(self.memory_low_bytes),
            memory_high_bytes: change.memory_high_bytes.or(self.memory_high_bytes),
            swap_bytes: change.swap_bytes.or(self.swap_bytes),
            pids_max: change.pids_max.or(self.pids_max),
            io_weight: change.io_weight.or(self.io_weight),
            io_devices,
            huge_pages,
            raw,
            raw_v1,
        }
    }
}

impl IoLimit {
    fn changed(&self, change: &Self) -> Self {
        Self {
            major: self.major,
            minor: self.minor,
            weight: change.weight.or(self.weight),
            read_bytes: change.read_bytes.or(self.read_bytes),
            write_bytes: change.write_bytes.or(self.write_bytes),
            read_ops: change.read_ops.or(self.read_ops),
            write_ops: change.write_ops.or(self.write_ops),
        }
    }
}

fn refuse(limit: &'static str, value: &dyn ToString, wanted: &'static str) -> SpecError {
    SpecError::Limit {
        limit,
        value: value.to_string(),
        wanted,
    }
}

/// Numbers and ranges as cpuset(7) lists them; an empty list would leave nothing to run on.
fn is_list(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let part = |part: &str| match part.split_once('-') {
        Some((from, to)) => number(from) && number(to),
        None => number(part),
    };
    text.len() <= MAX_VALUE_BYTES && text.split(',').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numbers_and_ranges() {
        for good in ["0", "0-2,7", "12,13"] {
            assert!(is_list(good), "{good}");
        }
        for bad in ["", "a", "0,", "-1", "0-", "0 1", "0\n", "1-2-3"] {
            assert!(!is_list(bad), "{bad}");
        }
    }

    #[test]
    fn what_no_host_can_keep_is_refused() {
        let bad = [
            Limits {
                cpu_period_us: Some(999),
                ..Limits::default()
            },
            Limits {
                cpu_burst_us: Some(1),
                ..Limits::default()
            },
            Limits {
                swap_bytes: Some(1),
                ..Limits::default()
            },
            Limits {
                io_weight: Some(0),
                ..Limits::default()
            },
            Limits {
                huge_pages: vec![HugePageLimit {
                    page_bytes: 3000,
                    bytes: 0,
                }],
                ..Limits::default()
            },
        ];
        for limits in bad {
            assert!(limits.check().is_err(), "{limits:?}");
        }
        for file in [
            "../x.y",
            "a/b.c",
            ".x",
            "cgroup.procs",
            "tasks",
            "memory.max\n",
        ] {
            let raw = BTreeMap::from([(file.to_owned(), "1".to_owned())]);
            let limits = Limits {
                raw,
                ..Limits::default()
            };
            assert!(limits.check().is_err(), "{file:?}");
        }
        let raw = BTreeMap::from([("memory.oom.group".to_owned(), "1".to_owned())]);
        let limits = Limits {
            raw,
            ..Limits::default()
        };
        assert_eq!(limits.check(), Ok(()));
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let device = |read| IoLimit {
            major: 8,
            read_bytes: read,
            write_ops: read.map(|_| 5),
            ..IoLimit::default()
        };
        let before = Limits {
            cpu_shares: Some(2),
            memory_bytes: Some(1),
            io_devices: vec![device(Some(7))],
            ..Limits::default()
        };
        let change = Limits {
            memory_bytes: Some(9),
            io_devices: vec![IoLimit {
                write_ops: Some(6),
                ..device(None)
            }],
            ..Limits::default()
        };
        let after = before.changed(&change);
        assert_eq!((after.cpu_shares, after.memory_bytes), (Some(2), Some(9)));
        assert_eq!(after.io_devices[0].read_bytes, Some(7));
        assert_eq!(after.io_devices[0].write_ops, Some(6));
        assert_eq!(after.io_devices.len(), 1);
    }
}
