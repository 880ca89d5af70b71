//! From the way a process ended to the state, reason and words of a terminal update
//! (Mesos: `src/launcher/executor.cpp`, `reaped`). Decides only that mapping.

use gantry_wire::agent::LimitsMessage;
use gantry_wire::task::{Reason, TaskState};

const MIB: u64 = 1 << 20;

/// How a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or the signal that ended it.
    pub status: Result<i32, i32>,
    /// Whether the kernel killed a process of it at its memory limit.
    pub oom_killed: bool,
}

impl Exit {
    /// Status as wait(2) gives it.
    #[must_use]
    pub fn raw(self) -> i32 {
        self.status.map_or_else(|signal| signal, |code| code << 8)
    }

    /// Status as a shell counts it: the code, or 128 + the signal.
    #[must_use]
    pub fn shell_code(self) -> i32 {
        match self.status {
            Ok(code) => code,
            Err(signal) => signal.saturating_add(128),
        }
    }
}

/// What was found in the sandbox and the root of a task that hold more than it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiskExcess {
    /// Bytes that were counted.
    pub used_bytes: u64,
    /// Bytes that the task may use.
    pub limit_bytes: u64,
    /// Files and directories that were counted.
    #[serde(default)]
    pub used_files: u64,
    /// How many of them come with so many bytes.
    #[serde(default)]
    pub limit_files: u64,
    /// Whether there is, or may be, more: its directories are too deep, or move about too fast,
    /// to be counted to the end.
    pub uncounted: bool,
    /// Descriptors that it keeps in sockets while the node's disk is nearly full: what they hold
    /// cannot be counted. 0 if that is not why.
    #[serde(default, skip_serializing_if = "is_none")]
    pub parked: u64,
}

/// Serde's `skip_serializing_if` gives a reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl DiskExcess {
    fn words(self) -> String {
        // Rounded so that more than the limit never reads like the limit.
        let (used, limit) = (self.used_bytes.div_ceil(MIB), self.limit_bytes / MIB);
        if self.parked > 0 {
            return format!(
                "keeps {} open files in sockets, where what they hold of the disk cannot be counted, \
                 while its node has hardly any left",
                self.parked
            );
        }
        if self.uncounted {
            return format!(
                "used at least {used} MiB of the {limit} MiB of disk that it may use, in \
                 directories that are too deep or move too fast to be counted"
            );
        }
        if self.used_bytes <= self.limit_bytes && self.used_files > self.limit_files {
            let (used, limit_files) = (self.used_files, self.limit_files);
            return format!(
                "made {used} files and directories; the {limit} MiB of disk that it may use come with \
                 {limit_files}"
            );
        }
        format!("used {used} MiB of the {limit} MiB of disk that it may use")
    }
}

/// Why the agent itself kills a task that nobody asked it to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its sandbox holds too much.
    Disk(DiskExcess),
    /// It was not done in time.
    Overtime {
        /// The time that it had, in milliseconds.
        limit_ms: u64,
    },
    /// The executor that it ran below ended before it.
    ExecutorGone,
}

impl Verdict {
    fn reason(self) -> Reason {
        match self {
            Self::Disk(_) => Reason::ReasonContainerLimitationDisk,
            Self::Overtime { .. } => Reason::ReasonMaxCompletionTimeReached,
            Self::ExecutorGone => Reason::ReasonExecutorTerminated,
        }
    }

    fn words(self) -> String {
        match self {
            Self::Disk(excess) => format!("Disk limit exceeded: {}", excess.words()),
            Self::Overtime { limit_ms } => {
                format!("Not done within its maximum completion time of {limit_ms} ms")
            }
            Self::ExecutorGone => "The executor that it ran below ended".to_owned(),
        }
    }
}

/// What a terminal update says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) state: TaskState,
    pub(crate) reason: Option<Reason>,
    pub(crate) message: String,
    pub(crate) exit_code: Option<i32>,
}

impl Ending {
    /// An ending of a task whose command never ran or cannot be followed any more.
    pub(crate) fn without_exit(state: TaskState, reason: Reason, message: String) -> Self {
        Self {
            state,
            reason: Some(reason),
            message,
            exit_code: None,
        }
    }

    /// From an exit. `killed`: whether its end had been asked for; `verdict`: why the agent killed
    /// it. A success counts even if some child ran into the memory limit, or if it came before the
    /// kill.
    pub(crate) fn of(
        exit: Exit,
        killed: bool,
        verdict: Option<Verdict>,
        memory_limit_bytes: u64,
    ) -> Self {
        let words = match exit.status {
            Ok(code) => format!("Command exited with status {code}"),
            Err(signal) => format!("Command terminated with signal {}", signal_name(signal)),
        };
        let exit_code = Some(exit.shell_code());
        let (state, reason, message) = if killed {
            (TaskState::TaskKilled, None, words)
        } else if exit.status == Ok(0) {
            (TaskState::TaskFinished, None, words)
        } else if let Some(verdict) = verdict {
            let message = format!("{}. {words}", verdict.words());
            (TaskState::TaskFailed, Some(verdict.reason()), message)
        } else if exit.oom_killed {
            let message = match memory_limit_bytes {
                LimitsMessage::UNLIMITED => format!("The node had no memory left. {words}"),
                bytes => {
                    let mib = bytes / MIB;
                    format!("Memory limit exceeded: limited to {mib} MiB. {words}")
                }
            };
            (
                TaskState::TaskFailed,
                Some(Reason::ReasonContainerLimitationMemory),
                message,
            )
        } else {
            (
                TaskState::TaskFailed,
                Some(Reason::ReasonCommandExecutorFailed),
                words,
            )
        };
        Self {
            state,
            reason,
            message,
            exit_code,
        }
    }
}

