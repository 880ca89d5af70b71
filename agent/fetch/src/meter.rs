//! Bounds of what one archive may unpack to, and the way to stop in the midst of it.
//!
//! A bound that is hit, and a cancellation, are read errors with [`Stop`] inside, which
//! [`stopped`] turns back into words; so no path through an archive reader can miss them.

use std::cell::Cell;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Cause;

/// Bounds of one archive.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most entries.
    pub entries: u64,
    /// Most bytes that come out.
    pub bytes: u64,
    /// Most bytes that come out for each one that goes in, beyond `ratio_floor_bytes`.
    pub ratio: u64,
    /// Bytes up to which the ratio does not matter.
    pub ratio_floor_bytes: u64,
}

impl Default for Bounds {
    /// Gzip cannot do better than 1:1032, and only on nothing but zeros; what people pack stays
    /// below 1:20.
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 64 << 30,
            ratio: 200,
            ratio_floor_bytes: 512 << 20,
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
enum Stop {
    #[error("more than {0}")]
    Bomb(String),
    #[error("cancelled")]
    Cancelled,
}

/// What one archive may still do.
pub(crate) struct Meter<'a> {
    entries: u64,
    entries_left: Cell<u64>,
    bytes_left: Cell<u64>,
    /// What the bound on bytes is, for people.
    reason: String,
    cancel: &'a AtomicBool,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(bounds: &Bounds, packed_bytes: u64, cancel: &'a AtomicBool) -> Self {
        let by_ratio = packed_bytes
            .saturating_mul(bounds.ratio)
            .max(bounds.ratio_floor_bytes);
        let (bytes, reason) = if by_ratio < bounds.bytes {
            (by_ratio, format!("{} times its own size", bounds.ratio))
        } else {
            (bounds.bytes, format!("{} bytes", bounds.bytes))
        };
        Self {
            entries: bounds.entries,
            entries_left: Cell::new(bounds.entries),
            bytes_left: Cell::new(bytes),
            reason,
            cancel,
        }
    }

    /// One more entry.
    pub(crate) fn entry(&self) -> Result<(), Cause> {
        self.wanted().map_err(|_| Cause::Cancelled)?;
        let Some(left) = self.entries_left.get().checked_sub(1) else {
            return Err(Cause::Bomb(format!("{} files", self.entries)));
        };
        self.entries_left.set(left);
        Ok(())
    }

    /// `inner` with its bytes counted.
    pub(crate) fn on<R>(&self, inner: R) -> Metered<'_, R> {
        Metered { inner, meter: self }
    }

    fn wanted(&self) -> io::Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other(Stop::Cancelled));
        }
        Ok(())
    }
}

/// What comes out of an inflater, counted.
pub(crate) struct Metered<'a, R> {
    inner: R,
    meter: &'a Meter<'a>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.meter.wanted()?;
        let read = self.inner.read(into)?;
        let left = self.meter.bytes_left.get();
        let Some(left) = left.checked_sub(read as u64) else {
            return Err(io::Error::other(Stop::Bomb(self.meter.reason.clone())));
        };
        self.meter.bytes_left.set(left);
        Ok(read)
    }
}

/// What a read error says that a [`Meter`] caused.
pub(crate) fn stopped(error: &io::Error) -> Option<Cause> {
    let stop = error.get_ref()?.downcast_ref::<Stop>()?;
    Some(match stop {
        Stop::Bomb(reason) => Cause::Bomb(reason.clone()),
        Stop::Cancelled => Cause::Cancelled,
    })
}
