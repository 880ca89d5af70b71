//! Starting a container: the plan, the pipes, the clone.
//!
//! Everything slow (mounts, cgroup files, look-ups) is in the plan and runs in the child, so that
//! starts run side by side on all CPUs while this one thread goes on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Rlimit;

use super::Slot;
use super::container::{Container, Failure, Phase, Setup};
use super::exec::PidNamespace;
use super::ids::Users;
use super::outlet::Streams;
use super::output::{NAMES, Rotation, open_dir, open_file};
use super::terminal;
use crate::cgroup::{self, Group, remove_group};
use crate::child::{self, Handed};
use crate::device::{self, DeviceError};
use crate::plan::{self, HostFacts, Inherited, USERS, own_processes};
use crate::seccomp;
use crate::spec::{ContainerSpec, Ids, Network, Output, Sharing};
use crate::sys::{self, Cloned, clone_flags};

/// What a start needs of the keeper.
pub(super) struct Context<'a> {
    pub(super) facts: &'a HostFacts,
    pub(super) null: &'a OwnedFd,
    pub(super) nofile: Rlimit,
    pub(super) shared: Shared<'a>,
}

/// What a container takes of others that run: their pidfds, which `setns(2)` takes for a namespace.
#[derive(Debug, Default)]
pub(super) struct Shared<'a> {
    pub(super) network: Option<BorrowedFd<'a>>,
    pub(super) pid: Option<BorrowedFd<'a>>,
    pub(super) ipc: Option<BorrowedFd<'a>>,
}

fn failed(step: &str) -> impl FnOnce(Errno) -> Failure {
    let step = step.to_owned();
    move |errno| Failure {
        step,
        error: child::Fault::words(errno.raw_os_error()),
    }
}

fn missing(error: DeviceError) -> Failure {
    match error {
        DeviceError::Open { path, source } => {
            failed(&format!("find the device {}", path.display()))(source)
        }
        DeviceError::NotADevice(path) => Failure {
            step: format!("find the device {}", path.display()),
            error: "neither a character nor a block device".to_owned(),
        },
    }
}

/// A pipe whose read end does not block, for short messages.
pub(super) fn message_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

/// Clones the container's first process.
pub(super) fn start(
    context: &Context<'_>,
    home: &mut PidNamespace,
    spec: &mut ContainerSpec,
    slot: Slot,
    (users, filter): (Option<Rc<Users>>, Option<Arc<seccomp::Program>>),
    fds: Vec<OwnedFd>,
) -> Result<Container, Failure> {
    let refuse = |error: String| Failure {
        step: "check the spec".to_owned(),
        error,
    };
    let inherited = Inherited::new(spec, users.as_ref().map(|users| users.base()), filter);
    let devices = device::find(&spec.devices).map_err(missing)?;
    let (mut plan, group) = plan::container(context.facts, spec, &slot, &devices, &inherited)
        .map_err(|error| refuse(error.to_string()))?;
    // The child inherits a copy of everything here.
    spec.wipe_secrets();
    let mut fds = fds.into_iter();
    let mut came = |wanted: bool, what: &str| match wanted.then(|| fds.next()) {
        Some(None) => Err(refuse(format!("no {what} came with the request"))),
        fd => Ok(fd.flatten()),
    };
    let netns = came(spec.network == Network::Namespace, "network namespace")?;
    // The first number that its view of the sandbox does not have.
    let owner = (spec.ids != Ids::Host).then_some(USERS);
    let (streams, write_ends) =
        streams(&spec.output, owner).map_err(failed("open the output files"))?;
    let (report, report_end) = message_pipe().map_err(failed("make a pipe"))?;
    let shares_processes = !own_processes(&spec.namespaces);
    let (arriving, terminal_end) = terminal_socket(spec.terminal)?;
    let (status, status_end) = status_pipe(spec.init && !shares_processes)?;
    let unified = make_unified(context.facts, &group)?;
    let null = context.null.as_fd();
    let [stdout, stderr] = write_ends
        .each_ref()
        .map(|end| end.as_ref().map_or(null, AsFd::as_fd));
    let handed = Handed {
        stdio: [null, stdout, stderr],
        report: report_end.as_fd(),
        namespace: netns.as_ref().map(AsFd::as_fd).or(context.shared.network),
        status: status_end.as_ref().map(AsFd::as_fd),
        users: users.as_ref().map(|users| users.namespace()),
        ipc: context.shared.ipc,
        terminal: terminal_end.as_ref().map(AsFd::as_fd),
        cgroups: context.facts.shared_cgroup_top.as_deref().map(AsFd::as_fd),
        nofile: context.nofile,
    };
    if let Some(pid) = context.shared.pid {
        home.enter(pid).inspect_err(|_| remove_unified(&group))?;
    }
    let cloned = sys::clone3(new_namespaces(spec), unified.as_ref().map(AsFd::as_fd));
    if matches!(cloned, Ok(Cloned::Child)) {
        child::run(&mut plan, &handed);
    }
    home.try_home();
    let (pid, pidfd) = match cloned {
        Ok(Cloned::Parent(pid, Some(pidfd))) => (pid, pidfd),
        Ok(_) => return Err(undo(&group, Errno::BADF)),
        Err(errno) => return Err(undo(&group, errno)),
    };
    Ok(Container {
        id: spec.id.clone(),
        pid,
        pidfd,
        phase: Phase::Starting(Setup::new(report, plan)),
        status_pipe: status,
        streams,
        arriving,
        terminal: None,
        dropped_bytes: 0,
        group,
        frozen: false,
        slot: slot.dir,
        inherited,
        users,
        shares_processes,
    })
}

