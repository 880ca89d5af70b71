//! CPU weight and quota as files of the `cpu` controller.

use super::Setting;
use crate::spec::Limits;

/// The kernel's default period.
const DEFAULT_PERIOD_US: u64 = 100_000;
/// The kernel's least shares and quota.
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const MIN_QUOTA_US: u64 = 1000;

pub(super) fn v1(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = limits.cpu_shares {
        settings.push(Setting::new(
            "cpu.shares",
            shares.clamp(MIN_SHARES, MAX_SHARES),
        ));
    }
    if let Some(period) = limits.cpu_period_us {
        settings.push(Setting::new("cpu.cfs_period_us", period));
    }
    if let Some(quota) = limits.cpu_quota_us {
        settings.push(Setting::new("cpu.cfs_quota_us", quota.max(MIN_QUOTA_US)));
    }
    settings
}

pub(super) fn v2(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = limits.cpu_shares {
        settings.push(Setting::new("cpu.weight", weight(shares)));
    }
    if let Some(quota) = limits.cpu_quota_us {
        let period = limits.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US);
        settings.push(Setting::new(
            "cpu.max",
            format!("{} {period}", quota.max(MIN_QUOTA_US)),
        ));
    }
    settings
}

/// Maps the range of v1 shares, 2 to 262144, on that of v2 weights, 1 to 10000, as runc and crun do.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(MIN_SHARES, MAX_SHARES);
    1 + (shares - MIN_SHARES) * 9999 / (MAX_SHARES - MIN_SHARES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_quota_become_both_versions_files() {
        let limits = Limits {
            cpu_shares: Some(102),
            cpu_quota_us: Some(10_000),
            cpu_period_us: None,
            ..Limits::default()
        };
        let v1 = v1(&limits);
        assert_eq!(v1[0], Setting::new("cpu.shares", 102));
        assert_eq!(v1[1], Setting::new("cpu.cfs_quota_us", 10_000));
        let v2 = v2(&limits);
        assert_eq!(v2[0], Setting::new("cpu.weight", 4));
        assert_eq!(v2[1], Setting::new("cpu.max", "10000 100000"));
    }

    #[test]
    fn weights_stay_in_the_kernels_range() {
        assert_eq!(
            (weight(0), weight(2), weight(262_144), weight(u64::MAX)),
            (1, 1, 10_000, 10_000)
        );
        assert_eq!(weight(1024), 39);
    }

    #[test]
    fn the_period_precedes_the_quota() {
        let limits = Limits {
            cpu_quota_us: Some(5),
            cpu_period_us: Some(50_000),
            ..Limits::default()
        };
        let names: Vec<&str> = v1(&limits).iter().map(|s| s.file).collect();
        assert_eq!(names, ["cpu.cfs_period_us", "cpu.cfs_quota_us"]);
        assert_eq!(v1(&limits)[1].value, "1000");
    }
}
