//! Consensus: the raft crate, our log and a state machine, driven by one thread.
//!
//! It orders opaque commands, makes them durable and applies them; what they mean is the
//! [`Machine`]'s matter. One member only so far: membership, storage and the loop have the shape
//! for more, there is no transport yet.
//!
//! Invariants: a proposal is answered after its entry is durable and applied; entries are applied
//! in order, each once; a panic of raft or of the machine ends the process ([`driver`]), because
//! going on could lose what was promised.

mod driver;
mod pending;
mod slog_bridge;
mod storage;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, oneshot, watch};

use crate::log::snapshot::{self, Membership, Snapshot};
use crate::log::thread::{LogThread, MakeDisk, Report};
use crate::log::{Disk, Files, LogError};
use driver::Driver;
pub(crate) use pending::Done;

/// Longest command in bytes, encoded.
pub(crate) const COMMAND_MAX_BYTES: usize = 8 << 20;
/// Proposals that may wait for their commit are limited by their bytes, counted in these units …
const PERMIT_BYTES: usize = 1 << 10;
/// … of which each takes at least this many …
const PERMITS_MIN: usize = 8;
/// … out of so many: 64 MiB, or 8,192 small proposals.
const PERMITS: usize = 64 << 10;
/// A snapshot is made after so many entries …
pub(crate) const SNAPSHOT_ENTRIES: u64 = 50_000;
/// … or so many bytes of them.
pub(crate) const SNAPSHOT_BYTES: u64 = 64 << 20;

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Busy,
    NotLeader,
    Superseded,
    Failed(String),
    Stopped,
    TooLarge { bytes: usize, limit: usize },
}

impl Refusal {
    /// For a log line.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Busy => "the queue of proposals is full",
            Self::NotLeader => "this coordinator does not lead",
            Self::Superseded => "the command was lost in a change of leader",
            Self::Failed(_) => "the coordinator cannot go on",
            Self::Stopped => "the coordinator is stopping",
            Self::TooLarge { .. } => "the command is too large",
        }
    }
}

/// Index and outcome of a command that was applied, or why there is none.
pub(crate) type Answer<O> = Result<(u64, O), Refusal>;

