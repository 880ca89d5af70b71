//! From a launch as it came over the wire to one that the core takes: ids checked and minted, places
//! on disk named. What cannot become a task is refused in words, a group of which one cannot is
//! refused whole.

use std::path::Path;

use gantry_agent_core::{Event as Change, ExecutorKey, GroupLaunch, Member};
use gantry_net::Attachment;
use gantry_wire::agent::{
    ExecutorInfo, Launch, LaunchGroup, NetworkMode, ShutdownExecutor, StatusUpdate,
};
use gantry_wire::ids::{AgentId, ContainerId, ExecutorId, FrameworkId, IdError, TaskId};
use gantry_wire::task::{Reason, TaskState};

use super::Daemon;
use crate::checkpoints::TASK_ID_MAX_BYTES;
use crate::container;
use crate::layout::nested_sandbox;
use crate::sandboxes;

impl Daemon {
    /// This agent, as long as it takes tasks.
    pub(super) fn taking(&self) -> Option<&AgentId> {
        self.identity.get().filter(|_| !self.stopping.is_asked())
    }

    pub(super) fn launch(&mut self, mut launch: Launch) {
        if self.drops(&[&launch.task_id]) {
            return;
        }
        let Some(agent) = self.taking() else {
            tracing::debug!(
                task = launch.task_id,
                "not launched: this agent is stopping"
            );
            return;
        };
        // It is its own executor.
        launch.executor_id.clear();
        let checked = task_id(&launch).and_then(|task| {
            let framework = FrameworkId::parse(launch.framework_id.clone());
            let executor = ExecutorId::parse(task.as_str());
            let container = mint_container();
            let all = (
                task,
                framework.map_err(|error| error.to_string())?,
                executor.map_err(|error| error.to_string())?,
            );
            Ok((all, container.map_err(|error| error.to_string())?))
        });
        let ((task, framework, executor), container) = match checked {
            Ok(ids) => ids,
            Err(why) => return self.refuse(&launch, Reason::ReasonTaskInvalid, why),
        };
        let sandbox = self
            .layout
            .sandbox(agent, &framework, &executor, &container);
        let sandbox = sandbox.to_string_lossy().into_owned();
        self.step(Change::Launch {
            task,
            launch: Box::new(launch),
            container,
            sandbox,
        });
    }

    pub(super) fn launch_group(&mut self, group: LaunchGroup) {
        let names: Vec<&str> = group.tasks.iter().map(|it| it.task_id.as_str()).collect();
        if self.drops(&names) {
            return;
        }
        let Some(agent) = self.taking() else {
            tracing::debug!("a group is not launched: this agent is stopping");
            return;
        };
        let info = group.executor.unwrap_or_default();
        let placed = key(&info.framework_id, &info.executor_id).and_then(|executor| {
            let container = mint_container().map_err(|error| error.to_string())?;
            let (framework, id) = (&executor.framework, &executor.executor);
            let sandbox = self.layout.sandbox(agent, framework, id, &container);
            Ok((executor, container, sandbox))
        });
        let checked = placed.and_then(|(executor, container, new)| {
            // One that is there has its place.
            let there = self.tasks.executor(&executor);
            let sandbox = there.map_or(&*new, |there| Path::new(there.sandbox));
            Ok(GroupLaunch {
                members: members(&group.tasks, &info, sandbox)?,
                executor,
                info: info.clone(),
                container,
                sandbox: new.to_string_lossy().into_owned(),
            })
        });
        match checked {
            Ok(checked) => self.step(Change::LaunchGroup(Box::new(checked))),
            Err(why) => {
                for launch in &group.tasks {
                    self.refuse(launch, Reason::ReasonTaskGroupInvalid, why.clone());
                }
            }
        }
    }

    pub(super) fn shutdown_executor(&mut self, asked: &ShutdownExecutor) {
        match key(&asked.framework_id, &asked.executor_id) {
            Ok(executor) => self.step(Change::ShutdownExecutor {
                executor,
                grace_ms: asked.grace_ms,
            }),
            Err(why) => tracing::warn!("asked to shut an executor down: {why}"),
        }
    }

    /// A launch that cannot even become a task: said once, kept nowhere.
    pub(super) fn refuse(&mut self, launch: &Launch, reason: Reason, message: String) {
        self.send(StatusUpdate {
            task_id: launch.task_id.clone(),
            uuid: uuid::Uuid::new_v4().as_bytes().to_vec(),
            state: TaskState::TaskError as i32,
            reason: Some(reason as i32),
            message,
            timestamp_ms: self.now().wall.0,
            ..StatusUpdate::default()
        });
    }

