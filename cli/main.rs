//! The one binary: picks the role, or runs a user's command against the HTTP API.
//!
//! Invariant: the roles `keeper` and `oci` are entered before any thread or runtime exists, because
//! they clone processes and must stay single-threaded.

mod agent;
mod app;
mod args;
mod client;
mod coordinator;
mod dev;
mod failure;
mod image;
mod keyboard;
mod logging;
mod node;
mod oci;
mod output;
mod place;
mod progress;
mod reason;
mod secret;
mod settings;
mod show;
mod signals;
mod task;
mod trouble;

use std::process::ExitCode;

use clap::Parser;
use gantry_isolation::oci::RoleAllocator;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::failure::{Exit, Failure};

#[global_allocator]
static ALLOCATOR: RoleAllocator<mimalloc::MiMalloc> = RoleAllocator(mimalloc::MiMalloc);

/// First argument of the hidden role that owns the containers of a node.
const KEEPER_ROLE: &str = "keeper";

fn main() -> ExitCode {
    if let Some(args) = oci::arguments() {
        return oci::main(args);
    }
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|role| role == KEEPER_ROLE) {
        return gantry_agent::keeper_main(args);
    }
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(cli.global.json),
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let is_node = matches!(
        cli.command,
        Command::Dev(_) | Command::Agent(_) | Command::Coordinator(_)
    );
    logging::start(cli.global.verbose, is_node)?;
    let mut builder = match cli.command {
        // A node, and the store of images, unpack on several threads.
        Command::Image(_) => tokio::runtime::Builder::new_multi_thread(),
        _ if is_node => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Failed, format!("no async runtime: {e}")))?;
    let end = runtime.block_on(dispatch(cli));
    // A blocked read of a name or a file must not hold up the end.
    runtime.shutdown_background();
    end
}

async fn dispatch(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Dev(args) => return args.run(&cli.global).await,
        Command::Agent(args) => return args.run(&cli.global).await,
        Command::Coordinator(args) => return args.run(&cli.global).await,
        _ => {}
    }
    tokio::select! {
        end = command(cli) => end,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "")),
    }
}

async fn command(cli: &Cli) -> Result<(), Failure> {
    if let Command::Image(image) = &cli.command {
        return image.run(&cli.global).await;
    }
    let client = Client::new(&cli.global.url)?;
    match &cli.command {
        Command::App(app) => app.run(&client, &cli.global).await,
        Command::Task(task) => task.run(&client, &cli.global).await,
        Command::Node(node) => node.run(&client, &cli.global).await,
        Command::Image(image) => image.run(&cli.global).await,
        // Entered above, `oci` before any runtime.
        Command::Dev(_) | Command::Agent(_) | Command::Coordinator(_) | Command::Oci { .. } => {
            Ok(())
        }
    }
}
