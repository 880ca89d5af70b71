//! Answers that are not a success: one type, its status and its words. The only place where the
//! agent's errors become HTTP.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gantry_wire::mesos::negotiation::Refusal;

/// Why a request is not answered as asked. The text is the body, as Mesos's are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// The request makes no sense.
    BadRequest(String),
    /// It is not allowed.
    Forbidden(String),
    /// There is no such thing.
    NotFound(String),
    /// Someone else has it.
    Conflict(String),
    /// What the request is made of is not taken here.
    UnsupportedMediaType(String),
    /// The answer cannot be had in the form asked for.
    NotAcceptable(String),
    /// Not in this version.
    NotImplemented(String),
    /// The body did not come within this time.
    TooSlow(Duration),
    /// The body is longer than this many bytes.
    TooLarge(usize),
    /// Too many bodies are on their way in.
    Busy,
    /// Our side failed.
    Internal(String),
    /// The agent ends.
    Unavailable,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal.status() {
            406 => Self::NotAcceptable(text),
            415 => Self::UnsupportedMediaType(text),
            _ => Self::BadRequest(text),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::BadRequest(text) => (StatusCode::BAD_REQUEST, text),
            Self::Forbidden(text) => (StatusCode::FORBIDDEN, text),
            Self::NotFound(text) => (StatusCode::NOT_FOUND, text),
            Self::Conflict(text) => (StatusCode::CONFLICT, text),
            Self::UnsupportedMediaType(text) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, text),
            Self::NotAcceptable(text) => (StatusCode::NOT_ACCEPTABLE, text),
            Self::NotImplemented(text) => (StatusCode::NOT_IMPLEMENTED, text),
            Self::TooSlow(time) => (
                StatusCode::REQUEST_TIMEOUT,
                format!("The request's body did not come within {time:?}"),
            ),
            Self::TooLarge(bytes) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("The request's body is longer than {bytes} bytes"),
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many requests are being received at once".to_owned(),
            ),
            Self::Internal(text) => (StatusCode::INTERNAL_SERVER_ERROR, text),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "The agent ends".to_owned()),
        };
        (status, text).into_response()
    }
}
