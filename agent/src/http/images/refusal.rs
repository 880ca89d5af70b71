//! What stands in the way of a request about images: its status, its words, and its sort, on which
//! the exit code of `gantry image` and the way out that it names hang.

use std::io;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gantry_image::{ArchiveError, StoreError, Trouble};
use serde_json::json;

/// A request that is not carried out.
#[derive(Debug)]
pub(super) struct Refusal {
    message: String,
    trouble: Trouble,
}

impl Refusal {
    fn new(trouble: Trouble, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message, trouble }
    }

    /// What was given makes no sense.
    pub(super) fn bad_request(message: String) -> Self {
        Self::new(Trouble::BadRequest, message)
    }

    /// Too many jobs.
    pub(super) fn busy() -> Self {
        Self::new(
            Trouble::Busy,
            "the node is busy with other pulls, imports and exports",
        )
    }

    /// An archive that does not come.
    pub(super) fn stalled(time: Duration) -> Self {
        let message = format!("nothing of the archive came within {time:?}");
        Self::new(Trouble::Other, message)
    }

    /// A full disk.
    pub(super) fn no_space() -> Self {
        Self::new(
            Trouble::NoSpace,
            "the node has no space left for the archive",
        )
    }

    /// The node's own files.
    pub(super) fn io(operation: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::no_space(),
            _ => Self::new(Trouble::Other, format!("cannot {operation}: {error}")),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new(error.trouble(), crate::chain(&error))
    }
}

impl From<ArchiveError> for Refusal {
    fn from(error: ArchiveError) -> Self {
        Self::new(error.trouble(), error.message())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.trouble {
            Trouble::NotHere | Trouble::NotFound => StatusCode::NOT_FOUND,
            Trouble::InUse => StatusCode::CONFLICT,
            Trouble::BadRequest => StatusCode::BAD_REQUEST,
            Trouble::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Trouble::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = json!({"message": self.message, "trouble": self.trouble});
        (status, Json(body)).into_response()
    }
}
