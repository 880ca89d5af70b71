//! The address on which agents of other machines connect: TLS by the cluster's secret first, then a
//! session as any other. Invariant: who has not proven to know the secret is heard no further, and
//! holds no more than one of [`HANDSHAKES_MAX`] places for a few seconds.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use gantry_link::Accepting;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::socket::{ACCEPT_PAUSE, Seats};
use super::{AgentEvent, serve};

/// Connections that may be proving themselves at a time.
const HANDSHAKES_MAX: usize = 256;

/// Accepts agents for ever, each in a task of its own.
pub(crate) async fn accept(
    listener: TcpListener,
    accepting: Accepting,
    (seats, events): (Seats, mpsc::Sender<AgentEvent>),
) {
    let proving = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let (stream, from, permit) = match next(&listener, &proving).await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an agent's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (accepting, seats, events) = (accepting.clone(), seats.clone(), events.clone());
        tokio::spawn(async move {
            // Small messages must not wait; a socket that cannot be set works all the same.
            let _ = stream.set_nodelay(true);
            let stream = match accepting.accept(stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%from, %error, "a connection is no agent's of this cluster");
                    return;
                }
            };
            drop(permit);
            let seat = seats.take().await;
            let reason = serve(seat.id(), stream, events).await;
            tracing::debug!(session = seat.id().0, %reason, "an agent's session ended");
        });
    }
}

async fn next(
    listener: &TcpListener,
    proving: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(proving).acquire_owned().await;
    let permit = permit.map_err(io::Error::other)?;
    let (stream, from) = listener.accept().await?;
    Ok((stream, from, permit))
}
