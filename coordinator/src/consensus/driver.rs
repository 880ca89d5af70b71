//! The loop around raft's `RawNode`: inputs in, ready states out.
//!
//! ```text
//! proposals ─► propose ─► ready ─► log thread (write + sync) ─► durable ─► commit ─► apply ─► answer
//!                           └──── the next ready collects meanwhile ────┘
//! ```
//! Entries are given to raft's storage at once and to the log thread in the same order; raft is
//! told that they are persisted only by the log's report (`advance_append_async`), and commits
//! and hands out entries only after that.
//!
//! Not here: time of day, sockets. With one member there is nobody to send messages to.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use raft::eraftpb::{ConfState, Entry, EntryType};
use raft::{RawNode, StateRole};
use tokio::sync::watch;

use super::pending::{Done, Pending};
use super::storage::{self, Memory};
use super::{Input, Machine, Refusal, SNAPSHOT_BYTES, slog_bridge};
use crate::log::snapshot::{self, Snapshot};
use crate::log::thread::{LogThread, Report, Request};
use crate::log::{self, Disk, LogError, Recovered};

/// Raft's unit of time.
const TICK: Duration = Duration::from_millis(50);
/// Ticks without a leader after which a member asks for votes.
const ELECTION_TICKS: usize = 20;
const HEARTBEAT_TICKS: usize = 2;
/// A member that is alone needs no ticks; it wakes up this often all the same.
const ALONE: Duration = Duration::from_secs(60);
/// Ready states whose entries are on their way to the disk. More are collected in raft.
const IN_FLIGHT_MAX: usize = 64;
/// Inputs that are taken before raft is asked what to do.
const ROUND_MAX: usize = 4_096;
/// Most bytes of committed entries that are applied before readers see a new state.
const APPLY_BYTES: u64 = 4 << 20;
/// Entries before the snapshot that stay, for members that are a little behind.
const TRAILING_ENTRIES: u64 = 1_000;
/// How long a stop waits for what was already proposed.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What a driver is made of.
pub(crate) struct Parts<M: Machine> {
    pub(crate) member: u64,
    pub(crate) snapshot_entries: u64,
    pub(crate) base: Snapshot,
    pub(crate) recovered: Recovered,
    pub(crate) machine: M,
    pub(crate) log: LogThread,
    pub(crate) snapshot_disk: Box<dyn Disk>,
    pub(crate) inputs: Sender<Input<M::Outcome>>,
}

/// Snapshots: when, and whether one is being written.
struct Snapshots {
    /// Gone while a snapshot is being written.
    disk: Option<Box<dyn Disk>>,
    every: u64,
    entries: u64,
    bytes: u64,
}

/// The member's loop and all that it owns.
pub(crate) struct Driver<M: Machine> {
    node: RawNode<Memory>,
    machine: M,
    log: LogThread,
    pending: Pending<M::Outcome>,
    in_flight: VecDeque<u64>,
    applied_index: u64,
    applied_term: u64,
    leads: bool,
    snapshots: Snapshots,
    inputs: Sender<Input<M::Outcome>>,
}

/// Why the loop ends.
enum Stop {
    Asked,
    Failed(String),
}

/// Ends the process when the thread unwinds: raft panics when one of its invariants is broken.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("consensus cannot go on after a panic: stopping the process");
            std::process::abort();
        }
    }
}

fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

impl<M: Machine> Driver<M> {
    pub(crate) fn new(parts: Parts<M>) -> raft::Result<Self> {
        let Parts {
            member,
            snapshot_entries,
            base,
            recovered,
            ..
        } = parts;
        let config = raft::Config {
            id: member,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: base.index,
            max_size_per_msg: 1 << 20,
            check_quorum: true,
            pre_vote: true,
            max_committed_size_per_ready: APPLY_BYTES,
            ..raft::Config::default()
        };
        let memory = Memory::new(&base, recovered);
        let node = RawNode::new(&config, memory, &slog_bridge::logger())?;
        Ok(Self {
            node,
            machine: parts.machine,
            log: parts.log,
            pending: Pending::new(),
            in_flight: VecDeque::new(),
            applied_index: base.index,
            applied_term: base.term,
            leads: false,
            snapshots: Snapshots {
                disk: Some(parts.snapshot_disk),
                every: snapshot_entries,
                entries: 0,
                bytes: 0,
            },
            inputs: parts.inputs,
        })
    }

