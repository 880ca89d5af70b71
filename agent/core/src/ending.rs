//! From the way a process ended to the state, reason and words of a terminal update
//! (Mesos: `src/launcher/executor.cpp`, `reaped`). Decides only that mapping.

use gantry_wire::task::{Reason, TaskState};

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

    /// From an exit. `killed`: whether the coordinator had asked for the end. A success counts
    /// even if some child ran into the memory limit.
    pub(crate) fn of(exit: Exit, killed: bool, memory_limit_bytes: u64) -> Self {
        let words = match exit.status {
            Ok(code) => format!("Command exited with status {code}"),
            Err(signal) => format!("Command terminated with signal {}", signal_name(signal)),
        };
        let exit_code = Some(exit.shell_code());
        let (state, reason, message) = if killed {
            (TaskState::TaskKilled, None, words)
        } else if exit.status == Ok(0) {
            (TaskState::TaskFinished, None, words)
        } else if exit.oom_killed {
            let mib = memory_limit_bytes / (1 << 20);
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
        let exit = Exit { status, oom_killed };
        let ending = Ending::of(exit, killed, 32 << 20);
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
}
