//! Snapshot files: the state at one index, whole or not at all.
//!
//! ```text
//! magic (8) | head length u32 | crc32c of head u32 | head (protobuf) | data
//! ```
//! The newest file counts; older ones are removed after it is durable. A damaged newest file is
//! refused, never skipped: the log before it is gone.

use prost::Message;

use super::{Disk, LogError};

const MAGIC: &[u8; 8] = b"GANTSNP1";
const SUFFIX: &str = ".snapshot";
const PREFIX_BYTES: usize = 16;

/// Who belongs to the group; raft's `ConfState`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Membership {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) learners: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) voters_outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) learners_next: Vec<u64>,
    #[prost(bool, tag = "5")]
    pub(crate) auto_leave: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(message, optional, tag = "3")]
    membership: Option<Membership>,
    #[prost(uint64, tag = "4")]
    data_bytes: u64,
    #[prost(uint32, tag = "5")]
    data_crc: u32,
}

/// A snapshot. Index 0 is the state that a new group begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) membership: Membership,
    pub(crate) data: Vec<u8>,
}

fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let head = Head {
        index: snapshot.index,
        term: snapshot.term,
        membership: Some(snapshot.membership.clone()),
        data_bytes: snapshot.data.len() as u64,
        data_crc: crc32c::crc32c(&snapshot.data),
    }
    .encode_to_vec();
    let mut out = Vec::with_capacity(PREFIX_BYTES + head.len() + snapshot.data.len());
    out.extend_from_slice(MAGIC);
    let length = u32::try_from(head.len()).expect("a membership has a few members");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&snapshot.data);
    out
}

/// Reads a snapshot file's bytes. Total; the error says what is wrong.
fn decode(bytes: &[u8]) -> Result<Snapshot, &'static str> {
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if bytes.get(..8) != Some(MAGIC) {
        return Err("its beginning is not that of a snapshot");
    }
    let (Some(length), Some(crc)) = (word(8), word(12)) else {
        return Err("it is cut short");
    };
    let end = PREFIX_BYTES.saturating_add(length as usize);
    let head = bytes.get(PREFIX_BYTES..end).ok_or("it is cut short")?;
    if crc32c::crc32c(head) != crc {
        return Err("the checksum of its head is wrong");
    }
    let head = Head::decode(head).map_err(|_| "its head cannot be read")?;
    let data = &bytes[end..];
    if data.len() as u64 != head.data_bytes {
        return Err("it is cut short");
    }
    if crc32c::crc32c(data) != head.data_crc {
        return Err("the checksum of its data is wrong");
    }
    let membership = head.membership.ok_or("it names no members")?;
    Ok(Snapshot {
        index: head.index,
        term: head.term,
        membership,
        data: data.to_vec(),
    })
}

fn index_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()
}

fn name_of(index: u64) -> String {
    format!("{index:016x}{SUFFIX}")
}

/// The newest snapshot, `None` when there is none yet.
///
/// # Errors
/// `Snapshot` when it is damaged, or the disk's own.
pub(crate) fn load(disk: &mut dyn Disk) -> Result<Option<Snapshot>, LogError> {
    let names = disk.list().map_err(LogError::List)?;
    let Some(newest) = names.iter().filter_map(|name| index_of(name)).max() else {
        return Ok(None);
    };
    let name = name_of(newest);
    let path = disk.describe(&name);
    let bytes = disk.read(&name).map_err(|source| LogError::Read {
        path: path.clone(),
        source,
    })?;
    match decode(&bytes) {
        Ok(snapshot) if snapshot.index == newest => Ok(Some(snapshot)),
        Ok(_) => Err(LogError::Snapshot {
            path,
            flaw: "its name is not its own".to_owned(),
        }),
        Err(flaw) => Err(LogError::Snapshot {
            path,
            flaw: flaw.to_owned(),
        }),
    }
}

/// Makes the snapshot durable, then removes the older ones. A failure to remove is only logged.
///
/// # Errors
/// `Write` when the disk refuses; the older snapshot then still counts.
pub(crate) fn save(disk: &mut dyn Disk, snapshot: &Snapshot) -> Result<(), LogError> {
    let name = name_of(snapshot.index);
    disk.put(&name, &encode(snapshot))
        .map_err(|source| LogError::Write {
            path: disk.describe(&name),
            source,
        })?;
    let names = disk.list().map_err(LogError::List)?;
    for old in names
        .iter()
        .filter(|name| index_of(name).is_some_and(|i| i < snapshot.index))
    {
        if let Err(error) = disk.remove(old) {
            tracing::warn!(%error, old, "cannot remove an old snapshot");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::faulty::MemoryDisk;

    fn sample(index: u64) -> Snapshot {
        let membership = Membership {
            voters: vec![1, 2],
            ..Membership::default()
        };
        Snapshot {
            index,
            term: 3,
            membership,
            data: vec![7; 100],
        }
    }

    #[test]
    fn the_newest_is_loaded_and_older_ones_go() {
        let mut disk = MemoryDisk::default();
        assert_eq!(load(&mut disk).unwrap(), None);
        save(&mut disk, &sample(4)).unwrap();
        save(&mut disk, &sample(9)).unwrap();
        assert_eq!(load(&mut disk).unwrap(), Some(sample(9)));
        assert_eq!(disk.list().unwrap(), vec![name_of(9)]);
    }

    #[test]
    fn any_damage_is_refused() {
        let bytes = encode(&sample(4));
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0x10;
            assert!(decode(&bent).is_err(), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "length {at}");
        }
    }
}
