//! Limits, as the specification names them (cgroup v1 words, whatever the host has).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::nullable;

/// Limits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Device filter, in order.
    #[serde(deserialize_with = "nullable")]
    pub devices: Vec<DeviceRule>,
    /// Memory.
    #[serde(deserialize_with = "nullable")]
    pub memory: Memory,
    /// CPU time and CPU sets.
    #[serde(deserialize_with = "nullable")]
    pub cpu: Cpu,
    /// Number of processes.
    #[serde(deserialize_with = "nullable")]
    pub pids: Pids,
    /// Block devices.
    #[serde(rename = "blockIO", deserialize_with = "nullable")]
    pub block_io: BlockIo,
    /// Huge pages.
    #[serde(deserialize_with = "nullable")]
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Files of the v2 tree, verbatim.
    #[serde(deserialize_with = "nullable")]
    pub unified: BTreeMap<String, String>,
}

/// A rule of the device filter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeviceRule {
    /// Allow or deny.
    #[serde(deserialize_with = "nullable")]
    pub allow: bool,
    /// `a`, `c` or `b`; empty is `a`.
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// None is all; so is a negative number.
    pub major: Option<i64>,
    /// None is all; so is a negative number.
    pub minor: Option<i64>,
    /// Of `rwm`; empty is all.
    #[serde(deserialize_with = "nullable")]
    pub access: String,
}

/// Memory, in bytes; -1 is no limit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Most.
    pub limit: Option<i64>,
    /// What is taken back last.
    pub reservation: Option<i64>,
    /// Most of memory and swap together.
    pub swap: Option<i64>,
    /// Inclination to swap, 0 to 100.
    pub swappiness: Option<u64>,
    /// Whether tasks wait instead of being killed.
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// Whether groups below count to this one.
    pub use_hierarchy: Option<bool>,
    /// Whether an update that usage exceeds is refused.
    pub check_before_update: Option<bool>,
}

/// CPU time, in microseconds, and sets.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// Relative weight, 2 to 262144.
    pub shares: Option<u64>,
    /// Time per period; -1 is no limit.
    pub quota: Option<i64>,
    /// What may be saved up.
    pub burst: Option<u64>,
    /// Length of a period.
    pub period: Option<u64>,
    /// Real-time share.
    pub realtime_runtime: Option<i64>,
    /// Real-time period.
    pub realtime_period: Option<u64>,
    /// CPUs, such as `0-2,7`.
    #[serde(deserialize_with = "nullable")]
    pub cpus: String,
    /// Memory nodes.
    #[serde(deserialize_with = "nullable")]
    pub mems: String,
    /// 1: idle class.
    pub idle: Option<i64>,
}

/// Number of processes and threads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// Most; 0 and less is no limit.
    pub limit: Option<i64>,
}

/// Block devices.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIo {
    /// Relative weight, 10 to 1000.
    pub weight: Option<u16>,
    /// Weight among groups with no weight of their own.
    pub leaf_weight: Option<u16>,
    /// Weights of single devices.
    #[serde(deserialize_with = "nullable")]
    pub weight_device: Vec<WeightDevice>,
    /// Bytes per second.
    #[serde(deserialize_with = "nullable")]
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Bytes per second.
    #[serde(deserialize_with = "nullable")]
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Operations per second.
    #[serde(rename = "throttleReadIOPSDevice", deserialize_with = "nullable")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Operations per second.
    #[serde(rename = "throttleWriteIOPSDevice", deserialize_with = "nullable")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// Weight of one device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightDevice {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// 10 to 1000.
    pub weight: Option<u16>,
}

/// Limit of one device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ThrottleDevice {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Per second.
    pub rate: u64,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HugepageLimit {
    /// Such as `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}
