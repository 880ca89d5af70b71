//! `gantry task attach`: the terminal of a task, for tasks that were started with one.
//!
//! It joins the task's own process; to start another one is `task exec`. Leaving harms nothing.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::timeout;

use super::exec::{both, exit_status};
use super::record::{self, Record};
use super::stdio::{self, Ended, Input, Sink};
use crate::args::Global;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::keyboard::{self, Raw};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  gantry app add --id /console --cmd 'exec sh' --tty
  gantry task attach /console
  gantry task attach --no-stdin /console                only look on

Ctrl-P ctrl-Q lets go of the task, which goes on. It must have been started with a terminal
(\"tty\": true in an app); what others write is in `gantry task log`. Several may look on at a time,
one may type.";

/// What a node says of a container without a terminal; Mesos's words.
const NO_TERMINAL: &str = "I/O switchboard server was disabled";
/// How long a task whose terminal ended may take until its end is known.
const END_MAX: Duration = Duration::from_secs(5);

/// Flags of `task attach`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AttachArgs {
    /// Pass no keys on.
    #[arg(long)]
    no_stdin: bool,
    /// The task: its id, the beginning of it, or the id of a service with one task.
    task: String,
}

impl AttachArgs {
    /// Joins until the task ends or the person lets go; the exit code is the task's.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        if global.json {
            let message = "--json is not for what a person looks at";
            return Err(Failure::new(Exit::Usage, message).hint("see `gantry task log --json`"));
        }
        let task = record::find(client, &self.task).await?;
        let container = task.running_container()?;
        let path = format!("/agent/{}/api/v1", task.agent);
        let attach = json!({
            "type": "ATTACH_CONTAINER_OUTPUT",
            "attach_container_output": {"container_id": container},
        });
        let response = client.output(&path, &attach).await;
        let mut response = response.map_err(|failure| explained(failure, &task))?;
        let keys = !self.no_stdin && keyboard::is_terminal();
        let raw = keys.then(Raw::enter).transpose()?;
        let input = Input {
            keys: !self.no_stdin,
            tty: true,
            detach: keys,
        };
        let typing = async {
            if self.no_stdin {
                // Who only looks on leaves the size to whoever types.
                return std::future::pending().await;
            }
            stdio::pass_on(client, &path, stdio::container_id(&container), input).await
        };
        let mut sink = Sink::new(false);
        let printing = stdio::print(client, &mut response, &mut sink);
        let ended = both(printing, typing).await;
        drop(raw);
        if ended? == Ended::Detached {
            output::note(&format!("let go of {}, which goes on", task.id));
            return Ok(());
        }
        match timeout(END_MAX, exit_status(client, &path, &container)).await {
            Ok(status) => sink.finish(status?),
            Err(_) => {
                let message = format!("no more comes from the terminal of {}", task.id);
                let hint = "it still runs: it may have closed its terminal, or we read too slowly; \
                            attach again, or see `gantry task log`";
                Err(Failure::new(Exit::Failed, message).hint(hint))
            }
        }
    }
}

fn explained(failure: Failure, task: &Record) -> Failure {
    if !failure.message.contains(NO_TERMINAL) {
        return failure;
    }
    let message = format!("task {} was started without a terminal", task.id);
    Failure::new(Exit::Failed, message).hint(
        "`gantry task log -f` shows its output, `gantry task exec -it` opens a shell beside it; \
         \"tty\": true in the app gives its next tasks a terminal",
    )
}
