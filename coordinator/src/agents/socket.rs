//! The Unix socket on which agents of the same machine connect. Who may open it may register:
//! the directory is 0700, the socket 0600.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc};

use super::{AgentEvent, SESSIONS_MAX, SessionId, serve};

/// Pause after a failed accept (no more descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Accepts agents for ever, each in a task of its own.
pub(crate) async fn accept(listener: UnixListener, events: mpsc::Sender<AgentEvent>) {
    let free = Arc::new(Semaphore::new(SESSIONS_MAX));
    let mut number = 0;
    loop {
        let permit = Arc::clone(&free)
            .acquire_owned()
            .await
            .expect("it is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an agent's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        number += 1;
        let session = serve(SessionId(number), stream, events.clone());
        tokio::spawn(async move {
            let reason = session.await;
            tracing::debug!(session = number, %reason, "an agent's session ended");
            drop(permit);
        });
    }
}
