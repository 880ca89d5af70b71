//! The definition of an app in the modern form that Marathon 1.5–1.11 prints: every old form has
//! been normalised away and every default is filled in.
//!
//! Serialising an [`App`] gives the bytes that go into the log and, with `version` and
//! `versionInfo` added, the JSON that clients see. Reading is lenient about unknown fields because
//! what a client sends is checked elsewhere (coordinator core, `service/validate`), not here.
//! Invariant: amounts are integers inside; they become JSON numbers only at this boundary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::AppId;
use crate::units::{Bytes, MilliCpu};

/// A normalised app definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Its path.
    pub id: AppId,
    /// Run by `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    /// Argument vector; never together with `cmd`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Roles of resources it may use; empty means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted_resource_roles: Vec<String>,
    /// Growth of the launch delay after each failure, at least 1.
    #[serde(with = "number")]
    pub backoff_factor: f64,
    /// First launch delay in seconds.
    #[serde(with = "number")]
    pub backoff_seconds: f64,
    /// Image, port mappings, volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// CPU share of one instance.
    #[serde(with = "cpus")]
    pub cpus: MilliCpu,
    /// Disk of one instance, MiB in JSON.
    #[serde(with = "mib")]
    pub disk: Bytes,
    /// Environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Executor; empty is the built-in one.
    #[serde(default)]
    pub executor: String,
    /// What is fetched into the sandbox before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<Fetch>,
    /// Whole GPUs of one instance.
    #[serde(default)]
    pub gpus: u64,
    /// How many instances are wanted.
    pub instances: u32,
    /// Which instances go first when there are too many.
    pub kill_selection: KillSelection,
    /// Labels; printed even when there are none.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Longest launch delay in seconds.
    #[serde(with = "number")]
    pub max_launch_delay_seconds: f64,
    /// Memory of one instance, MiB in JSON.
    #[serde(with = "mib")]
    pub mem: Bytes,
    /// Networks: one entry for now.
    pub networks: Vec<Network>,
    /// Ports in host mode; `None` in the other modes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_definitions: Option<Vec<PortDefinition>>,
    /// Whether the ports of `port_definitions` must be taken on the node as they are.
    pub require_ports: bool,
    /// Role whose resources it uses.
    pub role: String,
    /// From SIGTERM to SIGKILL in seconds.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "number_option"
    )]
    pub task_kill_grace_period_seconds: Option<f64>,
    /// Whether each instance has a terminal, to be attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
    /// What to do about instances on lost nodes.
    pub unreachable_strategy: UnreachableStrategy,
    /// Capacity during an upgrade.
    pub upgrade_strategy: UpgradeStrategy,
    /// User name or `uid[:gid]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// An entry of `fetch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fetch {
    /// May come from the node's cache.
    #[serde(default)]
    pub cache: bool,
    /// Its path in the sandbox; the last part of the URI if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest_path: Option<String>,
    /// To be run: never extracted.
    #[serde(default)]
    pub executable: bool,
    /// Extracted if its name says that it is an archive.
    #[serde(default = "yes")]
    pub extract: bool,
    /// SHA-256 of what is downloaded; Marathon has no such thing, so it is printed only if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// From where.
    pub uri: String,
}

fn yes() -> bool {
    true
}

/// Which instances are killed first on scale-down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KillSelection {
    /// The one started last.
    YoungestFirst,
    /// The one started first.
    OldestFirst,
}

/// Capacity to hold during an upgrade, as parts of `instances`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStrategy {
    /// 0–1: never fewer healthy instances than this part (rounded up).
    #[serde(with = "number")]
    pub minimum_health_capacity: f64,
    /// 0–1: never more additional instances than this part (rounded down).
    #[serde(with = "number")]
    pub maximum_over_capacity: f64,
}

/// What to do about instances on lost nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UnreachableStrategy {
    /// `"disabled"`: wait for ever.
    Disabled(Disabled),
    /// Replace, then forget.
    Timed(UnreachableTimes),
}

/// The word `disabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disabled {
    /// The word.
    Disabled,
}

/// Times of [`UnreachableStrategy`], in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnreachableTimes {
    /// After this a replacement is started.
    pub inactive_after_seconds: u64,
    /// After this the instance is forgotten.
    pub expunge_after_seconds: u64,
}

