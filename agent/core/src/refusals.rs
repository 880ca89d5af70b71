//! The one word about a task that is not kept: its launch is refused, or it was killed before that
//! arrived. It deliberately waits for no acknowledgement.
//!
//! Instead it is remembered and said again, the same, when the launch comes again: a coordinator
//! that never heard it sends that when the node registers anew (`reconcile` there).

use gantry_wire::agent::StatusUpdate;
use gantry_wire::ids::TaskId;
use gantry_wire::task::{Reason, TaskState};

use crate::action::Action;
use crate::moment::Turn;
use crate::tasks::Tasks;

impl Tasks {
    /// Says it, and that nothing may come of the task any more; what was said before stands.
    pub(crate) fn answer(
        &mut self,
        id: &TaskId,
        state: TaskState,
        reason: Reason,
        message: String,
        turn: &mut Turn<'_>,
    ) {
        if self.history.contains(id) {
            return self.answer_again([id], turn);
        }
        let word = StatusUpdate {
            task_id: id.to_string(),
            uuid: turn.uuid(),
            state: state as i32,
            reason: Some(reason as i32),
            message,
            timestamp_ms: turn.now.wall.0,
            ..StatusUpdate::default()
        };
        if self.connected {
            turn.act(Action::Send(word.clone()));
        }
        self.history.refuse(id.clone(), word);
    }

    /// Launches of these came again: those that were not kept still are not.
    pub(crate) fn answer_again<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a TaskId>,
        turn: &mut Turn<'_>,
    ) {
        for word in ids.into_iter().filter_map(|id| self.history.word(id)) {
            if self.connected {
                turn.act(Action::Send(word.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_wire::agent::Launch;
    use gantry_wire::ids::ContainerId;
    use gantry_wire::time::Millis;

    use super::*;
    use crate::event::Event;
    use crate::moment::Now;

    #[test]
    fn a_word_that_nobody_heard_is_said_again_and_the_same() {
        let task = TaskId::parse("t").unwrap();
        let mut tasks = Tasks::default();
        let mut seed = 0;
        let mut step = |event| {
            seed += 1;
            let now = Now {
                wall: Millis(seed),
                uptime_ms: seed,
                seed: seed.into(),
            };
            let mut actions = Vec::new();
            tasks.step(now, event, &mut actions);
            actions
        };
        let launch = || Event::Launch {
            task: task.clone(),
            launch: Box::new(Launch {
                task_id: task.to_string(),
                ..Launch::default()
            }),
            container: ContainerId::parse("c").unwrap(),
            sandbox: String::new(),
        };
        let grace_ms = 1_000;
        assert_eq!(
            step(Event::Kill {
                task: task.clone(),
                grace_ms
            }),
            []
        );
        assert_eq!(step(Event::Connected), []);
        let said = step(launch());
        let [Action::Send(word)] = said.as_slice() else {
            panic!("{said:?}");
        };
        assert_eq!(TaskState::try_from(word.state), Ok(TaskState::TaskKilled));
        assert_eq!(step(launch()), said);
    }
}
