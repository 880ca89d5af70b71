//! The ways in which a task is made to end: asked for, with its group, by the agent's own verdict.

use gantry_wire::ids::TaskId;
use gantry_wire::task::{Reason, TaskState};

use super::{Phase, Task};
use crate::action::{Action, Signal};
use crate::ending::{Ending, Verdict};
use crate::moment::Turn;

impl Task {
    pub(crate) fn killed(&self) -> bool {
        self.killing.is_asked()
    }

    /// Whether its end is under way, for whatever reason.
    pub(crate) fn is_dying(&self) -> bool {
        self.killed() || self.killing.verdict().is_some()
    }

    pub(crate) fn kill(&mut self, grace_ms: u64, turn: &mut Turn<'_>) {
        self.checks.end();
        let first = self.killing.ask(grace_ms, turn.now.uptime_ms);
        match self.phase {
            Phase::Ended => {}
            Phase::Accepted | Phase::Ready => self.killed_before_start(turn),
            Phase::Pulling => {
                turn.act(Action::CancelPull {
                    task: self.id.clone(),
                });
                self.killed_before_start(turn);
            }
            Phase::Attaching | Phase::Starting if first => self.save(false, turn),
            Phase::Running if first => {
                if self.launch.killing_state {
                    self.report(TaskState::TaskKilling, None, "", None, turn);
                }
                self.save(false, turn);
                self.signal(Signal::Terminate, turn);
                self.tick(turn);
            }
            Phase::Attaching | Phase::Starting | Phase::Running => self.tick(turn),
        }
    }

    /// A member of its group ended in a way that is the end of all.
    pub(crate) fn kill_for(&mut self, culprit: &TaskId, turn: &mut Turn<'_>) {
        self.culprit = Some(Box::new(culprit.clone()));
        self.kill(self.launch.kill_grace_ms, turn);
    }

    /// The process lives, as is known now, and there may be a reason to kill it from before.
    pub(crate) fn kill_again(&mut self, turn: &mut Turn<'_>) {
        if self.killing.again(turn.now.uptime_ms) {
            self.signal(Signal::Terminate, turn);
            self.tick(turn);
        }
    }

    /// It must not go on: its process, if there is one, is killed at once.
    pub(crate) fn condemn(&mut self, verdict: Verdict, turn: &mut Turn<'_>) {
        if self.phase != Phase::Running {
            return;
        }
        self.checks.end();
        if self.killing.condemn(verdict, turn.now.uptime_ms) {
            self.save(false, turn);
        }
        self.tick(turn);
    }

    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        if self.phase != Phase::Running {
            return;
        }
        if self.overtime_ms.is_some_and(|at| at <= turn.now.uptime_ms) {
            self.overtime_ms = None;
            let limit_ms = self.launch.max_completion_ms;
            return self.condemn(Verdict::Overtime { limit_ms }, turn);
        }
        if self.killing.take_due(turn.now.uptime_ms) {
            self.signal(Signal::Kill, turn);
        }
        for check in self.checks.take_due(turn.now.uptime_ms) {
            let task = self.id.clone();
            turn.act(Action::Probe { task, check });
        }
    }

    /// It runs since `self.started`: its time runs out some time after, on the clock of this
    /// process.
    pub(super) fn watch_time(&mut self, turn: &Turn<'_>) {
        let limit_ms = self.launch.max_completion_ms;
        if limit_ms == 0 {
            return;
        }
        let ran_ms = self
            .started
            .map_or(0, |started| turn.now.wall.0.saturating_sub(started.0));
        let left_ms = limit_ms.saturating_sub(ran_ms);
        self.overtime_ms = Some(turn.now.uptime_ms.saturating_add(left_ms));
    }

    pub(crate) fn killed_before_start(&mut self, turn: &mut Turn<'_>) {
        let reason = Reason::ReasonTaskKilledDuringLaunch;
        let message = "Killed before it was started".to_owned();
        self.end(
            &Ending::without_exit(TaskState::TaskKilled, reason, message),
            turn,
        );
    }

    fn signal(&self, signal: Signal, turn: &mut Turn<'_>) {
        turn.act(Action::Signal {
            container: self.container.clone(),
            signal,
        });
    }
}
