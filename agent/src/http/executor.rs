//! `POST /api/v1/executor`: the calls of executors of frameworks' own, and the stream of events to
//! each (`spec/mesos.md` §2.1; Mesos: `Http::executor` in `src/slave/http.cpp`).
//!
//! It reads a call and its headers; what the call comes to, the loop says. It is served on the
//! agent's own listener, where only a token proves who calls, on a listener of its own and at a door
//! in each executor's container (see `serve`). Invariants: a call, and what is read of one at a time,
//! are bounded; who needs a token and has a wrong one is not read at all.

mod serve;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use gantry_agent_core::ExecutorKey;
use gantry_wire::mesos::negotiation::{self, Headers};
use gantry_wire::mesos::v1::executor::{Call, Event as ToExecutor, call, event};
use gantry_wire::mesos::{Encoding, decode};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub(crate) use serve::{Beside, serve_door, serve_tcp};

use crate::executors::Caller;
use crate::executors::streams::{self, Events};
use crate::executors::token::{Claims, Tokens};
use crate::inbox::{Ask, Event};

/// Longest call: a SUBSCRIBE lists tasks and updates.
const CALL_MAX_BYTES: usize = 4 << 20;
/// Longest message to a framework: it has to fit into a frame to the coordinator.
const MESSAGE_MAX_BYTES: usize = 1 << 20;
/// Calls that are being received at a time, at one door or listener.
const BODIES_MAX: usize = 16;
/// How long the body of a call may take.
const BODY_MAX: Duration = Duration::from_secs(20);
/// How often an executor hears that the agent is there (Mesos: `DEFAULT_EXECUTOR_HEARTBEAT_INTERVAL`).
const HEARTBEAT: Duration = Duration::from_secs(30 * 60);

/// What the handler needs.
pub(crate) struct Api {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) tokens: Arc<Tokens>,
}

/// Where calls come in.
#[derive(Clone)]
struct Entrance {
    api: Arc<Api>,
    caller: Caller,
    /// Whether a caller without token may be known otherwise.
    tokenless: bool,
    bodies: Arc<Semaphore>,
}

impl Entrance {
    fn new(api: Arc<Api>, caller: Caller, tokenless: bool) -> Self {
        let bodies = Arc::new(Semaphore::new(BODIES_MAX));
        Self {
            api,
            caller,
            tokenless,
            bodies,
        }
    }
}

/// A call of an executor, for the loop.
pub(crate) struct ExecutorAsk {
    pub(crate) caller: Caller,
    pub(crate) call: Box<Call>,
    /// Of the events, if it subscribes.
    pub(crate) encoding: Encoding,
    pub(crate) reply: oneshot::Sender<Result<Answer, Refused>>,
}

/// What a call came to.
pub(crate) enum Answer {
    Accepted,
    Subscribed(ExecutorKey, Events),
}

/// Why it came to nothing.
#[derive(Debug)]
pub(crate) enum Refused {
    BadRequest(String),
    Unauthorized,
    Forbidden(&'static str),
    TooLarge,
    NotImplemented,
    Unavailable(&'static str),
    /// By the headers.
    Headers(negotiation::Refusal),
    TooSlow,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::BadRequest(text) => (StatusCode::BAD_REQUEST, text),
            Self::Unauthorized => {
                let realm = HeaderValue::from_static("Bearer realm=\"mesos-agent-executor\"");
                let text = "The executor has to prove who it is by its token\n";
                let header = [(WWW_AUTHENTICATE, realm)];
                return (StatusCode::UNAUTHORIZED, header, text).into_response();
            }
            Self::Forbidden(text) => (StatusCode::FORBIDDEN, text.to_owned()),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "A call is at most {CALL_MAX_BYTES} bytes long, a message {MESSAGE_MAX_BYTES}"
                ),
            ),
            Self::NotImplemented => (
                StatusCode::NOT_IMPLEMENTED,
                "Received 'UNKNOWN' call".to_owned(),
            ),
            Self::Unavailable(text) => (StatusCode::SERVICE_UNAVAILABLE, text.to_owned()),
            Self::Headers(refusal) => (
                StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST),
                refusal.to_string(),
            ),
            Self::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                format!("The call did not come within {BODY_MAX:?}"),
            ),
        };
        (status, format!("{text}\n")).into_response()
    }
}

/// For the agent's own listener, where a token is needed.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(api: Arc<Api>) -> Router<S> {
    let entrance = Entrance::new(api, Caller::default(), false);
    Router::new()
        .route("/api/v1/executor", post(handle))
        .with_state(entrance)
}

async fn handle(State(entrance): State<Entrance>, request: Request) -> Response {
    match answer(&entrance, request).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    }
}

