//! `/v2/queue`: what waits for launch and why, and forgetting a launch delay.
//!
//! It decides nothing: the queue is the leader's soft state, its JSON the core's.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gantry_coordinator_core::service::{request, view};
use serde_json::Value;

use super::Api;
use super::app_path::app_id;
use super::refusal::Refusal;

/// GET /v2/queue. `embed=lastUnusedOffers` adds nothing: there are no offers to show, the refusal
/// counts say the same of agents.
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    let entries = api.handle.queue().await?;
    Ok(Json(view::queue(
        &api.handle.state(),
        &entries,
        api.handle.now(),
    )))
}

/// DELETE /v2/queue/{id…}/delay.
pub(super) async fn reset_delay(
    State(api): State<Api>,
    Path(rest): Path<String>,
) -> Result<Response, Refusal> {
    let segments: Vec<&str> = rest.split('/').filter(|s| !s.is_empty()).collect();
    let [app @ .., "delay"] = segments.as_slice() else {
        return Err(Refusal::NotFound("URI not found".to_owned()));
    };
    let id = app_id(app)?;
    api.change_by(|_| request::reset_delay(&id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
