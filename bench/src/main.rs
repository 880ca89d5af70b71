//! `gantry-bench SUITE [--quick] [--json FILE]`: measures Gantry beside its peers, in the same run
//! on the same machine.
//!
//! This file only picks the suite; each suite is a file. The hidden first arguments `keeper` and
//! `agent-alone` make this program the keeper and the agent that the suites start.

mod agent;
mod idle;
mod image;
mod keeper;
mod mesos;
mod node;
mod report;
mod root;
mod start;
mod tasks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Suite {
    /// Start to exit of a container, execs and stops.
    Start,
    /// What containers that wait cost.
    Idle,
    /// Pull and unpack of an image.
    Image,
    /// Tasks of a node's agent: how soon they run and end, what it takes, how it recovers.
    Agent,
    /// Reading and writing messages of the Mesos v1 API.
    Mesos,
}

/// Measures Gantry beside its peers.
#[derive(Debug, Parser)]
#[command(name = "gantry-bench")]
pub(crate) struct Options {
    /// Which suite.
    suite: Suite,
    /// Tiny inputs: shows that the suite works, not how fast anything is.
    #[arg(long)]
    quick: bool,
    /// Only subjects whose name begins so; for profiling one of them.
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Only cases whose name begins so.
    #[arg(long, value_name = "NAME", default_value = "")]
    case: String,
    /// Also write the results there, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    /// Whether the subject is to be measured.
    pub(crate) fn wants_subject(&self, name: &str) -> bool {
        name.starts_with(&self.only)
    }

    /// Whether the case is to be measured.
    pub(crate) fn wants_case(&self, name: &str) -> bool {
        name.starts_with(&self.case)
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|first| first == "keeper").is_some() {
        return gantry_isolation::keeper::main(args);
    }
    if args.next_if(|first| first == agent::ROLE).is_some() {
        return agent::main(args);
    }
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let machine = report::Machine::look()?;
    let measured = match options.suite {
        Suite::Start => start::run(options)?,
        Suite::Idle => idle::run(options)?,
        Suite::Image => image::run(options)?,
        Suite::Agent => node::run(options)?,
        Suite::Mesos => mesos::run(options)?,
    };
    let report = report::Report::new(machine, measured);
    println!("{}", report.table());
    match &options.json {
        Some(path) => report.write_json(path),
        None => Ok(()),
    }
}
