//! Resources of a configuration as limits of the container's groups.
//!
//! The specification's words are cgroup v1's, with memory and swap counted together; what they become
//! as files is `cgroup`'s business, in either version. Pure. A change is one of what was there before,
//! so that a new limit on memory alone leaves the sum as it was, as runc does.

use super::config::{BlockIo, HugepageLimit, Memory, Resources};
use super::error::OciError;
use crate::cgroup::{Hierarchies, io_weight};
use crate::spec::{HugePageLimit, IoLimit, Limits};

fn refuse(words: impl Into<String>) -> OciError {
    OciError::Refused(words.into())
}

/// A number that lifts the limit when it is negative.
fn or_unlimited(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(Limits::UNLIMITED)
}

/// `before` with everything that `wanted` says in place of what was there.
pub(super) fn changed(
    hosts: &Hierarchies,
    before: &Limits,
    wanted: &Resources,
) -> Result<Limits, OciError> {
    let mut change = Limits {
        pids_max: wanted.pids.limit.map(|limit| match limit {
            0 => Limits::UNLIMITED,
            limit => or_unlimited(limit),
        }),
        ..Limits::default()
    };
    memory(before, &wanted.memory, &mut change)?;
    cpu(wanted, &mut change)?;
    block_io(&wanted.block_io, &mut change);
    for page in &wanted.hugepage_limits {
        change.huge_pages.push(huge_page(page)?);
    }
    if hosts.pure_v2 {
        unified(hosts, wanted, &mut change)?;
    } else {
        only_v1(wanted, &mut change)?;
    }
    let limits = before.changed(&change);
    limits.check().map_err(|error| refuse(error.to_string()))?;
    Ok(limits)
}

fn memory(before: &Limits, wanted: &Memory, change: &mut Limits) -> Result<(), OciError> {
    let too_small = || refuse("memory+swap limit should be >= memory limit");
    let limit = wanted.limit.filter(|bytes| *bytes != 0).map(or_unlimited);
    let sum = wanted.swap.filter(|bytes| *bytes != 0).map(or_unlimited);
    let low = wanted.reservation.filter(|bytes| *bytes != 0);
    change.memory_low_bytes = low.map(or_unlimited);
    change.memory_bytes = limit;
    let now = limit.or(before.memory_bytes);
    let sum_before = || {
        let swap = before.swap_bytes.unwrap_or(Limits::UNLIMITED);
        before
            .memory_bytes
            .map_or(swap, |memory| memory.saturating_add(swap))
    };
    let sum = match (sum, limit) {
        (Some(sum), _) => sum,
        // Who lifts the limit on memory means swap as well.
        (None, Some(Limits::UNLIMITED)) => Limits::UNLIMITED,
        (None, Some(_)) => sum_before(),
        (None, None) => return Ok(()),
    };
    change.swap_bytes = match now {
        // Nothing is limited: lifting what is not there is done.
        None if sum == Limits::UNLIMITED => None,
        Some(_) if sum == Limits::UNLIMITED => Some(Limits::UNLIMITED),
        now => {
            let alone = now.and_then(|memory| sum.checked_sub(memory));
            Some(alone.ok_or_else(too_small)?)
        }
    };
    Ok(())
}

fn cpu(wanted: &Resources, change: &mut Limits) -> Result<(), OciError> {
    let cpu = &wanted.cpu;
    change.cpu_shares = cpu.shares.filter(|shares| *shares != 0);
    change.cpu_period_us = cpu.period.filter(|period| *period != 0);
    change.cpu_quota_us = cpu.quota.filter(|quota| *quota != 0).map(or_unlimited);
    change.cpu_burst_us = cpu.burst;
    change.cpu_idle = match cpu.idle {
        None => None,
        Some(idle @ 0..=1) => Some(idle == 1),
        Some(other) => return Err(refuse(format!("cpu.idle: {other} is neither 0 nor 1"))),
    };
    let list = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    change.cpuset_cpus = list(&cpu.cpus);
    change.cpuset_mems = list(&cpu.mems);
    Ok(())
}

/// One rate of a device.
type Pick = fn(&mut IoLimit) -> &mut Option<u64>;

