//! Changes of app definitions: each is one transaction of one or more apps, with a deployment.
//!
//! It does not start or stop anything: the scheduler reconciles tasks to the definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_wire::ids::{AppId, DeploymentId};
use gantry_wire::marathon::App;
use gantry_wire::time::Millis;
use imbl::OrdMap;

use super::{Apply, app_id, deployment_id, malformed, service_ports};
use crate::command::{AppUpsert, ChangeApp, Expect, PutApps};
use crate::outcome::{Change, Outcome, Rejection};
use crate::service::rolling::{self, Situation};
use crate::state::{APPS_MAX, AppRecord, StepKind};

/// A definition that is to be current.
pub(super) struct NewDefinition {
    pub(super) spec: Arc<App>,
    /// Whether instances are replaced although nothing changed.
    pub(super) restart: bool,
}

/// A record that is to be current, and how it differs from the one before.
pub(super) struct NewRecord {
    pub(super) record: AppRecord,
    pub(super) steps: Vec<StepKind>,
}

impl Apply<'_> {
    pub(super) fn put_apps(&mut self, c: &PutApps) -> Result<Outcome, Rejection> {
        let deployment = deployment_id(&c.deployment_id)?;
        let mut definitions = Vec::with_capacity(c.apps.len());
        for upsert in &c.apps {
            let spec: App = serde_json::from_slice(&upsert.definition).map_err(malformed)?;
            self.check_expectation(&spec.id, upsert)?;
            definitions.push(NewDefinition {
                spec: Arc::new(spec),
                restart: false,
            });
        }
        self.define(definitions, c.force, deployment)
    }

    fn check_expectation(&self, id: &AppId, upsert: &AppUpsert) -> Result<(), Rejection> {
        let current = self.state.apps.get(id);
        match Expect::try_from(upsert.expect) {
            Ok(Expect::Any) => Ok(()),
            Ok(Expect::Absent) if current.is_none() => Ok(()),
            Ok(Expect::Absent) => Err(Rejection::AppExists(id.clone())),
            Ok(Expect::Version) => {
                let same = current.is_some_and(|r| r.version.0 == upsert.expected_version_ms);
                if same {
                    Ok(())
                } else {
                    Err(Rejection::Stale(id.clone()))
                }
            }
            Err(error) => Err(malformed(error)),
        }
    }

    pub(super) fn restart_app(&mut self, c: &ChangeApp) -> Result<Outcome, Rejection> {
        let id = app_id(&c.app_id)?;
        let record = self.state.apps.get(&id).ok_or(Rejection::AppUnknown(id))?;
        let definition = NewDefinition {
            spec: Arc::clone(&record.spec),
            restart: true,
        };
        self.define(vec![definition], c.force, deployment_id(&c.deployment_id)?)
    }

    pub(super) fn delete_app(&mut self, c: &ChangeApp) -> Result<Outcome, Rejection> {
        let id = app_id(&c.app_id)?;
        let deployment = deployment_id(&c.deployment_id)?;
        if self.state.apps.get(&id).is_none() {
            return Err(Rejection::AppUnknown(id));
        }
        self.unlock(&BTreeSet::from([id.clone()]), c.force)?;
        let version = self.next_version();
        let before = self.remove_app(&id);
        self.deploy(
            deployment.clone(),
            version,
            vec![(id, StepKind::StopApplication, before)],
        );
        Ok(Outcome::Deploying {
            deployment_id: deployment,
            version,
        })
    }

    /// Makes definitions current and starts a deployment. Checks everything before it changes
    /// anything.
    pub(super) fn define(
        &mut self,
        definitions: Vec<NewDefinition>,
        force: bool,
        deployment: DeploymentId,
    ) -> Result<Outcome, Rejection> {
        let version = self.next_version();
        let records = self.new_records(definitions, version)?;
        let affected = records.iter().map(|r| r.record.spec.id.clone()).collect();
        self.unlock(&affected, force)?;
        self.install(records, deployment.clone(), version);
        Ok(Outcome::Deploying {
            deployment_id: deployment,
            version,
        })
    }

    /// The records that differ from the current ones.
    fn new_records(
        &self,
        definitions: Vec<NewDefinition>,
        version: Millis,
    ) -> Result<Vec<NewRecord>, Rejection> {
        let mut taken = BTreeSet::new();
        let mut records: BTreeMap<AppId, NewRecord> = BTreeMap::new();
        let mut added = 0;
        for NewDefinition { mut spec, restart } in definitions {
            let old = self.state.apps.get(&spec.id);
            service_ports::assign(Arc::make_mut(&mut spec), old, &self.state.apps, &mut taken)?;
            added += usize::from(old.is_none());
            let id = spec.id.clone();
            let Some(record) = new_record(old, spec, restart, version) else {
                continue;
            };
            if records.insert(id.clone(), record).is_some() {
                return Err(malformed(format_args!("{id} occurs twice")));
            }
        }
        if self.state.apps.len() + added > APPS_MAX {
            return Err(Rejection::TooMany(APPS_MAX));
        }
        Ok(records.into_values().collect())
    }

    /// Puts records in place, with their deployment; none for no records.
    pub(super) fn install(
        &mut self,
        records: Vec<NewRecord>,
        deployment: DeploymentId,
        version: Millis,
    ) {
        let mut actions = Vec::new();
        for NewRecord { record, steps } in records {
            let id = record.spec.id.clone();
            let before = self.state.apps.get(&id).cloned().map(Arc::new);
            if before
                .as_ref()
                .is_none_or(|b| b.config_version != record.config_version)
            {
                self.state.backoffs.forget(&id);
            }
            self.state.last_version = version;
            self.state.apps.put(record);
            self.changes.insert(Change::App(id.clone()));
            actions.extend(
                steps
                    .into_iter()
                    .map(|kind| (id.clone(), kind, before.clone())),
            );
        }
        self.deploy(deployment, version, actions);
    }

    /// Takes an app out; its tasks stay until they are killed.
    pub(super) fn remove_app(&mut self, id: &AppId) -> Option<Arc<AppRecord>> {
        self.state.backoffs.forget(id);
        self.state.tasks.forget_failure(id);
        self.changes.insert(Change::App(id.clone()));
        self.state.apps.remove(id)
    }

    pub(super) fn reset_delay(&mut self, id: &str) -> Result<Outcome, Rejection> {
        let id = app_id(id)?;
        let record = self
            .state
            .apps
            .get(&id)
            .ok_or(Rejection::NotQueued(id.clone()))?;
        if rolling::decide(&Situation::of(self.state, record)).launch == 0 {
            return Err(Rejection::NotQueued(id));
        }
        self.state.backoffs.forget(&id);
        self.changes.insert(Change::App(id));
        Ok(Outcome::Done)
    }
}

/// `None` when nothing differs. Changing only `instances` keeps the configuration.
fn new_record(
    old: Option<&AppRecord>,
    spec: Arc<App>,
    restart: bool,
    version: Millis,
) -> Option<NewRecord> {
    let Some(old) = old else {
        let steps = vec![StepKind::StartApplication, StepKind::ScaleApplication];
        let versions = OrdMap::new();
        let record = AppRecord {
            spec,
            version,
            config_version: version,
            last_scaling_at: version,
            versions,
        };
        return Some(NewRecord { record, steps });
    };
    if *old.spec == *spec && !restart {
        return None;
    }
    let mut as_before = (*spec).clone();
    as_before.instances = old.spec.instances;
    let scale_only = !restart && as_before == *old.spec;
    let record = AppRecord {
        spec,
        version,
        config_version: if scale_only {
            old.config_version
        } else {
            version
        },
        last_scaling_at: version,
        versions: old.versions.clone(),
    };
    let kind = if scale_only {
        StepKind::ScaleApplication
    } else {
        StepKind::RestartApplication
    };
    Some(NewRecord {
        record,
        steps: vec![kind],
    })
}
