//! What runs between clone and exec of a container made from an OCI configuration: the same steps as
//! the keeper's children run, and those of [`OciStep`].
//!
//! Unlike the keeper's child it keeps the descriptors of its parent, which closed what it had
//! inherited before it opened any, all with close-on-exec. It deliberately talks to its parent in
//! single bytes: `c` asks for the container's cgroups, which come as descriptors, `h` for the runtime's
//! hooks, `r` says that all is well; the parent answers `g`.
//! After `r`, the parent may be gone: the start then comes over the listening socket, and a later
//! failure is told there.

mod birth;
mod copy;
mod dev;
mod guards;
mod hook;
mod link;
mod mounts;
mod process;
mod reach;

use std::os::fd::BorrowedFd;

use nix::sched::CloneFlags;

use super::{Fault, Progress, needed, paths, report};
use crate::plan::{OciStep, Plan, Step};
use crate::sys::{self, StringArray};
pub(super) use link::Link;
pub(crate) use link::{GO, GROUPS, HOOKS, MAX_DOORS, MAX_WORDS_BYTES, READY, WORDS};

/// The small program that runs the container's.
#[derive(Debug)]
pub(crate) struct Relay<'a> {
    /// Its file.
    pub(crate) file: BorrowedFd<'a>,
    /// Its arguments: one of the command's candidates, then the command's.
    pub(crate) argvs: Vec<StringArray>,
}

/// What the child has of its parent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OciHanded<'a> {
    /// stdin, stdout and stderr; None: those of the parent.
    pub(crate) stdio: Option<[BorrowedFd<'a>; 3]>,
    /// The child's end of a seqpacket socket.
    pub(crate) sync: BorrowedFd<'a>,
    /// Where the start is awaited when not at `sync`.
    pub(crate) start: Option<BorrowedFd<'a>>,
    /// Where to tell the number of a sibling that goes on instead.
    pub(crate) number: Option<BorrowedFd<'a>>,
    /// What only the parent may hold: a lock, its end of the socket.
    pub(crate) parents: [Option<i32>; 2],
    /// What runs the program in its place.
    pub(crate) relay: Option<&'a Relay<'a>>,
}

