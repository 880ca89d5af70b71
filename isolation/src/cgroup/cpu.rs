//! CPU weight, quota and burst as files of the `cpu` controller.

use super::Setting;
use crate::spec::Limits;

/// The kernel's default period.
const DEFAULT_PERIOD_US: u64 = 100_000;
/// The kernel's least shares and quota.
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const MIN_QUOTA_US: u64 = 1000;

/// The period precedes the quota, which bounds the burst. An idle group has no weight.
pub(super) fn v1(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = limits.cpu_shares {
        let shares = shares.clamp(MIN_SHARES, MAX_SHARES);
        settings.push(Setting::new("cpu_shares", "cpu.shares", shares));
    }
    if let Some(period) = limits.cpu_period_us {
        settings.push(Setting::new("cpu_period_us", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = limits.cpu_quota_us {
        let quota = match quota {
            Limits::UNLIMITED => "-1".to_owned(),
            quota => quota.max(MIN_QUOTA_US).to_string(),
        };
        settings.push(Setting::new("cpu_quota_us", "cpu.cfs_quota_us", quota));
    }
    if let Some(burst) = limits.cpu_burst_us {
        settings.push(Setting::new("cpu_burst_us", "cpu.cfs_burst_us", burst));
    }
    settings.extend(idle(limits));
    settings
}

pub(super) fn v2(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = limits.cpu_shares {
        settings.push(Setting::new("cpu_shares", "cpu.weight", weight(shares)));
    }
    if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() {
        let period = limits.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US);
        let quota = match limits.cpu_quota_us {
            None | Some(Limits::UNLIMITED) => "max".to_owned(),
            Some(quota) => quota.max(MIN_QUOTA_US).to_string(),
        };
        let both = format!("{quota} {period}");
        settings.push(Setting::new("cpu_quota_us", "cpu.max", both));
    }
    if let Some(burst) = limits.cpu_burst_us {
        settings.push(Setting::new("cpu_burst_us", "cpu.max.burst", burst));
    }
    settings.extend(idle(limits));
    settings
}

/// The file is the same in both versions.
fn idle(limits: &Limits) -> Option<Setting> {
    let idle = limits.cpu_idle?;
    Some(Setting::new("cpu_idle", "cpu.idle", u8::from(idle)))
}

/// Maps the range of v1 shares, 2 to 262144, on that of v2 weights, 1 to 10000, as runc and crun do.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(MIN_SHARES, MAX_SHARES);
    1 + (shares - MIN_SHARES) * 9999 / (MAX_SHARES - MIN_SHARES)
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn shares_and_quota_become_both_versions_files() {
        let limits = Limits {
            cpu_shares: Some(102),
            cpu_quota_us: Some(10_000),
            cpu_burst_us: Some(5_000),
            cpu_idle: Some(false),
            ..Limits::default()
        };
        assert_eq!(
            shown(&v1(&limits)),
            "cpu.shares=102 cpu.cfs_quota_us=10000 cpu.cfs_burst_us=5000 cpu.idle=0"
        );
        assert_eq!(
            shown(&v2(&limits)),
            "cpu.weight=4 cpu.max=10000 100000 cpu.max.burst=5000 cpu.idle=0"
        );
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
        let text = shown(&v1(&limits));
        assert_eq!(text, "cpu.cfs_period_us=50000 cpu.cfs_quota_us=1000");
        assert_eq!(shown(&v2(&limits)), "cpu.max=1000 50000");
    }

    #[test]
    fn a_quota_can_be_lifted() {
        let limits = Limits {
            cpu_quota_us: Some(Limits::UNLIMITED),
            ..Limits::default()
        };
        assert_eq!(shown(&v1(&limits)), "cpu.cfs_quota_us=-1");
        assert_eq!(shown(&v2(&limits)), "cpu.max=max 100000");
    }
}
