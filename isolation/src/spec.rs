//! What a container is to be: plain data that crosses the keeper's socket, checked once here.
//!
//! It decides what is a well-formed wish ([`ContainerSpec::check`]); it deliberately looks at
//! nothing on disk, since the keeper's child sees a missing file when it gets there and says so.
//! Invariant: a checked spec holds only absolute host paths, no NUL bytes and bounded lists.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the sandbox appears inside every container.
pub const SANDBOX_TARGET: &str = "/mnt/mesos/sandbox";

/// Longest container or session id, in bytes: it names cgroup directories (limit 255).
pub const MAX_ID_BYTES: usize = 200;
/// Layers of one image: overlayfs stops at 500.
pub const MAX_LAYERS: usize = 500;
/// `fsconfig(2)` copies at most 256 bytes of a string value, the closing NUL included.
pub const MAX_LAYER_PATH_BYTES: usize = 255;
/// Host volumes of one container.
pub const MAX_MOUNTS: usize = 256;
/// Paths covered in a native task's root, or in one volume.
pub const MAX_HIDDEN: usize = 64;
/// `HOST_NAME_MAX` of Linux.
pub const MAX_HOSTNAME_BYTES: usize = 64;
/// The largest user or group number: the kernel takes `u32::MAX` to mean "leave as it is".
pub const MAX_USER: u32 = u32::MAX - 1;
/// Size of `/etc/hosts` and `/etc/resolv.conf`, each.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

/// Name of a container, unique within one keeper. Letters, digits, `.`, `_` and `-` only, so that
/// it can name a directory and can never climb out of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ContainerId {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let ok = !text.is_empty()
            && text.len() <= MAX_ID_BYTES
            && text.bytes().all(plain)
            && !text.starts_with('.');
        if ok {
            Ok(Self(text))
        } else {
            Err(SpecError::Id(text))
        }
    }
}

impl TryFrom<&str> for ContainerId {
    type Error = SpecError;

    fn try_from(text: &str) -> Result<Self, SpecError> {
        Self::try_from(text.to_owned())
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One container, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Unique within the keeper; starting the same id twice starts one container.
    pub id: ContainerId,
    /// Where the root file system comes from.
    pub root: Root,
    /// Names the container's place on the host: the directory that it is in must exist, and the
    /// keeper keeps the writable layers of its containers there, under names that begin with a dot.
    pub dir: PathBuf,
    /// Host directory bound at [`SANDBOX_TARGET`]; it stays after `Forget`.
    pub sandbox: Option<PathBuf>,
    /// Command; `argv[0]` without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// Whole environment, in order. Nothing of the keeper's own is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory inside; made when missing. None: the sandbox if there is one, else `/`.
    pub cwd: Option<PathBuf>,
    /// Who runs the command.
    pub user: User,
    /// Host name inside; None keeps the id's first 64 bytes.
    pub hostname: Option<String>,
    /// Which network namespace.
    pub network: Network,
    /// What the kernel enforces.
    pub limits: Limits,
    /// Host volumes, mounted in this order.
    pub mounts: Vec<Mount>,
    /// Contents of files in `/etc`.
    pub files: Files,
    /// Whether a tiny PID 1 of ours reaps orphans and forwards signals to every process inside.
    /// Without it the command is PID 1 and the kernel drops signals it has no handler for.
    pub init: bool,
    /// Where stdout and stderr go.
    pub output: Output,
    /// Capabilities the command may have; for a user other than 0 they only bound it.
    #[serde(default = "crate::caps::default_set")]
    pub capabilities: crate::caps::CapSet,
}

impl ContainerSpec {
    /// A container of `argv` with defaults: user root, host network, no limits, no output kept.
    pub fn new(id: ContainerId, root: Root, dir: PathBuf, argv: Vec<String>) -> Self {
        Self {
            id,
            root,
            dir,
            sandbox: None,
            argv,
            env: Vec::new(),
            cwd: None,
            user: User::Root,
            hostname: None,
            network: Network::Host,
            limits: Limits::default(),
            mounts: Vec::new(),
            files: Files::default(),
            init: true,
            output: Output::Discard,
            capabilities: crate::caps::default_set(),
        }
    }
}

/// Source of the root file system. Both get a private writable upper layer in `dir`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// The host's root file system as lower layer, with fresh `/tmp` and `/run`. Other file systems
    /// mounted on the host are not visible.
    Host {
        /// Host directories that an empty read-only tmpfs covers, such as Gantry's own data.
        hide: Vec<PathBuf>,
    },
    /// Unpacked image layers, topmost first.
    Layers(Vec<PathBuf>),
}