/// Names of signal(7), x86 and arm numbering.
fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::try_from(signal)
        .ok()
        .and_then(|n| NAMES.get(n.wrapping_sub(1)));
    name.map_or_else(|| signal.to_string(), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// State, reason, message and code of an ending, on one line.
    fn line(status: Result<i32, i32>, oom_killed: bool, killed: bool) -> String {
        line_of(status, oom_killed, killed, None)
    }

    fn line_of(
        status: Result<i32, i32>,
        oom_killed: bool,
        killed: bool,
        verdict: Option<Verdict>,
    ) -> String {
        let exit = Exit { status, oom_killed };
        let ending = Ending::of(exit, killed, verdict, 32 << 20);
        let reason = ending.reason.map_or("-", Reason::name);
        let code = ending.exit_code.unwrap_or(-1);
        format!("{} {reason} {code} {}", ending.state.name(), ending.message)
    }

    #[test]
    fn endings_table() {
        let table = "\
TASK_FINISHED - 0 Command exited with status 0
TASK_FINISHED - 0 Command exited with status 0
TASK_FAILED REASON_COMMAND_EXECUTOR_FAILED 3 Command exited with status 3
TASK_FAILED REASON_COMMAND_EXECUTOR_FAILED 139 Command terminated with signal SIGSEGV
TASK_FAILED REASON_COMMAND_EXECUTOR_FAILED 168 Command terminated with signal 40
TASK_KILLED - 143 Command terminated with signal SIGTERM
TASK_KILLED - 137 Command terminated with signal SIGKILL
TASK_FAILED REASON_CONTAINER_LIMITATION_MEMORY 137 Memory limit exceeded: limited to 32 MiB. \
Command terminated with signal SIGKILL";
        let lines = [
            line(Ok(0), false, false),
            line(Ok(0), true, false),
            line(Ok(3), false, false),
            line(Err(11), false, false),
            line(Err(40), false, false),
            line(Err(15), false, true),
            line(Err(9), true, true),
            line(Err(9), true, false),
        ];
        assert_eq!(lines.join("\n"), table);
    }
    #[test]
    fn endings_by_verdict_table() {
        let excess = |used_bytes, uncounted| {
            Some(Verdict::Disk(DiskExcess {
                used_bytes,
                limit_bytes: 10 << 20,
                used_files: 16_385,
                limit_files: 16_384,
                uncounted,
                parked: 0,
            }))
        };
        let table = "\
TASK_FAILED REASON_CONTAINER_LIMITATION_DISK 137 Disk limit exceeded: used 11 MiB of the 10 MiB of \
disk that it may use. Command terminated with signal SIGKILL
TASK_FAILED REASON_CONTAINER_LIMITATION_DISK 137 Disk limit exceeded: used at least 2 MiB of the \
10 MiB of disk that it may use, in directories that are too deep or move too fast to be counted. \
Command terminated with signal SIGKILL
TASK_FAILED REASON_CONTAINER_LIMITATION_DISK 137 Disk limit exceeded: made 16385 files and directories; \
the 10 MiB of disk that it may use come with 16384. Command terminated with signal SIGKILL
TASK_FAILED REASON_CONTAINER_LIMITATION_DISK 1 Disk limit exceeded: used 12 MiB of the 10 MiB of \
disk that it may use. Command exited with status 1
TASK_FINISHED - 0 Command exited with status 0
TASK_KILLED - 137 Command terminated with signal SIGKILL
TASK_FAILED REASON_MAX_COMPLETION_TIME_REACHED 137 Not done within its maximum completion time of \
1500 ms. Command terminated with signal SIGKILL
TASK_FAILED REASON_EXECUTOR_TERMINATED 137 The executor that it ran below ended. Command \
terminated with signal SIGKILL";
        let late = Some(Verdict::Overtime { limit_ms: 1_500 });
        let lines = [
            line_of(Err(9), false, false, excess((10 << 20) + 1, false)),
            line_of(Err(9), false, false, excess(2 << 20, true)),
            line_of(Err(9), false, false, excess(10 << 20, false)),
            line_of(Ok(1), true, false, excess(12 << 20, false)),
            line_of(Ok(0), false, false, excess(12 << 20, false)),
            line_of(Err(9), false, true, excess(12 << 20, false)),
            line_of(Err(9), false, false, late),
            line_of(Err(9), false, false, Some(Verdict::ExecutorGone)),
        ];
        assert_eq!(lines.join("\n"), table);
    }
}
