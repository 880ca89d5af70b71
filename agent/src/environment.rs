//! The environment of a task. Decides who wins: the scheduler over the agent's `MESOS_*` over the
//! image over the defaults. Nothing of the agent's own environment gets in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_agent_core::TaskView;
use gantry_image::Image;
use gantry_isolation::gpu::Gpu;
use gantry_isolation::spec::SANDBOX_TARGET;

use crate::gpus;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) fn of(
    task: TaskView<'_>,
    agent_id: &str,
    image: Option<&Image>,
    host_ip: Option<IpAddr>,
    node_gpus: &[Gpu],
) -> Vec<(String, String)> {
    let launch = task.launch;
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    let of_image = image.map_or(&[][..], |image| image.config.env.as_slice());
    for (name, value) in of_image.iter().filter_map(|line| line.split_once('=')) {
        env.insert(name.to_owned(), value.to_owned());
    }
    let ip = if task.ip.is_empty() {
        host_ip.map(|ip| ip.to_string())
    } else {
        None
    };
    let ip = ip.unwrap_or_else(|| task.ip.to_owned());
    for (name, value) in [
        ("MESOS_TASK_ID", launch.task_id.as_str()),
        ("MESOS_EXECUTOR_ID", launch.executor_id()),
        ("MESOS_FRAMEWORK_ID", launch.framework_id.as_str()),
        ("MESOS_AGENT_ID", agent_id),
        ("MESOS_SLAVE_ID", agent_id),
        ("MESOS_CONTAINER_ID", task.container.as_str()),
        ("MESOS_CONTAINER_IP", ip.as_str()),
        ("MESOS_SANDBOX", SANDBOX_TARGET),
        ("MESOS_DIRECTORY", SANDBOX_TARGET),
    ] {
        env.insert(name.to_owned(), value.to_owned());
    }
    if let Some(visible) = gpus::visible(task.gpus, node_gpus) {
        env.insert("NVIDIA_VISIBLE_DEVICES".to_owned(), visible);
    }
    env.extend(launch.env.clone());
    env.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_wire::agent::Launch;
    use gantry_wire::ids::ContainerId;
    use gantry_wire::task::TaskState;

    #[test]
    fn the_scheduler_wins() {
        let scheduler = [
            ("PATH", "/mine"),
            ("MESOS_SANDBOX", "/else"),
            ("PORT0", "31000"),
        ];
        let launch = Launch {
            task_id: "t".into(),
            env: scheduler.map(|(k, v)| (k.into(), v.into())).into(),
            ..Launch::default()
        };
        let container = ContainerId::parse("c").unwrap();
        let view = TaskView {
            launch: &launch,
            container: &container,
            sandbox: "/s",
            state: TaskState::TaskStarting,
            ip: "",
            gpus: &[],
            pid: 0,
        };
        let env: BTreeMap<_, _> = of(view, "a", None, "10.1.0.1".parse().ok(), &[])
            .into_iter()
            .collect();
        for (name, value) in scheduler.into_iter().chain([
            ("MESOS_TASK_ID", "t"),
            ("MESOS_CONTAINER_IP", "10.1.0.1"),
            ("MESOS_AGENT_ID", "a"),
        ]) {
            assert_eq!(env[name], value);
        }
    }
}
