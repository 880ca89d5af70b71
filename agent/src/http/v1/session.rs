//! LAUNCH_NESTED_CONTAINER_SESSION: one more process inside a running container, with pipes or a
//! terminal, its output streamed until it ends.
//!
//! As with Mesos its stdin stays open until a client that attaches to it ends it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use axum::response::Response;
use gantry_isolation::keeper::{ExecSpec, terminal};
use gantry_isolation::spec::{ContainerId, User, WindowSize};
use gantry_wire::mesos::negotiation::Body as Accept;
use gantry_wire::mesos::v1::agent::call::LaunchNestedContainerSession;
use gantry_wire::mesos::v1::{CommandInfo, TtyInfo};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::super::Server;
use super::super::problem::Problem;
use super::containers;
use super::place::{self, Place};
use super::pump::{KillOnDrop, Pump, RECORDS_MAX, answer};
use super::stdin::Stdin;
use crate::execs;
use crate::inbox::{Ask, ExecOrder, TaskRow};

pub(super) async fn launch(
    server: &Arc<Server>,
    launch: LaunchNestedContainerSession,
    accept: Accept,
) -> Result<Response, Problem> {
    let Place::Session { name, task } = place::find(server, &launch.container_id).await? else {
        let text = "Only sessions are started inside containers, not containers of tasks";
        return Err(Problem::BadRequest(text.to_owned()));
    };
    let spec = exec_spec(server, &name, launch, &task).await?;
    let tty = spec.tty;
    let no_room = |error: io::Error| Problem::Internal(format!("making its streams: {error}"));
    let (ours, fds) = ends(tty).map_err(no_room)?;
    let (started, start) = oneshot::channel();
    let (exited, exit) = oneshot::channel();
    let order = ExecOrder {
        spec,
        fds,
        kept: true,
        started,
        exited,
    };
    // Armed before the order: whatever happens to this request, the process does not stay.
    let guard = KillOnDrop::new(server, name.clone(), tty);
    containers::ask(server, Ask::Exec(Box::new(order))).await?;
    has_started(start).await?;
    let streams = ours.open()?;
    let (records, body) = mpsc::channel(RECORDS_MAX);
    let pump = Pump {
        stdout: Some(streams.stdout),
        stderr: streams.stderr,
        exit: Some(exit),
        records,
        encoding: accept.encoding(),
        running: server.joined.begin(name, streams.stdin),
        guard,
    };
    tokio::spawn(pump.run());
    Ok(answer(body, accept))
}

async fn has_started(start: oneshot::Receiver<Result<(), String>>) -> Result<(), Problem> {
    match start.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(Problem::BadRequest(format!("Failed to launch: {why}"))),
        Err(_) => {
            let text = "the keeper of this node went away";
            Err(Problem::Internal(text.to_owned()))
        }
    }
}

/// Our side of a process that starts.
enum Ours {
    Pipes(Streams),
    /// Where the master will be.
    Terminal(OwnedFd),
}

/// Our side of one that has started.
struct Streams {
    stdin: Stdin,
    stdout: pipe::Receiver,
    stderr: Option<pipe::Receiver>,
}

/// Both sides; the second is for the keeper.
fn ends(tty: bool) -> io::Result<(Ours, Vec<OwnedFd>)> {
    if tty {
        let (ours, theirs) = terminal::pair()?;
        return Ok((Ours::Terminal(ours), vec![theirs]));
    }
    let (stdin_reader, stdin) = io::pipe()?;
    let (stdout, stdout_writer) = io::pipe()?;
    let (stderr, stderr_writer) = io::pipe()?;
    let source = |reader: io::PipeReader| pipe::Receiver::from_owned_fd(reader.into());
    let streams = Streams {
        stdin: Stdin::Pipe(pipe::Sender::from_owned_fd(stdin.into())?),
        stdout: source(stdout)?,
        stderr: Some(source(stderr)?),
    };
    let theirs = vec![
        stdin_reader.into(),
        stdout_writer.into(),
        stderr_writer.into(),
    ];
    Ok((Ours::Pipes(streams), theirs))
}

impl Ours {
    fn open(self) -> Result<Streams, Problem> {
        let socket = match self {
            Self::Pipes(streams) => return Ok(streams),
            Self::Terminal(socket) => socket,
        };
        // It was sent before the command was run.
        let failed = |why: String| Problem::Internal(format!("taking its terminal: {why}"));
        let master = terminal::receive(socket.as_fd());
        let master = master.map_err(|error| failed(crate::chain(&error)))?;
        let streams = || {
            let stdout = pipe::Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
            Ok(Streams {
                stdin: Stdin::terminal(master)?,
                stdout,
                stderr: None,
            })
        };
        streams().map_err(|error: io::Error| failed(error.to_string()))
    }
}

/// The size of a terminal that is wanted, if it is one.
pub(super) fn window(tty: &TtyInfo) -> Option<WindowSize> {
    let size = tty.window_size.as_ref()?;
    let number = |of: u32| u16::try_from(of).unwrap_or(u16::MAX);
    Some(WindowSize {
        rows: number(size.rows),
        columns: number(size.columns),
    })
}

/// What the task's command has, the process has too: environment, user, directory.
async fn exec_spec(
    server: &Server,
    session: &ContainerId,
    launch: LaunchNestedContainerSession,
    task: &TaskRow,
) -> Result<ExecSpec, Problem> {
    let Some(command) = launch.command else {
        return Err(Problem::BadRequest("Expecting 'command'".to_owned()));
    };
    let tty = launch.container.and_then(|container| container.tty_info);
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
        id: ContainerId::try_from(task.container.as_str()).map_err(bad)?,
        argv: argv(&command)?,
        env,
        cwd: Some(inside.cwd),
        user,
        tty: tty.is_some(),
        window: tty.as_ref().and_then(window),
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
