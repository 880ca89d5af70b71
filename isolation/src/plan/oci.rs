//! Steps that only an OCI configuration asks for, beside those that it shares with the keeper's
//! containers.
//!
//! They hold numbers of descriptors that the runtime opened before the clone: what lies on the host
//! (bind sources, cgroups, namespaces) is found there, where a failure can be told in full.

use std::ffi::CString;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use nix::sched::CloneFlags;
use rustix::fs::Gid;

use super::{CgroupTop, InRoot};
use crate::seccomp::Program;

/// A descriptor that the runtime opened before the clone.
pub(crate) type Number = i32;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OciStep {
    /// Enter a namespace.
    Join {
        /// Its file.
        file: Number,
        /// Its kind.
        kind: CloneFlags,
        /// How the configuration names it.
        path: String,
    },
    /// Wait until the runtime wrote the id maps, and become root of them.
    AwaitMaps,
    /// Enter the user namespace's root without waiting: it is joined.
    BecomeRoot,
    /// Ask the runtime, which makes the container's groups meanwhile, for their open `tasks` files,
    /// and move this process by each.
    JoinGroups,
    /// Move this process by an open `tasks` or `cgroup.procs` file.
    JoinCgroup {
        /// The file, open for writing.
        file: Number,
        /// Its directory.
        path: String,
    },
    /// Make a time namespace with these offsets and enter it.
    TimeNamespace {
        /// Text for `timens_offsets`.
        offsets: CString,
        /// Whether the user namespace was made for the container.
        own_users: bool,
    },
    /// Write to a file of procfs, seen from the host.
    ProcWrite {
        /// Path below `/proc`.
        path: CString,
        /// What.
        value: CString,
    },
    /// Set how mounts of this namespace reach the host's; `MS_*`.
    Propagation(u32),
    /// Attach the root.
    Root {
        /// Detached tree.
        tree: Number,
        /// Where it came from.
        at: CString,
    },
    /// Mount something.
    Mount(Box<OciMount>),
    /// Make a device node, or bind the host's.
    Device(Box<OciDevice>),
    /// Close everything from this number on that the last steps do not need.
    Settle {
        /// First to close.
        first: u32,
        /// What they need besides the talk with the runtime; at most [`MAX_KEPT`].
        keep: Vec<Number>,
    },
    /// Go on as a child of the runtime, the first to be seen in the PID namespace that was set.
    Birth {
        /// Whether stdin becomes its controlling terminal.
        terminal: bool,
    },
    /// Make the links that every `/dev` has.
    DeviceLinks,
    /// Tell the runtime that its hooks may run, and wait until they did.
    RuntimeHooks,
    /// Run a hook of the container.
    Hook(Rc<OciHook>),
    /// Make a terminal, send its master out and take its slave.
    Terminal {
        /// Socket for the master.
        socket: Number,
        /// Rows and columns.
        size: Option<(u16, u16)>,
        /// Whether `/dev/console` is to be made.
        console: bool,
        /// Whether it becomes the controlling terminal now.
        control: bool,
    },
    /// Make a path unreadable.
    Mask(InRoot),
    /// Make a path unwritable.
    ReadOnlyPath(InRoot),
    /// Make a mount that was made earlier read-only.
    ReadOnlyMount(InRoot),
    /// Make the root read-only.
    ReadOnlyRoot,
    /// Make the new root the root by moving it there, without `pivot_root(2)`.
    MoveRoot,
    /// Set how mounts below the new root reach others; `MS_*`.
    RootPropagation(u32),
    /// Set the NIS domain name.
    DomainName(CString),
    /// Open the working directory; made when missing if so.
    WorkingDirectory {
        /// Which.
        at: InRoot,
        /// Whether it may be made.
        make: bool,
    },
    /// Refuse a program that is not there before saying that all is well.
    FindProgram,
    /// Set a limit; the number is the kernel's.
    Limit {
        /// Which, as the configuration names it.
        name: &'static str,
        /// Kernel's number.
        resource: u32,
        /// In force.
        soft: u64,
        /// Bound.
        hard: u64,
    },
    /// Set the block I/O priority.
    IoPriority(i32),
    /// Set the execution domain.
    Personality(u64),
    /// Become the user with exactly these capabilities.
    Credentials(Box<Credentials>),
    /// Set what a security module makes of the process at exec.
    Label {
        /// The host's procfs.
        proc: Number,
        /// Path below it.
        path: CString,
        /// What to write there.
        value: CString,
    },
    /// Say that all is well and wait for the start; then close what must not be inherited.
    AwaitStart,
    /// Close what must not be inherited: all from this number on.
    CloseFrom(u32),
}

/// Most descriptors of [`OciStep::Settle`].
pub(crate) const MAX_KEPT: usize = 4;

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A detached tree of the host.
    Tree {
        /// Its root.
        tree: Number,
        /// Whether that is a directory.
        is_dir: bool,
    },
    /// What is at a place of the container by then.
    Inside(InsideTree),
    /// A file system made anew.
    New {
        /// Its type.
        kind: CString,
        /// `source` and the other parameters; a flag has no value.
        options: Vec<(CString, Option<CString>)>,
        /// Of procfs: the PID namespace that it shows, if not the caller's (Linux 6.17).
        pids: Option<Number>,
    },
    /// A tmpfs with one directory for each cgroup tree.
    Cgroups {
        /// The directories.
        top: CgroupTop,
        /// What is mounted on them.
        trees: Vec<CgroupTree>,
    },
}

