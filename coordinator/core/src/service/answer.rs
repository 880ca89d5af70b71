//! Refusals as HTTP answers in Marathon's form (`api/MarathonExceptionMapper.scala`): the one
//! place that maps the errors of this crate to status and body.

use serde_json::{Value, json};

use crate::outcome::Rejection;
use crate::service::request::RequestError;
use crate::service::validate::{Invalid, Problem};

/// Status and body for a request of which no command could be made.
#[must_use]
pub fn request_error(error: &RequestError) -> (u16, Value) {
    match error {
        RequestError::Invalid(invalid) => self::invalid(invalid),
        RequestError::Rejected(rejection) => self::rejection(rejection),
        RequestError::VersionUnknown(..) => (404, json!({"message": error.to_string()})),
        RequestError::BadId(_) => (422, json!({"message": error.to_string()})),
        RequestError::BadQuery(_) => (400, json!({"message": error.to_string()})),
    }
}

fn invalid(invalid: &Invalid) -> (u16, Value) {
    let message = invalid.to_string();
    match invalid {
        Invalid::NotJson(details) => (400, json!({"message": message, "details": details})),
        Invalid::Shape(problems) | Invalid::Rules(problems) => (
            422,
            json!({"message": message, "details": details(problems)}),
        ),
    }
}

fn details(problems: &[Problem]) -> Vec<Value> {
    problems
        .iter()
        .map(|p| json!({"path": p.path, "errors": p.errors}))
        .collect()
}

/// Status and body for a command that was applied and rejected.
#[must_use]
pub fn rejection(rejection: &Rejection) -> (u16, Value) {
    let message = rejection.to_string();
    let status = match rejection {
        Rejection::AppLocked(deployments) => {
            let message = format!(
                "{message} Override with the option '?force=true'. View details at \
                 '/v2/deployments/<DEPLOYMENT_ID>'."
            );
            let ids: Vec<Value> = deployments
                .iter()
                .map(|id| json!({"id": id.as_str()}))
                .collect();
            return (409, json!({"message": message, "deployments": ids}));
        }
        Rejection::AppExists(_)
        | Rejection::Stale(_)
        | Rejection::AlreadyInitialised
        | Rejection::AgentGone(_) => 409,
        Rejection::AgentDraining(_) => 400,
        Rejection::AppUnknown(_)
        | Rejection::TaskUnknown(_)
        | Rejection::AgentUnknown(_)
        | Rejection::DeploymentUnknown(_)
        | Rejection::NotQueued(_) => 404,
        Rejection::TooManyDeployments(_) => 403,
        Rejection::TooMany(_) | Rejection::ServicePortsExhausted(..) | Rejection::Malformed(_) => {
            422
        }
    };
    (status, json!({"message": message}))
}
