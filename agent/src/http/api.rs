//! `POST /api/v1`: the calls of Mesos's agent API that exist so far, in JSON. Every other call is
//! answered with the words "not supported yet", none is half carried out.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use gantry_isolation::spec::{ContainerId, ExitStatus};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::Server;
use super::exec;
use super::problem::Problem;
use crate::inbox::{Ask, Event};

/// SIGKILL, signal(7).
const SIGKILL: i32 = 9;

#[derive(Debug, Deserialize)]
struct Call {
    #[serde(rename = "type")]
    kind: String,
    launch_nested_container_session: Option<exec::Launch>,
    wait_nested_container: Option<Named>,
    wait_container: Option<Named>,
    kill_nested_container: Option<Named>,
    kill_container: Option<Named>,
}

/// A nested container, by itself and its parent.
#[derive(Debug, Deserialize)]
pub(super) struct Nested {
    pub(super) value: String,
    pub(super) parent: Option<Box<Nested>>,
}

#[derive(Debug, Deserialize)]
struct Named {
    container_id: Nested,
    signal: Option<i32>,
}

pub(super) async fn call(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    if !kind.starts_with("application/json") {
        let text = "Expecting 'Content-Type' of application/json; protobuf and recordio are not \
                    supported yet by this version of Gantry";
        return Err(Problem::NotImplemented(text.to_owned()));
    }
    let call: Call = serde_json::from_slice(&body)
        .map_err(|error| Problem::BadRequest(format!("Failed to parse the call: {error}")))?;
    let missing = || {
        let field = call.kind.to_lowercase();
        Problem::BadRequest(format!("Failed to validate the call: expecting '{field}'"))
    };
    match call.kind.as_str() {
        "GET_HEALTH" => Ok(
            Json(json!({"type": "GET_HEALTH", "get_health": {"healthy": true}})).into_response(),
        ),
        "GET_VERSION" => {
            let info = json!({"version_info": {"version": server.facts.version}});
            Ok(Json(json!({"type": "GET_VERSION", "get_version": info})).into_response())
        }
        "LAUNCH_NESTED_CONTAINER_SESSION" => {
            let launch = call.launch_nested_container_session.ok_or_else(missing)?;
            exec::launch(&server, launch, &headers).await
        }
        "WAIT_NESTED_CONTAINER" => {
            let named = call.wait_nested_container.ok_or_else(missing)?;
            wait(
                &server,
                named,
                "WAIT_NESTED_CONTAINER",
                "wait_nested_container",
            )
            .await
        }
        "WAIT_CONTAINER" => {
            let named = call.wait_container.ok_or_else(missing)?;
            wait(&server, named, "WAIT_CONTAINER", "wait_container").await
        }
        "KILL_NESTED_CONTAINER" => {
            kill(&server, call.kill_nested_container.ok_or_else(missing)?).await
        }
        "KILL_CONTAINER" => kill(&server, call.kill_container.ok_or_else(missing)?).await,
        other => Err(Problem::NotImplemented(format!(
            "The call '{other}' is not supported yet by this version of Gantry"
        ))),
    }
}

/// The session that a nested container id names. Both ids are part of its name, so that a session
/// of another task is never meant.
pub(super) fn session(nested: &Nested) -> Result<ContainerId, Problem> {
    let parent = nested.parent.as_deref().ok_or_else(|| {
        Problem::BadRequest("'container_id.parent' is needed: only sessions inside tasks".into())
    })?;
    if parent.parent.is_some() {
        let text = "Sessions inside nested containers are not supported yet";
        return Err(Problem::NotImplemented(text.to_owned()));
    }
    let name = format!("{}.{}", parent.value, nested.value);
    ContainerId::try_from(name).map_err(|error| Problem::BadRequest(error.to_string()))
}

async fn wait(
    server: &Server,
    named: Named,
    kind: &'static str,
    field: &'static str,
) -> Result<Response, Problem> {
    let session = session(&named.container_id)?;
    let (reply, answer) = oneshot::channel();
    ask(server, Ask::WaitExec { session, reply }).await?;
    let unknown = |_| {
        Problem::NotFound(format!(
            "Container '{}' is not known",
            named.container_id.value
        ))
    };
    let status = answer.await.map_err(unknown)?;
    Ok(Json(json!({"type": kind, field: {"exit_status": raw(status)}})).into_response())
}

async fn kill(server: &Server, named: Named) -> Result<Response, Problem> {
    let signo = named.signal.unwrap_or(SIGKILL);
    if !(1..=64).contains(&signo) {
        return Err(Problem::BadRequest(format!("{signo} is not a signal")));
    }
    let session = session(&named.container_id)?;
    ask(server, Ask::KillExec { session, signo }).await?;
    Ok(().into_response())
}

pub(super) async fn ask(server: &Server, ask: Ask) -> Result<(), Problem> {
    server
        .events
        .send(Event::Ask(ask))
        .await
        .map_err(|_| Problem::Unavailable)
}

/// As wait(2) gives it, which is what Mesos passes on.
fn raw(status: ExitStatus) -> i32 {
    match status {
        ExitStatus::Code(code) => code << 8,
        ExitStatus::Signal(signal) => signal,
    }
}
