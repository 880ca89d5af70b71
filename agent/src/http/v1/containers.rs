//! WAIT and KILL, for processes that were started inside containers of tasks: which one is meant,
//! and what its end looks like to Mesos.

use gantry_isolation::spec::{ContainerId, ExitStatus};
use gantry_wire::mesos::v1;
use gantry_wire::mesos::v1::agent::Response as Answer;
use gantry_wire::mesos::v1::agent::response::{Type, WaitContainer, WaitNestedContainer};
use tokio::sync::oneshot;

use super::super::Server;
use super::super::problem::Problem;
use super::place;
use crate::inbox::{Ask, Event};

/// signal(7).
pub(super) const SIGKILL: i32 = 9;
/// The largest number of a signal.
const SIGNAL_MAX: i32 = 64;

/// What is waited for: a session by its parent and itself, or the container of a task that a client
/// attached to.
fn name(container: &v1::ContainerId) -> Result<ContainerId, Problem> {
    if let Some(parent) = container.parent.as_deref() {
        return place::session(parent, &container.value);
    }
    let name = ContainerId::try_from(container.value.as_str());
    name.map_err(|error| Problem::BadRequest(error.to_string()))
}

/// The session that an id names.
fn session(container: &v1::ContainerId) -> Result<ContainerId, Problem> {
    let parent = container.parent.as_deref().ok_or_else(|| {
        Problem::BadRequest("'container_id.parent' is needed: only sessions inside tasks".into())
    })?;
    place::session(parent, &container.value)
}

pub(super) async fn wait_nested(
    server: &Server,
    container: &v1::ContainerId,
) -> Result<Answer, Problem> {
    let wait = WaitNestedContainer {
        exit_status: Some(end(server, container).await?),
        ..WaitNestedContainer::default()
    };
    Ok(Answer {
        r#type: Some(Type::WaitNestedContainer as i32),
        wait_nested_container: Some(wait.into()),
        ..Answer::default()
    })
}

pub(super) async fn wait(server: &Server, container: &v1::ContainerId) -> Result<Answer, Problem> {
    let wait = WaitContainer {
        exit_status: Some(end(server, container).await?),
        ..WaitContainer::default()
    };
    Ok(Answer {
        r#type: Some(Type::WaitContainer as i32),
        wait_container: Some(wait.into()),
        ..Answer::default()
    })
}

/// Waits for the end of a session.
async fn end(server: &Server, container: &v1::ContainerId) -> Result<i32, Problem> {
    let session = name(container)?;
    let (reply, answer) = oneshot::channel();
    ask(server, Ask::WaitExec { session, reply }).await?;
    let status = answer.await.map_err(|_| unknown(&container.value))?;
    Ok(raw(status))
}

pub(super) async fn kill(
    server: &Server,
    container: &v1::ContainerId,
    signal: Option<i32>,
) -> Result<(), Problem> {
    let signo = signal.unwrap_or(SIGKILL);
    if !(1..=SIGNAL_MAX).contains(&signo) {
        return Err(Problem::BadRequest(format!("{signo} is not a signal")));
    }
    let session = session(container)?;
    ask(server, Ask::KillExec { session, signo }).await
}

fn unknown(container: &str) -> Problem {
    Problem::NotFound(format!("Container '{container}' is not known"))
}

pub(super) async fn ask(server: &Server, ask: Ask) -> Result<(), Problem> {
    let sent = server.events.send(Event::Ask(ask)).await;
    sent.map_err(|_| Problem::Unavailable)
}

/// As wait(2) gives it, which is what Mesos passes on.
fn raw(status: ExitStatus) -> i32 {
    match status {
        ExitStatus::Code(code) => code << 8,
        ExitStatus::Signal(signal) => signal,
    }
}
