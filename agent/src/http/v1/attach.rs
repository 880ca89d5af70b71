//! ATTACH_CONTAINER_OUTPUT and ATTACH_CONTAINER_INPUT: clients that join a session, or a task that
//! has a terminal.
//!
//! Of a task without one nothing can be joined, as with Mesos: its output is in its sandbox. An
//! answer with output ends when the container does, or when its reader lags (see `live`, and the
//! keeper for tasks). Invariant: of a stream of input one record is held, and the next is read only
//! when the process has taken it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use gantry_isolation::keeper::terminal;
use gantry_isolation::spec::ContainerId;
use gantry_wire::mesos::negotiation::Body as Accept;
use gantry_wire::mesos::v1;
use gantry_wire::mesos::v1::agent::Call;
use gantry_wire::mesos::v1::agent::ProcessIo;
use gantry_wire::mesos::v1::agent::call::attach_container_input::Type as InputType;
use gantry_wire::mesos::v1::agent::call::{AttachContainerInput, Type};
use gantry_wire::mesos::v1::agent::process_io::Type as IoType;
use gantry_wire::mesos::v1::agent::process_io::control::Type as ControlType;
use gantry_wire::mesos::v1::agent::process_io::data::Type as DataType;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::Server;
use super::super::problem::Problem;
use super::containers;
use super::place::{self, Place};
use super::process_io::{Piece, Stream};
use super::pump::{CHUNK_BYTES, HEARTBEAT, answer, heartbeats};
use super::records::Records;
use super::session::window;
use super::stdin::Stdin;
use crate::inbox::{Ask, AttachOrder, TaskRow};

/// What clients of Mesos look for, word for word.
const NO_SWITCHBOARD: &str = "I/O switchboard server was disabled for this container";
/// What waits for a reader of a task's terminal before it is cut off: in the pipe,
const LAG_BYTES: usize = 1 << 20;
/// and as records.
const LAG_RECORDS: usize = 64;
/// How long the keeper may take to hand out a terminal.
const HAND_OUT: Duration = Duration::from_secs(10);

/// The output from now on.
pub(super) async fn output(
    server: &Arc<Server>,
    container: &v1::ContainerId,
    accept: Accept,
) -> Result<Response, Problem> {
    match place::find(server, container).await? {
        Place::Session { name, .. } => {
            let live = server.joined.find(&name);
            let live = live.ok_or_else(|| unknown(&container.value))?;
            Ok(answer(live.watch(accept.encoding())?, accept))
        }
        Place::Task(task) => {
            let (shown, writer) = io::pipe().map_err(|error| failed(&error))?;
            // Refused to a user with too many pages in pipes; then it lags sooner.
            let _ = rustix::pipe::fcntl_setpipe_size(&writer, LAG_BYTES);
            let shown = pipe::Receiver::from_owned_fd(shown.into());
            let shown = shown.map_err(|error| failed(&error))?;
            // The master is for input only; this copy of it goes at once.
            let (ended, _) = oneshot::channel();
            let called = containers::name(container)?;
            drop(hand_out(server, (&task, called), Some(writer.into()), ended).await?);
            let (records, body) = mpsc::channel(LAG_RECORDS);
            tokio::spawn(follow(shown, records, accept));
            Ok(answer(body, accept))
        }
    }
}

/// From the pipe that the keeper's outlet writes into, to one client.
async fn follow(mut shown: pipe::Receiver, records: mpsc::Sender<bytes::Bytes>, accept: Accept) {
    let (mut bytes, mut beats) = (vec![0; CHUNK_BYTES], heartbeats());
    loop {
        let piece = tokio::select! {
            got = shown.read(&mut bytes) => match got.unwrap_or(0) {
                0 => return,
                got => Piece::Data(Stream::Stdout, &bytes[..got]),
            },
            _ = beats.tick() => Piece::Heartbeat(HEARTBEAT),
            () = records.closed() => return,
        };
        if records.send(piece.record(accept.encoding())).await.is_err() {
            return;
        }
    }
}

