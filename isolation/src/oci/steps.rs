//! From a configuration to the plan of its first process, or of one more.
//!
//! It decides the order of the steps. What lies on the host is opened here, before the clone, so that
//! what is missing is told by name; the plan holds the descriptors' numbers and [`Kept`] keeps them
//! open until the process was cloned.

mod devices;
mod label;
mod mounts;
mod namespaces;
mod process;

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::mount::MountPropagationFlags as Propagation;

pub(super) use label::{apparmor_enabled, selinux_enabled};
pub(super) use namespaces::{Entered, Namespaces, with_pid_namespace};
pub(super) use process::{
    ProcessPlan, capability_names, capability_warnings, home, parse_capability, schedule,
};

use super::config::{Config, Hooks, NamespaceKind, Process};
use super::error::OciError;
use super::groups::Groups;
use crate::cgroup::{Door, OwnTree};
use crate::plan::{Command, InRoot, OciHook, OciStep, Plan, Step};
use crate::seccomp::Program;

/// Descriptors that a plan names by number.
#[derive(Debug, Default)]
pub(super) struct Kept(Vec<OwnedFd>);

impl Kept {
    /// Keeps one open and gives its number.
    pub(super) fn keep(&mut self, fd: OwnedFd) -> i32 {
        let number = fd.as_raw_fd();
        self.0.push(fd);
        number
    }
}

/// What a container's plan is made of.
pub(super) struct Input<'a> {
    pub(super) config: &'a Config,
    pub(super) process: &'a Process,
    pub(super) bundle: &'a Path,
    pub(super) rootfs: &'a Path,
    pub(super) trees: &'a [OwnTree],
    pub(super) groups: &'a Groups,
    /// Open `tasks` files, with their directories; None: the process asks for them.
    pub(super) doors: Option<Vec<Door>>,
    /// Where the terminal's master goes.
    pub(super) console: Option<i32>,
    /// Files with the container's state, for hooks of the container: while it is made, once it is.
    pub(super) hook_states: Option<(i32, i32)>,
    pub(super) no_pivot: bool,
    /// Whether a process outside a joined PID namespace takes the steps, see [`OciStep::Birth`].
    pub(super) apart: bool,
    pub(super) no_new_keyring: bool,
    /// Descriptors from here on are not the container's.
    pub(super) first_closed: u32,
    /// How many descriptors it may find by `LISTEN_FDS`.
    pub(super) listen_fds: u32,
    /// The small program that the last step runs.
    pub(super) relay: Option<i32>,
}

pub(super) fn c(text: impl AsRef<[u8]>) -> Result<CString, OciError> {
    CString::new(text.as_ref())
        .map_err(|_| OciError::Refused("config.json: a value holds a NUL byte".to_owned()))
}

/// A path inside, whatever way it was written: `..` ends at the root.
pub(super) fn inside(path: &str) -> Result<InRoot, OciError> {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    InRoot::new(&clean).map_err(|error| OciError::Refused(error.to_string()))
}

fn oci(step: OciStep) -> Step {
    Step::Oci(step)
}

