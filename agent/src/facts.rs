//! What does not change while the agent runs, and the id that comes with the first registration;
//! shared by the loop, the HTTP side and the handle; and the counters, for the same reason. Decides nothing.

use std::net::SocketAddr;
use std::sync::OnceLock;

use gantry_wire::agent::Inventory;
use gantry_wire::ids::AgentId;
use gantry_wire::mesos::v1::AgentInfo;
use gantry_wire::resources::Resources;
use gantry_wire::time::Millis;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Counter, Metrics};

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) hostname: String,
    pub(crate) http_address: SocketAddr,
    pub(crate) resources: Resources,
    pub(crate) inventory: Inventory,
    pub(crate) lacks: Vec<String>,
    pub(crate) version: &'static str,
    pub(crate) started: Millis,
    /// Ends when an operator has marked the node as gone.
    pub(crate) gone: CancellationToken,
    /// What is counted: the one thing here that changes.
    pub(crate) metrics: Metrics,
    agent_id: OnceLock<String>,
}

impl Facts {
    pub(crate) fn new(
        hostname: String,
        http_address: SocketAddr,
        (resources, inventory): (Resources, Inventory),
        lacks: Vec<String>,
        started: Millis,
    ) -> Self {
        let (version, agent_id) = (env!("CARGO_PKG_VERSION"), OnceLock::new());
        Self {
            hostname,
            http_address,
            resources,
            inventory,
            lacks,
            version,
            started,
            gone: CancellationToken::new(),
            metrics: Metrics::new(),
            agent_id,
        }
    }

    pub(crate) fn agent_id(&self) -> Option<&str> {
        self.agent_id.get().map(String::as_str)
    }

    /// As Mesos tells executors and operators.
    pub(crate) fn agent_info(&self, id: Option<&AgentId>) -> AgentInfo {
        AgentInfo {
            hostname: self.hostname.clone(),
            port: Some(i32::from(self.http_address.port())),
            resources: self.inventory.all(&self.resources),
            attributes: self.inventory.attributes.clone(),
            id: id.map(Into::into),
            domain: self.inventory.domain(),
        }
    }

    pub(crate) fn count(&self, counter: Counter, times: usize) {
        self.metrics.add(counter, times as u64);
    }

    /// The first one stays until the next start.
    pub(crate) fn set_agent_id(&self, id: &str) {
        if self.agent_id.get_or_init(|| id.to_owned()) != id {
            tracing::warn!("the coordinator gave this agent another id: {id}");
        }
    }
}
