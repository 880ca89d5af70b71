//! What came of a command: the answer for its proposer, and what changed, for the leader's
//! schedulers and for event streams.
//!
//! It decides nothing. Invariant: equal states and equal commands give equal outcomes on every
//! member; a rejected command changes nothing but the state's clock.

use gantry_wire::ids::{AgentId, AppId, DeploymentId, TaskId};
use gantry_wire::time::Millis;

/// Result of applying one command.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// For whoever proposed it.
    pub outcome: Outcome,
    /// What changed, each thing once.
    pub changes: Vec<Change>,
}

/// A thing that changed, appeared or went away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// An agent: registered, connected, disconnected, removed.
    Agent(AgentId),
    /// An app: definition, or its launch delay.
    App(AppId),
    /// A task, with its app and agent.
    Task(TaskId, AppId, AgentId),
    /// A deployment.
    Deployment(DeploymentId),
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Done, nothing to tell.
    Done,
    /// Apps changed; a deployment runs (or is already over, when nothing was to do).
    Deploying {
        /// Its id.
        deployment_id: DeploymentId,
        /// Version of the changed definitions.
        version: Millis,
    },
    /// Answer to `Launch`: task by task, in the order of the command.
    Launched(Vec<Result<TaskId, (TaskId, LaunchRefusal)>>),
    /// Answer to `TaskStatuses`: every update of the command may now be acknowledged.
    Noted,
    /// Answer to `Kill` and to `KillTasks` without `scale`: the tasks that are being killed now.
    Killing(Vec<TaskId>),
    /// Nothing happened.
    Rejected(Rejection),
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// POST of an id that is taken.
    #[error("An app with id [{0}] already exists.")]
    AppExists(AppId),
    /// No such app.
    #[error("App '{0}' does not exist")]
    AppUnknown(AppId),
    /// Deployments of the same apps are running.
    #[error("App is locked by one or more deployments.")]
    AppLocked(Vec<DeploymentId>),
    /// No such task.
    #[error("Task '{0}' does not exist")]
    TaskUnknown(TaskId),
    /// No such agent.
    #[error("Agent '{0}' does not exist")]
    AgentUnknown(AgentId),
    /// An operator said that it is gone for good.
    #[error("Agent '{0}' is gone for good")]
    AgentGone(AgentId),
    /// It cannot be taken back in while its tasks end.
    #[error("Agent '{0}' is draining: it can be reactivated once it is drained")]
    AgentDraining(AgentId),
    /// No such deployment.
    #[error("DeploymentPlan {0} does not exist")]
    DeploymentUnknown(DeploymentId),
    /// The app changed since the request was merged with it: build the request again.
    #[error("App '{0}' was changed by another request at the same time")]
    Stale(AppId),
    /// The app waits for nothing.
    #[error("Application {0} not found in tasks queue.")]
    NotQueued(AppId),
    /// Over [`crate::state::DEPLOYMENTS_MAX`].
    #[error("Max number of concurrent deployments ({0}) reached. Try again later.")]
    TooManyDeployments(usize),
    /// Over [`crate::state::APPS_MAX`] or [`crate::state::AGENTS_MAX`].
    #[error("The cluster holds at most {0} of these.")]
    TooMany(usize),
    /// All service ports are taken.
    #[error("All service ports between {0} and {1} are taken.")]
    ServicePortsExhausted(u16, u16),
    /// The cluster already has an id.
    #[error("The cluster is already initialised")]
    AlreadyInitialised,
    /// The command itself is not right: a defect of its proposer, not of a client.
    #[error("The command is malformed: {0}")]
    Malformed(String),
}

/// Why one task of a `Launch` was not launched. Not an error: the world changed since the
/// decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LaunchRefusal {
    /// The command's item is malformed.
    #[error("malformed")]
    Malformed,
    /// The id was used before.
    #[error("task or instance id was used before")]
    Duplicate,
    /// App deleted or changed since.
    #[error("the app has another configuration now, or is gone")]
    NotWanted,
    /// As many instances as allowed are there.
    #[error("enough instances are there")]
    Enough,
    /// Agent unknown or without a session.
    #[error("the agent is not connected")]
    AgentInactive,
    /// Not enough of something, or a port is taken.
    #[error("the agent has not enough free resources")]
    Resources,
}
