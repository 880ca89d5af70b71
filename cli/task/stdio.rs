//! Stdin, stdout and stderr of a process on a node: streams of records of `ProcessIO`, in protobuf.
//!
//! Invariants: a record and what waits to be sent are bounded; bytes pass unchanged in both
//! directions.

use std::time::Duration;

use futures_util::stream;
use gantry_wire::mesos::recordio::{self, Decoder};
use gantry_wire::mesos::v1::agent::call::attach_container_input::Type as InputType;
use gantry_wire::mesos::v1::agent::call::{AttachContainerInput, Type as CallType};
use gantry_wire::mesos::v1::agent::process_io::control::{Heartbeat, Type as ControlType};
use gantry_wire::mesos::v1::agent::process_io::data::Type as DataType;
use gantry_wire::mesos::v1::agent::process_io::{Control, Data, Type as IoType};
use gantry_wire::mesos::v1::agent::{Call, ProcessIo};
use gantry_wire::mesos::v1::tty_info::WindowSize;
use gantry_wire::mesos::v1::{ContainerId, DurationInfo, TtyInfo};
use gantry_wire::mesos::{Encoding, decode, encode};
use reqwest::{Body, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::keyboard::{self, Detacher};
use crate::output;

/// Longest record that is taken.
const RECORD_MAX_BYTES: usize = 4 << 20;
/// Records that wait to be sent.
const WAITING_MAX: usize = 8;
/// As clients of Mesos have it; well below what a node takes for silence.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long a person who lets go waits for what was typed before.
const LET_GO_MAX: Duration = Duration::from_secs(1);

/// What is typed, or comes down a pipe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    /// Whether our stdin is passed on; otherwise the process sees its end at once.
    pub(super) keys: bool,
    /// Whether there is a terminal on the other side.
    pub(super) tty: bool,
    /// Whether the keys for it detach.
    pub(super) detach: bool,
}

/// How input ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Ours did, or the process took no more.
    Closed,
    /// The person let go.
    Detached,
}

/// A container id of Mesos's JSON.
pub(super) fn container_id(json: &Value) -> ContainerId {
    ContainerId {
        value: json["value"].as_str().unwrap_or_default().to_owned(),
        parent: json.get("parent").map(|parent| container_id(parent).into()),
    }
}

/// Passes our stdin on to the process of `container`, until either ends.
pub(super) async fn pass_on(
    client: &Client,
    path: &str,
    container: ContainerId,
    input: Input,
) -> Result<Ended, Failure> {
    let (records, waiting) = mpsc::channel(WAITING_MAX);
    let body = stream::unfold(waiting, |mut waiting| async move {
        let record = waiting.recv().await?;
        Some((Ok::<Vec<u8>, std::io::Error>(record), waiting))
    });
    let post = client.input(path, Body::wrap_stream(body));
    let first = AttachContainerInput {
        r#type: Some(InputType::ContainerId as i32),
        container_id: Some(container),
        ..AttachContainerInput::default()
    };
    let read = async {
        // When nobody takes records any more the answer is there, and says why.
        let _ = records.send(record(first)).await;
        if let Some(size) = keyboard::size().filter(|_| input.tty) {
            let _ = records.send(sized(size)).await;
        }
        let end = read(input, &records).await;
        drop(records);
        end
    };
    tokio::pin!(post, read);
    tokio::select! {
        answer = &mut post => answer.map(|_| Ended::Closed),
        end = &mut read => match end {
            Ended::Detached => {
                // What was typed before is still on its way.
                let _ = timeout(LET_GO_MAX, post).await;
                Ok(end)
            }
            Ended::Closed => post.await.map(|_| end),
        },
    }
}

/// Makes records of what is typed, of the terminal's size, and so that the connection is not idle.
async fn read(input: Input, records: &mpsc::Sender<Vec<u8>>) -> Ended {
    if !input.keys && !input.tty {
        let _ = records.send(typed(&[])).await;
        return Ended::Closed;
    }
    let mut stdin = input.keys.then(keyboard::read);
    let (mut detacher, mut beats) = (Detacher::default(), interval(HEARTBEAT));
    let mut resizes = keyboard::resizes().ok().filter(|_| input.tty);
    loop {
        let sent = tokio::select! {
            got = next(&mut stdin) => match got {
                None if input.tty => { stdin = None; Ok(()) }
                None => {
                    let _ = records.send(typed(&[])).await;
                    return Ended::Closed;
                }
                Some(bytes) if input.detach => {
                    let (keys, lets_go) = detacher.pass(&bytes);
                    // An empty record would be the end.
                    let sent = match keys.is_empty() {
                        true => Ok(()),
                        false => records.send(typed(&keys)).await,
                    };
                    if lets_go {
                        return Ended::Detached;
                    }
                    sent
                }
                Some(bytes) => records.send(typed(&bytes)).await,
            },
            () = resized(&mut resizes) => match keyboard::size() {
                Some(size) => records.send(sized(size)).await,
                None => Ok(()),
            },
            _ = beats.tick() => records.send(heartbeat()).await,
        };
        if sent.is_err() {
            return Ended::Closed;
        }
    }
}

/// What comes of stdin; never ready once it is gone.
async fn next(stdin: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match stdin {
        Some(stdin) => stdin.recv().await,
        None => std::future::pending().await,
    }
}