    /// The thread's whole life.
    pub(crate) fn run(
        mut self,
        inbox: &Receiver<Input<M::Outcome>>,
        failed: &watch::Sender<Option<String>>,
    ) {
        let _guard = AbortOnPanic;
        let reason = match self.serve(inbox) {
            Stop::Asked => None,
            Stop::Failed(reason) => Some(reason),
        };
        self.machine.publish(self.applied_index, false);
        if let Some(reason) = reason {
            tracing::error!(reason, "the coordinator takes no more writes");
            let refusal = Refusal::Failed(reason.clone());
            self.pending.refuse_all(&refusal);
            failed.send_replace(Some(reason));
            while let Ok(input) = inbox.recv() {
                match input {
                    Input::Propose { done, .. } => done.answer(Err(refusal.clone())),
                    Input::Stop => break,
                    Input::Log(_) | Input::SnapshotSaved { .. } => {}
                }
            }
        }
        self.pending.refuse_all(&Refusal::Stopped);
        self.log.stop();
    }

    fn alone(&self) -> bool {
        let ConfState {
            voters,
            voters_outgoing,
            ..
        } = self.node.store().membership();
        voters == &[self.node.raft.id] && voters_outgoing.is_empty()
    }

    fn serve(&mut self, inbox: &Receiver<Input<M::Outcome>>) -> Stop {
        if self.alone()
            && let Err(error) = self.node.campaign()
        {
            return Stop::Failed(text(&error));
        }
        let mut next_tick = Instant::now() + TICK;
        let mut stop_at: Option<Instant> = None;
        loop {
            if let Err(reason) = self.ready() {
                return Stop::Failed(reason);
            }
            if let Some(at) = stop_at
                && (self.pending.is_empty() || Instant::now() >= at)
            {
                return Stop::Asked;
            }
            let now = Instant::now();
            let alone = self.alone() && self.leads && stop_at.is_none();
            let wait = if alone {
                ALONE
            } else {
                next_tick.saturating_duration_since(now)
            };
            let first = match inbox.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Stop::Asked,
            };
            for input in first.into_iter().chain(inbox.try_iter()).take(ROUND_MAX) {
                match input {
                    Input::Stop => stop_at = stop_at.or(Some(Instant::now() + STOP_MAX)),
                    Input::Propose { done, .. } if stop_at.is_some() => {
                        done.answer(Err(Refusal::Stopped));
                    }
                    Input::Propose { data, done } => self.propose(data, done),
                    Input::Log(Report::Durable { ticket }) => self.durable(ticket),
                    Input::Log(Report::Failed(error)) => return Stop::Failed(text(&error)),
                    Input::SnapshotSaved { disk, saved } => self.saved(disk, saved),
                }
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.node.tick();
            }
        }
    }

    fn propose(&mut self, data: Vec<u8>, done: Done<M::Outcome>) {
        if !self.leads {
            return done.answer(Err(Refusal::NotLeader));
        }
        match self.node.propose(Vec::new(), data) {
            Ok(()) => {
                let index = self.node.raft.raft_log.last_index();
                self.pending.add(index, self.node.raft.term, done);
            }
            Err(raft::Error::ProposalDropped) => done.answer(Err(Refusal::NotLeader)),
            Err(error) => {
                tracing::warn!(%error, "raft refused a proposal");
                done.answer(Err(Refusal::NotLeader));
            }
        }
    }

    fn durable(&mut self, ticket: u64) {
        while self
            .in_flight
            .pop_front_if(|first| *first <= ticket)
            .is_some()
        {}
        self.node.on_persist_ready(ticket);
    }

    /// Takes everything that raft has ready.
    fn ready(&mut self) -> Result<(), String> {
        while self.in_flight.len() < IN_FLIGHT_MAX && self.node.has_ready() {
            let mut ready = self.node.ready();
            let ticket = ready.number();
            let entries = ready.take_entries();
            let hard_state = ready.hs().map(|state| {
                let log_state = log::HardState {
                    term: state.term,
                    vote: state.vote,
                    commit: state.commit,
                };
                self.node.mut_store().set_hard_state(state.clone());
                log_state
            });
            self.node.mut_store().append(&entries);
            if !entries.is_empty() || hard_state.is_some() {
                let request = Request::Append {
                    ticket,
                    entries: entries.iter().map(storage::to_log).collect(),
                    hard_state,
                    sync: ready.must_sync(),
                };
                self.log.send(request).map_err(|error| text(&error))?;
                self.in_flight.push_back(ticket);
            }
            let committed = ready.take_committed_entries();
            self.node.advance_append_async(ready);
            self.apply(committed)?;
        }
        // It begins to lead by applying an entry, which publishes; it ends by a message.
        if self.leads && !self.leads_now() {
            self.leads = false;
            self.machine.publish(self.applied_index, false);
        }
        self.maybe_snapshot();
        Ok(())
    }

    /// Leads, and has applied an entry of its own term and so all of earlier ones.
    fn leads_now(&self) -> bool {
        let raft = &self.node.raft;
        raft.state == StateRole::Leader && self.applied_term == raft.term
    }

    fn apply(&mut self, committed: Vec<Entry>) -> Result<(), String> {
        let Some(last) = committed.last() else {
            return Ok(());
        };
        let (index, term) = (last.index, last.term);
        let mut answers = Vec::new();
        for entry in committed {
            self.snapshots.entries += 1;
            self.snapshots.bytes += entry.data.len() as u64;
            let done = self.pending.take(entry.index, entry.term);
            match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => match self.machine.apply(entry.index, &entry.data) {
                    Ok(outcome) => {
                        answers.extend(done.map(|done| (done, entry.index, outcome)));
                    }
                    Err(error) => {
                        let reason = text(&error);
                        let unpublished = answers.into_iter().map(|(done, ..)| done);
                        for done in unpublished.chain(done) {
                            done.answer(Err(Refusal::Failed(reason.clone())));
                        }
                        return Err(reason);
                    }
                },
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    return Err(format!(
                        "entry {} changes the members of the group, which this version of \
                         Gantry does not know",
                        entry.index
                    ));
                }
            }
        }
        self.applied_index = index;
        self.applied_term = term;
        self.node.advance_apply_to(index);
        self.leads = self.leads_now();
        self.machine.publish(index, self.leads);
        for (done, index, outcome) in answers {
            done.answer(Ok((index, outcome)));
        }
        Ok(())
    }

    fn maybe_snapshot(&mut self) {
        let due = self.snapshots.entries >= self.snapshots.every
            || self.snapshots.bytes >= SNAPSHOT_BYTES;
        if !due {
            return;
        }
        let Some(mut disk) = self.snapshots.disk.take() else {
            return;
        };
        self.snapshots.entries = 0;
        self.snapshots.bytes = 0;
        let (index, term) = (self.applied_index, self.applied_term);
        let membership = storage::membership(self.node.store().membership());
        let encode = self.machine.snapshot();
        let inputs = self.inputs.clone();
        let body = move || {
            let snapshot = Snapshot {
                index,
                term,
                membership,
                data: encode(),
            };
            let saved = snapshot::save(disk.as_mut(), &snapshot).map(|()| index);
            // The driver is gone only while everything stops.
            let _ = inputs.send(Input::SnapshotSaved { disk, saved });
        };
        let thread = std::thread::Builder::new()
            .name("gantry-snapshot".to_owned())
            .spawn(body);
        if let Err(error) = thread {
            tracing::error!(%error, "cannot start the thread that writes a snapshot");
        }
    }

    fn saved(&mut self, disk: Box<dyn Disk>, saved: Result<u64, LogError>) {
        self.snapshots.disk = Some(disk);
        match saved {
            Ok(index) => {
                tracing::debug!(index, "snapshot written");
                let keep_from = index.saturating_sub(TRAILING_ENTRIES);
                self.node.mut_store().compact(keep_from);
                // A log that is gone shows at the next entry.
                let _ = self.log.send(Request::Compact { index: keep_from });
            }
            Err(error) => {
                tracing::error!(reason = text(&error), "no snapshot; the log keeps growing");
            }
        }
    }
}
