//! One step of a plan, as the child runs it and as a person reads it.

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;

use rustix::fs::FileType;

use super::mount::show_layers;
use super::{
    CgroupView, Guard, GuardBase, GuardHow, InRoot, LandlockRule, MountStep, OciStep, Who,
};
use crate::caps::CapSet;
use crate::seccomp::Program;
use crate::spec::{RLIM_INFINITY, Rlimit, Secret};

/// What a slot may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SlotLimit {
    /// So many bytes.
    Bytes(u64),
    /// What is left of this directory's limit.
    With(CString),
}

impl fmt::Display for SlotLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "for {bytes} bytes"),
            Self::With(dir) => write!(f, "within the limit of {}", dir.to_string_lossy()),
        }
    }
}

/// One step. Its `Display` is what a failure report says was being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a v1 group.
    CgroupMake(CString),
    /// Write a limit.
    CgroupSet {
        /// Path of the file.
        file: CString,
        /// What to write.
        value: CString,
    },
    /// Move this process by its group's `tasks` file.
    CgroupJoin(CString),
    /// Mount the container's own groups, read-only.
    CgroupView(CgroupView),
    /// Make the current groups the root of what the container sees.
    CgroupNamespace,
    /// Enter the network namespace that came with the request.
    NetEnter,
    /// Bring loopback up in a fresh network namespace.
    NetLoopback,
    /// Let everyone ping without raw sockets and use every port, in a fresh network namespace.
    NetOpen,
    /// Enter the IPC namespace of another container.
    IpcEnter,
    /// Make a time namespace with these offsets.
    Time(CString),
    /// Say how likely the kernel kills this process for want of memory.
    OomScore(CString),
    /// Have the host's root appear with the container's ids, at a descriptor.
    MapRoot,
    /// Let the slot's files appear with the container's ids.
    MapSlot,
    /// Let the files of a host directory appear with the container's ids.
    MapTree {
        /// Which.
        path: CString,
        /// What in it must be on its file system.
        names: Vec<CString>,
    },
    /// Make files as this user of the host, the container's root.
    ActAs(u32),
    /// Make files as the host's root again.
    ActAsRoot,
    /// Stop mounts of this namespace and the host's from reaching each other.
    DetachMounts,
    /// Enter the directory with the overlay's upper and work directories.
    Slot {
        /// Which.
        dir: CString,
        /// Whether it is to be made first.
        fresh: bool,
    },
    /// Make a slot that may hold only so much, and enter it.
    LimitedSlot {
        /// The directory that it is made in.
        parent: CString,
        /// Its name there.
        name: CString,
        /// The limit.
        limit: SlotLimit,
    },
    /// Mount the root over these lower directories.
    Overlay {
        /// Topmost first.
        lower: Vec<CString>,
        /// The whole option text, for kernels that do not take layers one by one.
        options: Option<CString>,
    },
    /// Mount something.
    Mount(MountStep),
    /// Cover a directory by an empty read-only one.
    Hide(InRoot),
    /// Write a file in `/etc`.
    EtcFile {
        /// Its name.
        name: CString,
        /// Its content.
        content: Vec<u8>,
    },
    /// Make the memory for all secrets.
    Secrets {
        /// Its bound in bytes.
        size: CString,
    },
    /// Make a secret and mount it, read-only.
    Secret {
        /// Where.
        at: InRoot,
        /// Its number, which names it among the secrets.
        name: CString,
        /// What is in it.
        content: Secret,
    },
    /// Give the secrets of these numbers, all that there are, to the command's user.
    SecretOwner(Vec<CString>),
    /// Cover a directory within the volume of the step before by an empty read-only one.
    Cover {
        /// On the host, as a person knows it.
        path: CString,
        /// The same from the volume's root, without a leading slash.
        within: CString,
    },
    /// Mount `/proc`.
    Proc,
    /// Mount `/sys`, read-only.
    Sys,
    /// Mount `/dev` with its nodes, `pts`, `shm` and `mqueue`.
    Dev {
        /// Size of `shm` in bytes.
        shm: CString,
        /// Number of the host of the group of terminals.
        tty: CString,
    },
    /// Make a device in `/dev`.
    Device {
        /// Below `/dev`.
        at: InRoot,
        /// Block or character device.
        kind: FileType,
        /// Numbers of the driver and within the driver.
        numbers: (u32, u32),
    },
    /// Cover or protect a path of the kernel's file systems.
    Guard(Guard),
    /// Make a path of the root read-only with all below it, if it is there.
    Protect(InRoot),
    /// Cover a file or directory of the root by an empty one, if it is there.
    Mask(InRoot),
    /// Make the root itself read-only.
    ReadOnlyRoot,
    /// Open the working directory, making it when missing.
    Cwd(InRoot),
    /// Find the user's and groups' numbers.
    LookUpUser(Who),
    /// Add supplementary groups.
    Groups(Vec<u32>),
    /// Give the pipes and terminals among the streams to the user.
    OwnStreams,
    /// Make the new root the root and drop the host's.
    Pivot,
    /// Set the host name.
    Hostname(CString),
    /// Leave the session keyring of the host.
    Keyring,
    /// Become the tiny PID 1 and go on in a child.
    Init {
        /// Whether PID 1 enters the user namespace.
        mapped: bool,
    },
    /// Become the tiny PID 1 of a container without a command, and wait.
    Hold {
        /// Whether it enters the user namespace.
        mapped: bool,
    },
    /// Enter the namespaces of a running container.
    EnterContainer {
        /// Whether it has a time namespace.
        time: bool,
    },
    /// Make a terminal of so many rows and columns, send its master out, and have its slave as stdin,
    /// stdout and stderr.
    MakeTerminal(Option<(u16, u16)>),
    /// Make stdin the controlling terminal.
    Terminal,
    /// Set a resource limit.
    Rlimit(Rlimit),
    /// Enter the user namespace.
    EnterUsers,
    /// Become the user with these capabilities at most.
    Credentials(CapSet),
    /// Give up every way to gain more.
    NoNewPrivileges,
    /// Make the rules of Landlock.
    LandlockRules {
        /// Which version the kernel has.
        version: u32,
        /// What is allowed.
        rules: Vec<LandlockRule>,
    },
    /// Enforce them.
    Confine,
    /// Load the filter of system calls.
    Filter(Arc<Program>),
    /// What only an OCI configuration asks for.
    Oci(OciStep),
    /// Run the command.
    Exec(String),
}

