//! Reads all segments at start: checks that nothing durable is missing, cuts a torn tail off and
//! says so, and puts the entries together by raft's conflict rule.
//!
//! Nothing on disk is changed before everything has been read and judged.

use bytes::Bytes;

use super::record::{Flaw, Kind, Record};
use super::scan::{self, Cursor, End};
use super::{Disk, Entry, EntryKind, HardState, LogError, Recovered, segment_name};

/// A segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// Where the next record goes.
    pub(crate) end_bytes: u64,
    pub(crate) size_bytes: u64,
    /// Largest index of any entry in it, 0 without entries.
    pub(crate) max_index: u64,
}

/// What the log must agree with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Last index that a snapshot covers.
    pub(crate) snapshot_index: u64,
    /// No segment is ever smaller: its size is durable before it gets its name.
    pub(crate) segment_bytes: u64,
}

/// The log as found.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) salt: u32,
    pub(crate) segments: Vec<Segment>,
    pub(crate) next_batch: u64,
    pub(crate) recovered: Recovered,
}

enum Repair {
    Cut { name: String, offset: u64 },
    Remove { name: String },
}

/// Numbers of the segments in order, and the salt that all share.
fn list(disk: &mut dyn Disk) -> Result<(Vec<u64>, Option<u32>), LogError> {
    let mut numbers = Vec::new();
    let mut salt = None;
    for name in disk.list().map_err(LogError::List)? {
        let Some(stem) = name.strip_suffix(".wal") else {
            continue;
        };
        let parts = stem.split_once('-').and_then(|(number, salt)| {
            Some((
                u64::from_str_radix(number, 16).ok()?,
                u32::from_str_radix(salt, 16).ok()?,
            ))
        });
        let Some((number, its)) = parts else {
            return Err(LogError::Foreign { name });
        };
        if segment_name(number, its) != name || *salt.get_or_insert(its) != its {
            return Err(LogError::Foreign { name });
        }
        numbers.push(number);
    }
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 {
            return Err(LogError::Missing {
                missing: pair[0] + 1,
            });
        }
    }
    Ok((numbers, salt))
}

/// Entries under construction.
struct Entries {
    snapshot_index: u64,
    list: Vec<Entry>,
    hard_state: HardState,
}

impl Entries {
    fn last_index(&self) -> u64 {
        self.list
            .last()
            .map_or(self.snapshot_index, |entry| entry.index)
    }

    fn take(&mut self, record: &Record<'_>) -> Result<(), LogError> {
        let kind = match record.kind {
            Kind::Segment => return Ok(()),
            Kind::HardState => {
                let vote = record.payload.try_into().map_or(0, u64::from_le_bytes);
                let (term, commit) = (record.term, record.index);
                self.hard_state = HardState { term, vote, commit };
                return Ok(());
            }
            Kind::Normal => EntryKind::Normal,
            Kind::ConfChange => EntryKind::ConfChange,
            Kind::ConfChangeV2 => EntryKind::ConfChangeV2,
        };
        let keep = self
            .list
            .partition_point(|entry| entry.index < record.index);
        self.list.truncate(keep);
        if let Some(last) = self.list.last()
            && last.index + 1 != record.index
        {
            return Err(LogError::Gap {
                snapshot: last.index,
                first: record.index,
            });
        }
        let data = Bytes::copy_from_slice(record.payload);
        self.list.push(Entry {
            index: record.index,
            term: record.term,
            kind,
            data,
        });
        Ok(())
    }

    /// Drops what the snapshot covers and checks that the rest follows it.
    fn finish(mut self) -> Result<Recovered, LogError> {
        let covered = self
            .list
            .partition_point(|entry| entry.index <= self.snapshot_index);
        self.list.drain(..covered);
        if let Some(first) = self.list.first()
            && first.index != self.snapshot_index + 1
        {
            return Err(LogError::Gap {
                snapshot: self.snapshot_index,
                first: first.index,
            });
        }
        let last = self.last_index();
        if self.hard_state.commit > last {
            tracing::error!(
                committed = self.hard_state.commit,
                last,
                "entries that had been committed are missing from the end of the log; going on \
                 without them"
            );
            self.hard_state.commit = last;
        }
        self.hard_state.commit = self.hard_state.commit.max(self.snapshot_index);
        Ok(Recovered {
            entries: self.list,
            hard_state: self.hard_state,
        })
    }
}

