//! Running deployments: a record of a change, for people and for locking. What must be done
//! follows from the definitions alone, so losing a deployment never loses work.
//!
//! Invariant: two deployments never affect the same app.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_wire::ids::{AppId, DeploymentId};
use gantry_wire::time::Millis;
use imbl::OrdMap;

use super::apps::AppRecord;

/// What an action of a step does, by Marathon's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum StepKind {
    /// A new app, at no instances yet.
    StartApplication = 0,
    /// To the wanted number of instances.
    ScaleApplication = 1,
    /// Instances of older configurations are replaced.
    RestartApplication = 2,
    /// The app is removed.
    StopApplication = 3,
}

impl StepKind {
    /// The name in the APIs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StartApplication => "StartApplication",
            Self::ScaleApplication => "ScaleApplication",
            Self::RestartApplication => "RestartApplication",
            Self::StopApplication => "StopApplication",
        }
    }
}

/// One action of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepAction {
    /// What.
    pub kind: StepKind,
    /// Of which app.
    pub app: AppId,
}

/// Actions that run at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The actions.
    pub actions: Vec<StepAction>,
}

/// A running deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// When it was made; the version of the definitions it brings.
    pub version: Millis,
    /// Steps in order.
    pub steps: Vec<Step>,
    /// The affected apps as they were before; `None` for a new one.
    pub before: BTreeMap<AppId, Option<Arc<AppRecord>>>,
}

impl Deployment {
    /// The affected apps.
    pub fn affected(&self) -> impl Iterator<Item = &AppId> {
        self.before.keys()
    }
}

/// All running deployments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deployments {
    running: OrdMap<DeploymentId, Arc<Deployment>>,
    by_app: OrdMap<AppId, DeploymentId>,
}

impl Deployments {
    /// One deployment.
    #[must_use]
    pub fn get(&self, id: &DeploymentId) -> Option<&Deployment> {
        self.running.get(id).map(AsRef::as_ref)
    }

    /// All of them by id.
    pub fn iter(&self) -> impl Iterator<Item = &Deployment> {
        self.running.values().map(AsRef::as_ref)
    }

    /// How many run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether none runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The deployment that locks an app.
    #[must_use]
    pub fn of_app(&self, app: &AppId) -> Option<&DeploymentId> {
        self.by_app.get(app)
    }

    pub(crate) fn put(&mut self, deployment: Deployment) {
        for app in deployment.affected() {
            self.by_app.insert(app.clone(), deployment.id.clone());
        }
        self.running
            .insert(deployment.id.clone(), Arc::new(deployment));
    }

    pub(crate) fn remove(&mut self, id: &DeploymentId) -> Option<Arc<Deployment>> {
        let deployment = self.running.remove(id)?;
        for app in deployment.affected() {
            self.by_app.remove(app);
        }
        Some(deployment)
    }
}
