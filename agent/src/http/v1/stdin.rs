//! What is typed into a process: its pipe, or the master of its terminal. One client at a time
//! holds it.
//!
//! Invariant: a write waits for the process and for nothing else; what waits is one record.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use gantry_isolation::keeper::terminal;
use gantry_isolation::spec::WindowSize;
use rustix::io::Errno;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;

/// The stdin of a process. A master, which does not block, is written to and read like a pipe; when
/// nobody has its other side open, a read fails.
#[derive(Debug)]
pub(super) enum Stdin {
    Pipe(pipe::Sender),
    Terminal(pipe::Sender),
    /// It had its end, or takes no more.
    Closed,
}

impl Stdin {
    pub(super) fn terminal(master: OwnedFd) -> io::Result<Self> {
        pipe::Sender::from_owned_fd_unchecked(master).map(Self::Terminal)
    }

    /// Nothing is the end of a pipe. A terminal's end is a character that the client sends, as for
    /// Mesos. False once the process takes no more.
    pub(super) async fn put(&mut self, bytes: &[u8]) -> bool {
        let put = match self {
            Self::Closed => return false,
            Self::Pipe(_) if bytes.is_empty() => {
                *self = Self::Closed;
                return true;
            }
            Self::Pipe(pipe) | Self::Terminal(pipe) => pipe.write_all(bytes).await,
        };
        if put.is_err() {
            *self = Self::Closed;
        }
        put.is_ok()
    }

    /// Errors: there is no terminal.
    pub(super) fn resize(&self, size: WindowSize) -> io::Result<()> {
        match self {
            Self::Terminal(master) => Ok(terminal::resize(master.as_fd(), size)?),
            Self::Pipe(_) | Self::Closed => Err(Errno::NOTTY.into()),
        }
    }
}
