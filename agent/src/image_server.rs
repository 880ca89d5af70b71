//! The images of a node that does not run: the same requests as the agent answers, on a socket that
//! only this user can reach, for as long as one command takes.
//!
//! It decides where that socket is, and nothing about images. Invariant: the store's lock is held
//! all the time, so no agent can start on it meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use gantry_image::{OpenError, Store};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::http::images::{Images, router, upload};
use crate::layout::Layout;

const SOCKET: &str = "command.sock";

/// Why the images cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// A node is running on them.
    #[error("a node is running on {}", .0.display())]
    Running(PathBuf),
    /// They cannot be opened.
    #[error("opening the images: {0}")]
    Open(String),
    /// No socket.
    #[error("making a socket for the images")]
    Socket(#[source] io::Error),
}

/// Answers until dropped.
pub struct ImageServer {
    socket: PathBuf,
    serving: JoinHandle<()>,
}

impl ImageServer {
    /// Opens the images below an agent's data directory. Blocks.
    ///
    /// # Errors
    /// If a node is running there, or they cannot be opened.
    pub fn open(agent_dir: &Path) -> Result<Self, ImagesError> {
        let layout = Layout::create(agent_dir).map_err(ImagesError::Socket)?;
        let store = match Store::open(&layout.images()) {
            Ok(store) => store,
            Err(OpenError::Busy(_)) => return Err(ImagesError::Running(agent_dir.to_owned())),
            Err(error) => return Err(ImagesError::Open(crate::chain(&error))),
        };
        // The directory is private, and the store's lock says that the socket is nobody else's.
        let socket = layout.images().join(SOCKET);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ImagesError::Socket(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(ImagesError::Socket)?;
        let images = Arc::new(Images::new(store));
        let routes: Router = router(images.clone()).merge(upload(images));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::warn!(%error, "the socket of the images");
            }
        });
        Ok(Self { socket, serving })
    }

    /// Where it answers.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for ImageServer {
    fn drop(&mut self) {
        self.serving.abort();
        // The next command would remove it.
        let _ = std::fs::remove_file(&self.socket);
    }
}
