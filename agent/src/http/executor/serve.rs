//! The listeners that serve executors' calls and nothing else of the API: a socket in the container
//! of each, and one TCP port beside the agent's own, which tasks can reach.
//!
//! ```text
//! door  <data>/doors/<container>/executor.sock, mounted into that container: needs no token
//! TCP   on the bridge's gateway: tasks on the bridge and on the host's network reach it, nobody
//!       behind another interface does; who has no address of its own there needs a token
//! ```
//! Connections are kept as long as an executor wants, since some of Mesos's clients take the end of
//! an idle one for an error. They are bounded at each door and for each address, so that one task
//! does not keep the others out; those on the host's network share one.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use gantry_net::Subnet;
use gantry_wire::ids::ContainerId;
use gantry_wire::mesos::routes::{self, Daemon};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Api, Entrance, handle};
use crate::executors::Caller;
use crate::http::stall::Bounded;

/// Connections at one door, and from one address.
const CONNECTIONS_MAX: usize = 64;
/// Connections to the TCP listener.
const TCP_MAX: usize = 2_048;
/// How long a connection may be idle.
const IDLE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long an executor may take not one byte of an answer.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who may call the TCP listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside {
    /// The addresses of the bridge, if there is one.
    pub(crate) bridge: Option<Subnet>,
}

impl Beside {
    fn has(self, peer: IpAddr) -> bool {
        let on_bridge = |bridge: Subnet| match peer {
            IpAddr::V4(peer) => bridge.contains(peer),
            IpAddr::V6(_) => false,
        };
        peer.is_loopback() || self.bridge.is_some_and(on_bridge) || is_own(peer)
    }
}

/// Whether it is an address of this node: what a task on the host's network calls from, whichever
/// the network's rules gave it. Only those can be bound.
fn is_own(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Serves one executor until its container is gone.
pub(crate) async fn serve_door(
    listener: UnixListener,
    container: ContainerId,
    api: Arc<Api>,
    cancel: CancellationToken,
) {
    let caller = Caller {
        door: Some(container),
        ..Caller::default()
    };
    let entrance = Entrance::new(api, caller, true);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let entrance = entrance.clone();
                connections.spawn(async move {
                    converse(stream, entrance).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!("accepting an executor's connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

/// Serves all executors until cancelled.
pub(crate) async fn serve_tcp(
    listener: TcpListener,
    beside: Beside,
    api: Arc<Api>,
    cancel: CancellationToken,
) {
    let entrance = Entrance::new(api, Caller::default(), true);
    let counts = Arc::new(Counts::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accepting an executor's connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Anyone else finds nobody here.
        if !beside.has(peer.ip()) || connections.len() >= TCP_MAX {
            continue;
        }
        let Some(counted) = Counted::of(&counts, peer) else {
            continue;
        };
        // Events are small, and each is waited for.
        let _ = stream.set_nodelay(true);
        let mut entrance = entrance.clone();
        entrance.caller.address = Some(peer.ip());
        connections.spawn(async move {
            converse(stream, entrance).await;
            drop(counted);
        });
    }
    connections.shutdown().await;
}

/// Connections by the address that they come from.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<IpAddr, usize>>);

struct Counted {
    counts: Arc<Counts>,
    address: IpAddr,
}

impl Counted {
    fn of(counts: &Arc<Counts>, peer: SocketAddr) -> Option<Self> {
        let mut all = counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(peer.ip()).or_default();
        if *count >= CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        let (counts, address) = (counts.clone(), peer.ip());
        Some(Self { counts, address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

async fn converse<S>(stream: S, entrance: Entrance)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let router = Router::new().fallback(route).with_state(entrance);
    let service = TowerToHyperService::new(router);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
    let stream = TokioIo::new(Bounded::new(stream, STALL_MAX));
    if let Err(error) = http.serve_connection(stream, service).await {
        tracing::debug!("an executor's connection: {error}");
    }
}

async fn route(state: axum::extract::State<Entrance>, request: Request) -> Response {
    let path = request.uri().path();
    if routes::resolve(Daemon::Agent, path, &["/api/v1/executor"]).is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    if request.method() != Method::POST {
        let allow = [(ALLOW, HeaderValue::from_static("POST"))];
        return (StatusCode::METHOD_NOT_ALLOWED, allow).into_response();
    }
    handle(state, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbours_call() {
        let bridge = Beside {
            bridge: Some(Subnet::new([10, 88, 0, 0].into(), 24).unwrap()),
        };
        let alone = Beside { bridge: None };
        for (peer, at_bridge, at_none) in [
            ("10.88.0.1", true, false),
            ("10.88.0.200", true, false),
            ("10.88.1.1", false, false),
            ("192.168.1.1", false, false),
            ("127.0.0.1", true, true),
            ("::1", true, true),
        ] {
            let peer = peer.parse().unwrap();
            assert_eq!(
                (bridge.has(peer), alone.has(peer)),
                (at_bridge, at_none),
                "{peer}"
            );
        }
    }
}
