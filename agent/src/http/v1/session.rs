//! LAUNCH_NESTED_CONTAINER_SESSION: one more process inside a running container, its output
//! streamed as records until it ends; a client that goes away ends it.
//!
//! ```text
//! process ─▶ pipe (64 KiB) ─▶ pump ─▶ RECORDS_MAX records ─▶ HTTP body ─▶ client
//! ```
//! Invariant: a client that reads slowly stops the process by a full pipe; nothing in between
//! grows. No terminal and no input yet: both are refused in words.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use gantry_isolation::keeper::ExecSpec;
use gantry_isolation::spec::{ContainerId, ExitStatus, User};
use gantry_wire::mesos::Encoding;
use gantry_wire::mesos::negotiation::Body as Accept;
use gantry_wire::mesos::v1::CommandInfo;
use gantry_wire::mesos::v1::agent::call::LaunchNestedContainerSession;
use gantry_wire::task::TaskState;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::Server;
use super::super::problem::Problem;
use super::containers::{self, SIGKILL};
use super::process_io::{self, Stream};
use crate::execs;
use crate::inbox::{Ask, Event, ExecOrder, TaskRow};

/// Records between the pump and the client.
const RECORDS_MAX: usize = 8;
/// Output in one record.
const CHUNK_BYTES: usize = 32 * 1024;
/// Mesos's `--http_heartbeat_interval`.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long output of a process that ended is waited for when something it left behind holds the
/// pipes open.
const DRAIN: Duration = Duration::from_millis(500);

pub(super) async fn launch(
    server: &Arc<Server>,
    launch: LaunchNestedContainerSession,
    accept: Accept,
) -> Result<Response, Problem> {
    if launch
        .container
        .as_ref()
        .is_some_and(|container| container.tty_info.is_some())
    {
        let text = "A terminal ('tty_info') is not supported yet by this version of Gantry";
        return Err(Problem::BadRequest(text.to_owned()));
    }
    let session = containers::session(&launch.container_id)?;
    let parent = launch
        .container_id
        .parent
        .as_ref()
        .map(|parent| parent.value.clone());
    let parent = parent.unwrap_or_default();
    let task = task(server, &parent).await?;
    let spec = exec_spec(server, &session, &parent, launch, &task).await?;

    let Pipes {
        stdout,
        stderr,
        stdio,
    } = pipes().map_err(|error| Problem::Internal(format!("making pipes: {error}")))?;
    let (started, start) = oneshot::channel();
    let (exited, exit) = oneshot::channel();
    let order = ExecOrder {
        spec,
        stdio,
        kept: true,
        started,
        exited,
    };
    // Armed before the order: whatever happens to this request, the process does not stay.
    let guard = KillOnDrop {
        server: server.clone(),
        session: Some(session),
    };
    containers::ask(server, Ask::Exec(Box::new(order))).await?;
    match start.await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return Err(Problem::BadRequest(format!("Failed to launch: {why}"))),
        Err(_) => {
            return Err(Problem::Internal(
                "the keeper of this node went away".to_owned(),
            ));
        }
    }
    let (records, body) = mpsc::channel(RECORDS_MAX);
    let (stdout, stderr, exit) = (Some(stdout), Some(stderr), Some(exit));
    tokio::spawn(
        Pump {
            stdout,
            stderr,
            exit,
            records,
            guard,
            encoding: accept.encoding(),
        }
        .run(),
    );
    Ok(answer(body, accept))
}

/// Our ends of the output, and what the process gets.
struct Pipes {
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    stdio: [OwnedFd; 3],
}

fn pipes() -> io::Result<Pipes> {
    let (stdout, stdout_writer) = io::pipe()?;
    let (stderr, stderr_writer) = io::pipe()?;
    let stdin = File::open("/dev/null")?;
    Ok(Pipes {
        stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
        stdio: [stdin.into(), stdout_writer.into(), stderr_writer.into()],
    })
}

/// The stream of records, under the type that the client asked for.
fn answer(records: mpsc::Receiver<Bytes>, accept: Accept) -> Response {
    let body = futures_util::stream::unfold(records, |mut records| async move {
        records
            .recv()
            .await
            .map(|record| (Ok::<_, Infallible>(record), records))
    });
    let body = Body::from_stream(body);
    let kind = (CONTENT_TYPE, accept.media_type());
    match accept {
        Accept::Message(_) => ([kind], body).into_response(),
        Accept::Records(encoding) => {
            let inner = HeaderName::from_static("message-content-type");
            ([kind, (inner, encoding.media_type())], body).into_response()
        }
    }
}