/// The plan of a container's first process.
pub(super) fn container(
    mut input: Input<'_>,
    namespaces: &Namespaces,
    kept: &mut Kept,
) -> Result<Plan, OciError> {
    let config = input.config;
    let mut steps = Vec::with_capacity(64);
    namespaces.steps(&mut steps);
    // The runtime makes the groups meanwhile, so the later they are asked for the less they cost.
    let doors = input.doors.take();
    let late = doors.is_none();
    if let Some(doors) = doors {
        cgroup_steps(doors, kept, &mut steps);
        namespaces.cgroup_steps(&mut steps);
    }
    namespaces.late_steps(config, &mut steps)?;
    kernel_settings(config, &mut steps)?;
    let propagation = mounts::propagation(&config.linux.rootfs_propagation)?;
    steps.push(oci(OciStep::Propagation(
        mounts::host_propagation(propagation).bits(),
    )));
    let root = mounts::root_tree(input.rootfs, propagation)?;
    steps.push(oci(OciStep::Root {
        tree: kept.keep(root),
        at: c(input.rootfs.as_os_str().as_encoded_bytes())?,
    }));
    let context = mounts::Context {
        config,
        bundle: input.bundle,
        rootfs: input.rootfs,
        trees: input.trees,
        groups: input.groups,
        propagation,
        users: namespaces.users(),
        own_cgroups: namespaces.has(NamespaceKind::Cgroup),
        pids: namespaces.pid_to_join().filter(|_| input.apart),
    };
    let read_only = mounts::steps(&context, kept, &mut steps)?;
    devices::steps(config, namespaces, kept, &mut steps)?;
    if late {
        // On v2 the process was born in its only one.
        if !input.groups.pure_v2() {
            steps.push(oci(OciStep::JoinGroups));
        }
        namespaces.cgroup_steps(&mut steps);
    }
    let created = runtime_steps(&input, &mut steps)?;
    guards(config, read_only, input.process, &mut steps)?;
    steps.push(if input.no_pivot {
        oci(OciStep::MoveRoot)
    } else {
        Step::Pivot
    });
    if propagation.intersects(Propagation::SHARED | Propagation::UNBINDABLE) {
        steps.push(oci(OciStep::RootPropagation(propagation.bits())));
    }
    // For the process that the last steps make; hooks are still run in our PID namespace.
    steps.extend(namespaces.apart(input.apart));
    last(&input, created, kept, steps)
}

/// Adds the terminal, and the hooks before the change of root. The state of a container that was made.
fn runtime_steps(input: &Input<'_>, steps: &mut Vec<Step>) -> Result<i32, OciError> {
    if let Some(socket) = input.console {
        let size = input.process.console_size;
        steps.push(oci(OciStep::Terminal {
            socket,
            size: size.map(|size| (size.height, size.width)),
            console: true,
            control: !input.apart,
        }));
    }
    let hooks = &input.config.hooks;
    if wants_runtime(hooks) {
        steps.push(oci(OciStep::RuntimeHooks));
    }
    let (creating, created) = input.hook_states.unwrap_or((-1, -1));
    let container = &hooks.create_container;
    hook_steps("createContainer", container, &[], (creating, None), steps)?;
    Ok(created)
}

/// Adds the steps from the keyring to exec.
fn last(
    input: &Input<'_>,
    created: i32,
    kept: &mut Kept,
    mut steps: Vec<Step>,
) -> Result<Plan, OciError> {
    let config = input.config;
    let mut plan = ProcessPlan {
        process: input.process,
        new_keyring: !input.no_new_keyring,
        first_closed: input.first_closed,
        listen_fds: input.listen_fds,
        home: home(input.rootfs, config, input.process),
        seccomp: config.linux.seccomp.as_ref(),
        personality: config.linux.personality.as_ref(),
        kept: vec![created, input.relay.unwrap_or(-1)],
    };
    let mut after = Vec::new();
    let start = &config.hooks.start_container;
    let env = plan.environment();
    let filter = plan.filter()?;
    // Those that have no_new_privs may load it themselves; the others are in it already.
    let theirs = match &filter {
        Some(Step::Filter(program)) if input.process.no_new_privileges => Some(program),
        _ => None,
    };
    hook_steps("startContainer", start, &env, (created, theirs), &mut after)?;
    // After the hooks, which are not confined by it.
    if let Some((step, proc)) = label::step(input.process, kept)? {
        if start.is_empty() {
            steps.push(step);
        } else {
            plan.kept.push(proc);
            after.push(step);
        }
    }
    let terminal = input.console.is_some();
    let birth = input.apart.then(|| oci(OciStep::Birth { terminal }));
    plan.finish(steps, birth, filter, after)
}

/// Whether the runtime has hooks to run, or to tell the process id: the container's own need it, too.
fn wants_runtime(hooks: &Hooks) -> bool {
    let all = [
        &hooks.prestart,
        &hooks.create_runtime,
        &hooks.create_container,
        &hooks.start_container,
    ];
    all.iter().any(|list| !list.is_empty())
}

fn cgroup_steps(doors: Vec<Door>, kept: &mut Kept, steps: &mut Vec<Step>) {
    for (dir, door) in doors {
        steps.push(oci(OciStep::JoinCgroup {
            path: dir.display().to_string(),
            file: kept.keep(door),
        }));
    }
}

