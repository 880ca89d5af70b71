//! The replicated state: what every member of the coordinator knows and must not lose.
//!
//! It is cut into sub-states that hold their own invariants: agents and what is taken of them,
//! apps and their versions, tasks and their indexes, deployments, launch delays. All maps are
//! persistent (`imbl`), so a clone is cheap and serves as the read snapshot of the APIs.
//!
//! It deliberately decides nothing: `apply` changes it, `service` and `alloc` read it.
//! Invariants: no agent is oversubscribed by what its live tasks hold; no host port of an agent is
//! held twice; a task id or instance id occurs once; every index agrees with its map.

pub mod agents;
pub mod apps;
pub mod backoff;
pub mod deployments;
pub mod tasks;

mod codec;
mod snapshot;

use gantry_wire::ids::{AgentId, AppId, DeploymentId, FrameworkId, TaskId};
use gantry_wire::marathon::App;
use gantry_wire::time::Millis;

pub use agents::{Agent, Agents, Amounts, Drain, Usage};
pub use apps::{AppRecord, Apps};
pub use backoff::{Backoffs, Delay};
pub use deployments::{Deployment, Deployments, Step, StepAction, StepKind};
pub use snapshot::SnapshotError;
pub use tasks::{Failure, Killing, Task, Tasks};

/// Most apps of a cluster.
pub const APPS_MAX: usize = 100_000;
/// Most agents of a cluster.
pub const AGENTS_MAX: usize = 100_000;
/// Most running deployments (Marathon's default of `max_running_deployments`).
pub const DEPLOYMENTS_MAX: usize = 100;

/// Who this cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// A uuid.
    pub id: String,
    /// When it was initialised.
    pub created_at: Millis,
    /// Framework id of the service scheduler: `<id>-marathon`.
    pub framework_id: FrameworkId,
}

/// The replicated state. Clone is cheap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Index of the last applied command.
    pub(crate) applied_index: u64,
    /// Time of the last applied command; never runs backwards.
    pub(crate) now: Millis,
    /// Last version given to an app definition; versions are unique in the cluster.
    pub(crate) last_version: Millis,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) agents: Agents,
    pub(crate) apps: Apps,
    pub(crate) tasks: Tasks,
    pub(crate) deployments: Deployments,
    pub(crate) backoffs: Backoffs,
}

impl State {
    /// Index of the last applied command.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// Time of the last applied command.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.now
    }

    /// `None` until `InitCluster` is applied.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Agents, and what is taken of each.
    #[must_use]
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// One agent.
    #[must_use]
    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.get(id)
    }

    /// Whether an agent that drains has no live task any more.
    #[must_use]
    pub fn is_drained(&self, id: &AgentId) -> bool {
        let drains = self
            .agents
            .get(id)
            .is_some_and(|agent| agent.drain.is_some());
        drains && self.tasks.of_agent(id).next().is_none()
    }

    /// Apps with their versions.
    #[must_use]
    pub fn apps(&self) -> &Apps {
        &self.apps
    }

    /// One app.
    #[must_use]
    pub fn app(&self, id: &AppId) -> Option<&AppRecord> {
        self.apps.get(id)
    }

    /// The definition of an app at a version, while it is kept.
    #[must_use]
    pub fn app_version(&self, id: &AppId, version: Millis) -> Option<&App> {
        self.apps.get(id)?.at(version)
    }

    /// Live and completed tasks.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// A task, live or completed.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// Running deployments.
    #[must_use]
    pub fn deployments(&self) -> &Deployments {
        &self.deployments
    }

    /// One running deployment.
    #[must_use]
    pub fn deployment(&self, id: &DeploymentId) -> Option<&Deployment> {
        self.deployments.get(id)
    }

    /// Launch delays.
    #[must_use]
    pub fn backoffs(&self) -> &Backoffs {
        &self.backoffs
    }
}
