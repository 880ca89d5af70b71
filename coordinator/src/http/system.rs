//! `/v2/info`, `/v2/leader`, `/ping`: what clients of Marathon ask first.
//!
//! It decides which of Marathon's settings have a true value here; the others are left out rather
//! than invented. Invariant: `/v2/info` has no key that Marathon does not have, because
//! marathon-python refuses unknown ones.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use gantry_coordinator_core::state::apps::{SERVICE_PORT_MAX, SERVICE_PORT_MIN};
use serde_json::{Value, json};

use super::Api;
use super::refusal::Refusal;

/// The version of Marathon whose API this is; clients choose features by it.
const MARATHON_VERSION: &str = "1.11.24";

/// `host:port` of this coordinator's API.
fn own_address(api: &Api) -> String {
    let node = api.handle.node();
    format!("{}:{}", node.hostname, node.http_port)
}

/// GET /v2/info.
pub(super) async fn info(State(api): State<Api>) -> Json<Value> {
    let node = api.handle.node();
    let state = api.handle.state();
    let elected = api.handle.is_leader();
    let address = own_address(&api);
    Json(json!({
        "name": "marathon",
        "version": MARATHON_VERSION,
        "buildref": format!("gantry-{}", node.version),
        "elected": elected,
        "leader": elected.then_some(&address),
        "frameworkId": state.cluster().map(|cluster| cluster.framework_id.as_str()),
        "marathon_config": {
            "checkpoint": true,
            "features": [],
            "framework_name": "marathon",
            "ha": true,
            "hostname": node.hostname,
            "local_port_max": SERVICE_PORT_MAX,
            "local_port_min": SERVICE_PORT_MIN,
            "master": address,
            "mesos_leader_ui_url": format!("http://{address}/"),
            "mesos_role": "*",
            "webui_url": format!("http://{address}/"),
        },
        "zookeeper_config": {},
        "http_config": { "http_port": node.http_port },
    }))
}

/// GET /v2/leader.
pub(super) async fn leader(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    if api.handle.is_leader() {
        return Ok(Json(json!({ "leader": own_address(&api) })));
    }
    Err(Refusal::NotFound("There is no leader".to_owned()))
}

/// GET /ping: `pong`, as JSON when only that is accepted.
pub(super) async fn ping(headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    match accept {
        Some(accept) if accept.trim().starts_with("application/json") => {
            Json("pong").into_response()
        }
        _ => "pong".into_response(),
    }
}
