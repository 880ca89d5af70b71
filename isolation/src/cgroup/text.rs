//! Reading what the kernel's files say: three shapes of text.
//!
//! The kernel writes them, but which lines and keys there are depends on its version: what is missing
//! or strange counts nothing. Invariant: no text makes these panic, and what they keep is bounded by
//! the text's length.

use std::collections::BTreeMap;

/// Numbers of one device: what it has done in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoUsage {
    /// Number of its driver.
    pub major: u32,
    /// Number within the driver.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// The number after `key` in lines of `key number`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
}

/// `major:minor`.
fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Adds lines of `io.stat` (v2): `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`.
pub(super) fn io_stat(text: &str) -> Vec<IoUsage> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = device(words.next()?)?;
        let mut found = IoUsage {
            major,
            minor,
            ..IoUsage::default()
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => found.read_bytes = value,
                "wbytes" => found.written_bytes = value,
                "rios" => found.reads = value,
                "wios" => found.writes = value,
                _ => {}
            }
        }
        Some(found)
    };
    text.lines().filter_map(line).collect()
}

/// Adds lines of `blkio.throttle.io_service_bytes` and `io_serviced` (v1): `8:0 Read 1`.
pub(super) fn blkio(bytes: &str, operations: &str) -> Vec<IoUsage> {
    let mut found: BTreeMap<(u32, u32), IoUsage> = BTreeMap::new();
    let mut add = |text: &str, pick: fn(&mut IoUsage) -> (&mut u64, &mut u64)| {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(number), Some(what), Some(Ok(count))) = (
                words.next().and_then(device),
                words.next(),
                words.next().map(str::parse::<u64>),
            ) else {
                continue;
            };
            let usage = found.entry(number).or_insert(IoUsage {
                major: number.0,
                minor: number.1,
                ..IoUsage::default()
            });
            let (reads, writes) = pick(usage);
            match what {
                "Read" => *reads = count,
                "Write" => *writes = count,
                _ => {}
            }
        }
    };
    add(bytes, |usage| {
        (&mut usage.read_bytes, &mut usage.written_bytes)
    });
    add(operations, |usage| (&mut usage.reads, &mut usage.writes));
    found.into_values().collect()
}

/// How much of the time processes waited for a resource (PSI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one waited.
    pub some: Stall,
    /// All waited at once.
    pub full: Stall,
}

/// Shares of time, in hundredths of a percent, and the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Over ten seconds.
    pub avg10: u32,
    /// Over a minute.
    pub avg60: u32,
    /// Over five minutes.
    pub avg300: u32,
    /// Microseconds in all.
    pub total_us: u64,
}

/// Lines of `cpu.pressure` and its like: `some avg10=0.00 avg60=0.12 avg300=1.00 total=5`. None
/// without a line for "some".
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let mut words = text
            .lines()
            .map(str::split_whitespace)
            .find_map(|mut words| (words.next() == Some(kind)).then_some(words))?;
        let mut stall = Stall::default();
        for (key, value) in words.by_ref().filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => stall.avg10 = hundredths(value)?,
                "avg60" => stall.avg60 = hundredths(value)?,
                "avg300" => stall.avg300 = hundredths(value)?,
                "total" => stall.total_us = value.parse().ok()?,
                _ => {}
            }
        }
        Some(stall)
    };
    Some(Pressure {
        some: stall("some")?,
        // Not for CPUs before Linux 5.13.
        full: stall("full").unwrap_or_default(),
    })
}

/// `1.25` is 125; the kernel always writes two places.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, rest) = text.split_once('.')?;
    let (whole, rest): (u32, u32) = (whole.parse().ok()?, rest.parse().ok()?);
    whole.checked_mul(100)?.checked_add(rest)
}

#[cfg(test)]
mod tests;
