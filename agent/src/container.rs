//! From a launch message to a container: what the kernel is asked to enforce, what the command
//! sees. Pure but for its inputs; decides the translation, mounts and starts nothing.
//!
//! Rules: `spec/mesos.md` §5.2 (docker/runtime row), §2.2; Marathon's for `cmd` and `args`.

use std::net::IpAddr;
use std::path::PathBuf;

use gantry_agent_core::{ExecutorView, TaskView};
use gantry_image::Image;
use gantry_isolation::gpu::Gpu;
use gantry_isolation::spec::{
    ContainerId, ContainerSpec, Device, Files, Ids, Limits, MAX_HOSTNAME_BYTES, Mount, Network,
    Output, Root, SANDBOX_TARGET, Sharing, SpecError, User, WindowSize,
};
use gantry_wire::agent::{Launch, LimitsMessage, NetworkMode, ResourcesMessage, Tty};

use crate::environment;
use crate::logger::{self, LoggerProblem, OutputLimits};
use crate::volumes::{self, VolumeProblem};

/// CFS period, the kernel's default (`Documentation/scheduler/sched-bwc.rst`).
const CPU_PERIOD_US: u64 = 100_000;
/// Least quota, the kernel's minimum.
const CPU_QUOTA_MIN_US: u64 = 1_000;
/// Weight of one CPU, and the kernel's minimum.
const SHARES_PER_CPU: u64 = 1_024;
const SHARES_MIN: u64 = 2;
/// Least memory limit. Mesos silently makes it 32 MiB; here what was asked for is enforced as long
/// as a shell can be started in it at all.
const MEMORY_MIN_BYTES: u64 = 4 << 20;
/// Processes and threads of a task: far more than a JVM's, far less than the node's.
const PIDS_MAX: u64 = 4_096;

/// Facts of the node that containers need.
#[derive(Debug, Clone)]
pub(crate) struct NodeFacts {
    /// Parent of private directories.
    pub(crate) containers: PathBuf,
    /// What tasks must not see, neither in a native root nor in a volume; no symbolic links.
    pub(crate) hide: Vec<PathBuf>,
    /// Address of the node for tasks in its own network.
    pub(crate) host_ip: Option<IpAddr>,
    /// The node's own name.
    pub(crate) node_name: String,
    /// The graphics processors of the node, as they were when the agent started.
    pub(crate) gpus: Vec<Gpu>,
    /// The node's `/etc/resolv.conf`.
    pub(crate) resolv_conf: Option<String>,
    /// What is kept of output.
    pub(crate) output: OutputLimits,
}

/// What of the node a container is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    /// Whose users its processes are.
    pub(crate) ids: Ids,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) devices: Vec<Device>,
}

