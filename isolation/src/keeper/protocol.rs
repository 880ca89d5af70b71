//! What travels on the keeper's socket, and how it is framed.
//!
//! One message is one `SOCK_SEQPACKET` packet: a tag byte and JSON. JSON too long for a packet
//! travels in a memfd, whose descriptor comes first among the packet's descriptors. Invariants:
//! sizes and descriptor counts are bounded; decoding garbage is an error, never a panic.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::caps::CapSet;
use crate::spec::{ContainerId, ContainerSpec, ExitStatus, Limits, User, WindowSize};

/// Longest JSON text, in a packet or in a memfd.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Longest JSON text sent in the packet itself; well below the default `SO_SNDBUF`.
pub const MAX_INLINE_BYTES: usize = 64 * 1024;
/// Descriptors in one packet: two pipes, their files and directory for the outlet; a request has up to
/// four, a memfd and the three of `Exec`.
pub const MAX_FDS: usize = 5;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Start a container. Answered by `Started` or `StartFailed`; for an id that the keeper already
    /// has, by what is true of it (`Started`, and `Exited` if so). With `Network::Namespace` the
    /// namespace's descriptor travels along.
    Start {
        /// What to start.
        spec: Box<ContainerSpec>,
    },
    /// Send a signal. `all: false` sends it to PID 1 (which forwards it to everyone when it is our
    /// init); `all: true` to every process in the container's cgroup. Answered only when refused.
    Signal {
        /// Which container.
        id: ContainerId,
        /// Signal number, 1 to 64.
        signo: i32,
        /// Whether to reach every process directly.
        all: bool,
    },
    /// Run one more process inside a running container; its stdin, stdout and stderr travel along
    /// as three descriptors, or, for one with a terminal, a socket on which the terminal's master is
    /// wanted (see [`super::terminal`]), which is there once it has started. Answered by `ExecStarted` or `ExecFailed`, later `ExecExited`.
    Exec {
        /// What to run.
        exec: Box<ExecSpec>,
    },
    /// Hand out the master of a running container's terminal, on a socket that travels along (see
    /// [`super::terminal`]), as is why not. With a pipe besides, what comes out of the terminal is
    /// written there, too, from now on: whoever reads it too slowly to keep it from running full
    /// finds its end, since the container is never held up.
    Attach {
        /// Which container.
        id: ContainerId,
    },
    /// Send a signal to the process of an exec session. SIGKILL ends everything that it started,
    /// but what has a session (`setsid(2)`) of its own.
    SignalExec {
        /// Which session.
        session: ContainerId,
        /// Signal number, 1 to 64.
        signo: i32,
    },
    /// Answered by `Listing`.
    List,
    /// Drop an exited container: its cgroups and private directory are removed. Answered by
    /// `Forgotten`, also for an unknown id; refused while the container runs.
    Forget {
        /// Which container.
        id: ContainerId,
    },
    /// Change limits of a running container; what they do not name stays. Answered by `Updated`, or
    /// refused with the file that the kernel would not take; then the earlier limits hold.
    Update {
        /// Which container.
        id: ContainerId,
        /// What is to change.
        limits: Box<Limits>,
    },
    /// Stop every process of a running container where it is. Answered by `Frozen`. A signal waits
    /// for the thaw, but SIGKILL ends it at once.
    Freeze {
        /// Which container.
        id: ContainerId,
    },
    /// Let a frozen container go on. Answered by `Thawed`, also when it was not frozen.
    Thaw {
        /// Which container.
        id: ContainerId,
    },
    /// End the keeper. Refused while containers run unless `kill`. Answered by `Stopping`, then the
    /// socket closes.
    Stop {
        /// Kill running containers and remove everything.
        kill: bool,
    },
}

/// As much of a request to start a container as every version of it has.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outline {
    Start { spec: Named },
}

#[derive(Deserialize)]
struct Named {
    id: ContainerId,
}

/// The container that a request is to start, even if the rest of it is newer than this program.
pub(super) fn started_by(text: &[u8]) -> Option<ContainerId> {
    let Outline::Start { spec } = serde_json::from_slice(text).ok()?;
    Some(spec.id)
}

