//! Requests of clients made into commands, against a snapshot of the state.
//!
//! It changes nothing. What is merged with a stored definition names the version it was merged
//! with; if that is not current any more when the command is applied, the answer is `Stale` and
//! the request is made again.

use std::collections::BTreeSet;

use gantry_wire::ids::{AppId, DeploymentId, TaskId};
use gantry_wire::marathon::App;
use gantry_wire::time::Millis;
use serde_json::{Map, Value};

use crate::command::{AppUpsert, Expect, Kind, PutApps};
use crate::outcome::Rejection;
use crate::service::scheduler::IdSource;
use crate::service::validate::{self, Invalid};
use crate::state::{AppRecord, State};

/// Why no command can be made of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The body is not right.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Refused by what the state holds; the same values that `apply` answers.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The id in the path is not an app id.
    #[error("'{0}' is not a valid app id")]
    BadId(String),
    /// Rollback to a version that is not kept.
    #[error("App '{0}' has no version '{1}'")]
    VersionUnknown(AppId, String),
    /// The query asks for things that exclude each other.
    #[error("{0}")]
    BadQuery(&'static str),
}

/// How PUT treats fields that the body does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// `partialUpdate=true`, Marathon's default: keep what is stored; create when there is nothing.
    Merge,
    /// `partialUpdate=false`: use the defaults.
    Replace,
    /// PATCH: keep what is stored; never create.
    Patch,
}

/// POST /v2/apps. Errors: see [`RequestError`].
pub fn post_app(
    state: &State,
    body: &[u8],
    force: bool,
    ids: &mut dyn IdSource,
) -> Result<Kind, RequestError> {
    let body = validate::json(body)?;
    let app = validate::definition(validate::object(&body, "/")?, "", None)?;
    if state.app(&app.id).is_some() {
        return Err(Rejection::AppExists(app.id).into());
    }
    Ok(put(vec![upsert(&app, Expect::Absent, None)], force, ids))
}

/// PUT or PATCH of one app. The app is new if `state` does not have it. Errors: see
/// [`RequestError`].
pub fn put_app(
    state: &State,
    id: &AppId,
    body: &[u8],
    mode: PutMode,
    force: bool,
    ids: &mut dyn IdSource,
) -> Result<Kind, RequestError> {
    let body = validate::json(body)?;
    let changed = change(state, id, validate::object(&body, "/")?, "", mode)?;
    Ok(put(vec![changed], force, ids))
}

/// PUT or PATCH of an array of apps. Errors: see [`RequestError`].
pub fn put_apps(
    state: &State,
    body: &[u8],
    mode: PutMode,
    force: bool,
    ids: &mut dyn IdSource,
) -> Result<Kind, RequestError> {
    let body = validate::json(body)?;
    let Some(list) = body.as_array() else {
        return Err(validate::shape("/", "error.expected.jsarray").into());
    };
    let mut seen = BTreeSet::new();
    let mut apps = Vec::with_capacity(list.len());
    for (i, value) in list.iter().enumerate() {
        let at = format!("({i})");
        let object = validate::object(value, &at)?;
        let path = format!("{at}/id");
        let Some(text) = object.get("id") else {
            return Err(validate::shape(&path, "error.path.missing").into());
        };
        let Some(text) = text.as_str() else {
            return Err(validate::shape(&path, "error.expected.jsstring").into());
        };
        let id = AppId::parse(text).map_err(|e| validate::rule(&path, &e.to_string()))?;
        apps.push(change(state, &id, object, &at, mode)?);
        if !seen.insert(id) {
            return Err(validate::rule(&path, "occurs twice").into());
        }
    }
    Ok(put(apps, force, ids))
}

fn put(apps: Vec<AppUpsert>, force: bool, ids: &mut dyn IdSource) -> Kind {
    Kind::PutApps(PutApps {
        apps,
        force,
        deployment_id: ids.uuid(),
    })
}

