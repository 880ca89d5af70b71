//! What raft reads: the entries since the last compaction, in memory, with hard state and
//! membership. The log on disk holds the same; the driver gives both the same entries in the same
//! order.
//!
//! Invariant: entries have no gaps and begin right after `base`.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot as RaftSnapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::log;
use crate::log::snapshot::{Membership, Snapshot};

/// Raft's view of what is stored.
pub(crate) struct Memory {
    base_index: u64,
    base_term: u64,
    entries: VecDeque<Entry>,
    hard_state: HardState,
    membership: ConfState,
}

/// Our form of raft's membership.
pub(crate) fn membership(state: &ConfState) -> Membership {
    Membership {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    }
}

fn conf_state(membership: &Membership) -> ConfState {
    ConfState {
        voters: membership.voters.clone(),
        learners: membership.learners.clone(),
        voters_outgoing: membership.voters_outgoing.clone(),
        learners_next: membership.learners_next.clone(),
        auto_leave: membership.auto_leave,
        ..ConfState::default()
    }
}

/// The log's form of an entry. We propose no contexts, so none is stored.
pub(crate) fn to_log(entry: &Entry) -> log::Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => log::EntryKind::Normal,
        EntryType::EntryConfChange => log::EntryKind::ConfChange,
        EntryType::EntryConfChangeV2 => log::EntryKind::ConfChangeV2,
    };
    log::Entry {
        index: entry.index,
        term: entry.term,
        kind,
        data: entry.data.clone(),
    }
}

fn from_log(entry: log::Entry) -> Entry {
    let entry_type = match entry.kind {
        log::EntryKind::Normal => EntryType::EntryNormal,
        log::EntryKind::ConfChange => EntryType::EntryConfChange,
        log::EntryKind::ConfChangeV2 => EntryType::EntryConfChangeV2,
    };
    let log::Entry {
        index, term, data, ..
    } = entry;
    Entry {
        entry_type,
        index,
        term,
        data,
        ..Entry::default()
    }
}

impl Memory {
    pub(crate) fn new(base: &Snapshot, recovered: log::Recovered) -> Self {
        let log::HardState { term, vote, commit } = recovered.hard_state;
        Self {
            base_index: base.index,
            base_term: base.term,
            entries: recovered.entries.into_iter().map(from_log).collect(),
            hard_state: HardState {
                term: term.max(base.term),
                vote,
                commit,
                ..HardState::default()
            },
            membership: conf_state(&base.membership),
        }
    }

    fn last(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    fn position(&self, index: u64) -> usize {
        usize::try_from(index - self.base_index - 1).expect("entries are in memory")
    }

    /// Adds entries; those that are there with the same index or a later one go.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.base_index && first.index <= self.last() + 1,
            "raft gave entry {} after {}",
            first.index,
            self.last()
        );
        self.entries.truncate(self.position(first.index));
        self.entries.extend(entries.iter().cloned());
    }

    pub(crate) fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    pub(crate) fn membership(&self) -> &ConfState {
        &self.membership
    }

    /// Forgets the entries up to and including `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        if index <= self.base_index || index > self.last() {
            return;
        }
        let position = self.position(index);
        self.base_term = self.entries[position].term;
        self.entries.drain(..=position);
        self.base_index = index;
    }
}

impl Storage for Memory {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            self.membership.clone(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base_index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let range = self.position(low)..self.position(high);
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += (entry.data.len() + ENTRY_OVERHEAD_BYTES) as u64;
            first || bytes <= limit
        };
        Ok(self
            .entries
            .range(range)
            .take_while(fits)
            .cloned()
            .collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base_index {
            return Ok(self.base_term);
        }
        if index < self.base_index {
            return Err(StorageError::Compacted.into());
        }
        if index > self.last() {
            return Err(StorageError::Unavailable.into());
        }
        Ok(self.entries[self.position(index)].term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Only followers that lag behind ask for this, and there are none yet.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<RaftSnapshot> {
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

/// Numbers and tags of an entry in raft's own encoding, about.
const ENTRY_OVERHEAD_BYTES: usize = 24;
