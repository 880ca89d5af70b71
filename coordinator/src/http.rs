//! The HTTP APIs of the coordinator on one router: Marathon's subset of services, what tools read
//! of a Mesos master, the proxy to agents, the page.
//!
//! It decides which handler a path has and what surrounds all of them: rewriting of aliases first,
//! then the guard, then the time limit (proxied answers have their own). Handlers are thin: they
//! parse at the edge, read one snapshot of the replicated state per request, ask the core for a
//! decision or a view, and propose commands through the handle. Nothing here changes state itself.
//! Invariants: every route is behind the guard, the unknown ones too; every answer that is not a
//! success is JSON with a `message`.

mod app_path;
mod app_tasks;
mod apps;
mod body;
mod canonical;
mod change;
mod deployments;
mod files;
mod guard;
mod mesos;
mod metrics;
mod nodes;
mod operator;
mod page;
mod proxy;
mod query;
mod queue;
mod refusal;
mod system;
mod tasks;
#[cfg(test)]
mod tests;
mod unbuilt;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, any, delete, get, post};
use tower::Layer;
use tower::util::MapRequestLayer;

use gantry_link::Connecting;

use crate::handle::Handle;
use guard::Guard;
use proxy::Proxy;

/// What handlers share. Cheap to clone.
#[derive(Clone)]
struct Api {
    handle: Handle,
    proxy: Proxy,
}

/// Every API of the coordinator on one router.
pub(crate) fn router(handle: Handle, to_agents: Option<&Connecting>) -> Router {
    let guard = Guard::new(vec![handle.node().hostname.clone()]);
    let api = Api {
        handle,
        proxy: Proxy::new(to_agents),
    };
    let answered = marathon().merge(mesos()).merge(page());
    let routes = answered
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(guard::in_time))
        .merge(proxied().method_not_allowed_fallback(wrong_method))
        .layer(from_fn_with_state(guard, guard::guard))
        .with_state(api);
    // The path must be rewritten before routing, so the routes are a service behind the rewriting.
    Router::new().fallback_service(MapRequestLayer::new(canonical::rewrite).layer(routes))
}

fn marathon() -> Router<Api> {
    let known = Router::new()
        .route(
            "/v2/apps",
            get(apps::list)
                .post(apps::create)
                .put(apps::put_all)
                .patch(apps::patch_all),
        )
        .route("/v2/apps/{*rest}", app_routes())
        .route("/v2/tasks", get(tasks::list))
        .route("/v2/tasks/delete", post(tasks::delete))
        .route("/v2/deployments", get(deployments::list))
        .route("/v2/deployments/{id}", delete(deployments::cancel))
        .route("/v2/queue", get(queue::list))
        .route("/v2/queue/{*rest}", delete(queue::reset_delay))
        .route("/v2/info", get(system::info))
        .route("/v2/leader", get(system::leader).delete(unbuilt::abdicate))
        .route("/ping", get(system::ping))
        .route("/metrics", get(metrics::marathon));
    unbuilt::PATHS.iter().fold(known, |router, (path, what)| {
        router.route(path, any(move || unbuilt::refuse(what)))
    })
}

/// One route, since the resource is told by the end of the path.
fn app_routes() -> MethodRouter<Api> {
    get(apps::read)
        .put(apps::put)
        .patch(apps::patch)
        .delete(apps::remove)
        .post(apps::act)
}

fn mesos() -> Router<Api> {
    Router::new()
        .route("/state", get(mesos::state))
        .route("/state-summary", get(mesos::summary))
        .route("/slaves", get(mesos::slaves))
        .route("/api/v1", post(operator::call))
        .route("/health", get(mesos::health))
        .route("/version", get(mesos::version))
        .route("/metrics/snapshot", get(metrics::snapshot))
}

fn page() -> Router<Api> {
    Router::new()
        .route("/", get(page::document))
        .route("/ui", get(page::document))
        .route("/page.js", get(page::script))
        .route("/page.css", get(page::style))
}

/// Routes whose answers come from an agent.
fn proxied() -> Router<Api> {
    Router::new()
        .route("/agent/{id}", any(nodes::forward))
        .route("/agent/{id}/", any(nodes::forward))
        .route("/agent/{id}/{*rest}", any(nodes::forward))
        .route("/slave/{id}", any(nodes::forward))
        .route("/slave/{id}/", any(nodes::forward))
        .route("/slave/{id}/{*rest}", any(nodes::forward))
        .route("/files/read", get(files::proxied))
        .route("/files/browse", get(files::proxied))
        .route("/files/download", get(files::proxied))
        .route("/files/stream", get(files::proxied))
}

async fn unknown() -> Response {
    refusal::message(StatusCode::NOT_FOUND, "URI not found")
}

async fn wrong_method() -> Response {
    refusal::message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
}
