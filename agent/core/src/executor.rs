//! One executor that tasks share: a container that runs no command of its own but holds the network
//! and the other things that its tasks have in common.
//!
//! ```text
//!             first group           attached             started
//! (nothing) ─────────────▶ Attaching ───────▶ Starting ───────▶ Running ──▶ Ended
//!                              │ failure          │ failure        │ closed, or it died
//!                              └──────────────────┴────────────────┴──▶ released
//! ```
//! It is closed when none of its tasks lives: at once when all their ends were acknowledged, else
//! after [`LINGER_MS`]. It is on disk together with its tasks, until those are over.
//!
//! It deliberately does not decide what its end means for its tasks, nor theirs for it: `groups`
//! does. A task with an executor of its own is that executor, and has none of these.

use std::collections::BTreeMap;

use gantry_wire::agent::{ExecutorInfo, PortMapping};
use gantry_wire::ids::{ContainerId, TaskId};

use crate::action::{Action, Signal};
use crate::checkpoint::{Checkpoint, ExecutorCheckpoint, Stage};
use crate::event::{KeeperId, Seen};
use crate::killing::KILL_REPEAT_MS;
use crate::moment::Turn;
use crate::unit::{ExecutorKey, Unit};

/// How long an executor whose tasks have ended waits for their acknowledgements, in milliseconds
/// (Mesos: `src/launcher/default_executor.cpp`).
pub const LINGER_MS: u64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Accepted,
    Attaching,
    Starting,
    Running,
    Ended,
}

/// What may be shown of an executor.
#[derive(Debug, Clone, Copy)]
pub struct ExecutorView<'a> {
    /// Its name.
    pub key: &'a ExecutorKey,
    /// What was asked for.
    pub info: &'a ExecutorInfo,
    /// The ports of its network.
    pub ports: &'a [PortMapping],
    /// Its container.
    pub container: &'a ContainerId,
    /// Its sandbox on the node.
    pub sandbox: &'a str,
    /// Its own address, or empty.
    pub ip: &'a str,
    /// Its first process, or 0.
    pub pid: u32,
    /// Whether it is a program of its framework.
    pub is_custom: bool,
}

#[derive(Debug)]
pub(crate) struct Executor {
    key: ExecutorKey,
    info: ExecutorInfo,
    ports: Vec<PortMapping>,
    container: ContainerId,
    sandbox: String,
    pub(crate) phase: Phase,
    ip: String,
    pid: u32,
    keeper: Option<KeeperId>,
    /// Those that are not over, with the number of their group.
    pub(crate) tasks: BTreeMap<TaskId, u32>,
    /// When it is closed although acknowledgements are missing.
    linger_until_ms: Option<u64>,
    /// It is to end, and takes no tasks any more.
    closing: bool,
    /// When SIGKILL is due next.
    kill_due_ms: Option<u64>,
}

impl Executor {
    /// Begins; what it is made for is added before the step ends.
    pub(crate) fn new(
        key: ExecutorKey,
        info: ExecutorInfo,
        ports: Vec<PortMapping>,
        container: ContainerId,
        sandbox: String,
    ) -> Self {
        Self {
            key,
            info,
            ports,
            container,
            sandbox,
            phase: Phase::Accepted,
            ip: String::new(),
            pid: 0,
            keeper: None,
            tasks: BTreeMap::new(),
            linger_until_ms: None,
            closing: false,
            kill_due_ms: None,
        }
    }

    /// As it was saved, with the tasks that were saved with it.
    pub(crate) fn restore(saved: ExecutorCheckpoint) -> (Self, Vec<Checkpoint>) {
        let group = |(group, task): &(u32, Checkpoint)| (task.task.clone(), *group);
        let executor = Self {
            tasks: saved.tasks.iter().map(group).collect(),
            phase: match saved.stage {
                Stage::Accepted => Phase::Accepted,
                Stage::Starting => Phase::Starting,
                Stage::Running => Phase::Running,
                Stage::Ended => Phase::Ended,
            },
            ip: saved.ip,
            pid: saved.pid,
            keeper: saved.keeper,
            ..Self::new(
                saved.executor,
                saved.info,
                saved.ports,
                saved.container,
                saved.sandbox,
            )
        };
        (
            executor,
            saved.tasks.into_iter().map(|(_, task)| task).collect(),
        )
    }

    /// Without its tasks.
    pub(crate) fn checkpoint(&self) -> ExecutorCheckpoint {
        ExecutorCheckpoint {
            executor: self.key.clone(),
            info: self.info.clone(),
            ports: self.ports.clone(),
            container: self.container.clone(),
            sandbox: self.sandbox.clone(),
            stage: match self.phase {
                Phase::Accepted | Phase::Attaching => Stage::Accepted,
                Phase::Starting => Stage::Starting,
                Phase::Running => Stage::Running,
                Phase::Ended => Stage::Ended,
            },
            ip: self.ip.clone(),
            pid: self.pid,
            keeper: self.keeper,
            tasks: Vec::new(),
        }
    }