fn kernel_settings(config: &Config, steps: &mut Vec<Step>) -> Result<(), OciError> {
    if !config.hostname.is_empty() {
        steps.push(Step::Hostname(c(&config.hostname)?));
    }
    if !config.domainname.is_empty() {
        steps.push(oci(OciStep::DomainName(c(&config.domainname)?)));
    }
    for (name, value) in &config.linux.sysctl {
        let path = format!("sys/{}", super::check::sysctl_path(name));
        steps.push(oci(OciStep::ProcWrite {
            path: c(path)?,
            value: c(value)?,
        }));
    }
    Ok(())
}

fn guards(
    config: &Config,
    read_only: Vec<InRoot>,
    process: &Process,
    steps: &mut Vec<Step>,
) -> Result<(), OciError> {
    for path in &config.linux.readonly_paths {
        steps.push(oci(OciStep::ReadOnlyPath(inside(path)?)));
    }
    for path in &config.linux.masked_paths {
        steps.push(oci(OciStep::Mask(inside(path)?)));
    }
    steps.push(oci(OciStep::WorkingDirectory {
        at: inside(&process.cwd)?,
        make: true,
    }));
    let mounts = read_only.into_iter().map(OciStep::ReadOnlyMount).map(oci);
    steps.extend(mounts);
    if config.root.as_ref().is_some_and(|root| root.readonly) {
        steps.push(oci(OciStep::ReadOnlyRoot));
    }
    Ok(())
}

/// Without an environment of its own a hook gets `env`.
fn hook_steps(
    kind: &str,
    hooks: &[super::config::Hook],
    env: &[String],
    (state, filter): (i32, Option<&Arc<Program>>),
    steps: &mut Vec<Step>,
) -> Result<(), OciError> {
    for (index, hook) in hooks.iter().enumerate() {
        let strings = |list: &[String]| list.iter().map(c).collect::<Result<Vec<_>, _>>();
        let argv = if hook.args.is_empty() {
            vec![c(&hook.path)?]
        } else {
            strings(&hook.args)?
        };
        steps.push(oci(OciStep::Hook(std::rc::Rc::new(OciHook {
            name: c(format!("{kind} hook #{index}"))?,
            path: c(&hook.path)?,
            argv: crate::sys::StringArray::new(argv),
            envp: crate::sys::StringArray::new(strings(if hook.env.is_empty() {
                env
            } else {
                &hook.env
            })?),
            timeout_ms: super::hooks::timeout_ms(hook),
            state,
            filter: filter.cloned(),
        }))));
    }
    Ok(())
}

/// The plan of one more process in the container whose first one `pidfd` names.
pub(super) fn exec(
    plan: &ProcessPlan<'_>,
    pidfd: i32,
    namespaces: &Entered,
    doors: Vec<Door>,
    console: Option<i32>,
    kept: &mut Kept,
) -> Result<Plan, OciError> {
    let mut steps = Vec::with_capacity(32);
    // While the host's procfs is in reach; a clone passes it on.
    steps.extend(label::step(plan.process, kept)?.map(|(step, _)| step));
    cgroup_steps(doors, kept, &mut steps);
    namespaces.steps(pidfd, &mut steps);
    steps.push(oci(OciStep::WorkingDirectory {
        at: inside(&plan.process.cwd)?,
        make: false,
    }));
    if let Some(socket) = console {
        let size = plan.process.console_size;
        steps.push(oci(OciStep::Terminal {
            socket,
            size: size.map(|size| (size.height, size.width)),
            console: false,
            control: false,
        }));
    }
    let terminal = console.is_some();
    let birth = Some(oci(OciStep::Birth { terminal }));
    plan.finish(steps, birth, plan.filter()?, Vec::new())
}

/// The command, ready for exec.
fn command(process: &Process, env: &[String]) -> Result<Command, OciError> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text.clone(), String::new()),
    };
    let env: Vec<(String, String)> = env.iter().map(pair).collect();
    Command::new(
        &process.args,
        &env,
        crate::plan::Who::Ids(process.user.uid, process.user.gid),
    )
    .map_err(|error| OciError::Refused(error.to_string()))
}
