//! Which namespaces are made by the clone, which are joined, and which come later.

use std::fmt::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsOpenFlags, fsconfig_set_fd, fsopen};

use super::{Kept, c, oci};
use crate::child::oci::ENTERED;
use crate::oci::config::{Config, IdMapping, NamespaceKind};
use crate::oci::error::{OciError, call};
use crate::plan::{OciStep, Step};
use crate::sys::clone_flags;

/// `CLONE_NEWTIME` of `linux/sched.h`.
const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

fn flag(kind: NamespaceKind) -> CloneFlags {
    match kind {
        NamespaceKind::User => CloneFlags::CLONE_NEWUSER,
        NamespaceKind::Pid => CloneFlags::CLONE_NEWPID,
        NamespaceKind::Network => CloneFlags::CLONE_NEWNET,
        NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
        NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
        NamespaceKind::Mount => CloneFlags::CLONE_NEWNS,
        NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        NamespaceKind::Time => NEWTIME,
    }
}

/// A namespace to join.
#[derive(Debug)]
struct Joined {
    kind: NamespaceKind,
    file: i32,
    path: String,
}

/// All of a configuration.
#[derive(Debug)]
pub(in crate::oci) struct Namespaces {
    made: Vec<NamespaceKind>,
    joined: Vec<Joined>,
    /// Of a new user namespace.
    maps: Option<(Vec<IdMapping>, Vec<IdMapping>)>,
}

impl Namespaces {
    /// Opens those that are joined.
    pub(in crate::oci) fn open(config: &Config, kept: &mut Kept) -> Result<Self, OciError> {
        let (mut made, mut joined) = (Vec::new(), Vec::new());
        for namespace in &config.linux.namespaces {
            if namespace.path.is_empty() {
                made.push(namespace.kind);
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::open(namespace.path.as_str(), flags, Mode::empty())
                .map_err(call(format!("open namespace {}", namespace.path)))?;
            joined.push(Joined {
                kind: namespace.kind,
                file: kept.keep(file),
                path: namespace.path.clone(),
            });
        }
        // A user namespace first: it owns the others.
        joined.sort_by_key(|joined| joined.kind);
        let linux = &config.linux;
        let maps = made
            .contains(&NamespaceKind::User)
            .then(|| (linux.uid_mappings.clone(), linux.gid_mappings.clone()));
        Ok(Self { made, joined, maps })
    }

    /// Whether there is one of its own, new or joined.
    pub(in crate::oci) fn has(&self, kind: NamespaceKind) -> bool {
        self.made.contains(&kind) || self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// Whether ids are those of a user namespace.
    pub(in crate::oci) fn users(&self) -> bool {
        self.has(NamespaceKind::User)
    }

    /// The text of `uid_map` and `gid_map`, for a user namespace that the clone makes.
    pub(in crate::oci) fn id_maps(&self) -> Option<(String, String)> {
        let text = |maps: &[IdMapping]| {
            maps.iter().fold(String::new(), |mut text, map| {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{} {} {}", map.container_id, map.host_id, map.size);
                text
            })
        };
        self.maps
            .as_ref()
            .map(|(users, groups)| (text(users), text(groups)))
    }

    /// The PID namespace to set for the clone.
    pub(in crate::oci) fn pid_to_join(&self) -> Option<i32> {
        self.joined
            .iter()
            .find(|joined| joined.kind == NamespaceKind::Pid)
            .map(|joined| joined.file)
    }

    /// Whether the steps of a container that joins a PID namespace can be taken outside it. Where user
    /// namespaces are, only those who are above them reach a process that is not dumpable; procfs
    /// can show another namespace than the caller's since Linux 6.17.
    pub(in crate::oci) fn can_be_apart(&self) -> bool {
        let Some(file) = self.pid_to_join().filter(|_| !self.users()) else {
            return false;
        };
        let Ok(context) = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC) else {
            return false;
        };
        fsconfig_set_fd(&context, c"pidns", crate::sys::oci::borrow(file)).is_ok()
    }

    /// The step before the birth.
    pub(super) fn apart(&self, apart: bool) -> Option<Step> {
        let mut joined = self.joined.iter();
        let pid = joined.find(|joined| joined.kind == NamespaceKind::Pid)?;
        apart.then(|| {
            oci(OciStep::Join {
                file: pid.file,
                kind: flag(pid.kind),
                path: pid.path.clone(),
            })
        })
    }

    /// The user namespace to enter before the clone of the container's first process.
    pub(in crate::oci) fn users_to_join(&self) -> Option<i32> {
        self.joined
            .iter()
            .find(|joined| joined.kind == NamespaceKind::User)
            .map(|joined| joined.file)
    }

    /// The namespaces to enter before a joined user namespace, which may not own them.
    pub(in crate::oci) fn before_users(&self) -> Vec<(i32, CloneFlags)> {
        if self.users_to_join().is_none() {
            return Vec::new();
        }
        let kinds = [NamespaceKind::User, NamespaceKind::Cgroup];
        let joined = self.joined.iter();
        joined
            .filter(|joined| !kinds.contains(&joined.kind))
            .map(|joined| (joined.file, flag(joined.kind)))
            .collect()
    }

    /// Flags of the clone.
    pub(in crate::oci) fn clone_flags(&self) -> u64 {
        let flag = |kind: &NamespaceKind| match kind {
            NamespaceKind::User => clone_flags::NEWUSER,
            NamespaceKind::Pid => clone_flags::NEWPID,
            NamespaceKind::Network => clone_flags::NEWNET,
            NamespaceKind::Ipc => clone_flags::NEWIPC,
            NamespaceKind::Uts => clone_flags::NEWUTS,
            NamespaceKind::Mount => clone_flags::NEWNS,
            NamespaceKind::Cgroup | NamespaceKind::Time => 0,
        };
        self.made.iter().map(flag).fold(0, |all, one| all | one)
    }

    /// The first steps.
    pub(super) fn steps(&self, steps: &mut Vec<Step>) {
        if self.maps.is_some() {
            steps.push(oci(OciStep::AwaitMaps));
        } else if self.users() {
            steps.push(oci(OciStep::BecomeRoot));
        }
        for joined in &self.joined {
            let before_the_clone = matches!(joined.kind, NamespaceKind::Pid | NamespaceKind::User)
                || self.users_to_join().is_some();
            if !before_the_clone && joined.kind != NamespaceKind::Cgroup {
                steps.push(oci(OciStep::Join {
                    file: joined.file,
                    kind: flag(joined.kind),
                    path: joined.path.clone(),
                }));
            }
        }
    }

    /// The steps after the process is in its cgroups: a cgroup namespace's root is where the process
    /// is when it is made.
    pub(super) fn cgroup_steps(&self, steps: &mut Vec<Step>) {
        for joined in &self.joined {
            if joined.kind == NamespaceKind::Cgroup {
                steps.push(oci(OciStep::Join {
                    file: joined.file,
                    kind: flag(joined.kind),
                    path: joined.path.clone(),
                }));
            }
        }
        if self.made.contains(&NamespaceKind::Cgroup) {
            steps.push(Step::CgroupNamespace);
        }
    }

    /// The steps after the others are joined.
    pub(super) fn late_steps(
        &self,
        config: &Config,
        steps: &mut Vec<Step>,
    ) -> Result<(), OciError> {
        if self.made.contains(&NamespaceKind::Time) {
            let mut text = String::new();
            for (clock, offset) in &config.linux.time_offsets {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
            }
            steps.push(oci(OciStep::TimeNamespace {
                offsets: c(text)?,
                own_users: self.maps.is_some(),
            }));
        }
        if self.made.contains(&NamespaceKind::Network) {
            steps.push(Step::NetLoopback);
        }
        Ok(())
    }
}

/// The namespaces of a running process that differ from ours.
#[derive(Debug)]
pub(in crate::oci) struct Entered {
    kinds: CloneFlags,
    users: bool,
    pid: i32,
}

impl Entered {
    /// Looks at `/proc/<pid>/ns`.
    pub(in crate::oci) fn of(pid: i32) -> Self {
        let mut kinds = CloneFlags::empty();
        let mut users = false;
        for (kind, name) in ENTERED {
            let link = |whose: &str| std::fs::read_link(format!("/proc/{whose}/ns/{name}")).ok();
            let theirs = link(&pid.to_string());
            if theirs.is_some() && theirs != link("self") {
                match name {
                    "user" => users = true,
                    _ => kinds |= kind,
                }
            }
        }
        // Its root, even where the mounts are ours.
        Self {
            kinds: kinds | CloneFlags::CLONE_NEWNS,
            users,
            pid,
        }
    }

