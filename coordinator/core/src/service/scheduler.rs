//! The service scheduler: reconciles what runs to what is defined, all the time and not only
//! inside a deployment.
//!
//! ```text
//! events ──► note (what may need work) ──► decide each such app ──► one Launch, Kills, Finish…
//!                                              ▲ rolling rule, delays, allocator
//! ```
//! It is soft state of the leader: everything is found again in [`Scheduler::new`] from the
//! replicated state. It changes nothing itself; its decisions are commands, and messages to agents
//! follow only from applied commands. What it has proposed is counted until the command is
//! applied or lost, so nothing is decided twice, but no decision rests on another that is not
//! applied yet: each may be refused.
//! It does not talk to agents, mint ids or read a clock; work follows what changed.

mod decide;
pub(crate) use decide::is_reached;
mod kills;
mod reconcile;
mod victims;

use std::collections::{BTreeMap, BTreeSet};

use gantry_wire::agent::{Kill, KnownTask, Launch};
use gantry_wire::ids::{AgentId, AppId, DeploymentId, TaskId};
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;

use crate::alloc::Allocator;
use crate::command::{self, Command, Kind};
use crate::outcome::{Applied, Change, LaunchRefusal, Outcome};
use crate::service::launch;
use crate::service::queue::{QueueEntry, Waiting};
use crate::state::State;

/// How long a launch may stay unconfirmed before it is killed (Marathon: 5 min).
const STAGING_MAX_MS: u64 = 300_000;
/// Pause before an app is looked at again whose launch was refused for lack of room.
const REFUSED_PAUSE_MS: u64 = 1_000;

/// Where the shell's randomness comes in.
pub trait IdSource {
    /// A new uuid as text, 36 characters.
    fn uuid(&mut self) -> String;
    /// Random bits (host ports are chosen by it).
    fn seed(&mut self) -> u64;
}

