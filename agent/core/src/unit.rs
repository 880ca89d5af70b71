//! What is saved as one: a task with an executor of its own, or an executor with all its tasks.
//! A group is all there after a crash or not at all, because its executor is one unit.

use std::fmt;

use gantry_wire::ids::{ExecutorId, FrameworkId, TaskId};

/// An executor of a framework.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ExecutorKey {
    /// The framework.
    pub framework: FrameworkId,
    /// Its id within the framework.
    pub executor: ExecutorId,
}

impl fmt::Display for ExecutorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.executor, self.framework)
    }
}

/// One file on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// A task that has an executor of its own.
    Task(TaskId),
    /// An executor and its tasks.
    Executor(ExecutorKey),
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(task) => write!(f, "task {task}"),
            Self::Executor(executor) => write!(f, "executor {executor}"),
        }
    }
}