impl Replay {
    /// Reads and repairs. See [`super::Log::open`].
    pub(crate) fn read(
        disk: &mut dyn Disk,
        expected: Expected,
        fresh_salt: u32,
    ) -> Result<Self, LogError> {
        let (numbers, salt) = list(disk)?;
        let salt = salt.unwrap_or(fresh_salt);
        let mut cursor = Cursor::oldest(salt, numbers.first().copied().unwrap_or(1));
        let mut entries = Entries {
            snapshot_index: expected.snapshot_index,
            list: Vec::new(),
            hard_state: HardState::default(),
        };
        let mut segments = Vec::new();
        let mut repair = None;
        for number in &numbers {
            let name = segment_name(*number, salt);
            let path = disk.describe(&name);
            let bytes = disk.read(&name).map_err(|source| LogError::Read {
                path: path.clone(),
                source,
            })?;
            full(&path, bytes.len() as u64, expected)?;
            let found = scan::segment(&bytes, *number, cursor);
            cursor = found.cursor;
            let mut max_index = 0;
            for record in &found.records {
                entries.take(record)?;
                if !matches!(record.kind, Kind::HardState | Kind::Segment) {
                    max_index = max_index.max(record.index);
                }
            }
            let is_last = Some(number) == numbers.last();
            let place = Place {
                name,
                path,
                is_last,
            };
            repair = judge(&found, &bytes, place, entries.last_index())?;
            if !matches!(repair, Some(Repair::Remove { .. })) {
                segments.push(Segment {
                    number: *number,
                    end_bytes: found.end_offset as u64,
                    size_bytes: bytes.len() as u64,
                    max_index,
                });
            }
        }
        // A snapshot is made of what was durable in the log, and the newest segment is never removed.
        if segments.is_empty() && expected.snapshot_index > 0 {
            return Err(LogError::Lost {
                snapshot: expected.snapshot_index,
            });
        }
        let recovered = entries.finish()?;
        if let Some(repair) = repair {
            carry_out(disk, repair)?;
        }
        let next_batch = cursor.expected_batch().unwrap_or(1);
        Ok(Self {
            salt,
            segments,
            next_batch,
            recovered,
        })
    }
}

/// A segment that is being judged.
struct Place {
    name: String,
    path: String,
    /// Whether no other follows.
    is_last: bool,
}

/// Refuses a segment file that was cut short: no crash does that.
fn full(path: &str, found: u64, expected: Expected) -> Result<(), LogError> {
    if found >= expected.segment_bytes {
        return Ok(());
    }
    Err(LogError::Short {
        path: path.to_owned(),
        found,
        size: expected.segment_bytes,
    })
}

fn words(flaw: Option<Flaw>) -> String {
    flaw.map_or_else(
        || "it was never written".to_owned(),
        |flaw| flaw.to_string(),
    )
}

/// What has to be done to the segment, or why the log must not be used.
fn judge(
    found: &scan::Scan<'_>,
    bytes: &[u8],
    place: Place,
    last_index: u64,
) -> Result<Option<Repair>, LogError> {
    let Place {
        name,
        path,
        is_last,
    } = place;
    let offset = found.end_offset;
    let flaw = match found.end {
        End::Clean => {
            if is_last && found.cursor.last.is_some_and(|(_, ended)| !ended) {
                tracing::warn!(%path, offset, last_index, "the last write to the log is incomplete");
            }
            return Ok(None);
        }
        End::Newer => return Err(LogError::Newer { path }),
        End::Torn { flaw } if is_last => return Ok(Some(cut(name, &path, bytes, offset, flaw))),
        End::Torn { flaw } | End::Corrupt { flaw, proof: None } => words(flaw),
        End::Corrupt {
            flaw,
            proof: Some(proof),
        } => format!("{}; a good record follows at byte {proof}", words(flaw)),
    };
    Err(LogError::Corrupt {
        path,
        offset,
        flaw,
        last_index,
        size: bytes.len(),
    })
}

/// The unfinished end of the last segment goes, and people are told what that may mean.
fn cut(name: String, path: &str, bytes: &[u8], offset: usize, flaw: Option<Flaw>) -> Repair {
    let why = words(flaw);
    let lost = lost_bytes(bytes, offset);
    if lost > 0 {
        tracing::warn!(
            %path, offset, lost, why,
            "cutting {lost} bytes of an unfinished write off the end of the log. After a crash of \
             the machine that is right: nobody was told that it had succeeded. If there was no \
             crash, the disk has damaged it, and changes that had been acknowledged may be lost"
        );
    }
    if offset == 0 {
        return Repair::Remove { name };
    }
    let offset = offset as u64;
    Repair::Cut { name, offset }
}

/// How much was written after `offset`.
pub(super) fn lost_bytes(bytes: &[u8], offset: usize) -> usize {
    let written = bytes.iter().rposition(|byte| *byte != 0);
    written.map_or(0, |last| (last + 1).saturating_sub(offset))
}

fn carry_out(disk: &mut dyn Disk, repair: Repair) -> Result<(), LogError> {
    match repair {
        Repair::Cut { name, offset } => disk.cut(&name, offset).map_err(|source| LogError::Cut {
            path: disk.describe(&name),
            source,
        }),
        Repair::Remove { name } => disk.remove(&name).map_err(|source| LogError::Remove {
            path: disk.describe(&name),
            source,
        }),
    }
}
