//! Reads the bytes of one segment and says how it ends. Pure.
//!
//! The question that matters: is a bad place the torn end of the last write, which nobody was
//! told about and may be cut off, or has the disk lost something that had been durable? Batch n+1
//! is only written once batch n is durable ([`super::record`]), so any good record of a batch
//! after the one that was being written proves the loss.
//!
//! Not decided here: what the entries mean. Limit: damage inside the very last batch looks the
//! same as a torn write.

use super::record::{ALIGN, Decoded, Flaw, Kind, Record, decode};

/// Version of the form on disk, in the payload of each segment's first record.
pub(crate) const FORM_VERSION: u32 = 1;

/// Where the reader stands between segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The log's salt.
    pub(crate) salt: u32,
    /// Batch of the last good record and whether it ended its batch.
    pub(crate) last: Option<(u64, bool)>,
}

impl Cursor {
    /// Before the oldest segment: number 1 begins with batch 1, what others begin with is known
    /// only to themselves.
    pub(crate) fn oldest(salt: u32, number: u64) -> Self {
        Self {
            salt,
            last: (number == 1).then_some((0, true)),
        }
    }

    /// The batch that the next record must belong to; `None` when anything goes.
    pub(crate) fn expected_batch(self) -> Option<u64> {
        self.last.map(|(batch, ended)| batch + u64::from(ended))
    }

    fn follows(self, record: &Record<'_>) -> bool {
        self.expected_batch()
            .is_none_or(|batch| batch == record.batch)
    }
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// After its last record there are only zeros. Whether that record ended its batch is in
    /// the cursor; the numbers of the batches show whether anything is missing.
    Clean,
    /// The last write did not finish; `flaw` is `None` when its beginning was never written.
    Torn { flaw: Option<Flaw> },
    /// What had been durable is damaged; a later record at `proof` is good.
    Corrupt {
        flaw: Option<Flaw>,
        proof: Option<usize>,
    },
    /// Written by a newer version: nothing may be cut.
    Newer,
}

/// One segment, read.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    /// The good records in order, the segment's own first record left out.
    pub(crate) records: Vec<Record<'a>>,
    /// Offset after the last good record.
    pub(crate) end_offset: usize,
    pub(crate) end: End,
    /// Where the reader stands afterwards.
    pub(crate) cursor: Cursor,
}

/// The next record, or why there is none.
fn next<'a>(bytes: &'a [u8], cursor: Cursor) -> Result<(Record<'a>, usize), Option<Flaw>> {
    match decode(bytes, cursor.salt) {
        Decoded::Record(record, size) if cursor.follows(&record) => Ok((record, size)),
        Decoded::Record(..) => Err(Some(Flaw::Order)),
        Decoded::Blank => Err(None),
        Decoded::Bad(flaw) => Err(Some(flaw)),
    }
}

/// Reads segment `number`. `cursor` is the one that the segment before left.
pub(crate) fn segment(bytes: &[u8], number: u64, cursor: Cursor) -> Scan<'_> {
    let mut scan = Scan {
        records: Vec::new(),
        end_offset: 0,
        end: End::Clean,
        cursor,
    };
    let flaw = loop {
        let at = scan.end_offset;
        let (record, size) = match next(&bytes[at..], scan.cursor) {
            Ok(next) => next,
            Err(flaw) => break flaw,
        };
        let opens = record.kind == Kind::Segment && record.index == number;
        if opens != (at == 0) {
            break Some(Flaw::Order);
        }
        if opens && record.payload != FORM_VERSION.to_le_bytes() {
            break Some(Flaw::Kind);
        }
        scan.cursor.last = Some((record.batch, record.last));
        scan.end_offset = at + size;
        if !opens {
            scan.records.push(record);
        }
    };
    scan.end = match flaw {
        Some(Flaw::Kind) => End::Newer,
        flaw => judge(bytes, scan.end_offset, flaw, scan.cursor),
    };
    scan
}

/// What the bytes from `at` on, which are not the next record, are.
fn judge(bytes: &[u8], at: usize, flaw: Option<Flaw>, cursor: Cursor) -> End {
    let rest = &bytes[at..];
    // Segments before the oldest one were only removed after it had been written to.
    let Some(torn_batch) = cursor.expected_batch() else {
        return End::Corrupt { flaw, proof: None };
    };
    if rest.iter().all(|byte| *byte == 0) {
        return if at > 0 {
            End::Clean
        } else {
            End::Torn { flaw }
        };
    }
    for offset in (0..rest.len()).step_by(ALIGN) {
        if let Decoded::Record(record, _) = decode(&rest[offset..], cursor.salt)
            && record.batch > torn_batch
        {
            return End::Corrupt {
                flaw,
                proof: Some(at + offset),
            };
        }
    }
    End::Torn { flaw }
}
