//! From the way a process ended to the state, reason and words of a terminal update
//! (Mesos: `src/launcher/executor.cpp`, `reaped`). Decides only that mapping.

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
}

impl DiskExcess {
    fn words(self) -> String {
        // Rounded so that more than the limit never reads like the limit.
        let (used, limit) = (self.used_bytes.div_ceil(MIB), self.limit_bytes / MIB);
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

    /// From an exit. `killed`: whether the coordinator had asked for the end; `excess`: whether it
    /// was killed for its disk. A success counts even if some child ran into the memory limit, or
    /// if it came before the kill.
    pub(crate) fn of(
        exit: Exit,
        killed: bool,
        excess: Option<DiskExcess>,
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
        } else if let Some(excess) = excess {
            let message = format!("Disk limit exceeded: {}. {words}", excess.words());
            (
                TaskState::TaskFailed,
                Some(Reason::ReasonContainerLimitationDisk),
                message,
            )
        } else if exit.oom_killed {
            let mib = memory_limit_bytes / MIB;
            let message = format!("Memory limit exceeded: limited to {mib} MiB. {words}");
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
        excess: Option<DiskExcess>,
    ) -> String {
        let exit = Exit { status, oom_killed };
        let ending = Ending::of(exit, killed, excess, 32 << 20);
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
    fn endings_by_disk_table() {
        let excess = |used_bytes, uncounted| {
            Some(DiskExcess {
                used_bytes,
                limit_bytes: 10 << 20,
                used_files: 16_385,
                limit_files: 16_384,
                uncounted,
            })
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
TASK_KILLED - 137 Command terminated with signal SIGKILL";
        let lines = [
            line_of(Err(9), false, false, excess((10 << 20) + 1, false)),
            line_of(Err(9), false, false, excess(2 << 20, true)),
            line_of(Err(9), false, false, excess(10 << 20, false)),
            line_of(Ok(1), true, false, excess(12 << 20, false)),
            line_of(Ok(0), false, false, excess(12 << 20, false)),
            line_of(Err(9), false, true, excess(12 << 20, false)),
        ];
        assert_eq!(lines.join("\n"), table);
    }
}
