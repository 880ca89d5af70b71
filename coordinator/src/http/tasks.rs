//! `/v2/tasks`: the tasks of all services, as JSON or as the tab-separated text that older load
//! balancer scripts read, and ending some by id.
//!
//! It decides the filter and the form. Invariant: a malformed id ends the whole request before
//! anything is killed.

use std::fmt::Write;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use gantry_coordinator_core::service::request;
use gantry_coordinator_core::service::view;
use gantry_coordinator_core::state::{AppRecord, State as Replicated, Task};
use gantry_wire::ids::TaskId;
use gantry_wire::task::TaskState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::app_tasks::{kill_query, killed};
use super::query::Parameters;
use super::refusal::Refusal;
use super::{Api, body};

/// Most tasks that one request may end.
const IDS_MAX: usize = 10_000;

/// GET /v2/tasks.
pub(super) async fn list(State(api): State<Api>, request: Request) -> Response {
    let query = Parameters::of(request.uri());
    let state = api.handle.state();
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.trim().starts_with("text/plain")) {
        return (
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            endpoints(&state),
        )
            .into_response();
    }
    let asked: Vec<&str> = query.all("status").collect();
    let wanted = |task: &&Task| asked.is_empty() || asked.iter().any(|name| is_in(task, name));
    let tasks = state.tasks().iter_live().filter(wanted);
    let tasks: Vec<Value> = tasks.map(|task| view::task(&state, task)).collect();
    Json(json!({ "tasks": tasks })).into_response()
}

fn is_in(task: &Task, status: &str) -> bool {
    match task.state {
        TaskState::TaskRunning => status.eq_ignore_ascii_case("running"),
        TaskState::TaskStaging | TaskState::TaskStarting => status.eq_ignore_ascii_case("staging"),
        _ => false,
    }
}

/// One line for each service port: app, port, then where its running tasks serve it
/// (Marathon, `api/EndpointsHelper.scala`).
fn endpoints(state: &Replicated) -> String {
    state
        .apps()
        .iter()
        .map(|app| endpoints_of(state, app))
        .collect()
}

fn endpoints_of(state: &Replicated, app: &AppRecord) -> String {
    let name = app.spec.id.safe();
    let running = || {
        let tasks = state.tasks().of_app(&app.spec.id);
        tasks.filter(|task| task.state == TaskState::TaskRunning)
    };
    let ports = app.spec.service_ports();
    if ports.is_empty() {
        let hosts: String = running().map(|task| format!("{} ", task.host)).collect();
        return format!("{name}\t \t{hosts}\n");
    }
    let mut text = String::new();
    for (at, port) in ports.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}\t{port}\t");
        for task in running() {
            if let Some(host_port) = task.host_ports.get(at) {
                let _ = write!(text, "{}:{host_port}\t", task.host);
            }
        }
        text.push('\n');
    }
    text
}

/// Body of POST /v2/tasks/delete.
#[derive(Deserialize)]
struct Ids {
    ids: Vec<String>,
}

/// POST /v2/tasks/delete.
pub(super) async fn delete(State(api): State<Api>, request: Request) -> Result<Response, Refusal> {
    let how = kill_query(&Parameters::of(request.uri()));
    let body = body::read(request.into_body()).await?;
    let ids = read_ids(&body)?;
    let make = api.change(|_, source| Ok((request::kill_tasks(&ids, how, source)?, ())));
    let (outcome, ()) = make.await?;
    killed(&api, &outcome)
}

fn read_ids(body: &[u8]) -> Result<Vec<TaskId>, Refusal> {
    let Ids { ids } = serde_json::from_slice(body)
        .map_err(|_| Refusal::BadRequest("Expecting a body {\"ids\":[\"…\"]}".to_owned()))?;
    if ids.len() > IDS_MAX {
        return Err(Refusal::BadRequest(format!(
            "At most {IDS_MAX} tasks at once"
        )));
    }
    let parse = |id: String| {
        TaskId::parse(id.as_str())
            .map_err(|_| Refusal::BadRequest(format!("'{id}' is not a valid task id")))
    };
    ids.into_iter().map(parse).collect()
}
