//! Applying a command: the only place that changes the replicated state.
//!
//! One file per kind of thing that commands change. It does not decide what to launch or to kill
//! (`service` does), but it checks every decision again, because the world may have changed since.
//! Invariants: total, deterministic; a rejected command changes nothing but index and clock.

mod agents;
mod apps;
mod deployments;
mod kills;
mod launches;
mod service_ports;
mod statuses;

use std::collections::BTreeSet;

use gantry_wire::ids::{AgentId, AppId, DeploymentId, TaskId};
use gantry_wire::time::Millis;

use crate::command::{Command, Kind};
use crate::outcome::{Applied, Change, Outcome, Rejection};
use crate::state::{Cluster, State};

/// The state and what changed of it so far.
struct Apply<'a> {
    state: &'a mut State,
    changes: BTreeSet<Change>,
}

/// Applies the log entry `index`. Total: it never panics, it answers `Outcome::Rejected`.
pub fn apply(state: &mut State, index: u64, command: &Command) -> Applied {
    state.applied_index = index;
    state.now = state.now.max(Millis(command.now_ms));
    let mut work = Apply {
        state,
        changes: BTreeSet::new(),
    };
    let outcome = match &command.kind {
        Some(kind) => work.dispatch(kind).unwrap_or_else(Outcome::Rejected),
        None => Outcome::Rejected(Rejection::Malformed("it has no kind".to_owned())),
    };
    Applied {
        outcome,
        changes: work.changes.into_iter().collect(),
    }
}

impl Apply<'_> {
    fn dispatch(&mut self, kind: &Kind) -> Result<Outcome, Rejection> {
        match kind {
            Kind::InitCluster(c) => self.init_cluster(&c.cluster_id),
            Kind::RegisterAgent(c) => self.register_agent(c),
            Kind::DisconnectAgent(c) => self.disconnect_agent(&c.agent_id),
            Kind::RemoveAgent(c) => self.remove_agent(&c.agent_id),
            Kind::OperateAgent(c) => self.operate_agent(c),
            Kind::PutApps(c) => self.put_apps(c),
            Kind::DeleteApp(c) => self.delete_app(c),
            Kind::RestartApp(c) => self.restart_app(c),
            Kind::KillTasks(c) => self.kill_tasks(c),
            Kind::Kill(c) => Ok(self.kill(c)),
            Kind::Launch(c) => Ok(self.launch(c)),
            Kind::TaskStatuses(c) => Ok(self.task_statuses(c)),
            Kind::FinishDeployment(c) => self.finish_deployment(&c.deployment_id),
            Kind::CancelDeployment(c) => self.cancel_deployment(c),
            Kind::ResetDelay(c) => self.reset_delay(&c.app_id),
        }
    }

    fn init_cluster(&mut self, id: &str) -> Result<Outcome, Rejection> {
        if self.state.cluster.is_some() {
            return Err(Rejection::AlreadyInitialised);
        }
        let framework = format!("{id}-marathon");
        let framework_id = gantry_wire::ids::FrameworkId::parse(framework).map_err(malformed)?;
        let created_at = self.state.now;
        self.state.cluster = Some(Cluster {
            id: id.to_owned(),
            created_at,
            framework_id,
        });
        Ok(Outcome::Done)
    }

    /// A version for changed definitions: the time, but later than every version before.
    fn next_version(&self) -> Millis {
        self.state.now.max(self.state.last_version.plus_ms(1))
    }

    fn touch_task(&mut self, task: &TaskId, app: &AppId, agent: &AgentId) {
        self.changes
            .insert(Change::Task(task.clone(), app.clone(), agent.clone()));
    }
}

fn malformed(error: impl std::fmt::Display) -> Rejection {
    Rejection::Malformed(error.to_string())
}

fn app_id(text: &str) -> Result<AppId, Rejection> {
    AppId::parse(text).map_err(malformed)
}

fn agent_id(text: &str) -> Result<AgentId, Rejection> {
    AgentId::parse(text).map_err(malformed)
}

fn deployment_id(text: &str) -> Result<DeploymentId, Rejection> {
    DeploymentId::parse(text).map_err(malformed)
}

#[cfg(test)]
mod tests;
