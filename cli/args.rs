//! The command line: names, flags and their help. It only describes; the commands' own files do.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::agent::AgentArgs;
use crate::app::AppCommand;
use crate::client::DEFAULT_URL;
use crate::coordinator::CoordinatorArgs;
use crate::dev::DevArgs;
use crate::failure::EXIT_HELP;
use crate::image::ImageArgs;
use crate::node::NodeCommand;
use crate::task::TaskCommand;

const EXAMPLES: &str = "\
Examples:
  gantry dev                                            a whole cluster on this machine
  gantry app add --id /hello --cmd 'while date; do sleep 1; done' --instances 2
  gantry app add web.json                               Marathon's app JSON
  gantry app scale /hello 5
  gantry task log -f /hello
  gantry node list
";

/// A datacenter operating system in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "gantry",
    version,
    arg_required_else_help = true,
    propagate_version = false
)]
#[command(after_help = format!("{EXAMPLES}\n{EXIT_HELP}"))]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The coordinator.
    #[arg(long, global = true, env = "GANTRY_URL", hide_env_values = true, default_value = DEFAULT_URL, value_name = "URL")]
    pub(crate) url: String,
    /// Print JSON: one of the API's objects, for lists an array of them; {"message": …} on stderr
    /// for an error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more; twice for everything (GANTRY_LOG=error|warn|info|debug|trace does the same).
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a one-node cluster in this terminal: no configuration, no other server.
    Dev(DevArgs),
    /// Run this machine's agent; its coordinator runs elsewhere.
    Agent(AgentArgs),
    /// Run a coordinator that agents connect to.
    Coordinator(CoordinatorArgs),
    /// Services: add, show, change, scale and remove them.
    #[command(subcommand)]
    App(Box<AppCommand>),
    /// Instances of services: list them, read their output, run a command inside.
    #[command(subcommand)]
    Task(TaskCommand),
    /// The machines that run tasks.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Images on nodes: fetch, list, remove them, and move them by file.
    Image(ImageArgs),
    /// The OCI runtime command line, for containerd, podman and other engines.
    #[command(disable_help_flag = true)]
    Oci {
        /// See `gantry oci --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// A file of JSON, or `-` for stdin.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// `-`.
    Stdin,
    /// A path.
    File(PathBuf),
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        if text == "-" {
            Self::Stdin
        } else {
            Self::File(PathBuf::from(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn typical_lines_are_understood_and_wrong_ones_refused() {
        for line in [
            "gantry app add web.json",
            "gantry app add - --no-wait",
            "gantry app add --id /x --cmd true --cpus 0.1 --mem 32 --env A=b --network bridge --port 80",
            "gantry app update /x --instances 3",
            "gantry app update /x web.json --replace --force",
            "gantry app scale /x 3 --timeout 60",
            "gantry app remove /x --yes --json",
            "gantry task list --app /x --all",
            "gantry task log /x -f --stderr -n 10",
            "gantry task exec t -- sh -c 'exit 3'",
            "gantry --url http://h:1 node list",
            "gantry image list --json --node n",
            "gantry agent --coordinator h:1,[::1]:2 --work_dir d --ip 10.0.0.1 --attributes rack:a;b:[1-2]",
            "gantry node drain n --max-grace-period 5 --decommission --wait",
            "gantry node deactivate n",
            "gantry node reactivate n",
            "gantry node gone n",
            "gantry agent --print-config --json --config f --tasks-may-use-api --end-tasks=false",
            "gantry coordinator --data-dir d --port 0 --agent-listen 10.0.0.1:5052",
            "gantry dev --config f --resources cpus:1 --print-config",
            "gantry image pull redis:7 --insecure-registry a --config f --data-dir d",
            "gantry image --data-dir d export redis:7 --output f --format docker",
            "gantry image import - --name x",
            "gantry image remove x --force",
            "gantry dev --data-dir d --keep-tasks --port 0 --agent-port 0 --hostname h --insecure-registry a",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "gantry",
            "gantry app add web.json --id /x",
            "gantry app add --id /x --cpus many",
            "gantry app update /x",
            "gantry app scale /x -1",
            "gantry task exec t",
            "gantry dev --port 70000",
            "gantry dev --coordinator h:1",
            "gantry agent --cluster-secret x",
            "gantry agent --prot 1",
            "gantry image list --node n --data-dir d",
            "gantry image export x",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
