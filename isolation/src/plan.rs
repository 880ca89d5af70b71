//! From a spec to the ordered list of steps that make the container: pure, printable, and complete
//! before the clone, so that the child allocates nothing and every failure names its step.
//!
//! It decides order and arguments; it deliberately touches nothing. Order matters for safety:
//! host volumes come before `/proc`, `/sys` and `/dev` (a volume that an image's symbolic link
//! redirects below one of those ends up covered), and every path of the root is opened before
//! `pivot_root` through [`InRoot`], never by name.

mod command;
mod mount;
mod oci;
mod path;
mod step;
#[cfg(test)]
mod tests;
mod users;
mod view;

pub(crate) use command::{Command, Name, Who};
pub(crate) use mount::{MountStep, Source};
pub(crate) use oci::{
    CgroupTree, Credentials, InsideTree, MAX_KEPT, OciDevice, OciHook, OciMount, OciStep, Shown,
};
pub(crate) use path::InRoot;
pub(crate) use step::{SlotLimit, Step};
pub(crate) use users::{Inherited, LandlockRule, USERS, own_processes};
pub(crate) use view::{CgroupTop, CgroupView};

use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::caps::CapSet;
use crate::cgroup::{DeviceRule, Group, GroupError, Hierarchies, Program};
use crate::device::Node;
use crate::keeper::{ExecSpec, Slot};
use crate::spec::{
    ContainerSpec, DEFAULT_SHM_BYTES, MAX_HOSTNAME_BYTES, Network, Root, RootLimit, SANDBOX_TARGET,
    Sharing, SpecError, WindowSize, check_command,
};

/// Permissions of a native task's `/tmp` and `/run`.
const HOST_TMP: [(&str, u32); 2] = [("/tmp", 0o1777), ("/run", 0o755)];
/// Size of a native task's `/tmp` and `/run`, each; pages count against its memory limit.
const HOST_TMP_BYTES: u64 = 1 << 30;
/// The group of terminals, everywhere.
const TTY_GROUP: u32 = 5;
/// `CAP_MKNOD`: withheld where no device controller would stop a made node from being opened.
const CAP_MKNOD: u32 = 27;

/// What the plan needs to know of the host; looked up once per keeper.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostFacts {
    /// The cgroup trees.
    pub(crate) hierarchies: Hierarchies,
    /// What the directory with a container's views of its groups has in it, where there are several.
    pub(crate) cgroup_top: Rc<CgroupTop>,
    /// The same, made once for all containers, where the kernel can clone it.
    pub(crate) shared_cgroup_top: Option<Rc<OwnedFd>>,
    /// The device filter of every container, where groups are filtered by programs.
    pub(crate) device_program: Option<Rc<Program>>,
    /// Name of the directory in each tree that holds the containers.
    pub(crate) cgroup_parent: String,
    /// Whether overlayfs takes layers one by one (`lowerdir+`, Linux 6.7).
    pub(crate) layer_by_layer: bool,
    /// Version of Landlock, where the kernel has it.
    pub(crate) landlock: Option<u32>,
    /// Paths below `/proc` and `/sys` that exist here and are to be covered or made read-only.
    pub(crate) guarded: Vec<Guard>,
}

/// A path of the kernel's file systems that a container must not use freely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Which file system.
    pub(crate) base: GuardBase,
    /// Path below it.
    pub(crate) path: CString,
    /// How.
    pub(crate) how: GuardHow,
}

/// Which of the kernel's file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardBase {
    /// `/proc`.
    Proc,
    /// `/sys`.
    Sys,
}

/// How a path is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardHow {
    /// `/dev/null` covers a file.
    MaskFile,
    /// An empty read-only directory covers a directory.
    MaskDir,
    /// It is bound over itself, read-only.
    ReadOnly,
}

