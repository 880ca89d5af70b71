//! Commands: what the replicated log holds. A command carries everything that its application
//! needs and that is not in the state: the time, minted ids, decisions of the leader's schedulers.
//!
//! It decides nothing. Invariants: field numbers are never reused; an entry written by a newer
//! version is an explicit error ([`CommandError::Newer`]), never skipped, because skipping it would
//! make members differ.

use std::collections::BTreeMap;

use gantry_wire::agent::{Inventory, ResourcesMessage, StatusUpdate};
use gantry_wire::time::Millis;
use prost::Message;

/// Version of the commands that this binary writes; it reads all versions up to it.
pub const COMMAND_VERSION: u32 = 1;

/// Why bytes of the log are not a command for this binary.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not protobuf at all: a corrupt entry.
    #[error("the command cannot be read")]
    Malformed(#[source] prost::DecodeError),
    /// Written by a newer Gantry.
    #[error("the command has version {version}, this binary knows up to {COMMAND_VERSION}")]
    Newer {
        /// The version found.
        version: u32,
    },
    /// A version that we know with a kind that we do not.
    #[error("the command of version {version} has no kind that this binary knows")]
    UnknownKind {
        /// The version found.
        version: u32,
    },
}

/// One entry of the log.
#[derive(Clone, PartialEq, Message)]
pub struct Command {
    /// See [`COMMAND_VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The proposer's clock, milliseconds since the epoch. State time never runs backwards.
    #[prost(uint64, tag = "2")]
    pub now_ms: u64,
    /// What is asked.
    #[prost(
        oneof = "Kind",
        tags = "16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30"
    )]
    pub kind: Option<Kind>,
}

impl Command {
    /// A command of this binary's version.
    #[must_use]
    pub fn new(now: Millis, kind: Kind) -> Self {
        Self {
            version: COMMAND_VERSION,
            now_ms: now.0,
            kind: Some(kind),
        }
    }

    /// Bytes for the log.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// From the log. Errors: see [`CommandError`]; all of them must stop the node.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CommandError> {
        let command = Self::decode(bytes).map_err(CommandError::Malformed)?;
        if command.version > COMMAND_VERSION {
            return Err(CommandError::Newer {
                version: command.version,
            });
        }
        if command.kind.is_none() {
            return Err(CommandError::UnknownKind {
                version: command.version,
            });
        }
        Ok(command)
    }
}

/// Kinds of [`Command`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// First command of a cluster.
    #[prost(message, tag = "16")]
    InitCluster(InitCluster),
    /// An agent opened a session.
    #[prost(message, tag = "17")]
    RegisterAgent(RegisterAgent),
    /// An agent's session ended.
    #[prost(message, tag = "18")]
    DisconnectAgent(DisconnectAgent),
    /// Create or change apps, in one transaction.
    #[prost(message, tag = "19")]
    PutApps(PutApps),
    /// Remove an app and stop its instances.
    #[prost(message, tag = "20")]
    DeleteApp(ChangeApp),
    /// Replace all instances of an app by new ones.
    #[prost(message, tag = "21")]
    RestartApp(ChangeApp),
    /// End tasks that a client named.
    #[prost(message, tag = "22")]
    KillTasks(KillTasks),
    /// Launch decisions of one tick.
    #[prost(message, tag = "23")]
    Launch(Launch),
    /// What agents reported.
    #[prost(message, tag = "24")]
    TaskStatuses(TaskStatuses),
    /// Kill decisions of the scheduler.
    #[prost(message, tag = "25")]
    Kill(Kill),
    /// A deployment has reached what it wanted.
    #[prost(message, tag = "26")]
    FinishDeployment(FinishDeployment),
    /// Cancel or revert a deployment.
    #[prost(message, tag = "27")]
    CancelDeployment(CancelDeployment),
    /// Forget the launch delay of an app.
    #[prost(message, tag = "28")]
    ResetDelay(ResetDelay),
    /// Take a node out for good: its tasks are gone.
    #[prost(message, tag = "29")]
    RemoveAgent(DisconnectAgent),
    /// An operator takes a node out, or back in.
    #[prost(message, tag = "30")]
    OperateAgent(OperateAgent),
}

/// First command of a cluster; a second one is rejected.
#[derive(Clone, PartialEq, Message)]
pub struct InitCluster {
    /// A uuid, minted by the shell.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
}