    pub(super) fn steps(&self, pidfd: i32, steps: &mut Vec<Step>) {
        let join = |kind, name: &str| {
            oci(OciStep::Join {
                file: pidfd,
                kind,
                path: format!("of process {}{name}", self.pid),
            })
        };
        // The user namespace last: we have every right over the others without it. The one of
        // processes holds for children only, so for the process that the last steps make.
        steps.push(join(self.kinds, ""));
        if self.users {
            steps.push(join(CloneFlags::CLONE_NEWUSER, " (user)"));
            steps.push(oci(OciStep::BecomeRoot));
        }
    }
}

/// Opens the file of one of our own namespaces.
pub(in crate::oci) fn own(name: &str) -> Result<OwnedFd, OciError> {
    let path = Path::new("/proc/self/ns").join(name);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).map_err(call(format!("open {}", path.display())))
}

/// Runs `then` with the PID namespace of later children set to that of `file`.
pub(in crate::oci) fn with_pid_namespace<T>(
    file: Option<i32>,
    then: impl FnOnce() -> T,
) -> Result<T, OciError> {
    let Some(file) = file else {
        return Ok(then());
    };
    let home = own("pid")?;
    let enter = |file: i32| {
        nix::sched::setns(crate::sys::oci::borrow(file), CloneFlags::CLONE_NEWPID)
            .map_err(|errno| call("join the pid namespace")(std::io::Error::from(errno)))
    };
    enter(file)?;
    let done = then();
    enter(home.as_raw_fd())?;
    Ok(done)
}
