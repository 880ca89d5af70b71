//! `POST /api/v1`: of Mesos's operator calls those that take nodes out and back in.
//!
//! It decides which command a call is; whether it may be is the core's. Every other call is answered
//! as not built. Invariant: an answer that is a success is sent after the command is durable.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use gantry_coordinator_core::command::{DisconnectAgent, Kind, OperateAgent, Operation};
use gantry_wire::mesos::v1::AgentId;
use gantry_wire::mesos::v1::master::Call;
use gantry_wire::mesos::v1::master::call::{DrainAgent, Type};
use gantry_wire::mesos::{Encoding, decode};

use super::Api;
use super::body;
use super::refusal::Refusal;

/// One call, in JSON or protobuf.
pub(super) async fn call(State(api): State<Api>, request: Request) -> Result<StatusCode, Refusal> {
    let told = request.headers().get(header::CONTENT_TYPE);
    let encoding = match told.and_then(|value| value.to_str().ok()) {
        Some("application/json") => Encoding::Json,
        Some("application/x-protobuf") => Encoding::Protobuf,
        Some(_) => return Err(Refusal::MediaType),
        None => return Err(Refusal::BadRequest("Expecting 'Content-Type'".to_owned())),
    };
    let bytes = body::read(request.into_body()).await?;
    let call: Call = decode(encoding, &bytes)
        .map_err(|error| Refusal::BadRequest(format!("Failed to parse the call: {error}")))?;
    let kind = command(call)?;
    api.change_by(|_| kind.clone()).await?;
    Ok(StatusCode::OK)
}

fn command(call: Call) -> Result<Kind, Refusal> {
    match call.r#type() {
        Type::DrainAgent => {
            let drain = part(call.drain_agent)?;
            let max_grace_ms = grace_ms(&drain)?;
            let mark_gone = drain.mark_gone();
            let operate = operate(drain.agent_id, Operation::Drain);
            Ok(Kind::OperateAgent(OperateAgent {
                max_grace_ms,
                mark_gone,
                ..operate
            }))
        }
        Type::DeactivateAgent => {
            let agent = part(call.deactivate_agent)?.agent_id;
            Ok(Kind::OperateAgent(operate(agent, Operation::Deactivate)))
        }
        Type::ReactivateAgent => {
            let agent = part(call.reactivate_agent)?.agent_id;
            Ok(Kind::OperateAgent(operate(agent, Operation::Reactivate)))
        }
        Type::MarkAgentGone => {
            let agent_id = part(call.mark_agent_gone)?.agent_id.value;
            Ok(Kind::RemoveAgent(DisconnectAgent { agent_id }))
        }
        _ => Err(Refusal::NotBuilt("This operator call")),
    }
}

fn operate(agent: AgentId, operation: Operation) -> OperateAgent {
    OperateAgent {
        agent_id: agent.value,
        operation: operation as i32,
        max_grace_ms: None,
        mark_gone: false,
    }
}

/// The message that belongs to the type of the call.
fn part<T>(part: Option<T>) -> Result<T, Refusal> {
    let missing = || Refusal::BadRequest("Expecting the fields of the call's type".to_owned());
    part.ok_or_else(missing)
}

fn grace_ms(drain: &DrainAgent) -> Result<Option<u64>, Refusal> {
    let Some(grace) = &drain.max_grace_period else {
        return Ok(None);
    };
    let negative = |_| Refusal::BadRequest("A grace period must not be negative".to_owned());
    let seconds = u64::try_from(grace.seconds()).map_err(negative)?;
    let nanos = u64::try_from(grace.nanos()).map_err(negative)?;
    Ok(Some(
        seconds
            .saturating_mul(1_000)
            .saturating_add(nanos / 1_000_000),
    ))
}
