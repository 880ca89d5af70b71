//! From a session's process to the client that started it, and to those who watch.
//!
//! ```text
//! process ─▶ pipes or terminal ─▶ pump ─▶ RECORDS_MAX records ─▶ HTTP body ─▶ client
//!                                    └──▶ watchers, cut off when they lag
//! ```
//! Invariants: a client that reads slowly stops the process by a full pipe, nothing in between grows;
//! one that goes away ends it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use gantry_isolation::spec::{ContainerId, ExitStatus};
use gantry_wire::mesos::Encoding;
use gantry_wire::mesos::negotiation::Body as Accept;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::super::Server;
use super::containers::SIGKILL;
use super::live::Running;
use super::process_io::{Piece, Stream};
use crate::inbox::{Ask, Event};

/// Records between the pump and the client.
pub(super) const RECORDS_MAX: usize = 8;
/// Output in one record.
pub(super) const CHUNK_BYTES: usize = 32 * 1024;
/// Mesos's `--http_heartbeat_interval`.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long output of a process that ended is waited for when something it left behind holds the
/// pipes open.
const DRAIN: Duration = Duration::from_millis(500);
/// From the hangup of a terminal, whose master goes with its client, to SIGKILL: a shell saves its
/// history.
const HANGUP: Duration = Duration::from_secs(1);

/// The stream of records, under the type that the client asked for.
pub(super) fn answer(records: mpsc::Receiver<Bytes>, accept: Accept) -> Response {
    let body = futures_util::stream::unfold(records, |mut records| async move {
        records
            .recv()
            .await
            .map(|record| (Ok::<_, Infallible>(record), records))
    });
    let body = Body::from_stream(body);
    let kind = (CONTENT_TYPE, accept.media_type());
    match accept {
        Accept::Message(_) => ([kind], body).into_response(),
        Accept::Records(encoding) => {
            let inner = HeaderName::from_static("message-content-type");
            ([kind, (inner, encoding.media_type())], body).into_response()
        }
    }
}

/// Ticks at once and then at Mesos's interval.
pub(super) fn heartbeats() -> Interval {
    let mut beats = interval(HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

/// Reads, 0 at the end; never ready once it is gone.
async fn read(source: &mut Option<pipe::Receiver>, buffer: &mut [u8]) -> usize {
    match source {
        Some(source) => source.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// Ends the process of a session unless disarmed.
pub(super) struct KillOnDrop {
    server: Arc<Server>,
    session: Option<ContainerId>,
    /// What a hangup before gives it.
    grace: Duration,
}

impl KillOnDrop {
    pub(super) fn new(server: &Arc<Server>, session: ContainerId, tty: bool) -> Self {
        Self {
            server: server.clone(),
            session: Some(session),
            grace: if tty { HANGUP } else { Duration::ZERO },
        }
    }

    fn disarm(&mut self) {
        self.session = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let (events, grace) = (self.server.events.clone(), self.grace);
        // A closed inbox means that the agent ends.
        tokio::spawn(async move {
            sleep(grace).await;
            let _ = events
                .send(Event::Ask(Ask::KillExec {
                    session,
                    signo: SIGKILL,
                }))
                .await;
        });
    }
}

/// From the process to the clients.
pub(super) struct Pump {
    pub(super) stdout: Option<pipe::Receiver>,
    pub(super) stderr: Option<pipe::Receiver>,
    /// None once it ended.
    pub(super) exit: Option<oneshot::Receiver<ExitStatus>>,
    pub(super) records: mpsc::Sender<Bytes>,
    pub(super) encoding: Encoding,
    pub(super) running: Running,
    pub(super) guard: KillOnDrop,
}

impl Pump {
    pub(super) async fn run(mut self) {
        let (mut out, mut err) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
        let mut beats = heartbeats();
        loop {
            let ended = self.exit.is_none();
            if ended && self.stdout.is_none() && self.stderr.is_none() {
                return;
            }
            let piece = tokio::select! {
                read = read(&mut self.stdout, &mut out) => {
                    if read == 0 { self.stdout = None; continue }
                    Piece::Data(Stream::Stdout, &out[..read])
                }
                read = read(&mut self.stderr, &mut err) => {
                    if read == 0 { self.stderr = None; continue }
                    Piece::Data(Stream::Stderr, &err[..read])
                }
                _ = exited(&mut self.exit), if !ended => {
                    self.exit = None;
                    self.guard.disarm();
                    continue;
                }
                () = sleep(DRAIN), if ended => return,
                () = self.records.closed() => return,
                _ = beats.tick() => Piece::Heartbeat(HEARTBEAT),
            };
            self.running.show(piece);
            if self
                .records
                .send(piece.record(self.encoding))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// Ready when the process ended, or its keeper is gone.
async fn exited(exit: &mut Option<oneshot::Receiver<ExitStatus>>) {
    match exit {
        Some(exit) => {
            let _ = exit.await;
        }
        None => std::future::pending().await,
    }
}
