//! States of a task and the reasons behind them, by the names and numbers of Mesos v1.

use serde::{Deserialize, Serialize};

/// `TaskState` of `mesos.proto` (v1). Stored and sent by number.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    prost::Enumeration,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(i32)]
pub enum TaskState {
    /// Accepted, not yet started.
    TaskStaging = 6,
    /// Its container is being made.
    TaskStarting = 0,
    /// Its process runs.
    TaskRunning = 1,
    /// A kill was asked for and is under way.
    TaskKilling = 8,
    /// Ended with exit status 0.
    TaskFinished = 2,
    /// Ended otherwise.
    TaskFailed = 3,
    /// Ended because a kill was asked for.
    TaskKilled = 4,
    /// Its definition cannot be run.
    TaskError = 7,
    /// Not known where it went (for frameworks without PARTITION_AWARE).
    TaskLost = 5,
    /// Never launched.
    TaskDropped = 9,
    /// Its node does not answer.
    TaskUnreachable = 10,
    /// Its node is there and does not know it.
    TaskGone = 11,
    /// An operator said that its node is gone.
    TaskGoneByOperator = 12,
    /// The coordinator does not know it.
    TaskUnknown = 13,
}

impl TaskState {
    /// Whether nothing follows this state.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(
            self,
            Self::TaskStaging
                | Self::TaskStarting
                | Self::TaskRunning
                | Self::TaskKilling
                | Self::TaskUnreachable
        )
    }

    /// What a framework is told instead if it has not said that it is PARTITION_AWARE: of what it
    /// cannot know, it hears that the task is lost (`src/master/master.cpp`). A task that was told to
    /// be lost may come back to a state that it knows.
    #[must_use]
    pub fn for_framework(self, partition_aware: bool) -> Self {
        let newer = matches!(
            self,
            Self::TaskDropped
                | Self::TaskUnreachable
                | Self::TaskGone
                | Self::TaskGoneByOperator
                | Self::TaskUnknown
        );
        if newer && !partition_aware {
            Self::TaskLost
        } else {
            self
        }
    }

    /// The name in the APIs, such as `TASK_RUNNING`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TaskStaging => "TASK_STAGING",
            Self::TaskStarting => "TASK_STARTING",
            Self::TaskRunning => "TASK_RUNNING",
            Self::TaskKilling => "TASK_KILLING",
            Self::TaskFinished => "TASK_FINISHED",
            Self::TaskFailed => "TASK_FAILED",
            Self::TaskKilled => "TASK_KILLED",
            Self::TaskError => "TASK_ERROR",
            Self::TaskLost => "TASK_LOST",
            Self::TaskDropped => "TASK_DROPPED",
            Self::TaskUnreachable => "TASK_UNREACHABLE",
            Self::TaskGone => "TASK_GONE",
            Self::TaskGoneByOperator => "TASK_GONE_BY_OPERATOR",
            Self::TaskUnknown => "TASK_UNKNOWN",
        }
    }
}

/// `TaskStatus.Reason` of `mesos.proto` (v1): those that are used so far.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    prost::Enumeration,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(i32)]
pub enum Reason {
    /// The command ended with a status other than 0, or could not be executed.
    ReasonCommandExecutorFailed = 0,
    /// Over its memory limit: killed by the kernel.
    ReasonContainerLimitationMemory = 8,
    /// The agent was restarted and could not take the task up again.
    ReasonAgentRestarted = 12,
    /// The definition is not valid on this node.
    ReasonTaskInvalid = 14,
    /// Over its disk limit: killed by the agent.
    ReasonContainerLimitationDisk = 20,
    /// Image, root, network or process could not be made.
    ReasonContainerLaunchFailed = 21,
    /// What a check found changed.
    ReasonTaskCheckStatusUpdated = 28,
    /// A check of health succeeded for the first time, or failed.
    ReasonTaskHealthCheckStatusUpdated = 29,
    /// Killed before it was launched.
    ReasonTaskKilledDuringLaunch = 30,
    /// Stated in answer to a question about what is known.
    ReasonReconciliation = 9,
    /// The agent is gone for good.
    ReasonAgentRemoved = 11,
    /// The executor that it ran below ended, or was ending when it arrived.
    ReasonExecutorTerminated = 1,
    /// A task group cannot be run as it is.
    ReasonTaskGroupInvalid = 25,
    /// It took longer than it may.
    ReasonMaxCompletionTimeReached = 33,
    /// The container could not be given what the task needs besides.
    ReasonContainerUpdateFailed = 22,
    /// Its executor was started and never said so.
    ReasonExecutorRegistrationTimeout = 23,
    /// Its executor did not come back to an agent that was restarted.
    ReasonExecutorReregistrationTimeout = 24,
    /// An operator takes its node out.
    ReasonAgentDraining = 34,
}

impl Reason {
    /// The name in the APIs, such as `REASON_CONTAINER_LAUNCH_FAILED`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReasonCommandExecutorFailed => "REASON_COMMAND_EXECUTOR_FAILED",
            Self::ReasonContainerLimitationMemory => "REASON_CONTAINER_LIMITATION_MEMORY",
            Self::ReasonContainerLimitationDisk => "REASON_CONTAINER_LIMITATION_DISK",
            Self::ReasonAgentRestarted => "REASON_AGENT_RESTARTED",
            Self::ReasonTaskCheckStatusUpdated => "REASON_TASK_CHECK_STATUS_UPDATED",
            Self::ReasonTaskHealthCheckStatusUpdated => "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED",
            Self::ReasonAgentDraining => "REASON_AGENT_DRAINING",
            Self::ReasonTaskInvalid => "REASON_TASK_INVALID",
            Self::ReasonContainerLaunchFailed => "REASON_CONTAINER_LAUNCH_FAILED",
            Self::ReasonTaskKilledDuringLaunch => "REASON_TASK_KILLED_DURING_LAUNCH",
            Self::ReasonReconciliation => "REASON_RECONCILIATION",
            Self::ReasonAgentRemoved => "REASON_AGENT_REMOVED",
            Self::ReasonExecutorTerminated => "REASON_EXECUTOR_TERMINATED",
            Self::ReasonTaskGroupInvalid => "REASON_TASK_GROUP_INVALID",
            Self::ReasonMaxCompletionTimeReached => "REASON_MAX_COMPLETION_TIME_REACHED",
            Self::ReasonContainerUpdateFailed => "REASON_CONTAINER_UPDATE_FAILED",
            Self::ReasonExecutorRegistrationTimeout => "REASON_EXECUTOR_REGISTRATION_TIMEOUT",
            Self::ReasonExecutorReregistrationTimeout => "REASON_EXECUTOR_REREGISTRATION_TIMEOUT",
        }
    }
}
