//! What the loop makes of an event: translates it for the core, or answers it.

use std::collections::BTreeMap;

use gantry_agent_core::{Event as Change, Exit, Seen};
use gantry_isolation::keeper::{self, ListedState};
use gantry_isolation::spec::{ContainerId as KeeperContainer, ExitStatus};
use gantry_wire::agent::{FromAgent, Register, Registered, StatusUpdate, from_agent, to_agent};
use gantry_wire::ids::{AgentId, ContainerId, TaskId};
use gantry_wire::task::{Reason, TaskState};

use super::{Daemon, KEEPER_RETRY_MS};
use crate::gauge::Measured;
use crate::inbox::Event;
use crate::metrics::Counter;
use crate::provision::Attached;

impl Daemon {
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::SessionUp {
                generation,
                outbound,
            } => {
                self.session.generation = generation;
                self.session.outbound = Some(outbound);
                self.session.registered = false;
                self.session.greet = true;
            }
            Event::Session {
                generation,
                message,
            } if generation == self.session.generation => {
                self.coordinator(message);
            }
            Event::SessionDown { generation } if generation == self.session.generation => {
                self.session.outbound = None;
                self.session.registered = false;
                self.step(Change::Disconnected);
            }
            Event::Keeper { generation, event } if generation == self.keeper.generation => {
                self.keeper_said(event);
            }
            Event::KeeperGone { generation } if generation == self.keeper.generation => {
                self.keeper_gone();
            }
            Event::Session { .. }
            | Event::SessionDown { .. }
            | Event::Keeper { .. }
            | Event::KeeperGone { .. } => {}
            Event::Pulling { task, message } => self.step(Change::Pulling { task, message }),
            Event::Pulled { task, result } => self.pulled(task, result),
            Event::Attached { task, result } => self.attached(task, result),
            Event::Probed { task, check, found } => {
                self.step(Change::Probed { task, check, found });
            }
            Event::ExecutorAttached { executor, result } => {
                self.executor_attached(executor, result);
            }
            Event::ExecutorLost { executor, number } => self.executor_lost(&executor, number),
            Event::Measured(measured) => self.measured(measured),
            Event::Ask(ask) => self.answer(ask),
            Event::StopTasks => self.stop_tasks(),
            Event::Finish { stop_keeper, reply } => self.finish(stop_keeper, reply),
            Event::Tick => self.tick(),
        }
    }

    fn tick(&mut self) {
        let now_ms = self.uptime_ms();
        if self.keeper_retry_ms.is_some_and(|at| at <= now_ms) {
            self.reconnect_keeper();
        }
        if self.collect_at_ms <= now_ms {
            self.collect();
        }
        self.check_finish();
        self.step(Change::Tick);
        self.answer_ends();
    }

    fn coordinator(&mut self, message: to_agent::Kind) {
        let answer = matches!(
            message,
            to_agent::Kind::Registered(_) | to_agent::Kind::Refused(_) | to_agent::Kind::Gone(_)
        );
        // Only the coordinator whose answer was taken may decide about tasks.
        if !self.session.registered && !answer {
            return;
        }
        match message {
            to_agent::Kind::Registered(registered) => self.registered(&registered),
            to_agent::Kind::Launch(launch) => self.launch(launch),
            to_agent::Kind::LaunchGroup(group) => self.launch_group(group),
            to_agent::Kind::LaunchCustom(launch) => self.launch_custom(launch),
            to_agent::Kind::ExecutorMessage(message) => self.tell_executor(message),
            to_agent::Kind::ShutdownExecutor(asked) => self.shutdown_executor(&asked),
            to_agent::Kind::Kill(kill) => match TaskId::parse(kill.task_id) {
                Ok(task) => self.step(Change::Kill {
                    task,
                    grace_ms: kill.grace_ms,
                }),
                Err(error) => tracing::warn!("asked to kill a task: {error}"),
            },
            to_agent::Kind::Acknowledge(ack) => {
                if let Ok(task) = TaskId::parse(ack.task_id) {
                    self.step(Change::Acknowledge {
                        task,
                        uuid: ack.uuid,
                    });
                }
            }
            to_agent::Kind::Drain(asked) => self.drain(&asked),
            to_agent::Kind::Reactivate(_) => self.reactivate(),
            to_agent::Kind::Gone(_) => self.gone(),
            // The session has dealt with it.
            to_agent::Kind::LeaderAt(_) => {}
            to_agent::Kind::Refused(why) => {
                let directory = self.layout.root();
                tracing::error!(
                    "the coordinator refuses this agent ({directory:?}): {why}. Trying again; the \
                     tasks here run on"
                );
            }
        }
    }

    fn registered(&mut self, registered: &Registered) {
        let agent_id = registered.agent_id.as_str();
        let cluster = registered.cluster_id.as_str();
        let kept = AgentId::parse(agent_id).map_err(|error| error.to_string());
        let mut set = |id| self.identity.set(id, cluster);
        let kept = kept.and_then(|id| set(id).map_err(|error| crate::chain(&error)));
        match kept {
            Ok(()) => {
                tracing::info!(agent_id, "registered");
                self.facts.set_agent_id(agent_id);
                self.session.registered = true;
                self.step(Change::Connected);
            }
            Err(why) => {
                tracing::error!("not registered as '{agent_id}', trying again: {why}");
                self.session.registered = false;
                self.session.outbound = None;
            }
        }
    }

    fn pulled(&mut self, task: TaskId, result: Result<Option<gantry_image::Image>, String>) {
        if !self.is_live(&task) {
            return;
        }
        let change = match result {
            Ok(image) => {
                self.provision.made(&task).image = image;
                Change::Pulled { task }
            }
            Err(cause) => Change::PullFailed { task, cause },
        };
        self.step(change);
    }

    fn attached(&mut self, task: TaskId, result: Result<Attached, String>) {
        // Over or unknown by now: dropping the attachment ends its namespace, and what is left of
        // it was given back, or will be by the next adoption.
        if !self.is_live(&task) {
            return;
        }
        let change = match result {
            Ok(attached) => {
                let ip = attached
                    .attachment
                    .as_ref()
                    .map(|a| a.ip.to_string())
                    .unwrap_or_default();
                let made = self.provision.made(&task);
                (made.attachment, made.given) = (attached.attachment, attached.given);
                Change::Attached { task, ip }
            }
            Err(cause) => Change::AttachFailed { task, cause },
        };
        self.step(change);
    }

    /// Whether something is still to be made for a task.
    fn is_live(&self, task: &TaskId) -> bool {
        let view = self.tasks.get(task);
        view.is_some_and(|view| !view.state.is_terminal())
    }

    fn measured(&mut self, measured: Measured) {
        let task = self.tasks.get(&measured.task);
        if task.is_none_or(|task| *task.container != measured.container) {
            return;
        }
        self.disk_used.insert(measured.task, measured.used_bytes);
        if let Some(excess) = measured.excess {
            let container = measured.container;
            self.step(Change::OverDisk { container, excess });
        }
    }

    pub(super) fn keeper_said(&mut self, event: keeper::Event) {
        let now_ms = self.uptime_ms();
        match event {
            keeper::Event::Started { id, pid, layer } => {
                let pid = pid.unsigned_abs();
                self.layers.note(id.as_str(), layer);
                if self.is_launched(&id) {
                    return self.launched.started(&id, pid);
                }
                self.step_container(id.as_str(), |container| Change::Started { container, pid });
            }
            keeper::Event::StartFailed { id, step, error } => {
                let cause = format!("{step}: {error}");
                if self.is_launched(&id) {
                    return self.launched_failed(&id, &cause);
                }
                self.step_container(id.as_str(), |container| Change::StartFailed {
                    container,
                    cause,
                });
                self.answer_ends();
            }
            keeper::Event::Exited {
                id,
                status,
                oom_killed,
            } => {
                self.execs.exited(&id, status, now_ms);
                if self.is_launched(&id) {
                    return self.launched_ended(&id, (status, oom_killed));
                }
                let exit = exit(status, oom_killed);
                self.step_container(id.as_str(), |container| Change::Exited { container, exit });
                self.answer_ends();
            }
            keeper::Event::Listing { containers } => self.listed(&containers),
            keeper::Event::ExecStarted { session, .. } => self.execs.started(&session, Ok(())),
            keeper::Event::ExecFailed {
                session,
                step,
                error,
            } => {
                self.execs
                    .started(&session, Err(format!("{step}: {error}")));
            }
            keeper::Event::ExecExited { session, status } => {
                self.execs.exited(&session, status, now_ms);
            }
            keeper::Event::Updated { id } => self.resized(id.as_str(), Ok(())),
            keeper::Event::Refused { request, id, error } => self.refused(&request, id, error),
            keeper::Event::Output {
                moved_bytes,
                rotations,
                held_up,
            } => self.output = [moved_bytes, rotations, held_up],
            keeper::Event::Frozen { .. }
            | keeper::Event::Thawed { .. }
            | keeper::Event::Stopping => {}
            keeper::Event::Forgotten { .. } => self.keeper_goes_on(),
        }
    }

    fn refused(&mut self, request: &str, id: Option<KeeperContainer>, error: String) {
        match (request, id) {
            ("exec", Some(id)) => self.execs.started(&id, Err(error)),
            ("update", Some(id)) => self.resized(id.as_str(), Err(error)),
            ("start", Some(id)) if self.is_launched(&id) => self.launched_failed(&id, &error),
            // A signal to what just ended, for instance.
            (_, id) => tracing::debug!(?id, "the keeper refused '{request}': {error}"),
        }
    }

    fn step_container(&mut self, id: &str, change: impl FnOnce(ContainerId) -> Change) {
        match ContainerId::parse(id) {
            Ok(container) => self.step(change(container)),
            Err(error) => tracing::error!("a container of the keeper: {error}"),
        }
    }

    fn listed(&mut self, listed: &[keeper::Listed]) {
        let mut containers = BTreeMap::new();
        for container in listed {
            let seen = match container.state {
                ListedState::Starting => Seen::Starting,
                ListedState::Running { pid } => Seen::Running {
                    pid: pid.unsigned_abs(),
                },
                ListedState::Exited { status, oom_killed } => {
                    Seen::Exited(exit(status, oom_killed))
                }
            };
            self.layers
                .note(container.id.as_str(), container.layer.clone());
            if self.is_launched(&container.id) {
                continue;
            }
            if let Ok(id) = ContainerId::parse(container.id.as_str()) {
                containers.insert(id, seen);
            }
        }
        self.listed_launched(listed);
        if !self.swept {
            self.swept = true;
            let known: Vec<_> = listed
                .iter()
                .map(|container| container.id.clone())
                .collect();
            self.keeper.reap(&known);
            let listed = known.iter().map(|id| id.as_str().to_owned());
            let own = self
                .tasks
                .containers()
                .map(|(_, task)| task.container.to_string());
            self.provision.release_others(&listed.chain(own).collect());
        }
        self.step(Change::Listing {
            keeper: self.keeper_id,
            containers,
        });
        self.answer_ends();
        self.kill_drained();
    }

    fn keeper_gone(&mut self) {
        self.keeper.disconnect();
        self.execs.lose_all();
        if self.stopping.keeper_may_go() {
            self.check_finish();
            return;
        }
        tracing::error!("the keeper is gone; starting it again");
        self.reconnect_keeper();
    }

    fn reconnect_keeper(&mut self) {
        match self.keeper.connect(&self.provision.events) {
            Ok(found) => {
                self.keeper_id = found.id;
                self.keeper_retry_ms = None;
                for event in found.said {
                    self.keeper_said(event);
                }
            }
            Err(error) => {
                tracing::error!("{}", crate::chain(&error));
                self.keeper_retry_ms = Some(self.uptime_ms().saturating_add(KEEPER_RETRY_MS));
            }
        }
    }

    /// Registers, once all that the registration lists is on disk.
    pub(super) fn greet(&mut self) {
        if !std::mem::take(&mut self.session.greet) {
            return;
        }
        let register = Register {
            agent_id: self
                .identity
                .get()
                .map(ToString::to_string)
                .unwrap_or_default(),
            hostname: self.facts.hostname.clone(),
            http_address: self.facts.http_address.to_string(),
            resources: Some((&self.facts.resources).into()),
            attributes: self.facts.inventory.attributes_as_text(),
            tasks: self.tasks.known(),
            version: self.facts.version.to_owned(),
            lacks: self.facts.lacks.clone(),
            cluster_id: self.identity.cluster().to_owned(),
            inventory: Some(self.facts.inventory.clone()),
            draining: self.draining.is_on(),
        };
        self.say(from_agent::Kind::Register(register));
    }

    pub(super) fn send(&mut self, mut update: StatusUpdate) {
        self.explain(&mut update);
        self.count_end(&update);
        self.say(from_agent::Kind::Status(update));
    }

    /// Counts the end of a task once, however often it is reported.
    fn count_end(&mut self, update: &StatusUpdate) {
        let state = update.state();
        if !state.is_terminal() {
            return;
        }
        let known = TaskId::parse(&*update.task_id).ok();
        let known = known.filter(|task| self.tasks.get(task).is_some());
        if !known.is_some_and(|task| self.ended.insert(task)) {
            return;
        }
        let metrics = &self.facts.metrics;
        metrics.add(
            match state {
                TaskState::TaskFinished => Counter::TasksFinished,
                TaskState::TaskFailed => Counter::TasksFailed,
                TaskState::TaskKilled => Counter::TasksKilled,
                TaskState::TaskLost => Counter::TasksLost,
                _ => Counter::TasksOther,
            },
            1,
        );
        if update.reason == Some(Reason::ReasonContainerLaunchFailed as i32) {
            metrics.add(Counter::ContainerLaunchErrors, 1);
        }
    }

    /// A coordinator that does not keep up loses the connection; updates are sent anew later.
    pub(super) fn say(&mut self, kind: from_agent::Kind) {
        if let Some(outbound) = &self.session.outbound
            && outbound.try_send(FromAgent { kind: Some(kind) }).is_err()
        {
            self.session.outbound = None;
        }
    }
}

fn exit(status: ExitStatus, oom_killed: bool) -> Exit {
    let status = match status {
        ExitStatus::Code(code) => Ok(code),
        ExitStatus::Signal(signal) => Err(signal),
    };
    Exit { status, oom_killed }
}