/// What the shell is asked to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Put a command into the log. When it can never be applied any more, tell
    /// [`Event::ProposalLost`].
    Propose(Command),
    /// Send to an agent; without a session: drop it, the next registration repairs it.
    SendLaunch {
        /// To whom.
        agent_id: AgentId,
        /// What.
        launch: Box<Launch>,
    },
    /// Send to an agent; without a session: drop it.
    SendKill {
        /// To whom.
        agent_id: AgentId,
        /// What.
        kill: Kill,
    },
    /// Give [`Event::Tick`] at this time or soon after; replaces the earlier wish.
    WakeAt(Millis),
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Commands were applied, in this order; the state given to `step` is the one after all.
    Applied(&'a [(Command, Applied)]),
    /// After the agent's `RegisterAgent` was applied: what it said it has.
    AgentOnline {
        /// Who.
        agent_id: &'a AgentId,
        /// `Register.tasks`.
        known: &'a [KnownTask],
    },
    /// A proposed command will never be applied.
    ProposalLost(&'a Command),
    /// Time has passed.
    Tick,
}

/// The leader's service scheduler.
#[derive(Debug, Default)]
pub struct Scheduler {
    alloc: Allocator,
    /// Apps to look at.
    dirty: BTreeSet<AppId>,
    /// Agents that may have more free than before.
    roomier: BTreeSet<AgentId>,
    /// Apps whose instances wait, for a delay or for room.
    waiting: BTreeMap<AppId, Waiting>,
    /// Launches that were proposed and not yet applied, by app.
    launching: BTreeMap<AppId, BTreeSet<TaskId>>,
    /// Kills that were proposed and not yet applied, by app.
    killing: BTreeMap<AppId, BTreeSet<TaskId>>,
    /// Deployments whose end was proposed, with one of their apps.
    finishing: BTreeMap<DeploymentId, AppId>,
    /// Apps to look at later.
    later: BTreeSet<(Millis, AppId)>,
    /// Unconfirmed launches by the time they must be confirmed.
    staging: BTreeSet<(Millis, TaskId)>,
    kills: kills::Kills,
    /// The last wish that was told.
    wake_at: Option<Millis>,
}

impl Scheduler {
    /// For a member that becomes leader, from the state it has applied.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let mut this = Self {
            alloc: Allocator::new(state),
            ..Self::default()
        };
        this.dirty
            .extend(state.apps().iter().map(|record| record.spec.id.clone()));
        this.dirty.extend(state.tasks().apps().cloned());
        for deployment in state.deployments().iter() {
            this.dirty.extend(deployment.affected().cloned());
        }
        for task in state.tasks().iter_live() {
            this.kills.note(task);
            if task.state == TaskState::TaskStaging {
                this.staging
                    .insert((task.staged_at.plus_ms(STAGING_MAX_MS), task.id.clone()));
            }
        }
        this
    }

    /// Takes one event in and decides. `now` is the shell's clock.
    pub fn step(
        &mut self,
        state: &State,
        now: Millis,
        event: Event<'_>,
        ids: &mut dyn IdSource,
        actions: &mut Vec<Action>,
    ) {
        match event {
            Event::Applied(batch) => {
                for (command, applied) in batch {
                    self.applied(state, now, command, applied, actions);
                }
            }
            Event::AgentOnline { agent_id, known } => {
                reconcile::agent(state, now, agent_id, known, actions);
                self.roomier.insert(agent_id.clone());
            }
            Event::ProposalLost(command) => self.forget_proposal(None, command),
            Event::Tick => self.wake_at = None,
        }
        self.take_due(now);
        self.decide(state, now, ids, actions);
        self.kills.send(state, now, actions);
        self.wish(actions);
    }

    /// What waits for launch, by app id.
    #[must_use]
    pub fn queue(&self, state: &State, now: Millis) -> Vec<QueueEntry> {
        let entry = |(id, waiting): (&AppId, &Waiting)| {
            Some(waiting.entry(state.app(id)?, state, &self.alloc, now))
        };
        self.waiting.iter().filter_map(entry).collect()
    }

    fn applied(
        &mut self,
        state: &State,
        now: Millis,
        command: &Command,
        applied: &Applied,
        actions: &mut Vec<Action>,
    ) {
        self.forget_proposal(Some(state), command);
        let mut crowded = Vec::new();
        if let (Some(Kind::Launch(launch)), Outcome::Launched(results)) =
            (&command.kind, &applied.outcome)
        {
            for result in results {
                match result {
                    Ok(id) => self.launched(state, now, id, actions),
                    Err((id, LaunchRefusal::Resources)) => crowded.push(id),
                    Err(_) => {}
                }
            }
            self.note_changes(state, &applied.changes);
            self.pause(now, launch, &crowded);
        } else {
            self.note_changes(state, &applied.changes);
        }
    }

    /// The state had less room than the allocator thought; they agree once all changes are noted.
    /// A pause keeps the two from disputing at full speed.
    fn pause(&mut self, now: Millis, launch: &command::Launch, crowded: &[&TaskId]) {
        let crowded: BTreeSet<&str> = crowded.iter().map(|id| id.as_str()).collect();
        let items = launch
            .tasks
            .iter()
            .filter(|t| crowded.contains(t.task_id.as_str()));
        for app in items.filter_map(|item| AppId::parse(&item.app_id).ok()) {
            self.dirty.remove(&app);
            self.later.insert((now.plus_ms(REFUSED_PAUSE_MS), app));
        }
    }

    fn note_changes(&mut self, state: &State, changes: &[Change]) {
        for change in changes {
            if let Some(agent) = self.alloc.note(state, change) {
                self.roomier.insert(agent.clone());
            }
            match change {
                Change::App(app) => {
                    self.dirty.insert(app.clone());
                }
                Change::Task(id, app, _) => {
                    self.dirty.insert(app.clone());
                    match state.tasks().live(id) {
                        Some(task) => self.kills.note(task),
                        None => self.kills.forget(id),
                    }
                }
                Change::Deployment(id) => {
                    let deployment = state.deployment(id).into_iter();
                    self.dirty
                        .extend(deployment.flat_map(|d| d.affected().cloned()));
                }
                Change::Agent(_) => {}
            }
        }
    }

    fn launched(&mut self, state: &State, now: Millis, id: &TaskId, actions: &mut Vec<Action>) {
        let Some(task) = state.tasks().live(id) else {
            return;
        };
        self.staging
            .insert((now.plus_ms(STAGING_MAX_MS), id.clone()));
        if task.killing.is_none()
            && let Some(launch) = launch::message(state, task)
        {
            let agent_id = task.agent_id.clone();
            actions.push(Action::SendLaunch {
                agent_id,
                launch: Box::new(launch),
            });
        }
    }

    /// A proposal of ours was applied (to `state`) or lost.
    fn forget_proposal(&mut self, state: Option<&State>, command: &Command) {
        match &command.kind {
            Some(Kind::Launch(launch)) => {
                for item in &launch.tasks {
                    self.forget_launch(state, item);
                }
            }
            Some(Kind::Kill(kill)) => {
                let ids: BTreeSet<&str> = kill.task_ids.iter().map(String::as_str).collect();
                self.killing.retain(|app, tasks| {
                    let before = tasks.len();
                    tasks.retain(|id| !ids.contains(id.as_str()));
                    if tasks.len() != before {
                        self.dirty.insert(app.clone());
                    }
                    !tasks.is_empty()
                });
            }
            Some(Kind::FinishDeployment(finish)) => {
                if let Ok(id) = DeploymentId::parse(finish.deployment_id.as_str()) {
                    // If it was lost, the app leads back to it.
                    self.dirty.extend(self.finishing.remove(&id));
                }
            }
            _ => {}
        }
    }

    fn forget_launch(&mut self, state: Option<&State>, item: &command::LaunchTask) {
        let (Ok(id), Ok(app)) = (
            TaskId::parse(item.task_id.as_str()),
            AppId::parse(&item.app_id),
        ) else {
            return;
        };
        if state.is_none_or(|state| state.tasks().live(&id).is_none()) {
            self.alloc.release(&id);
        }
        if let Some(tasks) = self.launching.get_mut(&app) {
            tasks.remove(&id);
            if tasks.is_empty() {
                self.launching.remove(&app);
            }
        }
        self.dirty.insert(app);
    }

    fn take_due(&mut self, now: Millis) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            self.dirty
                .extend(self.later.pop_first().map(|(_, app)| app));
        }
    }

    /// Tells the shell when to come back, if that changed.
    fn wish(&mut self, actions: &mut Vec<Action>) {
        let times = [
            self.later.first().map(|(at, _)| *at),
            self.staging.first().map(|(at, _)| *at),
            self.kills.next(),
        ];
        let next = times.into_iter().flatten().min();
        if let Some(at) = next
            && self.wake_at != next
        {
            actions.push(Action::WakeAt(at));
        }
        self.wake_at = next;
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;