async fn answer(entrance: &Entrance, request: Request) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let claims = claims(&parts.headers, &entrance.api.tokens)?;
    if claims.is_none() && !entrance.tokenless {
        return Err(Refused::Unauthorized);
    }
    let (encoding, accepted) = negotiated(&parts.headers).map_err(Refused::Headers)?;
    let body = read(entrance, body).await?;
    let call: Call = decode(encoding, &body)
        .map_err(|why| Refused::BadRequest(format!("Failed to parse body into Call: {why}")))?;
    check(&call)?;
    if call.r#type() == call::Type::Heartbeat {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    let (reply, answer) = oneshot::channel();
    let ask = ExecutorAsk {
        caller: Caller {
            claims,
            ..entrance.caller.clone()
        },
        call: Box::new(call),
        encoding: accepted,
        reply,
    };
    let ended = || Refused::Unavailable("The agent ends");
    let sent = entrance
        .api
        .events
        .send(Event::Ask(Ask::Executor(Box::new(ask))));
    sent.await.map_err(|_| ended())?;
    match answer.await.map_err(|_| ended())?? {
        Answer::Accepted => Ok(StatusCode::ACCEPTED.into_response()),
        Answer::Subscribed(executor, events) => {
            let media_type = events.encoding.media_type();
            let stream = stream(executor, events, entrance.api.events.clone());
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(media_type))];
            Ok((headers, Body::from_stream(stream)).into_response())
        }
    }
}

/// Whom the caller's token is for. Errors: it has one, and that is not of this node.
fn claims(headers: &HeaderMap, tokens: &Tokens) -> Result<Option<Claims>, Refused> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let token = value.to_str().ok().and_then(|text| text.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let claims = token.and_then(|(_, token)| tokens.verify(token.trim()));
    claims.map(Some).ok_or(Refused::Unauthorized)
}

fn negotiated(headers: &HeaderMap) -> Result<(Encoding, Encoding), negotiation::Refusal> {
    let text = |name: HeaderName| {
        let values = headers.get_all(name).iter();
        let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    let (content_type, accept) = (text(CONTENT_TYPE), text(ACCEPT));
    negotiation::negotiate(&Headers {
        content_type: content_type.as_deref(),
        accept: accept.as_deref(),
        ..Headers::default()
    })
}

async fn read(entrance: &Entrance, body: Body) -> Result<Bytes, Refused> {
    let Ok(_slot) = entrance.bodies.try_acquire() else {
        return Err(Refused::Unavailable("Too many calls are being received"));
    };
    let reading = axum::body::to_bytes(body, CALL_MAX_BYTES);
    let read = tokio::time::timeout(BODY_MAX, reading).await;
    // The only other failure is a connection that broke, and then nobody reads the answer.
    read.map_err(|_| Refused::TooSlow)?
        .map_err(|_| Refused::TooLarge)
}

/// What can be said of a call by itself (Mesos: `executor::call::validate`).
fn check(call: &Call) -> Result<(), Refused> {
    let missing = |what: &str| {
        let text = format!("Failed to validate Executor::Call: Expecting '{what}' to be present");
        Err(Refused::BadRequest(text))
    };
    if call.r#type.is_none() {
        return missing("type");
    }
    match call.r#type() {
        call::Type::Unknown => Err(Refused::NotImplemented),
        call::Type::Subscribe if call.subscribe.is_none() => missing("subscribe"),
        call::Type::Update if call.update.is_none() => missing("update"),
        call::Type::Message if call.message.is_none() => missing("message"),
        call::Type::Message => {
            let data = call
                .message
                .as_ref()
                .map_or(0, |message| message.data.len());
            if data > MESSAGE_MAX_BYTES {
                return Err(Refused::TooLarge);
            }
            Ok(())
        }
        call::Type::Subscribe | call::Type::Update | call::Type::Heartbeat => Ok(()),
    }
}

/// Tells the loop when nobody reads any more.
struct Reader {
    executor: ExecutorKey,
    events: Events,
    inbox: mpsc::Sender<Event>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (inbox, executor, number) = (
            self.inbox.clone(),
            self.executor.clone(),
            self.events.number,
        );
        tokio::spawn(async move {
            // A closed inbox means that the agent ends.
            let _ = inbox.send(Event::ExecutorLost { executor, number }).await;
        });
    }
}

fn stream(
    executor: ExecutorKey,
    events: Events,
    inbox: mpsc::Sender<Event>,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    let reader = Reader {
        executor,
        events,
        inbox,
    };
    futures_util::stream::unfold(reader, |mut reader| async move {
        let record = tokio::select! {
            record = reader.events.next() => record?,
            () = tokio::time::sleep(HEARTBEAT) => {
                let heartbeat = ToExecutor {
                    r#type: Some(event::Type::Heartbeat as i32),
                    ..ToExecutor::default()
                };
                streams::record(reader.events.encoding, &heartbeat)
            }
        };
        Some((Ok(record), reader))
    })
}
