//! `/v2/apps/{id…}/tasks` and one task of it: listing and ending.
//!
//! It decides which tasks a request names; what becomes of the app (replace or shrink), the core
//! decides. Invariant: a task is only found below the app it belongs to.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gantry_coordinator_core::outcome::{Outcome, Rejection};
use gantry_coordinator_core::service::request::{self, KillQuery};
use gantry_coordinator_core::service::view;
use gantry_coordinator_core::state::{AppRecord, State as Replicated, Task};
use gantry_wire::ids::{AppId, TaskId};
use serde_json::{Value, json};

use super::Api;
use super::apps::known;
use super::change::deploying;
use super::query::Parameters;
use super::refusal::Refusal;

/// `{"tasks":[…]}` of one app.
pub(super) fn of_app(state: &Replicated, app: &AppRecord) -> Value {
    of_apps(state, std::iter::once(app))
}

/// `{"tasks":[…]}` of some apps.
pub(super) fn of_apps<'a>(state: &Replicated, apps: impl Iterator<Item = &'a AppRecord>) -> Value {
    let tasks = apps.flat_map(|app| state.tasks().of_app(&app.spec.id));
    json!({ "tasks": tasks.map(|task| view::task(state, task)).collect::<Vec<_>>() })
}

/// `{"task":…}`.
pub(super) fn one(state: &Replicated, app: &AppId, task: &str) -> Result<Value, Refusal> {
    known(state, app)?;
    Ok(json!({ "task": view::task(state, live(state, app, task)?) }))
}

/// The live task of this id, if it is the app's.
fn live<'a>(state: &'a Replicated, app: &AppId, task: &str) -> Result<&'a Task, Refusal> {
    let unknown = || Refusal::NotFound(format!("Task '{task}' does not exist"));
    let id = TaskId::parse(task).map_err(|_| unknown())?;
    state
        .tasks()
        .live(&id)
        .filter(|task| task.app_id == *app)
        .ok_or_else(unknown)
}

/// How a request that ends tasks wants it done.
pub(super) fn kill_query(query: &Parameters) -> KillQuery {
    KillQuery {
        scale: query.flag("scale", false),
        wipe: query.flag("wipe", false),
        force: query.flag("force", false),
    }
}

/// DELETE /v2/apps/{id}/tasks.
pub(super) async fn kill_all(
    api: &Api,
    app: &AppId,
    query: &Parameters,
) -> Result<Response, Refusal> {
    let host = query.get("host").filter(|host| *host != "*");
    let how = kill_query(query);
    let make = api.change(|state, ids| {
        let record = state
            .app(app)
            .ok_or_else(|| Rejection::AppUnknown(app.clone()))?;
        let on_host = |task: &&Task| host.is_none_or(|host| task.host == host);
        let tasks = state.tasks().of_app(&record.spec.id).filter(on_host);
        let tasks: Vec<TaskId> = tasks.map(|task| task.id.clone()).collect();
        Ok((request::kill_tasks(&tasks, how, ids)?, ()))
    });
    let (outcome, ()) = make.await?;
    killed(api, &outcome)
}

/// DELETE /v2/apps/{id}/tasks/{task}.
pub(super) async fn kill_one(
    api: &Api,
    app: &AppId,
    task: &str,
    query: &Parameters,
) -> Result<Response, Refusal> {
    let state = api.handle.state();
    known(&state, app)?;
    let task = live(&state, app, task)?;
    let tasks = [task.id.clone()];
    let how = kill_query(query);
    let make = api.change(|_, ids| Ok((request::kill_tasks(&tasks, how, ids)?, ())));
    match make.await?.0 {
        Outcome::Killing(_) => {
            Ok(Json(json!({ "task": view::task(&state, task) })).into_response())
        }
        outcome => deploying(StatusCode::OK, &outcome),
    }
}

/// The answer to a request that ended several tasks: these, or the deployment that shrinks apps.
pub(super) fn killed(api: &Api, outcome: &Outcome) -> Result<Response, Refusal> {
    let Outcome::Killing(ids) = outcome else {
        return deploying(StatusCode::OK, outcome);
    };
    let state = api.handle.state();
    let tasks = ids.iter().filter_map(|id| state.task(id));
    let tasks: Vec<Value> = tasks.map(|task| view::task(&state, task)).collect();
    Ok(Json(json!({ "tasks": tasks })).into_response())
}