/// A part of the container's own tree, to be shown a second time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InsideTree {
    /// Which.
    pub(crate) from: InRoot,
    /// Whether with what is mounted below.
    pub(crate) recursive: bool,
    /// `MOUNT_ATTR_*` to set and to clear, and whether below as well.
    pub(crate) changes: [(u64, u64, bool); 2],
    /// User namespace that maps its ids, and whether below as well.
    pub(crate) users: Option<(Number, bool)>,
}

/// A directory of the cgroup mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CgroupTree {
    /// Name below the mount.
    pub(crate) name: CString,
    /// Parameter of the file system, such as `memory` or `name=systemd`; None is cgroup2.
    pub(crate) controllers: Option<CString>,
    /// The container's own directory, for when the namespace does not hide the others.
    pub(crate) own: Option<Number>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OciMount {
    /// As a person knows it.
    pub(crate) source: String,
    /// What it shows.
    pub(crate) shown: Shown,
    /// Where.
    pub(crate) at: InRoot,
    /// `MOUNT_ATTR_*` for a new file system.
    pub(crate) attributes: u64,
    /// Whether no symbolic link may lead there.
    pub(crate) strict: bool,
    /// `MS_*`, each applied after the mount was attached.
    pub(crate) propagation: Vec<u32>,
    /// Whether the directory's content is copied into the new file system.
    pub(crate) copy_up: bool,
    /// Whether the mode of the directory that is covered is kept.
    pub(crate) keep_mode: bool,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OciDevice {
    /// Where.
    pub(crate) at: InRoot,
    /// `c`, `b` or `p`.
    pub(crate) kind: u8,
    /// Major number.
    pub(crate) major: u32,
    /// Minor number.
    pub(crate) minor: u32,
    /// Permissions.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// The host's node as a detached mount, where making one is not allowed.
    pub(crate) host: Option<Number>,
}

/// A hook that the child runs.
#[derive(Debug)]
pub(crate) struct OciHook {
    /// As runc names it: kind and place in its list.
    pub(crate) name: CString,
    /// Program.
    pub(crate) path: CString,
    /// Arguments.
    pub(crate) argv: crate::sys::StringArray,
    /// Environment.
    pub(crate) envp: crate::sys::StringArray,
    /// Milliseconds; negative is for ever.
    pub(crate) timeout_ms: i32,
    /// The container's state, as a file to be read from its start.
    pub(crate) state: Number,
    /// The system call filter that it runs under.
    pub(crate) filter: Option<Arc<Program>>,
}

impl PartialEq for OciHook {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.state == other.state
    }
}

impl Eq for OciHook {}

/// Who the process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// User.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<Gid>,
    /// File mode mask.
    pub(crate) umask: u32,
    /// Capability sets, one bit each.
    pub(crate) bounding: u64,
    /// In force.
    pub(crate) effective: u64,
    /// Inheritable.
    pub(crate) inheritable: u64,
    /// Permitted.
    pub(crate) permitted: u64,
    /// Ambient.
    pub(crate) ambient: u64,
    /// Whether exec may never add rights.
    pub(crate) no_new_privileges: bool,
}

impl fmt::Display for OciStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join { path, .. } => write!(f, "join the namespace {path}"),
            Self::AwaitMaps => f.write_str("become root of the user namespace"),
            Self::BecomeRoot => f.write_str("become root of the joined user namespace"),
            Self::JoinGroups => f.write_str("join the cgroups"),
            Self::JoinCgroup { path, .. } => write!(f, "join cgroup {path}"),
            Self::TimeNamespace { .. } => f.write_str("make the time namespace"),
            Self::ProcWrite { path, value } => write!(
                f,
                "write {} to /proc/{}",
                value.to_string_lossy(),
                path.to_string_lossy()
            ),
            Self::Propagation(_) => f.write_str("set the propagation of the host's mounts"),
            Self::Root { at, .. } => write!(f, "mount the root {}", at.to_string_lossy()),
            Self::Mount(mount) => write!(f, "mount {} at {}", mount.source, mount.at),
            Self::Device(device) => write!(f, "make the device {}", device.at),
            Self::Settle { .. } => f.write_str("close what is the host's"),
            Self::Birth { .. } => f.write_str("start in the pid namespace"),
            Self::DeviceLinks => f.write_str("make the links of /dev"),
            Self::RuntimeHooks => f.write_str("wait for the runtime's hooks"),
            Self::Hook(hook) => write!(f, "error running {}", hook.name.to_string_lossy()),
            Self::Terminal { .. } => f.write_str("make the terminal"),
            Self::Mask(at) => write!(f, "mask {at}"),
            Self::ReadOnlyPath(at) => write!(f, "make {at} read-only"),
            Self::ReadOnlyMount(at) => write!(f, "make the mount {at} read-only"),
            Self::ReadOnlyRoot => f.write_str("make the root read-only"),
            Self::MoveRoot => f.write_str("move the root"),
            Self::RootPropagation(_) => f.write_str("set the propagation of the root"),
            Self::DomainName(name) => {
                write!(f, "set the domain name {}", name.to_string_lossy())
            }
            Self::WorkingDirectory { at, .. } => {
                write!(f, "chdir to cwd (\"{at}\") set in config.json")
            }
            Self::FindProgram => f.write_str("find the program"),
            Self::Limit { name, .. } => write!(f, "set the limit {name}"),
            Self::IoPriority(_) => f.write_str("set the I/O priority"),
            Self::Personality(_) => f.write_str("set the personality"),
            Self::Credentials(who) => write!(f, "become user {}:{}", who.uid, who.gid),
            Self::Label { value, .. } => {
                write!(f, "set the security label {}", value.to_string_lossy())
            }
            Self::AwaitStart => f.write_str("wait for the start"),
            Self::CloseFrom(_) => f.write_str("close inherited descriptors"),
        }
    }
}
