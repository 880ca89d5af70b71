//! WAIT, KILL and REMOVE, for containers that the API launched and for processes that were started
//! inside those of tasks: which one is meant, and what its end looks like to Mesos.

use gantry_isolation::spec::{ContainerId, ExitStatus};
use gantry_wire::mesos::v1;
use gantry_wire::mesos::v1::TaskState;
use gantry_wire::mesos::v1::agent::Response as Answer;
use gantry_wire::mesos::v1::agent::response::{Type, WaitContainer, WaitNestedContainer};
use gantry_wire::mesos::v1::task_status::Reason;
use tokio::sync::oneshot;

use super::super::Server;
use super::super::problem::Problem;
use super::place;
use crate::inbox::{Ask, Event, Named};
use crate::launched::DEPTH_MAX;

/// signal(7).
pub(super) const SIGKILL: i32 = 9;
/// The largest number of a signal.
const SIGNAL_MAX: i32 = 64;

/// What is waited for: a session by its parent and itself, or the container of a task that a client
/// attached to, by its executor and itself if it is a member of a group.
pub(super) fn name(container: &v1::ContainerId) -> Result<ContainerId, Problem> {
    if let Some(parent) = container.parent.as_deref() {
        return place::session(parent, &container.value);
    }
    let name = ContainerId::try_from(container.value.as_str());
    name.map_err(|error| Problem::BadRequest(error.to_string()))
}

/// The names of a container and of those around it, the outermost first.
pub(super) fn chain(id: &v1::ContainerId) -> Result<Vec<String>, Problem> {
    let mut names = Vec::new();
    let mut next = Some(id);
    while let Some(id) = next {
        if let Err(error) = ContainerId::try_from(id.value.as_str()) {
            return Err(Problem::BadRequest(error.to_string()));
        }
        if names.len() == DEPTH_MAX {
            let text = format!("More than {DEPTH_MAX} containers inside each other");
            return Err(Problem::BadRequest(text));
        }
        names.push(id.value.clone());
        next = id.parent.as_deref();
    }
    names.reverse();
    Ok(names)
}

/// How a container ended, in Mesos's words.
struct End {
    exit_status: i32,
    state: Option<i32>,
    reason: Option<i32>,
    message: Option<String>,
}

pub(super) async fn wait_nested(
    server: &Server,
    container: &v1::ContainerId,
) -> Result<Answer, Problem> {
    if container.parent.is_none() {
        let text = "Expecting 'wait_nested_container.container_id.parent' to be present";
        return Err(Problem::BadRequest(text.to_owned()));
    }
    let end = end(server, container).await?;
    let wait = WaitNestedContainer {
        exit_status: Some(end.exit_status),
        state: end.state,
        reason: end.reason,
        message: end.message,
        ..WaitNestedContainer::default()
    };
    Ok(Answer {
        r#type: Some(Type::WaitNestedContainer as i32),
        wait_nested_container: Some(wait.into()),
        ..Answer::default()
    })
}

pub(super) async fn wait(server: &Server, container: &v1::ContainerId) -> Result<Answer, Problem> {
    let end = end(server, container).await?;
    let wait = WaitContainer {
        exit_status: Some(end.exit_status),
        state: end.state,
        reason: end.reason,
        message: end.message,
        ..WaitContainer::default()
    };
    Ok(Answer {
        r#type: Some(Type::WaitContainer as i32),
        wait_container: Some(wait.into()),
        ..Answer::default()
    })
}

/// Waits for the end of a container or a session.
async fn end(server: &Server, container: &v1::ContainerId) -> Result<End, Problem> {
    let chain = chain(container)?;
    let (reply, answer) = oneshot::channel();
    ask(server, Ask::WaitContainer { chain, reply }).await?;
    if let Ok(end) = answer.await {
        let oom = end.oom_killed;
        return Ok(End {
            exit_status: raw(end.status),
            state: oom.then_some(TaskState::TaskFailed as i32),
            reason: oom.then_some(Reason::ReasonContainerLimitationMemory as i32),
            message: oom.then(|| "Memory limit exceeded".to_owned()),
        });
    }
    let session = name(container)?;
    let (reply, answer) = oneshot::channel();
    ask(server, Ask::WaitExec { session, reply }).await?;
    let status = answer.await.map_err(|_| unknown(&container.value))?;
    Ok(End {
        exit_status: raw(status),
        state: None,
        reason: None,
        message: None,
    })
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
    let chain = chain(container)?;
    let (reply, answer) = oneshot::channel();
    let order = Ask::KillContainer {
        chain,
        signo,
        reply,
    };
    ask(server, order).await?;
    match answer.await.map_err(|_| Problem::Unavailable)? {
        Named::Live => Ok(()),
        Named::Task => Err(of_task(&container.value)),
        Named::Ended | Named::Unknown => Err(unknown(&container.value)),
    }
}

pub(super) async fn remove(server: &Server, container: &v1::ContainerId) -> Result<(), Problem> {
    let chain = chain(container)?;
    let (reply, answer) = oneshot::channel();
    ask(server, Ask::RemoveContainer { chain, reply }).await?;
    let id = &container.value;
    match answer.await.map_err(|_| Problem::Unavailable)? {
        Named::Ended => Ok(()),
        Named::Live => Err(Problem::Internal(format!("Container '{id}' is running"))),
        Named::Task => Err(of_task(id)),
        Named::Unknown => Err(unknown(id)),
    }
}

fn of_task(container: &str) -> Problem {
    let text = format!("Container '{container}' is that of a task: its framework ends it");
    Problem::Forbidden(text)
}

fn unknown(container: &str) -> Problem {
    Problem::NotFound(format!("Container '{container}' cannot be found"))
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