/// A copy of the master of the terminal of a task, which clients call so. What comes out of it goes
/// into `watcher`, too.
async fn hand_out(
    server: &Server,
    (task, called): (&TaskRow, ContainerId),
    watcher: Option<OwnedFd>,
    ended: oneshot::Sender<gantry_isolation::spec::ExitStatus>,
) -> Result<OwnedFd, Problem> {
    if task.launch.tty.is_none() {
        return Err(Problem::Internal(NO_SWITCHBOARD.to_owned()));
    }
    let container = ContainerId::try_from(task.container.as_str());
    let container = container.map_err(|error| Problem::Internal(error.to_string()))?;
    let (ours, theirs) = terminal::pair().map_err(|errno| failed(&errno.into()))?;
    let fds = std::iter::once(theirs).chain(watcher).collect();
    let order = AttachOrder {
        container,
        called,
        fds,
        ended,
    };
    containers::ask(server, Ask::Attach(Box::new(order))).await?;
    let arrived = async {
        let ours = UnixStream::from_std(ours.into())?;
        ours.readable().await?;
        Ok::<_, io::Error>(terminal::receive(ours.as_fd()))
    };
    let late = |_| Problem::Internal("the keeper of this node does not answer".to_owned());
    let master = timeout(HAND_OUT, arrived).await.map_err(late)?;
    let master = master.map_err(|error| failed(&error))?;
    master.map_err(|error| Problem::Internal(crate::chain(&error)))
}

fn failed(error: &io::Error) -> Problem {
    Problem::Internal(format!("attaching: {error}"))
}

fn unknown(container: &str) -> Problem {
    Problem::NotFound(format!("Container '{container}' is not running here"))
}

/// A stream of calls: the container first, then what is typed.
pub(super) async fn input(server: &Arc<Server>, mut records: Records) -> Result<Response, Problem> {
    let Some(first) = records.next().await? else {
        return Err(super::invalid("Expecting a record"));
    };
    let first = attach(first)?;
    let (InputType::ContainerId, Some(container)) = (first.r#type(), first.container_id) else {
        let text = "Expecting 'attach_container_input.type' of the first record to be \
                    'CONTAINER_ID', and 'container_id' to be present";
        return Err(super::invalid(text));
    };
    match place::find(server, &container).await? {
        Place::Session { name, .. } => {
            let live = server.joined.find(&name);
            let live = live.ok_or_else(|| unknown(&container.value))?;
            let mut stdin = live.stdin()?;
            tokio::select! {
                done = feed(&mut stdin, &mut records) => done?,
                () = live.ended.cancelled() => {}
            }
        }
        Place::Task(task) => {
            let _typing = server.joined.type_into(task.container.as_str())?;
            let (ended, end) = oneshot::channel();
            let called = containers::name(&container)?;
            let master = hand_out(server, (&task, called), None, ended).await?;
            let mut stdin = Stdin::terminal(master).map_err(|error| failed(&error))?;
            tokio::select! {
                done = feed(&mut stdin, &mut records) => done?,
                _ = end => {}
            }
        }
    }
    Ok(().into_response())
}

/// The only call that comes in records.
fn attach(call: Call) -> Result<AttachContainerInput, Problem> {
    let kind = call.r#type();
    if kind != Type::AttachContainerInput {
        let text = format!(
            "Streaming 'Content-Type' application/recordio is not supported for {} call",
            kind.name()
        );
        return Err(Problem::UnsupportedMediaType(text));
    }
    super::part(call.attach_container_input, kind)
}

/// Until the stream ends, or the process takes no more.
async fn feed(stdin: &mut Stdin, records: &mut Records) -> Result<(), Problem> {
    while let Some(call) = records.next().await? {
        let part = attach(call)?;
        let (InputType::ProcessIo, Some(io)) = (part.r#type(), part.process_io) else {
            let text = "Expecting 'attach_container_input.type' to be 'PROCESS_IO', and \
                        'process_io' to be present";
            return Err(super::invalid(text));
        };
        if !take(stdin, &io).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// False when the process takes no more.
async fn take(stdin: &mut Stdin, io: &ProcessIo) -> Result<bool, Problem> {
    match (io.r#type(), &io.data, &io.control) {
        (IoType::Data, Some(data), _) if data.r#type() == DataType::Stdin => {
            Ok(stdin.put(data.data.as_deref().unwrap_or_default()).await)
        }
        (IoType::Control, _, Some(control)) => {
            let size = control.tty_info.as_ref().map(window);
            match (control.r#type(), size) {
                (ControlType::Heartbeat, _) => Ok(true),
                (ControlType::TtyInfo, Some(Some(size))) => {
                    let words = |error| format!("Unable to set the window size: {error}");
                    let resized = stdin.resize(size);
                    resized.map_err(|error| Problem::BadRequest(words(error)))?;
                    Ok(true)
                }
                _ => Err(super::invalid(
                    "Expecting a heartbeat or 'tty_info' in 'process_io.control'",
                )),
            }
        }
        _ => Err(super::invalid(
            "Expecting data of type 'STDIN' or 'control' in 'process_io'",
        )),
    }
}
