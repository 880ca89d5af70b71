//! What a task becomes when the keeper says what it holds: after a restart of the agent, and
//! after the connection to the keeper, or the keeper itself, was lost.
//!
//! ```text
//! task was      keeper: running      exited            not there, same keeper  not there, another
//! Accepted*     adopt                its ending        begin (never started)   begin
//! (being started there: Starting, its answer follows)
//! Starting      adopt, RUNNING       its ending        begin (never arrived)   FAILED
//! Running       adopt                its ending        FAILED                  FAILED
//! Ended         release              release           release                 release
//! ```
//! `*` as restored; a task whose pull or network is under way in this process is left alone.
//! A keeper keeps every container until it is told to forget it, so what it was asked to start and
//! does not list, it never started. Another one knows nothing of what its predecessor did: such a
//! task may have run, and is reported as failed rather than run a second time. That is why the
//! checkpoint names the keeper: "was it started just now" is forgotten when the agent dies between
//! starting a keeper and reporting what its predecessor lost. Containers of no task are destroyed.

use std::collections::BTreeMap;

use gantry_wire::ids::ContainerId;
use gantry_wire::task::{Reason, TaskState};

use crate::ending::Ending;
use crate::event::{KeeperId, Seen};
use crate::moment::Turn;
use crate::task::{Phase, Task};

pub(crate) fn reconcile(
    task: &mut Task,
    keeper: KeeperId,
    containers: &mut BTreeMap<ContainerId, Seen>,
    turn: &mut Turn<'_>,
) {
    let seen = containers.remove(task.container());
    match (task.phase, seen) {
        (Phase::Ended, _) => task.release(turn),
        (Phase::Pulling | Phase::Attaching | Phase::Ready, None) => {}
        (_, Some(Seen::Starting)) => task.phase = Phase::Starting,
        (Phase::Running, Some(Seen::Running { pid })) => {
            task.adopt(pid, turn);
            task.kill_again(turn);
        }
        (_, Some(Seen::Running { pid })) => {
            task.phase = Phase::Starting;
            task.started(pid, turn);
        }
        (_, Some(Seen::Exited(exit))) => {
            task.phase = Phase::Running;
            task.exited(exit, turn);
        }
        (Phase::Accepted, None) => begin(task, turn),
        (Phase::Starting, None) if task.keeper() == Some(keeper) => begin(task, turn),
        (Phase::Starting | Phase::Running, None) => lost(task, turn),
    }
}

fn begin(task: &mut Task, turn: &mut Turn<'_>) {
    if task.killed() {
        task.killed_before_start(turn);
    } else {
        task.begin(turn);
    }
}

fn lost(task: &mut Task, turn: &mut Turn<'_>) {
    let state = if task.killed() {
        TaskState::TaskKilled
    } else {
        TaskState::TaskFailed
    };
    let message = "The process that held the task's container on this node is gone (it was \
                   killed, or the node was restarted), and the task with it";
    let ending = Ending::without_exit(state, Reason::ReasonAgentRestarted, message.to_owned());
    task.end(&ending, turn);
}
