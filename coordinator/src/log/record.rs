//! The form of one record of the log in bytes. Pure: no files, no clock.
//!
//! ```text
//! 0 magic u32 | 4 crc32c u32 | 8 length u32 | 12 kind u8 | 13 flags u8 | 14 zero u16
//! 16 batch u64 | 24 index u64 | 32 term u64 | 40 payload, zeros up to a multiple of 8
//! ```
//! All numbers are little-endian; the checksum covers bytes 8 to the end of the payload and starts
//! from the log's own random salt, so that a payload that looks like records (a client may send
//! one) is never taken for records.
//!
//! A *batch* is what was written by one write and made durable by one sync. Its last record
//! carries [`FLAG_LAST`]. Batch n+1 is only written once batch n is durable: that is how
//! [`super::scan`] tells a torn end from corruption of what had been durable.

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 40;
/// Longest payload that is read or written.
pub(crate) const PAYLOAD_MAX_BYTES: usize = 64 << 20;
/// Records start at multiples of this.
pub(crate) const ALIGN: usize = 8;

const MAGIC: u32 = 0x4c41_5747; // "GWAL"
const FLAG_LAST: u8 = 1;

/// What a record holds. The numbers are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// First record of a segment; `index` is the segment's number, payload the form's version.
    Segment = 1,
    /// `term`, `index` = commit, payload = vote (u64).
    HardState = 2,
    /// A command.
    Normal = 3,
    /// A `ConfChange` of raft.
    ConfChange = 4,
    /// A `ConfChangeV2` of raft.
    ConfChangeV2 = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Segment,
            Self::HardState,
            Self::Normal,
            Self::ConfChange,
            Self::ConfChangeV2,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// One record; the payload is borrowed from what was read or is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) batch: u64,
    pub(crate) last: bool,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) payload: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("no record begins here")]
    Magic,
    #[error("its length is not possible")]
    Length,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its kind is not known to this version of Gantry")]
    Kind,
    #[error("it is not the one that follows")]
    Order,
}

/// What lies at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    /// A record and the bytes it takes, padding included.
    Record(Record<'a>, usize),
    /// Never written: zeros, or nothing.
    Blank,
    /// Something else.
    Bad(Flaw),
}

/// Bytes of a record with a payload of this length, padding included.
pub(crate) fn size(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(ALIGN)
}

/// Appends the record to `out`, whose length must be a multiple of [`ALIGN`].
pub(crate) fn encode(out: &mut Vec<u8>, salt: u32, record: &Record<'_>) {
    let start = out.len();
    let length = u32::try_from(record.payload.len()).expect("payloads are bounded before");
    assert!(record.payload.len() <= PAYLOAD_MAX_BYTES && start.is_multiple_of(ALIGN));
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[record.kind as u8, u8::from(record.last) * FLAG_LAST, 0, 0]);
    out.extend_from_slice(&record.batch.to_le_bytes());
    out.extend_from_slice(&record.index.to_le_bytes());
    out.extend_from_slice(&record.term.to_le_bytes());
    out.extend_from_slice(record.payload);
    let crc = crc32c::crc32c_append(salt, &out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("four bytes were sliced"),
    )
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("eight bytes were sliced"),
    )
}

/// Reads what `bytes` begin with. Total: any bytes get an answer.
pub(crate) fn decode(bytes: &[u8], salt: u32) -> Decoded<'_> {
    let head = &bytes[..bytes.len().min(HEADER_BYTES)];
    if head.iter().all(|byte| *byte == 0) {
        return Decoded::Blank;
    }
    if head.len() < HEADER_BYTES || u32_at(head, 0) != MAGIC {
        return Decoded::Bad(Flaw::Magic);
    }
    let length = u32_at(head, 8) as usize;
    if length > PAYLOAD_MAX_BYTES || HEADER_BYTES + length > bytes.len() {
        return Decoded::Bad(Flaw::Length);
    }
    if crc32c::crc32c_append(salt, &bytes[8..HEADER_BYTES + length]) != u32_at(head, 4) {
        return Decoded::Bad(Flaw::Checksum);
    }
    let Some(kind) = Kind::from_byte(head[12]) else {
        return Decoded::Bad(Flaw::Kind);
    };
    let record = Record {
        kind,
        last: head[13] & FLAG_LAST != 0,
        batch: u64_at(head, 16),
        index: u64_at(head, 24),
        term: u64_at(head, 32),
        payload: &bytes[HEADER_BYTES..HEADER_BYTES + length],
    };
    Decoded::Record(record, size(length).min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(payload: &[u8]) -> Record<'_> {
        Record {
            kind: Kind::Normal,
            batch: 7,
            last: true,
            index: 42,
            term: 3,
            payload,
        }
    }

    #[test]
    fn records_come_back_and_are_padded() {
        for (payload, bytes) in [
            (&b""[..], 40),
            (b"a", 48),
            (b"12345678", 48),
            (b"123456789", 56),
        ] {
            let mut out = Vec::new();
            encode(&mut out, 9, &sample(payload));
            assert_eq!((out.len(), size(payload.len())), (bytes, bytes));
            assert_eq!(decode(&out, 9), Decoded::Record(sample(payload), bytes));
        }
    }

    #[test]
    fn the_form_on_disk_does_not_change_by_accident() {
        let mut out = Vec::new();
        encode(&mut out, 9, &sample(b"hello"));
        let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "4757414ce11fc736050000000301000007000000000000002a00000000000000030000000000000068656c6c6f000000"
        );
    }

    #[test]
    fn any_flipped_bit_before_the_padding_is_seen() {
        let mut out = Vec::new();
        encode(&mut out, 9, &sample(b"some payload"));
        for bit in 0..(HEADER_BYTES + 12) * 8 {
            let mut bent = out.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&bent, 9), Decoded::Bad(_)), "bit {bit}");
        }
    }

    #[test]
    fn a_record_cut_anywhere_is_not_a_record() {
        let mut out = Vec::new();
        encode(&mut out, 9, &sample(b"some payload"));
        for length in 1..HEADER_BYTES + 12 {
            assert!(
                matches!(decode(&out[..length], 9), Decoded::Bad(_)),
                "length {length}"
            );
        }
        assert_eq!(decode(&[], 9), Decoded::Blank);
        assert_eq!(decode(&[0; 100], 9), Decoded::Blank);
    }
}
