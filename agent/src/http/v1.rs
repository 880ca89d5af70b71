//! `POST /api/v1`: the calls of Mesos's agent API. Reads a call in JSON or protobuf, finds who
//! carries it out, and writes the answer in the encoding that its caller takes.
//!
//! One file in `v1/` per group of calls; this one decides nothing about any of them. Invariants: a
//! call has all its required fields before anyone looks at it; a body is read whole and bounded,
//! unless it is a stream of records; a call that nobody carries out is answered so in words.

pub(super) mod agent;
mod attach;
mod containers;
mod describe;
mod files;
mod images;
mod launch;
mod live;
mod place;
mod process_io;
mod pump;
mod records;
mod session;
pub(super) mod state;
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
        Type::GetFlags => agent::flags(server),
        Type::GetMetrics => agent::metrics(server, &part(call.get_metrics, kind)?).await?,
        Type::GetLoggingLevel => agent::logging_level(server)?,
        Type::GetAgent => agent::agent(server),
        Type::GetOperations => agent::operations(),
        Type::GetResourceProviders => agent::resource_providers(),
        Type::GetState => state::state(server).await?,
        Type::GetTasks => state::tasks(server).await?,
        Type::GetExecutors => state::executors(server).await?,
        Type::GetFrameworks => state::frameworks(server).await?,
        Type::GetContainers => {
            // Mesos takes the call without its part, too.
            let call = call.get_containers.unwrap_or_default();
            state::containers(server, &call).await?
        }
        Type::ListFiles => files::list(server, part(call.list_files, kind)?).await?,
        Type::ReadFile => files::read(server, part(call.read_file, kind)?).await?,
        Type::WaitNestedContainer => {
            let wait = part(call.wait_nested_container, kind)?;
            containers::wait_nested(server, &wait.container_id).await?
        }
        Type::WaitContainer => {
            let wait = part(call.wait_container, kind)?;
            containers::wait(server, &wait.container_id).await?
        }
        _ => return order(server, call, kind).await,
    };
    Ok(message(encoding, &answer))
}

/// Calls whose answer has no body.
async fn order(server: &Arc<Server>, call: Call, kind: Type) -> Result<Response, Problem> {
    match kind {
        Type::SetLoggingLevel => {
            agent::set_logging_level(server, &part(call.set_logging_level, kind)?)?;
        }
        Type::KillNestedContainer => {
            let kill = part(call.kill_nested_container, kind)?;
            containers::kill(server, &kill.container_id, kill.signal).await?;
        }
        Type::KillContainer => {
            let kill = part(call.kill_container, kind)?;
            containers::kill(server, &kill.container_id, kill.signal).await?;
        }
        Type::RemoveNestedContainer => {
            let remove = part(call.remove_nested_container, kind)?;
            containers::remove(server, &remove.container_id).await?;
        }
        Type::RemoveContainer => {
            let remove = part(call.remove_container, kind)?;
            containers::remove(server, &remove.container_id).await?;
        }
        Type::LaunchNestedContainer => {
            let launch = part(call.launch_nested_container, kind)?;
            return launch::nested(server, launch).await;
        }
        Type::LaunchContainer => {
            let launch = part(call.launch_container, kind)?;
            return launch::container(server, *launch).await;
        }
        Type::PruneImages => images::prune(server, &part(call.prune_images, kind)?).await?,
        Type::AddResourceProviderConfig
        | Type::UpdateResourceProviderConfig
        | Type::RemoveResourceProviderConfig
        | Type::MarkResourceProviderGone => {
            let text = format!("{}: this agent has no resource providers", kind.name());
            return Err(Problem::NotImplemented(text));
        }
        Type::Unknown if call.r#type != Some(Type::Unknown as i32) => {
            return Err(invalid("Expecting 'type' to be present"));
        }
        other => {
            let name = other.name();
            return Err(Problem::NotImplemented(format!(
                "The call '{name}' is not supported yet by this version of Gantry"
            )));
        }
    }
    Ok(().into_response())
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
