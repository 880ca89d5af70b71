//! Weights and rates of block devices: files of `blkio` on v1, of `io` on v2.
//!
//! Weights act only where the device's scheduler or the kernel's cost model uses them; rates act on
//! every device.

use super::Setting;
use crate::spec::{IoLimit, Limits};

/// v1 weights, of which the kernel has one file or the other: that of the old scheduler, and BFQ's.
const V1_WEIGHTS: [[&str; 2]; 2] = [
    ["blkio.weight", "blkio.weight_device"],
    ["blkio.bfq.weight", "blkio.bfq.weight_device"],
];

/// Files are left out that `has` denies, unless none would be left.
pub(super) fn v1(limits: &Limits, has: impl Fn(&str) -> bool) -> Vec<Setting> {
    let found = V1_WEIGHTS.into_iter().find(|[file, _]| has(file));
    let [weight_file, device_file] = found.unwrap_or(V1_WEIGHTS[1]);
    let mut settings = Vec::new();
    if let Some(weight) = limits.io_weight {
        settings.push(Setting::new("io_weight", weight_file, v1_weight(weight)));
    }
    for device in &limits.io_devices {
        let number = format!("{}:{}", device.major, device.minor);
        if let Some(weight) = device.weight {
            let value = format!("{number} {}", v1_weight(weight));
            settings.push(Setting::new("io_devices", device_file, value));
        }
        for (file, rate) in [
            ("blkio.throttle.read_bps_device", device.read_bytes),
            ("blkio.throttle.write_bps_device", device.write_bytes),
            ("blkio.throttle.read_iops_device", device.read_ops),
            ("blkio.throttle.write_iops_device", device.write_ops),
        ] {
            let Some(rate) = rate else { continue };
            // 0 lifts the limit there; the least that limits is 1.
            let rate = match rate {
                Limits::UNLIMITED => 0,
                rate => rate.max(1),
            };
            let value = format!("{number} {rate}");
            settings.push(Setting::new("io_devices", file, value));
        }
    }
    settings
}

pub(super) fn v2(limits: &Limits, has: impl Fn(&str) -> bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    // Each acts with its own scheduler: both are set where both are there.
    let bfq = has("io.bfq.weight");
    let cost = has("io.weight") || !bfq;
    let mut weigh = |limit, prefix: &str, weight: u16| {
        if cost {
            let value = format!("{prefix}{weight}");
            settings.push(Setting::new(limit, "io.weight", value));
        }
        if bfq {
            let value = format!("{prefix}{}", v1_weight(weight));
            settings.push(Setting::new(limit, "io.bfq.weight", value));
        }
    };
    if let Some(weight) = limits.io_weight {
        weigh("io_weight", "default ", weight);
    }
    for device in &limits.io_devices {
        if let Some(weight) = device.weight {
            let prefix = format!("{}:{} ", device.major, device.minor);
            weigh("io_devices", &prefix, weight);
        }
    }
    settings.extend(
        limits
            .io_devices
            .iter()
            .filter_map(rates)
            .map(|value| Setting::new("io_devices", "io.max", value)),
    );
    settings
}

fn rates(device: &IoLimit) -> Option<String> {
    let rates = [
        ("rbps", device.read_bytes),
        ("wbps", device.write_bytes),
        ("riops", device.read_ops),
        ("wiops", device.write_ops),
    ];
    let rates: Vec<String> = rates
        .into_iter()
        .filter_map(|(key, rate)| match rate? {
            Limits::UNLIMITED => Some(format!(" {key}=max")),
            rate => Some(format!(" {key}={}", rate.max(1))),
        })
        .collect();
    if rates.is_empty() {
        return None;
    }
    Some(format!(
        "{}:{}{}",
        device.major,
        device.minor,
        rates.concat()
    ))
}

/// Maps 1 to 10,000 on 10 to 1000, the inverse of [`weight`]: rounded up, as that rounds down.
fn v1_weight(weight: u16) -> u32 {
    10 + (u32::from(weight.saturating_sub(1)) * 990).div_ceil(9999)
}

/// Maps weights of v1, 10 to 1000, on those of v2, 1 to 10,000, as runc and crun do.
pub(crate) fn weight(v1: u16) -> u16 {
    let above = u32::from(v1.clamp(10, 1000)) - 10;
    u16::try_from(1 + above * 9999 / 990).unwrap_or(10_000)
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    fn limits() -> Limits {
        Limits {
            io_weight: Some(100),
            io_devices: vec![
                IoLimit {
                    major: 8,
                    minor: 16,
                    weight: Some(10_000),
                    read_bytes: Some(1 << 20),
                    write_ops: Some(Limits::UNLIMITED),
                    ..IoLimit::default()
                },
                IoLimit {
                    major: 7,
                    write_bytes: Some(0),
                    ..IoLimit::default()
                },
            ],
            ..Limits::default()
        }
    }

    #[test]
    fn v1_has_a_file_per_rate() {
        assert_eq!(
            shown(&v1(&limits(), |file| file == "blkio.bfq.weight")),
            "blkio.bfq.weight=20 blkio.bfq.weight_device=8:16 1000 \
             blkio.throttle.read_bps_device=8:16 1048576 \
             blkio.throttle.write_iops_device=8:16 0 \
             blkio.throttle.write_bps_device=7:0 1"
        );
        let old = v1(&limits(), |_| true);
        assert_eq!(old[0].file, "blkio.weight");
    }

    #[test]
    fn v2_has_a_line_per_device() {
        assert_eq!(
            shown(&v2(&limits(), |file| file == "io.weight")),
            "io.weight=default 100 io.weight=8:16 10000 \
             io.max=8:16 rbps=1048576 wiops=max io.max=7:0 wbps=1"
        );
        let bfq = v2(&limits(), |file| file == "io.bfq.weight");
        assert_eq!(bfq[0].value, "default 20");
        assert_eq!(bfq[0].file, "io.bfq.weight");
    }

    #[test]
    fn weights_of_v1_come_back_as_they_were() {
        assert_eq!((weight(10), weight(500), weight(1000)), (1, 4950, 10_000));
        for old in 10..=1000 {
            assert_eq!(v1_weight(weight(old)), u32::from(old));
        }
    }

    #[test]
    fn nothing_asked_is_nothing_written() {
        assert_eq!(v1(&Limits::default(), |_| true), []);
        assert_eq!(v2(&Limits::default(), |_| true), []);
    }
}
