//! The command line of `gantry oci`: names, flags and their help, as runc has them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const ABOUT: &str = "\
Engines that take one executable run this by a link whose name begins with `gantry-oci`:
  ln -s $(command -v gantry) /usr/local/bin/gantry-oci
  ctr run --runc-binary /usr/local/bin/gantry-oci …
  podman --runtime /usr/local/bin/gantry-oci …
";

/// The OCI runtime command line, for runtime-spec 1.2.
#[derive(Debug, Parser)]
#[command(
    name = "gantry-oci",
    bin_name = "gantry oci",
    after_help = ABOUT,
    disable_version_flag = true,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    /// Print the version.
    #[arg(short, long)]
    pub(super) version: bool,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// Flags before the command.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Directory of the containers' state; it should be on a tmpfs.
    #[arg(long)]
    pub(super) root: Option<PathBuf>,
    /// File for errors, instead of stderr.
    #[arg(long)]
    pub(super) log: Option<PathBuf>,
    /// Form of those errors.
    #[arg(long, default_value = "text")]
    pub(super) log_format: Form,
    /// Accepted for engines that pass it; nothing more is told.
    #[arg(long)]
    debug: bool,
    /// `cgroupsPath` has the form `slice:prefix:name`.
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
    /// Accepted for engines that pass it.
    #[arg(long, hide = true)]
    rootless: Option<String>,
    /// Accepted for engines that pass it.
    #[arg(long, hide = true)]
    criu: Option<String>,
}

/// Form of a log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Form {
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a container whose process waits for `start`.
    Create(CreateArgs),
    /// Make a container and start its process.
    Run(RunArgs),
    /// Start the process of a container that was made.
    Start {
        /// Container.
        id: Vec<String>,
    },
    /// Show what is known of a container, as JSON.
    State {
        /// Container.
        id: Vec<String>,
    },
    /// Send a signal to a container's process.
    Kill {
        /// To all of its processes.
        #[arg(short, long)]
        all: bool,
        /// Container, and signal by name or number (SIGTERM).
        #[arg(allow_negative_numbers = true)]
        args: Vec<String>,
    },
    /// Remove a container that has stopped.
    Delete {
        /// Kill it first if it runs; one that is not there is fine.
        #[arg(short, long)]
        force: bool,
        /// Container.
        id: Vec<String>,
    },
    /// Run one more process in a container.
    Exec(Box<ExecArgs>),
    /// Show the processes of a container.
    Ps {
        /// Form.
        #[arg(short, long, default_value = "table")]
        format: String,
        /// Container, and options of ps(1).
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// List the containers.
    List {
        /// Form.
        #[arg(short, long, default_value = "table")]
        format: String,
        /// Only their names.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Freeze a container's processes.
    Pause {
        /// Container.
        id: Vec<String>,
    },
    /// Let a container's processes go on.
    Resume {
        /// Container.
        id: Vec<String>,
    },
    /// Change a container's limits.
    Update(Box<UpdateArgs>),
    /// Show what this runtime understands, as JSON.
    Features,
    /// Write a config.json to start from.
    Spec {
        /// Directory for it.
        #[arg(short, long)]
        bundle: Option<PathBuf>,
        /// For a user other than root.
        #[arg(long)]
        rootless: bool,
    },
    /// Show what a container uses, as JSON.
    Events {
        /// Once.
        #[arg(long)]
        stats: bool,
        /// How often, such as `5s`.
        #[arg(long, default_value = "5s")]
        interval: String,
        /// Container.
        id: Vec<String>,
    },
}

impl Command {
    /// As typed.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Run(_) => "run",
            Self::Start { .. } => "start",
            Self::State { .. } => "state",
            Self::Kill { .. } => "kill",
            Self::Delete { .. } => "delete",
            Self::Exec(_) => "exec",
            Self::Ps { .. } => "ps",
            Self::List { .. } => "list",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Update(_) => "update",
            Self::Features => "features",
            Self::Spec { .. } => "spec",
            Self::Events { .. } => "events",
        }
    }
}

/// Flags of `create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Directory with config.json; the working directory unless given.
    #[arg(short, long)]
    pub(super) bundle: Option<PathBuf>,
    /// Unix socket that gets the master of the process's terminal.
    #[arg(long)]
    pub(super) console_socket: Option<PathBuf>,
    /// Unix socket that gets the pidfd of the process.
    #[arg(long)]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// File for the process id.
    #[arg(long)]
    pub(super) pid_file: Option<PathBuf>,
    /// Move the root instead of pivot_root(2), for a host whose root is a ramdisk.
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// Keep the session keyring.
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// Pass on this many descriptors after stdin, stdout, stderr and those of $LISTEN_FDS.
    #[arg(long, default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// Name of the container.
    pub(super) id: Vec<String>,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) create: CreateArgs,
    /// Leave once the process runs.
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Keep the container once it ended.
    #[arg(long)]
    pub(super) keep: bool,
    /// Accepted for engines that pass it.
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