/// Runs the plan; never returns.
pub(crate) fn run(plan: &Plan, handed: OciHanded<'_>) -> ! {
    let mut progress = Progress {
        link: Some(Link::new(handed.sync, handed.start, handed.number)),
        ..Progress::default()
    };
    for (number, fd) in (0..).zip(handed.stdio.into_iter().flatten()) {
        if sys::dup_to(fd, number, false).is_err() {
            sys::exit_now(125);
        }
    }
    for number in handed.parents.into_iter().flatten() {
        sys::oci::close(number);
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    sys::default_signals();
    // Until exec: what the container runs must not look into this process (CVE-2016-9962).
    let undumpable = rustix::process::DumpableBehavior::NotDumpable;
    let _ = rustix::process::set_dumpable_behavior(undumpable);
    // A session of its own: no signal of a terminal or process group outside reaches it.
    let _ = rustix::process::setsid();
    let nofile = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    for (index, step) in plan.steps.iter().enumerate() {
        let taken = match (step, handed.relay) {
            (Step::Exec(_), Some(relay)) => Err(process::leap(relay, &plan.command, handed.sync)),
            _ => super::take(step, &plan.command, &mut progress, nofile),
        };
        if let Err(fault) = taken {
            if let Some(link) = &progress.link {
                link.say(&report(index, fault));
            }
            sys::exit_now(if matches!(step, Step::Exec(_)) {
                127
            } else {
                1
            });
        }
    }
    sys::exit_now(126)
}

/// Runs one step.
#[expect(clippy::too_many_lines, reason = "one flat match")]
pub(super) fn take(
    step: &OciStep,
    command: &crate::plan::Command,
    progress: &mut Progress,
) -> Result<(), Fault> {
    match step {
        OciStep::Join { file, kind, .. } => {
            nix::sched::setns(sys::oci::borrow(*file), *kind)?;
            if kind.contains(CloneFlags::CLONE_NEWNS) {
                let root = rustix::fs::open(c"/", paths::DIR, rustix::fs::Mode::empty())?;
                progress.root = Some(root);
            }
            Ok(())
        }
        OciStep::AwaitMaps => {
            linked(progress)?.await_go()?;
            process::become_root()
        }
        OciStep::BecomeRoot => process::become_root(),
        OciStep::JoinGroups => Ok(linked(progress)?.join_groups()?),
        OciStep::JoinCgroup { file, .. } => join_group(*file),
        OciStep::TimeNamespace { offsets, own_users } => {
            process::time_namespace(offsets, *own_users)
        }
        OciStep::ProcWrite { path, value } => guards::proc_write(path, value),
        OciStep::Propagation(flags) | OciStep::RootPropagation(flags) => {
            mounts::propagation(c"/", *flags)
        }
        OciStep::Root { tree, at } => mounts::root(*tree, at, &mut progress.root),
        OciStep::Mount(mount) => mounts::mount(needed(&progress.root)?, mount),
        OciStep::Device(device) => dev::node(needed(&progress.root)?, device),
        OciStep::Settle { first, keep } => {
            let cwd = progress.cwd.as_ref();
            let link = progress.link.as_ref().ok_or(rustix::io::Errno::BADF)?;
            progress.root = None;
            birth::settle(*first, keep, link, cwd)
        }
        OciStep::Birth { terminal } => birth::birth(*terminal, linked(progress)?),
        OciStep::DeviceLinks => dev::links(needed(&progress.root)?),
        OciStep::RuntimeHooks => Ok(linked(progress)?.ask(HOOKS)?),
        OciStep::Hook(hook) => {
            let link = progress.link.as_ref().ok_or(rustix::io::Errno::BADF)?;
            hook::run(hook, link, progress.root.as_ref())
        }
        OciStep::Terminal {
            socket,
            size,
            console,
            control,
        } => {
            dev::terminal(needed(&progress.root)?, *socket, *size, *console)?;
            if *control {
                rustix::process::ioctl_tiocsctty(sys::oci::borrow(0))?;
            }
            Ok(())
        }
        OciStep::Mask(at) => guards::mask(progress.root.as_ref(), at, &mut progress.empty),
        OciStep::ReadOnlyPath(at) => guards::read_only(needed(&progress.root)?, at),
        OciStep::ReadOnlyMount(at) => guards::read_only_mount(needed(&progress.root)?, at),
        OciStep::ReadOnlyRoot => guards::read_only_root(needed(&progress.root)?),
        OciStep::MoveRoot => mounts::move_root(needed(&progress.root)?),
        OciStep::DomainName(name) => Ok(rustix::system::setdomainname(name.as_bytes())?),
        OciStep::WorkingDirectory { at, make } => {
            let root = needed(&progress.root)?;
            let cwd = if *make {
                paths::make_dirs(root, at)?
            } else {
                paths::open(root, &at.path, paths::DIR, paths::WITHIN)?
            };
            progress.cwd = Some(cwd);
            Ok(())
        }
        OciStep::Label { proc, path, value } => guards::label(*proc, path, value),
        OciStep::FindProgram => process::find_program(command),
        OciStep::Limit {
            resource,
            soft,
            hard,
            ..
        } => Ok(sys::oci::set_limit(*resource, *soft, *hard)?),
        OciStep::IoPriority(value) => Ok(sys::oci::io_priority(*value)?),
        OciStep::Personality(domain) => Ok(sys::oci::personality(*domain)?),
        OciStep::Credentials(who) => {
            process::become_user(who, needed(&progress.cwd)?)?;
            progress.cwd = None;
            Ok(())
        }
        OciStep::AwaitStart => Ok(linked(progress)?.await_start()?),
        OciStep::CloseFrom(first) => Ok(sys::oci::close_on_exec_from(*first)?),
    }
}

/// "0" stands for the writer.
fn join_group(file: i32) -> Result<(), Fault> {
    rustix::io::write(sys::oci::borrow(file), b"0")?;
    Ok(())
}

fn linked(progress: &mut Progress) -> Result<&mut Link, Fault> {
    progress
        .link
        .as_mut()
        .ok_or(Fault::Errno(rustix::io::Errno::BADF))
}

/// Namespaces that a process of a running container enters.
pub(crate) const ENTERED: [(CloneFlags, &str); 8] = [
    (CloneFlags::CLONE_NEWUSER, "user"),
    (CloneFlags::CLONE_NEWPID, "pid"),
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
    (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
    (CloneFlags::from_bits_retain(0x80), "time"),
    (CloneFlags::CLONE_NEWNS, "mnt"),
];
