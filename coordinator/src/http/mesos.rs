//! What tools read of a Mesos master: `/state`, `/state-summary`, `/slaves`, `/health`, `/version`.
//!
//! It decides nothing; the shapes are the core's. `jsonp` is deliberately not served: it would let
//! any site read the cluster through the browser of a user.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use gantry_coordinator_core::mesos_view::{self, MasterInfo};
use gantry_coordinator_core::service::mesos_summary;
use serde_json::{Value, json};

use super::Api;
use super::query::Parameters;

/// What the views need to know of this process.
fn master(api: &Api) -> MasterInfo {
    let node = api.handle.node();
    let ip = node
        .hostname
        .parse::<IpAddr>()
        .unwrap_or(IpAddr::from([127, 0, 0, 1]));
    MasterInfo {
        ip: ip.to_string(),
        port: node.http_port,
        hostname: node.hostname.clone(),
        version: node.version.to_owned(),
        start_time: node.started,
        elected_time: node.started,
    }
}

/// GET /state.
pub(super) async fn state(State(api): State<Api>) -> Json<Value> {
    let mut view = mesos_view::state(&api.handle.state(), &master(&api));
    view["cluster"] = json!(api.handle.node().cluster_name);
    Json(view)
}

/// GET /slaves, and `?slave_id=` for one.
pub(super) async fn slaves(State(api): State<Api>, request: Request) -> Json<Value> {
    let mut view = mesos_view::slaves(&api.handle.state(), &master(&api));
    let query = Parameters::of(request.uri());
    if let (Some(id), Some(all)) = (query.get("slave_id"), view["slaves"].as_array_mut()) {
        all.retain(|agent| agent["id"] == id);
    }
    Json(view)
}

/// GET /state-summary.
pub(super) async fn summary(State(api): State<Api>) -> Json<Value> {
    let node = api.handle.node();
    Json(mesos_summary::summary(
        &api.handle.state(),
        &master(&api),
        &node.cluster_name,
    ))
}

/// GET /health.
pub(super) async fn health() -> StatusCode {
    StatusCode::OK
}

/// GET /version.
pub(super) async fn version(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "version": api.handle.node().version }))
}
