//! Tasks, executors and frameworks of a snapshot as Mesos's messages. Decides how ours look in its
//! words: a task without an executor is its own (a command executor of its id), and of a framework
//! its id is known, which is its name too.

use std::collections::{BTreeMap, BTreeSet};

use gantry_wire::agent::ResourcesMessage;
use gantry_wire::mesos::amounts::to_resources;
use gantry_wire::mesos::v1::agent::response::get_executors::Executor;
use gantry_wire::mesos::v1::agent::response::get_frameworks::Framework;
use gantry_wire::mesos::v1::agent::response::{GetExecutors, GetFrameworks, GetTasks};
use gantry_wire::mesos::v1::executor_info::Type as ExecutorType;
use gantry_wire::mesos::v1::network_info::IpAddress;
use gantry_wire::mesos::v1::{
    AgentId, ContainerId, ContainerStatus, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo,
    Label, Labels, NetworkInfo, Resource, Task, TaskId, TaskState as V1State, TaskStatus,
};
use gantry_wire::resources::Resources;
use gantry_wire::task::TaskState;

use crate::inbox::{ExecutorRow, LaunchedRow, TaskRow, View};

/// Whose tasks run, if they do not say.
const ROOT: &str = "root";

pub(super) fn tasks(view: &View) -> GetTasks {
    let mut tasks = GetTasks::default();
    for row in &view.tasks {
        let list = match row.state {
            TaskState::TaskStaging => &mut tasks.queued_tasks,
            state if state.is_terminal() => &mut tasks.terminated_tasks,
            _ => &mut tasks.launched_tasks,
        };
        list.push(task(row, view));
    }
    tasks
}

fn task(row: &TaskRow, view: &View) -> Task {
    let launch = &row.launch;
    let executor_id = Some(&launch.executor_id).filter(|id| !id.is_empty());
    Task {
        name: launch.name.clone(),
        task_id: task_id(&launch.task_id),
        framework_id: framework_id(&launch.framework_id),
        executor_id: executor_id.map(|id| executor(id)),
        agent_id: agent_id(view),
        state: V1State::from(row.state) as i32,
        resources: resources(launch.resources.as_ref()),
        statuses: vec![status(row, view)],
        labels: labels(&launch.labels),
        user: Some(&launch.user).filter(|user| !user.is_empty()).cloned(),
        ..Task::default()
    }
}

fn status(row: &TaskRow, view: &View) -> TaskStatus {
    TaskStatus {
        task_id: task_id(&row.launch.task_id),
        state: V1State::from(row.state) as i32,
        agent_id: Some(agent_id(view)),
        executor_id: Some(executor(row.launch.executor_id())),
        container_status: Some(of_task(row, view).into()),
        ..TaskStatus::default()
    }
}

/// What the container of a task is like.
pub(super) fn of_task(row: &TaskRow, view: &View) -> ContainerStatus {
    container(container_id(row, view), &row.ip, row.pid)
}

/// What the container of an executor is like.
pub(super) fn of_executor(row: &ExecutorRow) -> ContainerStatus {
    let id = ContainerId::from(&row.container);
    container(id, &row.ip, row.pid)
}

fn container(id: ContainerId, ip: &str, pid: u32) -> ContainerStatus {
    let address = |ip: &str| NetworkInfo {
        ip_addresses: vec![IpAddress {
            ip_address: Some(ip.to_owned()),
            ..IpAddress::default()
        }],
        ..NetworkInfo::default()
    };
    ContainerStatus {
        container_id: Some(id),
        network_infos: Some(ip)
            .filter(|ip| !ip.is_empty())
            .map(address)
            .into_iter()
            .collect(),
        executor_pid: Some(pid).filter(|&pid| pid > 0),
        ..ContainerStatus::default()
    }
}

/// What a container that the API launched is like.
pub(super) fn of_launched(row: &LaunchedRow) -> ContainerStatus {
    container(chained(&row.chain), "", row.pid)
}

/// A container by its name and those of the ones around it, the outermost first.
pub(super) fn chained(chain: &[String]) -> ContainerId {
    let inside = |parent: Option<ContainerId>, value: &String| {
        Some(ContainerId {
            value: value.clone(),
            parent: parent.map(Box::new),
        })
    };
    chain.iter().fold(None, inside).unwrap_or_default()
}