/// The list that runc, crun and Docker guard by default.
pub(crate) const GUARDS: [(GuardBase, &str, GuardHow); 15] = [
    (GuardBase::Proc, "asound", GuardHow::MaskDir),
    (GuardBase::Proc, "acpi", GuardHow::MaskDir),
    (GuardBase::Proc, "kcore", GuardHow::MaskFile),
    (GuardBase::Proc, "keys", GuardHow::MaskFile),
    (GuardBase::Proc, "latency_stats", GuardHow::MaskFile),
    (GuardBase::Proc, "timer_list", GuardHow::MaskFile),
    (GuardBase::Proc, "sched_debug", GuardHow::MaskFile),
    (GuardBase::Proc, "scsi", GuardHow::MaskDir),
    (GuardBase::Sys, "firmware", GuardHow::MaskDir),
    (
        GuardBase::Sys,
        "devices/virtual/powercap",
        GuardHow::MaskDir,
    ),
    (GuardBase::Proc, "bus", GuardHow::ReadOnly),
    (GuardBase::Proc, "fs", GuardHow::ReadOnly),
    (GuardBase::Proc, "irq", GuardHow::ReadOnly),
    (GuardBase::Proc, "sys", GuardHow::ReadOnly),
    (GuardBase::Proc, "sysrq-trigger", GuardHow::ReadOnly),
];

/// Everything that the child does, in order, and the command at the end, if there is one.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In order; the last one is [`Step::Exec`] or [`Step::Hold`].
    pub(crate) steps: Vec<Step>,
    /// What to run.
    pub(crate) command: Command,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// The spec is not well formed.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Landlock is asked for where there is none.
    #[error("the kernel of this host has no Landlock, or it is switched off")]
    NoLandlock,
    /// This host cannot keep a limit.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// Text without NUL bytes, which a checked spec is made of.
fn c(text: impl AsRef<[u8]>) -> Result<CString, SpecError> {
    CString::new(text.as_ref()).map_err(|_| SpecError::Character("a path or value"))
}

fn c_path(path: &Path) -> Result<CString, SpecError> {
    c(path.as_os_str().as_encoded_bytes())
}

/// The plan of a container and the groups it lives in; `devices` are those of the spec, found.
///
/// # Errors
/// The spec is not well formed, or asks for a limit that this host cannot keep.
pub(crate) fn container(
    host: &HostFacts,
    spec: &ContainerSpec,
    slot: &Slot,
    devices: &[Node],
    inherited: &Inherited,
) -> Result<(Plan, Group), PlanError> {
    spec.check()?;
    let id = spec.id.as_str();
    let parent = &host.cgroup_parent;
    let extra: Vec<DeviceRule> = devices.iter().map(Node::rule).collect();
    let group = Group::new(&host.hierarchies, parent, id, &spec.limits, &extra)?;
    let mut steps = Vec::with_capacity(48);
    // By the host's root, whose they are to be; their limits hold from when they are joined.
    for dir in &group.make {
        steps.push(Step::CgroupMake(c_path(dir)?));
    }
    namespace_steps(spec, &mut steps)?;
    if let Some(score) = spec.oom_score_adj {
        steps.push(Step::OomScore(c(score.to_string())?));
    }
    root_steps(host, spec, slot, inherited, &mut steps)?;
    let who = Who::new(&spec.user)?;
    if spec.has_command() {
        inside_steps(host, spec, devices, &group, inherited, &who, &mut steps)?;
    }
    if inherited.users.is_some() {
        // Only it may move processes between groups.
        steps.push(Step::ActAsRoot);
    }
    // Late, so that a small share of CPU does not slow the set-up down, and before the host's trees
    // are out of sight.
    cgroup_steps(&group, &mut steps)?;
    steps.push(Step::Pivot);
    let hostname = spec.hostname.as_deref().unwrap_or(id);
    steps.push(Step::Hostname(c(
        &hostname.as_bytes()[..hostname.len().min(MAX_HOSTNAME_BYTES)]
    )?));
    // Before the fork: our PID 1 and the command share it, as they share a container.
    steps.push(Step::Keyring);
    let mapped = inherited.users.is_some();
    if !spec.has_command() {
        steps.push(Step::Hold { mapped });
        let command = Command::none(who);
        return Ok((Plan { steps, command }, group));
    }
    if spec.init && own_processes(&spec.namespaces) {
        steps.push(Step::Init { mapped });
    }
    if spec.terminal {
        steps.push(Step::Terminal);
    }
    // After the fork: they are not the init's. Before privileges go: a raise needs one.
    steps.extend(spec.rlimits.iter().copied().map(Step::Rlimit));
    inherited.settle(host, spec.capabilities, &mut steps);
    let command = Command::new(&spec.argv, &spec.env, who)?;
    steps.push(Step::Exec(command.shown()));
    Ok((Plan { steps, command }, group))
}

