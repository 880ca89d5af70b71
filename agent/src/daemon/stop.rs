//! How the agent ends: leaving everything running, or leaving nothing.
//!
//! ```text
//! StopTasks: no new launches, every task is killed ──▶ (the handle watches them go)
//! Finish{stop_keeper: false} ──▶ done
//! Finish{stop_keeper: true} ──▶ the keeper is told to stop ──▶ it is gone, or removed nothing for
//!                               SILENCE_MAX_MS ──▶ what it left is removed ──▶ done
//! ```
//! Removing a thousand containers that just ended takes a busy machine longer than any limit that
//! suits one of them, so the time is counted from the last one that the keeper says is gone.

use gantry_agent_core::{Event as Change, TaskView};
use gantry_isolation::keeper::Request;
use gantry_wire::ids::TaskId;
use tokio::sync::oneshot;

use super::Daemon;

/// Longest grace of a task when the whole agent stops, in milliseconds.
pub(crate) const STOP_GRACE_MAX_MS: u64 = 5_000;
/// How long the keeper may take from one removed container to the next, or to its end, in
/// milliseconds.
const SILENCE_MAX_MS: u64 = 10_000;
/// How long it may take in all, in milliseconds.
pub(crate) const FINISH_MAX_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub(super) enum Stopping {
    #[default]
    No,
    /// No new tasks.
    Asked,
    /// The keeper was told to stop.
    Finishing {
        reply: oneshot::Sender<Vec<String>>,
        until_ms: u64,
        /// `until_ms` is never later.
        last_ms: u64,
    },
    Done,
}

impl Stopping {
    pub(super) fn is_asked(&self) -> bool {
        !matches!(self, Self::No)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether the end of the keeper is expected.
    pub(super) fn keeper_may_go(&self) -> bool {
        matches!(self, Self::Finishing { .. } | Self::Done)
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match self {
            Self::Finishing { until_ms, .. } => Some(*until_ms),
            _ => None,
        }
    }
}

impl Daemon {
    pub(super) fn stop_tasks(&mut self) {
        if !self.stopping.is_asked() {
            self.stopping = Stopping::Asked;
        }
        let grace = |view: TaskView<'_>| view.launch.kill_grace_ms.min(STOP_GRACE_MAX_MS);
        let live = self
            .tasks
            .iter()
            .filter(|(_, view)| !view.state.is_terminal());
        let live: Vec<(TaskId, u64)> = live.map(|(id, view)| (id.clone(), grace(view))).collect();
        for (task, grace_ms) in live {
            self.step(Change::Kill { task, grace_ms });
        }
        let customs = self.tasks.customs();
        let customs = customs.map(|it| (it.key.clone(), it.grace_ms.min(STOP_GRACE_MAX_MS)));
        let customs: Vec<_> = customs.collect();
        for (executor, grace_ms) in customs {
            let grace_ms = Some(grace_ms);
            self.step(Change::ShutdownExecutor { executor, grace_ms });
        }
        self.end_launched();
    }

    pub(super) fn finish(&mut self, stop_keeper: bool, reply: oneshot::Sender<Vec<String>>) {
        if !stop_keeper {
            // Nobody may be waiting any more.
            let _ = reply.send(Vec::new());
            self.stopping = Stopping::Done;
            return;
        }
        let now_ms = self.uptime_ms();
        self.stopping = Stopping::Finishing {
            reply,
            until_ms: now_ms.saturating_add(SILENCE_MAX_MS),
            last_ms: now_ms.saturating_add(FINISH_MAX_MS),
        };
        self.request(&Request::Stop { kill: true });
        self.check_finish();
    }

    /// The keeper removed a container.
    pub(super) fn keeper_goes_on(&mut self) {
        let now_ms = self.uptime_ms();
        if let Stopping::Finishing {
            until_ms, last_ms, ..
        } = &mut self.stopping
        {
            *until_ms = now_ms.saturating_add(SILENCE_MAX_MS).min(*last_ms);
        }
    }

    /// Whether the keeper is gone, or has had its time.
    pub(super) fn check_finish(&mut self) {
        let Stopping::Finishing { until_ms, .. } = &self.stopping else {
            return;
        };
        let late = *until_ms <= self.uptime_ms();
        if self.keeper.is_up() && !late {
            return;
        }
        if let Stopping::Finishing { reply, .. } =
            std::mem::replace(&mut self.stopping, Stopping::Done)
        {
            let failures = if late {
                let mut failures = self.keeper.reap(&[]);
                failures.push(format!(
                    "the keeper did not end: it removed nothing for {SILENCE_MAX_MS} ms, or was not \
                     done after {FINISH_MAX_MS} ms"
                ));
                failures
            } else {
                self.keeper.reap_all()
            };
            // Nobody may be waiting any more.
            let _ = reply.send(failures);
        }
    }
}