fn upsert(app: &App, expect: Expect, version: Option<Millis>) -> AppUpsert {
    AppUpsert {
        // It cannot fail: text keys and finite floats only.
        definition: serde_json::to_vec(app).unwrap_or_default(),
        expect: expect as i32,
        expected_version_ms: version.map_or(0, |version| version.0),
    }
}

fn change(
    state: &State,
    id: &AppId,
    object: &Map<String, Value>,
    at: &str,
    mode: PutMode,
) -> Result<AppUpsert, RequestError> {
    let current = state.app(id);
    if let Some(version) = object.get("version").filter(|version| !version.is_null()) {
        let record = current.ok_or_else(|| Rejection::AppUnknown(id.clone()))?;
        let app = rollback(record, object, version, at)?;
        return Ok(upsert(app, Expect::Version, Some(record.version)));
    }
    match (current, mode) {
        (None, PutMode::Patch) => Err(Rejection::AppUnknown(id.clone()).into()),
        (Some(record), PutMode::Merge | PutMode::Patch) => {
            let app = validate::update(&record.spec, object, at)?;
            Ok(upsert(&app, Expect::Version, Some(record.version)))
        }
        (_, PutMode::Replace) | (None, PutMode::Merge) => Ok(upsert(
            &validate::definition(object, at, Some(id))?,
            Expect::Any,
            None,
        )),
    }
}

/// `{"version": …}` alone: the definition of then.
fn rollback<'a>(
    record: &'a AppRecord,
    object: &Map<String, Value>,
    version: &Value,
    at: &str,
) -> Result<&'a App, RequestError> {
    let path = format!("{at}/version");
    let text = version.as_str();
    let text = text.ok_or_else(|| validate::shape(&path, "error.expected.jsstring"))?;
    if object.keys().any(|key| key != "version" && key != "id") {
        let error = "The 'version' field may only be combined with the 'id' field.";
        return Err(validate::rule(&path, error).into());
    }
    let app = Millis::parse(text).and_then(|version| record.at(version));
    let unknown = || RequestError::VersionUnknown(record.spec.id.clone(), text.to_owned());
    app.ok_or_else(unknown)
}

/// DELETE of one app.
pub fn delete_app(id: &AppId, force: bool, ids: &mut dyn IdSource) -> Kind {
    Kind::DeleteApp(crate::command::ChangeApp {
        app_id: id.to_string(),
        force,
        deployment_id: ids.uuid(),
    })
}

/// POST …/restart.
pub fn restart_app(id: &AppId, force: bool, ids: &mut dyn IdSource) -> Kind {
    Kind::RestartApp(crate::command::ChangeApp {
        app_id: id.to_string(),
        force,
        deployment_id: ids.uuid(),
    })
}

/// Query of the calls that kill tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KillQuery {
    /// Shrink the app too.
    pub scale: bool,
    /// Drop persistent resources too; excludes `scale`.
    pub wipe: bool,
    /// Cancel running deployments.
    pub force: bool,
}

/// Kill the given tasks. Errors: `scale` with `wipe`.
pub fn kill_tasks(
    tasks: &[TaskId],
    query: KillQuery,
    ids: &mut dyn IdSource,
) -> Result<Kind, RequestError> {
    if query.scale && query.wipe {
        return Err(RequestError::BadQuery(
            "You cannot use scale and wipe at the same time.",
        ));
    }
    Ok(Kind::KillTasks(crate::command::KillTasks {
        task_ids: tasks.iter().map(ToString::to_string).collect(),
        scale: query.scale,
        wipe: query.wipe,
        force: query.force,
        deployment_id: ids.uuid(),
    }))
}

/// DELETE /v2/deployments/{id}.
pub fn cancel_deployment(id: &DeploymentId, force: bool, ids: &mut dyn IdSource) -> Kind {
    Kind::CancelDeployment(crate::command::CancelDeployment {
        deployment_id: id.to_string(),
        force,
        new_deployment_id: ids.uuid(),
    })
}

/// DELETE /v2/queue/{id}/delay.
#[must_use]
pub fn reset_delay(id: &AppId) -> Kind {
    Kind::ResetDelay(crate::command::ResetDelay {
        app_id: id.to_string(),
    })
}