fn block_io(wanted: &BlockIo, change: &mut Limits) {
    let weight = |weight: Option<u16>| weight.filter(|weight| *weight != 0).map(io_weight);
    change.io_weight = weight(wanted.weight);
    let devices = &mut change.io_devices;
    let of = |devices: &mut Vec<IoLimit>, major, minor| {
        let same = |known: &IoLimit| (known.major, known.minor) == (major, minor);
        devices.iter().position(same).unwrap_or_else(|| {
            let new = IoLimit {
                major,
                minor,
                ..IoLimit::default()
            };
            devices.push(new);
            devices.len() - 1
        })
    };
    for device in &wanted.weight_device {
        let at = of(devices, device.major, device.minor);
        devices[at].weight = weight(device.weight);
    }
    let picks: [(_, Pick); 4] = [
        (&wanted.throttle_read_bps_device, |l| &mut l.read_bytes),
        (&wanted.throttle_write_bps_device, |l| &mut l.write_bytes),
        (&wanted.throttle_read_iops_device, |l| &mut l.read_ops),
        (&wanted.throttle_write_iops_device, |l| &mut l.write_ops),
    ];
    for (throttled, pick) in picks {
        for device in throttled {
            let at = of(devices, device.major, device.minor);
            // 0 is v1's word for no limit.
            let rate = Some(device.rate).filter(|rate| *rate != 0);
            *pick(&mut devices[at]) = Some(rate.unwrap_or(Limits::UNLIMITED));
        }
    }
}

