//! Resources of a configuration as files of the container's cgroups.
//!
//! The specification's words are cgroup v1's; on v2 they are mapped as runc does. Pure: the list is
//! made here and written by [`write`]. What this host has no file for is an error that names it,
//! unless the value says "no limit" anyway.

use std::path::{Path, PathBuf};

use super::config::{BlockIo, Resources};
use super::error::{OciError, call};
use super::groups::{Groups, pure_v2};

/// One file and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) value: String,
    /// Whether a missing file is no failure.
    optional: bool,
}

struct Files<'a> {
    groups: &'a Groups,
    found: Vec<File>,
}

impl Files<'_> {
    /// A file of a v1 controller; without that controller, of a path that does not exist.
    fn put<T: ToString + ?Sized>(&mut self, controller: &str, file: &str, value: &T) {
        self.push(controller, file, value.to_string(), false);
    }

    fn maybe<T: ToString + ?Sized>(&mut self, controller: &str, file: &str, value: &T) {
        self.push(controller, file, value.to_string(), true);
    }

    fn push(&mut self, controller: &str, file: &str, value: String, optional: bool) {
        let missing = Path::new("/sys/fs/cgroup").join(controller);
        let dir = self.groups.dir(controller).unwrap_or(&missing);
        self.found.push(File {
            path: dir.join(file),
            value,
            optional,
        });
    }
}

/// The files of a v1 or hybrid host.
pub(super) fn v1(groups: &Groups, wanted: &Resources) -> Vec<File> {
    let mut files = Files {
        groups,
        found: Vec::new(),
    };
    v1_memory(&mut files, wanted);
    v1_cpu(&mut files, wanted);
    if let Some(limit) = wanted.pids.limit {
        let value = if limit > 0 {
            limit.to_string()
        } else {
            "max".to_owned()
        };
        files.put("pids", "pids.max", &value);
    }
    v1_block_io(&mut files, &wanted.block_io);
    for page in &wanted.hugepage_limits {
        let name = format!("hugetlb.{}.limit_in_bytes", page.page_size);
        files.put("hugetlb", &name, &page.limit);
    }
    files.found
}

/// The limit on memory and swap together may never be below that on memory, so which one is written
/// first depends on which way they move.
fn v1_memory(files: &mut Files<'_>, wanted: &Resources) {
    let memory = &wanted.memory;
    let (limit_file, swap_file) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    let current = files.groups.dir("memory").map(|dir| dir.join(limit_file));
    let current = current.and_then(|path| std::fs::read_to_string(path).ok());
    let current: i64 = current
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(i64::MAX);
    let limit = memory.limit.filter(|limit| *limit != 0);
    let swap = memory.swap.filter(|swap| *swap != 0);
    let grows = swap.is_some_and(|swap| swap == -1 || swap > current);
    // A kernel that does not count swap has no such file.
    if grows && let Some(swap) = swap {
        files.maybe("memory", swap_file, &swap);
    }
    if let Some(limit) = limit {
        files.put("memory", limit_file, &limit);
    }
    if !grows && let Some(swap) = swap {
        files.maybe("memory", swap_file, &swap);
    }
    if let Some(reservation) = memory.reservation.filter(|bytes| *bytes != 0) {
        files.put("memory", "memory.soft_limit_in_bytes", &reservation);
    }
    if let Some(swappiness) = memory.swappiness {
        files.put("memory", "memory.swappiness", &swappiness);
    }
    if memory.disable_oom_killer == Some(true) {
        files.put("memory", "memory.oom_control", &1);
    }
}

fn v1_cpu(files: &mut Files<'_>, wanted: &Resources) {
    let cpu = &wanted.cpu;
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        files.put("cpu", "cpu.shares", &shares);
    }
    if let Some(period) = cpu.period.filter(|period| *period != 0) {
        files.put("cpu", "cpu.cfs_period_us", &period);
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        files.put("cpu", "cpu.cfs_quota_us", &quota);
    }
    if let Some(burst) = cpu.burst {
        files.put("cpu", "cpu.cfs_burst_us", &burst);
    }
    if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
        files.put("cpu", "cpu.rt_period_us", &period);
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        files.put("cpu", "cpu.rt_runtime_us", &runtime);
    }
    if let Some(idle) = cpu.idle {
        files.put("cpu", "cpu.idle", &idle);
    }
    for (value, file) in [(&cpu.cpus, "cpuset.cpus"), (&cpu.mems, "cpuset.mems")] {
        if !value.is_empty() {
            files.put("cpuset", file, &value);
        }
    }
}

