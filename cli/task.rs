//! `gantry task …`: the commands on instances, one file each.

mod attach;
mod exec;
pub(crate) mod list;
mod log;
mod record;
mod stdio;

use clap::Subcommand;

use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;

/// What to do with a task.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// List tasks.
    List(list::ListArgs),
    /// Print what a task wrote to stdout or stderr.
    Log(log::LogArgs),
    /// Run a command inside a task's container.
    Exec(exec::ExecArgs),
    /// Sit down at the terminal of a task that has one.
    Attach(attach::AttachArgs),
}

impl TaskCommand {
    /// Runs it.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        match self {
            Self::List(args) => args.run(client, global).await,
            Self::Log(args) => args.run(client, global).await,
            Self::Exec(args) => args.run(client, global).await,
            Self::Attach(args) => args.run(client, global).await,
        }
    }
}
