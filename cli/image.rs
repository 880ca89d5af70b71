//! `gantry image …`: the images of nodes, one file for each command that moves any.
//!
//! Where to look: `--data-dir` means the store of a node that does not run; otherwise the
//! coordinator is asked for the node, and if nothing answers, the store of the default data
//! directory is opened. The requests are the same either way.

mod export;
mod import;
mod lines;
mod list;
mod pull;
mod remove;
mod target;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::Global;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  gantry image pull redis:7
  gantry image list
  gantry image export redis:7 --output redis.tar --format docker
  gantry image import redis.tar --data-dir ./node       a node that does not run
  gantry image import all.tar redis:7 app:2             only these of its images
  gantry image prune --all";

/// What to do with images.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImageArgs {
    /// The node, by id or name [default: the only one; `list`: all].
    #[arg(long, global = true, value_name = "NODE")]
    node: Option<String>,
    /// The data directory of a node that does not run here, instead of a running node.
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "node")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Fetch an image from its registry, or see whether its tag means another one now.
    Pull(pull::PullArgs),
    /// List images.
    List,
    /// Show an image's layers, manifest and config.
    Inspect(list::InspectArgs),
    /// Remove an image, or one of its names.
    Remove(remove::RemoveArgs),
    /// Remove images that no tag names any more, and what is left of broken pulls.
    Prune(remove::PruneArgs),
    /// Take in an OCI image layout or a Docker archive.
    Import(import::ImportArgs),
    /// Write an image to a file that other tools take.
    Export(export::ExportArgs),
}

impl ImageArgs {
    /// Runs it.
    pub(crate) async fn run(&self, global: &Global) -> Result<(), Failure> {
        let places = target::Places {
            url: &global.url,
            node: self.node.as_deref(),
            data_dir: self.data_dir.as_deref(),
        };
        match &self.command {
            ImageCommand::List => list::run(&places.all().await?, global).await,
            ImageCommand::Inspect(args) => args.run(&places.one().await?).await,
            ImageCommand::Pull(args) => args.run(&places.one().await?, global).await,
            ImageCommand::Remove(args) => args.run(&places.one().await?, global).await,
            ImageCommand::Prune(args) => args.run(&places.one().await?, global).await,
            ImageCommand::Import(args) => args.run(&places.one().await?, global).await,
            ImageCommand::Export(args) => args.run(&places.one().await?, global).await,
        }
    }
}