/// What a command finds in its root, and where and as whom it begins.
fn inside_steps(
    host: &HostFacts,
    spec: &ContainerSpec,
    devices: &[Node],
    group: &Group,
    inherited: &Inherited,
    who: &Who,
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    mount::volumes(host, spec, inherited.users.is_some(), steps)?;
    let shm = c(spec.shm_bytes.unwrap_or(DEFAULT_SHM_BYTES).to_string())?;
    let tty = c((inherited.users.unwrap_or(0) + TTY_GROUP).to_string())?;
    steps.extend([Step::Proc, Step::Sys]);
    let view = CgroupView::new(&host.hierarchies, &host.cgroup_top, group)?;
    steps.extend(view.map(Step::CgroupView));
    steps.push(Step::Dev { shm, tty });
    for node in devices {
        steps.push(device(node)?);
    }
    mount::guards(host, spec, steps)?;
    if spec.terminal {
        steps.push(Step::MakeTerminal(spec.window.map(WindowSize::numbers)));
    }
    let default_cwd = if spec.sandbox.is_some() {
        SANDBOX_TARGET
    } else {
        "/"
    };
    let cwd = spec.cwd.as_deref().unwrap_or(Path::new(default_cwd));
    steps.push(Step::Cwd(InRoot::new(cwd)?));
    if who.needs_lookup() {
        steps.push(Step::LookUpUser(who.clone()));
    }
    mount::secret_owner(steps);
    if spec.read_only_root {
        // Nothing is made in it from here on.
        steps.push(Step::ReadOnlyRoot);
    }
    inherited.groups(steps);
    inherited.landlock(host, steps)
}

/// The plan of one more process in the container whose groups are `group`.
///
/// # Errors
/// The spec is not well formed, or asks for what this host has not.
pub(crate) fn exec(
    host: &HostFacts,
    spec: &ExecSpec,
    group: &Group,
    inherited: &Inherited,
) -> Result<Plan, PlanError> {
    check_command(&spec.argv, &spec.env)?;
    let mut steps = Vec::new();
    for dir in &group.join {
        steps.push(Step::CgroupJoin(c_path(&dir.join("tasks"))?));
    }
    inherited.enter(&mut steps);
    steps.push(Step::Keyring);
    if spec.tty {
        steps.push(Step::MakeTerminal(spec.window.map(WindowSize::numbers)));
    }
    let cwd = spec.cwd.as_deref().unwrap_or(Path::new("/"));
    steps.push(Step::Cwd(InRoot::new(cwd)?));
    let who = Who::new(&spec.user)?;
    if who.needs_lookup() {
        steps.push(Step::LookUpUser(who.clone()));
    }
    inherited.groups(&mut steps);
    inherited.landlock(host, &mut steps)?;
    if spec.tty {
        steps.push(Step::Terminal);
    }
    inherited.settle(host, spec.capabilities, &mut steps);
    let command = Command::new(&spec.argv, &spec.env, who)?;
    steps.push(Step::Exec(command.shown()));
    Ok(Plan { steps, command })
}

fn namespace_steps(spec: &ContainerSpec, steps: &mut Vec<Step>) -> Result<(), SpecError> {
    match spec.network {
        Network::Host => {}
        Network::New => steps.extend([Step::NetLoopback, Step::NetOpen]),
        Network::Namespace | Network::Of(_) => steps.push(Step::NetEnter),
    }
    if matches!(spec.namespaces.ipc, Sharing::Of(_)) {
        steps.push(Step::IpcEnter);
    }
    if let Some(offsets) = spec.namespaces.time {
        steps.push(users::time(offsets)?);
    }
    Ok(())
}

