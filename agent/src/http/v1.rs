//! `POST /api/v1`: the calls of Mesos's agent API. Reads a call in JSON or protobuf, finds who
//! carries it out, and writes the answer in the encoding that its caller takes.
//!
//! One file in `v1/` per group of calls; this one decides nothing about any of them. Invariants: a
//! call has all its required fields before anyone looks at it; a body is read whole and bounded,
//! unless it is a stream of records; a call that nobody carries out is answered so in words.

mod agent;
mod attach;
mod containers;
mod live;
mod place;
mod process_io;
mod pump;
mod records;
mod session;
mod stdin;

pub(crate) use live::Joined;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse as _, Response};
use gantry_wire::mesos::negotiation::{self, Body, Headers};
use gantry_wire::mesos::v1::agent::call::Type;
use gantry_wire::mesos::v1::agent::{Call, Response as Answer};
use gantry_wire::mesos::{Encoding, decode, encode};

use super::Server;
use super::body::Intake;
use super::problem::Problem;
use records::Records;

/// What the calls need.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) server: Arc<Server>,
    pub(super) intake: Intake,
}

pub(super) async fn call(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (content, accept) = negotiate(request.headers())?;
    let encoding = match content {
        Body::Message(encoding) => encoding,
        Body::Records(encoding) => {
            let records = Records::new(request.into_body(), encoding);
            return attach::input(&api.server, records).await;
        }
    };
    let bytes = api.intake.read(request.into_body()).await?;
    let call: Call = decode(encoding, &bytes)
        .map_err(|error| Problem::BadRequest(format!("Failed to parse the call: {error}")))?;
    dispatch(&api.server, call, accept).await
}

/// How the body is encoded, and how the answer shall be.
fn negotiate(headers: &HeaderMap) -> Result<(Body, Body), Problem> {
    let line = |name: HeaderName| {
        let values = headers.get_all(name).iter();
        // What is no text is no media type.
        let values: Vec<&str> = values.map(|it| it.to_str().unwrap_or_default()).collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    let content_type = line(CONTENT_TYPE);
    let message_content_type = line(HeaderName::from_static("message-content-type"));
    let accept = line(ACCEPT);
    let message_accept = line(HeaderName::from_static("message-accept"));
    let told = Headers {
        content_type: content_type.as_deref(),
        message_content_type: message_content_type.as_deref(),
        accept: accept.as_deref(),
        message_accept: message_accept.as_deref(),
    };
    Ok(negotiation::negotiate_records(&told)?)
}

async fn dispatch(server: &Arc<Server>, call: Call, accept: Body) -> Result<Response, Problem> {
    let kind = call.r#type();
    if kind == Type::LaunchNestedContainerSession {
        let launch = part(call.launch_nested_container_session, kind)?;
        return session::launch(server, launch, accept).await;
    }
    if kind == Type::AttachContainerOutput {
        let attach = part(call.attach_container_output, kind)?;
        return attach::output(server, &attach.container_id, accept).await;
    }
    if kind == Type::AttachContainerInput {
        let text = "Expecting 'Content-Type' of application/recordio for ATTACH_CONTAINER_INPUT";
        return Err(Problem::UnsupportedMediaType(text.to_owned()));
    }
    let Body::Message(encoding) = accept else {
        let text = format!("A stream of records is no answer to {}", kind.name());
        return Err(Problem::NotAcceptable(text));
    };
    let answer = match kind {
        Type::GetHealth => agent::health(),
        Type::GetVersion => agent::version(server),
        Type::WaitNestedContainer => {
            let wait = part(call.wait_nested_container, kind)?;
            containers::wait_nested(server, &wait.container_id).await?
        }
        Type::WaitContainer => {
            let wait = part(call.wait_container, kind)?;
            containers::wait(server, &wait.container_id).await?
        }
        Type::KillNestedContainer => {
            let kill = part(call.kill_nested_container, kind)?;
            return containers::kill(server, &kill.container_id, kill.signal).await;
        }
        Type::KillContainer => {
            let kill = part(call.kill_container, kind)?;
            return containers::kill(server, &kill.container_id, kill.signal).await;
        }
        Type::Unknown if call.r#type.is_none() => {
            return Err(invalid("Expecting 'type' to be present"));
        }
        other => {
            let name = other.name();
            return Err(Problem::NotImplemented(format!(
                "The call '{name}' is not supported yet by this version of Gantry"
            )));
        }
    };
    Ok(message(encoding, &answer))
}

/// What a call of a kind is about; it is in the field of the kind's name.
fn part<T>(field: Option<T>, kind: Type) -> Result<T, Problem> {
    field.ok_or_else(|| {
        let name = kind.name().to_lowercase();
        invalid(&format!("Expecting '{name}' to be present"))
    })
}

fn invalid(why: &str) -> Problem {
    Problem::BadRequest(format!("Failed to validate agent::Call: {why}"))
}

fn message(encoding: Encoding, answer: &Answer) -> Response {
    let body = encode(encoding, answer);
    ([(CONTENT_TYPE, encoding.media_type())], body).into_response()
}
