//! The write-ahead log of consensus: entries and hard state, durable before anybody is told.
//!
//! It decides where records go, when a segment is full and which segments are no longer needed.
//! It does not know what entries mean and does not batch: [`thread`] collects what is queued and
//! hands it over as one batch, which is one write and one sync.
//!
//! Files are named `<number>-<salt>.wal` in hexadecimal. Invariants:
//! - Numbers have no gaps; a segment is begun only when everything before is durable.
//! - Each batch begins with the hard state, so any suffix of segments is complete by itself and
//!   an entry is never on disk without the term it was written in.
//! - An entry whose index is not larger than that of the one before replaces everything from its
//!   index on (raft's conflict rule); nothing is overwritten in place.
//! - After a failed write the log refuses all further ones: what reached the disk is not known
//!   until it is read again (fsync(2) reports an error only once).

mod disk;
mod error;
mod files;
mod record;
mod replay;
mod ring;
mod scan;
pub(crate) mod snapshot;
pub(crate) mod thread;

#[cfg(test)]
pub(crate) mod faulty;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;

pub(crate) use disk::Disk;
pub use error::LogError;
pub(crate) use files::Files;
use record::{HEADER_BYTES, Kind, Record, encode, size};
use replay::{Replay, Segment};

/// Size of a segment. A batch that does not fit gets a segment of its own size. Segments that are
/// smaller count as cut short: a larger value here would refuse the logs of older versions.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
/// Most bytes of entries in one batch; [`thread`] holds it.
pub(crate) const BATCH_MAX_BYTES: usize = 16 << 20;

/// Which kind of entry, as raft sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Normal,
    ConfChange,
    ConfChangeV2,
}

/// One entry of the raft log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) kind: EntryKind,
    pub(crate) data: Bytes,
}

/// Raft's hard state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HardState {
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) commit: u64,
}

/// What was found on disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Entries after the snapshot, without gaps.
    pub(crate) entries: Vec<Entry>,
    pub(crate) hard_state: HardState,
}

/// The open log. Calls block until the disk has answered.
pub(crate) struct Log {
    disk: Box<dyn Disk>,
    salt: u32,
    /// Segments that are no longer written, oldest first.
    sealed: VecDeque<Segment>,
    current: Option<Segment>,
    next_number: u64,
    next_batch: u64,
    hard_state: HardState,
    segment_bytes: u64,
    buffer: Vec<u8>,
    failed: bool,
}

fn segment_name(number: u64, salt: u32) -> String {
    format!("{number:016x}-{salt:08x}.wal")
}

/// One batch on its way to bytes.
struct Writing<'a> {
    out: &'a mut Vec<u8>,
    salt: u32,
    batch: u64,
}

impl Writing<'_> {
    fn record(&mut self, kind: Kind, last: bool, (index, term): (u64, u64), payload: &[u8]) {
        let record = Record {
            kind,
            batch: self.batch,
            last,
            index,
            term,
            payload,
        };
        encode(self.out, self.salt, &record);
    }

    /// `opens`: the number of the segment that begins with this batch.
    fn batch(mut self, opens: Option<u64>, hard_state: HardState, entries: &[Entry]) {
        if let Some(number) = opens {
            self.record(
                Kind::Segment,
                false,
                (number, 0),
                &scan::FORM_VERSION.to_le_bytes(),
            );
        }
        let HardState { term, vote, commit } = hard_state;
        self.record(
            Kind::HardState,
            entries.is_empty(),
            (commit, term),
            &vote.to_le_bytes(),
        );
        for (at, entry) in entries.iter().enumerate() {
            let kind = match entry.kind {
                EntryKind::Normal => Kind::Normal,
                EntryKind::ConfChange => Kind::ConfChange,
                EntryKind::ConfChangeV2 => Kind::ConfChangeV2,
            };
            let last = at + 1 == entries.len();
            self.record(kind, last, (entry.index, entry.term), &entry.data);
        }
    }
}