/// An agent opened a session: it is known from now on, and active.
#[derive(Clone, PartialEq, Message)]
pub struct RegisterAgent {
    /// Its id: its own, or one minted by the shell on the very first registration.
    #[prost(string, tag = "1")]
    pub agent_id: String,
    /// Name or address under which its tasks are reached.
    #[prost(string, tag = "2")]
    pub hostname: String,
    /// `host:port` of its HTTP listener.
    #[prost(string, tag = "3")]
    pub http_address: String,
    /// What tasks may use.
    #[prost(message, optional, tag = "4")]
    pub resources: Option<ResourcesMessage>,
    /// Attributes.
    #[prost(btree_map = "string, string", tag = "5")]
    pub attributes: BTreeMap<String, String>,
    /// Version of its binary.
    #[prost(string, tag = "6")]
    pub version: String,
    /// What the node cannot do.
    #[prost(string, repeated, tag = "7")]
    pub lacks: Vec<String>,
    /// What it has beside `resources`.
    #[prost(message, optional, boxed, tag = "8")]
    pub inventory: Option<Box<Inventory>>,
}

impl RegisterAgent {
    /// From the agent's own message, with the id it has or was given.
    #[must_use]
    pub fn from_register(agent_id: &str, register: &gantry_wire::agent::Register) -> Self {
        Self {
            agent_id: agent_id.to_owned(),
            hostname: register.hostname.clone(),
            http_address: register.http_address.clone(),
            resources: register.resources.clone(),
            attributes: register.attributes.clone(),
            version: register.version.clone(),
            lacks: register.lacks.clone(),
            inventory: register.inventory.clone().map(Box::new),
        }
    }
}

/// An agent's session ended (its tasks stay as they are), or the agent is removed.
#[derive(Clone, PartialEq, Message)]
pub struct DisconnectAgent {
    /// Which agent.
    #[prost(string, tag = "1")]
    pub agent_id: String,
}

/// What an operator does with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Operation {
    /// No new tasks; those that are there stay.
    Deactivate = 0,
    /// No new tasks, and those that are there end.
    Drain = 1,
    /// New tasks again. Refused while it drains.
    Reactivate = 2,
}

/// An operator takes a node out, or back in.
#[derive(Clone, PartialEq, Message)]
pub struct OperateAgent {
    /// Which agent.
    #[prost(string, tag = "1")]
    pub agent_id: String,
    /// A number of [`Operation`].
    #[prost(enumeration = "Operation", tag = "2")]
    pub operation: i32,
    /// Of a drain: longest time from SIGTERM to SIGKILL, in milliseconds.
    #[prost(uint64, optional, tag = "3")]
    pub max_grace_ms: Option<u64>,
    /// Of a drain: the node is gone for good once it is drained.
    #[prost(bool, tag = "4")]
    pub mark_gone: bool,
}

/// What must be true of an app when its change is applied: the client's request was checked and
/// merged against an older state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Expect {
    /// Anything.
    Any = 0,
    /// The app does not exist (POST), else `AppExists`.
    Absent = 1,
    /// The app has exactly `expected_version_ms`, else `Stale`: the shell builds the request again.
    Version = 2,
}

/// A new or changed app.
#[derive(Clone, PartialEq, Message)]
pub struct AppUpsert {
    /// The normalised definition: JSON of [`gantry_wire::marathon::App`]. Service ports of 0 are
    /// assigned when it is applied.
    #[prost(bytes = "vec", tag = "1")]
    pub definition: Vec<u8>,
    /// Condition.
    #[prost(enumeration = "Expect", tag = "2")]
    pub expect: i32,
    /// For [`Expect::Version`].
    #[prost(uint64, tag = "3")]
    pub expected_version_ms: u64,
}

/// Create or change apps, in one transaction: all or none.
#[derive(Clone, PartialEq, Message)]
pub struct PutApps {
    /// The apps.
    #[prost(message, repeated, tag = "1")]
    pub apps: Vec<AppUpsert>,
    /// Whether running deployments of the same apps are cancelled instead of answering `AppLocked`.
    #[prost(bool, tag = "2")]
    pub force: bool,
    /// Id of the new deployment.
    #[prost(string, tag = "3")]
    pub deployment_id: String,
}

/// Delete or restart one app.
#[derive(Clone, PartialEq, Message)]
pub struct ChangeApp {
    /// Which app.
    #[prost(string, tag = "1")]
    pub app_id: String,
    /// As in [`PutApps`].
    #[prost(bool, tag = "2")]
    pub force: bool,
    /// Id of the new deployment.
    #[prost(string, tag = "3")]
    pub deployment_id: String,
}

