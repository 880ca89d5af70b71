//! The process: what runs, as whom, with which rights.

use serde::Deserialize;

use super::nullable;

/// What to run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Whether it gets a terminal.
    #[serde(deserialize_with = "nullable")]
    pub terminal: bool,
    /// Size of that terminal.
    pub console_size: Option<ConsoleSize>,
    /// As whom.
    #[serde(deserialize_with = "nullable")]
    pub user: ProcessUser,
    /// Program and arguments.
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// `NAME=value` each.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Absolute working directory.
    #[serde(deserialize_with = "nullable")]
    pub cwd: String,
    /// Capability sets; None: none at all.
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(deserialize_with = "nullable")]
    pub rlimits: Vec<ProcessRlimit>,
    /// Whether exec may never add rights.
    #[serde(deserialize_with = "nullable")]
    pub no_new_privileges: bool,
    /// AppArmor profile.
    #[serde(deserialize_with = "nullable")]
    pub apparmor_profile: String,
    /// SELinux label.
    #[serde(deserialize_with = "nullable")]
    pub selinux_label: String,
    /// How readily the kernel kills it when memory is short.
    pub oom_score_adj: Option<i32>,
    /// Scheduling policy.
    pub scheduler: Option<Scheduler>,
    /// Block I/O priority.
    pub io_priority: Option<IoPriority>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// As whom.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessUser {
    /// User id in the container.
    #[serde(deserialize_with = "nullable")]
    pub uid: u32,
    /// Group id in the container.
    #[serde(deserialize_with = "nullable")]
    pub gid: u32,
    /// File mode mask; None: 022.
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(deserialize_with = "nullable")]
    pub additional_gids: Vec<u32>,
}

/// The five sets, by names such as `CAP_KILL`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Most that any exec may have.
    #[serde(deserialize_with = "nullable")]
    pub bounding: Vec<String>,
    /// In force.
    #[serde(deserialize_with = "nullable")]
    pub effective: Vec<String>,
    /// Kept by files that name them.
    #[serde(deserialize_with = "nullable")]
    pub inheritable: Vec<String>,
    /// May be put in force.
    #[serde(deserialize_with = "nullable")]
    pub permitted: Vec<String>,
    /// Kept over exec of plain programs.
    #[serde(deserialize_with = "nullable")]
    pub ambient: Vec<String>,
}

/// One resource limit.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ProcessRlimit {
    /// Such as `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In force.
    pub soft: u64,
    /// Up to which the process may raise it.
    pub hard: u64,
}

/// Scheduling policy, see sched_setattr(2).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// Such as `SCHED_BATCH`.
    pub policy: String,
    /// Niceness.
    #[serde(deserialize_with = "nullable")]
    pub nice: i32,
    /// Static priority.
    #[serde(deserialize_with = "nullable")]
    pub priority: i32,
    /// Such as `SCHED_FLAG_RESET_ON_FORK`.
    #[serde(deserialize_with = "nullable")]
    pub flags: Vec<String>,
    /// Nanoseconds, for deadlines.
    #[serde(deserialize_with = "nullable")]
    pub runtime: u64,
    /// Nanoseconds, for deadlines.
    #[serde(deserialize_with = "nullable")]
    pub deadline: u64,
    /// Nanoseconds, for deadlines.
    #[serde(deserialize_with = "nullable")]
    pub period: u64,
}

/// Block I/O priority, see ioprio_set(2).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct IoPriority {
    /// Such as `IOPRIO_CLASS_BE`.
    pub class: String,
    /// 0 is the highest, 7 the lowest.
    #[serde(deserialize_with = "nullable")]
    pub priority: u16,
}
