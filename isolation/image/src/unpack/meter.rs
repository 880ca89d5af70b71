//! Counting and hashing what comes out of the inflater, and stopping it when it is too much.
//!
//! A bound that is hit is a read error with [`Exceeded`] inside, which the unpacker turns back into
//! the refusal; so no path through the archive reader can miss it.

use std::io::{self, BufRead, Read};

use super::UnpackError;
use crate::Digest;
use crate::recipe::Notes;
use gantry_intake::Hasher;
use gantry_intake::TarError;

/// Bounds of one layer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most entries.
    pub entries: u64,
    /// Most uncompressed bytes.
    pub bytes: u64,
    /// Most uncompressed bytes for each compressed one, beyond `ratio_floor_bytes`.
    pub ratio: u64,
    /// Uncompressed bytes up to which the ratio does not matter.
    pub ratio_floor_bytes: u64,
}

impl Default for Limits {
    /// Gzip cannot do better than 1:1032, and only on nothing but zeros; real layers stay below 1:20.
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            bytes: 64 << 30,
            ratio: 200,
            ratio_floor_bytes: 512 << 20,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Exceeded(String);

pub(crate) struct Metered<R> {
    input: R,
    hasher: Hasher,
    seen: u64,
    most: u64,
    reason: String,
    notes: Notes,
    /// Bytes to come that are the content of a file and not to be noted.
    content: u64,
}

impl<R: BufRead> Metered<R> {
    pub(crate) fn new(input: R, limits: &Limits, compressed_bytes: u64, notes: Notes) -> Self {
        let by_ratio = compressed_bytes
            .saturating_mul(limits.ratio)
            .max(limits.ratio_floor_bytes);
        let (most, reason) = if by_ratio < limits.bytes {
            (
                by_ratio,
                format!("{} times its compressed size", limits.ratio),
            )
        } else {
            (limits.bytes, format!("{} bytes", limits.bytes))
        };
        Self {
            input,
            hasher: Hasher::new(),
            seen: 0,
            most,
            reason,
            notes,
            content: 0,
        }
    }

    /// What follows is the content of the file at `path`.
    pub(crate) fn content(&mut self, path: &[u8], size_bytes: u64) {
        self.notes.content(path, size_bytes);
        self.content = size_bytes;
    }

    /// A file gave way to another: the archive cannot be made again from what is left.
    pub(crate) fn lost_content(&mut self) {
        self.notes.give_up();
    }

    /// Reads what is left (padding after the archive) and returns the digest of everything, and
    /// whether the notes are complete.
    pub(crate) fn finish(mut self) -> Result<(Digest, bool), UnpackError> {
        loop {
            let length = self.fill_buf().map_err(TarError::Read)?.len();
            if length == 0 {
                return Ok((self.hasher.finish(), self.notes.finish()));
            }
            self.consume(length);
        }
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.input.fill_buf()?;
        if !available.is_empty() && self.seen >= self.most {
            return Err(io::Error::other(Exceeded(self.reason.clone())));
        }
        Ok(available)
    }

    fn consume(&mut self, amount: usize) {
        // The same bytes again: a filled buffer stays until it is consumed.
        if let Ok(available) = self.input.fill_buf() {
            let taken = &available[..amount.min(available.len())];
            self.hasher.update(taken);
            let content = usize::try_from(self.content).unwrap_or(usize::MAX);
            let content = content.min(taken.len());
            self.content -= content as u64;
            if content < taken.len() {
                self.notes.bytes(&taken[content..]);
            }
        }
        self.input.consume(amount);
        self.seen = self.seen.saturating_add(amount as u64);
    }
}

impl<R: BufRead> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl From<TarError> for UnpackError {
    fn from(error: TarError) -> Self {
        if let TarError::Read(io) = &error
            && let Some(exceeded) = io
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<Exceeded>())
        {
            return Self::Bomb(exceeded.0.clone());
        }
        Self::Tar(error)
    }
}
