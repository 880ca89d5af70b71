//! A write: the core makes a command of a request, the log makes it durable, and the outcome
//! becomes an answer.
//!
//! It decides only to build a request again when the app changed in between (`Stale`), at most
//! [`ATTEMPTS_MAX`] times. Invariant: an answer that is a success is sent after the command is
//! durable and applied.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use gantry_coordinator_core::command::Kind;
use gantry_coordinator_core::outcome::{Outcome, Rejection};
use gantry_coordinator_core::service::request::RequestError;
use gantry_coordinator_core::service::{IdSource, view};
use gantry_coordinator_core::state::State;

use super::Api;
use super::refusal::Refusal;

/// How often a request is built in all.
const ATTEMPTS_MAX: usize = 10;

/// Names the deployment that a request started.
const DEPLOYMENT_ID: HeaderName = HeaderName::from_static("marathon-deployment-id");

impl Api {
    /// Proposes what `build` makes of the latest state. A rejection is an error here.
    pub(super) async fn change<T>(
        &self,
        build: impl Fn(&State, &mut dyn IdSource) -> Result<(Kind, T), RequestError>,
    ) -> Result<(Outcome, T), Refusal> {
        let mut attempt = 1;
        loop {
            let (kind, seen) = build(&self.handle.state(), &mut self.handle.ids())?;
            match self.handle.propose(kind).await?.outcome {
                Outcome::Rejected(Rejection::Stale(_)) if attempt < ATTEMPTS_MAX => attempt += 1,
                Outcome::Rejected(rejection) => return Err(rejection.into()),
                outcome => return Ok((outcome, seen)),
            }
        }
    }

    /// The same for a command that always can be made.
    pub(super) async fn change_by(
        &self,
        build: impl Fn(&mut dyn IdSource) -> Kind,
    ) -> Result<Outcome, Refusal> {
        let (outcome, ()) = self.change(|_, ids| Ok((build(ids), ()))).await?;
        Ok(outcome)
    }
}

/// `{version, deploymentId}` with the header that names the deployment.
pub(super) fn deploying(status: StatusCode, outcome: &Outcome) -> Result<Response, Refusal> {
    let body = view::deploying(outcome).ok_or(Refusal::OddOutcome)?;
    Ok(with_deployment(
        outcome,
        (status, Json(body)).into_response(),
    ))
}

/// Adds the header that names the deployment of an outcome.
pub(super) fn with_deployment(outcome: &Outcome, mut response: Response) -> Response {
    if let Outcome::Deploying { deployment_id, .. } = outcome
        && let Ok(value) = HeaderValue::from_str(deployment_id.as_str())
    {
        response.headers_mut().insert(DEPLOYMENT_ID, value);
    }
    response
}