fn v1_block_io(files: &mut Files<'_>, wanted: &BlockIo) {
    if let Some(weight) = wanted.weight.filter(|weight| *weight != 0) {
        let blkio = files.groups.dir("blkio");
        let bfq = blkio.is_some_and(|dir| dir.join("blkio.bfq.weight").exists());
        let plain = blkio.is_some_and(|dir| dir.join("blkio.weight").exists());
        if bfq {
            files.put("blkio", "blkio.bfq.weight", &weight);
        } else if plain {
            files.put("blkio", "blkio.weight", &weight);
        } else {
            // No I/O scheduler with weights: runc lets it pass as well.
            files.maybe("blkio", "blkio.weight", &weight);
        }
    }
    for device in &wanted.weight_device {
        if let Some(weight) = device.weight {
            let value = format!("{}:{} {weight}", device.major, device.minor);
            files.maybe("blkio", "blkio.weight_device", &value);
        }
    }
    for (devices, file) in [
        (&wanted.throttle_read_bps_device, "read_bps"),
        (&wanted.throttle_write_bps_device, "write_bps"),
        (&wanted.throttle_read_iops_device, "read_iops"),
        (&wanted.throttle_write_iops_device, "write_iops"),
    ] {
        for device in devices {
            let value = format!("{}:{} {}", device.major, device.minor, device.rate);
            files.put("blkio", &format!("blkio.throttle.{file}_device"), &value);
        }
    }
}

/// "No limit" of v2.
fn or_max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// The files of a v2 host.
pub(super) fn v2(groups: &Groups, wanted: &Resources) -> Result<Vec<File>, OciError> {
    let mut files = Files {
        groups,
        found: Vec::new(),
    };
    let (memory, cpu) = (&wanted.memory, &wanted.cpu);
    if let Some(swap) = memory.swap.filter(|swap| *swap != 0) {
        // v2 counts swap alone.
        let alone = match (swap, memory.limit) {
            (-1, _) => "max".to_owned(),
            (swap, Some(limit)) if limit > 0 && swap >= limit => (swap - limit).to_string(),
            _ => {
                return Err(OciError::Refused(
                    "memory+swap limit should be >= memory limit".to_owned(),
                ));
            }
        };
        files.put("", "memory.swap.max", &alone);
    }
    if let Some(limit) = memory.limit.filter(|limit| *limit != 0) {
        files.put("", "memory.max", &or_max(limit));
    }
    if let Some(low) = memory.reservation.filter(|low| *low != 0) {
        files.put("", "memory.low", &or_max(low));
    }
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        let shares = shares.clamp(2, 262_144);
        files.put("", "cpu.weight", &(1 + (shares - 2) * 9999 / 262_142));
    }
    let (quota, period) = (
        cpu.quota.filter(|q| *q != 0),
        cpu.period.filter(|p| *p != 0),
    );
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or(-1, |quota| quota);
        let value = format!("{} {}", or_max(quota), period.unwrap_or(100_000));
        files.put("", "cpu.max", &value);
    }
    if let Some(burst) = cpu.burst {
        files.put("", "cpu.max.burst", &burst);
    }
    if let Some(idle) = cpu.idle {
        files.put("", "cpu.idle", &idle);
    }
    for (value, file) in [(&cpu.cpus, "cpuset.cpus"), (&cpu.mems, "cpuset.mems")] {
        if !value.is_empty() {
            files.put("", file, &value);
        }
    }
    if let Some(limit) = wanted.pids.limit {
        files.put("", "pids.max", &or_max(if limit == 0 { -1 } else { limit }));
    }
    v2_block_io(&mut files, &wanted.block_io);
    for page in &wanted.hugepage_limits {
        let name = format!("hugetlb.{}.max", page.page_size);
        files.put("", &name, &page.limit);
    }
    v2_raw(&mut files, wanted)?;
    Ok(files.found)
}

