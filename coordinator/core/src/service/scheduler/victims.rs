//! Which instances go, when some must.
//!
//! Those that do not run yet first (they carry no load), then by the app's kill selection on when
//! they started (Marathon: `core/task/KillServiceDelegate`, `ScalingProposition.scala`).

use std::collections::BTreeSet;

use gantry_wire::ids::TaskId;
use gantry_wire::marathon::KillSelection;
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;

use crate::command::KillReason;
use crate::service::rolling::Moves;
use crate::state::{AppRecord, State, Task};

/// Chooses the tasks to kill for the moves, leaving out those that are being killed already.
pub(super) fn choose(
    state: &State,
    record: &AppRecord,
    moves: &Moves,
    proposed: &BTreeSet<TaskId>,
) -> Vec<(TaskId, KillReason)> {
    let kept = |task: &&Task| task.killing.is_none() && !proposed.contains(&task.id);
    let (mut current, mut old): (Vec<&Task>, Vec<&Task>) = state
        .tasks()
        .of_app(&record.spec.id)
        .filter(kept)
        .partition(|task| task.config_version == record.config_version);
    let selection = record.spec.kill_selection;
    current.sort_by_key(|task| order(task, selection));
    old.sort_by_key(|task| order(task, selection));
    let running = |task: &&Task| task.state == TaskState::TaskRunning;
    let (old_running, old_waiting): (Vec<&Task>, Vec<&Task>) = old.into_iter().partition(running);
    let take = |tasks: Vec<&Task>, count: u32, reason| {
        let ids = tasks.into_iter().take(count as usize);
        ids.map(|task| (task.id.clone(), reason))
            .collect::<Vec<_>>()
    };
    let mut victims = take(old_waiting, moves.kill_old_waiting, KillReason::Replaced);
    victims.extend(take(
        old_running,
        moves.kill_old_running,
        KillReason::Replaced,
    ));
    victims.extend(take(current, moves.kill_surplus, KillReason::ScaledDown));
    victims
}

/// First in order goes first.
fn order(task: &Task, selection: KillSelection) -> (u8, u64, TaskId) {
    let rank = match task.state {
        TaskState::TaskUnreachable => 0,
        TaskState::TaskStaging => 1,
        TaskState::TaskStarting => 2,
        _ => 3,
    };
    let Millis(since) = task.started_at.unwrap_or(task.staged_at);
    let age = match selection {
        KillSelection::OldestFirst => since,
        KillSelection::YoungestFirst => u64::MAX - since,
    };
    (rank, age, task.id.clone())
}
