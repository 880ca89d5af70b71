//! Connections of agents: frames in, frames out, over any byte stream.
//!
//! ```text
//! connected ─ Register ─► open ─┬─ stream ends, garbage, silence, slow reader ─► closed
//!     └─ anything else ─► closed └─ the leader drops its end (replaced, overflow) ─► closed
//! ```
//! Not decided here: what a message means; the leader's loop gets them as [`AgentEvent`]s.
//! Invariants: an open session tells `Opened` first and `Closed` last; a peer cannot make this
//! side hold more than one frame and [`OUTGOING_MAX`] messages.

mod session;
mod socket;
pub(crate) mod tcp;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_wire::agent::{Register, StatusUpdate, ToAgent};
use gantry_wire::ids::AgentId;
use tokio::sync::{mpsc, oneshot};

pub(crate) use session::serve;
pub use socket::SocketError;
pub(crate) use socket::{Seats, accept, listen};

/// Messages that may wait for one agent; one more ends its session, and it registers again.
pub(crate) const OUTGOING_MAX: usize = 1_024;
/// Agents that may be connected at a time.
pub(crate) const SESSIONS_MAX: usize = 16_384;
/// Events of all agents that may wait for the leader's loop; then the sessions wait.
pub(crate) const EVENTS_MAX: usize = 4_096;

/// HTTP addresses of the connected agents.
pub(crate) type Directory = Arc<BTreeMap<AgentId, String>>;

/// One connection; never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// The leader's end of a session. Dropping it ends the session after what is queued was sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: SessionId,
    queue: mpsc::Sender<ToAgent>,
    cut: oneshot::Sender<&'static str>,
}

/// The session's end.
pub(crate) struct Incoming {
    pub(crate) messages: mpsc::Receiver<ToAgent>,
    pub(crate) cut: oneshot::Receiver<&'static str>,
}

/// The agent does not read as fast as it is told things, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

impl Outgoing {
    pub(crate) fn new(id: SessionId) -> (Self, Incoming) {
        let (queue, messages) = mpsc::channel(OUTGOING_MAX);
        let (cut, was_cut) = oneshot::channel();
        (
            Self { id, queue, cut },
            Incoming {
                messages,
                cut: was_cut,
            },
        )
    }

    pub(crate) fn send(&self, message: ToAgent) -> Result<(), Overflow> {
        self.queue.try_send(message).map_err(|_| Overflow)
    }

    /// Ends the session at once.
    pub(crate) fn cut(self, reason: &'static str) {
        // A session that has ended by itself needs no cut.
        let _ = self.cut.send(reason);
    }
}

/// What happens on the connections.
#[derive(Debug)]
pub(crate) enum AgentEvent {
    Opened {
        outgoing: Outgoing,
        register: Box<Register>,
    },
    Status {
        session: SessionId,
        update: Box<StatusUpdate>,
    },
    Closed {
        session: SessionId,
        reason: String,
    },
}
