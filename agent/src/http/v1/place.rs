//! What a container id of Mesos names here: the container of a task, or a session inside one.
//!
//! Invariant: every parent that an id names is checked against what there is, so that an id with a
//! made-up parent leads nowhere.

use gantry_isolation::spec::ContainerId;
use gantry_wire::mesos::v1;
use gantry_wire::task::TaskState;
use tokio::sync::oneshot;

use super::super::Server;
use super::super::problem::Problem;
use super::containers;
use crate::inbox::{Ask, Located, TaskRow};

/// Where an id leads.
pub(super) enum Place {
    /// A session inside the container of this task, which runs; whether there is one is not said.
    Session { name: ContainerId, task: TaskRow },
    /// The container of this task, which runs.
    Task(TaskRow),
}

pub(super) async fn find(server: &Server, id: &v1::ContainerId) -> Result<Place, Problem> {
    let parent = id.parent.as_deref();
    check(&id.value)?;
    if let Some(task) = task(server, &id.value, parent).await? {
        return Ok(Place::Task(task));
    }
    let Some(parent) = parent else {
        return Err(unknown(&id.value));
    };
    let around = parent.parent.as_deref();
    match task(server, &parent.value, around).await? {
        Some(task) => Ok(Place::Session {
            name: session(parent, &id.value)?,
            task,
        }),
        None => Err(unknown(&parent.value)),
    }
}

/// The name of a session: both ids are part of it, so that a session of another task is never meant.
pub(super) fn session(parent: &v1::ContainerId, value: &str) -> Result<ContainerId, Problem> {
    check(value)?;
    check(&parent.value)?;
    let name = format!("{}.{value}", parent.value);
    ContainerId::try_from(name).map_err(|error| Problem::BadRequest(error.to_string()))
}

/// The running task whose container this is, if the container around it is that one.
async fn task(
    server: &Server,
    container: &str,
    around: Option<&v1::ContainerId>,
) -> Result<Option<TaskRow>, Problem> {
    let (reply, answer) = oneshot::channel();
    let container = container.to_owned();
    containers::ask(server, Ask::Task { container, reply }).await?;
    let found = answer.await.map_err(|_| Problem::Unavailable)?;
    let is_around = |located: &Located| match (&located.executor, around) {
        (None, None) => true,
        (Some(executor), Some(around)) => *executor == around.value && around.parent.is_none(),
        _ => false,
    };
    let found = found.filter(is_around).map(|located| located.task);
    Ok(found.filter(|task| task.state == TaskState::TaskRunning))
}

/// As Mesos: a period separates the ids of nested containers when they are written as one.
fn check(value: &str) -> Result<(), Problem> {
    let bad = |c: char| matches!(c, '.' | ' ' | '/' | '\\') || c.is_control();
    if value.is_empty() || value.contains(bad) {
        let text = format!("'ContainerID.value' '{value}' contains invalid characters");
        return Err(super::invalid(&text));
    }
    Ok(())
}

fn unknown(container: &str) -> Problem {
    Problem::NotFound(format!("Container '{container}' is not running here"))
}
