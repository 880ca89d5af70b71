//! Agents as a snapshot holds them.

use std::collections::BTreeMap;

use gantry_wire::agent::{Inventory, ResourcesMessage};
use gantry_wire::resources::Resources;
use gantry_wire::time::Millis;
use prost::Message;

use super::super::snapshot::SnapshotError;
use super::super::{Agent, Drain};
use super::{id, parse_id};

#[derive(Clone, PartialEq, Message)]
pub(in crate::state) struct AgentMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(string, tag = "3")]
    http_address: String,
    #[prost(message, optional, tag = "4")]
    resources: Option<ResourcesMessage>,
    #[prost(btree_map = "string, string", tag = "5")]
    attributes: BTreeMap<String, String>,
    #[prost(string, tag = "6")]
    version: String,
    #[prost(string, repeated, tag = "7")]
    lacks: Vec<String>,
    #[prost(bool, tag = "8")]
    active: bool,
    #[prost(uint64, tag = "9")]
    registered_ms: u64,
    #[prost(uint64, tag = "10")]
    reregistered_ms: u64,
    #[prost(uint64, optional, tag = "11")]
    disconnected_ms: Option<u64>,
    #[prost(message, optional, tag = "12")]
    inventory: Option<Inventory>,
    #[prost(bool, tag = "13")]
    deactivated: bool,
    #[prost(message, optional, tag = "14")]
    drain: Option<DrainMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct DrainMessage {
    #[prost(uint64, optional, tag = "1")]
    max_grace_ms: Option<u64>,
    #[prost(bool, tag = "2")]
    mark_gone: bool,
    #[prost(uint64, tag = "3")]
    since_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::state) struct GoneMessage {
    #[prost(string, tag = "1")]
    pub(in crate::state) id: String,
    #[prost(uint64, tag = "2")]
    pub(in crate::state) since_ms: u64,
}

impl From<&Agent> for AgentMessage {
    fn from(a: &Agent) -> Self {
        Self {
            id: a.id.to_string(),
            hostname: a.hostname.clone(),
            http_address: a.http_address.clone(),
            resources: Some((&a.resources).into()),
            attributes: a.attributes.clone(),
            version: a.version.clone(),
            lacks: a.lacks.clone(),
            active: a.active,
            registered_ms: a.registered_at.0,
            reregistered_ms: a.reregistered_at.0,
            disconnected_ms: a.disconnected_at.map(|m| m.0),
            inventory: Some(a.inventory.clone()),
            deactivated: a.deactivated,
            drain: a.drain.as_ref().map(|d| DrainMessage {
                max_grace_ms: d.max_grace_ms,
                mark_gone: d.mark_gone,
                since_ms: d.since.0,
            }),
        }
    }
}

impl TryFrom<AgentMessage> for Agent {
    type Error = SnapshotError;
    fn try_from(m: AgentMessage) -> Result<Self, SnapshotError> {
        Ok(Self {
            id: parse_id!(AgentId, &m.id)?,
            hostname: m.hostname,
            http_address: m.http_address,
            resources: m
                .resources
                .as_ref()
                .map(Resources::from)
                .unwrap_or_default(),
            attributes: m.attributes,
            version: m.version,
            lacks: m.lacks,
            active: m.active,
            registered_at: Millis(m.registered_ms),
            reregistered_at: Millis(m.reregistered_ms),
            disconnected_at: m.disconnected_ms.map(Millis),
            inventory: m.inventory.unwrap_or_default(),
            deactivated: m.deactivated,
            drain: m.drain.map(|d| Drain {
                max_grace_ms: d.max_grace_ms,
                mark_gone: d.mark_gone,
                since: Millis(d.since_ms),
            }),
        })
    }
}
