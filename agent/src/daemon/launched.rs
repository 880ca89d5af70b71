//! Containers that the API asks for: from a name to a container of the keeper, and what becomes of
//! it. See [`crate::launched`] for what is kept.
//!
//! One inside another shares its network, IPC and users, and has the limits of the task around it a
//! second time; it ends with it. One for itself has what it asks for. Each has a sandbox that no other
//! workload can reach, which is collected like that of a task.

mod begin;

use std::path::PathBuf;

use gantry_isolation::keeper::{Listed, ListedState, Request};
use gantry_isolation::spec::{ContainerId as KeeperContainer, ExitStatus};
use gantry_wire::ids::ContainerId;
use tokio::sync::oneshot;

use super::Daemon;
use crate::inbox::{LaunchOrder, LaunchedRow, Named};
use crate::launched::{self, DEPTH_MAX, End, Launch, LaunchReply, Saved};

/// The framework of containers without one, and the beginning of their names.
const STANDALONE: &str = "standalone";
const SIGKILL: i32 = 9;

impl Daemon {
    /// The keeper's name for a chain of names, and that of the container around it. None: no such
    /// names can be.
    fn place(&self, chain: &[String]) -> Option<(KeeperContainer, Option<KeeperContainer>)> {
        // A dot separates names in those of the keeper.
        let bad = |name: &String| name.contains('.');
        if chain.is_empty() || chain.len() > DEPTH_MAX || chain.iter().any(bad) {
            return None;
        }
        let (root, rest) = chain.split_first()?;
        let is_task = |name: &str| {
            self.tasks
                .iter()
                .any(|(_, view)| view.container.as_str() == name)
        };
        let is_executor = |name: &str| {
            self.tasks
                .executors()
                .any(|it| it.container.as_str() == name)
        };
        let mut id = if is_task(root) || is_executor(root) {
            root.clone()
        } else {
            format!("{STANDALONE}.{root}")
        };
        let mut parent = None;
        for (place, name) in rest.iter().enumerate() {
            let is_member = place == 0 && is_executor(root) && is_task(name);
            let next = if is_member {
                name.clone()
            } else {
                format!("{id}.{name}")
            };
            parent = Some(std::mem::replace(&mut id, next));
        }
        let parent = parent.map(KeeperContainer::try_from).transpose().ok()?;
        Some((KeeperContainer::try_from(id).ok()?, parent))
    }

