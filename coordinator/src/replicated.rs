//! The state machine of consensus: commands of coordinator-core applied to its `State`, and the
//! result published for everybody who reads.
//!
//! It decides nothing: `gantry_coordinator_core::apply` does. Invariants: entries are applied in
//! order, each once; a state is published only after everything up to its index was applied; an
//! entry that this binary cannot read stops the coordinator instead of being skipped.

use std::sync::Arc;

use gantry_coordinator_core::{Applied, Command, Outcome, State, apply};
use tokio::sync::{mpsc, watch};

use crate::consensus::{Machine, MachineError};
use crate::log::snapshot::Snapshot;

/// The state after the entry with `index` was applied.
#[derive(Clone)]
pub struct Latest {
    /// Index of the last applied entry of the log.
    pub index: u64,
    /// The state; never changes.
    pub state: Arc<State>,
    /// Whether this member leads and has applied all that earlier leaders committed.
    pub leads: bool,
}

/// What one round applied, for the leader's loop: the commands with what came of them, and the
/// state after all of them.
pub(crate) struct Round {
    pub(crate) index: u64,
    pub(crate) state: Arc<State>,
    pub(crate) leads: bool,
    pub(crate) applied: Vec<(Command, Applied)>,
}

/// Rounds that may wait for the leader's loop before consensus waits for it.
pub(crate) const ROUNDS_MAX: usize = 256;

/// [`State`] as a [`Machine`].
pub(crate) struct Replicated {
    state: State,
    round: Vec<(Command, Applied)>,
    latest: watch::Sender<Latest>,
    rounds: mpsc::Sender<Round>,
}

impl Replicated {
    /// An empty state and the ends where results are read.
    pub(crate) fn new() -> (Self, watch::Receiver<Latest>, mpsc::Receiver<Round>) {
        let nothing = Latest {
            index: 0,
            state: Arc::new(State::default()),
            leads: false,
        };
        let (latest, latest_reader) = watch::channel(nothing);
        let (rounds, rounds_reader) = mpsc::channel(ROUNDS_MAX);
        let machine = Self {
            state: State::default(),
            round: Vec::new(),
            latest,
            rounds,
        };
        (machine, latest_reader, rounds_reader)
    }
}

impl Machine for Replicated {
    type Outcome = Outcome;

    fn apply(&mut self, index: u64, data: &[u8]) -> Result<Outcome, MachineError> {
        let command = Command::from_bytes(data).map_err(|source| MachineError::Unreadable {
            index,
            source: source.into(),
        })?;
        let applied = apply(&mut self.state, index, &command);
        let outcome = applied.outcome.clone();
        self.round.push((command, applied));
        Ok(outcome)
    }

    fn publish(&mut self, index: u64, leads: bool) {
        let state = Arc::new(self.state.clone());
        let applied = std::mem::take(&mut self.round);
        // First to the readers: nobody outside may see an effect of a state that is not shown.
        self.latest.send_replace(Latest {
            index,
            state: Arc::clone(&state),
            leads,
        });
        // The leader's loop is gone only while the coordinator stops.
        let _ = self.rounds.blocking_send(Round {
            index,
            state,
            leads,
            applied,
        });
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let state = self.state.clone();
        Box::new(move || state.encode())
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), MachineError> {
        let index = snapshot.index;
        self.state = State::decode(&snapshot.data).map_err(|source| MachineError::Snapshot {
            index,
            source: source.into(),
        })?;
        self.round.clear();
        Ok(())
    }
}