impl Log {
    /// Reads the log, cuts a torn tail off, and is ready to append. `snapshot_index` is the last
    /// index that a snapshot covers, `fresh_salt` is used when there is no log yet.
    ///
    /// # Errors
    /// `Corrupt` and its kin when the disk has lost what had been durable; nothing was changed.
    pub(crate) fn open(
        disk: Box<dyn Disk>,
        snapshot_index: u64,
        fresh_salt: u32,
    ) -> Result<(Self, Recovered), LogError> {
        Self::open_sized(disk, snapshot_index, fresh_salt, SEGMENT_BYTES)
    }

    /// [`Self::open`] with segments of a size of their own.
    fn open_sized(
        mut disk: Box<dyn Disk>,
        snapshot_index: u64,
        fresh_salt: u32,
        segment_bytes: u64,
    ) -> Result<(Self, Recovered), LogError> {
        let expected = replay::Expected {
            snapshot_index,
            segment_bytes,
        };
        let replay = Replay::read(disk.as_mut(), expected, fresh_salt)?;
        let mut sealed: VecDeque<Segment> = replay.segments.into();
        let current = sealed.pop_back();
        let log = Self {
            disk,
            salt: replay.salt,
            next_number: current.as_ref().map_or(1, |segment| segment.number + 1),
            current,
            sealed,
            next_batch: replay.next_batch,
            hard_state: replay.recovered.hard_state,
            segment_bytes,
            buffer: Vec::new(),
            failed: false,
        };
        Ok((log, replay.recovered))
    }

    /// Writes entries and hard state as one batch; returns once they are durable.
    ///
    /// # Errors
    /// `Write` or `Create` when the disk refuses, `Failed` ever after.
    pub(crate) fn append(
        &mut self,
        entries: &[Entry],
        hard_state: HardState,
    ) -> Result<(), LogError> {
        if self.failed {
            return Err(LogError::Failed);
        }
        self.failed = true; // until everything below has gone well
        let body = size(8)
            + entries
                .iter()
                .map(|entry| size(entry.data.len()))
                .sum::<usize>();
        let room = self
            .current
            .as_ref()
            .map_or(0, |s| s.size_bytes.saturating_sub(s.end_bytes));
        if body as u64 > room {
            self.roll(body + size(4))?;
        }
        let current = self.current.as_mut().expect("roll has made one");
        self.buffer.clear();
        let opens = (current.end_bytes == 0).then_some(current.number);
        let writing = Writing {
            out: &mut self.buffer,
            salt: self.salt,
            batch: self.next_batch,
        };
        writing.batch(opens, hard_state, entries);
        let name = segment_name(current.number, self.salt);
        self.disk
            .append(&name, current.end_bytes, &self.buffer)
            .map_err(|source| LogError::Write {
                path: self.disk.describe(&name),
                source,
            })?;
        current.end_bytes += self.buffer.len() as u64;
        if let Some(max) = entries.iter().map(|entry| entry.index).max() {
            current.max_index = current.max_index.max(max);
        }
        self.next_batch += 1;
        self.hard_state = hard_state;
        self.failed = false;
        Ok(())
    }

    fn roll(&mut self, body: usize) -> Result<(), LogError> {
        let size_bytes = self.segment_bytes.max((body + HEADER_BYTES) as u64);
        let number = self.next_number;
        let name = segment_name(number, self.salt);
        self.disk
            .create(&name, size_bytes)
            .map_err(|source| LogError::Create {
                path: self.disk.describe(&name),
                source,
            })?;
        self.next_number += 1;
        let fresh = Segment {
            number,
            end_bytes: 0,
            size_bytes,
            max_index: 0,
        };
        self.sealed.extend(self.current.replace(fresh));
        Ok(())
    }

    /// Removes the segments of which every entry is at most `index`, oldest first. The one that
    /// is being written stays.
    ///
    /// # Errors
    /// `Remove`; the log goes on all the same, the files are tried again at the next call.
    pub(crate) fn compact(&mut self, index: u64) -> Result<(), LogError> {
        while let Some(oldest) = self.sealed.front()
            && oldest.max_index <= index
        {
            let name = segment_name(oldest.number, self.salt);
            self.disk.remove(&name).map_err(|source| LogError::Remove {
                path: self.disk.describe(&name),
                source,
            })?;
            self.sealed.pop_front();
        }
        Ok(())
    }

    /// The hard state that is on disk.
    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }
}