/// The task whose container `parent` is, while it runs.
async fn task(server: &Server, parent: &str) -> Result<TaskRow, Problem> {
    let (reply, answer) = oneshot::channel();
    containers::ask(
        server,
        Ask::Task {
            container: parent.to_owned(),
            reply,
        },
    )
    .await?;
    let found = answer.await.map_err(|_| Problem::Unavailable)?;
    found
        .filter(|task| task.state == TaskState::TaskRunning)
        .ok_or_else(|| Problem::NotFound(format!("Container '{parent}' is not running here")))
}

/// What the task's command has, the process has too: environment, user, directory.
async fn exec_spec(
    server: &Server,
    session: &ContainerId,
    parent: &str,
    launch: LaunchNestedContainerSession,
    task: &TaskRow,
) -> Result<ExecSpec, Problem> {
    let Some(command) = launch.command else {
        return Err(Problem::BadRequest("Expecting 'command'".to_owned()));
    };
    let inside = execs::inside(&server.store, &server.facts, &server.node, task).await;
    let mut env = inside.env;
    for variable in command.environment.iter().flat_map(|env| &env.variables) {
        env.retain(|(name, _)| *name != variable.name);
        let value = variable.value.clone().unwrap_or_default();
        env.push((variable.name.clone(), value));
    }
    let user = match command.user.as_deref() {
        None | Some("") => inside.user,
        Some("root") => User::Root,
        Some(name) => User::Name(name.to_owned()),
    };
    let bad = |error: gantry_isolation::spec::SpecError| Problem::BadRequest(error.to_string());
    Ok(ExecSpec {
        session: session.clone(),
        id: ContainerId::try_from(parent).map_err(bad)?,
        argv: argv(&command)?,
        env,
        cwd: Some(inside.cwd),
        user,
        tty: false,
        window: None,
        capabilities: gantry_isolation::caps::default_set(),
    })
}

/// A shell line, or what to execute with its whole argument vector.
fn argv(command: &CommandInfo) -> Result<Vec<String>, Problem> {
    let value = command.value.clone().filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| Problem::BadRequest("Expecting 'command.value'".to_owned()))?;
    if command.shell() {
        return Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), value]);
    }
    let rest = command.arguments.iter().skip(1).cloned();
    Ok(std::iter::once(value).chain(rest).collect())
}

/// Ends the process of a session unless disarmed.
struct KillOnDrop {
    server: Arc<Server>,
    session: Option<ContainerId>,
}

impl KillOnDrop {
    fn disarm(&mut self) {
        self.session = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let events = self.server.events.clone();
        // A closed inbox means that the agent ends.
        tokio::spawn(async move {
            let _ = events
                .send(Event::Ask(Ask::KillExec {
                    session,
                    signo: SIGKILL,
                }))
                .await;
        });
    }
}

/// From the pipes to the client.
struct Pump {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    /// None once it ended.
    exit: Option<oneshot::Receiver<ExitStatus>>,
    records: mpsc::Sender<Bytes>,
    encoding: Encoding,
    guard: KillOnDrop,
}

impl Pump {
    async fn run(mut self) {
        let (mut out, mut err) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ended = self.exit.is_none();
            if ended && self.stdout.is_none() && self.stderr.is_none() {
                return;
            }
            let record = tokio::select! {
                read = read(&mut self.stdout, &mut out) => {
                    match self.got(Stream::Stdout, read, &out) { Some(r) => r, None => continue }
                }
                read = read(&mut self.stderr, &mut err) => {
                    match self.got(Stream::Stderr, read, &err) { Some(r) => r, None => continue }
                }
                _ = exited(&mut self.exit), if !ended => {
                    self.exit = None;
                    self.guard.disarm();
                    continue;
                }
                () = sleep(DRAIN), if ended => return,
                () = self.records.closed() => return,
                _ = heartbeat.tick() => process_io::heartbeat(self.encoding, HEARTBEAT),
            };
            if self.records.send(record).await.is_err() {
                return;
            }
        }
    }

    /// A record of what was read; at the end of a pipe, none, and the pipe is gone.
    fn got(&mut self, stream: Stream, read: usize, buffer: &[u8]) -> Option<Bytes> {
        if read > 0 {
            return Some(process_io::data(self.encoding, stream, &buffer[..read]));
        }
        match stream {
            Stream::Stdout => self.stdout = None,
            Stream::Stderr => self.stderr = None,
        }
        None
    }
}

/// Reads from a pipe, 0 at its end; never ready once it is gone.
async fn read(pipe: &mut Option<pipe::Receiver>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// Ready when the process ended, or its keeper is gone.
async fn exited(exit: &mut Option<oneshot::Receiver<ExitStatus>>) {
    match exit {
        Some(exit) => {
            let _ = exit.await;
        }
        None => std::future::pending().await,
    }
}
