//! What to do when an agent comes back and says what it has.
//!
//! | in the state        | the agent lists it | then                                     |
//! |---------------------|--------------------|------------------------------------------|
//! | STAGING             | no                 | launched again (idempotent by task id)   |
//! | live, being killed  | no                 | it has ended: KILLED or GONE             |
//! | other live          | no                 | GONE                                     |
//! | live, being killed  | not ended          | killed again                             |
//! | ended or unknown    | not ended          | killed                                   |
//! | any                 | ended              | nothing: the agent repeats its update    |

use std::collections::BTreeMap;

use gantry_wire::agent::{Kill, KnownTask, StatusUpdate};
use gantry_wire::ids::{AgentId, TaskId};
use gantry_wire::task::{Reason, TaskState};
use gantry_wire::time::Millis;

use super::{Action, kills};
use crate::command::{AgentStatus, Command, Kind, TaskStatuses};
use crate::service::launch;
use crate::state::{State, Task};

/// Grace for a task of which nothing is known any more.
const UNKNOWN_GRACE_MS: u64 = 3_000;

pub(super) fn agent(
    state: &State,
    now: Millis,
    agent_id: &AgentId,
    known: &[KnownTask],
    actions: &mut Vec<Action>,
) {
    let ended =
        |task: &KnownTask| TaskState::try_from(task.state).is_ok_and(TaskState::is_terminal);
    let listed: BTreeMap<&str, bool> = known
        .iter()
        .map(|task| (task.task_id.as_str(), ended(task)))
        .collect();
    let mut updates = Vec::new();
    for task in state.tasks().of_agent(agent_id) {
        match listed.get(task.id.as_str()) {
            Some(false) if task.killing.is_some() => actions.push(kills::message(task)),
            Some(_) => {}
            None => missing(state, now, task, &mut updates, actions),
        }
    }
    for (id, ended) in listed {
        let here = TaskId::parse(id).is_ok_and(|id| {
            state
                .tasks()
                .live(&id)
                .is_some_and(|task| task.agent_id == *agent_id)
        });
        if !ended && !here {
            let kill = Kill {
                task_id: id.to_owned(),
                grace_ms: UNKNOWN_GRACE_MS,
            };
            actions.push(Action::SendKill {
                agent_id: agent_id.clone(),
                kill,
            });
        }
    }
    if !updates.is_empty() {
        let kind = Kind::TaskStatuses(TaskStatuses { updates });
        actions.push(Action::Propose(Command::new(now, kind)));
    }
}

/// A live task that the agent does not list.
fn missing(
    state: &State,
    now: Millis,
    task: &Task,
    updates: &mut Vec<AgentStatus>,
    actions: &mut Vec<Action>,
) {
    let staging = task.state == TaskState::TaskStaging;
    let mut end = |end: TaskState, reason: Reason, message: &str| {
        let status = StatusUpdate {
            task_id: task.id.to_string(),
            state: end as i32,
            reason: Some(reason as i32),
            message: message.to_owned(),
            timestamp_ms: now.0,
            ..StatusUpdate::default()
        };
        updates.push(AgentStatus {
            agent_id: task.agent_id.to_string(),
            status: Some(status),
        });
    };
    if task.killing.is_some() && staging {
        let message = "Killed before it was launched";
        end(
            TaskState::TaskKilled,
            Reason::ReasonTaskKilledDuringLaunch,
            message,
        );
    } else if !staging {
        let message = "The node came back without this task";
        end(TaskState::TaskGone, Reason::ReasonReconciliation, message);
    } else if let Some(launch) = launch::message(state, task) {
        let agent_id = task.agent_id.clone();
        actions.push(Action::SendLaunch {
            agent_id,
            launch: Box::new(launch),
        });
    } else {
        let message = "Its definition was replaced before it was launched";
        end(
            TaskState::TaskDropped,
            Reason::ReasonReconciliation,
            message,
        );
    }
}
