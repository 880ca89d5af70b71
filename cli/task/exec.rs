//! `gantry task exec`: a command inside a task's container, through the agent's
//! LAUNCH_NESTED_CONTAINER_SESSION, as the DC/OS client does it.
//!
//! Output arrives as RecordIO of ProcessIO records; the exit status is asked for afterwards. It
//! passes on no input and makes no terminal (a later version does).

use base64::Engine;
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::record;
use crate::args::Global;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::recordio::Decoder;

const EXAMPLES: &str = "\
Examples:
  gantry task exec /hello -- ps aux
  gantry task exec /hello -- sh -c 'echo $MESOS_TASK_ID; exit 3'; echo $?

The command gets no input yet: its stdin is /dev/null. Ctrl-C ends it.";

/// The shell's codes: a command that cannot be executed, and one that does not exist.
const NOT_EXECUTABLE: u8 = 126;
const NO_COMMAND: u8 = 127;

/// Flags of `task exec`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExecArgs {
    /// The task: its id, the beginning of it, or the id of a service with one task.
    task: String,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

impl ExecArgs {
    /// Runs the command; its exit code becomes ours.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        let task = record::find(client, &self.task).await?;
        if task.ended {
            let message = format!("task {} has ended", task.id);
            return Err(Failure::new(Exit::Failed, message).hint("see `gantry task list`"));
        }
        let Some(parent) = &task.container else {
            let message = format!("task {} has no container yet", task.id);
            return Err(Failure::new(Exit::Failed, message).hint("try again when it is running"));
        };
        let container =
            json!({"value": uuid::Uuid::new_v4().to_string(), "parent": {"value": parent}});
        let path = format!("/agent/{}/api/v1", task.agent);
        let launch = json!({
            "type": "LAUNCH_NESTED_CONTAINER_SESSION",
            "launch_nested_container_session": {
                "container_id": container,
                "command": {"value": self.command[0], "arguments": self.command, "shell": false},
            },
        });
        let mut sink = Sink::new(global.json);
        let mut response = client
            .stream(&path, &launch, "application/recordio")
            .await
            .map_err(unstarted)?;
        let mut decoder = Decoder::default();
        while let Some(bytes) = response.chunk().await.map_err(|e| client.unreachable(&e))? {
            decoder.push(&bytes);
            while let Some(record) = decoder.next().map_err(|_| broken())? {
                sink.take(&record)?;
            }
        }
        if !decoder.is_empty() {
            return Err(broken());
        }
        let status = exit_status(client, &path, &container).await?;
        sink.finish(status)
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

fn broken() -> Failure {
    Failure::new(
        Exit::Failed,
        "the node's answer is broken off or no stream of records",
    )
}

async fn exit_status(client: &Client, path: &str, container: &Value) -> Result<u8, Failure> {
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

/// The exit code as a shell counts it, from a wait(2) status.
fn shell_code(status: i64) -> u8 {
    let signal = status & 0x7f;
    let code = if signal == 0 {
        (status >> 8) & 0xff
    } else {
        128 + signal
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Where the command's output goes: to ours, or collected for `--json`.
struct Sink {
    json: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Sink {
    fn new(json: bool) -> Self {
        Self {
            json,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// One ProcessIO record; kinds other than output (heartbeats) are skipped.
    fn take(&mut self, record: &[u8]) -> Result<(), Failure> {
        let Some((to_stderr, bytes)) = output_of(record).map_err(|()| broken())? else {
            return Ok(());
        };
        match (self.json, to_stderr) {
            (true, true) => self.stderr.extend(bytes),
            (true, false) => self.stdout.extend(bytes),
            (false, true) => output::print_error_bytes(&bytes)?,
            (false, false) => output::print_bytes(&bytes)?,
        }
        Ok(())
    }

    fn finish(self, status: u8) -> Result<(), Failure> {
        if self.json {
            output::print_json(&json!({
                "exit_code": status,
                "stdout": String::from_utf8_lossy(&self.stdout),
                "stderr": String::from_utf8_lossy(&self.stderr),
            }))?;
        }
        if status == 0 {
            Ok(())
        } else {
            Err(Failure::new(Exit::Remote(status), ""))
        }
    }
}

/// Whether a record goes to stderr, and its bytes.
fn output_of(record: &[u8]) -> Result<Option<(bool, Vec<u8>)>, ()> {
    let value: Value = serde_json::from_slice(record).map_err(|_| ())?;
    let data = &value["data"];
    let to_stderr = match (value["type"].as_str(), data["type"].as_str()) {
        (Some("DATA"), Some("STDOUT")) => false,
        (Some("DATA"), Some("STDERR")) => true,
        _ => return Ok(None),
    };
    let text = data["data"].as_str().unwrap_or_default();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|_| ())?;
    Ok(Some((to_stderr, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_carry_output() {
        let out = br#"{"type":"DATA","data":{"type":"STDOUT","data":"aGkK"}}"#;
        let err = br#"{"type":"DATA","data":{"type":"STDERR","data":"IQ=="}}"#;
        let beat = br#"{"type":"CONTROL","control":{"type":"HEARTBEAT"}}"#;
        assert_eq!(output_of(out), Ok(Some((false, b"hi\n".to_vec()))));
        assert_eq!(output_of(err), Ok(Some((true, b"!".to_vec()))));
        assert_eq!(output_of(beat), Ok(None));
        assert_eq!(output_of(b"no"), Err(()));
    }

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

    #[test]
    fn statuses_become_shell_codes() {
        for (status, code) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(shell_code(status), code);
        }
    }
}