    pub(super) fn executor_attached(
        &mut self,
        executor: ExecutorKey,
        result: Result<Option<Attachment>, String>,
    ) {
        // As for a task: what nobody waits for any more ends with its descriptor.
        if self.tasks.executor(&executor).is_none() {
            return;
        }
        let change = match result {
            Ok(attachment) => {
                let ip = attachment.as_ref().map(|it| it.ip.to_string());
                *self.provision.network_of(&executor) = attachment;
                let ip = ip.unwrap_or_default();
                Change::ExecutorAttached { executor, ip }
            }
            Err(cause) => Change::ExecutorAttachFailed { executor, cause },
        };
        self.step(change);
    }
}

pub(super) fn mint_container() -> Result<ContainerId, IdError> {
    ContainerId::parse(uuid::Uuid::new_v4().to_string())
}

pub(super) fn key(framework: &str, executor: &str) -> Result<ExecutorKey, String> {
    let of_executor = |error: IdError| format!("the executor: {error}");
    Ok(ExecutorKey {
        framework: FrameworkId::parse(framework).map_err(|error| error.to_string())?,
        executor: ExecutorId::parse(executor).map_err(of_executor)?,
    })
}

fn task_id(launch: &Launch) -> Result<TaskId, String> {
    checked_task_id(&launch.task_id)
}

pub(super) fn checked_task_id(text: &str) -> Result<TaskId, String> {
    let task = TaskId::parse(text).map_err(|error| error.to_string())?;
    if task.as_str().len() > TASK_ID_MAX_BYTES {
        return Err(format!(
            "a task id is at most {TASK_ID_MAX_BYTES} bytes long"
        ));
    }
    Ok(task)
}

/// The tasks of a group below an executor whose sandbox is `sandbox`.
fn members(
    launches: &[Launch],
    info: &ExecutorInfo,
    sandbox: &Path,
) -> Result<Vec<Member>, String> {
    if launches.is_empty() {
        return Err("a group without tasks".to_owned());
    }
    if NetworkMode::try_from(info.network).is_err() {
        return Err(format!("unknown network mode {}", info.network));
    }
    launches
        .iter()
        .map(|launch| {
            member(launch, info, sandbox).map_err(|why| format!("{}: {why}", launch.task_id))
        })
        .collect()
}

fn member(launch: &Launch, info: &ExecutorInfo, sandbox: &Path) -> Result<Member, String> {
    let launch = Launch {
        framework_id: info.framework_id.clone(),
        executor_id: info.executor_id.clone(),
        network: info.network,
        ..launch.clone()
    };
    let task = task_id(&launch)?;
    container::check(&launch).map_err(|problem| problem.to_string())?;
    for volume in &launch.shared_volumes {
        let name = volume.name.as_str();
        if ContainerId::parse(name).is_err() || sandboxes::is_reserved(name) {
            return Err(format!("a shared volume cannot be named '{name}'"));
        }
    }
    let container = mint_container().map_err(|error| error.to_string())?;
    let sandbox = nested_sandbox(sandbox, &container);
    Ok(Member {
        task,
        launch,
        container,
        sandbox: sandbox.to_string_lossy().into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_wire::agent::SharedVolume;

    fn launch(task: &str) -> Launch {
        Launch {
            task_id: task.into(),
            shell: "true".into(),
            network: NetworkMode::Host as i32,
            ..Launch::default()
        }
    }

    #[test]
    fn a_group_takes_what_is_its_executors_or_is_refused_whole() {
        let info = ExecutorInfo {
            framework_id: "f".into(),
            executor_id: "e".into(),
            network: NetworkMode::Bridge as i32,
            ..ExecutorInfo::default()
        };
        let of = |launches: &[Launch]| members(launches, &info, Path::new("/x"));
        let two = of(&[launch("a"), launch("b")]).unwrap();
        for member in &two {
            assert_eq!(member.launch.network, NetworkMode::Bridge as i32);
            assert_eq!(member.launch.executor_id, "e");
            assert_eq!(member.launch.framework_id, "f");
            assert_eq!(
                member.sandbox,
                format!("/x/containers/{}", member.container)
            );
        }
        assert_ne!(two[0].container, two[1].container);
        let sharing = |name: &str| Launch {
            shared_volumes: vec![SharedVolume {
                name: name.into(),
                ..SharedVolume::default()
            }],
            ..launch("b")
        };
        assert!(of(&[sharing("data")]).is_ok());
        for (bad, why) in [
            (launch(""), ": an id must not be empty"),
            (launch("a/b"), "a/b: 'a/b' is not a valid id"),
            (
                Launch {
                    shell: String::new(),
                    ..launch("b")
                },
                "b: the task has neither a command nor arguments to run",
            ),
            (sharing(".."), "b: a shared volume cannot be named '..'"),
            (
                sharing("tasks"),
                "b: a shared volume cannot be named 'tasks'",
            ),
            (
                sharing("stdout.1"),
                "b: a shared volume cannot be named 'stdout.1'",
            ),
        ] {
            assert_eq!(of(&[launch("a"), bad]).unwrap_err(), why);
        }
        assert!(of(&[]).is_err());
    }
}
