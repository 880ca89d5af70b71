//! The other end of the keeper's socket: finds a running keeper or starts one, sends requests and
//! receives events, blocking.
//!
//! It deliberately holds no state about containers; the agent does. One thread may sit in
//! [`Client::recv`] while others send through clones of the handle: packets are never interleaved.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::protocol::{Event, Request};
use super::{daemon, launch, packet};

/// Why talking to the keeper failed. Each of these means: drop the client and connect again.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The keeper's program could not be started.
    #[error("starting the keeper {exe:?}")]
    Spawn {
        /// The program.
        exe: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The keeper's program ended before its socket was there; its last words are in the text.
    #[error("the keeper did not come up: {words}")]
    Died {
        /// What it wrote to stderr.
        words: String,
    },
    /// No answer from a new keeper in time.
    #[error("the keeper in {dir:?} does not answer")]
    Silent {
        /// Its directory.
        dir: PathBuf,
    },
    /// The socket failed.
    #[error("the keeper's socket {path:?}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A message broke the protocol's rules.
    #[error("a message of the keeper's protocol")]
    Message(#[from] packet::PacketError),
}

/// What [`Client::recv_timeout`] found.
#[derive(Debug)]
pub enum Received {
    /// An event.
    Event(Event),
    /// Nothing in that time.
    Timeout,
    /// The keeper closed the connection (it ended, or this client was too slow).
    Closed,
}

/// A connection; clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    socket: Arc<OwnedFd>,
}

impl Client {
    /// Connects to the keeper of `dir`; None when none runs.
    ///
    /// # Errors
    /// The socket exists but cannot be used.
    pub fn connect(dir: &Path) -> Result<Option<Self>, ClientError> {
        match launch::with_address(dir, packet::connect) {
            Ok(socket) => Ok(Some(Self {
                socket: Arc::new(socket),
            })),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(errno) => Err(ClientError::Socket {
                path: launch::socket_path(dir),
                source: errno.into(),
            }),
        }
    }

    /// Connects to the keeper of `dir`, starting `exe leading… --dir DIR --cgroup-parent NAME` if
    /// none runs. `exe` must be a program that calls [`super::main`] when its first arguments are
    /// `leading`. It runs from a read-only mount, so that no container can write to it.
    ///
    /// # Errors
    /// It cannot be started, or does not come up in time.
    pub fn connect_or_spawn(
        dir: &Path,
        exe: &Path,
        leading: &[OsString],
        cgroup_parent: &str,
    ) -> Result<Self, ClientError> {
        if let Some(client) = Self::connect(dir)? {
            return Ok(client);
        }
        let spawn_error = |source| ClientError::Spawn {
            exe: exe.to_owned(),
            source,
        };
        let (status, words) = launch::spawn(dir, exe, leading, cgroup_parent)
            .and_then(launch::Foreground::wait)
            .map_err(spawn_error)?;
        let another = status.code() == Some(i32::from(daemon::ANOTHER_RUNS));
        if !status.success() && !another {
            return Err(ClientError::Died { words });
        }
        // Another keeper that holds the lock may not listen yet.
        let deadline = Instant::now() + launch::COME_UP_TIMEOUT;
        loop {
            if let Some(client) = Self::connect(dir)? {
                return Ok(client);
            }
            if Instant::now() >= deadline {
                return Err(ClientError::Silent {
                    dir: dir.to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a request with its descriptors: the network namespace of a `Start`, the three of an
    /// `Exec`. The answer comes as an event.
    ///
    /// # Errors
    /// The keeper is gone, or the request is beyond the protocol's bounds.
    pub fn request(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        Ok(packet::send(self.socket.as_fd(), request, fds)?)
    }

    /// Waits for the next event; None when the keeper closed the connection.
    ///
    /// # Errors
    /// The socket failed or the message breaks the protocol.
    pub fn recv(&self) -> Result<Option<Event>, ClientError> {
        match packet::receive::<Event>(self.socket.as_fd())? {
            Some((event, _fds)) => Ok(Some(event)),
            None => Ok(None),
        }
    }

    /// Waits for the next event for at most `timeout`.
    ///
    /// # Errors
    /// As [`Client::recv`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Received, ClientError> {
        if !packet::wait_readable(self.socket.as_fd(), timeout)? {
            return Ok(Received::Timeout);
        }
        Ok(self.recv()?.map_or(Received::Closed, Received::Event))
    }

    /// Makes every blocked or later [`Client::recv`] of all clones return None.
    pub fn shutdown(&self) {
        // Already disconnected is as good as disconnecting now.
        let _ = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Both);
    }
}
