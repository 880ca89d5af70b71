//! The launch of one container that the API asks for: what it takes from the one around it, and what
//! the keeper is asked for. It is noted on disk first.

use gantry_agent_core::{ExecutorKey, ExecutorView, TaskView};
use gantry_isolation::keeper::Request;
use gantry_isolation::spec::{ContainerId as KeeperContainer, ContainerSpec, Ids};
use gantry_wire::agent::{ExecutorInfo, ResourcesMessage};
use gantry_wire::ids::{ContainerId, ExecutorId, FrameworkId, IdError, TaskId};
use gantry_wire::task::TaskState;

use super::super::Daemon;
use super::STANDALONE;
use crate::container::{self, Given, SpecProblem};
use crate::inbox::LaunchOrder;
use crate::launched::{self, LaunchRefusal, Saved};

/// What a nested container takes from the one around it.
struct Parent {
    id: KeeperContainer,
    framework: String,
    executor: String,
    network: i32,
    ip: String,
    pid: u32,
    resources: Option<ResourcesMessage>,
}

/// What a nested container may use: what it asks for, but no more than the one around it.
fn within(
    asked: Option<ResourcesMessage>,
    around: Option<&ResourcesMessage>,
) -> Option<ResourcesMessage> {
    let (Some(asked), Some(around)) = (&asked, around) else {
        return around.cloned().or(asked);
    };
    let least = |asked: u64, around: u64| match asked {
        0 => around,
        asked => asked.min(around),
    };
    Some(ResourcesMessage {
        cpus_milli: least(asked.cpus_milli, around.cpus_milli),
        mem_bytes: least(asked.mem_bytes, around.mem_bytes),
        disk_bytes: least(asked.disk_bytes, around.disk_bytes),
        ..ResourcesMessage::default()
    })
}

impl Daemon {
    /// Asks the keeper for it. None: it is there already.
    pub(super) fn begin_container(
        &mut self,
        order: LaunchOrder,
    ) -> Result<Option<KeeperContainer>, LaunchRefusal> {
        if self.stopping.is_asked() {
            return Err(LaunchRefusal::Stopping);
        }
        let bad = || LaunchRefusal::Unsupported("The container's name cannot be taken".to_owned());
        let (id, around) = self.place(&order.chain).ok_or_else(bad)?;
        if self.launched.get(&id).is_some() {
            return Ok(None);
        }
        let around = around.map(|around| {
            let none = || LaunchRefusal::NoParent(around.to_string());
            self.parent(&around).ok_or_else(none)
        });
        let around = around.transpose()?;
        if around.is_none() && id.as_str().split('.').next() != Some(STANDALONE) {
            return Err(bad());
        }
        if !self.launched.has_room() {
            return Err(LaunchRefusal::TooMany);
        }
        let failed = |why: String| LaunchRefusal::Failed(format!("Failed to launch: {why}"));
        let saved = self.record(&id, &order, around.as_ref()).map_err(failed)?;
        let begun = self.launched.begin(saved.clone());
        begun.map_err(|error| failed(format!("noting it: {error}")))?;
        if let Err(why) = self.hand_over_launched(&saved, order, around.as_ref()) {
            self.gone_launched(&id);
            self.launched.forget(&id);
            return Err(failed(why));
        }
        Ok(Some(id))
    }

    fn record(
        &self,
        id: &KeeperContainer,
        order: &LaunchOrder,
        around: Option<&Parent>,
    ) -> Result<Saved, String> {
        let agent = self
            .identity
            .get()
            .ok_or("the agent was never registered")?;
        let framework = around.map(|it| it.framework.as_str());
        let framework = framework.filter(|it| !it.is_empty()).unwrap_or(STANDALONE);
        let said = |error: IdError| error.to_string();
        let checked = FrameworkId::parse(framework).map_err(said)?;
        let executor = ExecutorId::parse(id.as_str()).map_err(said)?;
        let container = ContainerId::parse(id.as_str()).map_err(said)?;
        Ok(Saved {
            id: id.clone(),
            chain: order.chain.clone(),
            parent: around.map(|it| it.id.clone()),
            framework: around.map(|it| it.framework.clone()).unwrap_or_default(),
            executor: around.map(|it| it.executor.clone()).unwrap_or_default(),
            sandbox: self.layout.sandbox(agent, &checked, &executor, &container),
            ended: None,
        })
    }

