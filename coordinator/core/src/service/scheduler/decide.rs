//! One round of decisions: every app that may need work is looked at once.
//!
//! All launches of a round travel as one command, all kills of one reason too.

use std::collections::{BTreeMap, BTreeSet};

use gantry_wire::ids::{AppId, TaskId};
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;

use super::{Action, IdSource, STAGING_MAX_MS, Scheduler, victims};
use crate::command::{Command, FinishDeployment, Kill, KillReason, Kind, Launch, LaunchTask};
use crate::service::needs;
use crate::service::queue::Waiting;
use crate::service::rolling::{self, Situation};
use crate::state::{AppRecord, State};

/// Most launches in one command (each is about 250 bytes in the log); the rest follows when it is
/// applied.
const LAUNCHES_MAX: usize = 5_000;

/// What one round has decided so far.
#[derive(Default)]
struct Round {
    launches: Vec<LaunchTask>,
    kills: BTreeMap<KillReason, Vec<String>>,
}

impl Scheduler {
    pub(super) fn decide(
        &mut self,
        state: &State,
        now: Millis,
        ids: &mut dyn IdSource,
        actions: &mut Vec<Action>,
    ) {
        let mut round = Round::default();
        self.kill_overdue(state, now, &mut round);
        let roomier = std::mem::take(&mut self.roomier);
        let mut apps = std::mem::take(&mut self.dirty);
        apps.extend(self.hopeful(state, &roomier, &apps));
        for app in &apps {
            match state.app(app) {
                Some(record) => self.decide_app(state, now, record, ids, &mut round),
                None => self.stop(state, app, &mut round),
            }
            self.finish_deployment(state, now, app, actions);
        }
        for (reason, task_ids) in round.kills {
            let kill = Kill {
                task_ids,
                reason: reason as i32,
            };
            actions.push(Action::Propose(Command::new(now, Kind::Kill(kill))));
        }
        if !round.launches.is_empty() {
            let launch = Launch {
                tasks: round.launches,
            };
            actions.push(Action::Propose(Command::new(now, Kind::Launch(launch))));
        }
    }

    /// Apps that waited for room and would fit on an agent that got some.
    fn hopeful(
        &self,
        state: &State,
        roomier: &BTreeSet<gantry_wire::ids::AgentId>,
        already: &BTreeSet<AppId>,
    ) -> Vec<AppId> {
        if roomier.is_empty() {
            return Vec::new();
        }
        let fits = |app: &&AppId| {
            state.app(app).is_some_and(|record| {
                let demand = needs::demand(&record.spec);
                roomier
                    .iter()
                    .any(|agent| self.alloc.fits_on(&demand, agent))
            })
        };
        let waiting = self.waiting.keys().filter(|app| !already.contains(*app));
        waiting.filter(fits).cloned().collect()
    }

    fn decide_app(
        &mut self,
        state: &State,
        now: Millis,
        record: &AppRecord,
        ids: &mut dyn IdSource,
        round: &mut Round,
    ) {
        let app = &record.spec.id;
        let there = Situation::of(state, record);
        let moves = rolling::decide(&self.with_kills(state, record, there));
        if moves.kill_old_waiting + moves.kill_old_running + moves.kill_surplus > 0 {
            let proposed = self.killing.entry(app.clone()).or_default();
            for (task, reason) in victims::choose(state, record, &moves, proposed) {
                let task_ids = round.kills.entry(reason).or_default();
                task_ids.push(task.to_string());
                proposed.insert(task);
            }
            if proposed.is_empty() {
                self.killing.remove(app);
            }
        }
        let count = rolling::decide(&self.with_launches(record, there)).launch;
        if count == 0 || state.cluster().is_none() {
            self.waiting.remove(app);
            return;
        }
        let waiting = self.waiting.entry(app.clone());
        waiting.or_insert_with(|| Waiting::new(now)).count = count;
        let delay = state.backoffs().get(app, record.config_version);
        if let Some(until) = delay.map(|d| d.until).filter(|until| *until > now) {
            self.later.insert((until, app.clone()));
            return;
        }
        self.launch(now, record, count, ids, round);
    }

    /// For launch decisions: launches that were proposed count as done. Kills do not: they may be
    /// refused, and a launch must not rest on one.
    fn with_launches(&self, record: &AppRecord, mut there: Situation) -> Situation {
        let launching = self.launching.get(&record.spec.id).map_or(0, BTreeSet::len);
        let launching = u32::try_from(launching).unwrap_or(u32::MAX);
        there.current.live = there.current.live.saturating_add(launching);
        there
    }

