//! `/files/…` at the coordinator: which agent holds the path.
//!
//! It decides that from the path alone: the sandbox layout of Mesos names the agent
//! (`…/slaves/<agent>/…`), and the virtual form names the task
//! (`/frameworks/<framework>/executors/<task>/…`), whose agent the state knows. What the path
//! holds, and whether it may be read, the agent decides. Invariant: parameters that cannot be right
//! are refused here, before a node is asked, with Mesos's words (`src/files/files.cpp`).

use axum::extract::{Request, State};
use axum::response::Response;
use gantry_coordinator_core::state::State as Replicated;
use gantry_wire::ids::{AgentId, TaskId};

use super::Api;
use super::nodes::to_agent;
use super::query::Parameters;
use super::refusal::Refusal;

/// GET /files/read, browse, download, stream.
pub(super) async fn proxied(State(api): State<Api>, request: Request) -> Result<Response, Refusal> {
    let uri = request.uri();
    let query = Parameters::of(uri);
    check_numbers(&query)?;
    let path = query.get("path").filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| bad("Expecting 'path=value' in query."))?;
    let agent = {
        let state = api.handle.state();
        agent_of(&state, path)
    };
    let agent = agent.ok_or_else(|| Refusal::NotFound("No such file or directory".to_owned()))?;
    let target = format!("{}?{}", uri.path(), uri.query().unwrap_or_default());
    to_agent(&api, &agent, &target, request).await
}

fn check_numbers(query: &Parameters) -> Result<(), Refusal> {
    if let Some(text) = query.get("offset") {
        let offset: i64 = text.parse().map_err(|_| bad("Failed to parse offset."))?;
        if offset < -1 {
            return Err(bad("Negative offset provided."));
        }
    }
    if let Some(text) = query.get("length").filter(|text| !text.is_empty()) {
        let length: i64 = text.parse().map_err(|_| bad("Failed to parse length."))?;
        if length < -1 {
            return Err(bad("Negative length provided."));
        }
    }
    Ok(())
}

fn bad(text: &str) -> Refusal {
    Refusal::BadRequest(text.to_owned())
}

/// The agent that a sandbox path lies on, if the state knows it.
fn agent_of(state: &Replicated, path: &str) -> Option<AgentId> {
    let after = |name: &str| {
        let mut segments = path.split('/');
        segments.by_ref().find(|segment| *segment == name)?;
        segments.next()
    };
    if let Some(id) = after("slaves") {
        let id = AgentId::parse(id).ok()?;
        return state.agent(&id).map(|agent| agent.id.clone());
    }
    let task = TaskId::parse(after("executors")?).ok()?;
    state.task(&task).map(|task| task.agent_id.clone())
}