    /// The container around a new one, while it runs.
    fn parent(&self, id: &KeeperContainer) -> Option<Parent> {
        let task = self.tasks.iter().map(|(_, view)| view);
        let mut task = task.filter(|view| view.container.as_str() == id.as_str());
        if let Some(view) = task.next() {
            let launch = view.launch;
            let running = view.state == TaskState::TaskRunning && view.pid > 0;
            let executor = self.tasks.executor_of_container(view.container);
            return running.then(|| Parent {
                id: id.clone(),
                framework: launch.framework_id.clone(),
                executor: launch.executor_id().to_owned(),
                network: executor.map_or(launch.network, |it| it.info.network),
                ip: view.ip.to_owned(),
                pid: view.pid,
                resources: launch.resources.clone(),
            });
        }
        let mut executors = self.tasks.executors();
        if let Some(view) = executors.find(|view| view.container.as_str() == id.as_str()) {
            return (view.pid > 0).then(|| Parent {
                id: id.clone(),
                framework: view.info.framework_id.clone(),
                executor: view.info.executor_id.clone(),
                network: view.info.network,
                ip: view.ip.to_owned(),
                pid: view.pid,
                resources: view.info.resources.clone(),
            });
        }
        let record = self.launched.get(id).filter(|record| record.pid > 0)?;
        let outer = record
            .saved
            .parent
            .as_ref()
            .and_then(|outer| self.parent(outer));
        Some(Parent {
            id: id.clone(),
            framework: record.saved.framework.clone(),
            executor: record.saved.executor.clone(),
            network: outer.as_ref().map_or(0, |it| it.network),
            ip: outer.as_ref().map(|it| it.ip.clone()).unwrap_or_default(),
            pid: record.pid,
            resources: outer.and_then(|it| it.resources),
        })
    }

    fn hand_over_launched(
        &mut self,
        saved: &Saved,
        mut order: LaunchOrder,
        around: Option<&Parent>,
    ) -> Result<(), String> {
        let id = saved.id.as_str();
        let said = |error: IdError| error.to_string();
        let (task, container) = (
            TaskId::parse(id).map_err(said)?,
            ContainerId::parse(id).map_err(said)?,
        );
        order.launch.task_id = id.to_owned();
        order.launch.framework_id = saved.framework.clone();
        if let Some(around) = around {
            let asked = order.launch.resources.take();
            order.launch.resources = within(asked, around.resources.as_ref());
            order.launch.network = around.network;
        }
        let mut spec = self.spec_launched(saved, &order, (&container, around))?;
        self.sandboxes
            .make(&mut spec, (&task, &container, &order.launch), None)?;
        if let Some(image) = &order.image {
            let held = self.provision.store.hold(id, image);
            held.map_err(|error| format!("noting that the image is in use: {error}"))?;
        }
        let spec = Box::new(spec);
        let sent = self.keeper.request(&Request::Start { spec }, &[]);
        sent.map_err(|error| crate::chain(&error))
    }

    fn spec_launched(
        &self,
        saved: &Saved,
        order: &LaunchOrder,
        (container, around): (&ContainerId, Option<&Parent>),
    ) -> Result<ContainerSpec, String> {
        let sandbox = saved.sandbox.to_string_lossy();
        let view = TaskView {
            launch: &order.launch,
            container,
            sandbox: &sandbox,
            state: TaskState::TaskStarting,
            ip: around.map_or("", |it| it.ip.as_str()),
            gpus: &[],
            pid: 0,
        };
        let agent_id = self.facts.agent_id().unwrap_or_default();
        let given = Given {
            ids: self.ids_launched(around)?,
            ..Given::default()
        };
        let image = order.image.as_ref();
        let said = |problem: SpecProblem| problem.to_string();
        let mut spec = match around {
            None => {
                container::spec(view, None, agent_id, image, given, &self.node).map_err(said)?
            }
            Some(around) => {
                let parse = |error: IdError| error.to_string();
                let key = ExecutorKey {
                    framework: FrameworkId::parse(STANDALONE).map_err(parse)?,
                    executor: ExecutorId::parse(around.id.as_str()).map_err(parse)?,
                };
                let info = ExecutorInfo {
                    network: around.network,
                    ..ExecutorInfo::default()
                };
                let outer = ContainerId::parse(around.id.as_str()).map_err(parse)?;
                let executor = ExecutorView {
                    key: &key,
                    info: &info,
                    ports: &[],
                    container: &outer,
                    sandbox: &sandbox,
                    ip: &around.ip,
                    pid: around.pid,
                    is_custom: false,
                };
                container::spec(view, Some(executor), agent_id, image, given, &self.node)
                    .map_err(said)?
            }
        };
        if let Some(argv) = &order.argv {
            spec.argv.clone_from(argv);
        }
        Ok(spec)
    }

    /// Its users are those of the container around it.
    fn ids_launched(&self, around: Option<&Parent>) -> Result<Ids, String> {
        let Some(around) = around else {
            return Ok(self.provision.shared_ids());
        };
        let host = launched::has_host_ids(around.pid);
        let host =
            host.map_err(|error| format!("looking at the users of {}: {error}", around.id))?;
        Ok(if host {
            Ids::Host
        } else {
            Ids::Of(around.id.clone())
        })
    }
}
