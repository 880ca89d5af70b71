//! Amounts of what a node has, and the arithmetic on them. Integer and total: nothing here
//! overflows or panics.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, MilliCpu};

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub begin: u16,
    /// Last port, included.
    pub end: u16,
}

/// A set of ports as sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRanges(Vec<PortRange>);

impl PortRanges {
    /// From ranges in any order; reversed ones are ignored.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let mut sorted: Vec<PortRange> = ranges.into_iter().filter(|r| r.begin <= r.end).collect();
        sorted.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if u32::from(range.begin) <= u32::from(last.end) + 1 => {
                    last.end = last.end.max(range.end);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The ranges in order.
    #[must_use]
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// How many ports are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0
            .iter()
            .map(|r| usize::from(r.end - r.begin) + 1)
            .sum()
    }

    /// Whether the set holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the port is in the set.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|r| (r.begin..=r.end).contains(&port))
    }

    /// Takes one port out; whether it was there.
    pub fn remove(&mut self, port: u16) -> bool {
        let Some(at) = self
            .0
            .iter()
            .position(|r| (r.begin..=r.end).contains(&port))
        else {
            return false;
        };
        let range = self.0[at];
        let left = (range.begin < port).then(|| PortRange {
            begin: range.begin,
            end: port - 1,
        });
        let right = (port < range.end).then(|| PortRange {
            begin: port + 1,
            end: range.end,
        });
        self.0.splice(at..=at, left.into_iter().chain(right));
        true
    }

    /// Puts one port in; putting it in twice changes nothing.
    pub fn insert(&mut self, port: u16) {
        if !self.contains(port) {
            let all = self.0.drain(..).chain([PortRange {
                begin: port,
                end: port,
            }]);
            *self = Self::new(all.collect::<Vec<_>>());
        }
    }
}

impl fmt::Display for PortRanges {
    /// As Mesos prints ranges: `[31000-31999, 32005-32005]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, r) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}-{}", r.begin, r.end)?;
        }
        f.write_str("]")
    }
}

/// What a node has, or what a task takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Share of processors.
    pub cpus: MilliCpu,
    /// Memory.
    pub mem: Bytes,
    /// Disk.
    pub disk: Bytes,
    /// Whole GPUs.
    pub gpus: u64,
    /// Host ports.
    pub ports: PortRanges,
}

impl Resources {
    /// Adds amount by amount, saturating.
    pub fn add(&mut self, other: &Self) {
        self.cpus.0 = self.cpus.0.saturating_add(other.cpus.0);
        self.mem.0 = self.mem.0.saturating_add(other.mem.0);
        self.disk.0 = self.disk.0.saturating_add(other.disk.0);
        self.gpus = self.gpus.saturating_add(other.gpus);
        let all = self
            .ports
            .ranges()
            .iter()
            .chain(other.ports.ranges())
            .copied();
        self.ports = PortRanges::new(all.collect::<Vec<_>>());
    }

    /// Takes away amount by amount; what is not there stays at zero.
    pub fn subtract(&mut self, other: &Self) {
        self.cpus.0 = self.cpus.0.saturating_sub(other.cpus.0);
        self.mem.0 = self.mem.0.saturating_sub(other.mem.0);
        self.disk.0 = self.disk.0.saturating_sub(other.disk.0);
        self.gpus = self.gpus.saturating_sub(other.gpus);
        for range in other.ports.ranges() {
            for port in range.begin..=range.end {
                self.ports.remove(port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_split_and_join() {
        let mut ports = PortRanges::new([PortRange { begin: 10, end: 12 }]);
        assert!(ports.remove(11));
        assert!(!ports.remove(11));
        assert_eq!(ports.to_string(), "[10-10, 12-12]");
        assert_eq!(ports.len(), 2);
        ports.insert(11);
        ports.insert(11);
        assert_eq!(ports.to_string(), "[10-12]");
        let mut edge = PortRanges::new([PortRange {
            begin: 65535,
            end: 65535,
        }]);
        assert!(edge.remove(65535) && edge.is_empty());
    }
}
