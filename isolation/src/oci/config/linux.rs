//! What is particular to Linux: namespaces, devices, paths of the kernel's file systems.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Resources, nullable};

/// What is particular to Linux.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// New or joined namespaces; one that is not named is the host's.
    #[serde(deserialize_with = "nullable")]
    pub namespaces: Vec<Namespace>,
    /// User ids of a new user namespace.
    #[serde(deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of a new user namespace.
    #[serde(deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
    /// Clock offsets of a new time namespace.
    #[serde(deserialize_with = "nullable")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Nodes besides the default ones.
    #[serde(deserialize_with = "nullable")]
    pub devices: Vec<DeviceNode>,
    /// Where the container's cgroups are.
    #[serde(deserialize_with = "nullable")]
    pub cgroups_path: String,
    /// Limits.
    pub resources: Option<Resources>,
    /// How mounts reach in and out.
    #[serde(deserialize_with = "nullable")]
    pub rootfs_propagation: String,
    /// System call filter, in the form that [`crate::seccomp`] compiles.
    pub seccomp: Option<serde_json::Value>,
    /// Kernel settings, by name with dots or slashes.
    #[serde(deserialize_with = "nullable")]
    pub sysctl: BTreeMap<String, String>,
    /// Paths that cannot be read inside.
    #[serde(deserialize_with = "nullable")]
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written inside.
    #[serde(deserialize_with = "nullable")]
    pub readonly_paths: Vec<String>,
    /// SELinux label of mounts.
    #[serde(deserialize_with = "nullable")]
    pub mount_label: String,
    /// Cache and bandwidth allocation.
    pub intel_rdt: Option<IntelRdt>,
    /// Execution domain.
    pub personality: Option<Personality>,
}

/// One namespace.
#[derive(Clone, Debug, Deserialize)]
pub struct Namespace {
    /// Of which kind.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// The one to join; empty: a new one.
    #[serde(default, deserialize_with = "nullable")]
    pub path: String,
}

/// Kinds of namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Users and groups.
    User,
    /// Process ids.
    Pid,
    /// Network.
    Network,
    /// System V IPC and POSIX queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Mounts.
    Mount,
    /// The root of what is seen of cgroups.
    Cgroup,
    /// Boot and monotonic clocks.
    Time,
}

/// A range of ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// Offset of a clock.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    /// Seconds.
    #[serde(deserialize_with = "nullable")]
    pub secs: i64,
    /// Nanoseconds.
    #[serde(deserialize_with = "nullable")]
    pub nanosecs: u32,
}

/// A device node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceNode {
    /// Path inside.
    pub path: String,
    /// `c`, `u`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number.
    #[serde(deserialize_with = "nullable")]
    pub major: i64,
    /// Minor number.
    #[serde(deserialize_with = "nullable")]
    pub minor: i64,
    /// Permissions.
    pub file_mode: Option<u32>,
    /// Owner in the container.
    pub uid: Option<u32>,
    /// Group in the container.
    pub gid: Option<u32>,
}

/// Execution domain.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// None is known.
    #[serde(deserialize_with = "nullable")]
    pub flags: Vec<String>,
}

/// Cache and bandwidth allocation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct IntelRdt {}