/// Why a launch cannot become a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecProblem {
    #[error("the task has neither a command nor arguments to run")]
    NoCommand,
    #[error("the task has no command, and its image names neither entrypoint nor command")]
    NoImageCommand,
    #[error("unknown network mode {0}")]
    NetworkMode(i32),
    #[error(transparent)]
    Logger(#[from] LoggerProblem),
    #[error(transparent)]
    Volume(#[from] VolumeProblem),
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// The mode of a launch.
pub(crate) fn network_mode(launch: &Launch) -> Result<NetworkMode, SpecProblem> {
    NetworkMode::try_from(launch.network).map_err(|_| SpecProblem::NetworkMode(launch.network))
}

/// What must hold before anything is pulled or attached.
pub(crate) fn check(launch: &Launch) -> Result<(), SpecProblem> {
    network_mode(launch)?;
    if launch.image.is_empty() && launch.shell.is_empty() && launch.args.is_empty() {
        return Err(SpecProblem::NoCommand);
    }
    logger::kept(&launch.env, &OutputLimits::default())?;
    Ok(volumes::check(launch)?)
}

/// The container that only holds what the tasks of an executor share.
pub(crate) fn holder(
    executor: ExecutorView<'_>,
    ids: Ids,
    node: &NodeFacts,
) -> Result<ContainerSpec, SpecProblem> {
    let id = ContainerId::try_from(executor.container.as_str())?;
    let root = Root::Host {
        hide: node.hide.clone(),
    };
    let dir = node.containers.join(executor.container.as_str());
    let mut spec = ContainerSpec::new(id, root, dir, Vec::new());
    if executor.info.network == NetworkMode::Bridge as i32 {
        spec.network = Network::Namespace;
    }
    let none = ResourcesMessage::default();
    let requested = executor.info.resources.as_ref().unwrap_or(&none);
    (spec.ids, spec.limits) = (ids, limits(requested, LimitsMessage::default()));
    spec.check()?;
    Ok(spec)
}

/// The container of a task; `image` is there when the launch names one, `given` are its volumes and
/// GPUs, `executor` is the one that it shares with others.
pub(crate) fn spec(
    task: TaskView<'_>,
    executor: Option<ExecutorView<'_>>,
    agent_id: &str,
    image: Option<&Image>,
    given: Given,
    node: &NodeFacts,
) -> Result<ContainerSpec, SpecProblem> {
    let launch = task.launch;
    let id = ContainerId::try_from(task.container.as_str())?;
    let root = match image {
        Some(image) => Root::Layers(image.layers.clone()),
        None => Root::Host {
            hide: node.hide.clone(),
        },
    };
    let bridged = network_mode(launch)? == NetworkMode::Bridge;
    let dir = node.containers.join(task.container.as_str());
    let mut spec = ContainerSpec::new(id, root, dir, argv(launch, image)?);
    spec.sandbox = Some(PathBuf::from(task.sandbox));
    let inside = inside(task, agent_id, image, node);
    (spec.env, spec.cwd, spec.user) = (inside.env, Some(inside.cwd), inside.user);
    spec.network = if bridged {
        Network::Namespace
    } else {
        Network::Host
    };
    spec.hostname = (!bridged).then(|| node.node_name.clone());
    let none = ResourcesMessage::default();
    let requested = launch.resources.as_ref().unwrap_or(&none);
    spec.limits = limits(requested, launch.limits.unwrap_or_default());
    (spec.ids, spec.mounts, spec.devices) = (given.ids, given.mounts, given.devices);
    if let Some(executor) = executor {
        share(&mut spec, executor, bridged)?;
    }
    let name = executor.map_or(task.container, |executor| executor.container);
    spec.files = files((task.ip, name.as_str()), bridged, image.is_some(), node);
    (spec.terminal, spec.window) = (launch.tty.is_some(), launch.tty.and_then(window));
    let ([stdout, stderr], words) = logger::kept(&launch.env, &node.output)?;
    for word in words {
        tracing::warn!(task = launch.task_id, "output: {word}");
    }
    spec.output = Output::Files {
        dir: PathBuf::from(task.sandbox),
        stdout,
        stderr,
    };
    spec.check()?;
    Ok(spec)
}

/// Takes what the tasks of an executor have in common from its container.
fn share(
    spec: &mut ContainerSpec,
    executor: ExecutorView<'_>,
    bridged: bool,
) -> Result<(), SpecProblem> {
    let holder = ContainerId::try_from(executor.container.as_str())?;
    if bridged {
        spec.network = Network::Of(holder.clone());
        let name = executor.container.as_str();
        let end = name.len().min(MAX_HOSTNAME_BYTES);
        spec.hostname = Some(name.get(..end).unwrap_or(name).to_owned());
    }
    spec.namespaces.ipc = Sharing::Of(holder.clone());
    if executor.info.share_pids {
        spec.namespaces.pid = Sharing::Of(holder);
    }
    Ok(())
}

/// What a process of the task finds around it; a session beside its command finds the same.
pub(crate) struct Inside {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: User,
}

pub(crate) fn inside(
    task: TaskView<'_>,
    agent_id: &str,
    image: Option<&Image>,
    node: &NodeFacts,
) -> Inside {
    Inside {
        env: environment::of(task, agent_id, image, node.host_ip, &node.gpus),
        cwd: working_dir(task.launch, image),
        user: user(task.launch, image),
    }
}

/// `shell` runs by `/bin/sh -c`; `args` are the whole command of a native task and follow the
/// entrypoint of an image; neither means the image's entrypoint and command.
fn argv(launch: &Launch, image: Option<&Image>) -> Result<Vec<String>, SpecProblem> {
    if !launch.shell.is_empty() {
        return Ok(vec!["/bin/sh".into(), "-c".into(), launch.shell.clone()]);
    }
    let Some(image) = image else {
        let none = launch.args.is_empty();
        return if none {
            Err(SpecProblem::NoCommand)
        } else {
            Ok(launch.args.clone())
        };
    };
    let rest = if launch.args.is_empty() {
        &image.config.cmd
    } else {
        &launch.args
    };
    let argv: Vec<String> = image
        .config
        .entrypoint
        .iter()
        .chain(rest)
        .cloned()
        .collect();
    if argv.is_empty() {
        Err(SpecProblem::NoImageCommand)
    } else {
        Ok(argv)
    }
}

pub(crate) fn user(launch: &Launch, image: Option<&Image>) -> User {
    let of_image = image.and_then(|image| image.config.user.as_deref());
    match (launch.user.as_str(), of_image.unwrap_or_default()) {
        ("", "") | ("root", _) => User::Root,
        ("", name) | (name, _) => User::Name(name.to_owned()),
    }
}

/// A native task starts in its sandbox, an image where it says.
fn working_dir(launch: &Launch, image: Option<&Image>) -> PathBuf {
    if launch.image.is_empty() {
        return PathBuf::from(SANDBOX_TARGET);
    }
    let dir = image.and_then(|image| image.config.working_dir.as_deref());
    PathBuf::from(dir.filter(|dir| !dir.is_empty()).unwrap_or("/"))
}

/// A size that was said.
fn window(tty: Tty) -> Option<WindowSize> {
    let number = |of: u32| u16::try_from(of).ok().filter(|of| *of > 0);
    Some(WindowSize {
        rows: number(tty.rows)?,
        columns: number(tty.columns)?,
    })
}

/// Weights follow from what was requested; so do limits, where none are said.
pub(crate) fn limits(requested: &ResourcesMessage, limits: LimitsMessage) -> Limits {
    let shares = requested.cpus_milli.saturating_mul(SHARES_PER_CPU) / 1_000;
    let limited = |limit: Option<u64>, requested: u64| {
        Some(limit.unwrap_or(requested)).filter(|&limit| limit != LimitsMessage::UNLIMITED)
    };
    let cpus_milli = limited(limits.cpus_milli, requested.cpus_milli);
    let quota_us = cpus_milli.map(|milli| milli.saturating_mul(CPU_PERIOD_US / 1_000));
    let memory = limited(limits.mem_bytes, requested.mem_bytes);
    let memory = memory.map(|bytes| bytes.max(MEMORY_MIN_BYTES));
    // What was requested is its own when it may use more.
    let low = limits.mem_bytes.map(|_| requested.mem_bytes);
    Limits {
        cpu_shares: Some(shares.max(SHARES_MIN)),
        cpu_quota_us: quota_us.map(|quota| quota.max(CPU_QUOTA_MIN_US)),
        cpu_period_us: quota_us.map(|_| CPU_PERIOD_US),
        memory_bytes: memory,
        memory_low_bytes: low.filter(|&low| low > 0 && memory.is_none_or(|limit| low < limit)),
        pids_max: Some(PIDS_MAX),
        ..Limits::default()
    }
}

/// A container with an address of its own knows its name by it; an image's resolver is the node's.
fn files((ip, name): (&str, &str), bridged: bool, has_image: bool, node: &NodeFacts) -> Files {
    let loopback = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
    let own = if bridged {
        Some((ip.to_owned(), name))
    } else {
        let ip = node.host_ip.filter(|_| has_image);
        ip.map(|ip| (ip.to_string(), node.node_name.as_str()))
    };
    Files {
        hosts: own.map(|(ip, name)| format!("{loopback}{ip} {name}\n")),
        resolv_conf: node.resolv_conf.clone().filter(|_| has_image),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_image::ImageConfig;
    use gantry_wire::agent::ResourcesMessage;

    fn image(entrypoint: &[&str], cmd: &[&str], user: Option<&str>) -> Image {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let config = ImageConfig {
            entrypoint: owned(entrypoint),
            cmd: owned(cmd),
            user: user.map(str::to_owned),
            ..ImageConfig::default()
        };
        let digest = format!("sha256:{}", "0".repeat(64));
        Image {
            digest: digest.parse().unwrap(),
            layers: vec!["/l".into()],
            config,
            hold: gantry_image::Hold::default(),
        }
    }

    #[test]
    fn commands_are_merged_as_docker_runtime_does() {
        let words = |list: &[&str]| -> Vec<String> { list.iter().map(|&s| s.to_owned()).collect() };
        let with = |shell: &str, args: &[&str]| Launch {
            shell: shell.into(),
            args: words(args),
            ..Launch::default()
        };
        let both = image(&["/entry"], &["default"], None);
        let none = image(&[], &[], None);
        for (launch, image, want) in [
            (
                with("a | b", &[]),
                None,
                Ok(words(&["/bin/sh", "-c", "a | b"])),
            ),
            (
                with("a", &["ignored"]),
                Some(&both),
                Ok(words(&["/bin/sh", "-c", "a"])),
            ),
            (with("", &["ls", "-l"]), None, Ok(words(&["ls", "-l"]))),
            (with("", &[]), None, Err(SpecProblem::NoCommand.to_string())),
            (
                with("", &[]),
                Some(&both),
                Ok(words(&["/entry", "default"])),
            ),
            (with("", &["x"]), Some(&both), Ok(words(&["/entry", "x"]))),
            (with("", &["x"]), Some(&none), Ok(words(&["x"]))),
            (
                with("", &[]),
                Some(&none),
                Err(SpecProblem::NoImageCommand.to_string()),
            ),
        ] {
            assert_eq!(argv(&launch, image).map_err(|e| e.to_string()), want);
        }
    }

    #[test]
    fn users_of_launch_and_image() {
        let by = |launch: &str, of_image| {
            let launch = Launch {
                user: launch.into(),
                ..Launch::default()
            };
            user(&launch, Some(&image(&[], &[], of_image)))
        };
        assert_eq!(by("", None), User::Root);
        assert_eq!(by("", Some("")), User::Root);
        assert_eq!(by("", Some("app:grp")), User::Name("app:grp".into()));
        assert_eq!(by("1000", Some("app")), User::Name("1000".into()));
        assert_eq!(by("root", Some("app")), User::Root);
    }

    #[test]
    fn limits_follow_the_resources() {
        let of = |cpus_milli, mem_bytes, limits| {
            let resources = ResourcesMessage {
                cpus_milli,
                mem_bytes,
                ..Default::default()
            };
            let l = super::limits(&resources, limits);
            (
                l.cpu_shares.unwrap(),
                l.cpu_quota_us,
                l.memory_bytes,
                l.memory_low_bytes,
            )
        };
        let plain = |cpus_milli, mem_bytes| of(cpus_milli, mem_bytes, LimitsMessage::default());
        let mib = |n: u64| Some(n << 20);
        assert_eq!(
            plain(1_000, 32 << 20),
            (1_024, Some(100_000), mib(32), None)
        );
        assert_eq!(plain(100, 128 << 20), (102, Some(10_000), mib(128), None));
        assert_eq!(plain(1, 1), (2, Some(1_000), Some(MEMORY_MIN_BYTES), None));
        let huge = plain(u64::MAX - 1, u64::MAX - 1);
        assert_eq!(huge.2, Some(u64::MAX - 1));
        let apart = |cpus_milli, mem_bytes| LimitsMessage {
            cpus_milli,
            mem_bytes,
        };
        let both = of(500, 32 << 20, apart(Some(2_000), Some(64 << 20)));
        assert_eq!(both, (512, Some(200_000), mib(64), mib(32)));
        let most = Some(LimitsMessage::UNLIMITED);
        let free = of(500, 32 << 20, apart(most, most));
        assert_eq!(free, (512, None, None, mib(32)));
        let cpu = of(500, 32 << 20, apart(most, None));
        assert_eq!(cpu, (512, None, mib(32), None));
    }
}
