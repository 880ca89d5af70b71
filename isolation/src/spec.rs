//! What a container is to be: plain data that crosses the keeper's socket, checked once here.
//!
//! It decides what is a well-formed wish ([`ContainerSpec::check`]); it deliberately looks at
//! nothing on disk, since the keeper's child sees a missing file when it gets there and says so.
//! Invariant: a checked spec holds only absolute host paths, no NUL bytes and bounded lists.

mod device;
mod error;
mod exit;
mod id;
mod ids;
mod landlock;
mod limits;
mod mount;
mod namespaces;
mod output;
mod rlimit;
mod root_limit;
mod secret;
mod window;

pub use device::{Access, Device, MAX_DEVICES};
pub use error::SpecError;
pub use exit::ExitStatus;
pub use id::ContainerId;
pub use ids::{Ids, MAX_GROUPS};
pub use landlock::{Landlock, MAX_RULES};
pub use limits::{HugePageLimit, IoLimit, Limits};
pub use mount::{MAX_SECRET_BYTES, Mount, MountKind};
pub use namespaces::{Namespaces, Network, Sharing, TimeOffsets};
pub use output::{Kept, MAX_KEPT_FILES, Output};
pub use rlimit::{RLIM_INFINITY, Resource, Rlimit};
pub use root_limit::RootLimit;
pub use secret::Secret;
pub(crate) use secret::wipe;
pub use window::WindowSize;

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::seccomp::{MAX_PROFILE_BYTES, Seccomp};

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
/// Paths that one container has masked, and read-only, each.
pub const MAX_GUARDED: usize = 256;
/// Size of `/dev/shm` where nothing is said; its pages count against the memory limit.
pub const DEFAULT_SHM_BYTES: u64 = 64 << 20;
/// `HOST_NAME_MAX` of Linux.
pub const MAX_HOSTNAME_BYTES: usize = 64;
/// The largest user or group number: the kernel takes `u32::MAX` to mean "leave as it is".
pub const MAX_USER: u32 = u32::MAX - 1;
/// What `/proc/<pid>/oom_score_adj` takes.
const OOM_SCORES: std::ops::RangeInclusive<i32> = -1000..=1000;
/// Size of `/etc/hosts` and `/etc/resolv.conf`, each.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

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
    /// Command; `argv[0]` without a slash is looked up in the `PATH` of `env`. Empty: none. Then
    /// our PID 1 alone holds the namespaces, for other containers to share, until it is killed; of
    /// the file systems it has only the root.
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
    /// Which numbers of the host its users are.
    #[serde(default)]
    pub ids: Ids,
    /// Which other namespaces it shares.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// Limits of its processes; what is not named stays as the keeper got it.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// Supplementary groups besides those of the image.
    #[serde(default)]
    pub groups: Vec<u32>,
    /// How likely the kernel kills it for want of memory, -1000 to 1000; less than the keeper's own
    /// needs `CAP_SYS_RESOURCE` of the keeper. None: the keeper's.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// Whether no program may give it more privileges: set-user-id bits and files' capabilities do
    /// nothing (`PR_SET_NO_NEW_PRIVS`).
    #[serde(default = "yes")]
    pub no_new_privileges: bool,
    /// Which files Landlock lets it reach; None: all that it sees.
    #[serde(default)]
    pub landlock: Option<Landlock>,
    /// Which system calls it may make. Processes that join it get the same filter.
    #[serde(default)]
    pub seccomp: Seccomp,
    /// Whether it has a terminal, made in its own `/dev/pts`, as stdin, stdout, stderr and the
    /// controlling terminal. The keeper holds the master, of which `Request::Attach` gives a copy;
    /// what comes out of it goes to the file of stdout, so there must be [`Output::Files`].
    #[serde(default)]
    pub terminal: bool,
    /// The terminal's size at first; None: the kernel's, 0 by 0.
    #[serde(default)]
    pub window: Option<WindowSize>,
    /// Whether the root file system cannot be written to; volumes, `/dev` and each tmpfs can.
    #[serde(default)]
    pub read_only_root: bool,
    /// Paths inside that show nothing: an empty directory or an empty file. Those that are not
    /// there are passed over. None: what Docker masks of `/proc` and `/sys`.
    #[serde(default)]
    pub masked_paths: Option<Vec<PathBuf>>,
    /// Paths inside that cannot be written to, with everything below. Those that are not there are
    /// passed over. None: what Docker protects of `/proc`.
    #[serde(default)]
    pub read_only_paths: Option<Vec<PathBuf>>,
    /// Size of `/dev/shm`; None: [`DEFAULT_SHM_BYTES`].
    #[serde(default)]
    pub shm_bytes: Option<u64>,
    /// Device nodes beside the standard ones.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// What bounds the writable layer of the root.
    #[serde(default)]
    pub root_limit: Option<RootLimit>,
}

