//! The Unix socket on which agents of the same machine connect. Who may open it may register:
//! the directory is 0700, the socket 0600.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{AgentEvent, SESSIONS_MAX, SessionId, serve};

/// Pause after a failed accept (no more descriptors), so that it does not spin.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something else lies at the path.
    #[error("cannot remove what lies at {}", path.display())]
    Remove {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No bind.
    #[error("cannot listen at {}", path.display())]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No chmod.
    #[error("cannot restrict access to {}", path.display())]
    Permissions {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Listens at the path; a socket that an earlier run left there is replaced. The caller holds
/// the lock of the data directory, so nobody else listens there.
///
/// # Errors
/// See [`SocketError`].
pub(crate) fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(SocketError::Remove {
                path: path.to_owned(),
                source,
            });
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|source| SocketError::Bind {
        path: path.to_owned(),
        source,
    })?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|source| {
        SocketError::Permissions {
            path: path.to_owned(),
            source,
        }
    })?;
    Ok(listener)
}

/// Room for sessions, and their numbers; shared by all listeners.
#[derive(Debug, Clone)]
pub(crate) struct Seats {
    free: Arc<Semaphore>,
    number: Arc<AtomicU64>,
}

/// Room for one session.
#[derive(Debug)]
pub(super) struct Seat {
    id: SessionId,
    _permit: OwnedSemaphorePermit,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(SESSIONS_MAX)),
            number: Arc::default(),
        }
    }
}

impl Seats {
    /// Waits until there is room.
    pub(super) async fn take(&self) -> Seat {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        Seat {
            id: SessionId(self.number.fetch_add(1, Ordering::Relaxed) + 1),
            _permit: permit.expect("it is never closed"),
        }
    }
}

impl Seat {
    pub(super) fn id(&self) -> SessionId {
        self.id
    }
}

/// Accepts agents for ever, each in a task of its own.
pub(crate) async fn accept(
    listener: UnixListener,
    (seats, events): (Seats, mpsc::Sender<AgentEvent>),
) {
    loop {
        let seat = seats.take().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an agent's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let session = serve(seat.id(), stream, events.clone());
        tokio::spawn(async move {
            let reason = session.await;
            tracing::debug!(session = seat.id().0, %reason, "an agent's session ended");
        });
    }
}
