//! Carries out what the core decided. Each action is a request to the keeper, a small job beside
//! the loop, or a message; failures come back to the core as events.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::SystemTime;

use gantry_agent_core::{Action, Event as Change, Signal};
use gantry_isolation::keeper::Request;
use gantry_isolation::spec::ContainerId as KeeperContainer;
use gantry_wire::ids::{ContainerId, TaskId};

use super::{COLLECT_MS, Daemon};
use crate::inbox::TaskRow;
use crate::{container, sandboxes};

/// signal(7).
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

impl Daemon {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Save { .. } => {}
            Action::Discard { task } => self.discard(&task),
            Action::Pull { task } => {
                if let Some(view) = self.tasks.get(&task) {
                    self.provision.pull(&task, view.launch);
                }
            }
            Action::CancelPull { task } => self.provision.cancel_pull(&task),
            Action::Attach { task } => {
                if let Some(view) = self.tasks.get(&task) {
                    let hide = &self.node.hide;
                    self.provision.attach(&task, view, hide);
                }
            }
            Action::Start { task } => self.start(&task),
            Action::Probe { task, check } => self.probe(task, check),
            Action::Signal { container, signal } => self.signal(&container, signal),
            Action::Release { task, container } => {
                let sandbox = self
                    .tasks
                    .get(&task)
                    .map(|view| PathBuf::from(view.sandbox));
                self.finish_sandbox(sandbox);
                self.forget(&container);
                self.provision.release(&task, &container);
            }
            Action::Destroy { container } => {
                tracing::warn!(%container, "a container without task: killing it");
                self.signal(&container, Signal::Kill);
            }
            Action::Forget { container } => {
                self.forget(&container);
                self.provision.give_back(&container);
            }
            Action::Send(update) => self.send(update),
        }
    }

    fn start(&mut self, task: &TaskId) {
        let Some(view) = self.tasks.get(task) else {
            return;
        };
        let container = view.container.clone();
        if let Err(cause) = self.hand_over(task) {
            self.step(Change::StartFailed { container, cause });
        }
    }

    /// Gives the container to the keeper, with its network namespace if it has one.
    fn hand_over(&mut self, task: &TaskId) -> Result<(), String> {
        let view = self.tasks.get(task).ok_or("the task is gone")?;
        let agent_id = self
            .identity
            .get()
            .map(ToString::to_string)
            .unwrap_or_default();
        let made = self.provision.made(task);
        let (image, given) = (made.image.as_ref(), made.given.clone());
        let mut spec = container::spec(view, &agent_id, image, given, &self.node)
            .map_err(|problem| problem.to_string())?;
        self.sandboxes.make(&mut spec, view.launch)?;
        let container = view.container.clone();
        self.provision.hold(task, &container)?;
        let made = self.provision.made(task);
        let fds: Vec<_> = made.attachment.iter().map(|a| a.netns.as_fd()).collect();
        let request = Request::Start {
            spec: Box::new(spec),
        };
        let sent = self.keeper.request(&request, &fds);
        sent.map_err(|error| crate::chain(&error))?;
        self.provision.handed_over(task);
        Ok(())
    }

    fn probe(&mut self, task: TaskId, index: usize) {
        if let Some(view) = self.tasks.get(&task)
            && let Some(check) = view.launch.checks.get(index)
        {
            self.prober.probe(task, index, check, TaskRow::from(view));
        }
    }

    fn signal(&mut self, container: &ContainerId, signal: Signal) {
        let Ok(id) = KeeperContainer::try_from(container.as_str()) else {
            return;
        };
        // The container's init passes SIGTERM on to every process inside; SIGKILL goes to all.
        let (signo, all) = match signal {
            Signal::Terminate => (SIGTERM, false),
            Signal::Kill => (SIGKILL, true),
        };
        self.request(&Request::Signal { id, signo, all });
    }

    fn forget(&mut self, container: &ContainerId) {
        self.layers.forget(container.as_str());
        let Ok(id) = KeeperContainer::try_from(container.as_str()) else {
            return;
        };
        self.request(&Request::Forget { id });
    }

    /// A request whose failure needs no answer: the next listing says what is still to be done.
    pub(super) fn request(&mut self, request: &Request) {
        if let Err(error) = self.keeper.request(request, &[]) {
            tracing::warn!("asking the keeper: {}", crate::chain(&error));
        }
    }

    fn discard(&mut self, task: &TaskId) {
        self.disk_used.remove(task);
        if let Err(error) = self.saves.remove(task)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(%task, "removing its checkpoint: {error}");
        }
    }

    /// Removes finished sandboxes that are due, beside the loop.
    pub(super) fn collect(&mut self) {
        self.collect_at_ms = self.uptime_ms().saturating_add(COLLECT_MS);
        self.provision.collect_images();
        let due = self.sandboxes.due(SystemTime::now());
        if due.is_empty() {
            return;
        }
        let backend = self.sandboxes.backend();
        self.provision.runtime.spawn_blocking(move || {
            for sandbox in due {
                if let Err(error) = sandboxes::remove(backend, &sandbox) {
                    tracing::error!(?sandbox, "removing a finished sandbox: {error}");
                }
            }
        });
    }

    /// The sandbox of a task that ended waits for its collection.
    fn finish_sandbox(&mut self, sandbox: Option<PathBuf>) {
        if let Some(sandbox) = sandbox {
            self.sandboxes.finish(sandbox);
        }
        if self.sandboxes.len() > sandboxes::KEPT_MAX {
            self.collect_at_ms = 0;
        }
    }
}