impl fmt::Display for Step {
    #[expect(clippy::too_many_lines, reason = "one flat match")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CgroupMake(path) => write!(f, "make cgroup {}", path.to_string_lossy()),
            Self::CgroupSet { file, value } => {
                write!(
                    f,
                    "set {} to {}",
                    file.to_string_lossy(),
                    value.to_string_lossy()
                )
            }
            Self::CgroupJoin(path) => write!(f, "join cgroup {}", path.to_string_lossy()),
            Self::CgroupView(view) => view.fmt(f),
            Self::CgroupNamespace => f.write_str("make the cgroup namespace"),
            Self::NetEnter => f.write_str("enter the network namespace"),
            Self::NetLoopback => f.write_str("bring loopback up"),
            Self::NetOpen => f.write_str("allow ping and every port"),
            Self::IpcEnter => f.write_str("enter the IPC namespace"),
            Self::Time(_) => f.write_str("make the time namespace"),
            Self::OomScore(score) => write!(f, "set oom_score_adj to {}", score.to_string_lossy()),
            Self::MapRoot => f.write_str("map the ids of /"),
            Self::MapSlot => f.write_str("map the ids of the slot"),
            Self::MapTree { path, .. } => write!(f, "map the ids of {}", path.to_string_lossy()),
            Self::ActAs(id) => write!(f, "make files as user {id} of the host"),
            Self::ActAsRoot => f.write_str("make files as root of the host"),
            Self::DetachMounts => f.write_str("detach from the host's mounts"),
            Self::Slot { dir, fresh } => {
                let verb = if *fresh { "make" } else { "enter" };
                write!(f, "{verb} the slot {}", dir.to_string_lossy())
            }
            Self::LimitedSlot {
                parent,
                name,
                limit,
            } => {
                let (parent, name) = (parent.to_string_lossy(), name.to_string_lossy());
                write!(f, "make the slot {parent}/{name} {limit}")
            }
            Self::Overlay { lower, .. } => {
                f.write_str("mount the root over ")?;
                show_layers(lower, f)
            }
            Self::Mount(step) => step.fmt(f),
            Self::Hide(at) => write!(f, "hide {at}"),
            Self::EtcFile { name, .. } => write!(f, "write /etc/{}", name.to_string_lossy()),
            Self::Secrets { size } => {
                write!(f, "make {} bytes for secrets", size.to_string_lossy())
            }
            Self::Secret { at, .. } => write!(f, "mount a secret at {at}"),
            Self::SecretOwner(_) => f.write_str("give the secrets to the user"),
            Self::Cover { path, .. } => {
                write!(f, "cover {} in the volume", path.to_string_lossy())
            }
            Self::Proc => f.write_str("mount /proc"),
            Self::Sys => f.write_str("mount /sys"),
            Self::Dev { .. } => f.write_str("mount /dev"),
            Self::Device { at, .. } => write!(f, "make the device /dev{at}"),
            Self::Guard(guard) => guard.fmt(f),
            Self::Protect(at) => write!(f, "protect {at}"),
            Self::Mask(at) => write!(f, "mask {at}"),
            Self::ReadOnlyRoot => f.write_str("make the root read-only"),
            Self::Cwd(path) => write!(f, "open the working directory {path}"),
            Self::LookUpUser(who) => write!(f, "find user {who} in the container"),
            Self::Pivot => f.write_str("change the root"),
            Self::Hostname(name) => write!(f, "set the host name {}", name.to_string_lossy()),
            Self::Keyring => f.write_str("join a session keyring of its own"),
            Self::Groups(groups) => write!(f, "add groups {groups:?}"),
            Self::OwnStreams => f.write_str("give the streams to the user"),
            Self::Init { .. } => f.write_str("fork from the init"),
            Self::Hold { .. } => f.write_str("hold the namespaces"),
            Self::EnterContainer { .. } => f.write_str("enter the container"),
            Self::MakeTerminal(_) => f.write_str("make the terminal"),
            Self::Terminal => f.write_str("take the terminal"),
            Self::Rlimit(limit) => {
                let value = |value| match value {
                    RLIM_INFINITY => "unlimited".to_owned(),
                    value => value.to_string(),
                };
                let (soft, hard) = (value(limit.soft), value(limit.hard));
                write!(f, "set {} to {soft}:{hard}", limit.resource)
            }
            Self::EnterUsers => f.write_str("enter the user namespace"),
            Self::Credentials(caps) => write!(f, "drop privileges to {:#x}", caps.bits()),
            Self::LandlockRules { rules, .. } => {
                f.write_str("make the Landlock rules for")?;
                rules.iter().try_for_each(|rule| {
                    let how = if rule.write { "" } else { " (read-only)" };
                    write!(f, " {}{how}", rule.at)
                })
            }
            Self::Confine => f.write_str("enforce the Landlock rules"),
            Self::Filter(program) => {
                let length = program.instructions().len();
                write!(f, "load the system call filter of {length} instructions")
            }
            Self::NoNewPrivileges => f.write_str("allow no new privileges"),
            Self::Oci(step) => step.fmt(f),
            Self::Exec(program) => write!(f, "exec {program}"),
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.how {
            GuardHow::MaskFile | GuardHow::MaskDir => "mask",
            GuardHow::ReadOnly => "protect",
        };
        let base = match self.base {
            GuardBase::Proc => "proc",
            GuardBase::Sys => "sys",
        };
        write!(f, "{verb} /{base}/{}", self.path.to_string_lossy())
    }
}