fn huge_page(wanted: &HugepageLimit) -> Result<HugePageLimit, OciError> {
    const UNITS: [(&str, u64); 3] = [("KB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30)];
    let size = &wanted.page_size;
    let bytes = UNITS.iter().find_map(|(unit, factor)| {
        let count: u64 = size.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(*factor)
    });
    let page_bytes = bytes.ok_or_else(|| refuse(format!("invalid hugepage size {size:?}")))?;
    Ok(HugePageLimit {
        page_bytes,
        bytes: wanted.limit,
    })
}

/// What v2 has nothing like, and runc passes over there.
fn only_v1(wanted: &Resources, change: &mut Limits) -> Result<(), OciError> {
    if !wanted.unified.is_empty() {
        let words = "invalid configuration: cannot use unified on cgroup v1";
        return Err(refuse(words));
    }
    let (memory, cpu) = (&wanted.memory, &wanted.cpu);
    let period = cpu.realtime_period.filter(|period| *period != 0);
    let runtime = cpu.realtime_runtime.filter(|runtime| *runtime != 0);
    let no_killer = memory.disable_oom_killer == Some(true);
    // The kernel takes a runtime only within the period, which comes first by its name.
    for (file, value) in [
        ("cpu.rt_period_us", period.map(|value| value.to_string())),
        ("cpu.rt_runtime_us", runtime.map(|value| value.to_string())),
        (
            "memory.swappiness",
            memory.swappiness.map(|value| value.to_string()),
        ),
        ("memory.oom_control", no_killer.then(|| "1".to_owned())),
    ] {
        let entry = value.map(|value| (file.to_owned(), value));
        change.raw_v1.extend(entry);
    }
    Ok(())
}

/// Files of v2 by their own names; one that is no plain name would reach outside the group.
fn unified(hosts: &Hierarchies, wanted: &Resources, change: &mut Limits) -> Result<(), OciError> {
    for (file, value) in &wanted.unified {
        if file.contains('/') {
            let words = format!("unified resource {file:?} must be a file name (no slashes)");
            return Err(refuse(words));
        }
        let Some((controller, _)) = file.split_once('.') else {
            let words =
                format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER");
            return Err(refuse(words));
        };
        if !hosts.controllers.contains(controller) {
            return Err(refuse(format!(
                "unified resource {file:?} can't be set: controller {controller:?} not available"
            )));
        }
        change.raw.insert(file.clone(), value.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(pure_v2: bool) -> Hierarchies {
        Hierarchies {
            pure_v2,
            controllers: ["memory".to_owned()].into(),
            ..Hierarchies::default()
        }
    }

    fn changed_by(before: &Limits, pure_v2: bool, text: &str) -> Result<Limits, String> {
        let wanted = serde_json::from_str(text).unwrap();
        changed(&hosts(pure_v2), before, &wanted).map_err(|error| error.to_string())
    }

    fn limits(text: &str) -> Limits {
        changed_by(&Limits::default(), false, text).unwrap()
    }

    #[test]
    fn numbers_keep_their_meaning() {
        let found = limits(
            r#"{"memory":{"limit":1048576,"reservation":0},"cpu":{"shares":7,"quota":-1,
            "period":1000,"cpus":"0","idle":1,"realtimePeriod":9},"pids":{"limit":0},
            "blockIO":{"weight":500,"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":5}],
            "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":0}]},
            "hugepageLimits":[{"pageSize":"2MB","limit":4}]}"#,
        );
        let wanted = Limits {
            memory_bytes: Some(1 << 20),
            // Nothing was said of swap.
            swap_bytes: Some(Limits::UNLIMITED),
            cpu_shares: Some(7),
            cpu_quota_us: Some(Limits::UNLIMITED),
            cpu_period_us: Some(1000),
            cpu_idle: Some(true),
            cpuset_cpus: Some("0".to_owned()),
            pids_max: Some(Limits::UNLIMITED),
            io_weight: Some(4950),
            io_devices: vec![IoLimit {
                major: 8,
                read_ops: Some(5),
                write_bytes: Some(Limits::UNLIMITED),
                ..IoLimit::default()
            }],
            huge_pages: vec![HugePageLimit {
                page_bytes: 2 << 20,
                bytes: 4,
            }],
            raw_v1: [("cpu.rt_period_us".to_owned(), "9".to_owned())].into(),
            ..Limits::default()
        };
        assert_eq!(found, wanted);
    }

    #[test]
    fn memory_and_swap_are_a_sum_that_stays() {
        let sum = |limits: &Limits| (limits.memory_bytes, limits.swap_bytes);
        let before = limits(r#"{"memory":{"limit":100,"swap":150}}"#);
        assert_eq!(sum(&before), (Some(100), Some(50)));
        let after = |text: &str| changed_by(&before, false, text);
        let smaller = after(r#"{"memory":{"limit":80}}"#).unwrap();
        assert_eq!(sum(&smaller), (Some(80), Some(70)));
        let more = after(r#"{"memory":{"swap":-1}}"#).unwrap();
        assert_eq!(sum(&more), (Some(100), Some(Limits::UNLIMITED)));
        let lifted = after(r#"{"memory":{"limit":-1}}"#).unwrap();
        let unlimited = Some(Limits::UNLIMITED);
        assert_eq!(sum(&lifted), (unlimited, unlimited));
        assert_eq!(sum(&limits(r#"{"memory":{"swap":-1}}"#)), (None, None));
        for text in [r#"{"memory":{"limit":200}}"#, r#"{"memory":{"swap":50}}"#] {
            let words = after(text).unwrap_err();
            assert_eq!(words, "memory+swap limit should be >= memory limit");
        }
    }

    #[test]
    fn raw_files_are_v2s() {
        let v2 = |text: &str| changed_by(&Limits::default(), true, text);
        let found = v2(r#"{"unified":{"memory.high":"50"},"memory":{"swappiness":1}}"#).unwrap();
        assert_eq!(found.raw["memory.high"], "50");
        assert_eq!(found.raw_v1.len(), 0);
        for (text, words) in [
            (
                r#"{"unified":{"../x.y":"1"}}"#,
                "must be a file name (no slashes)",
            ),
            (r#"{"unified":{"x":"1"}}"#, "CONTROLLER.PARAMETER"),
            (
                r#"{"unified":{"io.max":"1"}}"#,
                "controller \"io\" not available",
            ),
        ] {
            let refused = v2(text).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
        let refused = changed_by(
            &Limits::default(),
            false,
            r#"{"unified":{"memory.high":"1"}}"#,
        );
        assert!(
            refused
                .unwrap_err()
                .contains("cannot use unified on cgroup v1")
        );
    }
}
