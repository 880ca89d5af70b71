//! Serves the router: bounded connections, limits on how long headers may take, and a stop that
//! lets running requests finish.
//!
//! ```text
//! accepted ─► idle ─ headers are there ─► busy ─ the answer's body is written ─► idle …
//!               └─ shed (oldest first, when all seats are taken), too slow ─► closed
//! ```
//! Invariants: a connection that is busy is never shed; one that is idle never keeps a new one
//! out for longer than [`SHED_MAX`]. While one that is shed comes to its end, up to
//! `SHED_MAX / SHED_AGAIN` more are: always the oldest, and far fewer than there are seats.

mod seats;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use seats::{Seat, Seats};

/// Connections at a time; more wait in the kernel's queue while all of these are busy.
const CONNECTIONS_MAX: usize = 1_024;
/// From the first byte of a request to the end of its headers; also how long an idle connection
/// is kept …
const HEADERS_MAX: Duration = Duration::from_secs(30);
/// … but its first request must be there sooner.
const FIRST_MAX: Duration = Duration::from_secs(5);
/// How long a connection that is shed may take to end what it has just begun.
const SHED_MAX: Duration = Duration::from_millis(100);
/// How often somebody to shed is looked for while all are busy.
const SHED_AGAIN: Duration = Duration::from_millis(10);
/// Pause after a failed accept (no more descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a stop waits for requests that are running.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The running server.
pub(crate) struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(listener: TcpListener, router: Router) -> Self {
        Self::bounded(listener, router, CONNECTIONS_MAX)
    }

    fn bounded(listener: TcpListener, router: Router, connections: usize) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(listener, router, Seats::new(connections), stopped));
        Self { stop, task }
    }

    /// Stops accepting, then waits for what is running, but not for ever.
    pub(crate) async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the HTTP server has failed");
        }
    }
}

/// A free seat, made free if need be.
async fn seat(seats: &Arc<Seats>) -> Seat {
    loop {
        if let Some(seat) = seats.take() {
            return seat;
        }
        seats.shed_oldest();
        // Also comes back when the one that was shed turns out to be busy by now.
        let _ = tokio::time::timeout(SHED_AGAIN, seats.freed()).await;
    }
}

async fn run(
    listener: TcpListener,
    router: Router,
    seats: Arc<Seats>,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        let next = async { (seat(&seats).await, listener.accept().await) };
        let (seat, accepted) = tokio::select! {
            next = next => next,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone(), Arc::new(seat)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    seats.shed_all();
    if tokio::time::timeout(DRAIN_MAX, seats.all_free())
        .await
        .is_err()
    {
        tracing::warn!("requests were still running at the stop");
    }
}

/// One connection from its first byte to its end.
async fn connection(stream: TcpStream, router: Router, seat: Arc<Seat>) {
    // Small answers must not wait for more; a socket that cannot be set works all the same.
    let _ = stream.set_nodelay(true);
    let at = Arc::clone(&seat);
    let service = service_fn(move |request| answer(router.clone(), Arc::clone(&at), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return told(ended),
        () = seat.shed() => connection.as_mut().graceful_shutdown(),
        () = overdue(&seat) => return,
    }
    // It ends by itself after what it is busy with; half a request does not count as that.
    tokio::select! {
        ended = connection => told(ended),
        () = idle_for(&seat, SHED_MAX) => {}
    }
}

fn told(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Comes back only if no request is there in time.
async fn overdue(seat: &Seat) {
    tokio::time::sleep(FIRST_MAX).await;
    if seat.was_busy() {
        std::future::pending::<()>().await;
    }
}

/// Comes back when it is idle after a while.
async fn idle_for(seat: &Seat, time: Duration) {
    loop {
        tokio::time::sleep(time).await;
        if !seat.is_busy() {
            return;
        }
    }
}

/// The router's answer; the seat is busy until the last byte of it was taken.
async fn answer(
    router: Router,
    seat: Arc<Seat>,
    request: Request<Incoming>,
) -> Result<Response, std::convert::Infallible> {
    let busy = seats::Busy::new(seat);
    let response = router.oneshot(request.map(Body::new)).await?;
    Ok(response.map(|body| Body::new(seats::Held::new(body, busy))))
}
