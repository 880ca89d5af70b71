//! `config.json` of runtime-spec 1.2, as plain data.
//!
//! Only what a Linux runtime acts on is named here; unknown properties are ignored, as the
//! specification asks. `null` stands for "not there", as Go programs write it. It deliberately
//! judges nothing: [`super::check`] does.

mod linux;
mod process;
mod resources;

pub use linux::{
    DeviceNode, IdMapping, IntelRdt, Linux, Namespace, NamespaceKind, Personality, TimeOffset,
};
pub use process::{
    Capabilities, ConsoleSize, IoPriority, Process, ProcessRlimit, ProcessUser, Scheduler,
};
pub use resources::{
    BlockIo, Cpu, DeviceRule, HugepageLimit, Memory, Pids, Resources, ThrottleDevice, WeightDevice,
};

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Largest `config.json` or `process.json` that is read.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;
/// The version of the specification that this runtime was written for.
pub const SPEC_VERSION: &str = "1.2.0";

/// `null` means the default.
pub(super) fn nullable<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Version of the specification.
    #[serde(deserialize_with = "nullable")]
    pub oci_version: String,
    /// What to run.
    pub process: Option<Process>,
    /// The root file system.
    pub root: Option<RootFs>,
    /// Host name.
    #[serde(deserialize_with = "nullable")]
    pub hostname: String,
    /// NIS domain name.
    #[serde(deserialize_with = "nullable")]
    pub domainname: String,
    /// Mounts, in order.
    #[serde(deserialize_with = "nullable")]
    pub mounts: Vec<Mount>,
    /// Programs to run at points of the life cycle.
    #[serde(deserialize_with = "nullable")]
    pub hooks: Hooks,
    /// Anything, for others.
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    /// What is particular to Linux.
    #[serde(deserialize_with = "nullable")]
    pub linux: Linux,
}

/// The root file system.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Absolute, or relative to the bundle.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
    /// Whether it is read-only inside.
    #[serde(deserialize_with = "nullable")]
    pub readonly: bool,
}

/// One mount.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Path inside.
    #[serde(deserialize_with = "nullable")]
    pub destination: String,
    /// File system type; bind mounts are told by their options.
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// Device, or path on the host.
    #[serde(deserialize_with = "nullable")]
    pub source: String,
    /// Options as fstab(5) has them, and the specification's own.
    #[serde(deserialize_with = "nullable")]
    pub options: Vec<String>,
    /// Ids of an id-mapped mount.
    #[serde(deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of an id-mapped mount.
    #[serde(deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
}

/// Programs to run at points of the life cycle.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Deprecated; with createRuntime, before them.
    #[serde(deserialize_with = "nullable")]
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, after the container's were made, before its root is.
    #[serde(deserialize_with = "nullable")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before its root is the root.
    #[serde(deserialize_with = "nullable")]
    pub create_container: Vec<Hook>,
    /// In the container, just before the command.
    #[serde(deserialize_with = "nullable")]
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the command began.
    #[serde(deserialize_with = "nullable")]
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container is gone.
    #[serde(deserialize_with = "nullable")]
    pub poststop: Vec<Hook>,
}

/// One program.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
    /// Arguments, the first being its name.
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// Its whole environment.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Seconds after which it is killed and has failed.
    pub timeout: Option<i64>,
}
