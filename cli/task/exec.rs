//! `gantry task exec`: a command inside a task's container, through the agent's
//! LAUNCH_NESTED_CONTAINER_SESSION, as the DC/OS client does it.
//!
//! Output arrives on one connection, input goes on a second one; the exit status is asked for
//! afterwards. Whoever leaves takes the command along: the node ends what nobody listens to.

use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::record;
use super::stdio::{self, Ended, Input, Sink, shell_code};
use crate::args::Global;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::keyboard::{self, Raw};

const EXAMPLES: &str = "\
Examples:
  gantry task exec /hello ps aux
  gantry task exec /hello -- sh -c 'echo $MESOS_TASK_ID; exit 3'; echo $?
  gantry task exec -it /hello sh                        a shell, as if you sat there
  cat dump.sql | gantry task exec -i /db psql           input by a pipe, to its end
  gantry task exec /db pg_dump > dump.sql

The command runs beside the task's own: same files, network, limits, environment and user. Without
-i its input is empty. Ctrl-C ends it; with -t the key goes to what runs there instead. When this
program or its connection ends, so does the command and all that it started at its terminal.";

/// How long a process that takes no input may take to end.
const END_MAX: Duration = Duration::from_secs(2);
/// The shell's codes: a command that cannot be executed, and one that does not exist.
const NOT_EXECUTABLE: u8 = 126;
const NO_COMMAND: u8 = 127;

/// Flags of `task exec`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExecArgs {
    /// Pass our input on to the command.
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal of our terminal's size.
    #[arg(short, long)]
    tty: bool,
    /// The task: its id, the beginning of it, or the id of a service with one task.
    task: String,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

impl ExecArgs {
    /// Runs the command; its exit code becomes ours.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        self.check(global)?;
        let task = record::find(client, &self.task).await?;
        let parent = task.running_container()?;
        let container = json!({"value": uuid::Uuid::new_v4().to_string(), "parent": parent});
        let path = format!("/agent/{}/api/v1", task.agent);
        let mut response = client
            .output(&path, &self.launch(&container))
            .await
            .map_err(unstarted)?;
        let mut sink = Sink::new(global.json);
        let input = Input {
            keys: self.interactive,
            tty: self.tty,
            detach: false,
        };
        let raw = (self.tty && self.interactive)
            .then(Raw::enter)
            .transpose()?;
        let typing = stdio::pass_on(client, &path, stdio::container_id(&container), input);
        let printing = stdio::print(client, &mut response, &mut sink);
        both(printing, typing).await?;
        drop(raw);
        let status = exit_status(client, &path, &container).await?;
        sink.finish(status)
    }

    fn check(&self, global: &Global) -> Result<(), Failure> {
        let wrong = |message: &str| Err(Failure::new(Exit::Usage, message));
        if global.json && (self.interactive || self.tty) {
            return wrong("--json does not go together with -i or -t");
        }
        if self.tty && self.interactive && !keyboard::is_terminal() {
            return wrong("our input is no terminal, so -t cannot pass keys on").map_err(
                |failure| failure.hint("for input from a pipe or a file use -i without -t"),
            );
        }
        Ok(())
    }

    fn launch(&self, container: &Value) -> Value {
        let mut launch = json!({
            "type": "LAUNCH_NESTED_CONTAINER_SESSION",
            "launch_nested_container_session": {
                "container_id": container,
                "command": {"value": self.command[0], "arguments": self.command, "shell": false},
            },
        });
        if self.tty {
            let mut tty = json!({});
            if let Some((rows, columns)) = keyboard::size() {
                tty["window_size"] = json!({"rows": rows, "columns": columns});
            }
            let inner = &mut launch["launch_nested_container_session"];
            inner["container"] = json!({"type": "MESOS", "tty_info": tty});
            if let Ok(term) = std::env::var("TERM") {
                let variable = json!({"name": "TERM", "type": "VALUE", "value": term});
                inner["command"]["environment"] = json!({"variables": [variable]});
            }
        }
        launch
    }
}

/// Prints until the output ends, and passes input on meanwhile.
pub(super) async fn both(
    printing: impl Future<Output = Result<(), Failure>>,
    typing: impl Future<Output = Result<Ended, Failure>>,
) -> Result<Ended, Failure> {
    tokio::pin!(printing, typing);
    let told = keyboard::told_to_end();
    tokio::pin!(told);
    let typed = tokio::select! {
        end = &mut printing => return end.map(|()| Ended::Closed),
        failure = &mut told => return Err(failure),
        typed = &mut typing => typed,
    };
    // A process that ends takes no input either: what went wrong with that counts only if there is
    // more output.
    let (longest, failure) = match typed {
        Ok(Ended::Detached) => return Ok(Ended::Detached),
        Ok(Ended::Closed) => (Duration::MAX, None),
        Err(failure) => (END_MAX, Some(failure)),
    };
    tokio::select! {
        end = timeout(longest, printing) => match (end, failure) {
            (Err(_), Some(failure)) => Err(failure),
            (end, _) => end.unwrap_or(Ok(())).map(|()| Ended::Closed),
        },
        failure = told => Err(failure),
    }
}

/// A command that could not be executed gets the exit code that a shell gives it.
fn unstarted(failure: Failure) -> Failure {
    let Some((_, why)) = failure.message.split_once("Failed to launch: exec ") else {
        return failure;
    };
    let code = if why.ends_with("No such file or directory") {
        NO_COMMAND
    } else {
        NOT_EXECUTABLE
    };
    Failure::new(Exit::Remote(code), format!("cannot run {why}"))
}

/// How a process ended.
pub(super) async fn exit_status(
    client: &Client,
    path: &str,
    container: &Value,
) -> Result<u8, Failure> {
    let wait = json!({
        "type": "WAIT_CONTAINER",
        "wait_container": {"container_id": container},
    });
    let answer = client.call(Method::POST, path, Some(&wait)).await?;
    let status = answer.body["wait_container"]["exit_status"].as_i64();
    status
        .map(shell_code)
        .ok_or_else(|| Failure::new(Exit::Failed, "the node does not know how the command ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_executed_has_a_code_of_its_own() {
        for (message, exit) in [
            (
                "Failed to launch: exec /x: No such file or directory",
                Exit::Remote(127),
            ),
            (
                "Failed to launch: exec /x: Permission denied",
                Exit::Remote(126),
            ),
            (
                "Failed to launch: chdir /x: No such file or directory",
                Exit::Failed,
            ),
        ] {
            assert_eq!(unstarted(Failure::new(Exit::Failed, message)).exit, exit);
        }
    }
}
