//! The agent's HTTP listeners, on loopback and, for the coordinator of another machine, behind the
//! cluster's secret: sandbox files, state, metrics, processes inside
//! containers. The coordinator reaches it for its clients; tools of Mesos may speak to it directly.
//!
//! It decides nothing about tasks: it asks the loop. Invariants: connections, request bodies and
//! answers in memory are bounded; a client that is idle, sends its request too slowly or does not
//! read its answer loses its connection in bounded time; a page of another site cannot use it
//! through a browser (see `guard`).

mod address;
mod beneath;
mod body;
mod browse;
mod changes;
pub(crate) mod executor;
mod files;
mod guard;
pub(crate) mod images;
mod jsonp;
mod legacy;
mod metrics;
mod output_files;
mod problem;
mod prometheus;
mod sandbox_path;
mod stall;
mod state;
mod stream;
mod v1;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use axum::routing::{get, post};
use gantry_image::Store;
use gantry_link::Accepting;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::body::Intake;
use self::images::Images;
use self::stall::Bounded;
pub(crate) use self::stream::Streams;
use self::v1::Api;
pub(crate) use self::v1::Joined;
use crate::container::NodeFacts;
use crate::facts::Facts;
use crate::inbox::Event;
use crate::statistics::Statistics;
use crate::verbosity::Verbosity;

/// Connections at a time; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 512;
/// How long a request's head may take, and a connection may be idle.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a request's body may take.
const BODY_MAX: Duration = Duration::from_secs(20);
/// How long a client may take not one byte of its answer. Long, since a person may have paused the
/// output of a session.
const STALL_MAX: Duration = Duration::from_secs(600);
/// Pause after an accept that failed, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What handlers need.
pub(crate) struct Server {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) facts: Arc<Facts>,
    /// Root of all sandboxes.
    pub(crate) slaves: PathBuf,
    pub(crate) node: NodeFacts,
    pub(crate) store: Store,
    pub(crate) images: Arc<Images>,
    pub(crate) statistics: Statistics,
    pub(crate) joined: Arc<Joined>,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) streams: Streams,
    pub(crate) executors: Arc<executor::Api>,
    pub(crate) verbosity: Option<Verbosity>,
}

/// How long a client may take for what.
#[derive(Debug, Clone, Copy)]
struct Patience {
    head: Duration,
    body: Duration,
    stall: Duration,
}

fn router(server: Arc<Server>, body_max: Duration) -> Router {
    let intake = Intake::new(body_max);
    let api = Api {
        server: server.clone(),
        intake: intake.clone(),
    };
    let intake = axum::middleware::from_fn_with_state(intake, body::whole);
    let guard = axum::middleware::from_fn_with_state(server.clone(), guard::check);
    Router::new()
        .route("/files/browse", get(browse::browse))
        .route("/files/read", get(files::read))
        .route("/files/download", get(files::download))
        .route("/files/stream", get(stream::stream))
        .route("/state", get(state::state))
        .route("/health", get(state::health))
        .route("/version", get(state::version))
        .route("/flags", get(state::flags))
        .route("/metrics/snapshot", get(metrics::snapshot))
        .route("/containers", get(legacy::containers))
        .route("/monitor/statistics", get(legacy::statistics))
        .route("/containerizer/debug", get(legacy::containerizer))
        .route("/files/debug", get(legacy::files))
        .route("/system/stats", get(legacy::system))
        .route("/logging/toggle", get(legacy::logging).post(legacy::toggle))
        .layer(axum::middleware::from_fn(jsonp::wrap))
        .route("/metrics", get(metrics::prometheus))
        .merge(images::router(server.images.clone()))
        .layer(intake)
        // Takes its bodies in by itself: some are streams of records.
        .route("/api/v1", post(v1::call).with_state(api))
        // An archive is larger than any other body, and is not held in memory.
        .merge(images::upload(server.images.clone()))
        .merge(executor::router(server.executors.clone()))
        .layer(guard)
        .with_state(server)
}

/// Where requests come from.
pub(crate) struct Listeners {
    /// This machine.
    pub(crate) plain: TcpListener,
    /// The coordinator, who proves that it knows the cluster's secret.
    pub(crate) secured: Option<(TcpListener, Accepting)>,
}

/// Serves until cancelled.
pub(crate) async fn serve(listeners: Listeners, server: Server, cancel: CancellationToken) {
    let patience = Patience {
        head: HEAD_MAX,
        body: BODY_MAX,
        stall: STALL_MAX,
    };
    let router = router(Arc::new(server), patience.body);
    let plain = serve_router(
        (listeners.plain, None),
        router.clone(),
        patience,
        cancel.clone(),
    );
    match listeners.secured {
        None => plain.await,
        Some((listener, accepting)) => {
            let secured = (listener, Some(accepting));
            tokio::join!(plain, serve_router(secured, router, patience, cancel));
        }
    }
}

async fn serve_router(
    (listener, accepting): (TcpListener, Option<Accepting>),
    router: Router,
    patience: Patience,
    cancel: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
            () = cancel.cancelled() => break,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone().map_request(address::resolve));
        let accepting = accepting.clone();
        connections.spawn(async move {
            let ended = match accepting {
                None => converse(stream, service, patience).await,
                Some(accepting) => match accepting.accept(stream).await {
                    Ok(stream) => converse(stream, service, patience).await,
                    Err(error) => Err(error.to_string()),
                },
            };
            if let Err(why) = ended {
                tracing::debug!("a connection: {why}");
            }
            drop(slot);
        });
    }
    connections.shutdown().await;
}

async fn converse<S, H>(stream: S, service: H, patience: Patience) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Service<Request<Incoming>, Response = Response>,
    H::Error: std::error::Error + Send + Sync + 'static,
{
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(patience.head);
    let stream = TokioIo::new(Bounded::new(stream, patience.stall));
    let ended = http.serve_connection(stream, service).await;
    ended.map_err(|error| error.to_string())
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots
        .clone()
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

#[cfg(test)]
mod tests;