    pub(super) fn launch_container(&mut self, order: LaunchOrder, reply: LaunchReply) {
        match self.begin_container(order) {
            Ok(None) => {
                // Nobody may be waiting any more.
                let _ = reply.send(Ok(Launch::WasThere));
            }
            Ok(Some(id)) => self.launched.tell(&id, reply),
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
            }
        }
    }

    /// Whether a container of the keeper is one of these.
    pub(super) fn is_launched(&self, id: &KeeperContainer) -> bool {
        self.launched.get(id).is_some()
    }

    pub(super) fn launched_failed(&mut self, id: &KeeperContainer, why: &str) {
        let sandbox = self
            .launched
            .get(id)
            .map(|record| record.saved.sandbox.clone());
        self.gone_launched(id);
        self.finish_sandbox(sandbox.filter(|sandbox| sandbox.exists()));
        self.launched.failed(id, format!("Failed to launch: {why}"));
    }

    pub(super) fn launched_ended(&mut self, id: &KeeperContainer, how: (ExitStatus, bool)) {
        let sandbox = self.launched.ended(id, how);
        self.after_launched(id, sandbox);
    }

    /// What the keeper says of all of them.
    pub(super) fn listed_launched(&mut self, listed: &[Listed]) {
        let live = self.launched.iter().filter(|record| record.is_live());
        let live: Vec<Saved> = live.map(|record| record.saved.clone()).collect();
        for saved in live {
            let seen = listed
                .iter()
                .find(|it| it.id == saved.id)
                .map(|it| it.state);
            match seen {
                None => self.launched_lost(&saved.id),
                Some(ListedState::Starting) => {}
                Some(ListedState::Running { pid }) => {
                    self.launched.started(&saved.id, pid.unsigned_abs());
                    if saved.parent.is_some_and(|parent| !self.is_known(&parent)) {
                        self.launched.doom(&saved.id);
                        self.signal_launched(&saved.id, SIGKILL);
                    }
                }
                Some(ListedState::Exited { status, oom_killed }) => {
                    self.launched_ended(&saved.id, (status, oom_killed));
                }
            }
        }
    }

    /// The keeper that held it is gone, or it was never started.
    fn launched_lost(&mut self, id: &KeeperContainer) {
        let sandbox = self.launched.lost(id);
        self.after_launched(id, sandbox);
    }

    fn after_launched(&mut self, id: &KeeperContainer, sandbox: Option<PathBuf>) {
        self.finish_sandbox(sandbox.filter(|sandbox| sandbox.exists()));
        self.gone_launched(id);
        self.end_below(id.as_str());
        self.launched.bury(id);
    }

    /// Lets the keeper and the store forget a container.
    fn gone_launched(&mut self, id: &KeeperContainer) {
        if let Ok(container) = ContainerId::parse(id.as_str()) {
            self.forget(&container);
            self.provision.give_back(&container);
        }
    }

    /// Whether a container is of a task, of an executor, or launched.
    fn is_known(&self, id: &KeeperContainer) -> bool {
        let name = id.as_str();
        self.launched.get(id).is_some()
            || self
                .tasks
                .iter()
                .any(|(_, view)| view.container.as_str() == name)
            || self
                .tasks
                .executors()
                .any(|view| view.container.as_str() == name)
    }

    /// Ends what is inside a container that has ended, and forgets what ended there before.
    pub(super) fn end_below(&mut self, parent: &str) {
        let below = self
            .launched
            .iter()
            .filter(|record| record.is_below(parent));
        let below: Vec<(KeeperContainer, bool)> = below
            .map(|record| (record.saved.id.clone(), record.is_live()))
            .collect();
        for (id, live) in below {
            if live {
                self.launched.doom(&id);
                self.signal_launched(&id, SIGKILL);
            } else {
                self.launched.forget(&id);
            }
        }
    }

    /// Ends all of them; the agent stops.
    pub(super) fn end_launched(&mut self) {
        let live = self.launched.iter().filter(|record| record.is_live());
        let live: Vec<KeeperContainer> = live.map(|record| record.saved.id.clone()).collect();
        for id in live {
            self.signal_launched(&id, SIGKILL);
        }
    }

    fn signal_launched(&mut self, id: &KeeperContainer, signo: i32) {
        let id = id.clone();
        self.request(&Request::Signal {
            id,
            signo,
            all: signo == SIGKILL,
        });
    }

    /// What a chain of names means to those who wait, kill and remove.
    fn named(&self, chain: &[String]) -> Named {
        let Some((id, _)) = self.place(chain) else {
            return Named::Unknown;
        };
        match self.launched.get(&id) {
            Some(record) if record.is_live() => Named::Live,
            Some(_) => Named::Ended,
            None if self.is_known(&id) => Named::Task,
            None => Named::Unknown,
        }
    }

    /// Answers at the end; the question is dropped if it is not known.
    pub(super) fn wait_container(&mut self, chain: &[String], reply: oneshot::Sender<End>) {
        if let Some((id, _)) = self.place(chain) {
            self.launched.wait(&id, reply);
        }
    }

    pub(super) fn kill_container(&mut self, chain: &[String], signo: i32) -> Named {
        let named = self.named(chain);
        let id = self.place(chain).map(|(id, _)| id);
        match (named, id) {
            (Named::Live, Some(id)) => self.signal_launched(&id, signo),
            // A process inside a container of a task has a name of the same make.
            (Named::Unknown, Some(session)) if self.execs.is_running(&session) => {
                self.request(&Request::SignalExec { session, signo });
                return Named::Live;
            }
            _ => {}
        }
        named
    }

    /// Forgets one that has ended, with those inside it.
    pub(super) fn remove_container(&mut self, chain: &[String]) -> Named {
        let named = self.named(chain);
        let id = self.place(chain).map(|(id, _)| id);
        match (named, id) {
            (Named::Ended, Some(id)) => {
                self.end_below(id.as_str());
                self.launched.forget(&id);
            }
            (Named::Unknown, Some(session)) if self.execs.is_running(&session) => {
                return Named::Live;
            }
            (Named::Unknown, Some(session)) if self.execs.forget(&session) => return Named::Ended,
            _ => {}
        }
        named
    }

    pub(super) fn launched_rows(&self) -> Vec<LaunchedRow> {
        let live = self.launched.iter().filter(|record| record.is_live());
        let row = |record: &launched::Record| {
            Some(LaunchedRow {
                container: ContainerId::parse(record.saved.id.as_str()).ok()?,
                chain: record.saved.chain.clone(),
                nested: record.saved.parent.is_some(),
                framework: record.saved.framework.clone(),
                executor: record.saved.executor.clone(),
                pid: record.pid,
            })
        };
        live.filter_map(row).collect()
    }
}
