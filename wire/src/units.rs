//! Units of resources, as integers: no floating point takes part in resource arithmetic.

use serde::{Deserialize, Serialize};

/// Thousandths of a CPU: the precision of Mesos scalars (`src/common/values.cpp`).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MilliCpu(pub u64);

/// Bytes of memory or disk.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

const MIB: f64 = 1_048_576.0;

/// Largest number of CPUs or MiB that a definition may ask for; keeps every sum inside `u64`.
pub const AMOUNT_MAX: f64 = 1e9;

impl MilliCpu {
    /// From the number in a definition (`0.1` is 100). `None` when negative, not a number or
    /// over [`AMOUNT_MAX`].
    #[must_use]
    pub fn from_cpus(cpus: f64) -> Option<Self> {
        (0.0..=AMOUNT_MAX)
            .contains(&cpus)
            .then(|| Self((cpus * 1000.0).round() as u64))
    }

    /// As the APIs print it.
    #[must_use]
    pub fn cpus(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl Bytes {
    /// From MiB, which the APIs call MB. `None` when negative, not a number or over
    /// [`AMOUNT_MAX`].
    #[must_use]
    pub fn from_mib(mib: f64) -> Option<Self> {
        (0.0..=AMOUNT_MAX)
            .contains(&mib)
            .then(|| Self((mib * MIB).round() as u64))
    }

    /// As the APIs print it, in MiB.
    #[must_use]
    pub fn mib(self) -> f64 {
        self.0 as f64 / MIB
    }
}
