//! One executor that is a program of its framework: its process, whether it listens, and when it
//! has to be gone.
//!
//! ```text
//! process:  accepted … Starting ──▶ Running ─────────────────────────────▶ Ended, tasks with it
//! link:     Awaited ── SUBSCRIBE ──▶ Up ── stream broke ──▶ Down ── SUBSCRIBE ──▶ Up
//!              │ not in time: Doom                        (no hurry: it keeps trying by itself)
//! closing:  SHUTDOWN, and after the grace SIGTERM, then SIGKILL; without a link SIGTERM at once
//! ```
//! After a restart of the agent the link is Awaited anew, with the shorter time of those that had
//! one. Time runs only while the process does.
//!
//! The process is a `Task` that says nothing; what its end means for the tasks, and theirs for it,
//! `customs` decides; what a task is, `charge`. (Mesos: `src/slave/slave.cpp`, struct Executor.)

pub(crate) mod charge;
pub(crate) mod saved;

use std::collections::BTreeMap;

use gantry_wire::agent::{ExecutorInfo, ResourcesMessage};
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::mesos::v1::executor::{Event, event};
use gantry_wire::mesos::{commands, v1};
use gantry_wire::resources::Resources;
use gantry_wire::task::{Reason, TaskState};

use crate::action::Action;
use crate::custom::charge::Charge;
use crate::custom::saved::{CustomCheckpoint, Doom};
use crate::ending::Ending;
use crate::executor::ExecutorView;
use crate::moment::Turn;
use crate::task::{Phase, Process, Task, TaskView};
use crate::unit::{ExecutorKey, Unit};

/// From SIGTERM to SIGKILL of one that did not heed SHUTDOWN, in milliseconds.
pub(crate) const TERMINATE_MS: u64 = 1_000;

/// How long executors may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutorTimes {
    /// From the start of the process to the first SUBSCRIBE.
    pub register_ms: u64,
    /// From the restart of the agent to the next one.
    pub reregister_ms: u64,
    /// From SHUTDOWN to SIGTERM, unless the executor names its own.
    pub shutdown_ms: u64,
}

impl Default for ExecutorTimes {
    /// Mesos's (`src/slave/constants.hpp`).
    fn default() -> Self {
        Self {
            register_ms: 60_000,
            reregister_ms: 2_000,
            shutdown_ms: 5_000,
        }
    }
}

/// Whether the executor hears what is said to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Awaited { until_ms: Option<u64> },
    Up,
    Down,
}

/// What may be shown of an executor of a framework's own.
#[derive(Debug, Clone, Copy)]
pub struct CustomView<'a> {
    /// Its name.
    pub key: &'a ExecutorKey,
    /// Its framework.
    pub framework: &'a v1::FrameworkInfo,
    /// What was asked for.
    pub info: &'a v1::ExecutorInfo,
    /// The id of its process among tasks.
    pub process_id: &'a TaskId,
    /// Its process.
    pub process: TaskView<'a>,
    /// Whether its process may be running.
    pub runs: bool,
    /// Whether it listens.
    pub is_subscribed: bool,
    /// From SHUTDOWN to its end, in milliseconds.
    pub grace_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Custom {
    pub(crate) key: ExecutorKey,
    pub(crate) framework: v1::FrameworkInfo,
    pub(crate) info: v1::ExecutorInfo,
    shown: ExecutorInfo,
    pub(crate) process: Task,
    pub(crate) link: Link,
    times: ExecutorTimes,
    /// Whether it ever subscribed, and was ever given a task.
    pub(crate) subscribed: bool,
    pub(crate) entrusted: bool,
    next_order: u64,
    pub(crate) charges: BTreeMap<TaskId, Charge>,
    pub(crate) doom: Option<Doom>,
    closing_ms: Option<u64>,
    /// When SHUTDOWN has had its time.
    close_due_ms: Option<u64>,
    /// What waits to be given waits for the container to be larger.
    pub(crate) resizing: bool,
    /// Whether its end was made known to its tasks.
    pub(crate) concluded: bool,
}

impl Custom {
    pub(crate) fn new(
        key: ExecutorKey,
        (framework, info): (v1::FrameworkInfo, v1::ExecutorInfo),
        process: Task,
        times: ExecutorTimes,
    ) -> Self {
        Self {
            shown: shown(&key, &info, process.view().launch.network),
            key,
            framework,
            info,
            process,
            link: Link::Awaited { until_ms: None },
            times,
            subscribed: false,
            entrusted: false,
            next_order: 0,
            charges: BTreeMap::new(),
            doom: None,
            closing_ms: None,
            close_due_ms: None,
            resizing: false,
            concluded: false,
        }
    }

    pub(crate) fn restore(saved: CustomCheckpoint, times: ExecutorTimes) -> Self {
        let key = saved.executor;
        let mut process = Task::restore(saved.process, None);
        process.process = Some(Box::new(Process::new(key.clone())));
        let charge = |charge| Charge::restore(charge, &key);
        let charges = saved.charges.into_iter().map(charge);
        let charges = charges.map(|charge| (charge.id.clone(), charge)).collect();
        let concluded = process.phase == Phase::Ended;
        let custom = Self::new(key, (saved.framework, saved.info), process, times);
        Self {
            subscribed: saved.subscribed,
            entrusted: saved.entrusted,
            next_order: saved.next_order,
            charges,
            doom: saved.doom,
            closing_ms: saved.closing_ms,
            concluded,
            ..custom
        }
    }

