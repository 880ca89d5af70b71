//! The one place that turns a refusal into an HTTP answer.
//!
//! What the core refuses, it also words (`service/answer`, Marathon's shapes); this file adds what
//! only exists on this side: transport, proxy, routes. It decides code and shape, not whether
//! something is refused. Invariants: every answer that is not a success has a JSON body with a
//! `message`; a failure of our own says so (5xx) and never blames the request.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gantry_coordinator_core::outcome::Rejection;
use gantry_coordinator_core::service::answer;
use gantry_coordinator_core::service::request::RequestError;
use serde_json::{Value, json};

use super::body::BODY_MAX_BYTES;
use crate::handle::ProposeError;

/// Why a request is not carried out.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No command can be made of the request.
    Request(RequestError),
    /// The replicated state refused the command.
    Rejected(Rejection),
    /// The command got no outcome.
    Unproposed(ProposeError),
    /// The outcome is not one of those that the command has: a defect of ours.
    OddOutcome,
    /// The body is over its limit.
    BodyTooLarge,
    /// The body did not come in time.
    BodyTooSlow,
    /// A part of the request is well-formed and wrong.
    BadArgument(String),
    /// The request is malformed beside its body.
    BadRequest(String),
    /// What is named does not exist.
    NotFound(String),
    /// The body is in no encoding that the resource knows.
    MediaType,
    /// The resource does not know the method.
    WrongMethod,
    /// A part of the API that Gantry will have and this version has not.
    NotBuilt(&'static str),
    /// The agent is known and has no connection.
    NodeAway(String),
    /// The agent's listener cannot be reached.
    NodeUnreachable(String),
    /// The agent's listener did not answer in time.
    NodeSlow(String),
    /// Too many answers of agents are streaming.
    ProxyBusy(String),
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<ProposeError> for Refusal {
    fn from(error: ProposeError) -> Self {
        Self::Unproposed(error)
    }
}

/// An answer with just a message.
pub(super) fn message(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "message": text }))).into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Request(error) => return of_core(answer::request_error(&error)),
            Self::Rejected(rejection) => return of_core(answer::rejection(&rejection)),
            Self::Unproposed(error) => (of_proposal(&error), error.to_string()),
            Self::OddOutcome => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "The command was applied with an unexpected outcome".to_owned(),
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("The body of a request may have at most {BODY_MAX_BYTES} bytes"),
            ),
            Self::BodyTooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "The body did not come in time".to_owned(),
            ),
            Self::BadArgument(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, why),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, what),
            Self::MediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Expecting 'Content-Type' of application/json or application/x-protobuf".to_owned(),
            ),
            Self::WrongMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed".to_owned(),
            ),
            Self::NotBuilt(what) => (
                StatusCode::NOT_IMPLEMENTED,
                format!("{what}: not built yet in this version of Gantry"),
            ),
            Self::NodeAway(agent) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("Agent '{agent}' is not connected"),
            ),
            Self::NodeUnreachable(agent) => (
                StatusCode::BAD_GATEWAY,
                format!("Agent '{agent}' cannot be reached"),
            ),
            Self::NodeSlow(agent) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("Agent '{agent}' did not answer in time"),
            ),
            Self::ProxyBusy(agent) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("Too many answers are streaming; agent '{agent}' was not asked"),
            ),
        };
        message(status, &text)
    }
}

fn of_core((status, body): (u16, Value)) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(body)).into_response()
}

fn of_proposal(error: &ProposeError) -> StatusCode {
    match error {
        ProposeError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ProposeError::Busy
        | ProposeError::NotLeader
        | ProposeError::Superseded
        | ProposeError::Timeout
        | ProposeError::LogFailed(_)
        | ProposeError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
    }
}
