//! `gantry dev`: coordinator and agent in this process, on loopback, until a signal.
//!
//! It joins the two crates by a socket in the data directory and decides nothing else. Order of
//! the end: the tasks first (so that their last updates get out), then the coordinator. Another
//! signal ends at once; the tasks then stay with the keeper, as after a crash.

mod greeting;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::agent::{AgentFlags, node_config};
use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::settings::Settings;
use crate::signals::Signals;
use crate::{output, place};

/// How long the agent may take to register before the greeting is printed without its id.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at whether it has.
const REGISTER_POLL: Duration = Duration::from_millis(10);
/// Name of the cluster in the APIs.
const CLUSTER: &str = "dev";

const EXAMPLES: &str = "\
Examples:
  gantry dev                                  data in ~/.local/share/gantry
  gantry dev --data-dir ./node --keep-tasks   tasks go on when gantry stops
  gantry dev --port 5060 --agent-port 5061    a second node beside the first";

/// Flags of `dev`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevArgs {
    /// Where everything is kept [default: $XDG_DATA_HOME/gantry or ~/.local/share/gantry].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Leave the tasks running when gantry stops; the next start takes them up again.
    #[arg(long)]
    keep_tasks: bool,
    /// Port of the API and the page on 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 5050)]
    port: u16,
    /// Port of the node's agent on 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 5051)]
    agent_port: u16,
    /// Print what counts of the node's settings, and who said so; start nothing.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    node: AgentFlags<true>,
}

impl DevArgs {
    /// Runs the node until a signal.
    pub(crate) async fn run(&self, global: &Global) -> Result<(), Failure> {
        let settings = self.node.settings()?;
        if self.print_config {
            node_config(&settings, &PathBuf::new())?;
            return settings.print(&[], global);
        }
        place::require_root("dev")?;
        place::require_free_port("--port", self.port)?;
        place::require_free_port("--agent-port", self.agent_port)?;
        let data_dir = place::data_dir(self.data_dir.as_deref())?;
        let mut signals = Signals::new()?;
        let mut config = self.agent_config(&settings, &data_dir)?;
        // Tasks of a former life may be running: they are kept out before anything listens.
        gantry_agent::protect_ports(&config);
        let coordinator = self.start_coordinator(&data_dir).await?;
        config.protected_ports = vec![coordinator.http_address().port()];
        let mut agent = match self.start_agent(config, &data_dir).await {
            Ok(agent) => agent,
            Err(failure) => {
                coordinator.shutdown().await;
                return Err(failure);
            }
        };
        let end = tokio::select! {
            end = self.serve(&data_dir, &coordinator, &mut agent) => end,
            () = signals.first() => Ok(()),
        };
        let asked = Instant::now();
        let stop = async {
            let left = self.stop_agent(agent).await;
            coordinator.shutdown().await;
            left
        };
        let left = tokio::select! {
            left = stop => left,
            code = signals.again(asked) => {
                let message = "stopped at once; tasks that ran still do";
                return Err(Failure::new(Exit::Remote(code), message)
                    .hint("the next `gantry dev` on this data directory takes them up again"));
            }
        };
        for sentence in &left {
            output::note(&format!("left behind: {sentence}"));
        }
        end
    }

    async fn start_coordinator(&self, data: &Path) -> Result<gantry_coordinator::Running, Failure> {
        let config = gantry_coordinator::Config {
            data_dir: data.join("coordinator"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)),
            agent_socket: socket(data),
            agents: None,
            cluster_name: CLUSTER.to_owned(),
            hostname: Ipv4Addr::LOCALHOST.to_string(),
        };
        let started = gantry_coordinator::start(config).await;
        started.map_err(|e| place::coordinator_failure(data, &e))
    }

    fn agent_config(
        &self,
        settings: &Settings,
        data: &Path,
    ) -> Result<gantry_agent::Config, Failure> {
        let mut config = node_config(settings, &data.join("agent"))?;
        config.http = SocketAddr::from((Ipv4Addr::LOCALHOST, self.agent_port));
        // Tasks must not see the coordinator's log either: it holds every app's environment.
        config.hide.push(data.to_owned());
        config.protected_ports = vec![self.port];
        Ok(config)
    }

    async fn start_agent(
        &self,
        config: gantry_agent::Config,
        data: &Path,
    ) -> Result<gantry_agent::Running, Failure> {
        let socket = socket(data);
        let connector = move || UnixStream::connect(socket.clone());
        let started = gantry_agent::start(config, connector).await;
        started.map_err(|e| place::agent_failure(data, &e))
    }

    /// Greets, then waits for what must not happen.
    async fn serve(
        &self,
        data: &Path,
        coordinator: &gantry_coordinator::Running,
        agent: &mut gantry_agent::Running,
    ) -> Result<(), Failure> {
        let registered = async {
            while agent.agent_id().is_none() {
                tokio::time::sleep(REGISTER_POLL).await;
            }
        };
        if tokio::time::timeout(REGISTER_TIMEOUT, registered)
            .await
            .is_err()
        {
            output::note("the agent has not registered yet; going on without waiting for it");
        }
        let greeting = greeting::Greeting {
            api: coordinator.http_address(),
            data,
            node: agent.hostname(),
            resources: agent.resources(),
            lacks: agent.lacks(),
            keep_tasks: self.keep_tasks,
        };
        // Nobody may be reading: the node runs all the same.
        let _ = output::print(&greeting.to_string());
        let gone = agent.gone();
        let why = tokio::select! {
            () = gone => "an operator has marked this node as gone".to_owned(),
            why = coordinator.failed() => format!("the coordinator cannot go on: {why}"),
            why = agent.failed() => format!("the agent cannot go on: {why}"),
        };
        Err(Failure::new(Exit::Failed, why))
    }

    /// Sentences about what could not be removed.
    async fn stop_agent(&self, agent: gantry_agent::Running) -> Vec<String> {
        if self.keep_tasks {
            output::note("stopping; the tasks stay for the next `gantry dev`");
            agent.keep_tasks().await;
            return Vec::new();
        }
        output::note("stopping the tasks and the node (again to stop at once and leave them)");
        agent.stop_tasks().await
    }
}

/// The data directory of a node that has run here with no directory named.
pub(crate) fn existing_data_dir() -> Option<PathBuf> {
    place::existing_data_dir()
}

fn socket(data: &Path) -> PathBuf {
    data.join("coordinator").join("agent.sock")
}
