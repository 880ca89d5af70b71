//! A node that an operator takes out: its tasks end, no new ones start, and that holds until he takes
//! it back in, whatever restarts in between.
//!
//! ```text
//! takes tasks ── Drain ──► drains: every task is killed, launches are dropped ── Reactivate ──► takes tasks
//!      └────────────────────────┴── Gone ──► its tasks end, then the agent; its id never comes back
//! ```
//! Invariant: a drain is on disk before the first task is killed for it.

use std::io;
use std::path::{Path, PathBuf};

use gantry_agent_core::{Event as Change, TaskView};
use gantry_wire::agent::{Drain, StatusUpdate};
use gantry_wire::ids::TaskId;
use gantry_wire::task::{Reason, TaskState};
use serde::{Deserialize, Serialize};

use super::Daemon;
use crate::durable;

const FILE_MAX_BYTES: u64 = 4 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    max_grace_ms: Option<u64>,
    mark_gone: bool,
}

/// What is kept of a drain, as `drain.json` in the agent's directory.
#[derive(Debug)]
pub(crate) struct Draining {
    path: PathBuf,
    kept: Option<Kept>,
}

impl Draining {
    /// A file that cannot be read counts as a drain: a node that was to be taken out must not take
    /// tasks by accident, and the coordinator says at once what is so.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let kept = match durable::read_bounded(&path, FILE_MAX_BYTES) {
            Ok(text) => Some(serde_json::from_slice(&text).unwrap_or(Kept {
                max_grace_ms: None,
                mark_gone: false,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path, kept })
    }

    pub(super) fn is_on(&self) -> bool {
        self.kept.is_some()
    }

    fn begin(&mut self, kept: Kept) -> io::Result<()> {
        let text = serde_json::to_vec(&kept).map_err(io::Error::other)?;
        durable::replace(&self.path, &text, true)?;
        self.sync()?;
        self.kept = Some(kept);
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.sync()?,
        }
        self.kept = None;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.path
            .parent()
            .map_or(Ok(()), |dir: &Path| durable::sync_dir(dir))
    }
}

impl Daemon {
    pub(super) fn drain(&mut self, asked: &Drain) {
        let kept = Kept {
            max_grace_ms: asked.max_grace_ms,
            mark_gone: asked.mark_gone,
        };
        if self.draining.kept.as_ref() != Some(&kept)
            && let Err(error) = self.draining.begin(kept)
        {
            // The coordinator says it again at the next registration.
            tracing::error!("not draining, it cannot be kept: {error}");
            return;
        }
        tracing::info!("draining: the tasks end, and no new ones are taken");
        self.kill_drained();
    }

    pub(super) fn reactivate(&mut self) {
        match self.draining.end() {
            Ok(()) => tracing::info!("taking tasks again"),
            Err(error) => tracing::error!("still draining, the end cannot be kept: {error}"),
        }
    }

    pub(super) fn gone(&mut self) {
        let directory = self.layout.root();
        tracing::error!(
            "an operator has marked this node as gone: its tasks and the agent end. To use the \
             machine again, move {directory:?} away"
        );
        self.stop_tasks();
        self.facts.gone.cancel();
    }

    /// Kills what runs on a node that drains; nothing elsewhere.
    pub(super) fn kill_drained(&mut self) {
        let Some(kept) = &self.draining.kept else {
            return;
        };
        let max = kept.max_grace_ms.unwrap_or(u64::MAX);
        let grace = |view: &TaskView<'_>| view.launch.kill_grace_ms.min(max);
        let live = self.tasks.iter();
        let live = live.filter(|(_, view)| !view.state.is_terminal());
        let live: Vec<(TaskId, u64)> = live.map(|(id, view)| (id.clone(), grace(&view))).collect();
        for (task, grace_ms) in live {
            self.step(Change::Kill { task, grace_ms });
        }
    }

    /// Whether a launch is dropped because this node drains; its coordinator is told of each task. One
    /// of which a task was taken before is not, it is being killed.
    pub(super) fn drops(&mut self, tasks: &[&str]) -> bool {
        let known = |id: &&str| TaskId::parse(*id).is_ok_and(|id| self.tasks.get(&id).is_some());
        if !self.draining.is_on() || tasks.iter().any(known) {
            return false;
        }
        for task in tasks {
            self.send(StatusUpdate {
                task_id: (*task).to_owned(),
                uuid: uuid::Uuid::new_v4().as_bytes().to_vec(),
                state: TaskState::TaskDropped as i32,
                reason: Some(Reason::ReasonAgentDraining as i32),
                message: "The node is being drained".to_owned(),
                timestamp_ms: self.now().wall.0,
                ..StatusUpdate::default()
            });
        }
        true
    }

    /// Why a task was killed, where that is the drain.
    pub(super) fn explain(&self, update: &mut StatusUpdate) {
        let Some(kept) = &self.draining.kept else {
            return;
        };
        match update.state() {
            TaskState::TaskKilled if kept.mark_gone => {
                update.set_state(TaskState::TaskGoneByOperator);
            }
            TaskState::TaskKilled | TaskState::TaskKilling => {}
            _ => return,
        }
        update.set_reason(Reason::ReasonAgentDraining);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drain.json");
        let open = || Draining::open(path.clone()).unwrap();
        let mut draining = open();
        assert!(!draining.is_on());
        let kept = Kept {
            max_grace_ms: Some(7),
            mark_gone: true,
        };
        draining.begin(kept.clone()).unwrap();
        assert_eq!(open().kept, Some(kept));
        std::fs::write(&path, "{").unwrap();
        assert!(open().is_on());
        draining.end().unwrap();
        draining.end().unwrap();
        assert!(!open().is_on());
    }
}
