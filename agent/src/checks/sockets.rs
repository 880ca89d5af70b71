//! Sockets that belong to the network of a task. One thread moves from namespace to namespace and
//! makes them there; a socket stays in the namespace that it was made in, whoever uses it
//! (`network_namespaces(7)`), so nobody else ever leaves the node's own.
//!
//! It connects nothing. Invariant: the thread is used for nothing but this, and waits for nothing
//! but requests.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait; the senders wait beyond that.
const REQUESTS_MAX: usize = 64;

struct Request {
    pid: u32,
    family: AddressFamily,
    reply: oneshot::Sender<io::Result<OwnedFd>>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Unconnected {
    /// The network cannot be entered, for the process has ended: that says nothing of it.
    Gone,
    /// Nobody takes it.
    Refused(io::Error),
}

impl From<io::Error> for Unconnected {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

/// The way to the thread, which ends with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Sockets {
    requests: mpsc::Sender<Request>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("pid", &self.pid).finish()
    }
}

impl Sockets {
    pub(super) fn start() -> io::Result<Self> {
        let (requests, mut inbox) = mpsc::channel::<Request>(REQUESTS_MAX);
        std::thread::Builder::new()
            .name("sockets".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                while let Some(request) = inbox.blocking_recv() {
                    // Nobody waits any more: fine.
                    let _ = request.reply.send(make(request.pid, request.family));
                }
            })?;
        Ok(Self { requests })
    }

    /// Connects from the network of the process, or from the node's own.
    pub(super) async fn connect(
        &self,
        pid: Option<u32>,
        address: SocketAddr,
    ) -> Result<TcpStream, Unconnected> {
        let Some(pid) = pid else {
            return Ok(TcpStream::connect(address).await?);
        };
        let family = if address.is_ipv6() {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let (reply, answer) = oneshot::channel();
        let request = Request { pid, family, reply };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| Unconnected::Gone)?;
        let socket = answer.await.map_err(|_| Unconnected::Gone)?;
        let socket = socket.map_err(|error| {
            tracing::debug!(pid, "a socket in the network of a task: {error}");
            Unconnected::Gone
        })?;
        let socket = TcpSocket::from_std_stream(socket.into());
        Ok(socket.connect(address).await?)
    }
}

fn make(pid: u32, family: AddressFamily) -> io::Result<OwnedFd> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}
