//! Carries out what the core decided. Each action is a request to the keeper, a small job beside
//! the loop, or a message; failures come back to the core as events.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gantry_agent_core::{Action, Event as Change, ExecutorKey, ExecutorView, Signal};
use gantry_isolation::keeper::Request;
use gantry_isolation::spec::{ContainerId as KeeperContainer, Ids, Mount, SANDBOX_TARGET};
use gantry_wire::agent::Launch;
use gantry_wire::ids::{ContainerId, TaskId};

use super::{COLLECT_MS, Daemon};
use crate::container::{self, Given};
use crate::inbox::TaskRow;
use crate::metrics::Counter;
use crate::sandboxes;

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
                    let nested = self.tasks.executor_of(&task).is_some();
                    self.provision.pull(&task, view, nested);
                }
            }
            Action::CancelPull { task } => self.provision.cancel_pull(&task),
            Action::Attach { task } => {
                if let Some(view) = self.tasks.get(&task) {
                    let executor = self.tasks.executor_of(&task);
                    let hide = &self.node.hide;
                    self.provision.attach(&task, view, executor, hide);
                }
            }
            Action::Start { task } => self.start(&task),
            Action::Probe { task, check } => self.probe(task, check),
            Action::AttachExecutor { executor } => {
                if let Some(view) = self.tasks.executor(&executor) {
                    self.provision.attach_executor(view);
                }
            }
            Action::StartExecutor { executor } => self.start_executor(&executor),
            Action::ReleaseExecutor {
                executor,
                container,
            } => {
                self.release_executor(&executor, &container);
            }
            Action::DiscardExecutor {
                executor,
                container,
            } => {
                self.executors.forget(&executor);
                removed(self.saves.remove_executor(&container), "an executor");
            }
            Action::Signal { container, signal } => self.signal(&container, signal),
            Action::Release { task, container } => self.release(&task, &container),
            Action::Destroy { container } => {
                tracing::warn!(%container, "a container without task: killing it");
                self.signal(&container, Signal::Kill);
            }
            Action::Forget { container } => {
                self.forget(&container);
                self.provision.give_back(&container);
            }
            Action::Send(update) => self.send(update),
            Action::Welcome { executor, closing } => self.welcome(&executor, closing),
            Action::Deliver { executor, event } => self.deliver(&executor, &event),
            Action::Resize { executor } => self.resize(&executor),
            Action::TellMessage { executor, data } => self.tell_message(&executor, data),
            Action::TellEnded { executor, status } => self.tell_ended(&executor, status),
        }
    }

    fn release_executor(&mut self, executor: &ExecutorKey, container: &ContainerId) {
        self.facts.metrics.add(Counter::ExecutorsTerminated, 1);
        let view = self.tasks.executor(executor);
        let sandbox = view.map(|view| PathBuf::from(view.sandbox));
        self.finish_sandbox(sandbox.filter(|sandbox| sandbox.exists()));
        self.end_below(container.as_str());
        self.forget(container);
        self.provision.release_executor(executor, container);
    }

    /// What is in the container of an executor goes with it.
    fn release(&mut self, task: &TaskId, container: &ContainerId) {
        let own = self.tasks.executor_of(task).is_none();
        let over = u64::from(own);
        self.facts.metrics.add(Counter::ExecutorsTerminated, over);
        let view = self.tasks.get(task).filter(|_| own);
        let sandbox = view.map(|view| PathBuf::from(view.sandbox));
        let door = self.executors.close(container);
        self.finish_sandbox(door.or(sandbox));
        self.end_below(container.as_str());
        self.forget(container);
        self.provision.release(task, container);
    }

    /// Unless it ended since that was decided, with the keeper that was to be asked.
    fn start(&mut self, task: &TaskId) {
        let view = self.tasks.get(task);
        let Some(view) = view.filter(|view| !view.state.is_terminal()) else {
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
        let executor = self.tasks.executor_of(task);
        let mut given = self.provision.made(task).given.clone();
        if let Some(executor) = executor {
            self.share(&mut given, view.launch, executor)?;
        }
        let image = self.provision.made(task).image.as_ref();
        let mut spec = container::spec(view, executor, &agent_id, image, given, &self.node)
            .map_err(|problem| problem.to_string())?;
        let container = view.container.clone();
        let around = executor.map(|executor| Path::new(executor.sandbox));
        let task_of = (task, &container, view.launch);
        self.sandboxes.make(&mut spec, task_of, around)?;
        if let Some(custom) = self.tasks.custom_of(task) {
            super::custom::furnish(&mut spec, &custom, &mut self.executors)?;
        }
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

    /// Adds what a task shares with the others of its executor: directories, and users.
    fn share(
        &self,
        given: &mut Given,
        launch: &Launch,
        executor: ExecutorView<'_>,
    ) -> Result<(), String> {
        let around = Path::new(executor.sandbox);
        for volume in &launch.shared_volumes {
            let source = sandboxes::create_volume(around, &volume.name);
            let source =
                source.map_err(|why| format!("making the volume '{}': {why}", volume.name))?;
            // Joining an absolute path replaces the sandbox.
            let target = Path::new(SANDBOX_TARGET).join(&volume.container_path);
            given
                .mounts
                .push(Mount::bind(source, target, volume.read_only));
        }
        if given.ids == Ids::Private && self.provision.shared_ids() == Ids::Private {
            let holder = KeeperContainer::try_from(executor.container.as_str());
            given.ids = Ids::Of(holder.map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    fn start_executor(&mut self, executor: &ExecutorKey) {
        let Some(view) = self.tasks.executor(executor) else {
            return;
        };
        let container = view.container.clone();
        if let Err(cause) = self.hand_over_executor(executor) {
            self.step(Change::StartFailed { container, cause });
        }
    }

    fn hand_over_executor(&mut self, executor: &ExecutorKey) -> Result<(), String> {
        let view = self.tasks.executor(executor);
        let view = view.ok_or("the executor is gone")?;
        let ids = self.provision.shared_ids();
        let spec = container::holder(view, ids, &self.node);
        let spec = spec.map_err(|problem| problem.to_string())?;
        let sandbox = Path::new(view.sandbox);
        sandboxes::create_shared(self.sandboxes.backend(), sandbox)
            .map_err(|error| format!("making the sandbox {}: {error}", sandbox.display()))?;
        let network = self.provision.network_of(executor);
        let fds: Vec<_> = network.iter().map(|it| it.netns.as_fd()).collect();
        let request = Request::Start {
            spec: Box::new(spec),
        };
        let sent = self.keeper.request(&request, &fds);
        sent.map_err(|error| crate::chain(&error))?;
        // The keeper holds the namespace now.
        *network = None;
        Ok(())
    }

    fn signal(&mut self, container: &ContainerId, signal: Signal) {
        let Ok(id) = KeeperContainer::try_from(container.as_str()) else {
            return;
        };
        // The container's init passes SIGTERM on to every process inside, if it has one; SIGKILL
        // goes to all.
        let (signo, all) = match signal {
            Signal::Terminate => (SIGTERM, !self.has_init(container)),
            Signal::Kill => (SIGKILL, true),
        };
        self.request(&Request::Signal { id, signo, all });
    }

    /// A task that shares its processes with others has no PID 1 of its own.
    fn has_init(&self, container: &ContainerId) -> bool {
        let executor = self.tasks.executor_of_container(container);
        !executor.is_some_and(|executor| executor.info.share_pids)
    }

    pub(super) fn forget(&mut self, container: &ContainerId) {
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
        self.ended.remove(task);
        // One that shares an executor was saved with it.
        removed(self.saves.remove(task), "a task");
    }

    /// Removes finished sandboxes that are due, beside the loop.
    pub(super) fn collect(&mut self) {
        self.collect_at_ms = self.uptime_ms().saturating_add(COLLECT_MS);
        self.provision.collect_images();
        let due = self.sandboxes.due(SystemTime::now());
        if due.is_empty() {
            return;
        }
        let (backend, facts) = (self.sandboxes.backend(), self.facts.clone());
        self.provision.runtime.spawn_blocking(move || {
            for sandbox in due {
                let removed = sandboxes::remove(backend, &sandbox);
                let counter = match removed {
                    Ok(()) => Counter::PathRemovalsSucceeded,
                    Err(_) => Counter::PathRemovalsFailed,
                };
                facts.metrics.add(counter, 1);
                if let Err(error) = removed {
                    tracing::error!(?sandbox, "removing a finished sandbox: {error}");
                }
            }
        });
    }

    /// The sandbox of a task that ended waits for its collection.
    pub(super) fn finish_sandbox(&mut self, sandbox: Option<PathBuf>) {
        if let Some(sandbox) = sandbox {
            self.sandboxes.finish(sandbox);
        }
        if self.sandboxes.len() > sandboxes::KEPT_MAX {
            self.collect_at_ms = 0;
        }
    }
}

fn removed(result: io::Result<()>, whose: &str) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!("removing the checkpoint of {whose}: {error}");
        }
        _ => {}
    }
}
