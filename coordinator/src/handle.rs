//! What the rest of the coordinator (HTTP above all) may see and ask: the latest applied state,
//! a way to propose a command and wait until it is durable and applied, the leader's soft state.
//!
//! It decides nothing and holds no lock for longer than a copy of an `Arc`.
//! Invariants: a state that was handed out never changes; a command whose `propose` answered `Ok`
//! is durable, and every later `state()` of this handle contains it.

use std::sync::Arc;
use std::time::Duration;

use gantry_coordinator_core::service::IdSource;
use gantry_coordinator_core::service::queue::QueueEntry;
use gantry_coordinator_core::{Command, Kind, Outcome, State};
use gantry_wire::ids::AgentId;
use gantry_wire::time::Millis;
use tokio::sync::{mpsc, oneshot, watch};

use crate::agents::Directory;
use crate::consensus::{Proposer, Refusal};
use crate::leader::Question;
use crate::mint;
use crate::replicated::Latest;

/// Longest wait of a proposal for its commit. After it the outcome is unknown.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A command that is durable and applied.
#[derive(Debug, Clone)]
pub struct Proposed {
    /// Its index in the log; larger than that of everything applied before.
    pub index: u64,
    /// What `apply` answered, which may be a refusal.
    pub outcome: Outcome,
}

/// Why a command has no outcome. All of them are 503 to a client of HTTP, `TooLarge` is 413.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The queue of proposals is full. Nothing was written; try again later.
    #[error("the coordinator is overloaded: its queue of proposals is full")]
    Busy,
    /// This member does not lead. Nothing was written.
    #[error("this coordinator does not lead the cluster at the moment")]
    NotLeader,
    /// The command was replaced by another leader's. It has no effect.
    #[error("the command was lost in a change of leader")]
    Superseded,
    /// No commit within [`PROPOSE_TIMEOUT`]; it may still happen.
    #[error("the command was not committed in time; whether it takes effect is not known")]
    Timeout,
    /// The log cannot be written, or an entry of it not be read. Whether the command takes effect
    /// after a restart is not known.
    #[error("the coordinator takes no writes until it is restarted: {0}")]
    LogFailed(String),
    /// The coordinator is stopping. Whether the command takes effect is not known.
    #[error("the coordinator is stopping; whether the command takes effect is not known")]
    Stopped,
    /// The encoded command is over the limit, both in bytes.
    #[error("the command has {bytes} bytes, over the limit of {limit}")]
    TooLarge {
        /// Encoded size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl From<Refusal> for ProposeError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Busy => Self::Busy,
            Refusal::NotLeader => Self::NotLeader,
            Refusal::Superseded => Self::Superseded,
            Refusal::Failed(why) => Self::LogFailed(why),
            Refusal::Stopped => Self::Stopped,
            Refusal::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
        }
    }
}

/// Facts about this process that do not change while it runs.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name of the cluster, for people.
    pub cluster_name: String,
    /// Name or address under which clients reach this coordinator.
    pub hostname: String,
    /// Port of the HTTP API (the real one, also when 0 was asked for).
    pub http_port: u16,
    /// Id of this run of the process.
    pub coordinator_id: String,
    /// Version of the binary.
    pub version: &'static str,
    /// When this process started.
    pub started: Millis,
}

/// Everything that HTTP needs of the coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Wiring>,
}

/// The ends of the channels that a [`Handle`] reads and writes.
pub(crate) struct Wiring {
    pub(crate) node: Node,
    pub(crate) latest: watch::Receiver<Latest>,
    pub(crate) agents: watch::Receiver<Directory>,
    pub(crate) proposer: Proposer<Outcome>,
    pub(crate) questions: mpsc::Sender<Question>,
}

impl Handle {
    pub(crate) fn new(wiring: Wiring) -> Self {
        Self {
            inner: Arc::new(wiring),
        }
    }

    /// The latest applied state.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.inner.latest.borrow().state)
    }

    /// Wakes up at every change: `changed().await`, then `borrow_and_update()`. Changes in quick
    /// succession are seen as one. Do not hold the borrow across an await.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Latest> {
        self.inner.latest.clone()
    }

    /// Replicates a command of this kind, stamped with the time of now; returns once it is
    /// durable and applied.
    ///
    /// # Errors
    /// See [`ProposeError`]; after `Timeout`, `Stopped` and `LogFailed` the outcome is not known,
    /// after all others the command has no effect.
    pub async fn propose(&self, kind: Kind) -> Result<Proposed, ProposeError> {
        let data = Command::new(mint::now(), kind).to_bytes();
        let answer = self.inner.proposer.propose(data);
        match tokio::time::timeout(PROPOSE_TIMEOUT, answer).await {
            Ok(Ok((index, outcome))) => Ok(Proposed { index, outcome }),
            Ok(Err(refusal)) => Err(refusal.into()),
            Err(_) => Err(ProposeError::Timeout),
        }
    }

    /// What waits for launch and why; only the leader knows it. It contains all that was applied
    /// before the call.
    ///
    /// # Errors
    /// `NotLeader`, `Busy`, `Stopped`.
    pub async fn queue(&self) -> Result<Vec<QueueEntry>, ProposeError> {
        let (answer, answered) = oneshot::channel();
        let since = self.inner.latest.borrow().index;
        self.inner
            .questions
            .try_send(Question::Queue { since, answer })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => ProposeError::Busy,
                mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
            })?;
        answered.await.map_err(|_| ProposeError::NotLeader)
    }

    /// Whether this member leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.inner.latest.borrow().leads
    }

    /// Whether the agent has a connection to this coordinator right now.
    #[must_use]
    pub fn agent_connected(&self, agent: &AgentId) -> bool {
        self.inner.agents.borrow().contains_key(agent)
    }

    /// `host:port` of the agent's own HTTP listener, while it is connected.
    #[must_use]
    pub fn agent_address(&self, agent: &AgentId) -> Option<String> {
        self.inner.agents.borrow().get(agent).cloned()
    }

    /// Facts about this process.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.inner.node
    }

    /// Now, by the clock that stamps commands.
    #[must_use]
    pub fn now(&self) -> Millis {
        mint::now()
    }

    /// Ids and randomness for `service::request`; one for each request.
    #[must_use]
    pub fn ids(&self) -> impl IdSource + use<> {
        mint::RandomIds
    }
}
