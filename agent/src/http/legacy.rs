//! The endpoints of an agent from before the v1 API that tools still read, beside `/state` and
//! `/files`: `/containers`, `/monitor/statistics`, `/containerizer/debug`, `/files/debug`,
//! `/system/stats.json`, `/logging/toggle`. Each says what a call of v1 says, in older words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use gantry_wire::mesos::descriptor::Described;
use gantry_wire::mesos::v1::agent::call::GetContainers;
use gantry_wire::mesos::v1::agent::response::get_containers::Container;
use gantry_wire::mesos::{Encoding, encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Server, metrics, state, v1};

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    container_id: Option<String>,
    #[serde(default)]
    show_nested: bool,
    #[serde(default)]
    show_standalone: bool,
}

/// GET /containers: those of executors, or the one that is named.
pub(super) async fn containers(
    State(server): State<Arc<Server>>,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Vec<Value>>, Problem> {
    let Query(which) = query.map_err(|error| Problem::BadRequest(error.body_text()))?;
    let call = GetContainers {
        show_nested: Some(which.show_nested || which.container_id.is_some()),
        show_standalone: Some(which.show_standalone || which.container_id.is_some()),
    };
    let mut shown = v1::state::shown(&server, &call).await?;
    if let Some(id) = &which.container_id {
        shown.retain(|container| container.container_id.value == *id);
    }
    Ok(Json(shown.iter().map(container).collect()))
}

fn container(container: &Container) -> Value {
    let mut shown = usage(container);
    shown["container_id"] = json!(container.container_id.value);
    if let Some(status) = &container.container_status {
        shown["status"] = value(&**status);
    }
    shown
}

/// GET /monitor/statistics.
pub(super) async fn statistics(
    State(server): State<Arc<Server>>,
) -> Result<Json<Vec<Value>>, Problem> {
    let shown = v1::state::shown(&server, &GetContainers::default()).await?;
    Ok(Json(shown.iter().map(usage).collect()))
}

/// Who a container is of, and what it uses.
fn usage(container: &Container) -> Value {
    let executor = container.executor_id.as_ref().map(|id| &id.value);
    let framework = container.framework_id.as_ref().map(|id| &id.value);
    let mut shown = json!({
        "executor_id": executor,
        "executor_name": container.executor_name,
        "framework_id": framework,
        "source": executor,
    });
    if let Some(statistics) = &container.resource_statistics {
        shown["statistics"] = value(&**statistics);
    }
    shown
}

/// A message as JSON.
fn value<T: prost::Message + Described>(message: &T) -> Value {
    serde_json::from_slice(&encode(Encoding::Json, message)).unwrap_or_default()
}

/// GET /containerizer/debug: what containers wait for, which is nothing: the keeper
/// answers each request, and has no queue that could be stuck.
pub(super) async fn containerizer() -> Json<Value> {
    Json(json!({"pending": []}))
}

/// GET /files/debug: which directory a path of `/files` means.
pub(super) async fn files(
    State(server): State<Arc<Server>>,
) -> Result<Json<BTreeMap<String, String>>, Problem> {
    let view = state::view(&server).await?;
    let executors = view.executors.iter().map(|row| &row.sandbox);
    let tasks = view.tasks.iter().map(|row| &row.sandbox);
    let root = server.slaves.to_string_lossy();
    let both = |path: &String| {
        let short = path
            .strip_prefix(&*root)
            .map(|rest| format!("/slaves{rest}"));
        (short.unwrap_or_else(|| path.clone()), path.clone())
    };
    Ok(Json(executors.chain(tasks).map(both).collect()))
}

/// GET /system/stats.json: the machine, not the agent.
pub(super) async fn system() -> Json<BTreeMap<String, f64>> {
    let rows = metrics::machine().into_iter().map(|(name, _, value)| {
        let name = name
            .strip_prefix("load_")
            .map_or(name.to_owned(), |rest| format!("avg_load_{rest}"));
        (name, value)
    });
    Json(rows.collect())
}

#[derive(Debug, Deserialize)]
pub(super) struct Toggle {
    level: Option<u32>,
    duration: Option<String>,
}

/// `/logging/toggle`: the level of the log, or another one for a while. Changes something, so it is
/// POST; Mesos lets any page of any site do it by GET, which here only asks.
pub(super) async fn logging(
    State(server): State<Arc<Server>>,
    query: Result<Query<Toggle>, QueryRejection>,
) -> Result<String, Problem> {
    let asks = query.is_ok_and(|Query(it)| it.level.is_none() && it.duration.is_none());
    if !asks {
        return Err(Problem::BadRequest("A level is set by POST".to_owned()));
    }
    Ok(format!("{}\n", v1::agent::log_of(&server)?.level()))
}

pub(super) async fn toggle(
    State(server): State<Arc<Server>>,
    query: Result<Query<Toggle>, QueryRejection>,
) -> Result<(), Problem> {
    let Query(toggle) = query.map_err(|error| Problem::BadRequest(error.body_text()))?;
    let missing = |name| Problem::BadRequest(format!("Expecting '{name}=value' in query."));
    let level = toggle.level.ok_or_else(|| missing("level"))?;
    let lasts = toggle.duration.ok_or_else(|| missing("duration"))?;
    let lasts: Option<Duration> = metrics::duration(&lasts);
    let lasts = lasts.ok_or_else(|| missing("duration"))?;
    let set = v1::agent::log_of(&server)?.set(level, lasts);
    set.map_err(|error| Problem::BadRequest(error.to_string()))
}