fn v2_block_io(files: &mut Files<'_>, wanted: &BlockIo) {
    if let Some(weight) = wanted.weight.filter(|weight| *weight != 0) {
        let weight = u64::from(weight.clamp(10, 1000));
        files.maybe("", "io.bfq.weight", &weight);
        files.maybe("", "io.weight", &(1 + (weight - 10) * 9999 / 990));
    }
    for (devices, key) in [
        (&wanted.throttle_read_bps_device, "rbps"),
        (&wanted.throttle_write_bps_device, "wbps"),
        (&wanted.throttle_read_iops_device, "riops"),
        (&wanted.throttle_write_iops_device, "wiops"),
    ] {
        for device in devices {
            let value = format!("{}:{} {key}={}", device.major, device.minor, device.rate);
            files.put("", "io.max", &value);
        }
    }
}

/// Files by their own names; one that is no plain name would reach outside the group.
fn v2_raw(files: &mut Files<'_>, wanted: &Resources) -> Result<(), OciError> {
    for (file, value) in &wanted.unified {
        if file.contains('/') || !file.contains('.') || file.starts_with('.') {
            return Err(OciError::Refused(format!(
                "unified resource {file:?} must be a file name (no slashes)"
            )));
        }
        for line in value.lines().filter(|line| !line.trim().is_empty()) {
            files.put("", file, &line);
        }
    }
    Ok(())
}

/// Writes the limits.
pub(super) fn write(groups: &Groups, wanted: &Resources) -> Result<(), OciError> {
    let files = if pure_v2() {
        v2(groups, wanted)?
    } else {
        if !wanted.unified.is_empty() {
            return Err(OciError::Refused(
                "invalid configuration: cannot use unified on cgroup v1".to_owned(),
            ));
        }
        v1(groups, wanted)
    };
    for file in files {
        match std::fs::write(&file.path, &file.value) {
            Err(error) if file.optional && error.kind() == std::io::ErrorKind::NotFound => {}
            done => done.map_err(call(format!(
                "write {:?} to {}",
                file.value,
                file.path.display()
            )))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Groups {
        let dirs = ["memory", "cpu", "pids", "blkio", "cpuset"];
        let dirs = dirs.iter().map(|name| {
            (
                (*name).to_owned(),
                Path::new("/nowhere").join(name).join("c"),
            )
        });
        Groups {
            dirs: dirs.collect(),
        }
    }

    fn resources(text: &str) -> Resources {
        serde_json::from_str(text).unwrap()
    }

    fn shown(files: &[File]) -> Vec<String> {
        let name = |file: &File| {
            file.path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        };
        files
            .iter()
            .map(|file| format!("{}={}", name(file), file.value))
            .collect()
    }

    #[test]
    fn v1_files_are_the_words_of_the_specification() {
        let wanted = resources(
            r#"{"memory":{"limit":1048576,"swap":-1,"reservation":0},"cpu":{"shares":7,
            "quota":-1,"period":1000,"cpus":"0"},"pids":{"limit":0},"blockIO":
            {"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":5}]}}"#,
        );
        assert_eq!(
            shown(&v1(&groups(), &wanted)),
            [
                "memory.memsw.limit_in_bytes=-1",
                "memory.limit_in_bytes=1048576",
                "cpu.shares=7",
                "cpu.cfs_period_us=1000",
                "cpu.cfs_quota_us=-1",
                "cpuset.cpus=0",
                "pids.max=max",
                "blkio.throttle.read_iops_device=8:0 5",
            ]
        );
    }

    #[test]
    fn v2_counts_swap_alone_and_takes_raw_files() {
        let unified = Groups {
            dirs: vec![(String::new(), PathBuf::from("/nowhere"))],
        };
        let wanted = resources(
            r#"{"memory":{"limit":100,"swap":150},"cpu":{"shares":1024,"quota":5000},
            "unified":{"memory.high":"50"}}"#,
        );
        assert_eq!(
            shown(&v2(&unified, &wanted).unwrap()),
            [
                "memory.swap.max=50",
                "memory.max=100",
                "cpu.weight=39",
                "cpu.max=5000 100000",
                "memory.high=50",
            ]
        );
        for text in [
            r#"{"unified":{"../x.y":"1"}}"#,
            r#"{"memory":{"limit":100,"swap":50}}"#,
        ] {
            assert!(v2(&unified, &resources(text)).is_err(), "{text}");
        }
    }
}