fn yes() -> bool {
    true
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
            ids: Ids::Host,
            namespaces: Namespaces::default(),
            rlimits: Vec::new(),
            groups: Vec::new(),
            oom_score_adj: None,
            no_new_privileges: true,
            landlock: None,
            seccomp: Seccomp::Default,
            terminal: false,
            window: None,
            read_only_root: false,
            masked_paths: None,
            read_only_paths: None,
            shm_bytes: None,
            devices: Vec::new(),
            root_limit: None,
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

/// Contents of files in `/etc`; None leaves what the root has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// `/etc/hosts`.
    pub hosts: Option<String>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: Option<String>,
}

impl ContainerSpec {
    /// Whether anything but our PID 1 is to run in it.
    pub(crate) fn has_command(&self) -> bool {
        !self.argv.is_empty()
    }

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
        // Without a command there must be an init, which needs a PID namespace of its own.
        let has_init = self.init && self.namespaces.pid == Sharing::Own && !self.terminal;
        if self.has_command() || !has_init {
            check_command(&self.argv, &self.env)?;
        }
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
        self.limits.check()?;
        mount::check_all(&self.mounts)?;
        device::check_all(&self.devices)?;
        for paths in [&self.masked_paths, &self.read_only_paths] {
            check_guarded(paths.as_deref().unwrap_or_default())?;
        }
        self.root_limit.as_ref().map_or(Ok(()), root_limit::check)?;
        if self.shm_bytes == Some(0) {
            // To the kernel it would mean no limit.
            return Err(SpecError::Empty("the size of /dev/shm"));
        }
        for file in [&self.files.hosts, &self.files.resolv_conf]
            .into_iter()
            .flatten()
        {
            bound("file in /etc", file.len(), MAX_FILE_BYTES)?;
        }
        self.output.check(self.terminal)?;
        self.check_identity()
    }

    fn check_identity(&self) -> Result<(), SpecError> {
        namespaces::check(&self.id, &self.namespaces, &self.network)?;
        if matches!(&self.ids, Ids::Of(other) if *other == self.id) {
            return Err(SpecError::SharesWithItself(self.id.clone()));
        }
        if let Seccomp::Profile(text) = &self.seccomp {
            bound("bytes of a seccomp profile", text.len(), MAX_PROFILE_BYTES)?;
        }
        rlimit::check_all(&self.rlimits)?;
        ids::check_groups(&self.groups)?;
        if let Some(score) = self
            .oom_score_adj
            .filter(|score| !OOM_SCORES.contains(score))
        {
            return Err(SpecError::OomScore(score));
        }
        self.landlock.as_ref().map_or(Ok(()), landlock::check)
    }

    /// Overwrites its secrets, once something else holds them.
    pub(crate) fn wipe_secrets(&mut self) {
        for mount in &mut self.mounts {
            if let MountKind::Secret { content } = &mut mount.kind {
                content.wipe();
            }
        }
    }

    fn check_root(&self) -> Result<(), SpecError> {
        match &self.root {
            Root::Host { hide } => {
                bound("hidden paths", hide.len(), MAX_HIDDEN)?;
                hide.iter()
                    .try_for_each(|path| host_path("hidden path", path))
            }
            Root::Layers(layers) => mount::check_layers(layers),
        }
    }
}

fn check_guarded(paths: &[PathBuf]) -> Result<(), SpecError> {
    bound("masked or read-only paths", paths.len(), MAX_GUARDED)?;
    paths.iter().try_for_each(|path| {
        host_path("masked or read-only path", path)?;
        if path.components().count() < 2 {
            return Err(SpecError::WholeRoot(path.clone()));
        }
        Ok(())
    })
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
