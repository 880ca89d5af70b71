//! `/v2/deployments`: running changes, and taking one back.
//!
//! It decides only the codes: a forced cancel just forgets the deployment (202, no body), any
//! other starts one in the opposite direction.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gantry_coordinator_core::outcome::Outcome;
use gantry_coordinator_core::service::{request, view};
use gantry_wire::ids::DeploymentId;
use serde_json::Value;

use super::Api;
use super::change::deploying;
use super::query::Parameters;
use super::refusal::Refusal;

/// GET /v2/deployments.
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<Value>> {
    let state = api.handle.state();
    let all = state.deployments().iter();
    Json(
        all.map(|deployment| view::deployment(&state, deployment))
            .collect(),
    )
}

/// DELETE /v2/deployments/{id}.
pub(super) async fn cancel(
    State(api): State<Api>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let force = Parameters::of(request.uri()).flag("force", false);
    let id = DeploymentId::parse(id.as_str())
        .map_err(|_| Refusal::NotFound(format!("DeploymentPlan {id} does not exist")))?;
    let outcome = api
        .change_by(|ids| request::cancel_deployment(&id, force, ids))
        .await?;
    match outcome {
        Outcome::Done => Ok(StatusCode::ACCEPTED.into_response()),
        outcome => deploying(StatusCode::OK, &outcome),
    }
}