/// What the machine cannot do; it stops the member.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// An entry that is not a command for this binary.
    #[error("entry {index} of the log cannot be read by this version of Gantry")]
    Unreadable {
        /// Its index.
        index: u64,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A snapshot that is not one for this binary.
    #[error("the snapshot at index {index} cannot be read by this version of Gantry")]
    Snapshot {
        /// Its index.
        index: u64,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The replicated state machine.
pub(crate) trait Machine: Send + 'static {
    /// What a proposer gets back.
    type Outcome: Send + 'static;
    /// Applies one command.
    fn apply(&mut self, index: u64, data: &[u8]) -> Result<Self::Outcome, MachineError>;
    /// Everything up to `index` is applied; `leads`: this member leads and has applied all that
    /// earlier leaders committed. Called before the proposers are answered.
    fn publish(&mut self, index: u64, leads: bool);
    /// The state as it is now; the function is called on another thread.
    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send>;
    /// Replaces the state by that of the snapshot.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), MachineError>;
}

/// Where and as whom a member runs.
pub(crate) struct Config {
    /// This member's id, not 0.
    pub(crate) member: u64,
    /// Makes the log's disk.
    pub(crate) log_disk: MakeDisk,
    /// Directory of the snapshots; must exist.
    pub(crate) snapshots: PathBuf,
    /// Something was written here before: an empty directory is a loss, not a new group.
    pub(crate) founded: bool,
    /// Random, for a log that does not exist yet.
    pub(crate) fresh_salt: u32,
    /// See [`SNAPSHOT_ENTRIES`].
    pub(crate) snapshot_entries: u64,
}

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// Log or snapshot.
    #[error("the log of the coordinator cannot be used")]
    Log(#[from] LogError),
    /// What was written is gone.
    #[error("neither the log nor a snapshot of the coordinator holds anything")]
    Lost,
    /// State.
    #[error("the state of the coordinator cannot be used")]
    Machine(#[from] MachineError),
    /// The raft crate does not accept what was found.
    #[error("raft does not accept the state on disk")]
    Raft(#[source] raft::Error),
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// What wakes the driver.
enum Input<O> {
    Propose {
        data: Vec<u8>,
        done: Done<O>,
    },
    Log(Report),
    SnapshotSaved {
        disk: Box<dyn Disk>,
        saved: Result<u64, LogError>,
    },
    Stop,
}

/// Proposes; cheap to clone.
pub(crate) struct Proposer<O> {
    inputs: mpsc::Sender<Input<O>>,
    permits: Arc<Semaphore>,
}

impl<O> Clone for Proposer<O> {
    fn clone(&self) -> Self {
        Self {
            inputs: self.inputs.clone(),
            permits: Arc::clone(&self.permits),
        }
    }
}

impl<O> Proposer<O> {
    /// Queues the command at once and never blocks; the answer comes when it is applied.
    pub(crate) fn submit(&self, data: Vec<u8>) -> Result<oneshot::Receiver<Answer<O>>, Refusal> {
        if data.len() > COMMAND_MAX_BYTES {
            return Err(Refusal::TooLarge {
                bytes: data.len(),
                limit: COMMAND_MAX_BYTES,
            });
        }
        let cost = data.len().div_ceil(PERMIT_BYTES).max(PERMITS_MIN);
        let cost = u32::try_from(cost).expect("COMMAND_MAX_BYTES holds");
        let permit = Arc::clone(&self.permits)
            .try_acquire_many_owned(cost)
            .map_err(|_| Refusal::Busy)?;
        let (answer, answered) = oneshot::channel();
        let done = Done::new(answer, permit);
        self.inputs
            .send(Input::Propose { data, done })
            .map_err(|_| Refusal::Stopped)?;
        Ok(answered)
    }

    /// Answers when the command is durable and applied.
    pub(crate) async fn propose(&self, data: Vec<u8>) -> Answer<O> {
        self.submit(data)?.await.unwrap_or(Err(Refusal::Stopped))
    }
}

/// A running member.
pub(crate) struct Member<O> {
    proposer: Proposer<O>,
    failed: watch::Receiver<Option<String>>,
    thread: Option<JoinHandle<()>>,
}

impl<O> Member<O> {
    pub(crate) fn proposer(&self) -> Proposer<O> {
        self.proposer.clone()
    }

    /// Holds the reason once the member cannot go on.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.clone()
    }

    fn ask_to_stop(&self) {
        // The driver is there until it is told to stop, or it has stopped already.
        let _ = self.proposer.inputs.send(Input::Stop);
    }

    /// Ends the threads after what is queued. Blocks.
    pub(crate) fn stop(mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of consensus panicked");
        }
    }
}

impl<O> Drop for Member<O> {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

/// Reads snapshot and log, gives the machine its state, and starts. A directory without a
/// snapshot becomes a new group with this member alone. Blocks.
///
/// # Errors
/// See [`ConsensusError`]; nothing was started.
pub(crate) fn start<M: Machine>(
    config: Config,
    mut machine: M,
) -> Result<Member<M::Outcome>, ConsensusError> {
    let mut snapshot_disk = Files::open(&config.snapshots, false).map_err(LogError::List)?;
    let found = snapshot::load(&mut snapshot_disk)?;
    if let Some(found) = &found {
        machine.restore(found)?;
    }
    let covered = found.as_ref().map_or(0, |snapshot| snapshot.index);
    let (inputs, inbox) = mpsc::channel();
    let reports = inputs.clone();
    let (log, recovered) =
        LogThread::start(config.log_disk, covered, config.fresh_salt, move |report| {
            // The driver is gone only while everything stops.
            let _ = reports.send(Input::Log(report));
        })?;
    // An entry without data is raft's own and holds no command.
    let blank = covered == 0 && recovered.entries.iter().all(|entry| entry.data.is_empty());
    if config.founded && blank {
        return Err(ConsensusError::Lost);
    }
    let base = match found {
        Some(found) => found,
        None => found_group(&mut snapshot_disk, config.member, &machine)?,
    };
    let (failed, failed_reader) = watch::channel(None);
    let driver = Driver::new(driver::Parts {
        member: config.member,
        snapshot_entries: config.snapshot_entries,
        base,
        recovered,
        machine,
        log,
        snapshot_disk: Box::new(snapshot_disk),
        inputs: inputs.clone(),
    })
    .map_err(ConsensusError::Raft)?;
    let thread = std::thread::Builder::new()
        .name("gantry-raft".to_owned())
        .spawn(move || driver.run(&inbox, &failed))
        .map_err(ConsensusError::Thread)?;
    let proposer = Proposer {
        inputs,
        permits: Arc::new(Semaphore::new(PERMITS)),
    };
    Ok(Member {
        proposer,
        failed: failed_reader,
        thread: Some(thread),
    })
}

/// The snapshot at index 0 says who is a member of a new group.
fn found_group<M: Machine>(
    disk: &mut Files,
    member: u64,
    machine: &M,
) -> Result<Snapshot, LogError> {
    let membership = Membership {
        voters: vec![member],
        ..Membership::default()
    };
    let first = Snapshot {
        index: 0,
        term: 0,
        membership,
        data: machine.snapshot()(),
    };
    snapshot::save(disk, &first)?;
    Ok(first)
}