/// Both ends of the pipe of a container's own PID 1, if it has one.
fn status_pipe(wanted: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>), Failure> {
    let made = wanted.then(message_pipe).transpose();
    Ok(made.map_err(failed("make a pipe"))?.unzip())
}

/// Where the master of a terminal will be, and where it is sent.
fn terminal_socket(wanted: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>), Failure> {
    let made = wanted.then(terminal::pair).transpose();
    Ok(made.map_err(failed("make a socket"))?.unzip())
}

/// Flags of the clone; what is shared is entered or left as it is.
fn new_namespaces(spec: &ContainerSpec) -> u64 {
    let own = |is: bool, flag| if is { flag } else { 0 };
    clone_flags::PIDFD
        | clone_flags::NEWNS
        | clone_flags::NEWUTS
        | own(own_processes(&spec.namespaces), clone_flags::NEWPID)
        | own(spec.namespaces.ipc == Sharing::Own, clone_flags::NEWIPC)
        | own(spec.network == Network::New, clone_flags::NEWNET)
}

fn make_unified(facts: &HostFacts, group: &Group) -> Result<Option<OwnedFd>, Failure> {
    let usual = facts.device_program.as_deref();
    cgroup::make_unified(group, usual).map_err(|error| failed(&error.step)(error.errno))
}

fn undo(group: &Group, errno: Errno) -> Failure {
    remove_unified(group);
    failed("clone the container's first process")(errno)
}

fn remove_unified(group: &Group) {
    if let Some(dir) = &group.unified
        && let Err(error) = remove_group(dir)
    {
        eprintln!("remove {}: {error}", dir.display());
    }
}

/// Both output streams: ours, and the container's ends.
fn streams(
    output: &Output,
    owner: Option<u32>,
) -> Result<(Option<Streams>, [Option<OwnedFd>; 2]), Errno> {
    let Output::Files {
        dir,
        stdout,
        stderr,
    } = output
    else {
        return Ok((None, [None, None]));
    };
    let dir = open_dir(dir)?;
    let rotations = [*stdout, *stderr].map(|kept| Rotation { kept, owner });
    // Nobody else is in the directory yet, so this waits for nobody.
    let open = |stream: usize| open_file(&dir, NAMES[stream], rotations[stream]);
    let files = [open(0)?.0, open(1)?.0];
    let (stdout, stdout_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, stderr_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let streams = Streams::new(dir, [stdout, stderr], files, rotations);
    Ok((Some(streams), [Some(stdout_end), Some(stderr_end)]))
}
