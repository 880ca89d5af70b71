//! Reads all segments at start: checks that nothing durable is missing, cuts a torn tail off and
//! says so, and puts the entries together by raft's conflict rule.
//!
//! Nothing on disk is changed before everything has been read and judged.

use bytes::Bytes;

use super::record::{Kind, Record};
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
        snapshot_index: u64,
        fresh_salt: u32,
    ) -> Result<Self, LogError> {
        let (numbers, salt) = list(disk)?;
        let salt = salt.unwrap_or(fresh_salt);
        let mut cursor = Cursor::oldest(salt, numbers.first().copied().unwrap_or(1));
        let mut entries = Entries {
            snapshot_index,
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
            repair = judge(&found, is_last, name, path, entries.last_index())?;
            if !matches!(repair, Some(Repair::Remove { .. })) {
                segments.push(Segment {
                    number: *number,
                    end_bytes: found.end_offset as u64,
                    size_bytes: bytes.len() as u64,
                    max_index,
                });
            }
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

/// What has to be done to the segment, or why the log must not be used.
fn judge(
    found: &scan::Scan<'_>,
    is_last: bool,
    name: String,
    path: String,
    last_index: u64,
) -> Result<Option<Repair>, LogError> {
    let offset = found.end_offset;
    let words = |flaw: Option<super::record::Flaw>| {
        flaw.map_or_else(
            || "it was never written".to_owned(),
            |flaw| flaw.to_string(),
        )
    };
    match found.end {
        End::Clean => {
            if is_last && found.cursor.last.is_some_and(|(_, ended)| !ended) {
                tracing::warn!(%path, offset, last_index, "the last write to the log is incomplete");
            }
            Ok(None)
        }
        End::Newer => Err(LogError::Newer { path }),
        End::Torn { flaw } if is_last => {
            let why = words(flaw);
            tracing::warn!(%path, offset, why, last_index, "cut the unfinished end off the log");
            Ok(Some(if offset == 0 {
                Repair::Remove { name }
            } else {
                Repair::Cut {
                    name,
                    offset: offset as u64,
                }
            }))
        }
        End::Torn { flaw } => Err(LogError::Corrupt {
            path,
            offset,
            flaw: words(flaw),
            last_index,
        }),
        End::Corrupt { flaw, proof } => {
            let flaw = match proof {
                Some(proof) => format!("{}; a good record follows at byte {proof}", words(flaw)),
                None => words(flaw),
            };
            Err(LogError::Corrupt {
                path,
                offset,
                flaw,
                last_index,
            })
        }
    }
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