/// Flags of `exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Unix socket that gets the master of the process's terminal.
    #[arg(long)]
    pub(super) console_socket: Option<PathBuf>,
    /// Unix socket that gets the pidfd of the process.
    #[arg(long)]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// Working directory in the container.
    #[arg(long)]
    pub(super) cwd: Option<String>,
    /// Set a variable, NAME=value.
    #[arg(short, long)]
    pub(super) env: Vec<String>,
    /// Give the process a terminal.
    #[arg(short, long)]
    pub(super) tty: bool,
    /// User, and group when given: uid[:gid].
    #[arg(short, long)]
    pub(super) user: Option<String>,
    /// One more supplementary group.
    #[arg(short = 'g', long)]
    pub(super) additional_gids: Vec<u32>,
    /// File with the whole process, as in config.json.
    #[arg(short, long)]
    pub(super) process: Option<PathBuf>,
    /// Leave once the process runs.
    #[arg(short, long)]
    pub(super) detach: bool,
    /// File for the process id.
    #[arg(long)]
    pub(super) pid_file: Option<PathBuf>,
    /// SELinux label of the process.
    #[arg(long)]
    pub(super) process_label: Option<String>,
    /// AppArmor profile of the process.
    #[arg(long)]
    pub(super) apparmor: Option<String>,
    /// Exec may never add rights.
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// Add a capability.
    #[arg(short, long)]
    pub(super) cap: Vec<String>,
    /// Pass on this many descriptors after stdin, stdout, stderr and those of $LISTEN_FDS.
    #[arg(long, default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// A group below the container's: [controller:]path.
    #[arg(long)]
    pub(super) cgroup: Vec<String>,
    /// Also in a paused container.
    #[arg(long)]
    pub(super) ignore_paused: bool,
    /// Container, program and arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) args: Vec<String>,
}

/// Flags of `update`.
#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// File of resources as in config.json, `-` for stdin; all other flags are then ignored.
    #[arg(short, long)]
    pub(super) resources: Option<String>,
    /// Weight of block I/O, 10 to 1000.
    #[arg(long)]
    pub(super) blkio_weight: Option<u16>,
    /// Period in microseconds.
    #[arg(long)]
    pub(super) cpu_period: Option<String>,
    /// Time per period in microseconds; -1 is no limit.
    #[arg(long, allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<String>,
    /// Time that may be saved up, in microseconds.
    #[arg(long)]
    pub(super) cpu_burst: Option<String>,
    /// Relative weight.
    #[arg(long)]
    pub(super) cpu_share: Option<String>,
    /// Real-time period in microseconds.
    #[arg(long)]
    pub(super) cpu_rt_period: Option<String>,
    /// Real-time share in microseconds.
    #[arg(long)]
    pub(super) cpu_rt_runtime: Option<String>,
    /// 1: only when nothing else wants the CPU.
    #[arg(long)]
    pub(super) cpu_idle: Option<i64>,
    /// CPUs.
    #[arg(long)]
    pub(super) cpuset_cpus: Option<String>,
    /// Memory nodes.
    #[arg(long)]
    pub(super) cpuset_mems: Option<String>,
    /// Bytes, or with k, m, g.
    #[arg(long, allow_hyphen_values = true)]
    pub(super) memory: Option<String>,
    /// Bytes that are taken back last.
    #[arg(long, allow_hyphen_values = true)]
    pub(super) memory_reservation: Option<String>,
    /// Bytes of memory and swap together; -1 is no limit.
    #[arg(long, allow_hyphen_values = true)]
    pub(super) memory_swap: Option<String>,
    /// Processes; -1 is no limit.
    #[arg(long, allow_hyphen_values = true)]
    pub(super) pids_limit: Option<i64>,
    /// Container.
    pub(super) id: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn lines_of_engines_are_understood() {
        Cli::command().debug_assert();
        for line in [
            "r --root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p c",
            "r --log-format=json create -b /b --console-socket /s --no-pivot --preserve-fds 2 c",
            "r run -d --keep -b /b c",
            "r kill --all c 9",
            "r delete --force c",
            "r exec -t -e A=b -e C=d -u 1:2 --cwd / c sh -c exit",
            "r exec --process /p --detach --pid-file /x c",
            "r ps --format json c",
            "r ps c -ef",
            "r update --memory 5m --cpu-quota -1 c",
            "r --version",
            "r list -q",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
