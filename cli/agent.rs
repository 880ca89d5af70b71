//! `gantry agent`: this machine's agent as a process of its own. The same agent as within `gantry
//! dev`, with the same settings; what differs is how it reaches its coordinator.
//!
//! It decides nothing about tasks. Told to stop, it leaves them running for the next start, as an
//! upgrade needs it, unless it is told to end them.

mod config;
mod keys;

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches};

pub(crate) use config::node_config;
pub(crate) use keys::AGENT;

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::settings::{Given, Key, Settings, arguments, given};
use crate::signals::Signals;
use crate::{output, place};

const EXAMPLES: &str = "\
Each setting is a flag, a variable GANTRY_AGENT_<NAME>, or a key of the section [agent] in a TOML
file; what comes first in this order counts. Secrets are no flags.
Examples:
  GANTRY_AGENT_CLUSTER_SECRET_FILE=/etc/gantry/secret gantry agent --coordinator 10.0.0.1:5052
  gantry agent --config /etc/gantry/gantry.toml --print-config";

/// Flags of `agent`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AgentArgs {
    /// Print what counts and who said so; start nothing.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    flags: AgentFlags<false>,
}

/// The settings of an agent as flags: all, or those that it has within `gantry dev`.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentFlags<const IN_DEV: bool> {
    given: Given,
    file: Option<PathBuf>,
}

/// A flag that is no setting, since it names where they are.
const CONFIG: &str = "config";

fn config_flag(command: Command) -> Command {
    let config = clap::Arg::new(CONFIG).long(CONFIG).value_name("FILE");
    command.arg(config.help("TOML file with settings"))
}

impl<const IN_DEV: bool> AgentFlags<IN_DEV> {
    fn keys() -> impl Iterator<Item = &'static Key> {
        AGENT.keys.iter().filter(|key| key.in_dev || !IN_DEV)
    }

    /// Joined with what variables and file say.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let file = self.file.as_deref();
        Settings::read(&AGENT, self.given.clone(), file, std::env::vars_os())
    }
}

impl<const IN_DEV: bool> Args for AgentFlags<IN_DEV> {
    fn augment_args(command: Command) -> Command {
        arguments(config_flag(command), AGENT.prefix, Self::keys())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const IN_DEV: bool> FromArgMatches for AgentFlags<IN_DEV> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let file = matches.get_one::<String>(CONFIG).map(PathBuf::from);
        let given = given(matches, Self::keys());
        Ok(Self { given, file })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl AgentArgs {
    /// Runs the agent until a signal.
    pub(crate) async fn run(&self, global: &Global) -> Result<(), Failure> {
        let settings = self.flags.settings()?;
        let role = config::role(&settings)?;
        if self.print_config {
            return settings.print(&role.effective(), global);
        }
        place::require_root("agent")?;
        let data = place::data_dir(Some(&role.data_dir))?;
        let mut signals = Signals::new()?;
        let mut end_tasks = role.end_tasks;
        let (config, connect) = role.parts(&settings, &data)?;
        // Tasks of a former life may be running: they are kept out before anything listens.
        gantry_agent::protect_ports(&config);
        let started = gantry_agent::start(config, connect).await;
        let mut agent = started.map_err(|e| place::agent_failure(&data, &e))?;
        output::note(&format!(
            "agent: {} on {}",
            agent.hostname(),
            agent.http_address()
        ));
        let (gone, mut marked) = (agent.gone(), false);
        let failed = tokio::select! {
            why = agent.failed() => Some(why),
            () = gone => {
                (marked, end_tasks) = (true, true);
                None
            }
            () = signals.first() => None,
        };
        if let Some(why) = failed {
            return Err(Failure::new(
                Exit::Failed,
                format!("the agent cannot go on: {why}"),
            ));
        }
        let asked = tokio::time::Instant::now();
        let stop = async {
            if end_tasks {
                return agent.stop_tasks().await;
            }
            agent.keep_tasks().await;
            Vec::new()
        };
        let left = tokio::select! {
            left = stop => left,
            code = signals.again(asked) => {
                return Err(Failure::new(Exit::Remote(code), "stopped at once; tasks that ran still do"));
            }
        };
        for sentence in &left {
            output::note(&format!("left behind: {sentence}"));
        }
        if marked {
            let message = "an operator has marked this node as gone";
            let hint = format!("to use the machine again, move {} away", data.display());
            return Err(Failure::new(Exit::Failed, message).hint(hint));
        }
        Ok(())
    }
}