async fn resized(resizes: &mut Option<tokio::signal::unix::Signal>) {
    let told = match resizes {
        Some(resizes) => resizes.recv().await,
        None => None,
    };
    if told.is_none() {
        std::future::pending::<()>().await;
    }
}

fn record(part: AttachContainerInput) -> Vec<u8> {
    let call = Call {
        r#type: Some(CallType::AttachContainerInput as i32),
        attach_container_input: Some(part),
        ..Call::default()
    };
    let mut framed = Vec::new();
    recordio::frame(&encode(Encoding::Protobuf, &call), &mut framed);
    framed
}

fn io_record(io: ProcessIo) -> Vec<u8> {
    record(AttachContainerInput {
        r#type: Some(InputType::ProcessIo as i32),
        process_io: Some(io.into()),
        ..AttachContainerInput::default()
    })
}

fn typed(bytes: &[u8]) -> Vec<u8> {
    io_record(ProcessIo {
        r#type: Some(IoType::Data as i32),
        data: Some(Data {
            r#type: Some(DataType::Stdin as i32),
            data: Some(bytes.to_vec()),
        }),
        ..ProcessIo::default()
    })
}

fn control(control: Control) -> Vec<u8> {
    io_record(ProcessIo {
        r#type: Some(IoType::Control as i32),
        control: Some(control),
        ..ProcessIo::default()
    })
}

/// The terminal's rows and columns.
fn sized((rows, columns): (u32, u32)) -> Vec<u8> {
    control(Control {
        r#type: Some(ControlType::TtyInfo as i32),
        tty_info: Some(TtyInfo {
            window_size: Some(WindowSize { rows, columns }),
        }),
        ..Control::default()
    })
}

fn heartbeat() -> Vec<u8> {
    let nanoseconds = i64::try_from(HEARTBEAT.as_nanos()).unwrap_or(i64::MAX);
    control(Control {
        r#type: Some(ControlType::Heartbeat as i32),
        heartbeat: Some(Heartbeat {
            interval: Some(DurationInfo { nanoseconds }),
        }),
        ..Control::default()
    })
}

fn broken() -> Failure {
    let message = "the node's answer is broken off or no stream of records";
    Failure::new(Exit::Failed, message)
}

/// Prints a stream of output to its end, or collects it.
pub(super) async fn print(
    client: &Client,
    response: &mut Response,
    sink: &mut Sink,
) -> Result<(), Failure> {
    let mut decoder = Decoder::new(RECORD_MAX_BYTES);
    while let Some(bytes) = response.chunk().await.map_err(|e| client.unreachable(&e))? {
        let mut input = &bytes[..];
        while let Some(record) = decoder.next(&mut input).map_err(|_| broken())? {
            let io = decode(Encoding::Protobuf, &record).map_err(|_| broken())?;
            sink.take(&io)?;
        }
    }
    decoder.finish().map_err(|_| broken())
}

/// Where the output goes: to ours, or collected for `--json`.
#[derive(Debug, Default)]
pub(super) struct Sink {
    json: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Sink {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            ..Self::default()
        }
    }

    /// One record; kinds other than output (heartbeats) are skipped.
    fn take(&mut self, io: &ProcessIo) -> Result<(), Failure> {
        let Some(data) = io.data.as_ref().filter(|_| io.r#type() == IoType::Data) else {
            return Ok(());
        };
        let bytes = data.data.as_deref().unwrap_or_default();
        match (self.json, data.r#type()) {
            (true, DataType::Stderr) => self.stderr.extend(bytes),
            (true, DataType::Stdout) => self.stdout.extend(bytes),
            (false, DataType::Stderr) => output::print_error_bytes(bytes)?,
            (false, DataType::Stdout) => output::print_bytes(bytes)?,
            (_, DataType::Stdin | DataType::Unknown) => {}
        }
        Ok(())
    }

    pub(super) fn finish(self, status: u8) -> Result<(), Failure> {
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

/// The exit code as a shell counts it, from a wait(2) status.
pub(super) fn shell_code(status: i64) -> u8 {
    let signal = status & 0x7f;
    let code = if signal == 0 {
        (status >> 8) & 0xff
    } else {
        128 + signal
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_carry_output() {
        let io = |stream: DataType, bytes: &[u8]| ProcessIo {
            r#type: Some(IoType::Data as i32),
            data: Some(Data {
                r#type: Some(stream as i32),
                data: Some(bytes.to_vec()),
            }),
            ..ProcessIo::default()
        };
        let mut sink = Sink::new(true);
        for io in [
            io(DataType::Stdout, b"hi\n"),
            io(DataType::Stderr, &[0xff]),
            io(DataType::Stdin, b"no"),
            ProcessIo::default(),
        ] {
            sink.take(&io).unwrap();
        }
        assert_eq!(
            (&sink.stdout[..], &sink.stderr[..]),
            (&b"hi\n"[..], &[0xff][..])
        );
    }

    #[test]
    fn statuses_become_shell_codes() {
        for (status, code) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(shell_code(status), code);
        }
    }

    #[test]
    fn ids_keep_all_their_parents() {
        let id = container_id(
            &json!({"value": "a", "parent": {"value": "b", "parent": {"value": "c"}}}),
        );
        let b = id.parent.unwrap();
        assert_eq!(
            (b.value.as_str(), b.parent.unwrap().value.as_str()),
            ("b", "c")
        );
    }
}