/// How an app reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The node's own network.
    #[serde(rename = "host")]
    Host,
    /// The node's bridge.
    #[serde(rename = "container/bridge")]
    Bridge,
}

/// An entry of `networks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Mode.
    pub mode: NetworkMode,
}

/// `container.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ContainerType {
    /// Docker semantics: arguments are appended to the image's entrypoint.
    Docker,
    /// Mesos semantics; the image is optional.
    Mesos,
}

/// `container`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Kind.
    #[serde(rename = "type")]
    pub kind: ContainerType,
    /// Image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Docker>,
    /// Ports; `None` in host mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_mappings: Option<Vec<PortMapping>>,
    /// Host directories.
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

/// `container.docker`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Docker {
    /// Ask the registry even if the image is on the node.
    #[serde(default)]
    pub force_pull_image: bool,
    /// Image reference.
    pub image: String,
}

/// A port mapped into the container's own network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Port inside; 0: the same as the host port.
    #[serde(default)]
    pub container_port: u16,
    /// Port on the node; 0: any. Bridge mode always has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `tcp`, `udp` or `udp,tcp`.
    pub protocol: String,
    /// Port under which load balancers serve it.
    #[serde(default)]
    pub service_port: u16,
}

/// A port of an app in host mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDefinition {
    /// Service port, and the host port too when `requirePorts`.
    #[serde(default)]
    pub port: u16,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `tcp`, `udp` or `udp,tcp`.
    pub protocol: String,
}

/// Access mode of a [`Volume`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VolumeMode {
    /// Read only.
    Ro,
    /// Read and write.
    Rw,
}

/// A host path seen in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Path inside.
    pub container_path: String,
    /// Path on the node.
    pub host_path: String,
    /// Access.
    pub mode: VolumeMode,
}

impl App {
    /// Whether it runs on the node's own network.
    #[must_use]
    pub fn is_host_mode(&self) -> bool {
        self.networks.iter().any(|n| n.mode == NetworkMode::Host)
    }

    /// The image reference, if it runs from an image.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        let docker = self.container.as_ref()?.docker.as_ref()?;
        Some(docker.image.as_str())
    }

    /// Port mappings; none in host mode.
    #[must_use]
    pub fn port_mappings(&self) -> &[PortMapping] {
        let mappings = self
            .container
            .as_ref()
            .and_then(|c| c.port_mappings.as_deref());
        mappings.unwrap_or_default()
    }

    /// Service ports in the order of the definition.
    #[must_use]
    pub fn service_ports(&self) -> Vec<u16> {
        match &self.port_definitions {
            Some(ports) => ports.iter().map(|p| p.port).collect(),
            None => self
                .port_mappings()
                .iter()
                .map(|p| p.service_port)
                .collect(),
        }
    }
}

/// Whole numbers are printed without a fraction, as Marathon does.
mod number {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, out: S) -> Result<S::Ok, S::Error> {
        // 2^53: below it every whole f64 is that integer exactly.
        if value.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(value) {
            out.serialize_u64(*value as u64)
        } else {
            out.serialize_f64(*value)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
        f64::deserialize(input)
    }
}

mod number_option {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::number::serialize(value, out),
            None => out.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<f64>, D::Error> {
        Option::deserialize(input)
    }
}

mod cpus {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::units::MilliCpu;

    pub(super) fn serialize<S: Serializer>(value: &MilliCpu, out: S) -> Result<S::Ok, S::Error> {
        super::number::serialize(&value.cpus(), out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<MilliCpu, D::Error> {
        let cpus = f64::deserialize(input)?;
        MilliCpu::from_cpus(cpus).ok_or_else(|| D::Error::custom("cpus out of bounds"))
    }
}

mod mib {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::units::Bytes;

    pub(super) fn serialize<S: Serializer>(value: &Bytes, out: S) -> Result<S::Ok, S::Error> {
        super::number::serialize(&value.mib(), out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Bytes, D::Error> {
        let mib = f64::deserialize(input)?;
        Bytes::from_mib(mib).ok_or_else(|| D::Error::custom("amount out of bounds"))
    }
}
