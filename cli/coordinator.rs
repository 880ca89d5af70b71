//! `gantry coordinator`: one coordinator, for agents of this machine and of others.
//!
//! The API stays on loopback, since nobody who calls it is asked who they are yet; agents come by
//! the socket in its directory, or with the cluster's secret by TCP.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use gantry_coordinator::{AgentPort, Config};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::settings::{Given, Key, Role, Settings, arguments, given};
use crate::signals::Signals;
use crate::{output, place, secret};

/// The role `coordinator`.
static COORDINATOR: Role = Role {
    name: "coordinator",
    prefix: "GANTRY_COORDINATOR_",
    mesos: true,
    keys: &KEYS,
};

static KEYS: [Key; 6] = [
    Key::new(
        "data-dir",
        "DIR",
        "a directory, which is made where it is not there",
        "Where the log of the cluster is kept",
    )
    .mesos("work_dir")
    .default("/var/lib/gantry/coordinator"),
    Key::new(
        "port",
        "PORT",
        "a port from 0 to 65535; 0 picks a free one",
        "Port of the API and the page on 127.0.0.1",
    )
    .mesos("port")
    .default("5050"),
    Key::new(
        "cluster",
        "NAME",
        "a name",
        "Name of the cluster, for people",
    )
    .mesos("cluster")
    .default("gantry"),
    Key::new(
        "agent-listen",
        "ADDRESS:PORT",
        "an address of this machine and a port",
        "Where agents of other machines connect; needs the cluster's secret [default: nowhere]",
    ),
    Key::new(
        "cluster-secret-file",
        "FILE",
        "a file of root's that nobody else can read, with at least 32 random characters",
        "The secret by which the members of the cluster know each other",
    ),
    Key::new(
        "cluster-secret",
        "TEXT",
        "at least 32 random characters, instead of a file",
        "The secret itself; no flag, since everybody on a machine sees command lines",
    )
    .secret(),
];

const EXAMPLES: &str = "\
Each setting is a flag, a variable GANTRY_COORDINATOR_<NAME>, or a key of the section [coordinator]
in a TOML file; what comes first in this order counts.
Example:
  gantry coordinator --agent-listen 10.0.0.1:5052 --cluster-secret-file /etc/gantry/secret";

/// Flags of `coordinator`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CoordinatorArgs {
    /// TOML file with settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print what counts and who said so; start nothing.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Clone, Default)]
struct Flags(Given);

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        arguments(command, COORDINATOR.prefix, KEYS.iter())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(given(matches, KEYS.iter())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What a coordinator is started with; every value is checked.
fn config(settings: &Settings) -> Result<Config, Failure> {
    let data_dir = PathBuf::from(settings.text("data-dir").unwrap_or_default());
    let port = settings.one("port", str::parse::<u16>)?.unwrap_or_default();
    let listen = settings.one("agent-listen", str::parse::<SocketAddr>)?;
    let agents = match (listen, secret::read(settings)?) {
        (None, _) => None,
        (Some(_), None) => return Err(settings.missing("cluster-secret-file")),
        (Some(listen), Some(secret)) => Some(AgentPort { listen, secret }),
    };
    Ok(Config {
        agent_socket: data_dir.join("agent.sock"),
        data_dir,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        agents,
        cluster_name: settings.text("cluster").unwrap_or_default(),
        hostname: Ipv4Addr::LOCALHOST.to_string(),
    })
}

impl CoordinatorArgs {
    /// Runs the coordinator until a signal.
    pub(crate) async fn run(&self, global: &Global) -> Result<(), Failure> {
        let file = self.config.as_deref();
        let given = self.flags.0.clone();
        let settings = Settings::read(&COORDINATOR, given, file, std::env::vars_os())?;
        let mut config = config(&settings)?;
        if self.print_config {
            return settings.print(&[], global);
        }
        let data = place::data_dir(Some(&config.data_dir))?;
        config.agent_socket = data.join("agent.sock");
        config.data_dir.clone_from(&data);
        let mut signals = Signals::new()?;
        let started = gantry_coordinator::start(config).await;
        let coordinator = started.map_err(|e| place::coordinator_failure(&data, &e))?;
        let agents = match coordinator.agents_address() {
            Some(address) => format!(", agents on {address}"),
            None => String::new(),
        };
        let api = coordinator.http_address();
        output::note(&format!("coordinator: http://{api}{agents}"));
        let failed = tokio::select! {
            why = coordinator.failed() => Some(why),
            () = signals.first() => None,
        };
        coordinator.shutdown().await;
        match failed {
            None => Ok(()),
            Some(why) => {
                let message = format!("the coordinator cannot go on: {why}");
                Err(Failure::new(Exit::Failed, message))
            }
        }
    }
}