/// End tasks that a client named.
#[derive(Clone, PartialEq, Message)]
pub struct KillTasks {
    /// Which tasks; unknown ones are left out of the answer.
    #[prost(string, repeated, tag = "1")]
    pub task_ids: Vec<String>,
    /// Whether the apps shrink by as many instances (a deployment) instead of replacing them.
    #[prost(bool, tag = "2")]
    pub scale: bool,
    /// Whether persistent resources go too (none exist yet; kept for the log's sake).
    #[prost(bool, tag = "3")]
    pub wipe: bool,
    /// As in [`PutApps`]; used with `scale`.
    #[prost(bool, tag = "4")]
    pub force: bool,
    /// Id of the new deployment; used with `scale`.
    #[prost(string, tag = "5")]
    pub deployment_id: String,
}

/// Launch decisions of one tick.
#[derive(Clone, PartialEq, Message)]
pub struct Launch {
    /// The tasks.
    #[prost(message, repeated, tag = "1")]
    pub tasks: Vec<LaunchTask>,
}

/// One task to launch.
#[derive(Clone, PartialEq, Message)]
pub struct LaunchTask {
    /// Its id.
    #[prost(string, tag = "1")]
    pub task_id: String,
    /// The instance it executes.
    #[prost(string, tag = "2")]
    pub instance_id: String,
    /// The app.
    #[prost(string, tag = "3")]
    pub app_id: String,
    /// Version of the definition it was decided for; another current config version refuses it.
    #[prost(uint64, tag = "4")]
    pub app_version_ms: u64,
    /// Where.
    #[prost(string, tag = "5")]
    pub agent_id: String,
    /// Host port for each port of the definition that has one, in order.
    #[prost(uint32, repeated, tag = "6")]
    pub host_ports: Vec<u32>,
}

/// What agents reported.
#[derive(Clone, PartialEq, Message)]
pub struct TaskStatuses {
    /// The reports in the order they came.
    #[prost(message, repeated, tag = "1")]
    pub updates: Vec<AgentStatus>,
}

/// A status update and who sent it.
#[derive(Clone, PartialEq, Message)]
pub struct AgentStatus {
    /// The agent; an update of a task by another agent than its own is ignored.
    #[prost(string, tag = "1")]
    pub agent_id: String,
    /// The update. One made by the coordinator itself has an empty uuid.
    #[prost(message, optional, tag = "2")]
    pub status: Option<StatusUpdate>,
}

/// Kill decisions of the scheduler.
#[derive(Clone, PartialEq, Message)]
pub struct Kill {
    /// Which tasks.
    #[prost(string, repeated, tag = "1")]
    pub task_ids: Vec<String>,
    /// Why, shown to people.
    #[prost(enumeration = "KillReason", tag = "2")]
    pub reason: i32,
}

/// Why a task is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum KillReason {
    /// A client asked for it.
    Requested = 0,
    /// The app has more instances than wanted.
    ScaledDown = 1,
    /// A newer version of the app replaces it.
    Replaced = 2,
    /// Its app was deleted.
    AppDeleted = 3,
    /// It did not start in time.
    Overdue = 4,
}

/// A deployment has reached what it wanted.
#[derive(Clone, PartialEq, Message)]
pub struct FinishDeployment {
    /// Which.
    #[prost(string, tag = "1")]
    pub deployment_id: String,
}

/// Cancel or revert a deployment.
#[derive(Clone, PartialEq, Message)]
pub struct CancelDeployment {
    /// Which.
    #[prost(string, tag = "1")]
    pub deployment_id: String,
    /// `true`: forget it, keep its target. `false`: a new deployment back to what was before.
    #[prost(bool, tag = "2")]
    pub force: bool,
    /// Id of the new deployment when not forced.
    #[prost(string, tag = "3")]
    pub new_deployment_id: String,
}

/// Forget the launch delay of an app.
#[derive(Clone, PartialEq, Message)]
pub struct ResetDelay {
    /// Which app.
    #[prost(string, tag = "1")]
    pub app_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_a_newer_binary_are_an_error_and_never_skipped() {
        let reset = ResetDelay {
            app_id: "/a".to_owned(),
        };
        let mut command = Command::new(Millis(7), Kind::ResetDelay(reset));
        assert_eq!(Command::from_bytes(&command.to_bytes()).unwrap(), command);
        command.version += 1;
        let newer = Command::from_bytes(&command.to_bytes());
        assert!(matches!(newer, Err(CommandError::Newer { version: 2 })));
        // A kind that this binary does not know: field 200, an empty message.
        let mut bytes = Command {
            version: 1,
            now_ms: 7,
            kind: None,
        }
        .to_bytes();
        bytes.extend([0xc2, 0x0c, 0x00]);
        let unknown = Command::from_bytes(&bytes);
        assert!(matches!(
            unknown,
            Err(CommandError::UnknownKind { version: 1 })
        ));
        assert!(matches!(
            Command::from_bytes(&[0xff; 9]),
            Err(CommandError::Malformed(_))
        ));
    }
}