    pub(crate) fn view(&self) -> ExecutorView<'_> {
        ExecutorView {
            key: &self.key,
            info: &self.info,
            ports: &self.ports,
            container: &self.container,
            sandbox: &self.sandbox,
            ip: &self.ip,
            pid: self.pid,
            is_custom: false,
        }
    }

    pub(crate) fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    /// Whether it takes no tasks any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing || self.phase == Phase::Ended
    }

    /// The number that the next group gets.
    pub(crate) fn next_group(&self) -> u32 {
        self.tasks
            .values()
            .max()
            .map_or(0, |last| last.saturating_add(1))
    }

    pub(crate) fn begin(&mut self, turn: &mut Turn<'_>) {
        self.phase = Phase::Attaching;
        turn.act(Action::AttachExecutor {
            executor: self.key.clone(),
        });
    }

    /// `keeper`: the one that is asked next.
    pub(crate) fn attached(&mut self, ip: String, keeper: Option<KeeperId>, turn: &mut Turn<'_>) {
        if self.phase != Phase::Attaching {
            return;
        }
        self.ip = ip;
        if self.closing {
            return self.end(turn);
        }
        self.phase = Phase::Starting;
        self.keeper = keeper;
        self.save(true, turn);
        turn.act(Action::StartExecutor {
            executor: self.key.clone(),
        });
    }

    pub(crate) fn started(&mut self, pid: u32, turn: &mut Turn<'_>) {
        if !matches!(self.phase, Phase::Starting | Phase::Running) {
            return;
        }
        self.phase = Phase::Running;
        self.pid = pid;
        self.save(false, turn);
        if self.closing {
            self.kill(turn);
        }
    }

    /// It is not needed any more.
    pub(crate) fn close(&mut self, turn: &mut Turn<'_>) {
        if self.closing {
            return;
        }
        self.closing = true;
        match self.phase {
            Phase::Accepted => self.end(turn),
            Phase::Running => self.kill(turn),
            // With the answer.
            Phase::Attaching | Phase::Starting | Phase::Ended => {}
        }
    }

    /// Whether one of its tasks lives. Starts or stops the waiting for acknowledgements, and closes
    /// it when there is nothing to wait for.
    pub(crate) fn look_after(&mut self, lives: bool, turn: &mut Turn<'_>) {
        if lives || self.is_closing() {
            self.linger_until_ms = None;
            return;
        }
        let now_ms = turn.now.uptime_ms;
        let until_ms = *self
            .linger_until_ms
            .get_or_insert(now_ms.saturating_add(LINGER_MS));
        if self.tasks.is_empty() || until_ms <= now_ms {
            self.linger_until_ms = None;
            self.close(turn);
        }
    }

    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        let due = self.kill_due_ms.is_some_and(|at| at <= turn.now.uptime_ms);
        if due && self.phase == Phase::Running {
            self.kill(turn);
        }
    }

    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let kill = self.kill_due_ms.filter(|_| self.phase == Phase::Running);
        kill.into_iter().chain(self.linger_until_ms).min()
    }

    /// Makes of it what the keeper says of its container. It holds nothing of its own, so it may be
    /// started again for tasks that never were: whether it is wanted so is told by `needed`.
    pub(crate) fn reconcile(&mut self, seen: Option<Seen>, needed: bool, turn: &mut Turn<'_>) {
        match (self.phase, seen) {
            (Phase::Ended, _) => self.release(turn),
            (Phase::Attaching, None) => {}
            (_, Some(Seen::Starting)) => self.phase = Phase::Starting,
            (Phase::Running, Some(Seen::Running { pid })) => {
                self.pid = pid;
                if self.closing {
                    self.kill(turn);
                }
            }
            (_, Some(Seen::Running { pid })) => {
                self.phase = Phase::Starting;
                self.started(pid, turn);
            }
            (_, None) if needed && !self.closing => self.begin(turn),
            (_, Some(Seen::Exited(_)) | None) => self.end(turn),
        }
    }

    /// The one way to the end, saved before the keeper may forget it.
    pub(crate) fn end(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        self.linger_until_ms = None;
        self.save(true, turn);
        self.release(turn);
    }

    fn release(&self, turn: &mut Turn<'_>) {
        turn.act(Action::ReleaseExecutor {
            executor: self.key.clone(),
            container: self.container.clone(),
        });
    }

    fn kill(&mut self, turn: &mut Turn<'_>) {
        self.kill_due_ms = Some(turn.now.uptime_ms.saturating_add(KILL_REPEAT_MS));
        turn.act(Action::Signal {
            container: self.container.clone(),
            signal: Signal::Kill,
        });
    }

    pub(crate) fn save(&self, sync: bool, turn: &mut Turn<'_>) {
        turn.act(Action::Save {
            unit: Unit::Executor(self.key.clone()),
            sync,
        });
    }
}
