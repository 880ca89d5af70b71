//! `/agent/{id}/…` and `/slave/{id}/…`: which agent a path is for, before the proxy sends it there.
//!
//! It decides between unknown (404), known but away (503) and there. Invariant: what follows the
//! id is passed on as the client wrote it, escapes included.

use axum::extract::{Request, State};
use axum::response::Response;
use gantry_wire::ids::AgentId;

use super::Api;
use super::proxy::Node;
use super::refusal::Refusal;

/// Any method on `/agent/{id}/…`.
pub(super) async fn forward(State(api): State<Api>, request: Request) -> Result<Response, Refusal> {
    let path = request.uri().path();
    let unknown = || Refusal::NotFound("URI not found".to_owned());
    // `/agent/<id>/<rest>`: the router has matched the first segment.
    let (id, rest) = path[1..]
        .split_once('/')
        .map(|(_, tail)| tail.split_once('/').unwrap_or((tail, "")))
        .ok_or_else(unknown)?;
    let agent = AgentId::parse(id).map_err(|_| agent_unknown(id))?;
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let target = format!("/{rest}{query}");
    to_agent(&api, &agent, &target, request).await
}

/// Sends a request to an agent of the state, if it is there.
pub(super) async fn to_agent(
    api: &Api,
    agent: &AgentId,
    path_and_query: &str,
    request: Request,
) -> Result<Response, Refusal> {
    let state = api.handle.state();
    let known = state
        .agent(agent)
        .ok_or_else(|| agent_unknown(agent.as_str()))?;
    // The directory of sessions may learn of a registration a moment after the state.
    let registered = || known.active.then(|| known.http_address.clone());
    let address = api.handle.agent_address(agent).or_else(registered);
    let address = address.ok_or_else(|| Refusal::NodeAway(agent.to_string()))?;
    let node = Node {
        id: agent.as_str(),
        address: &address,
    };
    api.proxy.forward(node, path_and_query, request).await
}

fn agent_unknown(id: &str) -> Refusal {
    Refusal::NotFound(format!("Agent '{id}' does not exist"))
}