    pub(crate) fn checkpoint(&self) -> CustomCheckpoint {
        CustomCheckpoint {
            executor: self.key.clone(),
            framework: self.framework.clone(),
            info: self.info.clone(),
            process: self.process.checkpoint(),
            subscribed: self.subscribed,
            entrusted: self.entrusted,
            next_order: self.next_order,
            closing_ms: self.closing_ms,
            doom: self.doom,
            charges: self.charges.values().map(Charge::checkpoint).collect(),
        }
    }

    pub(crate) fn view(&self) -> CustomView<'_> {
        CustomView {
            key: &self.key,
            framework: &self.framework,
            info: &self.info,
            process_id: self.process.id(),
            process: self.process.view(),
            runs: matches!(self.process.phase, Phase::Starting | Phase::Running),
            is_subscribed: self.link == Link::Up,
            grace_ms: self.grace_ms(),
        }
    }

    /// As an executor among the others.
    pub(crate) fn shared_view(&self) -> ExecutorView<'_> {
        let process = self.process.view();
        ExecutorView {
            key: &self.key,
            info: &self.shown,
            ports: &process.launch.ports,
            container: process.container,
            sandbox: process.sandbox,
            ip: process.ip,
            pid: process.pid,
            is_custom: true,
        }
    }

    pub(crate) fn container(&self) -> &ContainerId {
        self.process.container()
    }

    fn grace_ms(&self) -> u64 {
        let own = self.info.shutdown_grace_period.as_ref();
        let own_ms = own.map(|own| u64::try_from(own.nanoseconds).unwrap_or(0) / 1_000_000);
        own_ms.unwrap_or(self.times.shutdown_ms)
    }

    /// Whether it takes no tasks any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing_ms.is_some() || self.doom.is_some() || self.process.phase == Phase::Ended
    }

    /// Takes tasks in, which are all there.
    pub(crate) fn take(&mut self, tasks: Vec<(TaskId, v1::TaskInfo)>, group: bool) {
        let first = self.next_order;
        for task in tasks {
            let order = self.next_order;
            self.next_order += 1;
            let group = group.then_some(first);
            let charge = Charge::new(task, &self.key, order, group);
            self.charges.insert(charge.id.clone(), charge);
        }
    }

    /// Its own and those of its tasks that live.
    pub(crate) fn resources(&self) -> ResourcesMessage {
        let own = commands::resources(&self.info.resources).unwrap_or_default();
        let mut sum = Resources::from(&own);
        for charge in self.charges.values().filter(|charge| charge.lives()) {
            let more = charge.launch().resources.as_ref();
            sum.add(&more.map(Resources::from).unwrap_or_default());
        }
        ResourcesMessage {
            // Processors are given out once.
            gpus: self
                .process
                .view()
                .launch
                .resources
                .as_ref()
                .map_or(0, |r| r.gpus),
            ..ResourcesMessage::from(&sum)
        }
    }

    pub(crate) fn say(&self, event: Event, turn: &mut Turn<'_>) {
        if self.link == Link::Up {
            turn.act(Action::Deliver {
                executor: self.key.clone(),
                event: Box::new(event),
            });
        }
    }

    pub(crate) fn save(&self, sync: bool, turn: &mut Turn<'_>) {
        turn.act(Action::Save {
            unit: Unit::Executor(self.key.clone()),
            sync,
        });
    }

    /// It is to end; a repeat may only shorten the grace.
    pub(crate) fn close(&mut self, grace_ms: Option<u64>, turn: &mut Turn<'_>) {
        if self.process.phase == Phase::Ended {
            return;
        }
        let grace_ms = grace_ms.unwrap_or_else(|| self.grace_ms());
        let first = self.closing_ms.is_none();
        let grace_ms = self
            .closing_ms
            .map_or(grace_ms, |before| before.min(grace_ms));
        self.closing_ms = Some(grace_ms);
        if first {
            self.save(false, turn);
        }
        if self.link == Link::Up {
            if first {
                self.say(plain(event::Type::Shutdown), turn);
            }
            let due_ms = turn.now.uptime_ms.saturating_add(grace_ms);
            let before_ms = self.close_due_ms.unwrap_or(due_ms);
            self.close_due_ms = Some(before_ms.min(due_ms));
        } else {
            self.process.kill(grace_ms, turn);
        }
    }

    /// It must not go on.
    pub(crate) fn doom(&mut self, doom: Doom, turn: &mut Turn<'_>) {
        if self.doom.is_none() && self.process.phase != Phase::Ended {
            self.doom = Some(doom);
            self.save(false, turn);
            self.process.kill(0, turn);
        }
    }

    /// A stream is there; what is said to it from now on is heard.
    pub(crate) fn linked(&mut self, turn: &mut Turn<'_>) {
        self.link = Link::Up;
        if !self.subscribed {
            self.subscribed = true;
            self.save(false, turn);
        }
        if let (Some(grace_ms), None) = (self.closing_ms, self.close_due_ms) {
            self.close_due_ms = Some(turn.now.uptime_ms.saturating_add(grace_ms));
        }
        let closing = self.is_closing();
        turn.act(Action::Welcome {
            executor: self.key.clone(),
            closing,
        });
        if closing {
            self.say(plain(event::Type::Shutdown), turn);
        }
    }

    pub(crate) fn unlinked(&mut self) {
        if self.link == Link::Up {
            self.link = Link::Down;
        }
    }

    /// Starts the time in which it has to subscribe, when its process has been started.
    pub(crate) fn await_link(&mut self, now_ms: u64) {
        if self.process.phase == Phase::Running && self.link == (Link::Awaited { until_ms: None }) {
            let until_ms = Some(now_ms.saturating_add(self.patience_ms()));
            self.link = Link::Awaited { until_ms };
        }
    }

    fn patience_ms(&self) -> u64 {
        if self.subscribed {
            self.times.reregister_ms
        } else {
            self.times.register_ms
        }
    }

    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        let now_ms = turn.now.uptime_ms;
        if matches!(self.link, Link::Awaited { until_ms: Some(until_ms) } if until_ms <= now_ms) {
            self.link = Link::Down;
            let patience_ms = self.patience_ms();
            let doom = if self.subscribed {
                Doom::NotBack
            } else {
                Doom::Unregistered
            };
            self.doom(doom(patience_ms), turn);
        }
        if self.close_due_ms.is_some_and(|at| at <= now_ms) {
            self.close_due_ms = None;
            self.process.kill(TERMINATE_MS, turn);
        }
        self.process.tick(turn);
    }

    pub(crate) fn deadline_ms(&self, connected: bool) -> Option<u64> {
        let awaited = match self.link {
            Link::Awaited { until_ms } => until_ms,
            Link::Up | Link::Down => None,
        };
        let lives = self.process.phase != Phase::Ended;
        let own = awaited.into_iter().chain(self.close_due_ms);
        let own = own.chain(self.process.deadline_ms(connected)).min();
        let retries = self.charges.values().filter_map(Charge::deadline_ms);
        let retry = retries.min().filter(|_| connected);
        own.filter(|_| lives).into_iter().chain(retry).min()
    }

    /// What is said of the tasks that its end left.
    pub(crate) fn legacy(&self) -> (TaskState, Reason, String) {
        let gone = lost_or(&self.framework, TaskState::TaskGone);
        match self.doom {
            Some(Doom::Unregistered(ms)) => {
                let message = format!("Executor did not register within {ms} ms");
                let reason = Reason::ReasonExecutorRegistrationTimeout;
                return (TaskState::TaskFailed, reason, message);
            }
            Some(Doom::NotBack(ms)) => {
                let message = format!("Executor did not reregister within {ms} ms");
                return (gone, Reason::ReasonExecutorReregistrationTimeout, message);
            }
            Some(Doom::NotKept) => {
                let message = "The agent was restarted, and its framework is not checkpointed";
                return (gone, Reason::ReasonAgentRestarted, message.to_owned());
            }
            None => {}
        }
        let ending = self.process.process.as_ref();
        let ending = ending.and_then(|process| process.ending.as_ref());
        let kept = |ending: &&Ending| {
            !matches!(
                ending.reason,
                None | Some(
                    Reason::ReasonCommandExecutorFailed | Reason::ReasonTaskKilledDuringLaunch
                )
            )
        };
        let reason = ending.filter(kept).and_then(|ending| ending.reason);
        let why = ending.map_or("", |ending| ending.message.as_str());
        let (reason, message) = match reason {
            Some(reason) => (reason, why.to_owned()),
            None => (
                Reason::ReasonExecutorTerminated,
                format!("Executor terminated: {why}"),
            ),
        };
        (TaskState::TaskFailed, reason, message)
    }
}

/// An event that is only its type.
pub(crate) fn plain(kind: event::Type) -> Event {
    Event {
        r#type: Some(kind as i32),
        ..Event::default()
    }
}

/// The state for frameworks that know it; TASK_LOST for the others.
pub(crate) fn lost_or(framework: &v1::FrameworkInfo, state: TaskState) -> TaskState {
    let aware = v1::framework_info::capability::Type::PartitionAware;
    let knows = framework.capabilities.iter().any(|it| it.r#type() == aware);
    if knows { state } else { TaskState::TaskLost }
}

fn shown(key: &ExecutorKey, info: &v1::ExecutorInfo, network: i32) -> ExecutorInfo {
    ExecutorInfo {
        framework_id: key.framework.to_string(),
        executor_id: key.executor.to_string(),
        name: info.name.clone().unwrap_or_default(),
        resources: commands::resources(&info.resources).ok(),
        labels: commands::labels(info.labels.as_ref()),
        network,
        share_pids: false,
    }
}