    /// For kill decisions: kills that were proposed count as done. Launches do not: they may be
    /// refused, and a kill must not rest on one.
    fn with_kills(&self, state: &State, record: &AppRecord, mut there: Situation) -> Situation {
        for id in self.killing.get(&record.spec.id).into_iter().flatten() {
            let task = state.tasks().live(id);
            let Some(task) = task.filter(|task| task.killing.is_none()) else {
                continue;
            };
            let side = if task.config_version == record.config_version {
                &mut there.current
            } else {
                &mut there.old
            };
            side.killing += 1;
            if task.state == TaskState::TaskRunning {
                side.running = side.running.saturating_sub(1);
            }
        }
        there
    }

    fn launch(
        &mut self,
        now: Millis,
        record: &AppRecord,
        count: u32,
        ids: &mut dyn IdSource,
        round: &mut Round,
    ) {
        let app = &record.spec.id;
        let demand = needs::demand(&record.spec);
        let mut left = count;
        while left > 0 {
            if round.launches.len() >= LAUNCHES_MAX {
                self.dirty.insert(app.clone());
                break;
            }
            let instance_id = format!("{}.instance-{}", app.safe(), ids.uuid());
            let Ok(id) = TaskId::parse(format!("{instance_id}._app.1")) else {
                break;
            };
            let Some(offer) = self.alloc.answer(&demand, &id, ids.seed()) else {
                break;
            };
            round.launches.push(LaunchTask {
                task_id: id.to_string(),
                instance_id,
                app_id: app.to_string(),
                app_version_ms: record.version.0,
                agent_id: offer.agent_id.to_string(),
                host_ports: offer.host_ports.into_iter().map(u32::from).collect(),
            });
            self.launching.entry(app.clone()).or_default().insert(id);
            left -= 1;
        }
        let placed = count - left;
        if left == 0 {
            self.waiting.remove(app);
        } else if let Some(waiting) = self.waiting.get_mut(app) {
            let refused = !self.dirty.contains(app);
            waiting.attempted(
                now,
                left,
                placed,
                refused.then(|| self.alloc.explain(&demand)),
            );
        }
    }

    /// A deleted app: all of its tasks go.
    fn stop(&mut self, state: &State, app: &AppId, round: &mut Round) {
        self.waiting.remove(app);
        let proposed = self.killing.entry(app.clone()).or_default();
        for task in state.tasks().of_app(app) {
            if task.killing.is_none() && proposed.insert(task.id.clone()) {
                let ids = round.kills.entry(KillReason::AppDeleted).or_default();
                ids.push(task.id.to_string());
            }
        }
        if proposed.is_empty() {
            self.killing.remove(app);
        }
    }

    /// Launches that no agent confirmed in time.
    fn kill_overdue(&mut self, state: &State, now: Millis, round: &mut Round) {
        while let Some((at, id)) = self.staging.first().cloned() {
            if at > now {
                return;
            }
            self.staging.pop_first();
            let task = state.tasks().live(&id);
            let task = task.filter(|t| t.state == TaskState::TaskStaging && t.killing.is_none());
            let Some(task) = task else { continue };
            if state
                .agent(&task.agent_id)
                .is_some_and(|agent| agent.active)
            {
                if self
                    .killing
                    .entry(task.app_id.clone())
                    .or_default()
                    .insert(id.clone())
                {
                    round
                        .kills
                        .entry(KillReason::Overdue)
                        .or_default()
                        .push(id.to_string());
                }
            } else {
                // Its agent launches it when it comes back.
                self.staging.insert((now.plus_ms(STAGING_MAX_MS), id));
            }
        }
    }

    /// Ends the deployment of an app when everything it wanted is there.
    fn finish_deployment(
        &mut self,
        state: &State,
        now: Millis,
        app: &AppId,
        actions: &mut Vec<Action>,
    ) {
        let Some(id) = state.deployments().of_app(app) else {
            return;
        };
        let Some(deployment) = state.deployment(id) else {
            return;
        };
        if !deployment.affected().all(|app| is_reached(state, app)) {
            return;
        }
        if self.finishing.insert(id.clone(), app.clone()).is_none() {
            let finish = FinishDeployment {
                deployment_id: id.to_string(),
            };
            actions.push(Action::Propose(Command::new(
                now,
                Kind::FinishDeployment(finish),
            )));
        }
    }
}

/// Whether what runs of an app is what is wanted of it.
pub(crate) fn is_reached(state: &State, app: &AppId) -> bool {
    match state.app(app) {
        Some(record) => Situation::of(state, record).is_reached(),
        None => state.tasks().count_of_app(app) == 0,
    }
}