/// Who runs the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum User {
    /// Uid 0, gid 0, no supplementary groups.
    Root,
    /// Numbers, no supplementary groups.
    Ids {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// `name`, `number`, `name:group`, `number:number` and so on, looked up in the container's own
    /// `/etc/passwd` and `/etc/group` as `USER` of a Dockerfile is.
    Name(String),
}

/// Network namespace of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The host's.
    Host,
    /// A fresh one with only loopback, up.
    New,
    /// The one whose descriptor travels with the `Start` request.
    Namespace,
}

/// Limits; None leaves the kernel's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Relative weight as in cgroup v1: 1024 is one CPU's worth. The kernel's minimum is 2.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time per period; the kernel's minimum is 1000.
    pub cpu_quota_us: Option<u64>,
    /// Length of the period in microseconds, 1000 to 1,000,000; None: 100,000.
    pub cpu_period_us: Option<u64>,
    /// Bytes of memory, swap included.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
}

/// A host directory or file that appears inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute host path without symbolic links on its way; must exist.
    pub source: PathBuf,
    /// Absolute path inside, not below `/proc`, `/sys` or `/dev`; made when missing.
    pub target: PathBuf,
    /// Whether writing fails with `EROFS`.
    pub read_only: bool,
    /// Host directories below `source`, without symbolic links on the way, that an empty read-only
    /// tmpfs covers inside, such as Gantry's own data; the start fails when one is not there.
    #[serde(default)]
    pub cover: Vec<PathBuf>,
}

/// Contents of files in `/etc`; None leaves what the root has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// `/etc/hosts`.
    pub hosts: Option<String>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: Option<String>,
}

/// Where stdout and stderr go. stdin is always `/dev/null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// `dir/stdout` and `dir/stderr`, written by the keeper; at `max_bytes` a file is renamed to
    /// `stdout.1`, `stdout.1` to `stdout.2` and so on, `keep` old ones at most.
    Files {
        /// Host directory; must exist.
        dir: PathBuf,
        /// Bytes after which a file is rotated; 0 never rotates.
        max_bytes: u64,
        /// Old files kept beside the current one.
        keep: u32,
    },
    /// `/dev/null`.
    Discard,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It called exit with this code, 0 to 255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// From the raw status of `wait(2)`.
    pub fn from_raw(raw: i32) -> Self {
        let signal = raw & 0x7f;
        if signal == 0 {
            Self::Code((raw >> 8) & 0xff)
        } else {
            Self::Signal(signal)
        }
    }

    /// Whether it exited with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => write!(f, "terminated by signal {signal}"),
        }
    }
}