/// Those of the wanted capabilities that this host may give.
pub(crate) fn capabilities(host: &HostFacts, wanted: CapSet) -> CapSet {
    if host.hierarchies.filters_devices() {
        wanted
    } else {
        wanted.without(CAP_MKNOD)
    }
}

fn cgroup_steps(group: &Group, steps: &mut Vec<Step>) -> Result<(), SpecError> {
    for (dir, setting) in &group.settings {
        let file = c_path(&dir.join(&*setting.file))?;
        steps.push(Step::CgroupSet {
            file,
            value: c(&setting.value)?,
        });
    }
    for dir in &group.join {
        steps.push(Step::CgroupJoin(c_path(&dir.join("tasks"))?));
    }
    // Only now: the namespace's root is where the process is when it is made.
    steps.push(Step::CgroupNamespace);
    Ok(())
}

fn slot_step(slot: &Slot) -> Result<Step, SpecError> {
    let named = slot.dir.parent().zip(slot.dir.file_name());
    Ok(match (&slot.limit, named) {
        (Some(limit), Some((parent, name))) => Step::LimitedSlot {
            parent: c_path(parent)?,
            name: c(name.as_encoded_bytes())?,
            limit: match limit {
                RootLimit::Bytes(bytes) => SlotLimit::Bytes(*bytes),
                RootLimit::With(dir) => SlotLimit::With(c_path(dir)?),
            },
        },
        _ => Step::Slot {
            dir: c_path(&slot.dir)?,
            fresh: slot.fresh,
        },
    })
}

fn root_steps(
    host: &HostFacts,
    spec: &ContainerSpec,
    slot: &Slot,
    inherited: &Inherited,
    steps: &mut Vec<Step>,
) -> Result<(), SpecError> {
    steps.push(Step::DetachMounts);
    steps.push(slot_step(slot)?);
    let mapped = inherited.users.is_some();
    if let Some(base) = inherited.users {
        users::map_layers(spec, steps)?;
        steps.extend([Step::MapSlot, Step::ActAs(base)]);
    }
    match &spec.root {
        Root::Layers(layers) => steps.push(overlay(host, layers, mapped)?),
        Root::Host { hide } => {
            steps.push(overlay(host, &[PathBuf::from("/")], mapped)?);
            for (path, mode) in HOST_TMP {
                let step = MountStep::tmpfs(Path::new(path), HOST_TMP_BYTES, mode, false)?;
                steps.push(Step::Mount(step));
            }
            for path in hide {
                steps.push(Step::Hide(InRoot::new(path)?));
            }
        }
    }
    for (name, content) in [
        ("hosts", &spec.files.hosts),
        ("resolv.conf", &spec.files.resolv_conf),
    ] {
        if let Some(content) = content {
            steps.push(Step::EtcFile {
                name: c(name)?,
                content: content.clone().into_bytes(),
            });
        }
    }
    Ok(())
}

fn device(node: &Node) -> Result<Step, SpecError> {
    let below = node.target.strip_prefix("/dev").unwrap_or(&node.target);
    Ok(Step::Device {
        at: InRoot::new(below)?,
        kind: node.kind,
        numbers: (node.major, node.minor),
    })
}

fn overlay(host: &HostFacts, layers: &[PathBuf], mapped: bool) -> Result<Step, SpecError> {
    let seen = |layer: &PathBuf| match layer.to_str() {
        Some("/") if mapped => PathBuf::from(users::MAPPED_ROOT),
        _ => layer.clone(),
    };
    let layers: Vec<PathBuf> = layers.iter().map(seen).collect();
    let (lower, options) = mount::layers(host, &layers, ",upperdir=upper,workdir=work")?;
    Ok(Step::Overlay { lower, options })
}
