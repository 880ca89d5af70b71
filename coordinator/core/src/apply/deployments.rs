//! Deployments: locking, steps, end, cancellation.
//!
//! Marathon's plan for apps without dependencies (`core/deployment/DeploymentPlan.scala`): removed
//! apps stop, new ones start at no instances, then all scale or restart at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_wire::ids::{AppId, DeploymentId};
use gantry_wire::time::Millis;

use super::apps::NewRecord;
use super::{Apply, deployment_id};
use crate::command::CancelDeployment;
use crate::outcome::{Change, Outcome, Rejection};
use crate::state::{AppRecord, DEPLOYMENTS_MAX, Deployment, Step, StepAction, StepKind};

type Action = (AppId, StepKind, Option<Arc<AppRecord>>);

impl Apply<'_> {
    /// Refuses when deployments of these apps run, or with `force` cancels them.
    pub(super) fn unlock(&mut self, apps: &BTreeSet<AppId>, force: bool) -> Result<(), Rejection> {
        let locks: BTreeSet<DeploymentId> = apps
            .iter()
            .filter_map(|a| self.state.deployments.of_app(a))
            .cloned()
            .collect();
        if !locks.is_empty() && !force {
            return Err(Rejection::AppLocked(locks.into_iter().collect()));
        }
        let left = self.state.deployments.len() - locks.len();
        if left >= DEPLOYMENTS_MAX && !apps.is_empty() {
            return Err(Rejection::TooManyDeployments(DEPLOYMENTS_MAX));
        }
        for id in locks {
            self.state.deployments.remove(&id);
            self.changes.insert(Change::Deployment(id));
        }
        Ok(())
    }

    /// Starts a deployment, if there is anything to do.
    pub(super) fn deploy(&mut self, id: DeploymentId, version: Millis, actions: Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        let order = |kind: StepKind| match kind {
            StepKind::StopApplication => 0,
            StepKind::StartApplication => 1,
            StepKind::ScaleApplication | StepKind::RestartApplication => 2,
        };
        let mut steps: BTreeMap<u8, Vec<StepAction>> = BTreeMap::new();
        let mut before = BTreeMap::new();
        for (app, kind, record) in actions {
            before.insert(app.clone(), record);
            steps
                .entry(order(kind))
                .or_default()
                .push(StepAction { kind, app });
        }
        let steps = steps
            .into_values()
            .map(|actions| Step { actions })
            .collect();
        self.changes.insert(Change::Deployment(id.clone()));
        self.state.last_version = self.state.last_version.max(version);
        self.state.deployments.put(Deployment {
            id,
            version,
            steps,
            before,
        });
    }

    pub(super) fn finish_deployment(&mut self, id: &str) -> Result<Outcome, Rejection> {
        let id = deployment_id(id)?;
        if self.state.deployments.remove(&id).is_none() {
            return Err(Rejection::DeploymentUnknown(id));
        }
        self.changes.insert(Change::Deployment(id));
        Ok(Outcome::Done)
    }

    pub(super) fn cancel_deployment(&mut self, c: &CancelDeployment) -> Result<Outcome, Rejection> {
        let id = deployment_id(&c.deployment_id)?;
        let new_id = if c.force {
            None
        } else {
            Some(deployment_id(&c.new_deployment_id)?)
        };
        let Some(old) = self.state.deployments.remove(&id) else {
            return Err(Rejection::DeploymentUnknown(id));
        };
        self.changes.insert(Change::Deployment(id));
        let Some(new_id) = new_id else {
            return Ok(Outcome::Done);
        };
        let version = self.next_version();
        let mut actions = Vec::new();
        for (app, before) in &old.before {
            if let Some(before) = before {
                let restored = self.restored(before, version);
                let now = self.state.apps.get(app).cloned().map(Arc::new);
                self.state.apps.put(restored.record);
                self.state.backoffs.forget(app);
                self.changes.insert(Change::App(app.clone()));
                let kinds = restored.steps.into_iter();
                actions.extend(kinds.map(|kind| (app.clone(), kind, now.clone())));
            } else if let Some(now) = self.remove_app(app) {
                actions.push((app.clone(), StepKind::StopApplication, Some(now)));
            }
        }
        self.deploy(new_id.clone(), version, actions);
        Ok(Outcome::Deploying {
            deployment_id: new_id,
            version,
        })
    }

    /// The old definition as a new version of the same configuration: instances that still run it
    /// are up to date again.
    fn restored(&self, before: &AppRecord, version: Millis) -> NewRecord {
        let current = self.state.apps.get(&before.spec.id);
        let steps = match current {
            None => vec![StepKind::StartApplication, StepKind::ScaleApplication],
            Some(now) if now.config_version == before.config_version => {
                vec![StepKind::ScaleApplication]
            }
            Some(_) => vec![StepKind::RestartApplication],
        };
        let versions = current.map_or_else(|| before.versions.clone(), |now| now.versions.clone());
        let record = AppRecord {
            version,
            last_scaling_at: version,
            versions,
            ..before.clone()
        };
        NewRecord { record, steps }
    }
}
