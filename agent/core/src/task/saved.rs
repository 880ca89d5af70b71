//! A task as it is saved, and from there back.

use super::{Phase, Task};
use crate::checkpoint::{Checkpoint, Stage};
use crate::checks::Checks;
use crate::killing::Killing;
use crate::unit::ExecutorKey;
use crate::updates::Updates;

impl Task {
    /// As it was saved, below `executor` if it has none of its own. A restored task waits for the
    /// keeper's listing.
    pub(crate) fn restore(saved: Checkpoint, executor: Option<ExecutorKey>) -> Self {
        Self {
            id: saved.task,
            launch: saved.launch,
            executor: executor.map(Box::new),
            container: saved.container,
            sandbox: saved.sandbox,
            phase: match saved.stage {
                Stage::Accepted => Phase::Accepted,
                Stage::Starting => Phase::Starting,
                Stage::Running => Phase::Running,
                Stage::Ended => Phase::Ended,
            },
            state: saved.state,
            ip: saved.ip,
            gpus: saved.gpus,
            pid: saved.pid,
            keeper: saved.keeper,
            started: saved.started,
            overtime_ms: None,
            killing: Killing::restore(saved.kill_grace_ms, saved.verdict),
            checks: Checks::restore(saved.passed),
            unhealthy: None,
            culprit: saved.culprit.map(Box::new),
            updates: Updates::restore(saved.pending),
            process: None,
        }
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            task: self.id.clone(),
            launch: self.launch.clone(),
            container: self.container.clone(),
            sandbox: self.sandbox.clone(),
            stage: match self.phase {
                Phase::Accepted | Phase::Pulling | Phase::Attaching | Phase::Ready => {
                    Stage::Accepted
                }
                Phase::Starting => Stage::Starting,
                Phase::Running => Stage::Running,
                Phase::Ended => Stage::Ended,
            },
            state: self.state,
            ip: self.ip.clone(),
            gpus: self.gpus.clone(),
            pid: self.pid,
            keeper: self.keeper,
            started: self.started,
            kill_grace_ms: self.killing.grace_ms(),
            verdict: self.killing.verdict(),
            culprit: self.culprit.as_deref().cloned(),
            passed: self.checks.passed(),
            pending: self.updates.pending().cloned().collect(),
        }
    }
}