/// The container of a task; one that has an executor is inside that one's.
pub(super) fn container_id(row: &TaskRow, view: &View) -> ContainerId {
    let around = executor_of(row, view).map(|it| ContainerId::from(&it.container));
    ContainerId {
        parent: around.map(Box::new),
        ..ContainerId::from(&row.container)
    }
}

/// The executor that a task shares with others.
pub(super) fn executor_of<'v>(row: &TaskRow, view: &'v View) -> Option<&'v ExecutorRow> {
    let launch = &row.launch;
    let same = |it: &&ExecutorRow| {
        it.info.executor_id == launch.executor_id && it.info.framework_id == launch.framework_id
    };
    view.executors.iter().find(same)
}

pub(super) fn executors(view: &View) -> GetExecutors {
    let mut executors = GetExecutors::default();
    for row in &view.executors {
        let info = &row.info;
        executors.executors.push(Executor {
            executor_info: ExecutorInfo {
                r#type: Some(ExecutorType::Default as i32),
                executor_id: executor(&info.executor_id),
                framework_id: Some(framework_id(&info.framework_id)),
                resources: resources(info.resources.as_ref()),
                name: Some(info.name.clone()),
                labels: labels(&info.labels),
                ..ExecutorInfo::default()
            },
        });
    }
    for row in view
        .tasks
        .iter()
        .filter(|row| row.launch.executor_id.is_empty())
    {
        let launch = &row.launch;
        let info = ExecutorInfo {
            executor_id: executor(&launch.task_id),
            framework_id: Some(framework_id(&launch.framework_id)),
            name: Some(command_executor(row)),
            source: Some(launch.task_id.clone()),
            ..ExecutorInfo::default()
        };
        let list = if row.state.is_terminal() {
            &mut executors.completed_executors
        } else {
            &mut executors.executors
        };
        list.push(Executor {
            executor_info: info,
        });
    }
    executors
}

/// What Mesos calls the executor of a single task.
pub(super) fn command_executor(row: &TaskRow) -> String {
    format!("Command Executor (Task: {})", row.launch.task_id)
}

pub(super) fn frameworks(view: &View) -> GetFrameworks {
    let of_executors = view.executors.iter().map(|row| &row.info.framework_id);
    let of_tasks = |over: bool| {
        let tasks = view.tasks.iter();
        let tasks = tasks.filter(move |row| row.state.is_terminal() == over);
        tasks.map(|row| &row.launch.framework_id)
    };
    let live: BTreeSet<&String> = of_executors.chain(of_tasks(false)).collect();
    let over: BTreeSet<&String> = of_tasks(true).filter(|id| !live.contains(id)).collect();
    let framework = |id: &String| Framework {
        framework_info: FrameworkInfo {
            user: ROOT.to_owned(),
            name: id.clone(),
            id: Some(framework_id(id)),
            ..FrameworkInfo::default()
        },
    };
    GetFrameworks {
        frameworks: live.into_iter().map(framework).collect(),
        completed_frameworks: over.into_iter().map(framework).collect(),
    }
}

fn agent_id(view: &View) -> AgentId {
    AgentId {
        value: view.agent_id.clone().unwrap_or_default(),
    }
}

fn task_id(id: &str) -> TaskId {
    TaskId {
        value: id.to_owned(),
    }
}

pub(super) fn framework_id(id: &str) -> FrameworkId {
    FrameworkId {
        value: id.to_owned(),
    }
}

pub(super) fn executor(id: &str) -> ExecutorId {
    ExecutorId {
        value: id.to_owned(),
    }
}

fn resources(message: Option<&ResourcesMessage>) -> Vec<Resource> {
    to_resources(&message.map(Resources::from).unwrap_or_default())
}

fn labels(labels: &BTreeMap<String, String>) -> Option<Labels> {
    let label = |(key, value): (&String, &String)| Label {
        key: key.clone(),
        value: Some(value.clone()),
    };
    let labels: Vec<Label> = labels.iter().map(label).collect();
    (!labels.is_empty()).then_some(Labels { labels })
}