/// Why a spec is not well formed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// Not a usable id.
    #[error("id {0:?} is not 1 to {MAX_ID_BYTES} letters, digits, '.', '_' or '-'")]
    Id(String),
    /// Not an absolute path without `..`.
    #[error("{what} {path:?} is not an absolute path without '..'")]
    Path {
        /// Which field.
        what: &'static str,
        /// The value.
        path: PathBuf,
    },
    /// A target that the container's own mounts own.
    #[error("nothing may be mounted at {0:?}: /, /proc, /sys and /dev are the container's own")]
    Target(PathBuf),
    /// More than the bound.
    #[error("{what}: {got} is more than {max}")]
    TooMany {
        /// Which list or size.
        what: &'static str,
        /// How many were given.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// Nothing where something is needed.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A covered path that is not in its volume.
    #[error("{path:?} does not lie below {volume:?}")]
    Cover {
        /// The path.
        path: PathBuf,
        /// The volume's source.
        volume: PathBuf,
    },
    /// Not an id of a user or group.
    #[error("{0} is not a user or group number: the largest is {MAX_USER}")]
    UserNumber(String),
    /// Not a name of a user or group.
    #[error("{0:?} is not a user or group name: it holds ':' or a line break")]
    UserName(String),
    /// A NUL byte, or `=` in the name of a variable.
    #[error("{0} holds a character that the kernel's interface cannot carry")]
    Character(&'static str),
}

impl ContainerSpec {
    /// Whether the spec is well formed.
    ///
    /// # Errors
    /// The first thing that is not.
    pub fn check(&self) -> Result<(), SpecError> {
        self.check_root()?;
        host_path("dir", &self.dir)?;
        if let Some(sandbox) = &self.sandbox {
            host_path("sandbox", sandbox)?;
        }
        check_command(&self.argv, &self.env)?;
        if let Some(cwd) = &self.cwd {
            host_path("cwd", cwd)?;
        }
        if let User::Name(name) = &self.user {
            no_nul("user", name)?;
        }
        if let Some(name) = &self.hostname {
            no_nul("hostname", name)?;
            bound("hostname", name.len(), MAX_HOSTNAME_BYTES)?;
        }
        self.check_mounts()?;
        for file in [&self.files.hosts, &self.files.resolv_conf]
            .into_iter()
            .flatten()
        {
            bound("file in /etc", file.len(), MAX_FILE_BYTES)?;
        }
        if let Output::Files { dir, .. } = &self.output {
            host_path("output dir", dir)?;
        }
        Ok(())
    }

    fn check_root(&self) -> Result<(), SpecError> {
        match &self.root {
            Root::Host { hide } => {
                bound("hidden paths", hide.len(), MAX_HIDDEN)?;
                hide.iter()
                    .try_for_each(|path| host_path("hidden path", path))
            }
            Root::Layers(layers) => {
                if layers.is_empty() {
                    return Err(SpecError::Empty("the list of layers"));
                }
                bound("layers", layers.len(), MAX_LAYERS)?;
                layers.iter().try_for_each(|path| {
                    host_path("layer", path)?;
                    bound(
                        "bytes of a layer's path",
                        path.as_os_str().len(),
                        MAX_LAYER_PATH_BYTES,
                    )
                })
            }
        }
    }

    fn check_mounts(&self) -> Result<(), SpecError> {
        bound("mounts", self.mounts.len(), MAX_MOUNTS)?;
        for mount in &self.mounts {
            host_path("mount source", &mount.source)?;
            host_path("mount target", &mount.target)?;
            check_cover(mount)?;
            let own = ["/proc", "/sys", "/dev"]
                .iter()
                .any(|own| mount.target.starts_with(own));
            if own || mount.target.components().count() < 2 {
                return Err(SpecError::Target(mount.target.clone()));
            }
        }
        Ok(())
    }
}

/// Checks a command line and its environment.
///
/// # Errors
/// An empty command, or bytes that `execve(2)` cannot carry.
pub fn check_command(argv: &[String], env: &[(String, String)]) -> Result<(), SpecError> {
    match argv.first() {
        None => return Err(SpecError::Empty("the command")),
        Some(program) if program.is_empty() => return Err(SpecError::Empty("the command's name")),
        Some(_) => {}
    }
    argv.iter().try_for_each(|arg| no_nul("an argument", arg))?;
    env.iter().try_for_each(|(name, value)| {
        if name.is_empty() || name.contains('=') {
            return Err(SpecError::Character("the name of a variable"));
        }
        no_nul("the name of a variable", name)?;
        no_nul("the value of a variable", value)
    })
}

fn check_cover(mount: &Mount) -> Result<(), SpecError> {
    bound("covered paths", mount.cover.len(), MAX_HIDDEN)?;
    mount.cover.iter().try_for_each(|path| {
        host_path("covered path", path)?;
        let below = path.strip_prefix(&mount.source);
        match below.map(|rest| rest.components().next()) {
            Ok(Some(_)) => Ok(()),
            _ => Err(SpecError::Cover {
                path: path.clone(),
                volume: mount.source.clone(),
            }),
        }
    })
}

fn no_nul(what: &'static str, text: &str) -> Result<(), SpecError> {
    if text.contains('\0') {
        Err(SpecError::Character(what))
    } else {
        Ok(())
    }
}

fn bound(what: &'static str, got: usize, max: usize) -> Result<(), SpecError> {
    if got > max {
        Err(SpecError::TooMany { what, got, max })
    } else {
        Ok(())
    }
}

fn host_path(what: &'static str, path: &Path) -> Result<(), SpecError> {
    let climbs = path.components().any(|part| part == Component::ParentDir);
    let nul = path.as_os_str().as_encoded_bytes().contains(&0);
    if path.is_absolute() && !climbs && !nul {
        Ok(())
    } else {
        Err(SpecError::Path {
            what,
            path: path.to_owned(),
        })
    }
}