/// One more process inside a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Names this process in events; unique among running sessions.
    pub session: ContainerId,
    /// The container.
    pub id: ContainerId,
    /// Command; `argv[0]` without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// Whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory inside; None: `/`.
    pub cwd: Option<std::path::PathBuf>,
    /// Who runs it.
    pub user: User,
    /// Whether it has a terminal, made in the container's `/dev/pts`, as stdin, stdout, stderr and the
    /// controlling terminal. Its end is that of all that it started there.
    pub tty: bool,
    /// The terminal's size at first; None: the kernel's, 0 by 0.
    #[serde(default)]
    pub window: Option<WindowSize>,
    /// Capabilities, as for the container.
    #[serde(default = "crate::caps::default_set")]
    pub capabilities: CapSet,
}

/// What the keeper says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The command is running (it was exec'd). To every client.
    Started {
        /// Which container.
        id: ContainerId,
        /// PID 1 of the container, as the host numbers it.
        pid: i32,
        /// Where what it writes to its root lies on the host, unless a quota bounds it.
        #[serde(default)]
        layer: Option<PathBuf>,
    },
    /// It could not be started; nothing is left of it and the id is free. To every client.
    StartFailed {
        /// Which container.
        id: ContainerId,
        /// What was being done, such as `exec /nope`.
        step: String,
        /// What the kernel said, such as `No such file or directory`.
        error: String,
    },
    /// It ended. To every client, and again to each new client until `Forget`. All its output is in
    /// the files by then.
    Exited {
        /// Which container.
        id: ContainerId,
        /// How.
        status: ExitStatus,
        /// Whether the kernel killed a process inside for want of memory.
        oom_killed: bool,
    },
    /// Everything the keeper has.
    Listing {
        /// In order of id.
        containers: Vec<Listed>,
    },
    /// The exec session's command is running.
    ExecStarted {
        /// Which session.
        session: ContainerId,
        /// Its process id on the host.
        pid: i32,
    },
    /// It could not be started.
    ExecFailed {
        /// Which session.
        session: ContainerId,
        /// What was being done.
        step: String,
        /// What the kernel said.
        error: String,
    },
    /// It ended.
    ExecExited {
        /// Which session.
        session: ContainerId,
        /// How.
        status: ExitStatus,
    },
    /// The limits hold. To every client, as the next two.
    Updated {
        /// Which container.
        id: ContainerId,
    },
    /// Every process stands still.
    Frozen {
        /// Which container.
        id: ContainerId,
    },
    /// They go on.
    Thawed {
        /// Which container.
        id: ContainerId,
    },
    /// The container is unknown from now on.
    Forgotten {
        /// Which container.
        id: ContainerId,
    },
    /// What became of all output since the keeper started. To every client, once a second at most
    /// and only while something changes.
    Output {
        /// Bytes written into files.
        moved_bytes: u64,
        /// Files rotated.
        rotations: u64,
        /// Streams that something holds up: a slow disk, a write that does not end.
        held_up: u64,
    },
    /// A request that was not carried out.
    Refused {
        /// Name of the request, such as `signal`.
        request: String,
        /// The container or session it named, if any.
        id: Option<ContainerId>,
        /// Why.
        error: String,
    },
    /// The keeper ends now.
    Stopping,
}

/// One container in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Which container.
    pub id: ContainerId,
    /// Where it is in its life.
    pub state: ListedState,
    /// Whether it was frozen and not thawed since.
    #[serde(default)]
    pub frozen: bool,
    /// Bytes of output that could not be written (disk full) and were dropped.
    pub dropped_output_bytes: u64,
    /// Where what it writes to its root lies on the host, unless a quota bounds it.
    #[serde(default)]
    pub layer: Option<PathBuf>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListedState {
    /// Cloned, not yet exec'd.
    Starting,
    /// Running.
    Running {
        /// PID 1 of the container, as the host numbers it.
        pid: i32,
    },
    /// Ended, not yet forgotten.
    Exited {
        /// How.
        status: ExitStatus,
        /// Whether the kernel killed a process inside for want of memory.
        oom_killed: bool,
    },
}
