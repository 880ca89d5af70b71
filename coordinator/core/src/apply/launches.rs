//! Launch decisions, checked again: the app may have changed, the agent may be gone, the room may
//! be taken. Each task of a batch stands for itself.

use gantry_wire::ids::{AgentId, AppId, InstanceId, TaskId};
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;

use super::Apply;
use crate::command::{Launch, LaunchTask};
use crate::outcome::{LaunchRefusal, Outcome};
use crate::service::needs;
use crate::service::rolling::{self, Situation};
use crate::state::Task;

impl Apply<'_> {
    pub(super) fn launch(&mut self, c: &Launch) -> Outcome {
        let mut results = Vec::with_capacity(c.tasks.len());
        for item in &c.tasks {
            let Ok(id) = TaskId::parse(item.task_id.as_str()) else {
                continue;
            };
            results.push(match self.launch_one(&id, item) {
                Ok(()) => Ok(id),
                Err(refusal) => Err((id, refusal)),
            });
        }
        Outcome::Launched(results)
    }

    fn launch_one(&mut self, id: &TaskId, item: &LaunchTask) -> Result<(), LaunchRefusal> {
        let bad = |_| LaunchRefusal::Malformed;
        let instance_id = InstanceId::parse(item.instance_id.as_str()).map_err(bad)?;
        let app_id = AppId::parse(&item.app_id).map_err(bad)?;
        let agent_id = AgentId::parse(item.agent_id.as_str()).map_err(bad)?;
        let ports: Result<Vec<u16>, _> =
            item.host_ports.iter().map(|p| u16::try_from(*p)).collect();
        let host_ports = ports.map_err(|_| LaunchRefusal::Malformed)?;
        if !self.state.tasks.is_new(id, &instance_id) {
            return Err(LaunchRefusal::Duplicate);
        }
        let record = self
            .state
            .apps
            .get(&app_id)
            .ok_or(LaunchRefusal::NotWanted)?;
        if record.version != Millis(item.app_version_ms) || self.state.cluster.is_none() {
            return Err(LaunchRefusal::NotWanted);
        }
        let situation = Situation::of(self.state, record);
        if rolling::decide(&situation).launch == 0 {
            return Err(LaunchRefusal::Enough);
        }
        let agent = self.state.agents.get(&agent_id).filter(|a| a.takes_tasks());
        let host = agent.ok_or(LaunchRefusal::AgentInactive)?.hostname.clone();
        let amounts = needs::amounts(&record.spec);
        if !needs::ports_match(&record.spec, &host_ports) {
            return Err(LaunchRefusal::Malformed);
        }
        if !self.state.agents.has_room(&agent_id, &amounts, &host_ports) {
            return Err(LaunchRefusal::Resources);
        }
        let (app_version, config_version) = (record.version, record.config_version);
        let kill_grace_ms = needs::kill_grace_ms(&record.spec);
        let now = self.state.now;
        self.state.agents.take(&agent_id, &amounts, &host_ports);
        self.state.backoffs.advanced(&app_id, config_version, now);
        self.touch_task(id, &app_id, &agent_id);
        self.state.tasks.insert_live(Task {
            id: id.clone(),
            instance_id,
            app_id,
            agent_id,
            host,
            app_version,
            config_version,
            amounts,
            host_ports,
            kill_grace_ms,
            state: TaskState::TaskStaging,
            staged_at: now,
            started_at: None,
            changed_at: now,
            killing: None,
            history: vec![(TaskState::TaskStaging, now)],
            reason: None,
            message: String::new(),
            container_id: String::new(),
            ip_address: String::new(),
            pid: 0,
            exit_code: None,
            sandbox: String::new(),
        });
        Ok(())
    }
}
